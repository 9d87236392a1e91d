// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_AGE`: make memory old, and count what was young.

use crate::{
    addr_range,
    address_space,
    interrupted,
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
    let result = age::age(&mut MmapRead::lock(&mm), &range)?;

    arg.aged = result.aged as u64;
    arg.kept = result.kept as u64;
    arg.done = result.done as u64;
    interrupted(arg.done < arg.len)
}
