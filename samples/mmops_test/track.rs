// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_TRACK_*`: which pages of a process may have changed.
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
    prelude::*,
    uaccess::UserSlice, //
};
use mmops::track::{
    Epoch,
    Kind,
    Mode,
    Tracker, //
};

/// Ranges that are copied under one hold of the lock: user memory is not touched under it.
const CHUNK: usize = 64;

/// What [`Device`] holds for this file.
pub(crate) type Slot = Option<KBox<Tracker>>;

fn tracker(slot: &mut Slot) -> Result<&mut Tracker> {
    slot.as_deref_mut().ok_or(ENODEV)
}

fn epoch(slot: &mut Slot) -> Result<Epoch<'_>> {
    tracker(slot)?.epoch().ok_or(ENOENT)
}

pub(crate) fn open(me: Pin<&Device>, arg: &mut uapi::TrackOpen) -> Result {
    let range = addr_range(arg.addr, arg.len)?;
    let mut slot = me.tracker.lock();

    if slot.is_some() {
        return Err(EBUSY);
    }

    let mm = address_space(arg.pidfd)?;

    let mode = if arg.flags == uapi::TRACK_FULL {
        Mode::Full
    } else {
        Mode::Fast
    };

    *slot = Some(KBox::new(Tracker::new(&mm, &range, mode)?, GFP_KERNEL)?);
    Ok(())
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

pub(crate) fn read(me: Pin<&Device>, arg: &mut uapi::TrackRead) -> Result {
    let room = usize::try_from(arg.vec_len)?;
    let bytes = room
        .checked_mul(size_of::<uapi::TrackRange>())
        .ok_or(EINVAL)?;
    let mut user = UserSlice::new(UserPtr::from_addr(arg.vec as usize), bytes).writer();
    let mut chunk = KVec::with_capacity(CHUNK, GFP_KERNEL)?;
    let number = epoch(&mut me.tracker.lock())?.number();
    let mut next = arg.addr as usize;

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
        while let Some(found) = epoch.next(next) {
            if chunk.len() == core::cmp::min(CHUNK, left) {
                is_end = left == chunk.len();
                break;
            }
            chunk
                .push_within_capacity(uapi::TrackRange {
                    addr: found.range.start() as u64,
                    len: (found.range.end() - found.range.start()) as u64,
                    kind: match found.kind {
                        Kind::Written => uapi::TRACK_WRITTEN,
                        Kind::Changed => uapi::TRACK_CHANGED,
                    },
                    reserved: 0,
                })
                .map_err(|_| ENOMEM)?;
            next = found.range.end();
        }
        if is_end {
            let mut rest = next;

            while let Some(found) = epoch.next(rest) {
                needed += 1;
                rest = found.range.end();
            }
        }
        drop(slot);
        user.write_slice(chunk.as_bytes())?;
        arg.nr += chunk.len() as u64;
        arg.addr = next as u64;
        if is_end {
            arg.needed = arg.nr + needed;
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
