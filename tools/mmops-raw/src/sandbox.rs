// SPDX-License-Identifier: GPL-2.0

//! A range of addresses of this process for anything to happen in, and calls that are kept to it.
//!
//! Nothing of the program is there, and nobody has a reference into it: whatever is mapped, changed
//! or taken away there, at whichever time, the rest of the program does not notice. The range is
//! always at the same place, where the kernel puts nothing by itself as long as there is room
//! above: so a call has the same arguments in each run.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use linux_raw_sys::general::{
    uffdio_api, uffdio_copy, uffdio_range, uffdio_register, uffdio_writeprotect, uffdio_zeropage,
    UFFDIO_REGISTER_MODE_MISSING, UFFDIO_REGISTER_MODE_WP, UFFD_API, UFFD_FEATURE_SIGBUS,
    UFFD_FEATURE_WP_ASYNC, UFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFD_FEATURE_WP_UNPOPULATED,
};
use linux_raw_sys::ioctl::{
    UFFDIO_API, UFFDIO_COPY, UFFDIO_REGISTER, UFFDIO_UNREGISTER, UFFDIO_WRITEPROTECT,
    UFFDIO_ZEROPAGE,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
use rustix::fs::{memfd_create, MemfdFlags};
use rustix::mm::{userfaultfd, UserfaultfdFlags};
use rustix::process::{pidfd_open, Pid, PidfdFlags};
use rustix::thread::gettid;

use crate::device::misc;
use crate::ioctl::number_for;
use crate::sys::*;
use crate::Mmops;

/// First address.
pub const START: u64 = 0x2_0000_0000;
/// Length, in bytes: four leaves of PMD size.
pub const LEN: u64 = 8 << 20;
/// Bytes in a base page.
pub const PAGE: u64 = 4096;

/// Below it nothing is ever mapped (`vm.mmap_min_addr`).
const LOWEST: u64 = 0x1_0000;
/// From here on nothing belongs to a process, whatever the levels of page tables.
const KERNEL: u64 = 1 << 63;
/// Most pages that one store or load is made to.
const TOUCHED: usize = 64;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First address.
    pub addr: u64,
    /// Length, in bytes.
    pub len: u64,
}

impl Span {
    /// Whether it lies in the range of the sandbox.
    fn is_inside(self) -> bool {
        let end = self.addr.checked_add(self.len);
        self.addr >= START && end.is_some_and(|end| end <= START + LEN)
    }

    /// Whether no memory of the program is in it: also where there can be none.
    fn is_confined(self) -> bool {
        let Some(end) = self.addr.checked_add(self.len) else {
            return true;
        };
        self.len == 0 || end <= LOWEST || self.addr >= KERNEL || self.is_inside()
    }
}

/// Of so many records, which is no range if they are more than there are addresses.
fn array(addr: u64, nr: u64, size: u64) -> Span {
    let len = nr.saturating_mul(size);
    Span { addr, len }
}

/// A call of a device that changes memory only where its structure says.
pub trait Call: Sealed + Copy {
    /// What has the call.
    type Device: AsFd;
    /// The number of the call.
    const NUMBER: u32;
    /// Whose contents the call may change, beside the structure.
    fn touches(&self) -> [Span; 2];
}

use sealed::Sealed;
mod sealed {
    /// Of this crate, which knows what a call does.
    pub trait Sealed {}
}

const NONE: Span = Span { addr: 0, len: 0 };

macro_rules! calls {
    ($device:ty: $($type:ty, $number:expr, $touches:expr;)+) => {
        $(
            impl Sealed for $type {}

            impl Call for $type {
                type Device = $device;
                const NUMBER: u32 = number_for::<Self>($number);

                fn touches(&self) -> [Span; 2] {
                    let touches: fn(&Self) -> [Span; 2] = $touches;
                    touches(self)
                }
            }
        )+
    };
}

