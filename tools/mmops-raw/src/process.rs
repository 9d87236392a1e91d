// SPDX-License-Identifier: GPL-2.0

//! Other processes.

use std::fs;
use std::io;
use std::iter;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;

/// `kcmp(2)`: whether two threads have one address space.
const KCMP_VM: libc::c_int = 1;

/// A process that has other memory than this one.
#[derive(Clone, Copy, Debug)]
pub struct OtherProcess<'fd>(BorrowedFd<'fd>);

impl<'fd> OtherProcess<'fd> {
    /// The process behind a pidfd; none if it has the memory of this one.
    ///
    /// # Errors
    ///
    /// `EBADF` if this is no pidfd, `EPERM` if this process may not know, `ENOSYS` if the kernel
    /// does not tell.
    pub fn new(pidfd: BorrowedFd<'fd>) -> nix::Result<Option<Self>> {
        let info = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
        let info = fs::read_to_string(info).map_err(|_| Errno::EBADF)?;
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
        let pid = pid.ok_or(Errno::EBADF)?;
        let is_other = match pid.trim().parse() {
            // It has ended, and has no memory.
            Ok(-1) => true,
            Ok(pid) if pid > 0 => has_other_memory(pid)?,
            // It has no number here.
            _ => return Err(Errno::EPERM),
        };
        // It stays so: an address space is left by exec, and nobody is given that of another.
        Ok(is_other.then_some(Self(pidfd)))
    }

    /// The pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'fd> {
        self.0
    }
}

/// Whether no thread of a process has the memory of this one. Its main thread may have ended, and
/// has none then.
fn has_other_memory(pid: i32) -> nix::Result<bool> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let tids = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok());
    for tid in iter::once(pid).chain(tids) {
        // SAFETY: The call takes no pointer.
        let order = unsafe { libc::syscall(libc::SYS_kcmp, process::id(), tid, KCMP_VM, 0, 0) };
        match Errno::result(order) {
            Ok(0) => return Ok(false),
            // It has ended.
            Ok(_) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

/// Has the program be traced by this process from its first instruction on, before which it stops.
pub fn trace(command: &mut Command) {
    // SAFETY: Between fork and exec only a system call is made.
    unsafe { command.pre_exec(|| ptrace::traceme().map_err(io::Error::from)) };
}

/// Lets a tracee go on, with a signal if that is not 0. Signals of any number: the type of `nix`
/// has no realtime signals.
pub fn go_on(tid: i32, signal: i32) -> nix::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: The request accesses no memory of this process, which is no tracee of its own.
    let result = unsafe { libc::ptrace(libc::PTRACE_CONT, tid, none, libc::c_long::from(signal)) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{pidfd_open, Pid, PidfdFlags};
    use std::os::fd::{AsFd, OwnedFd};

    fn pidfd(pid: u32) -> OwnedFd {
        let pid = Pid::from_raw(pid as i32).unwrap();
        pidfd_open(pid, PidfdFlags::empty()).unwrap()
    }

    #[test]
    fn own_memory_is_not_that_of_another() {
        let own = pidfd(std::process::id());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let other = pidfd(child.id());
        assert!(OtherProcess::new(own.as_fd()).unwrap().is_none());
        assert!(OtherProcess::new(other.as_fd()).unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(OtherProcess::new(other.as_fd()).unwrap().is_some());
        let file = fs::File::open("/proc/self/comm").unwrap();
        assert_eq!(OtherProcess::new(file.as_fd()).unwrap_err(), Errno::EBADF);
    }
}
