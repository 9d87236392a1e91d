// SPDX-License-Identifier: GPL-2.0
//! A page of a device that is used without the lock: the CPU may have it back by then.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    exclusive::DevicePages,
    notifier::IntervalNotifier, //
};

pub fn case(notifier: &IntervalNotifier<DevicePages>, addr: usize) -> Result {
    let pages = notifier.lock();
    let page = pages.get(addr).ok_or(ENOENT)?;

    #[cfg(wrong)]
    drop(pages);
    //~[wrong]^ ERROR: E0505: cannot move out of `pages` because it is borrowed
    page.write_u64(0, 1)
}
