// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_PROTECT`: protect leaves below what their VMA allows.

use crate::{
    addr_range,
    address_space,
    uapi, //
};
use kernel::prelude::*;
use mmops::{
    mm::MmapRead,
    protect::{
        self,
        Access,
        LargeFrames, //
    }, //
};

pub(crate) fn protect(arg: &mut uapi::Protect) -> Result {
    let range = addr_range(arg.addr, arg.len)?;
    let access = Access::from_prot(arg.prot).ok_or(EINVAL)?;
    let mm = address_space(arg.pidfd)?;
    let frames = if arg.flags & uapi::PROTECT_LARGE != 0 {
        LargeFrames::Keep
    } else {
        LargeFrames::Split
    };
    let outcome = protect::protect(&mut MmapRead::lock(&mm), &range, access, frames)?;

    arg.ptes = outcome.ptes as u64;
    arg.pmds = outcome.pmds as u64;
    arg.puds = outcome.puds as u64;
    arg.split_pmds = outcome.split_pmds as u64;
    arg.split_puds = outcome.split_puds as u64;
    arg.done = outcome.done as u64;
    outcome.stopped.map_or(Ok(()), Err)
}
