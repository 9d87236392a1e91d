// SPDX-License-Identifier: GPL-2.0
//! A critical section that is kept beyond its notifier.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    exclusive::DevicePages,
    notifier::IntervalNotifier, //
};

pub fn case(notifier: IntervalNotifier<DevicePages>) -> Result {
    let token = notifier.read_begin()?;
    let section = notifier.lock_if_current(token);

    #[cfg(wrong)]
    drop(notifier);
    //~[wrong]^ ERROR: E0505: cannot move out of `notifier` because it is borrowed
    drop(section);
    Ok(())
}
