// SPDX-License-Identifier: GPL-2.0

//! The program that a command runs and looks at.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::libc;
use procfs::process::Process;
use procfs::ProcResult;

use crate::process::is_end;

/// Whether a process is about to end, or has ended: then it can have no memory, and yet be there.
fn is_dying(pid: i32) -> ProcResult<bool> {
    const PF_EXITING: u32 = 4;
    const SIGKILL: u64 = 1 << (libc::SIGKILL - 1);
    let process = Process::new(pid)?;
    let (stat, status) = (process.stat()?, process.status()?);
    let is_killed = (status.sigpnd | status.shdpnd) & SIGKILL != 0;
    Ok(is_end(stat.state) || stat.flags & PF_EXITING != 0 || is_killed)
}

/// How long to wait for the end of a process that something cannot be done with.
pub fn last_words(pid: u32) -> Duration {
    match is_dying(pid as i32) {
        // It comes to it, however busy the machine is.
        Ok(true) | Err(_) => Duration::from_secs(60),
        Ok(false) => Duration::from_millis(500),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_dying() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(!is_dying(child.id() as i32).unwrap());
        child.kill().unwrap();
        // For a moment the signal is not pending any more, and the process does not end yet.
        while !is_dying(child.id() as i32).unwrap() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(is_dying(child.id() as i32).is_err());
    }
}
