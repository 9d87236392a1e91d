// SPDX-License-Identifier: GPL-2.0

//! A userfaultfd of another program.
//!
//! It is for the memory of the process that makes it, so the program has to, and knows nothing of
//! it: before its first instruction a debugger's means have it make the system call.

use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use anyhow::{bail, ensure, Context, Result};
use mmops_raw::process::trace;
use mmops_raw::write_tracking::ProcessUffd;
use mmops_uapi::pidfd_open;
use nix::libc::{self, user_regs_struct};
use nix::sys::ptrace::{self, AddressType};
use nix::sys::signal::Signal;
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::Pid;
use rustix::process::{pidfd_getfd, PidfdGetfdFlags};

/// The instruction `syscall`, as the lowest bytes of a word, and these bytes.
const SYSCALL: i64 = 0x050f;
const SYSCALL_BYTES: i64 = 0xffff;

/// Runs the command. The program has a userfaultfd, which is returned.
pub fn spawn(command: &mut Command) -> Result<(Child, ProcessUffd)> {
    trace(command);
    let mut child = command.spawn()?;
    match make(&child) {
        Ok(uffd) => Ok((child, uffd)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

fn make(child: &Child) -> Result<ProcessUffd> {
    let pid = Pid::from_raw(child.id() as i32);
    wait_for_stop(pid)?;
    let flags = libc::O_CLOEXEC as u64;
    let number = call(pid, libc::SYS_userfaultfd as u64, flags).context("ptrace")?;
    ensure!(number >= 0, "userfaultfd: error {}", -number);
    let pidfd = pidfd_open(child.id()).context("pidfd_open")?;
    let fd: OwnedFd =
        pidfd_getfd(pidfd, number as i32, PidfdGetfdFlags::empty()).context("pidfd_getfd")?;
    let uffd = ProcessUffd::new(fd)
        .context("asynchronous write protection by userfaultfd, which the kernel may lack")?;
    ptrace::detach(pid, None).context("ptrace")?;
    Ok(uffd)
}

/// Has a tracee that is stopped make a system call; nothing else of it changes.
fn call(pid: Pid, number: u64, argument: u64) -> Result<i64> {
    let registers = ptrace::getregs(pid)?;
    let at = registers.rip as AddressType;
    let code = ptrace::read(pid, at)?;
    ptrace::write(pid, at, code & !SYSCALL_BYTES | SYSCALL)?;
    let for_call = user_regs_struct {
        rax: number,
        rdi: argument,
        ..registers
    };
    ptrace::setregs(pid, for_call)?;
    ptrace::step(pid, None)?;
    wait_for_stop(pid)?;
    let result = ptrace::getregs(pid)?.rax as i64;
    ptrace::write(pid, at, code)?;
    ptrace::setregs(pid, registers)?;
    Ok(result)
}

fn wait_for_stop(pid: Pid) -> Result<()> {
    match waitpid(pid, None)? {
        WaitStatus::Stopped(_, Signal::SIGTRAP) => Ok(()),
        other => bail!("not a stop: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    /// Runs where the kernel of the build machine has asynchronous write protection.
    #[test]
    fn a_program_goes_on_with_a_userfaultfd() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo here"]).stdout(Stdio::piped());
        match spawn(&mut command) {
            Ok((child, _uffd)) => {
                let output = child.wait_with_output().unwrap();
                assert!(output.status.success());
                assert_eq!(output.stdout, b"here\n");
            }
            Err(error) => eprintln!("skipped: {error:#}"),
        }
    }
}
