// SPDX-License-Identifier: GPL-2.0

//! A gather under a page-table lock.

use super::{
    Gather,
    PagePtr, //
};
use crate::{
    bindings,
    range::{
        Span,
        PMD_SIZE, //
    },
    vma::Vma, //
};

/// Kinds of pages that a process is charged with; C's `NR_MM_COUNTERS`.
const NR_COUNTERS: usize = 4;

/// Kinds of pages that a process is charged with, as C numbers them.
pub(crate) mod counter {
    pub(crate) const ANON: usize = 1;
    pub(crate) const SWAP: usize = 2;
}

/// A gather for as long as a page-table lock is held.
///
/// To be dropped before the lock is released. Then the TLB is flushed if a page owes a dirty mark,
/// such pages are marked, their rmap is removed, and the counters of the process are brought up to
/// date.
pub(crate) struct LockedGather<'t, 'a, 'g> {
    gather: &'t mut Gather<'a, 'g>,
    vma: Vma<'t>,
    taken: Span,
    counters: [isize; NR_COUNTERS],
    /// A page owes a dirty mark.
    owes: bool,
}

impl<'t, 'a, 'g> LockedGather<'t, 'a, 'g> {
    /// # Safety
    ///
    /// The page-table lock of entries of `vma` is held for `'t`, and `vma` is of the address space
    /// of `gather`.
    #[inline]
    pub(super) unsafe fn new(gather: &'t mut Gather<'a, 'g>, vma: Vma<'t>) -> Self {
        Self {
            gather,
            vma,
            taken: Span::EMPTY,
            counters: [0; NR_COUNTERS],
            owes: false,
        }
    }

    pub(crate) fn vma(&self) -> Vma<'t> {
        self.vma
    }

    pub(crate) fn mm_ptr(&self) -> *mut bindings::mm_struct {
        self.gather.guard.as_ptr()
    }

    /// Notes that PTEs for `size` bytes from `addr` on were cleared.
    #[inline(always)]
    pub(crate) fn add_ptes(&mut self, addr: usize, size: usize) {
        self.taken.add(addr, size);
    }

    /// Notes that the leaf of `size` bytes at `addr` was cleared.
    pub(crate) fn add_leaf(&mut self, addr: usize, size: usize) {
        let raw = self.gather.raw.as_mut_ptr();

        self.gather.unflushed = true;
        // SAFETY: By the invariants of `Gather` `raw` was made by C.
        unsafe {
            if size == PMD_SIZE {
                bindings::mmops_tlb_add_pmd(raw, addr);
            } else {
                bindings::mmops_tlb_add_pud(raw, addr);
            }
        }
    }

    /// Takes `nr` pages off a counter of the process.
    ///
    /// # Safety
    ///
    /// The counter has counted them, for entries that are cleared before the lock is released.
    #[inline(always)]
    pub(crate) unsafe fn uncharge(&mut self, counter: usize, nr: usize) {
        if let Some(counter) = self.counters.get_mut(counter) {
            *counter = counter.wrapping_sub(nr as isize);
        }
    }

    /// Hands over the references that `nr` PTEs of consecutive pages of one folio had. Returns
    /// whether a flush is due: then no more may be handed over under this lock.
    ///
    /// With `dirty`, the folio is marked dirty and its rmap is removed at the end, after the flush;
    /// else rmap is removed now.
    ///
    /// # Safety
    ///
    /// The PTEs were present, mapped the pages in the VMA, and were just cleared under the lock.
    #[inline(always)]
    pub(crate) unsafe fn remove_pages(&mut self, page: PagePtr, nr: usize, dirty: bool) -> bool {
        if dirty {
            self.owes = true;
        } else {
            // SAFETY: By this function's safety requirements.
            unsafe { remove_rmap(self.vma, page, nr) };
        }
        // SAFETY: The references are handed over to the queue.
        unsafe { self.gather.queue.push(page, nr, dirty) }
    }

    /// Hands over the reference that a leaf had, once rmap is removed.
    ///
    /// # Safety
    ///
    /// The leaf was just cleared under the lock, and noted here.
    pub(crate) unsafe fn remove_leaf(&mut self, page: PagePtr) {
        // There is room for a leaf, as there is for a table.
        // SAFETY: The reference is handed over to the queue.
        let _due = unsafe { self.gather.queue.push(page, 1, false) };
    }

    /// Flushes the TLB of all that was taken. Does not sleep.
    pub(crate) fn flush_tlb(&mut self) {
        self.note_taken();
        self.gather.flush_tlb();
    }

    fn note_taken(&mut self) {
        if let Some((start, end)) = self.taken.take() {
            self.gather.unflushed = true;
            // SAFETY: By the invariants of `Gather` `raw` was made by C.
            unsafe {
                bindings::mmops_tlb_add_ptes(self.gather.raw.as_mut_ptr(), start, end - start)
            };
        }
    }

    /// Marks what owes it, and removes its rmap.
    fn settle(&mut self) {
        let vma = self.vma;

        self.gather.queue.settle(|page, nr| {
            // SAFETY: The page was handed over under this lock, which is still held; its rmap, and
            // so the folio's place in the page cache, is still there.
            unsafe {
                bindings::mmops_zap_mark_dirty(bindings::mmops_page_folio(page.as_ptr()));
                remove_rmap(vma, page, nr);
            }
        });
    }
}

/// # Safety
///
/// `nr` PTEs mapped the pages in `vma`, and their page-table lock is held.
#[inline(always)]
unsafe fn remove_rmap(vma: Vma<'_>, page: PagePtr, nr: usize) {
    // SAFETY: By this function's safety requirements.
    unsafe {
        bindings::folio_remove_rmap_ptes(
            bindings::mmops_page_folio(page.as_ptr()),
            page.as_ptr(),
            nr as i32,
            vma.as_ptr(),
        )
    };
}

impl Drop for LockedGather<'_, '_, '_> {
    #[inline]
    fn drop(&mut self) {
        for (member, &value) in self.counters.iter().enumerate() {
            if value != 0 {
                // SAFETY: The mm is valid by the invariants of `Gather`.
                unsafe {
                    bindings::mmops_add_mm_counter(self.gather.guard.as_ptr(), member as i32, value)
                };
            }
        }
        self.note_taken();
        if self.owes {
            if crate::faults::mark_before_flush() {
                self.settle();
            }
            crate::faults::zap_before_flush();

            self.gather.flush_tlb();
            self.settle();
        } else {
            self.gather.queue.mark_settled();
        }
    }
}
