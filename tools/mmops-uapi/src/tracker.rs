// SPDX-License-Identifier: GPL-2.0

//! A tracker of what changes in the memory of a process, or in a file.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use mmops_raw::ioctl;
use nix::errno::Errno;

use crate::device::{call, process};
use crate::sys::*;
use crate::{retry_on_eintr, Device, Done, Error, Features};

/// Records that are read at once.
const ROOM: usize = 4096;

/// How a tracker notices stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By dirty bits: a store costs nothing. Not seen are changes that do not go through the page
    /// tables of the process: by `ptrace(2)`, `/proc/PID/mem`, `process_vm_writev(2)`, a virtual
    /// machine, a device whose pin does not last to a begin, and those of a mapped file by others.
    /// Of a tracker of a file, stores by a virtual machine alone.
    Fast,
    /// By write permissions as well: the first store to a page in an epoch faults. These are seen
    /// then, but for changes of a mapped file by others, a page of a file that is pinned while
    /// reclaim has taken its entry, and one that a driver keeps for a store without a pin.
    Full,
}

/// Why pages are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A store was seen, to these pages or to others of the same huge leaf.
    Written,
    /// They are pinned for DMA: they may change at any time, and are in the next epoch as well.
    Pinned,
    /// Of a process: their contents are new. There was nothing at the last begin, or no begin.
    New,
    /// Of a process: nothing is mapped there any more, or it reads as zeroes or as what userfaultfd
    /// serves for it.
    Gone,
    /// They may have changed, or may yet: nobody knows.
    Changed,
}

/// Consecutive pages that are reported for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Their addresses, or their bytes in the file.
    pub range: Range<u64>,
    /// Why they are reported.
    pub kind: Kind,
}

/// Tells which pages of a range may have changed since it was asked last: of addresses of a
/// process, or of bytes of a file.
///
/// It is an open device, and ends when it is dropped.
#[derive(Debug)]
pub struct Tracker {
    device: Device,
    range: Range<u64>,
}

/// What may have changed between one [`Tracker::begin`] and the next. The pages of an epoch that is
/// dropped, and not committed, are in the next one again.
#[derive(Debug)]
#[must_use = "what is dropped is reported again"]
pub struct Epoch<'t> {
    tracker: &'t Tracker,
    is_committed: bool,
    begun: mmops_track_begin,
}

fn flags(mode: Mode) -> u32 {
    match mode {
        Mode::Fast => MMOPS_TRACK_FAST,
        Mode::Full => MMOPS_TRACK_FULL,
    }
}

impl Tracker {
    /// Begins to track a range of addresses of a process, of the caller without a pidfd. It need
    /// not be mapped. The first epoch has all of it.
    pub fn new(
        pidfd: Option<BorrowedFd<'_>>,
        range: Range<u64>,
        mode: Mode,
    ) -> Result<Self, Error> {
        Self::open(
            pidfd,
            range,
            flags(mode),
            process("track", pidfd, Done::Untold),
        )
    }

    /// Begins to track a range of bytes of a file, which need not reach that far yet. Whoever
    /// changes it, by whatever way, is seen, but for a virtual machine in [`Mode::Fast`]. The file
    /// is open for reading and writing. The first epoch has all of the range.
    ///
    /// Fails with `EOPNOTSUPP` for a file of a kind whose changes the kernel does not tell.
    pub fn of_file(file: impl AsFd, range: Range<u64>, mode: Mode) -> Result<Self, Error> {
        Self::open(
            Some(file.as_fd()),
            range,
            flags(mode) | MMOPS_TRACK_FILE,
            call("track a file", Done::Untold),
        )
    }

    fn open(
        subject: Option<BorrowedFd<'_>>,
        range: Range<u64>,
        flags: u32,
        error: impl Fn(Errno) -> Error,
    ) -> Result<Self, Error> {
        let device = Device::open()?;
        let has_kinds = device.info()?.features.contains(Features::TRACK_KINDS);
        let mut arg = mmops_track_open {
            flags: flags | if has_kinds { MMOPS_TRACK_KINDS } else { 0 },
            addr: range.start,
            len: range.end.saturating_sub(range.start),
            ..Default::default()
        };
        // The kernel does not begin to tell of an address space while a signal is pending.
        retry_on_eintr(|| ioctl(&device.raw, &mut arg, subject, ())).map_err(error)?;
        Ok(Self { device, range })
    }

