// SPDX-License-Identifier: GPL-2.0

//! The process that holds the threads of another one: `mmopsctl hold`, which [`crate::hold`] runs.
//!
//! It attaches to each thread as a debugger does that wants to be noticed least: `PTRACE_SEIZE` and
//! `PTRACE_INTERRUPT`, which send no signal. Two promises of the kernel make this safe. When the
//! tracer ends, of whatever, its tracees are let go, in any state; and a thread that had stopped
//! (SIGSTOP, Ctrl-Z) stops again. So this process ends when it is not needed any more, when its
//! parent does, and when a thread cannot be held or let go: that is all the tidying that there is.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mmops_raw::process::go_on;
use mmops_uapi::retry_on_eintr;
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use procfs::process::Process;
use rustix::process::{self, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};

use crate::cli::Hold;
use crate::process::is_end;

/// Command, a byte on standard input: hold all threads.
pub const HOLD: u8 = b'h';
/// Command: let them go.
pub const RELEASE: u8 = b'r';

/// How long a thread may take until it can be held: its turn to run may be far.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same for one that sleeps in the kernel, which can take any time, while others are held.
const PATIENCE_IN_KERNEL: Duration = Duration::from_millis(200);
/// Time between two looks at the threads.
const STEP: Duration = Duration::from_micros(500);

/// Answer to a command: a line of JSON on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// No thread runs.
    Held,
    /// They were let go.
    Released,
    /// They were let go, but for some that have ended, which is as with [`Answer::Waits`].
    ReleasedByEnd,
    /// They were let go, and one that was held has been killed meanwhile: the memory may have gone
    /// while it was looked at. As with [`Answer::Waits`].
    Killed,
    /// The process has ended.
    Ended,
    /// The thread could not be held in time. All are let go when this process has ended, which it
    /// does now.
    Waits { tid: i32, in_kernel: bool },
    /// The thread has a tracer, so it cannot be held. As with [`Answer::Waits`], all are let go.
    Traced { tid: i32, by: i32 },
    /// The thread may not be traced. As with [`Answer::Waits`], all are let go.
    Refused { tid: i32 },
}

/// What `waitid(2)` tells of a tracee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    /// It has not stopped.
    Nothing,
    /// It is held: `PTRACE_EVENT_STOP`.
    Held,
    /// It stopped on its way to take a signal, or for another reason that gives 0.
    Signal(i32),
    /// It has ended.
    Ended,
    /// It is no tracee.
    Unknown,
}

/// What is known of the tracee `tid`.
fn report(tid: i32, options: WaitIdOptions) -> Report {
    let Some(id) = process::Pid::from_raw(tid) else {
        return Report::Unknown;
    };
    // Those of other threads as well.
    let options = options | WaitIdOptions::from_bits_retain(libc::__WALL as u32);
    let result = retry_on_eintr(|| {
        process::waitid(WaitId::Pid(id), options)
            .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
    });
    let status = match result {
        Ok(Some(status)) => status,
        Ok(None) => return Report::Nothing,
        Err(_) => return Report::Unknown,
    };
    match status.trapping_signal() {
        Some(status) if status >> 8 == libc::PTRACE_EVENT_STOP => Report::Held,
        Some(status) if status >> 8 == 0 => Report::Signal(status),
        Some(_) => Report::Signal(0),
        None if status.exited() || status.killed() || status.dumped() => Report::Ended,
        None => Report::Nothing,
    }
}

