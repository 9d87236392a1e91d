// SPDX-License-Identifier: GPL-2.0

//! Holding the threads of a process while something is looked at.
//!
//! Another process does it ([`crate::holder`]): it can be ended at any time, and then the kernel
//! lets the threads go.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{bail, Context, Result};
use mmops_uapi::retry_on_eintr;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::holder::{Answer, HOLD, RELEASE};

/// Milliseconds until the other process is given up: more than its own patience. It can be blocked
/// by a process that executes a program in one of many threads.
const PATIENCE: u16 = 5000;

/// What became of the attempt to hold a process.
#[derive(Debug, PartialEq)]
pub enum Outcome<T> {
    /// It was held, and this was seen.
    Seen(T),
    /// It was held, and let go too early.
    SeenInPart(T),
    /// It was held, and killed before it was let go: its memory may have gone at any time.
    Killed(T),
    /// It could not be held, for this reason, and runs.
    Runs(String),
    /// It has ended.
    Ended,
}

/// What holds a process.
#[derive(Debug)]
pub struct Holder {
    pid: i32,
    helper: Option<Helper>,
}

impl Holder {
    /// Nothing is held yet.
    pub fn new(pid: i32) -> Self {
        Self { pid, helper: None }
    }

    /// Starts the other process, so that it takes no time later.
    pub fn prepare(&mut self) -> Result<()> {
        if self.helper.is_none() {
            self.helper = Some(Helper::start(self.pid)?);
        }
        Ok(())
    }

    /// Holds all threads of the process while `look` runs.
    ///
    /// Whatever happens, the process is not held when this has returned; and when this program is
    /// killed in the middle of it, the kernel lets the process go.
    pub fn hold<T>(&mut self, look: impl FnOnce() -> Result<T>) -> Result<Outcome<T>> {
        let mut helper = match self.helper.take() {
            Some(helper) => helper,
            None => Helper::start(self.pid)?,
        };
        // Dropped, and so ended, unless it is put back.
        match helper.ask(HOLD)? {
            Some(Answer::Held) => {}
            Some(Answer::Ended) => return Ok(Outcome::Ended),
            Some(Answer::Waits { tid, in_kernel }) => {
                let why = if in_kernel {
                    "waits in the kernel, as for a child of vfork(2)"
                } else {
                    "does not come to run"
                };
                return Ok(Outcome::Runs(format!("thread {tid} {why}")));
            }
            Some(Answer::Traced { tid, by }) => {
                return Ok(Outcome::Runs(format!(
                    "thread {tid} has a tracer, process {by}"
                )))
            }
            Some(Answer::Refused { tid }) => {
                return Ok(Outcome::Runs(format!("thread {tid} may not be traced")))
            }
            Some(Answer::Released | Answer::ReleasedByEnd | Answer::Killed) | None => {
                return Ok(Outcome::Runs("its threads cannot be held".into()))
            }
        }
        let seen = look()?;
        Ok(match helper.ask(RELEASE)? {
            Some(Answer::Released) => {
                self.helper = Some(helper);
                Outcome::Seen(seen)
            }
            Some(Answer::ReleasedByEnd) => Outcome::Seen(seen),
            Some(Answer::Killed) => Outcome::Killed(seen),
            _ => Outcome::SeenInPart(seen),
        })
    }
}

/// The other process.
#[derive(Debug)]
struct Helper {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Helper {
    fn start(pid: i32) -> Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .args(["hold", &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run this program again, from /proc/self/exe")?;
        let (Some(commands), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("no pipes");
        };
        Ok(Self {
            child,
            commands,
            answers: BufReader::new(answers),
        })
    }

    /// The answer to a command; none if it has ended, or does not answer.
    fn ask(&mut self, command: u8) -> Result<Option<Answer>> {
        match self.commands.write_all(&[command]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
            result => result?,
        }
        let answers = self.answers.get_ref().as_fd();
        let ready = retry_on_eintr(|| {
            let mut fds = [PollFd::new(answers, PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(PATIENCE))
        })?;
        if ready == 0 {
            return Ok(None);
        }
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(serde_json::from_str(&line).ok())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // When it is gone, nothing is held.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