calls! {
    Mmops:
    mmops_info, MMOPS_IOC_INFO, |_| [NONE; 2];
    mmops_write_protect, MMOPS_IOC_WRITE_PROTECT, |_| [NONE; 2];
    mmops_clean_record, MMOPS_IOC_CLEAN_RECORD,
        |arg| [array(arg.bitmap, arg.bitmap_bits.div_ceil(64), 8), NONE];
    mmops_zap, MMOPS_IOC_ZAP, |arg| [array(arg.addr, arg.len, 1), NONE];
    mmops_soft_dirty_clear, MMOPS_IOC_SOFT_DIRTY_CLEAR, |_| [NONE; 2];
    mmops_exclusive, MMOPS_IOC_EXCLUSIVE,
        |arg| [array(arg.results, arg.len.div_ceil(PAGE), 1), NONE];
    mmops_revoke, MMOPS_IOC_REVOKE, |_| [NONE; 2];
    mmops_atomic_add, MMOPS_IOC_ATOMIC_ADD,
        |arg| [array(arg.addr, arg.nr, arg.stride.max(8)), NONE];
    mmops_notifier_log, MMOPS_IOC_NOTIFIER_LOG,
        |arg| [array(arg.events, arg.nr.into(), size_of::<mmops_notifier_event>() as u64), NONE];
    mmops_notifier_subscribe, MMOPS_IOC_NOTIFIER_SUBSCRIBE, |_| [NONE; 2];
    mmops_notifier_probe, MMOPS_IOC_NOTIFIER_PROBE, |_| [NONE; 2];
    mmops_protect, MMOPS_IOC_PROTECT, |_| [NONE; 2];
    mmops_leaves, MMOPS_IOC_LEAVES,
        |arg| [array(arg.vec, arg.vec_len, size_of::<mmops_leaf>() as u64), NONE];
    mmops_age, MMOPS_IOC_AGE, |_| [NONE; 2];
    mmops_track_open, MMOPS_IOC_TRACK_OPEN, |_| [NONE; 2];
    mmops_track_begin, MMOPS_IOC_TRACK_BEGIN, |_| [NONE; 2];
    mmops_track_read, MMOPS_IOC_TRACK_READ,
        |arg| [array(arg.vec, arg.vec_len, size_of::<mmops_track_range>() as u64), NONE];
    mmops_track_end, MMOPS_IOC_TRACK_END, |_| [NONE; 2];
}

macro_rules! device {
    ($(#[$doc:meta])* $device:ident, $name:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $device(File);

        impl $device {
            /// Opens the device at `path`.
            ///
            /// # Errors
            ///
            /// `ENOTTY` if it is another one.
            pub fn open(path: &Path) -> io::Result<Self> {
                misc(path, $name).map(Self)
            }
        }

        impl AsFd for $device {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }
    };
}

device! {
    /// The first device of `samples/mirror`, open.
    Mirror, "hmm_dmirror0"
}
device! {
    /// The device of `mmops_leafmap.ko`, open.
    Leafmap, "mmops_leafmap"
}
device! {
    /// The device of `mmops_walk.ko`, open.
    Walk, "mmops_walk"
}

/// `struct hmm_dmirror_cmd` of the kernel's `lib/test_hmm_uapi.h`, for the call of the number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct hmm_dmirror_cmd<const NR: u8> {
    pub addr: u64,
    pub ptr: u64,
    pub npages: u64,
    pub cpages: u64,
    pub faults: u64,
}

impl<const NR: u8> Sealed for hmm_dmirror_cmd<NR> {}

impl<const NR: u8> Call for hmm_dmirror_cmd<NR> {
    type Device = Mirror;
    const NUMBER: u32 = nix::request_code_readwrite!(b'H', NR, size_of::<Self>()) as u32;

    fn touches(&self) -> [Span; 2] {
        [self.addr, self.ptr].map(|addr| array(addr, self.npages, PAGE))
    }
}

/// `struct mmops_walk` of `selftests/modules/mmops_walk/mmops_walk.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_walk {
    pub op: u32,
    pub flags: u32,
    pub fd: i32,
    pub pad: u32,
    pub first: u64,
    pub nr: u64,
    pub gather: u64,
    pub vmas: u64,
    pub tables: u64,
    pub leaves: u64,
    pub present: u64,
    pub writable: u64,
    pub changed: u64,
    pub split: u64,
    pub reserved: u64,
}

