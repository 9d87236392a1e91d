// SPDX-License-Identifier: GPL-2.0

//! A range of addresses of this process for anything to happen in, and calls that are kept to it.
//!
//! Nothing of the program is there, and nobody has a reference into it: whatever is mapped, changed
//! or taken away there, at whichever time, the rest of the program does not notice. The range is
//! always at the same place, where the kernel puts nothing by itself as long as there is room
//! above: so a call has the same arguments in each run.

mod call;
mod interrupt;
mod span;
mod userfault;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::libc;
use rustix::fs::{memfd_create, MemfdFlags};
use rustix::process::{
    pidfd_open, pidfd_send_signal, waitid, Pid, PidfdFlags, Signal, WaitId, WaitIdOptions,
};

pub use call::*;
pub use interrupt::{allow_interrupts, interrupt, this_thread};
pub use span::{Span, BIG, BIG_LEN, LEN, PAGE, START};
pub use userfault::Userfault;

/// Most pages that one store or load is made to.
const TOUCHED: usize = 64;

/// Where the structure of a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In memory of the program.
    Memory,
    /// Where nothing is mapped.
    Nowhere,
}

/// What is mapped.
#[derive(Clone, Copy, Debug)]
pub enum Mapped<'a> {
    /// Private memory of no file.
    Anonymous,
    /// Shared memory of no file.
    SharedAnonymous,
    /// A file from this page on, shared.
    Shared(BorrowedFd<'a>, u64),
    /// A file from this page on, private.
    Private(BorrowedFd<'a>, u64),
}

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Stores to the range, and stays until it is killed.
    Stays,
    /// Stores to the range, and ends.
    Ends,
}

/// A child that has the range of the sandbox as it was, and runs nothing of the program.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Child {
    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_pid()
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Kills a child, if it has not ended by itself, and waits for its end.
pub fn end_child(pidfd: impl AsFd) {
    // Both fail where it has ended, and was waited for.
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
}

/// The range. There is one at a time.
#[derive(Debug)]
pub struct Sandbox {
    /// What stores come from, and loads go to.
    pattern: OwnedFd,
}

/// A system call. Those of this module change memory in the range of the sandbox alone, or a
/// structure that lives across the call.
fn syscall(call: libc::c_long, args: [u64; 6]) -> nix::Result<i64> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: Nobody has a reference into the range, and the program has nothing there. A process
    // that is made here makes system calls until it ends, and nothing else.
    Errno::result(unsafe { libc::syscall(call, a, b, c, d, e, f) })
}

/// A system call that takes a range first, which has to be in the sandbox.
fn syscall_on(call: libc::c_long, span: Span, args: [u64; 4]) -> nix::Result<i64> {
    if !span.is_inside() {
        return Err(Errno::EINVAL);
    }
    let [c, d, e, f] = args;
    syscall(call, [span.addr, span.len, c, d, e, f])
}

/// Of an argument, which is as wide as a register.
fn wide(number: i32) -> u64 {
    number as i64 as u64
}

/// How it is mapped at first.
const RESERVED: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
/// All of the first part.
pub const ALL: Span = Span {
    addr: START,
    len: LEN,
};
/// Both parts, and what is between them: first address, and bytes.
const WHOLE: [u64; 2] = [START, BIG + BIG_LEN - START];

impl Sandbox {
    /// Reserves the range.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is one.
    pub fn new() -> io::Result<Self> {
        Self::reserve(RESERVED | libc::MAP_FIXED_NOREPLACE)?;
        let pattern = memfd_create("pattern", MemfdFlags::CLOEXEC)?;
        let file = File::from(pattern.try_clone()?);
        file.write_all_at(&[0x5a; TOUCHED * 8], 0)?;
        Ok(Self { pattern })
    }

    /// As it was at first: nothing is mapped.
    pub fn clear(&self) -> nix::Result<()> {
        Self::reserve(RESERVED | libc::MAP_FIXED)
    }

    /// Both parts, and what is between them.
    fn reserve(flags: i32) -> nix::Result<()> {
        let [addr, len] = WHOLE;
        syscall(libc::SYS_mmap, [addr, len, 0, wide(flags), wide(-1), 0]).map(drop)
    }

    /// Issues a call of a device, with the structure as it is.
    ///
    /// # Errors
    ///
    /// Of the call; `EXDEV` if it could change memory that is not in the range, and is not issued.
    pub fn ioctl<C: Call>(&self, dev: &C::Device, arg: &mut C, place: Place) -> nix::Result<i32> {
        if !arg.touches().into_iter().all(Span::is_confined) {
            return Err(Errno::EXDEV);
        }
        let at: *mut C = match place {
            Place::Memory => arg,
            Place::Nowhere => std::ptr::without_provenance_mut(PAGE as usize),
        };
        // The device has the call of this number, which takes a structure of this type: that lives
        // across the call, or is where nothing is mapped.
        let fd = dev.as_fd().as_raw_fd();
        let args = [wide(fd), C::NUMBER.into(), at as u64, 0, 0, 0];
        syscall(libc::SYS_ioctl, args).map(|result| result as i32)
    }

