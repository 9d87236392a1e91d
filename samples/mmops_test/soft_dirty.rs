// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_SOFT_DIRTY_CLEAR`: clear the soft-dirty bits of a process, all or of a range.

use crate::{
    addr_range,
    address_space,
    interrupted,
    uapi, //
};
use kernel::prelude::*;
use mmops::{
    mm::MmapRead,
    soft_dirty::{
        self,
        Outcome,
        Untouched, //
    }, //
};

pub(crate) fn clear(arg: &mut uapi::SoftDirtyClear) -> Result {
    let is_all = arg.flags & uapi::SOFT_DIRTY_ALL != 0;
    let range = (!is_all)
        .then(|| addr_range(arg.addr, arg.len))
        .transpose()?;
    let untouched = if arg.flags & uapi::SOFT_DIRTY_FORGET != 0 {
        Untouched::Forget
    } else {
        Untouched::Keep
    };
    let mm = address_space(arg.pidfd)?;
    let (len, outcome) = match range {
        Some(range) => (
            range.end() - range.start(),
            soft_dirty::clear(&mm, &range, untouched),
        ),
        None => {
            let all = MmapRead::lock(&mm).user_range()?;

            (all.end() - all.start(), soft_dirty::clear_all(&mm))
        }
    };
    let outcome = match outcome {
        Err(e) if e == EINTR => Outcome::default(),
        outcome => outcome?,
    };

    arg.cleared = outcome.cleared as u64;
    arg.kept = outcome.kept as u64;
    arg.done = outcome.done as u64;
    interrupted(outcome.done < len)
}
