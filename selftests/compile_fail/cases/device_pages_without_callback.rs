// SPDX-License-Identifier: GPL-2.0
//! A driver that keeps the pages of its device itself, and does not let go of them when they are
//! invalidated.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::{
    mm::MmWithUser,
    prelude::*, //
};
#[cfg(twin)]
use mmops::exclusive::Device;
#[cfg(wrong)]
use mmops::notifier::IntervalOps;
use mmops::{
    exclusive::{
        make_exclusive,
        DevicePages,
        PageResult, //
    },
    mm::MmapRead,
    notifier::{
        IntervalNotifier,
        Invalidated, //
    },
    range::AddrRange, //
};

#[cfg(wrong)]
pub struct Mine {
    pub pages: Pin<KBox<DevicePages>>,
}

#[cfg(wrong)]
impl IntervalOps for Mine {
    fn invalidate(self: Pin<&mut Self>, _what: &Invalidated) {}
}

#[cfg(wrong)]
type Notifier = IntervalNotifier<Mine>;

#[cfg(twin)]
pub struct Registers;

#[cfg(twin)]
impl Device for Registers {
    fn invalidate(&mut self, _what: &Invalidated) {}
}

#[cfg(twin)]
type Notifier = IntervalNotifier<DevicePages<Registers>>;

pub fn case(mm: &MmWithUser, range: AddrRange, n: &Notifier) -> Result {
    let mut results = [PageResult::Untouched; 1];

    make_exclusive(
        &mut MmapRead::lock(mm),
        &range,
        n,
        //~[wrong]^ ERROR: E0308: mismatched types
        &mut results,
        |_, _| (),
    )?;
    Ok(())
}
