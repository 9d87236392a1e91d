// SPDX-License-Identifier: GPL-2.0
//! A page that is taken where a device is programmed for it: nothing would tie it to its notifier.
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

pub fn case(mm: &MmWithUser, range: AddrRange, n: &IntervalNotifier<DevicePages>) -> Result<usize> {
    let mut results = [PageResult::Untouched; 1];
    let mut addrs = 0;

    make_exclusive(
        &mut MmapRead::lock(mm),
        &range,
        n,
        &mut results,
        |(), pages| {
            for page in pages.iter() {
                #[cfg(wrong)]
                let _owned = page.grant();
                //~[wrong]^ ERROR: E0624: method `grant` is private
                addrs ^= page.addr();
            }
        },
    )?;
    Ok(addrs)
}
