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
    let protected = protect::protect(&mut MmapRead::lock(&mm), &range, access, frames)?;

    arg.ptes = protected.did.ptes as u64;
    arg.pmds = protected.did.pmds as u64;
    arg.puds = protected.did.puds as u64;
    arg.split_pmds = protected.did.split_pmds as u64;
    arg.split_puds = protected.did.split_puds as u64;
    arg.done = protected.done.0 as u64;
    protected.check()
}
