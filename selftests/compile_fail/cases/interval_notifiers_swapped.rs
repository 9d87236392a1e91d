// SPDX-License-Identifier: GPL-2.0
//! Two subscriptions whose data are exchanged: each would be told what is meant for the other.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    exclusive::DevicePages,
    notifier::IntervalNotifier, //
};

pub fn case(one: &IntervalNotifier<DevicePages>, two: &IntervalNotifier<DevicePages>) {
    let (mut one, mut two) = (one.lock(), two.lock());

    #[cfg(wrong)]
    core::mem::swap(&mut *one.as_mut(), &mut *two.as_mut());
    //~[wrong]^ ERROR: E0596: cannot borrow data in dereference of `Pin<&mut DevicePages>`
    //~[wrong]| ERROR: E0596: cannot borrow data in dereference of `Pin<&mut DevicePages>`
    #[cfg(twin)]
    core::mem::swap(&mut one.as_mut(), &mut two.as_mut());
}
