// SPDX-License-Identifier: GPL-2.0

//! Huge leaves that are taken as a whole.

use crate::{
    bindings,
    gather::{
        counter,
        Gather,
        LockedGather,
        PagePtr, //
    },
    pgtable::{
        PmdLeaf,
        PudLeaf,
        SoftLeaf, //
    },
    range::{
        PMD_SIZE,
        PUD_SIZE, //
    }, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// Takes a PMD leaf, or the non-present entry in the place of one.
///
/// As for PTEs: for a dirty leaf of a file first the flush, then the mark, then rmap.
///
/// # Errors
///
/// `EINVAL` if the leaf is of another address space than the gather; nothing was done then.
///
/// Source: `zap_huge_pmd()`.
#[inline(never)]
pub(super) fn zap_pmd(leaf: &mut PmdLeaf<'_, '_>, gather: &mut Gather<'_, '_>) -> Result {
    use bindings as b;

    const PAGES: usize = PMD_SIZE >> PAGE_SHIFT;

    let gather = &mut gather.locked(leaf)?;
    let vma = gather.vma();
    // SAFETY: Of the leaf only the deposited table is used after this, also by the caller.
    let old = unsafe { leaf.take(gather) };

    if old.present() && old.special() {
        // The huge zero page, for which a table is deposited in anonymous memory.
        if vma.is_anonymous() {
            // SAFETY: The leaf was just taken.
            unsafe { leaf.free_deposited_table() };
        }
        return Ok(());
    }

    // SAFETY: The leaf, or who migrates the folio, keeps it; its lock is held.
    unsafe {
        let page = if old.present() {
            b::mmops_pfn_to_page(old.pfn())
        } else {
            let folio = b::mmops_pmd_softleaf_folio(old.as_raw());

            if folio.is_null() {
                return Ok(());
            }
            folio.cast()
        };
        let folio = b::mmops_page_folio(page);
        let is_anon = b::mmops_folio_test_anon(folio);
        // Of the entry, and not of the folio as C has it: see Documentation/kernel-notes.rst.
        let is_device_private = matches!(old.soft_leaf(), Some(SoftLeaf::DevicePrivate { .. }));

        if !old.present() && !is_device_private {
            crate::faults::migrations_zapped();
        }

        if is_anon {
            gather.uncharge(counter::ANON, PAGES);
        } else {
            gather.uncharge(b::mmops_mm_counter(folio) as usize, PAGES);
            if old.present() {
                if old.dirty() {
                    give_dirty(folio, gather);
                }
                if old.young() && b::mmops_vma_has_recency(vma.as_ptr()) {
                    kernel::bindings::folio_mark_accessed(folio);
                }
            }
        }
        if old.present() || is_device_private {
            b::folio_remove_rmap_pmd(folio, page, vma.as_ptr());
        }
        if is_anon {
            leaf.free_deposited_table();
        }
        if old.present() {
            if let Some(page) = PagePtr::new(page) {
                gather.remove_leaf(page);
            }
        } else if is_device_private {
            b::mmops_folio_put(folio);
        }
    }
    Ok(())
}

/// Takes a PUD leaf, which only DAX and PFN maps have.
///
/// # Errors
///
/// As [`zap_pmd`].
///
/// Source: `zap_huge_pud()`, which loses the dirty bit: DAX has no use for it.
#[inline(never)]
pub(super) fn zap_pud(leaf: &mut PudLeaf<'_, '_>, gather: &mut Gather<'_, '_>) -> Result {
    use bindings as b;

    let gather = &mut gather.locked(leaf)?;
    let vma = gather.vma();
    // SAFETY: The leaf is not used after this, also by the caller.
    let old = unsafe { leaf.take(gather) };

    if old.special() {
        return Ok(());
    }
    // SAFETY: The leaf, which is not special, kept a folio; its lock is held.
    unsafe {
        let page = b::mmops_pfn_to_page(old.pfn());
        let folio = b::mmops_page_folio(page);

        if old.dirty() {
            give_dirty(folio, gather);
        }
        b::folio_remove_rmap_pud(folio, page, vma.as_ptr());
        gather.uncharge(b::mmops_mm_counter(folio) as usize, PUD_SIZE >> PAGE_SHIFT);
        if let Some(page) = PagePtr::new(page) {
            gather.remove_leaf(page);
        }
    }
    Ok(())
}

/// Marks the folio of a leaf dirty, after the flush.
///
/// # Safety
///
/// The dirty leaf was just taken under its lock, which is held, and rmap is still there.
unsafe fn give_dirty(folio: *mut bindings::folio, gather: &mut LockedGather<'_, '_, '_>) {
    gather.flush_tlb();
    // SAFETY: By this function's safety requirements.
    unsafe { bindings::mmops_zap_mark_dirty(folio) };
}
