// SPDX-License-Identifier: GPL-2.0

//! What a walk holds while it visits a VMA.

use super::Walk;
use crate::{
    bindings,
    notifier::ChangeEvent,
    range::AddrRange,
    tlb::FlushScope,
    vma::Vma, //
};

/// What a walk holds while it visits a VMA: `()` if it reads, a [`FlushScope`] if it changes
/// entries.
pub trait Hold<'s>: of_walk::Hold<'s> {}

impl Hold<'_> for () {}
impl<'s> Hold<'s> for FlushScope<'s> {}

/// The hold of a walk for as long as the walk holds no page-table lock.
///
/// # Invariants
///
/// The caller holds no page-table lock.
pub struct Unlocked<'a, 's, W: Walk + ?Sized>(&'a mut W::Hold<'s>);

impl<'a, 's, W: Walk + ?Sized> Unlocked<'a, 's, W> {
    /// # Safety
    ///
    /// No page-table lock is held while the result lives.
    pub(super) unsafe fn new(hold: &'a mut W::Hold<'s>) -> Self {
        // INVARIANT: By the function's safety requirements.
        Self(hold)
    }
}

impl<'s, W: Walk<Hold<'s> = FlushScope<'s>> + ?Sized> Unlocked<'_, 's, W> {
    /// Flushes the TLB of what has been changed so far, as the end of the scope does. Does not
    /// sleep, but waits for other CPUs.
    ///
    /// After it, no CPU stores through a translation that was valid before a change which this
    /// scope made, or which another scope, reclaim or migration made and this one saw.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

/// What the engine does with a hold. Nobody outside can name this trait, so the holds are those
/// above.
///
/// What begins and ends a scope is not generic, since it calls what is exported to mmops.ko alone.
pub(super) mod of_walk {
    use super::*;

    pub trait Hold<'s>: Sized {
        /// Entries may change.
        const CHANGES: bool;

        /// See [`FlushScope::begin`].
        ///
        /// # Safety
        ///
        /// As there.
        unsafe fn begin(
            place: &mut Option<Self>,
            vma: Vma<'_>,
            range: AddrRange,
            event: ChangeEvent,
        );

        /// See [`FlushScope::begin_mm`].
        ///
        /// # Safety
        ///
        /// As there.
        unsafe fn begin_mm(
            place: &mut Option<Self>,
            mm: *mut bindings::mm_struct,
            range: AddrRange,
            event: ChangeEvent,
        );

        /// See [`FlushScope::cover_leaf`].
        ///
        /// # Safety
        ///
        /// As there.
        unsafe fn cover_leaf(&mut self, leaf: AddrRange, event: ChangeEvent);

        /// Ends the hold, and with it flushes.
        fn end(place: &mut Option<Self>);
    }

    impl Hold<'_> for () {
        const CHANGES: bool = false;

        #[inline(always)]
        unsafe fn begin(place: &mut Option<Self>, _: Vma<'_>, _: AddrRange, _: ChangeEvent) {
            *place = Some(());
        }

        #[inline(always)]
        unsafe fn begin_mm(
            place: &mut Option<Self>,
            _: *mut bindings::mm_struct,
            _: AddrRange,
            _: ChangeEvent,
        ) {
            *place = Some(());
        }

        #[inline(always)]
        unsafe fn cover_leaf(&mut self, _: AddrRange, _: ChangeEvent) {}

        #[inline(always)]
        fn end(_: &mut Option<Self>) {}
    }

    impl<'s> Hold<'s> for FlushScope<'s> {
        const CHANGES: bool = true;

        #[inline(never)]
        #[link_section = ".text.hot"]
        unsafe fn begin(
            place: &mut Option<Self>,
            vma: Vma<'_>,
            range: AddrRange,
            event: ChangeEvent,
        ) {
            // SAFETY: By this function's safety requirements.
            *place = Some(unsafe { FlushScope::begin(vma, range, event.cause()) });
        }

        #[inline(never)]
        unsafe fn begin_mm(
            place: &mut Option<Self>,
            mm: *mut bindings::mm_struct,
            range: AddrRange,
            event: ChangeEvent,
        ) {
            // SAFETY: By this function's safety requirements.
            *place = Some(unsafe { FlushScope::begin_mm(mm, range, event.cause()) });
        }

        #[inline(never)]
        unsafe fn cover_leaf(&mut self, leaf: AddrRange, event: ChangeEvent) {
            // SAFETY: By this function's safety requirements.
            unsafe { FlushScope::cover_leaf(self, leaf, event.cause()) };
        }

        #[inline(never)]
        #[link_section = ".text.hot"]
        fn end(place: &mut Option<Self>) {
            *place = None;
        }
    }
}
