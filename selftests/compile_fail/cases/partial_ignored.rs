// SPDX-License-Identifier: GPL-2.0
//! A result that nobody asks whether it is of the whole range.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    mm::MmapRead,
    range::AddrRange,
    zap::zap, //
};

#[deny(unused_must_use)]
pub fn case(guard: &mut MmapRead<'_>, range: &AddrRange) -> Result {
    #[cfg(wrong)]
    zap(guard, range)?;
    //~[wrong]^ ERROR: unused_must_use: unused `Partial` that must be used
    #[cfg(twin)]
    zap(guard, range)?.check()?;
    Ok(())
}
