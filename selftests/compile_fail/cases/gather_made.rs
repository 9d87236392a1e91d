// SPDX-License-Identifier: GPL-2.0
//! A gather that a driver makes itself.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::{
    gather::Gather,
    mm::MmapRead,
    range::AddrRange, //
};

pub fn case(guard: &mut MmapRead<'_>, range: &AddrRange) {
    #[cfg(wrong)]
    Gather::new(guard, range).flush();
    //~[wrong]^ ERROR: E0599: no associated function or constant named `new` found
    #[cfg(twin)]
    mmops::gather::with_gather(guard, range, |gather: &mut Gather<'_, '_>| gather.flush());
}
