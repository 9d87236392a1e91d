// SPDX-License-Identifier: GPL-2.0
//! A gather that is forgotten would never flush.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::{
    gather::with_gather,
    mm::MmapRead,
    range::AddrRange, //
};

pub fn case(guard: &mut MmapRead<'_>, range: &AddrRange) {
    with_gather(guard, range, |gather| {
        #[cfg(wrong)]
        core::mem::forget(*gather);
        //~[wrong]^ ERROR: E0507: cannot move out of `*gather` which is behind a mutable reference
        #[cfg(twin)]
        gather.flush();
    })
}
