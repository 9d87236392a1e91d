// SPDX-License-Identifier: GPL-2.0

//! The device and its calls.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use bitflags::bitflags;
use mmops_raw::process::OtherProcess;
#[cfg(feature = "memory")]
use mmops_raw::Memory;
use mmops_raw::{ioctl, Mmops, Target};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use rustix::process::{Pid, PidfdFlags};

use crate::sys::*;
use crate::{retry_on_eintr, Bitmap, Done, Error};

/// Where the driver puts its device.
pub const DEVICE_PATH: &str = "/dev/mmops";

bitflags! {
    /// How a range is to be changed.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// Split PMD leaves of the page cache first, so that later stores are tracked in base
        /// pages. Other huge leaves stay.
        const SPLIT = MMOPS_SPLIT;
        /// [`Device::clean_record`] only: do not mark folios dirty. For a caller that writes
        /// the data back itself; anything else loses stores at the next writeback.
        const NO_TRANSFER = MMOPS_NO_TRANSFER;
    }

    /// What a processor may do with memory; the bits are those of `mprotect(2)`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Prot: u32 {
        /// Load.
        const READ = 1;
        /// Store.
        const WRITE = 2;
        /// Fetch instructions.
        const EXEC = 4;
    }

    /// What the driver can do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// [`Device::write_protect`].
        const WRITE_PROTECT = MMOPS_FEATURE_WRITE_PROTECT;
        /// [`Device::clean_record`].
        const CLEAN_RECORD = MMOPS_FEATURE_CLEAN_RECORD;
        /// Huge leaves are handled, not skipped.
        const HUGE_LEAVES = MMOPS_FEATURE_HUGE_LEAVES;
        /// [`Device::zap`].
        const ZAP = MMOPS_FEATURE_ZAP;
        /// [`Device::clear_soft_dirty`].
        const SOFT_DIRTY = MMOPS_FEATURE_SOFT_DIRTY;
        /// Pages can be a device's own.
        const EXCLUSIVE = MMOPS_FEATURE_EXCLUSIVE;
        /// [`Device::notifier_subscribe`] and [`Device::notifier_log`].
        const NOTIFIER = MMOPS_FEATURE_NOTIFIER;
        /// [`Device::protect`].
        const PROTECT = MMOPS_FEATURE_PROTECT;
        /// [`Device::leaves`].
        const LEAVES = MMOPS_FEATURE_LEAVES;
        /// [`Device::age`].
        const AGE = MMOPS_FEATURE_AGE;
        /// [`Tracker`](crate::Tracker).
        const TRACK = MMOPS_FEATURE_TRACK;
        /// [`Mode::Full`](crate::Mode::Full).
        const TRACK_FULL = MMOPS_FEATURE_TRACK_FULL;
        /// [`Tracker::of_file`](crate::Tracker::of_file).
        const TRACK_FILE = MMOPS_FEATURE_TRACK_FILE;
        /// All of [`Kind`](crate::Kind), and not two of them.
        const TRACK_KINDS = MMOPS_FEATURE_TRACK_KINDS;
        /// [`Epoch::bitmap`](crate::Epoch::bitmap).
        const TRACK_BITMAP = MMOPS_FEATURE_TRACK_BITMAP;
        /// The module was built with faults for tests: not for use.
        const FAULTS = MMOPS_FEATURE_FAULTS;
        // A newer driver may have more.
        const _ = !0;
    }
}

/// What [`Device::info`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Version of the interface: major, minor.
    pub version: (u16, u16),
    /// Bytes in a page; page offsets and counts are in this unit.
    pub page_size: u32,
    /// What the driver can do.
    pub features: Features,
}

/// Result of [`Device::write_protect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteProtect {
    /// Pages whose entry lost its write permission, summed over all mappings.
    pub write_protected: u64,
}

/// Result of [`Device::clean_record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanRecord {
    /// Pages whose entry lost its dirty bit, summed over all mappings: a page that is mapped
    /// and dirty in two processes counts twice here, and is one bit of the bitmap.
    pub cleaned: u64,
}

/// What [`Device::revoke`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoke {
    /// Base pages that were given back.
    pub revoked: u64,
}

