// SPDX-License-Identifier: GPL-2.0

//! Replacing a PUD leaf by a PMD table that maps the same memory.
//!
//! The kernel's `__split_huge_pud()` only clears a leaf, and a page fault may at once map it again
//! as it was, as long as the VMA is as large. That is enough for `mprotect(2)`, which has split the
//! VMA before. Here the VMA stays whole, so a leaf that maps no folio (a PFN map) is replaced in
//! place by 512 PMD leaves of the same bits: nothing is lost and nothing has to be faulted in.

use super::{
    lock,
    split::SpareTable,
    Vma, //
};
use crate::{
    bindings,
    notifier::{
        Cause,
        Invalidation, //
    },
    pgtable::{
        Pud,
        PUD_SIZE, //
    },
    range::AddrRange, //
};

/// Replaces a PUD leaf by `table`, or unmaps it if that cannot be; says whether it was one.
///
/// The order of the steps is that of [`super::split::split_pmd`].
///
/// # Safety
///
/// `pudp` is the entry for `addr` in `vma`, `table` is for its mm, and no page-table lock is held.
/// The walk holds the mmap lock of the VMA, or `i_mmap_rwsem` of the file that it maps.
#[inline(never)]
pub(super) unsafe fn split_pud(
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
                let old = bindings::pudp_invalidate(vma.as_ptr(), addr, pudp);

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
