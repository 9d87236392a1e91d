// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_ZAP`: take pages away from an address space.

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
    zap, //
};

pub(crate) fn zap(arg: &mut uapi::Zap) -> Result {
    let start = arg.addr as usize;
    let range = AddrRange::new(start, start.checked_add(arg.len as usize).ok_or(EINVAL)?)?;
    let mm = match arg.pidfd {
        -1 => mm::current()?,
        pidfd => mm::of_pidfd(pidfd)?,
    };
    let outcome = zap::zap(&mut MmapRead::lock(&mm), &range)?;

    arg.zapped = outcome.zapped as u64;
    arg.done = outcome.done as u64;
    interrupted(arg.done < arg.len)
}
