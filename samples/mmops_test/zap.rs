// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_ZAP`: take pages away from an address space.

use crate::{
    addr_range,
    address_space,
    uapi, //
};
use kernel::prelude::*;
use mmops::{
    mm::MmapRead,
    zap, //
};

pub(crate) fn zap(arg: &mut uapi::Zap) -> Result {
    let range = addr_range(arg.addr, arg.len)?;
    let mm = address_space(arg.pidfd)?;
    let zapped = zap::zap(&mut MmapRead::lock(&mm), &range)?;

    arg.zapped = zapped.did.pages as u64;
    arg.done = zapped.done.0 as u64;
    zapped.check()
}
