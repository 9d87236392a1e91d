// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_SOFT_DIRTY_CLEAR`: clear the soft-dirty bits of a process, all or of a range.

use crate::{
    interrupted,
    uapi, //
};
use kernel::prelude::*;
use mmops::{
    mm::{
        self,
        MmapRead, //
    },
    range::AddrRange,
    soft_dirty::{
        self,
        Outcome,
        Untouched, //
    }, //
};

pub(crate) fn clear(arg: &mut uapi::SoftDirtyClear) -> Result {
    let is_all = arg.flags & uapi::SOFT_DIRTY_ALL != 0;
    let range = |arg: &uapi::SoftDirtyClear| {
        let start = arg.addr as usize;

        AddrRange::new(start, start.checked_add(arg.len as usize).ok_or(EINVAL)?)
    };

    if !is_all {
        range(arg)?;
    }

    let untouched = if arg.flags & uapi::SOFT_DIRTY_FORGET != 0 {
        Untouched::Forget
    } else {
        Untouched::Keep
    };
    let mm = match arg.pidfd {
        -1 => mm::current()?,
        pidfd => mm::of_pidfd(pidfd)?,
    };
    let range = if is_all {
        MmapRead::lock(&mm).user_range()?
    } else {
        range(arg)?
    };
    let outcome = if is_all {
        soft_dirty::clear_all(&mm)
    } else {
        soft_dirty::clear(&mm, &range, untouched)
    };
    let outcome = match outcome {
        Err(e) if e == EINTR => Outcome::default(),
        outcome => outcome?,
    };

    arg.cleared = outcome.cleared as u64;
    arg.kept = outcome.kept as u64;
    arg.done = outcome.done as u64;
    interrupted(outcome.done < range.end() - range.start())
}
