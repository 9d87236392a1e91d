// SPDX-License-Identifier: GPL-2.0
//! What the lock of a notifier protects, after the lock was released.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::{
    exclusive::DevicePages,
    notifier::IntervalNotifier, //
};

pub fn case(notifier: &IntervalNotifier<DevicePages>) {
    let mut guard = notifier.lock();

    #[cfg(wrong)]
    drop(guard);
    guard.as_mut();
    //~[wrong]^ ERROR: E0382: borrow of moved value: `guard`
}
