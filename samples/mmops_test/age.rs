// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_AGE`: make memory old, and count what was young.

use crate::{
    addr_range,
    address_space,
    uapi, //
};
use kernel::prelude::*;
use mmops::{
    age,
    mm::MmapRead, //
};

pub(crate) fn age(arg: &mut uapi::Age) -> Result {
    let range = addr_range(arg.addr, arg.len)?;
    let mm = address_space(arg.pidfd)?;
    let aged = age::age(&mut MmapRead::lock(&mm), &range)?;

    arg.aged = aged.did.aged as u64;
    arg.kept = aged.did.kept as u64;
    arg.done = aged.done.0 as u64;
    aged.check()
}