/// Result of [`Device::zap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zap {
    /// Pages whose entry was taken.
    pub zapped: u64,
}

/// Result of [`Device::clear_soft_dirty`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClearSoftDirty {
    /// Pages whose entry was soft-dirty.
    pub cleared: u64,
    /// Pages that cannot be tracked, and read as they did.
    pub kept: u64,
}

/// Result of [`Device::age`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// Base pages whose leaf was young, and is old now.
    pub aged: u64,
    /// Base pages whose leaf is young still, since the range covers it in part.
    pub kept: u64,
}

/// Result of [`Device::protect`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protect {
    /// Leaves of base page size whose protection changed.
    pub ptes: u64,
    /// Leaves of PMD size whose protection changed.
    pub pmds: u64,
    /// Leaves of PUD size whose protection changed.
    pub puds: u64,
    /// Leaves of PMD size that were split.
    pub split_pmds: u64,
    /// Leaves of PUD size that were split.
    pub split_puds: u64,
}

/// Result of [`Device::notifier_log`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Number of events.
    pub events: usize,
    /// Events that were not kept since the last call.
    pub lost: u64,
    /// Whether the address space has ended and there is no more to come.
    pub released: bool,
}

/// `/dev/mmops`, open.
#[derive(Debug)]
pub struct Device {
    pub(crate) raw: Mmops,
}

impl Device {
    /// Opens [`DEVICE_PATH`] and checks that its driver speaks this version of the interface.
    pub fn open() -> Result<Self, Error> {
        Self::open_at(DEVICE_PATH)
    }

    /// As [`Device::open`], for a device that is somewhere else.
    pub fn open_at(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let raw = Mmops::open(path).map_err(|e| Error::Open {
            path: path.to_owned(),
            errno: e
                .raw_os_error()
                .map_or(Errno::UnknownErrno, Errno::from_raw),
        })?;
        let device = Self { raw };
        let (major, minor) = device.info()?.version;
        if u32::from(major) != MMOPS_UAPI_VERSION >> 16 {
            return Err(Error::Version {
                driver: u32::from(major) << 16 | u32::from(minor),
                program: MMOPS_UAPI_VERSION,
            });
        }
        Ok(device)
    }

    /// What the driver is and can do.
    pub fn info(&self) -> Result<Info, Error> {
        let mut arg = mmops_info::default();
        ioctl(&self.raw, &mut arg, (), ()).map_err(call("info", Done::Untold))?;
        Ok(Info {
            version: ((arg.version >> 16) as u16, arg.version as u16),
            page_size: arg.page_size,
            features: Features::from_bits_retain(arg.features),
        })
    }

    /// Write-protects `nr` pages of `file` from page offset `first` on, in every process that
    /// maps them shared.
    ///
    /// `file` must be open for reading and writing. The range may reach past the end of the file.
    pub fn write_protect(
        &self,
        file: impl AsFd,
        first: u64,
        nr: u64,
        flags: Flags,
    ) -> Result<WriteProtect, Error> {
        let mut arg = mmops_write_protect {
            flags: flags.bits(),
            first,
            nr,
            ..Default::default()
        };
        let result = ioctl(&self.raw, &mut arg, file.as_fd(), ());
        result.map_err(call("write-protect", arg.done.into()))?;
        Ok(WriteProtect {
            write_protected: arg.write_protected,
        })
    }

    /// Takes the dirty bits of `nr` pages of `file` from page offset `first` on, in every process
    /// that maps them shared, and sets a bit of `bitmap` for each page that was dirty.
    ///
    /// When this returns, every store made before is either in memory for everyone to read and
    /// in `bitmap`, or will be in the next harvest. `file` must be open for reading and writing.
    /// The range may reach past the end of the file, and must lie inside the bitmap's window.
    pub fn clean_record(
        &self,
        file: impl AsFd,
        first: u64,
        nr: u64,
        bitmap: &mut Bitmap,
        flags: Flags,
    ) -> Result<CleanRecord, Error> {
        let mut arg = mmops_clean_record {
            flags: flags.bits(),
            first,
            nr,
            bitmap_pgoff: bitmap.pgoff(),
            start: bitmap.start,
            end: bitmap.end,
            ..Default::default()
        };
        let result = ioctl(&self.raw, &mut arg, file.as_fd(), bitmap.words_mut());
        if matches!(result, Ok(_) | Err(Errno::EINTR)) {
            bitmap.start = arg.start;
            bitmap.end = arg.end;
        }
        result.map_err(call("harvest", arg.done.into()))?;
        Ok(CleanRecord {
            cleaned: arg.cleaned,
        })
    }

