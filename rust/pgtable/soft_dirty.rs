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
    tlb::FlushScope, //
};
use core::cmp;
use kernel::page::PAGE_SHIFT;

/// Entries that are looked at together before any is looked at alone.
const GROUP: usize = 8;

fn is_writable_migration(value: Pte) -> bool {
    use super::{
        MigrationAccess,
        SoftLeaf,
        SoftLeafEntry, //
    };

    let is_writable = |leaf| {
        matches!(
            leaf,
            SoftLeaf::Migration {
                access: MigrationAccess::Write,
                ..
            }
        )
    };

    SoftLeafEntry::try_from(value).is_ok_and(|entry| is_writable(entry.leaf))
}

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
        // First entry that was writable, and the one behind the last.
        let (mut first, mut behind) = (self.nr(), 0);
        // The entry before was chosen, so the next is likely to be.
        let mut dense = false;
        let mut i = 0;

        // SAFETY: The function computes on the value alone.
        let selected = |value: Pte| unsafe { bindings::mmops_pte_tracks_no_store(value.0) };

        while i < self.nr() {
            if !dense && i + GROUP <= self.nr() {
                let mut any = false;

                for j in i..i + GROUP {
                    any |= selected(self.hint(j));
                }
                if !any {
                    i += GROUP;
                    continue;
                }
            }

            // What was just stored to, in a loop of its own that is short. Under the lock the CPU
            // changes neither of the bits that are asked for, so they are those of the old value.
            let run = i;

            while i < self.nr() && !may_have_pins {
                let value = self.hint(i);

                // SAFETY: The function computes on the value alone.
                if !unsafe { bindings::mmops_pte_is_stored_to(value.0) } {
                    break;
                }
                // SAFETY: The entry is present, and its lock is held.
                unsafe { bindings::mmops_ptep_track(self.ptep_at(i).as_ptr(), value.0) };
                i += 1;
            }
            if run < i {
                first = cmp::min(first, run);
                behind = i;
                result.cleared += i - run;
                dense = true;
                continue;
            }

            let value = self.hint(i);

            dense = selected(value);
            if dense {
                if value.present() && !may_have_pins {
                    // SAFETY: The entry is present, and its lock is held.
                    let old = Pte::from_raw(unsafe {
                        bindings::mmops_ptep_track(self.ptep_at(i).as_ptr(), value.0)
                    });

                    if old.write() {
                        first = cmp::min(first, i);
                        behind = i + 1;
                    }
                    // There are 512 entries: the check of an overflow would find nothing.
                    result.cleared = result.cleared.wrapping_add(usize::from(old.soft_dirty()));
                } else if self.clear_soft_dirty_slow(i, value, &mut result) {
                    first = cmp::min(first, i);
                    behind = i + 1;
                }
            }
            i += 1;
        }

        if first < behind {
            scope.record(
                self.addr() + (first << PAGE_SHIFT),
                (behind - first) << PAGE_SHIFT,
            );
        }
        result
    }

    /// An entry that is not present, or may be of a pinned page. Whether it was writable.
    #[cold]
    #[inline(never)]
    fn clear_soft_dirty_slow(&mut self, i: usize, value: Pte, result: &mut Cleared) -> bool {
        let addr = self.addr() + (i << PAGE_SHIFT);
        let entry = self.ptep_at(i).as_ptr();
        let vma = self.vma();

        if !value.present() {
            let keep_write = crate::faults::keep_writable(|| is_writable_migration(value));

            // SAFETY: The entry is neither none nor present, and its lock is held.
            let cleared = unsafe {
                bindings::mmops_ptep_track_nonpresent(vma.mm_ptr(), addr, entry, keep_write)
            };

            result.cleared += usize::from(cleared);
            return false;
        }
        // SAFETY: The entry is present, maps `addr` in the VMA, and its lock is held.
        if unsafe { bindings::mmops_pte_is_pinned(vma.as_ptr(), addr, value.0) } {
            result.kept += 1;
            return false;
        }

        // SAFETY: The entry is present, and its lock is held.
        let old = Pte::from_raw(unsafe { bindings::mmops_ptep_track(entry, value.0) });

        result.cleared += usize::from(old.soft_dirty());
        old.write()
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