    /// `mmap(2)`.
    pub fn map(&self, span: Span, what: Mapped<'_>, prot: i32, populate: bool) -> nix::Result<()> {
        let (flags, fd, page) = match what {
            Mapped::Anonymous => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
            Mapped::SharedAnonymous => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0),
            Mapped::Shared(fd, page) => (libc::MAP_SHARED, fd.as_raw_fd(), page),
            Mapped::Private(fd, page) => (libc::MAP_PRIVATE, fd.as_raw_fd(), page),
        };
        let populate = if populate { libc::MAP_POPULATE } else { 0 };
        let flags = flags | populate | libc::MAP_FIXED;
        let args = [wide(prot), wide(flags), wide(fd), page.wrapping_mul(PAGE)];
        syscall_on(libc::SYS_mmap, span, args).map(drop)
    }

    /// `munmap(2)`
    pub fn unmap(&self, span: Span) -> nix::Result<()> {
        syscall_on(libc::SYS_munmap, span, [0, 0, 0, 0]).map(drop)
    }

    /// `mprotect(2)`
    pub fn protect(&self, span: Span, prot: i32) -> nix::Result<()> {
        syscall_on(libc::SYS_mprotect, span, [wide(prot), 0, 0, 0]).map(drop)
    }

    /// `madvise(2)`, but that no memory is poisoned.
    pub fn advise(&self, span: Span, advice: i32) -> nix::Result<()> {
        if [libc::MADV_HWPOISON, libc::MADV_SOFT_OFFLINE].contains(&advice) {
            return Err(Errno::EPERM);
        }
        syscall_on(libc::SYS_madvise, span, [wide(advice), 0, 0, 0]).map(drop)
    }

    /// `mlock(2)`, or `munlock(2)`
    pub fn lock(&self, span: Span, lock: bool) -> nix::Result<()> {
        let call = if lock {
            libc::SYS_mlock
        } else {
            libc::SYS_munlock
        };
        syscall_on(call, span, [0; 4]).map(drop)
    }

    /// `msync(2)`
    pub fn sync(&self, span: Span) -> nix::Result<()> {
        syscall_on(libc::SYS_msync, span, [wide(libc::MS_SYNC), 0, 0, 0]).map(drop)
    }

    /// `mremap(2)` to the place named.
    pub fn remap(&self, from: Span, to: Span) -> nix::Result<()> {
        if !to.is_inside() {
            return Err(Errno::EINVAL);
        }
        let flags = wide(libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
        syscall_on(libc::SYS_mremap, from, [to.len, flags, to.addr, 0]).map(drop)
    }

    /// Stores a word to each page of a range, of the first pages at least, by a copy to user
    /// memory: there is no signal where it faults. The number of bytes.
    pub fn store(&self, span: Span) -> nix::Result<usize> {
        self.touch(span, libc::SYS_preadv)
    }

    /// The same for loads.
    pub fn load(&self, span: Span) -> nix::Result<usize> {
        self.touch(span, libc::SYS_pwritev)
    }

    fn touch(&self, span: Span, call: libc::c_long) -> nix::Result<usize> {
        if !span.is_inside() {
            return Err(Errno::EINVAL);
        }
        let mut words = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 8,
        }; TOUCHED];
        let nr = TOUCHED.min((span.len / PAGE) as usize);
        for (i, word) in words.iter_mut().enumerate() {
            word.iov_base = (span.addr + i as u64 * PAGE) as *mut libc::c_void;
        }
        let fd = wide(self.pattern.as_raw_fd());
        let done = syscall(call, [fd, words.as_ptr() as u64, nr as u64, 0, 0, 0]);
        done.map(|done| done as usize)
    }

    /// `fork(2)`. The child stores to a range first.
    pub fn fork(&self, span: Span, life: Life) -> io::Result<Child> {
        let pid = syscall(libc::SYS_fork, [0; 6])?;
        if pid == 0 {
            let (option, signal) = (wide(libc::PR_SET_PDEATHSIG), wide(libc::SIGKILL));
            let _ = syscall(libc::SYS_prctl, [option, signal, 0, 0, 0, 0]);
            let _ = self.store(span);
            loop {
                let call = match life {
                    Life::Stays => libc::SYS_pause,
                    Life::Ends => libc::SYS_exit_group,
                };
                let _ = syscall(call, [0; 6]);
            }
        }
        let pid = Pid::from_raw(pid as i32).expect("a process");
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Child { pid, pidfd })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let [addr, len] = WHOLE;
        let _ = syscall(libc::SYS_munmap, [addr, len, 0, 0, 0, 0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_for_anything() {
        let sandbox = Sandbox::new().unwrap();
        assert!(Sandbox::new().is_err());
        let span = |addr, len| Span { addr, len };
        let two = span(START, 2 * PAGE);
        assert_eq!(sandbox.store(two), Err(Errno::EFAULT));
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        sandbox.map(two, Mapped::Anonymous, prot, false).unwrap();
        assert_eq!(sandbox.store(two), Ok(16));
        sandbox.remap(two, span(START + LEN / 2, two.len)).unwrap();
        assert_eq!(sandbox.load(two), Err(Errno::EFAULT));
        let mut bytes = [0; 9];
        let memory = File::open("/proc/self/mem").unwrap();
        memory.read_exact_at(&mut bytes, START + LEN / 2).unwrap();
        assert_eq!(bytes, [0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0]);
        assert_eq!(sandbox.unmap(span(START + LEN, PAGE)), Err(Errno::EINVAL));
        sandbox.clear().unwrap();
        sandbox
            .map(span(START, LEN), Mapped::SharedAnonymous, prot, false)
            .unwrap();
        sandbox.advise(two, libc::MADV_DONTNEED).unwrap();
        let big = span(BIG, 2 * PAGE);
        sandbox.map(big, Mapped::Anonymous, prot, false).unwrap();
        assert_eq!(sandbox.store(big), Ok(16));
        sandbox.clear().unwrap();
        assert_eq!(sandbox.store(big), Err(Errno::EFAULT));
    }
}
