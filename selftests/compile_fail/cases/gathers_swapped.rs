// SPDX-License-Identifier: GPL-2.0
//! Two gathers that are exchanged: each would end under the lock of the other.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::{
    gather::with_gather,
    mm::MmapRead,
    range::AddrRange, //
};

pub fn case(one: &mut MmapRead<'_>, two: &mut MmapRead<'_>, range: &AddrRange) {
    with_gather(one, range, |first| {
        with_gather(two, range, |second| {
            #[cfg(wrong)]
            core::mem::swap(first, second);
            //~[wrong]^ ERROR: E0521: borrowed data escapes outside of closure
            //~[wrong]| ERROR: E0521: borrowed data escapes outside of closure
            #[cfg(twin)]
            (first.flush(), second.flush()).1
        })
    })
}