    /// Takes all pages in a range of addresses away from another process, for which see
    /// [`other_process`].
    ///
    /// Its next access faults, and gets the page of the file, with everything that was stored to
    /// it, or for private memory a page as it was at first: what was stored there is lost.
    pub fn zap(&self, process: &OtherProcess<'_>, range: Range<u64>) -> Result<Zap, Error> {
        let arg = mmops_zap {
            addr: range.start,
            len: range.end.saturating_sub(range.start),
            ..Default::default()
        };
        self.zap_target(arg, Target::Process(process), Some(process.pidfd()))
    }

    /// As [`Device::zap`], for all of a mapping of the caller.
    #[cfg(feature = "memory")]
    pub fn zap_memory(&self, memory: &Memory) -> Result<Zap, Error> {
        self.zap_target(mmops_zap::default(), Target::Memory(memory), None)
    }

    fn zap_target(
        &self,
        mut arg: mmops_zap,
        target: Target<'_>,
        pidfd: Option<BorrowedFd<'_>>,
    ) -> Result<Zap, Error> {
        let result = ioctl(&self.raw, &mut arg, target, ());
        result.map_err(process("zap", pidfd, arg.done.into()))?;
        Ok(Zap { zapped: arg.zapped })
    }

    /// Gives pages that are a device's own back to the CPU: pages of the caller without a pidfd.
    ///
    /// Nothing that a program can see changes: an access would give a page back as well.
    pub fn revoke(
        &self,
        pidfd: Option<BorrowedFd<'_>>,
        range: Range<u64>,
    ) -> Result<Revoke, Error> {
        let mut arg = mmops_revoke {
            addr: range.start,
            len: range.end.saturating_sub(range.start),
            ..Default::default()
        };
        let result = ioctl(&self.raw, &mut arg, pidfd, ());
        result.map_err(process("revoke", pidfd, arg.done.into()))?;
        Ok(Revoke {
            revoked: arg.revoked,
        })
    }

    /// Makes the leaves of a range of addresses of a process old, the caller without a pidfd, and
    /// counts those that were young: what was accessed since it was called last.
    pub fn age(&self, pidfd: Option<BorrowedFd<'_>>, range: Range<u64>) -> Result<Age, Error> {
        let mut arg = mmops_age {
            addr: range.start,
            len: range.end.saturating_sub(range.start),
            ..Default::default()
        };
        let result = ioctl(&self.raw, &mut arg, pidfd, ());
        result.map_err(process("age", pidfd, arg.done.into()))?;
        Ok(Age {
            aged: arg.aged,
            kept: arg.kept,
        })
    }

    /// Protects the leaves of a range of addresses of a process, the caller without a pidfd, below
    /// what its mappings allow. An access that is not permitted faults, and the kernel permits it
    /// again, as the mapping says; so nothing that a program can see changes.
    ///
    /// `prot` is what the mappings allow, the same without [`Prot::WRITE`], or nothing.
    pub fn protect(
        &self,
        pidfd: Option<BorrowedFd<'_>>,
        range: Range<u64>,
        prot: Prot,
    ) -> Result<Protect, Error> {
        let mut arg = mmops_protect {
            addr: range.start,
            len: range.end.saturating_sub(range.start),
            prot: prot.bits(),
            ..Default::default()
        };
        let result = ioctl(&self.raw, &mut arg, pidfd, ());
        result.map_err(process("protect", pidfd, arg.done.into()))?;
        Ok(Protect {
            ptes: arg.ptes,
            pmds: arg.pmds,
            puds: arg.puds,
            split_pmds: arg.split_pmds,
            split_puds: arg.split_puds,
        })
    }

