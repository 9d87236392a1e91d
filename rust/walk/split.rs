// SPDX-License-Identifier: GPL-2.0

//! Replacing a leaf by a table that maps the same memory.
//!
//! The kernel's `__split_huge_pmd()` unmaps a leaf of a file and leaves it to page faults to map it
//! again, as a leaf. For a tracker of dirty pages both is wrong: the dirty bit goes from the entry
//! to the folio, and the granularity stays that of the leaf. Here the leaf is replaced in place, as
//! `__split_huge_pmd_locked()` does for anonymous memory, and no bit of it is lost: each new PTE
//! has the permissions, and the accessed, dirty and software bits, of the leaf.
//!
//! `__split_huge_pud()` only clears a leaf, and a page fault may at once map it again as it was, as
//! long as the VMA is as large. That is enough for `mprotect(2)`, which has split the VMA before.
//! Here the VMA stays whole, so a PUD leaf that maps no folio (a PFN map) is replaced in place by
//! 512 PMD leaves of the same bits: nothing is lost and nothing has to be faulted in.

use super::{
    lock,
    spare_table::{
        SpareTable,
        ENTRIES, //
    }, //
};
use crate::{
    bindings,
    notifier::{
        Cause,
        Invalidation, //
    },
    pgtable::{
        PmdLeaf,
        Pud, //
    },
    range::{
        AddrRange,
        PMD_SIZE,
        PUD_SIZE, //
    },
    vma::Vma, //
};

/// Replaces a PMD leaf by `table`, or does nothing if it is no such leaf any more; says whether it
/// was one: of the page cache, or of a PFN map.
///
/// Secondary MMUs are told, since what they know of a leaf may be of its size. The TLB is flushed
/// under the lock, before the table is seen: some CPUs must not find translations of both sizes for
/// one address. Until the table is there the entry stays a leaf, only not present: whoever looks
/// without the lock (zap, `mprotect`, writeback) passes over an entry that is none.
///
/// # Safety
///
/// `pmdp` is the entry for `addr` in `vma`, `table` is for its mm, and no page-table lock is held.
/// The walk holds the mmap lock of the VMA, or `i_mmap_rwsem` of the file that it maps.
#[inline(never)]
pub(super) unsafe fn replace_pmd(
    pmdp: *mut bindings::pmd_t,
    addr: usize,
    vma: Vma<'_>,
    table: SpareTable,
) -> bool {
    let addr = addr & !(PMD_SIZE - 1);
    let mm = vma.mm_ptr();
    let Ok(range) = AddrRange::new(addr, addr + PMD_SIZE) else {
        return false;
    };

    // SAFETY: By this function's safety requirements the VMA, and so its mm, stays, and the mmap
    // lock or `i_mmap_rwsem` is held.
    let _invalidation = unsafe { Invalidation::start(mm, &range, Cause::Clear) };
    // SAFETY: By this function's safety requirements.
    let Some(locked) = (unsafe { lock::pmd_leaf(pmdp, vma) }) else {
        return false;
    };
    // SAFETY: `locked` holds the lock of this leaf, and is dropped after it.
    let leaf = unsafe { PmdLeaf::new(locked.entry(), addr, addr + PMD_SIZE, vma) };

    if !leaf.is_replaceable() {
        return false;
    }
    if leaf.value().special() {
        // SAFETY: The entry is a present leaf of `vma` that maps no folio, and its lock is held.
        let table_mm = unsafe {
            let old = bindings::pmdp_invalidate(vma.as_ptr(), addr, pmdp);

            table.install(mm, addr, pmdp, old)
        };

        drop(locked);
        drop(table_mm);
        return true;
    }

    // SAFETY: The entry is a present leaf of `vma` that maps a folio, and its lock is held. The
    // folio is kept by the reference that the leaf had, which the PTEs share from now on.
    let table_mm = unsafe {
        let old = bindings::pmdp_invalidate(vma.as_ptr(), addr, pmdp);
        crate::faults::split_window(pmdp);
        let pfn = bindings::mmops_pmd_pfn(old);
        let folio = bindings::mmops_pfn_folio(pfn);
        let page = bindings::mmops_pfn_to_page(pfn);

        bindings::mmops_folio_ref_add(folio, ENTRIES as i32 - 1);
        bindings::folio_add_file_rmap_ptes(folio, page, ENTRIES as i32, vma.as_ptr());
        bindings::folio_remove_rmap_pmd(folio, page, vma.as_ptr());
        table.install(mm, addr, pmdp, old)
    };
    drop(locked);
    drop(table_mm);
    true
}

/// Replaces a PUD leaf by `table`, or unmaps it if that cannot be; says whether it was one.
///
/// The order of the steps is that of [`replace_pmd`].
///
/// # Safety
///
/// `pudp` is the entry for `addr` in `vma`, `table` is for its mm, and no page-table lock is held.
/// The walk holds the mmap lock of the VMA, or `i_mmap_rwsem` of the file that it maps.
#[inline(never)]
pub(super) unsafe fn replace_pud(
    pudp: *mut bindings::pud_t,
    addr: usize,
    vma: Vma<'_>,
    table: Option<SpareTable>,
) -> bool {
    let addr = addr & !(PUD_SIZE - 1);
    let (Some(table), Ok(range)) = (table, AddrRange::new(addr, addr + PUD_SIZE)) else {
        // SAFETY: By this function's safety requirements.
        return unsafe { lock::unmap_pud(pudp, addr, vma) };
    };
    let mm = vma.mm_ptr();

    {
        // SAFETY: By this function's safety requirements the VMA, and so its mm, stays, and the
        // mmap lock or `i_mmap_rwsem` is held.
        let _invalidation = unsafe { Invalidation::start(mm, &range, Cause::Clear) };
        // SAFETY: By this function's safety requirements.
        let Some(locked) = (unsafe { lock::pud(pudp, vma) }) else {
            return false;
        };
        // SAFETY: The entry is valid.
        let value = Pud::from_raw(unsafe { bindings::mmops_pudp_get(pudp) });

        if value.present() && value.special() {
            // SAFETY: The entry is a present leaf of `vma` that maps no folio, and its lock is
            // held. The table belongs to the value, and to the page tables from here on.
            unsafe {
                let old = bindings::mmops_pudp_invalidate(vma.as_ptr(), addr, pudp);

                bindings::mmops_pud_populate_leaves(mm, addr, pudp, table.table.as_ptr(), old);
            }
            let table_mm = table.into_mm();

            // The reference to the mm must not be dropped under the lock.
            drop(locked);
            drop(table_mm);
            return true;
        }
        drop(locked);
    }
    // SAFETY: By this function's safety requirements.
    unsafe { lock::unmap_pud(pudp, addr, vma) }
}
