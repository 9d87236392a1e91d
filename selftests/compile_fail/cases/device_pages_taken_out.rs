// SPDX-License-Identifier: GPL-2.0
//! The pages of a device, taken out of their lock: the CPU gets them back, and the device goes on.
//@revisions: wrong twin
//@[twin] check-pass
#[cfg(wrong)]
use core::mem;
use kernel::prelude::*;
use mmops::{
    exclusive::DevicePages,
    notifier::IntervalNotifier, //
};

type Notifier = IntervalNotifier<DevicePages>;

pub fn case(notifier: &Notifier, other: &Notifier, addr: usize, empty: DevicePages) -> Result<u64> {
    let mut guard = notifier.lock();

    #[cfg(wrong)]
    {
        let _stolen = mem::replace(&mut *guard, empty);
        //~[wrong]^ ERROR: E0596: cannot borrow data in dereference of `IntervalGuard
        let _ours = mem::replace(&mut *other.lock(), DevicePages::new(guard.range())?);
        //~[wrong]^ ERROR: E0596: cannot borrow data in dereference of `IntervalGuard
    }
    #[cfg(twin)]
    {
        // What is replaced goes.
        guard.as_mut().set(empty);
        drop(other.lock());
    }
    guard.get(addr).ok_or(ENOENT)?.read_u64(0)
}