    /// Lists the leaves of a range of addresses of a process, the caller without a pidfd.
    ///
    /// Holes are passed over. Each leaf is as it was when it was looked at.
    pub fn leaves(
        &self,
        pidfd: Option<BorrowedFd<'_>>,
        range: Range<u64>,
    ) -> Result<Vec<mmops_leaf>, Error> {
        const ROOM: usize = 1 << 16;
        let mut leaves = Vec::new();
        let mut room = vec![mmops_leaf::default(); ROOM];
        let mut next = range.start;
        while next < range.end {
            let mut arg = mmops_leaves {
                addr: next,
                len: range.end - next,
                ..Default::default()
            };
            let result = ioctl(&self.raw, &mut arg, pidfd, &mut room);
            result.map_err(process("leaves", pidfd, Done::Untold))?;
            leaves.extend_from_slice(&room[..arg.nr as usize]);
            next = arg.next;
        }
        Ok(leaves)
    }

    /// Clears the soft-dirty bits of a process: of the caller without a pidfd, and of all of its
    /// memory without a range of addresses.
    ///
    /// A page that is stored to after this has returned reads as soft-dirty in `/proc/PID/pagemap`.
    pub fn clear_soft_dirty(
        &self,
        pidfd: Option<BorrowedFd<'_>>,
        range: Option<Range<u64>>,
    ) -> Result<ClearSoftDirty, Error> {
        let mut arg = mmops_soft_dirty_clear {
            ..Default::default()
        };
        match range {
            Some(range) => {
                arg.addr = range.start;
                arg.len = range.end.saturating_sub(range.start);
            }
            None => arg.flags = MMOPS_SOFT_DIRTY_ALL,
        }
        let result = ioctl(&self.raw, &mut arg, pidfd, ());
        result.map_err(process("clear soft-dirty", pidfd, arg.done.into()))?;
        Ok(ClearSoftDirty {
            cleared: arg.cleared,
            kept: arg.kept,
        })
    }

    /// Subscribes this open device to all invalidations of the address space of a process, and to
    /// its end. Up to `capacity` events are kept until they are read.
    pub fn notifier_subscribe(&self, pidfd: BorrowedFd<'_>, capacity: u32) -> Result<(), Error> {
        let mut arg = mmops_notifier_subscribe {
            flags: MMOPS_NOTIFIER_MM,
            capacity,
            ..Default::default()
        };
        // The kernel does not begin to tell of an address space while a signal is pending.
        retry_on_eintr(|| ioctl(&self.raw, &mut arg, Some(pidfd), ()))
            .map_err(call("subscribe to invalidations", Done::Untold))?;
        Ok(())
    }

    /// Waits for invalidations, and puts as many into `events` as there are and fit.
    ///
    /// A signal whose handler returns does not end the wait.
    pub fn notifier_log(&self, events: &mut [mmops_notifier_event]) -> Result<Heard, Error> {
        let nr = events.len().min(MMOPS_NOTIFIER_MAX_EVENTS as usize);
        let arg = retry_on_eintr(|| {
            let mut arg = mmops_notifier_log {
                flags: MMOPS_NOTIFIER_WAIT,
                ..Default::default()
            };
            ioctl(&self.raw, &mut arg, (), &mut events[..nr])?;
            Ok(arg)
        })
        .map_err(call("read invalidations", Done::Untold))?;
        Ok(Heard {
            events: arg.nr as usize,
            lost: arg.lost,
            released: arg.released != 0,
        })
    }
}

/// A descriptor of a process, for calls on it.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// The process behind `pidfd`, for [`Device::zap`]: one that does not share its memory with the
/// caller, which would lose what it works with.
pub fn other_process(pidfd: BorrowedFd<'_>) -> Result<OtherProcess<'_>, Error> {
    match OtherProcess::new(pidfd) {
        Ok(Some(process)) => Ok(process),
        Ok(None) => Err(Error::OwnMemory),
        // The call itself has another number for that.
        Err(Errno::EPERM) => Err(process("zap", None, Done::Untold)(Errno::EACCES)),
        Err(errno) => Err(process("zap", None, Done::Untold)(errno)),
    }
}

/// Turns the error number of `call` into an error; `done` is how far it got.
pub(crate) fn call(call: &'static str, done: Done) -> impl Fn(Errno) -> Error {
    move |errno| match errno {
        errno if is_partial(errno, done) => Error::Partial { call, errno, done },
        errno => Error::Call { call, errno },
    }
}

/// Whether a call that ended with `errno` may have changed something.
fn is_partial(errno: Errno, done: Done) -> bool {
    errno == Errno::EINTR || done.is_something()
}

/// As [`call`], for a call on the process behind `pidfd`.
pub(crate) fn process<'fd>(
    call: &'static str,
    pidfd: Option<BorrowedFd<'fd>>,
    done: Done,
) -> impl Fn(Errno) -> Error + 'fd {
    move |errno| match errno {
        errno if is_partial(errno, done) => Error::Partial { call, errno, done },
        Errno::ESRCH if pidfd.is_some_and(|pidfd| !has_ended(pidfd).unwrap_or(true)) => {
            Error::NoMemory { call }
        }
        errno => Error::Process { call, errno },
    }
}

