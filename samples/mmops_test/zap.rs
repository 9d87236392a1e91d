// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_ZAP`: take pages away from an address space.

use crate::{
    addr_range,
    address_space,
    interrupted,
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
    let outcome = zap::zap(&mut MmapRead::lock(&mm), &range)?;

    arg.zapped = outcome.zapped as u64;
    arg.done = outcome.done as u64;
    interrupted(arg.done < arg.len)
}