/// `mmops_walk::op`: the one that takes pages away.
pub const MMOPS_WALK_ZAP: u32 = 7;

calls! {
    Walk:
    mmops_walk, nix::request_code_readwrite!(0xbc, 0x00, size_of::<mmops_walk>()) as u32,
        |arg| if arg.op == MMOPS_WALK_ZAP {
            [array(arg.first, arg.nr, PAGE), array(arg.first, arg.gather, PAGE)]
        } else {
            [NONE; 2]
        };
}

/// `struct mmops_leafmap_serve` of `selftests/modules/mmops_leafmap/mmops_leafmap.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_leafmap_serve {
    pub order: u32,
    pub flags: u32,
    pub skew: u64,
}

/// `struct mmops_leafmap_unmap`, likewise.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_leafmap_unmap {
    pub offset: u64,
    pub len: u64,
}

macro_rules! leafmap_calls {
    ($($type:ty, $nr:expr;)+) => {
        $(
            impl Sealed for $type {}

            // What the device maps is mapped in the sandbox alone.
            impl Call for $type {
                type Device = Leafmap;
                const NUMBER: u32 =
                    nix::request_code_write!(0xbf, $nr, size_of::<Self>()) as u32;

                fn touches(&self) -> [Span; 2] {
                    [NONE; 2]
                }
            }
        )+
    };
}

leafmap_calls! {
    mmops_leafmap_serve, 0x00;
    mmops_leafmap_unmap, 0x02;
}

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
pub struct Child(OwnedFd);

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The range. There is one at a time.
#[derive(Debug)]
pub struct Sandbox {
    /// What stores come from, and loads go to.
    pattern: OwnedFd,
}

/// A system call. Those of this file change memory in the range of the sandbox alone, or a structure
/// that lives across the call.
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

/// All of the range, as it is at first.
const RESERVED: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
const ALL: Span = Span {
    addr: START,
    len: LEN,
};

impl Sandbox {
    /// Reserves the range.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is one.
    pub fn new() -> io::Result<Self> {
        let flags = RESERVED | libc::MAP_FIXED_NOREPLACE;
        syscall_on(libc::SYS_mmap, ALL, [0, wide(flags), wide(-1), 0])?;
        let pattern = memfd_create("pattern", MemfdFlags::CLOEXEC)?;
        let file = File::from(pattern.try_clone()?);
        file.write_all_at(&[0x5a; TOUCHED * 8], 0)?;
        Ok(Self { pattern })
    }

    /// As it was at first: nothing is mapped.
    pub fn clear(&self) -> nix::Result<()> {
        let flags = RESERVED | libc::MAP_FIXED;
        syscall_on(libc::SYS_mmap, ALL, [0, wide(flags), wide(-1), 0]).map(drop)
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
        Ok(Child(pidfd_open(pid, PidfdFlags::empty())?))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.unmap(ALL);
    }
}

/// A userfaultfd for ranges of the sandbox: who faults where a page is missing or protected gets a
/// signal, or `EFAULT` in a call, and nobody waits.
#[derive(Debug)]
pub struct Userfault(OwnedFd);

