// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_TRACK_*`: which pages of a process, or of a file, may have changed.
//!
//! A tracker belongs to an open file, and ends when that is closed.

use crate::{
    addr_range,
    address_space,
    uapi,
    Device, //
};
use core::pin::Pin;
use kernel::{
    bindings,
    fs::File,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::poll::PollTable,
    uaccess::UserSlice, //
};
use mmops::{
    bitmap::BITS_PER_WORD,
    mapping::Mapping,
    range::{
        AddrRange,
        PageRange, //
    },
    track::{
        Epoch,
        Kind,
        Kinds,
        Mode,
        Tracker, //
    }, //
};

/// Ranges that are copied under one hold of the lock: user memory is not touched under it.
const CHUNK: usize = 64;

/// What [`Device`] holds for this file.
pub(crate) type Slot = Option<KBox<Open>>;

/// A tracker, and how far its epoch was read.
pub(crate) struct Open {
    tracker: Tracker,
    /// Whether records have a kind of [`Kind`], or one of two.
    has_kinds: bool,
    read: Option<Read>,
}

/// Where the last call has ended, and what there is behind: who reads on in order need not have the
/// records counted anew for each call.
#[derive(Clone, Copy)]
struct Read {
    /// Number of the epoch.
    epoch: u64,
    /// First page that was not read.
    next: usize,
    /// Records from there on.
    left: u64,
}

/// What is tracked of a process, or of a file.
enum Range {
    Addresses(AddrRange),
    Offsets(PageRange),
}

/// `len` bytes from the offset `start` of a file on.
fn offset_range(start: u64, len: u64) -> Result<PageRange> {
    let page = PAGE_SIZE as u64;

    // No file has more bytes than that.
    if start
        .checked_add(len)
        .is_none_or(|end| end > i64::MAX as u64)
    {
        return Err(EINVAL);
    }
    if start % page != 0 || len % page != 0 {
        return Err(EINVAL);
    }
    PageRange::new((start / page) as usize, (len / page) as usize)
}

fn tracker(slot: &mut Slot) -> Result<&mut Tracker> {
    Ok(&mut slot.as_deref_mut().ok_or(ENODEV)?.tracker)
}

fn epoch(slot: &mut Slot) -> Result<Epoch<'_>> {
    tracker(slot)?.epoch().ok_or(ENOENT)
}

pub(crate) fn open(me: Pin<&Device>, arg: &mut uapi::TrackOpen) -> Result {
    let is_file = arg.flags & uapi::TRACK_FILE != 0;
    let mode = if arg.flags & uapi::TRACK_FULL != 0 {
        Mode::Full
    } else {
        Mode::Fast
    };
    let range = if is_file {
        Range::Offsets(offset_range(arg.addr, arg.len)?)
    } else {
        Range::Addresses(addr_range(arg.addr, arg.len)?)
    };
    let mut slot = me.tracker.lock();

    if slot.is_some() {
        return Err(EBUSY);
    }

    let tracker = match range {
        Range::Offsets(range) => Tracker::of_file(Mapping::fget(arg.pidfd)?, &range, mode)?,
        Range::Addresses(range) => Tracker::new(&*address_space(arg.pidfd)?, &range, mode)?,
    };

    let end = tracker.end();

    *slot = Some(KBox::new(
        Open {
            tracker,
            has_kinds: arg.flags & uapi::TRACK_KINDS != 0,
            read: None,
        },
        GFP_KERNEL,
    )?);
    *me.tracker_end.lock() = Some(end);
    Ok(())
}

fn to_bytes(pages: usize) -> u64 {
    (pages as u64) << PAGE_SHIFT
}

pub(crate) fn begin(me: Pin<&Device>, arg: &mut uapi::TrackBegin) -> Result {
    let mut slot = me.tracker.lock();
    let summary = tracker(&mut slot)?.begin()?.summary();

    arg.state = 0;
    if summary.is_overflow {
        arg.state |= uapi::TRACK_OVERFLOW;
    }
    if summary.has_ended {
        arg.state |= uapi::TRACK_ENDED;
    }
    arg.written = summary.written as u64;
    arg.changed = summary.changed as u64;
    Ok(())
}

/// What has come of a tracker, and who waits for more: for `poll(2)`.
pub(crate) fn poll(me: Pin<&Device>, file: &File, table: PollTable<'_>) -> u32 {
    // Not the lock of the tracker, which is held while an epoch begins.
    let Some(end) = me.tracker_end.lock().clone() else {
        return bindings::POLLERR;
    };

    end.register_wait(file, &table);
    if end.has_come() {
        bindings::POLLHUP
    } else {
        0
    }
}

fn kind(kind: Kind, has_kinds: bool) -> u32 {
    match kind {
        Kind::Pinned if has_kinds => uapi::TRACK_PINNED,
        Kind::New if has_kinds => uapi::TRACK_NEW,
        Kind::Gone if has_kinds => uapi::TRACK_GONE,
        Kind::Written | Kind::Pinned => uapi::TRACK_WRITTEN,
        Kind::New | Kind::Gone | Kind::Changed => uapi::TRACK_CHANGED,
    }
}

/// The first record from the page `next` on; `next` becomes the page behind it.
fn next_record(epoch: &Epoch<'_>, next: &mut usize, has_kinds: bool) -> Option<uapi::TrackRange> {
    let found = epoch.next(*next)?;
    let (first, kind_of_first) = (found.first, kind(found.kind, has_kinds));

    *next = first + found.nr;
    // Without kinds, two of them may be one to the reader.
    let behind = |page| if has_kinds { None } else { epoch.next(page) };

    while let Some(more) = behind(*next) {
        if more.first != *next || kind(more.kind, has_kinds) != kind_of_first {
            break;
        }
        *next += more.nr;
    }
    Some(uapi::TrackRange {
        addr: to_bytes(first),
        len: to_bytes(*next - first),
        kind: kind_of_first,
        reserved: 0,
    })
}

