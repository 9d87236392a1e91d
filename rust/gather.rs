// SPDX-License-Identifier: GPL-2.0

//! Pages whose entries were taken, until the TLB flush lets them go.
//!
//! An entry that is cleared leaves three debts: the page must not be freed, not be taken for
//! unmapped and, if the entry was dirty, not be taken for clean, while a CPU may still store to it
//! through a translation of before. A [`Gather`] holds them. It is what C's `struct mmu_gather` is,
//! around one of them, with a queue of its own.
//!
//! # Rules
//!
//! - An entry can be cleared only with a gather in hand.
//! - The queue holds encoded page pointers ([`EncodedPage`](encoded::EncodedPage)) whose low bit
//!   says that the page owes a dirty mark. For such a page the order is: TLB flush, the folio is
//!   marked dirty, its rmap is removed, the page-table lock is released, the reference is dropped.
//! - The flush, the mark and the removal of rmap happen under the lock of the page table that the
//!   entries were in. Truncation and the cleaning of a folio look for its mappings, and wait for
//!   that lock; without it a folio could leave the page cache while its rmap still counts it as
//!   mapped, and a mark on it would be one on a page of nobody.
//! - A page that owes no mark (a clean entry, anonymous memory) has its rmap removed at once. Its
//!   reference is kept until a flush, which serves thousands of pages.
//! - If there is no memory for a queue, one of [`INLINE`] slots does.
//!
//! Source: `[PATCH 2/2] mm: make sure to flush TLB before marking page dirty` (October 2022), and
//! `mm/mmu_gather.c`. Today's kernel marks the folio before the flush, and only delays the removal
//! of rmap; the mail's order is kept here.
//!
//! C header: [`include/asm-generic/tlb.h`](srctree/include/asm-generic/tlb.h)
//!
//! [`INLINE`]: queue::INLINE

mod encoded;
mod locked;
mod queue;

pub(crate) use self::{
    encoded::PagePtr,
    locked::{
        counter,
        LockedGather, //
    }, //
};

use crate::{
    bindings,
    inside::invalidating,
    mm::{
        MmapExclusive,
        MmapRead, //
    },
    notifier::{
        Cause,
        Invalidation, //
    },
    range::AddrRange,
    vma::{
        LockHeld,
        Vma, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr, //
};
use kernel::{
    prelude::*,
    types::NotThreadSafe, //
};
use queue::Queue;

/// An open gather over a range of one address space.
///
/// [`with_gather`] lends it to a closure. It cannot be owned, so it can be neither kept, sent to
/// another thread, copied nor forgotten; however the closure ends, the gather is finished.
///
/// From its begin to its end `mm->tlb_flush_pending` is raised, and secondary MMUs know that the
/// range is being cleared.
///
/// # Invariants
///
/// - `raw` was made by `tlb_gather_mmu()` for the mm of `guard`, has not been moved since, and its
///   own queue is empty.
/// - `guard` was borrowed exclusively for `'a`: only who has the gather begins walks with it.
/// - The queue holds pages whose entry this gather cleared, each with the reference that the entry
///   had. Between two calls none of them owes a dirty mark.
pub struct Gather<'a, 'g> {
    // C does not initialize all of it.
    raw: &'g mut MaybeUninit<bindings::mmu_gather>,
    guard: &'a MmapRead<'a>,
    range: AddrRange,
    queue: Queue,
    /// Entries were taken that no flush has covered yet.
    unflushed: bool,
    // So that the gathers of two closures cannot be swapped.
    _brand: PhantomData<fn(&'g ()) -> &'g ()>,
    _nts: NotThreadSafe,
}

/// Runs `f` with a gather over `range` of the address space that `guard` holds.
///
/// When `f` has returned, whatever it returned, the TLB is flushed of all that was taken, the pages
/// are let go, secondary MMUs are told of the end, and pending is lowered. May sleep.
///
/// The guard is borrowed exclusively: `f` begins no walk with it, and so the gather is never used
/// in a callback of one, under a page-table lock. What takes entries gets the gather instead.
///
/// Source: `tlb_gather_mmu()`, `tlb_finish_mmu()`.
///
/// # Examples
///
/// ```
/// use mmops::{
///     gather::with_gather,
///     mm::{self, MmapRead},
///     range::AddrRange,
///     zap::zap_vma,
/// };
///
/// # let (start, middle, end) = (0, 0, 0);
/// let mm = mm::current()?;
/// let (front, back) = (AddrRange::new(start, middle)?, AddrRange::new(middle, end)?);
///
/// let mut guard = MmapRead::lock(&mm);
///
/// // One notification, and one flush at the end.
/// with_gather(&mut guard, &AddrRange::new(start, end)?, |gather| {
///     zap_vma(gather, &front)?.check()?;
///     zap_vma(gather, &back)?.check()
/// })
/// ```
pub fn with_gather<'a, R>(
    guard: &'a mut MmapRead<'_>,
    range: &AddrRange,
    f: impl for<'g> FnOnce(&mut Gather<'a, 'g>) -> R,
) -> R {
    with_gather_of(guard.exclusive(), range, f)
}

pub(crate) fn with_gather_of<'a, R>(
    guard: MmapExclusive<'a>,
    range: &AddrRange,
    f: impl for<'g> FnOnce(&mut Gather<'a, 'g>) -> R,
) -> R {
    let mut raw = MaybeUninit::uninit();
    let (mut gather, invalidation) = Gather::begin(&mut raw, guard, range);
    let ret = invalidating(|| f(&mut gather));

    finish(gather, invalidation);
    ret
}