/// Lets tracees that have ended go for good.
///
/// A thread that executes a program waits until all others are gone, the dead ones of their tracer
/// included, and who would attach to it waits for the exec. So another thread has to do this.
fn bury(pid: i32) {
    let Ok(tasks) = Process::new(pid).and_then(|process| process.tasks()) else {
        return;
    };
    for task in tasks.flatten() {
        // Not one that lives: its stop would be forgotten.
        if task.stat().is_ok_and(|stat| is_end(stat.state)) {
            report(task.tid, WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// The threads of a process.
struct Threads {
    pid: i32,
    /// Those that were attached to.
    seized: BTreeSet<i32>,
    /// Those of them that have been seen held.
    held: BTreeSet<i32>,
}

impl Threads {
    fn new(pid: i32) -> Self {
        Self {
            pid,
            seized: BTreeSet::new(),
            held: BTreeSet::new(),
        }
    }

    fn hold(&mut self) -> Answer {
        let (pid, done) = (self.pid, AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    bury(pid);
                    std::thread::sleep(STEP);
                }
            });
            let answer = self.try_to_hold();
            done.store(true, Ordering::Relaxed);
            answer
        })
    }

    fn try_to_hold(&mut self) -> Answer {
        let begin = Instant::now();
        loop {
            let answer = self.look();
            let patience = match answer {
                Answer::Waits { in_kernel, .. } if in_kernel => PATIENCE_IN_KERNEL,
                Answer::Waits { .. } | Answer::Refused { .. } => PATIENCE,
                _ => return answer,
            };
            if begin.elapsed() >= patience {
                return answer;
            }
            std::thread::sleep(STEP);
        }
    }

    /// Goes through all threads once, and takes each a step further. Answers that all are held if
    /// there was nothing to do: they were before the list of threads was made, so nobody was there
    /// who could make a new one.
    fn look(&mut self) -> Answer {
        let Ok(tasks) = Process::new(self.pid).and_then(|process| process.tasks()) else {
            return Answer::Ended;
        };
        let mut answer = Answer::Ended;
        let mut held = BTreeSet::new();
        for task in tasks {
            let Ok(task) = task else { continue };
            let Ok(stat) = task.stat() else { continue };
            let tid = task.tid;
            if is_end(stat.state) {
                continue;
            }
            // After an exec by another thread, the main thread is not what it was.
            if self.held.contains(&tid) && stat.state == 't' {
                held.insert(tid);
                if answer == Answer::Ended {
                    answer = Answer::Held;
                }
                continue;
            }
            self.held.remove(&tid);
            answer = Answer::Waits {
                tid,
                in_kernel: stat.state == 'D',
            };
            if self.seized.contains(&tid) {
                self.step(tid);
                continue;
            }
            match ptrace::seize(Pid::from_raw(tid), ptrace::Options::empty()) {
                Ok(()) => {
                    self.seized.insert(tid);
                    self.interrupt(tid);
                }
                // It has ended meanwhile.
                Err(Errno::ESRCH) => {}
                Err(_) => match task.status().map_or(0, |status| status.tracerpid) {
                    // That is so for a moment at its end, and for a main thread that another takes
                    // the place of.
                    0 => answer = Answer::Refused { tid },
                    by if by == std::process::id() as i32 => {
                        // It was another one of ours before an exec.
                        self.seized.insert(tid);
                        self.interrupt(tid);
                    }
                    by => return Answer::Traced { tid, by },
                },
            }
        }
        if answer == Answer::Held {
            // Not those that an exec has ended meanwhile.
            self.held = held;
        }
        answer
    }

    fn interrupt(&self, tid: i32) {
        // It may have ended, which the next look sees.
        let _ = ptrace::interrupt(Pid::from_raw(tid));
    }

    fn step(&mut self, tid: i32) {
        // What is only looked at stays: should this process end, the tracee takes its signal.
        const LOOK: WaitIdOptions = WaitIdOptions::STOPPED
            .union(WaitIdOptions::EXITED)
            .union(WaitIdOptions::NOHANG)
            .union(WaitIdOptions::NOWAIT);
        match report(tid, LOOK) {
            // Again: an exec can have lost it.
            Report::Nothing => self.interrupt(tid),
            Report::Held => {
                self.held.insert(tid);
            }
            Report::Signal(signal) => {
                // A stop of any kind takes the place of the one that was asked for.
                self.interrupt(tid);
                // It may have been killed, which the next look sees.
                let _ = go_on(tid, signal);
            }
            Report::Ended | Report::Unknown => {
                self.seized.remove(&tid);
            }
        }
    }

    /// Lets all threads go.
    ///
    /// One that has ended cannot be let go, and is not there for its parent, who waits for it, as
    /// long as it has a tracer: one that was killed, and a main thread that ended while it was to
    /// be held, which has to stay until the others are gone. The end of this process lets it go.
    fn release(&mut self) -> Answer {
        let mut answer = Answer::Released;
        let mut is_killed = false;
        for tid in std::mem::take(&mut self.seized) {
            if self.held.remove(&tid) {
                // This works while it is held, and nothing but SIGKILL takes it from there.
                if ptrace::detach(Pid::from_raw(tid), None).is_ok() {
                    continue;
                }
                is_killed = true;
            }
            match report(tid, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Report::Ended | Report::Unknown => {}
                _ => answer = Answer::ReleasedByEnd,
            }
        }
        if is_killed {
            return Answer::Killed;
        }
        answer
    }
}

pub fn run(args: &Hold) -> Result<()> {
    // Before the first command: if the parent has ended already, there is none.
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot follow the parent")?;
    let mut threads = Threads::new(args.pid);
    let mut commands = io::stdin().lock();
    let mut out = io::stdout().lock();
    let mut command = [0];
    while commands.read_exact(&mut command).is_ok() {
        let answer = match command[0] {
            HOLD => threads.hold(),
            _ => threads.release(),
        };
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        out.flush()?;
        if !matches!(answer, Answer::Held | Answer::Released) {
            break;
        }
    }
    Ok(())
}
