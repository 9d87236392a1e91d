// SPDX-License-Identifier: GPL-2.0

//! Soft-dirty bits of locked entries.
//!
//! To clear the bit means to take the write permission as well, so that the next store faults and
//! sets it again. That owes a flush, so it needs a [`FlushScope`]. To set the bit owes nothing.

use super::{
    table::PteTable,
    Pmd,
    PmdLeaf,
    Pte,
    PudLeaf,
    PMD_SIZE,
    PUD_SIZE, //
};
use crate::{
    bindings,
    range::Span,
    tlb::FlushScope, //
};
use kernel::page::{
    PAGE_SHIFT,
    PAGE_SIZE, //
};

/// Entries that are looked at together before any is looked at alone.
const GROUP: usize = 8;

/// What became of entries whose soft-dirty bit was to be cleared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Base pages whose bit was set and is clear now.
    pub cleared: usize,
    /// Base pages that stay soft-dirty: a device may store to them at any time.
    pub kept: usize,
}

impl<'s> PteTable<'_, 's> {
    /// Clears the soft-dirty bit of all entries, present or not, and takes their write permission.
    ///
    /// - Present: in one atomic exchange, so that no dirty bit is lost; uffd-wp stays. Noted in the
    ///   scope only if the entry was writable.
    /// - Writable migration or device-private entry: becomes a readable one. C leaves it, and then
    ///   a store goes unseen after the page has come back.
    /// - Page of a private mapping that is pinned for a device: stays as it is.
    ///
    /// Source: `clear_soft_dirty()`, `change_softleaf_pte()`.
    #[inline(never)]
    pub fn clear_soft_dirty(&mut self, scope: &mut FlushScope<'s>) -> Cleared {
        // SAFETY: The VMA is valid.
        let may_have_pins = unsafe { bindings::mmops_vma_may_have_pins(self.vma().as_ptr()) };
        let mut result = Cleared::default();
        let mut was_writable = Span::EMPTY;
        let mut start = 0;

        while start < self.nr() {
            let end = core::cmp::min(start + GROUP, self.nr());

            // SAFETY: The function computes on the value alone.
            let selected = |value: Pte| unsafe { bindings::mmops_pte_tracks_no_store(value.0) };
            let any = (start..end).fold(false, |any, i| any | selected(self.hint(i)));

            for i in start..if any { end } else { start } {
                let value = self.hint(i);

                if !selected(value) {
                    continue;
                }
                let addr = self.addr() + (i << PAGE_SHIFT);

                if !value.present() {
                    // SAFETY: The entry is not present, and its lock is held.
                    let cleared = unsafe {
                        bindings::mmops_ptep_track_nonpresent(
                            self.vma().mm_ptr(),
                            addr,
                            self.ptep_at(i).as_ptr(),
                        )
                    };
                    result.cleared += usize::from(cleared);
                    continue;
                }
                if may_have_pins
                    // SAFETY: The entry is present, maps `addr` in the VMA, and its lock is held.
                    && unsafe {
                        bindings::mmops_pte_is_pinned(self.vma().as_ptr(), addr, value.0)
                    }
                {
                    result.kept += 1;
                    continue;
                }

                // SAFETY: The entry is present, and its lock is held.
                let old = Pte::from_raw(unsafe {
                    bindings::mmops_ptep_track(self.ptep_at(i).as_ptr(), value.0)
                });

                if old.write() {
                    was_writable.add(addr, PAGE_SIZE);
                }
                result.cleared += usize::from(old.soft_dirty());
            }
            start = end;
        }

        if let Some((start, end)) = was_writable.take() {
            scope.record(start, end - start);
        }
        result
    }

    /// Sets the soft-dirty bit of all entries that are not none, and returns their number.
    ///
    /// Nothing is taken from an entry, so nothing is owed.
    ///
    /// Source: `pte_mksoft_dirty()`, `pte_swp_mksoft_dirty()`.
    #[inline(never)]
    pub fn mark_soft_dirty(&mut self) -> usize {
        let mut marked = 0;

        for i in 0..self.nr() {
            if self.hint(i).none() {
                continue;
            }
            marked += 1;
            // SAFETY: The entry is not none, maps the address, and its lock is held.
            unsafe {
                bindings::mmops_ptep_mksoft_dirty(
                    self.vma().mm_ptr(),
                    self.addr() + (i << PAGE_SHIFT),
                    self.ptep_at(i).as_ptr(),
                )
            };
        }
        marked
    }
}