/// Whether the process behind `pidfd` has ended, with all of its threads.
pub fn has_ended(pidfd: BorrowedFd<'_>) -> nix::Result<bool> {
    wait_for_end(pidfd, Duration::ZERO)
}

/// Waits for up to `time` until the process behind `pidfd` has ended, with all of its threads;
/// whether it has. A signal whose handler returns does not end the wait.
pub fn wait_for_end(pidfd: BorrowedFd<'_>, time: Duration) -> nix::Result<bool> {
    let end = Instant::now().checked_add(time);
    retry_on_eintr(|| {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        // Rounded up, so that it is not asked again and again in the last millisecond.
        let left = left.map(|left| left.saturating_add(Duration::from_micros(999)));
        let left = left.map_or(PollTimeout::NONE, |left| {
            left.try_into().unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
        Ok(poll(&mut fds, left)? != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mmops_raw::units::{Bytes, Pages};

    #[test]
    fn no_driver() {
        let error = Device::open_at("/nonexistent/mmops").unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENOENT));
    }

    #[test]
    fn not_the_driver() {
        let error = Device::open_at("/dev/null").unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENOTTY));
        assert!(error.to_string().contains("not the device of mmops"));
    }

    #[test]
    fn own_memory_is_not_zapped() {
        let own = pidfd_open(std::process::id()).unwrap();
        let error = other_process(own.as_fd()).unwrap_err();
        assert!(error.to_string().contains("has the memory of this program"));
        assert_eq!(
            pidfd_open(0).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn a_process_that_lives_is_not_said_to_have_ended() {
        let own = pidfd_open(std::process::id()).unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let other = pidfd_open(child.id()).unwrap();
        assert!(wait_for_end(other.as_fd(), Duration::MAX).unwrap());
        assert!(!wait_for_end(own.as_fd(), Duration::from_nanos(1)).unwrap());
        let text = |fd: &OwnedFd| process("zap", Some(fd.as_fd()), Bytes(0).into())(Errno::ESRCH);
        assert!(text(&own).to_string().contains("about to end"));
        assert_eq!(text(&own).errno(), Some(Errno::ESRCH));
        assert!(text(&other).to_string().ends_with("the process has ended"));
        child.wait().unwrap();
        assert!(text(&other).to_string().ends_with("the process has ended"));
    }

    /// The unit is that of the structure, in all calls that can be ended half-way.
    #[test]
    fn progress_has_its_unit() {
        let text = |error: Error| error.to_string();
        let done = mmops_clean_record {
            done: Pages(1),
            ..Default::default()
        };
        assert_eq!(
            text(call("harvest", done.done.into())(Errno::EINTR)),
            "harvest: ended by a signal after 1 page"
        );
        let done = mmops_zap {
            done: Bytes(8192),
            ..Default::default()
        };
        assert_eq!(
            text(process("zap", None, done.done.into())(Errno::EINTR)),
            "zap: ended by a signal after 8192 bytes"
        );
        assert_eq!(
            text(process("protect", None, Bytes(4096).into())(Errno::ENOMEM)),
            "protect: Out of memory after 4096 bytes"
        );
        assert!(text(process("protect", None, Bytes(0).into())(Errno::ENOMEM)).contains("mapped"));
        assert_eq!(
            text(process("leaves", None, Done::Untold)(Errno::EINTR)),
            "leaves: ended by a signal"
        );
    }
}
