// SPDX-License-Identifier: GPL-2.0
//! The pages of a device, exchanged for those behind another lock, which other invalidations clear.
//@revisions: wrong twin
//@[twin] check-pass
use core::mem;
use kernel::prelude::*;
use mmops::{
    exclusive::DevicePages,
    notifier::IntervalNotifier, //
};

type Notifier<T> = IntervalNotifier<DevicePages<T>>;

pub fn case<T: mmops::exclusive::Device>(one: &Notifier<T>, other: &Notifier<T>) {
    let (mut one, mut other) = (one.lock(), other.lock());

    #[cfg(wrong)]
    mem::swap(one.as_mut().get_mut(), &mut other);
    //~[wrong]^ ERROR: E0277: `PhantomPinned` cannot be unpinned
    // What is the driver's own is not pinned.
    #[cfg(twin)]
    mem::swap(one.as_mut().device_mut(), other.as_mut().device_mut());
}
