// SPDX-License-Identifier: GPL-2.0

//! Dirty bits of locked entries, given to the folios that they map; and pages that are pinned.
//!
//! A dirty bit that is taken and goes nowhere is a store that is lost: reclaim takes the page for
//! one that is the same on disk or in swap. So the bit is given to the folio, under the lock of the
//! page table, after the TLB flush, and under the lock of the folio, as file systems demand. The
//! folio lock comes before the page-table lock, so it is only tried: where somebody else has it,
//! the entry keeps its bit.
//!
//! [`super::clean_record`] does the same later and for more at once, with a queue.
//!
//! A page that is pinned for DMA is stored to by a device, and no entry tells.

use super::clean_record::tell_stored;
use crate::{
    bindings,
    filemap,
    pgtable::{
        ByLevel,
        EntrySet,
        HugeLevel,
        Leaf,
        PteTable, //
    },
    tlb::FlushScope, //
};
use kernel::prelude::*;

impl<'s> PteTable<'_, 's> {
    /// Takes the dirty bit of each dirty entry, gives it to the folio, and calls `f` with the index
    /// of the entry; the write permission stays. Returns the number of entries that stay dirty,
    /// since somebody else has locked their folio.
    ///
    /// If any entry was dirty, the TLB is flushed under the lock of the table, by the rules of the
    /// scope. An entry of a map of page frames that maps no folio (a special one) has nowhere to
    /// give the bit to, and is told of all the same. One of other memory keeps it: that is the zero
    /// page, which KSM knows as its own by the bit. Does not sleep.
    ///
    /// Source: `clean_record_pte()`, `try_to_unmap_one()`.
    pub fn take_dirty(&mut self, scope: &mut FlushScope<'s>, f: impl FnMut(usize)) -> usize {
        let (taken, kept) = self.give_dirty(scope);

        taken.for_each(f);
        kept
    }

    /// Sets the dirty bit of entry `i`, if there is one and it is present. That owes nothing to the
    /// TLB.
    #[inline(never)]
    pub(crate) fn redirty(&self, i: usize) {
        if self.value(i).present() {
            // SAFETY: The table has the entry, and by the type invariants its lock is held.
            unsafe { bindings::mmops_ptep_redirty(self.entry_ptr(i)) };
        }
    }

    /// The entries whose dirty bit was given to the folio, and the number of those that keep it.
    #[inline(never)]
    fn give_dirty(&mut self, scope: &mut FlushScope<'s>) -> (EntrySet, usize) {
        let mut taken = EntrySet::EMPTY;
        let mut any = false;
        let mut kept = 0;
        let is_pfn_map = self.vma().is_pfn_map();

        self.for_each_selected(
            scope,
            |pte| pte.dirty() && (is_pfn_map || !pte.special()),
            |i, entry| {
                // SAFETY: Below, the folio gets the bit, or the entry gets it back.
                if unsafe { entry.mkclean() }.dirty() {
                    taken.insert(i);
                    any = true;
                }
            },
        );
        if !any {
            return (taken, kept);
        }
        if filemap::is_watched() {
            tell_stored(self, &taken);
        }
        scope.flush_locked();
        taken.retain(|i| {
            let pte = self.value(i);

            // SAFETY: The entry was chosen above, so it is present; its lock has been held since.
            if pte.special() || unsafe { give_to(bindings::mmops_pfn_folio(pte.pfn())) } {
                return true;
            }
            kept += 1;
            // SAFETY: As above.
            unsafe { bindings::mmops_ptep_redirty(self.entry_ptr(i)) };
            false
        });
        (taken, kept)
    }
}

/// Marks a folio dirty, if its lock is free.
///
/// # Safety
///
/// The folio is mapped by an entry whose page-table lock is held, and the TLB was flushed after its
/// dirty bit was taken.
unsafe fn give_to(folio: *mut bindings::folio) -> bool {
    // SAFETY: By this function's safety requirements the folio is valid.
    unsafe { bindings::mmops_folio_mark_dirty_trylock(folio) }
}

impl<'s, L: HugeLevel> Leaf<'_, 's, L> {
    /// As [`PteTable::take_dirty`] for all of the leaf, even if the walk covers only a part of it.
    /// Says whether it was dirty.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if it stays dirty, since somebody else has locked the folio.
    #[inline(always)]
    pub fn take_dirty(&mut self, scope: &mut FlushScope<'s>) -> Result<bool> {
        take_dirty(self.by_level(), scope)
    }

    #[inline(always)]
    fn give_dirty(&mut self, scope: &mut FlushScope<'s>) -> Result<bool> {
        // SAFETY: Below, the folio gets the bit, or the leaf gets it back.
        let Some(old) = (unsafe { self.mkclean(scope) }).filter(|old| old.dirty()) else {
            return Ok(false);
        };

        scope.flush_locked();
        // SAFETY: The leaf is present; its lock has been held since.
        if old.special() || unsafe { give_to(bindings::mmops_pfn_folio(old.pfn())) } {
            return Ok(true);
        }
        // SAFETY: As above.
        unsafe { L::redirty(self.entry_ptr()) };
        Err(EAGAIN)
    }

    /// Sets the dirty bit, if the leaf is present.
    pub(crate) fn redirty(&mut self) {
        if self.value().present() {
            // SAFETY: By the type invariants the entry is valid and its lock is held.
            unsafe { L::redirty(self.entry_ptr()) };
        }
    }

    /// Whether a page of the leaf may be pinned for DMA; see [`PteTable::pinned`].
    pub(crate) fn is_pinned(&self) -> bool {
        let value = self.value();

        self.vma().may_have_pins()
            && value.present()
            && !value.special()
            // SAFETY: The leaf is present and not special, and its lock is held.
            && unsafe { bindings::mmops_pfn_is_pinned(value.pfn()) }
    }
}

/// [`Leaf::take_dirty`]; not generic, so that no other module has it.
#[inline(never)]
fn take_dirty<'s>(leaf: ByLevel<'_, '_, 's>, scope: &mut FlushScope<'s>) -> Result<bool> {
    match leaf {
        ByLevel::Pmd(leaf) => leaf.give_dirty(scope),
        ByLevel::Pud(leaf) => leaf.give_dirty(scope),
    }
}

impl PteTable<'_, '_> {
    /// The present entries whose page may be pinned for DMA. Special ones are not asked about.
    ///
    /// All pages of a large folio count as pinned if one is, and so does one with 1024 references.
    ///
    /// Source: `folio_maybe_dma_pinned()`.
    #[inline(never)]
    pub(crate) fn pinned(&self) -> EntrySet {
        let mut pinned = EntrySet::EMPTY;

        for i in 0..self.nr() {
            // SAFETY: The table has the entry.
            let value = unsafe { self.hint(i) };

            if !value.present() || value.special() {
                continue;
            }
            // SAFETY: The entry is present and not special, and its lock is held.
            if unsafe { bindings::mmops_pfn_is_pinned(value.pfn()) } {
                pinned.insert(i);
            }
        }
        pinned
    }
}
