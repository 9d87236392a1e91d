// SPDX-License-Identifier: GPL-2.0
//! An epoch that is read when it is committed: nobody would read the pages again.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::track::Epoch;

pub fn case(epoch: Epoch<'_>) {
    #[cfg(twin)]
    let _pages = epoch.next(0);
    epoch.commit();
    #[cfg(wrong)]
    let _pages = epoch.next(0);
    //~[wrong]^ ERROR: E0382: borrow of moved value: `epoch`
}
