// SPDX-License-Identifier: GPL-2.0
//! An epoch that is committed a second time: it would end the next one, unread.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::track::Epoch;

pub fn case(epoch: Epoch<'_>) {
    #[cfg(wrong)]
    epoch.commit();
    epoch.commit();
    //~[wrong]^ ERROR: E0382: use of moved value: `epoch`
}
