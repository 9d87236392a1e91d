// SPDX-License-Identifier: GPL-2.0

//! The TLB flush that a removed permission owes.
//!
//! A [`FlushScope`] is what C's `wp_clean_pre_vma()` and `wp_clean_post_vma()` do: it raises
//! `mm->tlb_flush_pending`, collects the first and the last address that was changed, and flushes
//! that range when it ends.
//!
//! # Two scopes over one range
//!
//! Two walks may run at the same time: both hold a read lock. The one that comes second finds
//! entries that the first has changed already, changes nothing, and would return with nothing to
//! flush, while CPUs still store through translations of before. So a scope that sees another one
//! open (`mm_tlb_flush_nested()`) flushes all of its range and of the leaves that it covers in
//! part, not only what it changed itself.
//!
//! Source: Peter Zijlstra's review of `[PATCH v5 4/8] mm: Add write-protect and clean utilities for
//! address space ranges` (10 October 2019), and `mm/mapping_dirty_helpers.c`.

use crate::{
    bindings,
    faults,
    notifier::{
        Cause,
        Invalidation, //
    },
    range::{
        AddrRange,
        Span, //
    },
    vma::Vma, //
};
use core::{
    array,
    cmp,
    marker::PhantomData,
    mem, //
};
use kernel::page::PAGE_SIZE;

/// Marks what belongs to the scope with lifetime `'s` and to no other; invariant in it.
pub(crate) type ScopeBrand<'s> = PhantomData<fn(&'s ()) -> &'s ()>;

/// Leaves that a range can cover in part: one of PMD size and one of PUD size at each end.
const PARTIAL_LEAVES: usize = 4;

/// `mm->tlb_flush_pending`, raised once.
///
/// # Invariants
///
/// `mm` is valid for as long as the value lives, which raised the count when it was made.
struct Pending {
    mm: *mut bindings::mm_struct,
    skipped: faults::Kept,
}

impl Pending {
    /// # Safety
    ///
    /// `mm` stays valid for as long as the value lives.
    unsafe fn raise(mm: *mut bindings::mm_struct) -> Self {
        let skipped = faults::Kept::new(faults::skip_pending());

        if !skipped.get() {
            // SAFETY: `mm` is valid.
            unsafe { bindings::mmops_inc_tlb_flush_pending(mm) };
        }
        // INVARIANT: The count has just been raised, but for the fault.
        Self { mm, skipped }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.skipped.get() || faults::leak_pending() {
            return;
        }

        // SAFETY: By the type invariants `mm` is valid and the count was raised for this value.
        unsafe { bindings::mmops_dec_tlb_flush_pending(self.mm) };
    }
}

