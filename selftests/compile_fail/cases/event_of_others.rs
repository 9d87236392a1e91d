// SPDX-License-Identifier: GPL-2.0
//! An invalidation that says that memory is unmapped: `amdkfd`, `xe` and `hfi1` drop what they know
//! of it, which is mapped as before.
//@revisions: wrong twin
//@[twin] check-pass
#[cfg(twin)]
use mmops::notifier::ChangeEvent;
#[cfg(wrong)]
use mmops::notifier::Event;
use mmops::{
    mm::MmapRead,
    notifier::with_invalidation,
    range::AddrRange, //
};

pub fn case(guard: &MmapRead<'_>, range: &AddrRange) {
    #[cfg(wrong)]
    with_invalidation(guard, range, Event::Unmap, || ());
    //~[wrong]^ ERROR: E0308: mismatched types
    #[cfg(twin)]
    with_invalidation(guard, range, ChangeEvent::CLEAR, || ());
}
