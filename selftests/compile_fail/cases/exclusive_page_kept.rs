// SPDX-License-Identifier: GPL-2.0
//! A page that is kept where a device is programmed for it: it would be used for ever, whatever is
//! invalidated.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::{
    mm::MmWithUser,
    prelude::*, //
};
use mmops::{
    exclusive::{
        make_exclusive,
        DevicePages,
        PageResult, //
    },
    mm::MmapRead,
    notifier::IntervalNotifier,
    range::AddrRange, //
};

pub fn case(mm: &MmWithUser, range: AddrRange, n: &IntervalNotifier<DevicePages>) -> Result {
    let mut kept = None;
    let mut results = [PageResult::Untouched; 1];

    make_exclusive(
        &mut MmapRead::lock(mm),
        &range,
        n,
        &mut results,
        |(), pages| {
            let page = pages.iter().next();

            #[cfg(wrong)]
            {
                kept = page;
                //~[wrong]^ ERROR: E0521: borrowed data escapes outside of closure
            }
            #[cfg(twin)]
            {
                kept = page.map(|page| page.addr());
            }
        },
    )?;
    kept.map(|_| ()).ok_or(ENOENT)
}
