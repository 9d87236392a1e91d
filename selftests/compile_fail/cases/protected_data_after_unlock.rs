// SPDX-License-Identifier: GPL-2.0
//! A reference to what the lock of a notifier protects, after the lock was released.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::{
    exclusive::DevicePages,
    notifier::IntervalNotifier, //
};

pub fn case(notifier: &IntervalNotifier<DevicePages>) {
    let mut guard = notifier.lock();
    let pages = guard.as_mut();

    #[cfg(wrong)]
    drop(guard);
    //~[wrong]^ ERROR: E0505: cannot move out of `guard` because it is borrowed
    drop(pages.range());
}
