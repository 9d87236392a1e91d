// SPDX-License-Identifier: GPL-2.0
//! The lock of a notifier is released by another task than the one that took it.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::{
    exclusive::DevicePages,
    notifier::IntervalGuard, //
};

fn send<T: Send>(_what: T) {}

pub fn case(guard: IntervalGuard<'_, DevicePages>) {
    #[cfg(wrong)]
    send(guard);
    //~[wrong]^ ERROR: E0277: `*mut ()` cannot be sent between threads safely
    #[cfg(twin)]
    send(guard.notifier().range().start());
}