    /// The addresses, or the bytes of the file, that are tracked.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Begins an epoch. What changes while the call runs is in it or in the next.
    pub fn begin(&mut self) -> Result<Epoch<'_>, Error> {
        let mut begun = mmops_track_begin::default();
        ioctl(&self.device.raw, &mut begun, (), ()).map_err(call("track", Done::Untold))?;
        Ok(Epoch {
            tracker: self,
            is_committed: false,
            begun,
        })
    }
}

impl Epoch<'_> {
    /// Number of pages of [`Kind::Written`] or [`Kind::Pinned`].
    pub fn written(&self) -> u64 {
        self.begun.written
    }

    /// Number of pages of all other kinds.
    pub fn changed(&self) -> u64 {
        self.begun.changed
    }

    /// Whether each epoch has all of the range: it is too large, or memory was short.
    pub fn is_overflow(&self) -> bool {
        self.begun.state & MMOPS_TRACK_OVERFLOW != 0
    }

    /// Whether the address space has ended, by exit or exec: each epoch has all of the range.
    pub fn has_ended(&self) -> bool {
        self.begun.state & MMOPS_TRACK_ENDED != 0
    }

    /// Puts as many records of pages from `addr` on into `room` as there are and fit: their number,
    /// and where to go on, if there are more.
    pub fn read(
        &self,
        addr: u64,
        room: &mut [mmops_track_range],
    ) -> Result<(usize, Option<u64>), Error> {
        let mut arg = mmops_track_read {
            addr,
            ..Default::default()
        };
        let result = ioctl(&self.tracker.device.raw, &mut arg, (), room);
        result.map_err(call("track", Done::Untold))?;
        let is_all = arg.nr == arg.needed;
        Ok((arg.nr as usize, (!is_all).then_some(arg.addr)))
    }

    /// The pages, in ascending order.
    pub fn pages(&self) -> Result<Vec<Changed>, Error> {
        let mut room = vec![mmops_track_range::default(); ROOM];
        let mut pages = Vec::new();
        let mut from = Some(self.tracker.range.start);
        while let Some(addr) = from {
            let (nr, next) = self.read(addr, &mut room)?;
            pages.extend(room[..nr].iter().map(|found| Changed {
                range: found.addr..found.addr + found.len,
                kind: match found.kind {
                    MMOPS_TRACK_WRITTEN => Kind::Written,
                    MMOPS_TRACK_PINNED => Kind::Pinned,
                    MMOPS_TRACK_NEW => Kind::New,
                    MMOPS_TRACK_GONE => Kind::Gone,
                    _ => Kind::Changed,
                },
            }));
            from = next;
        }
        Ok(pages)
    }

    /// Sets the bits of the pages that are reported, of whatever kind, and clears all others: bit
    /// `n % 64` of word `n / 64` is the page `n` behind `addr`, which lies in the range. Returns
    /// how many are set.
    pub fn bitmap(&self, addr: u64, words: &mut [u64]) -> Result<u64, Error> {
        let mut arg = mmops_track_bitmap {
            addr,
            ..Default::default()
        };
        let result = ioctl(&self.tracker.device.raw, &mut arg, (), words);
        result.map_err(call("track", Done::Untold))?;
        Ok(arg.nr)
    }

    /// The pages are done with.
    pub fn commit(mut self) -> Result<(), Error> {
        self.is_committed = true;
        self.end(0)
    }

    fn end(&self, flags: u32) -> Result<(), Error> {
        let mut arg = mmops_track_end {
            flags,
            ..Default::default()
        };
        let result = ioctl(&self.tracker.device.raw, &mut arg, (), ());
        result.map_err(call("track", Done::Untold))?;
        Ok(())
    }
}

impl Drop for Epoch<'_> {
    fn drop(&mut self) {
        if !self.is_committed {
            // Nobody could do anything about it, and there is no reason to fail.
            let _ = self.end(MMOPS_TRACK_ABORT);
        }
    }
}
