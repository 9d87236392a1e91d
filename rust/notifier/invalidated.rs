// SPDX-License-Identifier: GPL-2.0

//! What a subscriber is told of an invalidation.

use super::{
    event,
    Event,
    Owner,
    OwnerRef, //
};
use crate::{
    bindings,
    range::AddrRange, //
};
use core::{
    cmp,
    fmt,
    ptr, //
};
use kernel::{
    page::{
        PAGE_MASK,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// An invalidation, as a subscriber is told of it.
///
/// It cannot be kept: an owner is compared while it lives.
///
/// Source: `struct mmu_notifier_range`.
pub struct Invalidated {
    event: Event,
    range: AddrRange,
    // Nothing is read through it, and nobody gets it: it may be the address of anything.
    owner: *mut c_void,
    may_block: bool,
}

impl Invalidated {
    /// Why the range is invalidated.
    pub fn event(&self) -> Event {
        self.event
    }

    /// What is invalidated, as far as the subscriber asked for it.
    pub fn range(&self) -> &AddrRange {
        &self.range
    }

    /// Whether the pages are taken from the CPU by `owner`, with
    /// [`take_from_cpu`](crate::exclusive::take_from_cpu).
    pub fn is_from(&self, owner: &Owner) -> bool {
        self.is_own(owner.to_ref())
    }

    /// Whether this is a harvest for trackers, each of which gets what is found.
    ///
    /// Only the address of a `static` of the crate says so, which nobody else can name.
    pub(crate) fn is_harvest(&self) -> bool {
        self.event == Event::ProtectionPage && ptr::eq(self.owner, event::harvester())
    }

    /// Whether the callback may sleep.
    pub fn may_block(&self) -> bool {
        self.may_block
    }

    /// The part of a range of the memory management that lies in `within`.
    pub(super) fn new(raw: &bindings::mmu_notifier_range, within: &AddrRange) -> Self {
        // The end of an mm says `ULONG_MAX`; all else is aligned.
        let start = cmp::max(raw.start & PAGE_MASK, within.start());
        let end = cmp::min(
            raw.end.saturating_add(PAGE_SIZE - 1) & PAGE_MASK,
            within.end(),
        );

        Self {
            event: Event::from_raw(raw.event),
            // The memory management calls only those that overlap.
            range: AddrRange::new(start, end).unwrap_or(*within),
            owner: raw.owner,
            may_block: raw.flags & kernel::bindings::MMU_NOTIFIER_RANGE_BLOCKABLE != 0,
        }
    }

    /// Whether `owner` caused the event, and need not hear of what it does itself.
    ///
    /// Only of `Exclusive`: the page stays where it is, and the one that took it from the CPU is
    /// the one that may go on using it. After a migration the page is another one.
    pub(super) fn is_own(&self, owner: OwnerRef<'_>) -> bool {
        self.event == Event::Exclusive && owner.is(self.owner)
    }
}

// Without the address of the owner.
impl fmt::Debug for Invalidated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invalidated")
            .field("event", &self.event)
            .field("range", &self.range)
            .field("may_block", &self.may_block)
            .finish_non_exhaustive()
    }
}