impl<'s> PmdLeaf<'_, 's> {
    /// As [`PteTable::clear_soft_dirty`]. All of the leaf is changed, even if the walk covers only
    /// a part of it; the result counts all of its pages.
    ///
    /// In place and atomic; C clears the entry meanwhile, and flushes for each leaf.
    ///
    /// Source: `clear_soft_dirty_pmd()`, `change_non_present_huge_pmd()`.
    #[inline(never)]
    pub fn clear_soft_dirty(&mut self, scope: &mut FlushScope<'s>) -> Cleared {
        const PAGES: usize = PMD_SIZE >> PAGE_SHIFT;
        let vma = self.vma().as_ptr();
        let addr = self.leaf_addr();
        let value = self.value();
        let entry = self.entry.as_ptr();

        let was_soft_dirty = if !value.present() {
            // SAFETY: The entry is a non-present one in the place of a leaf, and its lock is held.
            unsafe { bindings::mmops_pmdp_track_nonpresent(self.vma().mm_ptr(), addr, entry) }
        // SAFETY: The leaf is present and of the VMA, and its lock is held.
        } else if unsafe {
            bindings::mmops_vma_may_have_pins(vma)
                && bindings::mmops_pmd_is_pinned(vma, addr, value.0)
        } {
            return Cleared {
                cleared: 0,
                kept: PAGES,
            };
        } else {
            // SAFETY: The leaf is present, and its lock is held.
            let old = Pmd::from_raw(unsafe { bindings::mmops_pmdp_track(entry) });

            if old.write() {
                scope.record(addr, PMD_SIZE);
            }
            old.soft_dirty()
        };

        Cleared {
            cleared: if was_soft_dirty { PAGES } else { 0 },
            kept: 0,
        }
    }

    /// As [`PteTable::mark_soft_dirty`]; returns the number of base pages of the whole leaf.
    #[inline(never)]
    pub fn mark_soft_dirty(&mut self) -> usize {
        // SAFETY: The entry is not none, and its lock is held.
        unsafe {
            bindings::mmops_pmdp_mksoft_dirty(
                self.vma().mm_ptr(),
                self.leaf_addr(),
                self.entry.as_ptr(),
            )
        };
        PMD_SIZE >> PAGE_SHIFT
    }
}

impl<'s> PudLeaf<'_, 's> {
    /// As [`PmdLeaf::clear_soft_dirty`]. C splits such a leaf, which unmaps it.
    #[inline(never)]
    pub fn clear_soft_dirty(&mut self, scope: &mut FlushScope<'s>) -> Cleared {
        // SAFETY: The entry is a present leaf, and its lock is held.
        let old = super::Pud::from_raw(unsafe { bindings::mmops_pudp_track(self.entry.as_ptr()) });

        if old.write() {
            scope.record(self.leaf_addr(), PUD_SIZE);
        }
        Cleared {
            cleared: if old.soft_dirty() {
                PUD_SIZE >> PAGE_SHIFT
            } else {
                0
            },
            kept: 0,
        }
    }

    /// As [`PmdLeaf::mark_soft_dirty`].
    #[inline(never)]
    pub fn mark_soft_dirty(&mut self) -> usize {
        // SAFETY: The entry is a present leaf, and its lock is held.
        unsafe { bindings::mmops_pudp_mksoft_dirty(self.entry.as_ptr()) };
        PUD_SIZE >> PAGE_SHIFT
    }
}