/// Records from the page `next` on.
fn count(epoch: &Epoch<'_>, mut next: usize, has_kinds: bool) -> u64 {
    let mut nr = 0;

    while next_record(epoch, &mut next, has_kinds).is_some() {
        nr += 1;
    }
    nr
}

pub(crate) fn read(me: Pin<&Device>, arg: &mut uapi::TrackRead) -> Result {
    let room = usize::try_from(arg.vec_len)?;
    let bytes = room
        .checked_mul(size_of::<uapi::TrackRange>())
        .ok_or(EINVAL)?;
    let mut user = UserSlice::new(UserPtr::from_addr(arg.vec as usize), bytes).writer();
    let mut chunk = KVec::with_capacity(CHUNK, GFP_KERNEL)?;
    let mut next = (arg.addr as usize).div_ceil(PAGE_SIZE);
    let mut slot = me.tracker.lock();
    let number = epoch(&mut slot)?.number();
    let has_kinds = slot.as_ref().is_some_and(|open| open.has_kinds);
    // Records from `next` on, where they were counted before.
    let known = slot
        .as_ref()
        .and_then(|open| open.read)
        .filter(|read| read.epoch == number && read.next == next)
        .map(|read| read.left);

    drop(slot);

    arg.nr = 0;
    arg.needed = 0;
    loop {
        let left = room - arg.nr as usize;
        let mut is_end = true;
        let mut needed = 0;
        let mut slot = me.tracker.lock();
        let epoch = epoch(&mut slot)?;

        // Another thread may have ended it meanwhile, and begun another one.
        if epoch.number() != number {
            return Err(ESTALE);
        }
        chunk.clear();
        loop {
            let mut behind = next;
            let Some(record) = next_record(&epoch, &mut behind, has_kinds) else {
                break;
            };

            if chunk.len() == core::cmp::min(CHUNK, left) {
                is_end = left == chunk.len();
                break;
            }
            chunk.push_within_capacity(record).map_err(|_| ENOMEM)?;
            next = behind;
        }
        if is_end {
            needed = match known {
                Some(all) => all - arg.nr - chunk.len() as u64,
                None => count(&epoch, next, has_kinds),
            };
            if let Some(open) = &mut *slot {
                open.read = Some(Read {
                    epoch: number,
                    next,
                    left: needed,
                });
            }
        }
        drop(slot);
        user.write_slice(chunk.as_bytes())?;
        arg.nr += chunk.len() as u64;
        if !chunk.is_empty() {
            arg.addr = to_bytes(next);
        }
        if is_end {
            arg.needed = arg.nr + needed;
            return Ok(());
        }
    }
}

/// The kinds of which pages are asked for, by their numbers as bits; 0 asks for all.
fn kinds(mask: u32, has_kinds: bool) -> Result<Kinds> {
    let mut kinds = Kinds::NONE;
    let mut known = 0;

    for of in Kind::ALL {
        let bit = 1 << kind(of, has_kinds);

        known |= bit;
        if mask == 0 || mask & bit != 0 {
            kinds = kinds.with(of);
        }
    }
    if mask & !known == 0 {
        Ok(kinds)
    } else {
        Err(EINVAL)
    }
}

pub(crate) fn bitmap(me: Pin<&Device>, arg: &mut uapi::TrackBitmap) -> Result {
    if arg.addr % PAGE_SIZE as u64 != 0 {
        return Err(EINVAL);
    }

    let bytes = usize::try_from(arg.words)?
        .checked_mul(size_of::<u64>())
        .ok_or(EINVAL)?;
    let mut user = UserSlice::new(UserPtr::from_addr(arg.bitmap as usize), bytes).writer();
    let mut chunk = KVec::from_elem(0u64, CHUNK, GFP_KERNEL)?;
    let mut page = arg.addr as usize / PAGE_SIZE;
    let mut left = arg.words as usize;
    let mut number = None;
    let mut nr = 0;

    loop {
        let words = core::cmp::min(left, CHUNK);
        let mut slot = me.tracker.lock();
        let has_kinds = slot.as_ref().is_some_and(|open| open.has_kinds);
        let epoch = epoch(&mut slot)?;
        let found = epoch.bits(page, kinds(arg.kinds, has_kinds)?, &mut chunk[..words]);

        // Another thread may have ended it meanwhile, and begun another one.
        if *number.get_or_insert(epoch.number()) != epoch.number() {
            return Err(ESTALE);
        }
        drop(slot);
        match found {
            Ok(found) => nr += found as u64,
            // Behind the range there are no pages.
            Err(_) if left != arg.words as usize => chunk.fill(0),
            Err(e) => return Err(e),
        }
        user.write_slice(chunk[..words].as_bytes())?;
        left -= words;
        page += words * BITS_PER_WORD;
        if left == 0 {
            arg.nr = nr;
            return Ok(());
        }
    }
}

pub(crate) fn end(me: Pin<&Device>, arg: &mut uapi::TrackEnd) -> Result {
    let mut slot = me.tracker.lock();
    let epoch = epoch(&mut slot)?;

    if arg.flags & uapi::TRACK_ABORT != 0 {
        epoch.abort();
    } else {
        epoch.commit();
    }
    Ok(())
}
