// SPDX-License-Identifier: GPL-2.0
//! The critical section of a batch, exchanged for another one and given up: what is invalidated
//! then would be given to the device in a later section, of which it was not looked up.
//@revisions: wrong twin
//@[twin] check-pass
#[cfg(wrong)]
use core::mem;
use kernel::{
    mm::MmWithUser,
    prelude::*, //
};
use mmops::{
    exclusive::{
        make_exclusive,
        DevicePages,
        PageResult, //
    },
    mm::MmapRead,
    notifier::IntervalNotifier,
    range::AddrRange, //
};

type Notifier = IntervalNotifier<DevicePages>;

pub fn case(
    mm: &MmWithUser,
    range: AddrRange,
    notifier: &Notifier,
    other: &'static Notifier,
) -> Result {
    let mut results = [PageResult::Untouched; 1];

    make_exclusive(
        &mut MmapRead::lock(mm),
        &range,
        notifier,
        &mut results,
        |data, _pages| {
            let token = other.read_begin().ok();

            if let Some(mut section) = token.and_then(|token| other.lock_if_current(token)) {
                #[cfg(wrong)]
                mem::swap(data, &mut section);
                //~[wrong]^ ERROR: E0308: mismatched types
                *data = section.as_mut().device_mut().clone();
            }
        },
    )?;
    Ok(())
}