impl Userfault {
    /// With `wp_async`, a store to a page that is protected makes it writable instead.
    pub fn new(wp_async: bool) -> io::Result<Self> {
        // SAFETY: It is asked to do nothing but below, on ranges of the sandbox.
        let this = Self(unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }?);
        let mut features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
        if wp_async {
            features |= UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED;
        }
        let mut api = uffdio_api {
            api: UFFD_API.into(),
            features: features.into(),
            ioctls: 0,
        };
        this.call(UFFDIO_API, &mut api)?;
        Ok(this)
    }

    /// A call that takes such a structure, and changes memory in the range of the sandbox alone.
    fn call<A>(&self, number: u32, arg: &mut A) -> nix::Result<()> {
        let fd = wide(self.0.as_raw_fd());
        let args = [fd, number.into(), std::ptr::from_mut(arg) as u64, 0, 0, 0];
        syscall(libc::SYS_ioctl, args).map(drop)
    }

    fn range(span: Span) -> nix::Result<uffdio_range> {
        let (start, len) = (span.addr, span.len);
        span.is_inside()
            .then_some(uffdio_range { start, len })
            .ok_or(Errno::EINVAL)
    }

    /// Registers a range: for missing pages, for protected ones, or both.
    pub fn register(&self, span: Span, missing: bool, wp: bool) -> nix::Result<()> {
        let mut mode = 0;
        if missing {
            mode |= UFFDIO_REGISTER_MODE_MISSING;
        }
        if wp {
            mode |= UFFDIO_REGISTER_MODE_WP;
        }
        let mut arg = uffdio_register {
            range: Self::range(span)?,
            mode: mode.into(),
            ioctls: 0,
        };
        self.call(UFFDIO_REGISTER, &mut arg)
    }

    /// Ends that.
    pub fn unregister(&self, span: Span) -> nix::Result<()> {
        let mut arg = Self::range(span)?;
        self.call(UFFDIO_UNREGISTER, &mut arg)
    }

    /// Protects a range, or permits stores again.
    pub fn write_protect(&self, span: Span, protect: bool) -> nix::Result<()> {
        let mut arg = uffdio_writeprotect {
            range: Self::range(span)?,
            mode: protect.into(),
        };
        self.call(UFFDIO_WRITEPROTECT, &mut arg)
    }

    /// Maps zeros where pages are missing.
    pub fn zero(&self, span: Span) -> nix::Result<()> {
        let mut arg = uffdio_zeropage {
            range: Self::range(span)?,
            mode: 0,
            zeropage: 0,
        };
        self.call(UFFDIO_ZEROPAGE, &mut arg)
    }

    /// Maps copies of other pages of the sandbox where pages are missing.
    pub fn copy(&self, from: Span, to: Span) -> nix::Result<()> {
        let (from, to) = (Self::range(from)?, Self::range(to)?);
        let mut arg = uffdio_copy {
            dst: to.start,
            src: from.start,
            len: to.len.min(from.len),
            mode: 0,
            copy: 0,
        };
        self.call(UFFDIO_COPY, &mut arg)
    }
}

/// Has the threads of this process wake from calls by [`interrupt`].
pub fn allow_interrupts() -> nix::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler = SigHandler::Handler(nothing);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: The handler does nothing, and nobody else has one for this signal.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.map(drop)
}

/// The number of this thread.
pub fn this_thread() -> i32 {
    gettid().as_raw_nonzero().get()
}

/// Ends the wait of a thread of this process in a system call, after [`allow_interrupts`].
pub fn interrupt(thread: i32) -> nix::Result<()> {
    let (pid, signal) = (std::process::id().into(), wide(libc::SIGUSR1));
    syscall(libc::SYS_tgkill, [pid, wide(thread), signal, 0, 0, 0]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(addr: u64, len: u64) -> Span {
        Span { addr, len }
    }

    #[test]
    fn spans_with_memory_of_the_program_are_not_confined() {
        assert!(span(START, LEN).is_confined());
        assert!(!span(START - 1, 2).is_confined());
        assert!(!span(START + LEN - PAGE, PAGE + 1).is_confined());
        assert!(span(START, u64::MAX - START + 1).is_confined());
        assert!(!span(START, u64::MAX - START).is_confined());
        assert!(span(0, PAGE).is_confined());
        assert!(!span(0, LOWEST + 1).is_confined());
        assert!(span(KERNEL, PAGE).is_confined());
        assert!(!span(KERNEL - 1, PAGE).is_confined());
        assert!(!array(START, u64::MAX / 8 + 2, 8).is_inside());
    }

    #[test]
    fn the_range_is_for_anything() {
        let sandbox = Sandbox::new().unwrap();
        assert!(Sandbox::new().is_err());
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
    }
}
