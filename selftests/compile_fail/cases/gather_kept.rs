// SPDX-License-Identifier: GPL-2.0
//! A gather that is kept beyond the closure that it is lent to: it has ended by then.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    gather::with_gather,
    mm::MmapRead,
    range::AddrRange, //
};

pub fn case(guard: &mut MmapRead<'_>, range: &AddrRange) -> Result {
    let mut kept = None;

    with_gather(guard, range, |gather| {
        #[cfg(wrong)]
        {
            kept = Some(gather);
            //~[wrong]^ ERROR: E0521: borrowed data escapes outside of closure
            //~[wrong]| ERROR: E0521: borrowed data escapes outside of closure
        }
        #[cfg(twin)]
        {
            kept = Some(gather.range());
        }
    });
    kept.map(|_| ()).ok_or(ENOENT)
}