/// Ends a gather in the order of [`crate`]'s rules.
#[inline(never)]
fn finish(mut gather: Gather<'_, '_>, invalidation: Invalidation<'_>) {
    gather.flush();
    drop(invalidation);
    drop(gather);
}

impl<'a, 'g> Gather<'a, 'g> {
    #[inline(never)]
    fn begin(
        raw: &'g mut MaybeUninit<bindings::mmu_gather>,
        guard: MmapExclusive<'a>,
        range: &AddrRange,
    ) -> (Self, Invalidation<'a>) {
        let guard = guard.guard();
        let mm = guard.as_ptr();
        // SAFETY: The guard keeps the mm and holds its mmap lock, longer than the result lives.
        let invalidation = unsafe { Invalidation::start(mm, range, Cause::Clear) };

        // SAFETY: `mm` is valid, and `raw` is valid for writes.
        unsafe {
            bindings::mmops_update_hiwater_rss(mm);
            bindings::tlb_gather_mmu(raw.as_mut_ptr(), mm);
        }

        // INVARIANT: `raw` was just made, and is borrowed until the gather ends. The guard
        // was borrowed exclusively.
        let gather = Self {
            raw,
            guard,
            range: *range,
            queue: Queue::new(range.nr_pages()),
            unflushed: false,
            _brand: PhantomData,
            _nts: NotThreadSafe,
        };

        (gather, invalidation)
    }

    /// The guard of the mmap lock, which was borrowed exclusively for `'a`.
    pub(crate) fn guard(&self) -> &'a MmapRead<'a> {
        self.guard
    }

    /// The addresses that entries may be taken from.
    pub fn range(&self) -> AddrRange {
        self.range
    }

    /// Flushes the TLB of what was taken so far, and lets the pages go. May sleep.
    ///
    /// Source: `tlb_flush_mmu()`.
    pub fn flush(&mut self) {
        self.flush_tlb();
        // SAFETY: All pages in the queue were in a range that is flushed now, and none owes a
        // dirty mark, by the type invariants.
        unsafe { self.queue.release() };
    }

    /// Makes room for what a whole page table maps, if there can be so much. To be called before
    /// one is locked. May sleep.
    pub(crate) fn make_room(&mut self) {
        // What is flushed already need not wait.
        if !self.queue.is_empty() && (!self.unflushed || !self.queue.has_room_for_table()) {
            self.flush();
        }
    }

    /// Notes that entries of `vma` are going to be taken.
    pub(crate) fn start_vma(&mut self, vma: Vma<'_>) {
        // SAFETY: Both are valid.
        unsafe { bindings::mmops_tlb_start_vma(self.raw.as_mut_ptr(), vma.as_ptr()) };
    }

    /// The gather as one can use it for as long as the page-table lock of `entries` is held.
    ///
    /// # Errors
    ///
    /// `EINVAL` if they are of another address space.
    pub(crate) fn locked<'t>(
        &'t mut self,
        entries: &impl LockHeld<'t>,
    ) -> Result<LockedGather<'t, 'a, 'g>> {
        let vma = entries.vma();

        if !ptr::eq(vma.mm_ptr(), self.guard.as_ptr()) {
            return Err(EINVAL);
        }
        // SAFETY: The lock is held for `'t`, and the entries are of the gather's address space.
        Ok(unsafe { LockedGather::new(self, vma) })
    }

    fn flush_tlb(&mut self) {
        // SAFETY: By the type invariants `raw` was made by C.
        unsafe { bindings::mmops_tlb_flush(self.raw.as_mut_ptr()) };
        self.unflushed = false;
    }
}

impl Drop for Gather<'_, '_> {
    #[inline(never)]
    fn drop(&mut self) {
        self.flush();
        // SAFETY: By the type invariants `raw` was made by C, and this is its end.
        unsafe { bindings::tlb_finish_mmu(self.raw.as_mut_ptr()) };
    }
}
