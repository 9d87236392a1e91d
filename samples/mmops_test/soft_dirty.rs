// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_SOFT_DIRTY_CLEAR`: clear the soft-dirty bits of a process, all or of a range.

use crate::{
    addr_range,
    address_space,
    uapi, //
};
use kernel::prelude::*;
use mmops::soft_dirty::{
    self,
    Untouched, //
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
    let cleared = match range {
        Some(range) => soft_dirty::clear(&mm, &range, untouched),
        None => soft_dirty::clear_all(&mm),
    }?;

    arg.cleared = cleared.did.cleared as u64;
    arg.kept = cleared.did.kept as u64;
    arg.done = cleared.done.0 as u64;
    cleared.check()
}
