// SPDX-License-Identifier: GPL-2.0

//! The program that a command runs and looks at.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result};

/// How long a process can have no memory and yet be there, when it ends by itself.
pub const LAST_WORDS: Duration = Duration::from_millis(500);

/// A command of a program and its arguments.
///
/// Standard output is for the report alone if that is `json`; what the program prints there goes to
/// standard error then.
pub fn command<S: AsRef<OsStr>>(program: &[S], json: bool) -> Result<Command> {
    let (name, arguments) = program.split_first().context("no program")?;
    let mut command = Command::new(name);
    command.args(arguments);
    if json {
        command.stdout(io::stderr());
    }
    Ok(command)
}

/// Starts what [`command`] returned.
pub fn start(mut command: Command) -> Result<Child> {
    command
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))
}
