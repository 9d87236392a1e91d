// SPDX-License-Identifier: GPL-2.0
//! A change that passes for a clear of soft-dirty bits, which permissions are not touched by.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::{
    mm::MmapRead,
    notifier::{
        with_invalidation,
        ChangeEvent, //
    },
    range::AddrRange, //
};

pub fn case(guard: &MmapRead<'_>, range: &AddrRange) {
    #[cfg(wrong)]
    with_invalidation(guard, range, ChangeEvent::SOFT_DIRTY, || ());
    //~[wrong]^ ERROR: E0624: associated constant `SOFT_DIRTY` is private
    #[cfg(twin)]
    with_invalidation(guard, range, ChangeEvent::CLEAR, || ());
}
