// SPDX-License-Identifier: GPL-2.0

//! Why a range is invalidated: what a subscriber may be told, and what may be told by whom.

use super::OwnerRef;
use crate::bindings;
use core::ptr;
use kernel::prelude::*;

/// Why a range is invalidated; C's `enum mmu_notifier_event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `munmap` or `mremap`.
    Unmap,
    /// Entries are cleared, for one of many reasons.
    Clear,
    /// The protection of a whole VMA changes.
    ProtectionVma,
    /// Entries of single pages lose or gain a permission.
    ProtectionPage,
    /// Soft-dirty bits are cleared.
    SoftDirty,
    /// The address space ends.
    Release,
    /// Pages migrate to or from a device; filtered by owner.
    Migrate,
    /// Entries become device-exclusive; filtered by owner.
    Exclusive,
}

/// An [`Event`] that an operation of the crate may tell, with the owner where the kernel knows one.
///
/// Of the others, `Unmap` and `Release` say that there is nothing any more to be looked at,
/// `ProtectionVma` that the VMA says all, which no operation changes, and `Migrate` is of a kind of
/// page that the crate does not make.
#[derive(Clone, Copy)]
pub(crate) enum Cause<'a> {
    Clear,
    ProtectionPage,
    /// As `ProtectionPage`: a harvest for trackers, which hear of it in another way.
    Harvest,
    SoftDirty,
    /// For a device, or for nobody.
    Exclusive(Option<OwnerRef<'a>>),
}

impl Cause<'_> {
    pub(super) fn event(self) -> Event {
        match self {
            Cause::Clear => Event::Clear,
            Cause::ProtectionPage | Cause::Harvest => Event::ProtectionPage,
            Cause::SoftDirty => Event::SoftDirty,
            Cause::Exclusive(_) => Event::Exclusive,
        }
    }

    pub(super) fn owner(self) -> *mut c_void {
        match self {
            Cause::Exclusive(Some(owner)) => owner.as_ptr(),
            Cause::Harvest => harvester(),
            _ => ptr::null_mut(),
        }
    }
}

/// Who harvests for trackers: an address that nobody else has.
pub(super) fn harvester() -> *mut c_void {
    static HARVESTER: u8 = 0;

    ptr::from_ref(&HARVESTER).cast_mut().cast()
}

impl Event {
    pub(super) fn as_raw(self) -> bindings::mmu_notifier_event {
        use kernel::bindings as b;

        match self {
            Event::Unmap => b::mmu_notifier_event_MMU_NOTIFY_UNMAP,
            Event::Clear => b::mmu_notifier_event_MMU_NOTIFY_CLEAR,
            Event::ProtectionVma => b::mmu_notifier_event_MMU_NOTIFY_PROTECTION_VMA,
            Event::ProtectionPage => b::mmu_notifier_event_MMU_NOTIFY_PROTECTION_PAGE,
            Event::SoftDirty => b::mmu_notifier_event_MMU_NOTIFY_SOFT_DIRTY,
            Event::Release => b::mmu_notifier_event_MMU_NOTIFY_RELEASE,
            Event::Migrate => b::mmu_notifier_event_MMU_NOTIFY_MIGRATE,
            Event::Exclusive => b::mmu_notifier_event_MMU_NOTIFY_EXCLUSIVE,
        }
    }

    /// An event that the crate does not know says that entries are cleared, which asks the most of
    /// a subscriber.
    pub(super) fn from_raw(raw: bindings::mmu_notifier_event) -> Self {
        const ALL: [Event; 8] = [
            Event::Unmap,
            Event::Clear,
            Event::ProtectionVma,
            Event::ProtectionPage,
            Event::SoftDirty,
            Event::Release,
            Event::Migrate,
            Event::Exclusive,
        ];

        ALL.into_iter()
            .find(|event| event.as_raw() == raw)
            .unwrap_or(Event::Clear)
    }
}

/// What a driver tells of a change that it makes itself.
///
/// Only what no subscriber may take for none of its business: `amdkfd` passes over
/// [`Event::Release`] and drops its own records for [`Event::Unmap`], as `xe` does; for
/// [`Event::ProtectionVma`] the flags of the VMA say all; with [`Event::SoftDirty`] an entry stays
/// as it is to a device; and [`Event::Migrate`] and [`Event::Exclusive`] are none to their owner.
#[derive(Clone, Copy)]
pub struct ChangeEvent(Cause<'static>);

impl ChangeEvent {
    /// [`Event::Clear`]: of a subscriber it asks the most.
    pub const CLEAR: Self = Self(Cause::Clear);

    /// [`Event::ProtectionPage`]: the pages stay, but what may be done to them has to be looked up
    /// in the page tables.
    pub const PROTECTION_PAGE: Self = Self(Cause::ProtectionPage);

    /// [`Event::ProtectionPage`] of a harvest for [trackers](crate::track).
    pub(crate) const HARVEST: Self = Self(Cause::Harvest);

    /// [`Event::SoftDirty`], as `/proc/PID/clear_refs` has it.
    pub(crate) const SOFT_DIRTY: Self = Self(Cause::SoftDirty);
    pub(crate) const fn cause(self) -> Cause<'static> {
        self.0
    }
}