/// An open invalidation of a part of one VMA, whose TLB flush happens by itself.
///
/// A walk makes one for each VMA that it visits and lends it to the callbacks. It cannot be kept,
/// copied or forgotten: there is no way to own one outside this crate. Callbacks get it under a
/// page-table lock, so it cannot be flushed; before each of them the walk gives it
/// in a form that can.
///
/// From its begin to its end `mm->tlb_flush_pending` is raised and secondary MMUs know of the
/// range. At its end the order is: TLB flush, end of the notification, pending is lowered.
pub struct FlushScope<'s> {
    range: AddrRange,
    changed: Span,
    // Bytes that the smallest leaf changed maps, so that the flush of a huge one costs one entry.
    stride: usize,
    // Fields are dropped after the flush in `drop`, in the order in which they stand here.
    //
    // Partly covered leaves at the ends of `range`, and what secondary MMUs are told of them.
    leaves: [Option<(AddrRange, Invalidation<'s>)>; PARTIAL_LEAVES],
    _invalidation: Invalidation<'s>,
    pending: Pending,
    // So that the scopes of two walks cannot be swapped.
    _brand: ScopeBrand<'s>,
}

impl<'s> FlushScope<'s> {
    /// Begins a scope over `range` of `vma`. May sleep.
    ///
    /// # Safety
    ///
    /// `vma` stays valid for as long as the scope lives, and `range` lies in it. For as long, the
    /// mmap lock of the VMA is held, or `i_mmap_rwsem` of the file that it maps.
    pub(crate) unsafe fn begin(vma: Vma<'_>, range: AddrRange, cause: Cause<'s>) -> Self {
        // SAFETY: `vma` is valid, and `range` lies in it.
        unsafe { bindings::mmops_flush_cache_range(vma.as_ptr(), range.start(), range.end()) };
        // SAFETY: By this function's safety requirements the VMA, and so its mm, stays, and a lock
        // is held that keeps a first subscriber away.
        unsafe { Self::begin_mm(vma.mm_ptr(), range, cause) }
    }

    /// As [`Self::begin`], over all VMAs in `range`. May sleep.
    ///
    /// # Safety
    ///
    /// `mm` stays valid for as long as the scope lives, and its mmap lock, or `i_mmap_rwsem` of a
    /// file that a VMA in `range` maps, is held.
    pub(crate) unsafe fn begin_mm(
        mm: *mut bindings::mm_struct,
        range: AddrRange,
        cause: Cause<'s>,
    ) -> Self {
        // SAFETY: By this function's safety requirements the mm stays, and the lock is held.
        let invalidation = unsafe { Invalidation::start(mm, &range, cause) };

        Self {
            range,
            changed: Span::EMPTY,
            stride: usize::MAX,
            // Not of a constant, all bytes of which would be stored.
            leaves: array::from_fn(|_| None),
            _invalidation: invalidation,
            // SAFETY: By this function's safety requirements.
            pending: unsafe { Pending::raise(mm) },
            _brand: PhantomData,
        }
    }

    /// Notes that the translation of `size` bytes from `addr` on may be cached with more
    /// permissions than the entry now has.
    #[inline(always)]
    pub(crate) fn record(&mut self, addr: usize, size: usize) {
        self.record_leaves(addr, size, PAGE_SIZE);
    }

    /// As [`Self::record`], of leaves that map `stride` bytes each, a power of two.
    #[inline(always)]
    pub(crate) fn record_leaves(&mut self, addr: usize, size: usize, stride: usize) {
        self.changed.add(addr, size);
        self.stride = cmp::min(self.stride, stride);
    }

    /// Flushes what has been changed so far.
    ///
    /// After it, no CPU stores through a translation that was valid before a change which this
    /// scope made, or which another scope, reclaim or migration made and this one saw.
    #[inline(never)]
    #[link_section = ".text.hot"]
    pub(crate) fn flush(&mut self) {
        faults::before_flush();

        self.flush_locked();
    }

    /// As [`Self::flush`], under a page-table lock: who wants it spins until all CPUs have
    /// answered, so only if that saves more than it costs.
    #[inline(never)]
    #[link_section = ".text.hot"]
    pub(crate) fn flush_locked(&mut self) {
        if self.is_nested() {
            // What the others changed may be of any size.
            self.stride = PAGE_SIZE;
            self.changed
                .add(self.range.start(), self.range.end() - self.range.start());
            // The other scope may have changed a leaf that reaches over an end of this one's range.
            for (leaf, _) in self.leaves.iter().flatten() {
                self.changed.add(leaf.start(), leaf.end() - leaf.start());
            }
        }
        let range = self.changed.take();
        let stride = mem::replace(&mut self.stride, usize::MAX);

        if faults::skip_flush() {
            return;
        }

        // Reclaim and migration may have unmapped a page of the range, with the flush put off to
        // the end of a batch and without pending raised: nothing else says so of an entry that was
        // not present any more.
        // SAFETY: `mm` is valid by the type invariants.
        unsafe { bindings::mmops_flush_tlb_batched_pending(self.pending.mm) };

        if let Some((start, end)) = range {
            let mm = self.pending.mm;

            // SAFETY: `mm` is valid as long as the scope; any range may be flushed. No page table
            // was freed.
            unsafe { bindings::flush_tlb_mm_range(mm, start, end, stride.trailing_zeros(), false) };
        }
    }

    /// Whether another scope or gather is open on the same mm.
    fn is_nested(&self) -> bool {
        if faults::skip_nested_check() {
            return false;
        }

        // SAFETY: The mm is valid as long as the scope.
        unsafe { bindings::mmops_mm_tlb_flush_nested(self.pending.mm) }
    }

    /// Tells secondary MMUs of all of a huge leaf that the scope covers only in part, before it is
    /// locked: a change of the leaf is one of all that it maps. May sleep.
    ///
    /// # Safety
    ///
    /// As for [`Self::begin`].
    pub(crate) unsafe fn cover_leaf(&mut self, leaf: AddrRange, cause: Cause<'s>) {
        let has = |range: &AddrRange| leaf.start() >= range.start() && leaf.end() <= range.end();

        if has(&self.range) || self.leaves.iter().flatten().any(|(range, _)| has(range)) {
            return;
        }
        // There is a place: a leaf that is covered in part has an end of the range inside it, and
        // at an end there is one of each size, however often it is split and made anew meanwhile,
        // since the bounds of a VMA do not change under the lock.
        if let Some(place) = self.leaves.iter_mut().find(|place| place.is_none()) {
            // SAFETY: By this function's safety requirements the mm stays for as long as the scope,
            // of which this is a part, and the lock is held.
            let told = unsafe { Invalidation::start(self.pending.mm, &leaf, cause) };

            *place = Some((leaf, told));
        }
    }
}

impl Drop for FlushScope<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}
