// SPDX-License-Identifier: GPL-2.0

//! The entries of one PTE table.

use crate::{
    bindings,
    gather::{
        counter,
        Gather,
        LockedGather,
        PagePtr, //
    },
    pgtable::{
        Markers,
        Pte,
        PteTable,
        SoftLeaf, //
    },
    vma::Vma, //
};
use kernel::prelude::*;

/// What was taken of a table.
pub(super) struct Taken {
    pub(super) entries: usize,
    /// There was room for all of it.
    pub(super) complete: bool,
}

/// The loop over one PTE table; a function of its own so that a test finds it in the module.
///
/// # Errors
///
/// `EINVAL` if the table is of another address space than the gather; nothing was done then.
///
/// Source: `zap_pte_range()`.
#[inline(never)]
pub(super) fn zap_table(
    table: &mut PteTable<'_, '_>,
    gather: &mut Gather<'_, '_>,
) -> Result<Taken> {
    let gather = &mut gather.locked(table)?;
    let recency = has_recency(gather.vma());
    let mut i = 0;
    let mut entries = 0;

    // SAFETY: The mm is valid, and the lock of one of its tables is held.
    unsafe { bindings::flush_tlb_batched_pending(gather.mm_ptr()) };
    while i < table.nr() {
        let pte = table.value(i);

        if pte.none() {
            i += 1;
            continue;
        }

        let step = if pte.present() {
            // SAFETY: The table has the entry, whose value this is, and the gather is of the table.
            unsafe { zap_present(table, i, pte, recency, gather) }
        } else {
            // SAFETY: As above; the entry is not none.
            unsafe { zap_nonpresent(table, i, pte, gather) }
        };

        i += step.nr;
        entries += step.taken;
        if step.flush_due && i < table.nr() {
            return Ok(Taken {
                entries,
                complete: false,
            });
        }
    }
    Ok(Taken {
        entries,
        complete: true,
    })
}

/// What was done at an entry.
struct Step {
    /// Entries that are done with.
    nr: usize,
    /// Of these, how many were taken.
    taken: usize,
    /// There is no room for more.
    flush_due: bool,
}

impl Step {
    fn taken(nr: usize, flush_due: bool) -> Self {
        Self {
            nr,
            taken: nr,
            flush_due,
        }
    }

    fn kept() -> Self {
        Self {
            nr: 1,
            taken: 0,
            flush_due: false,
        }
    }
}

/// # Safety
///
/// `i` is the index of a present entry, whose value is `pte`, and `gather` was made for the table.
///
/// Source: `zap_present_ptes()`.
#[inline(always)]
unsafe fn zap_present(
    table: &mut PteTable<'_, '_>,
    i: usize,
    pte: Pte,
    recency: bool,
    gather: &mut LockedGather<'_, '_, '_>,
) -> Step {
    // SAFETY: The function computes; whether there is a page structure is asked below.
    let page = unsafe { bindings::mmops_pfn_to_page(pte.pfn()) };
    let Some(page) = PagePtr::new(page).filter(|_| !pte.special()) else {
        // SAFETY: The entry is one, by this function's safety requirements.
        return unsafe { zap_special(table, i, gather) };
    };
    // SAFETY: A present entry that is not special maps a page that it keeps.
    let folio = unsafe { bindings::mmops_page_folio(page.as_ptr()) };
    // SAFETY: The entry keeps the folio.
    let nr = if unsafe { bindings::mmops_folio_test_large(folio) } {
        // SAFETY: By this function's safety requirements; the folio is the entry's.
        unsafe { batch(table, i, pte, folio) }
    } else {
        1
    };
    // SAFETY: `batch` counted entries of the table that map consecutive pages of the folio.
    let old = unsafe { table.take(i, nr, gather) };
    let mut dirty = false;

    // SAFETY: The reference that the entry had keeps the folio.
    if unsafe { bindings::mmops_folio_test_anon(folio) } {
        // SAFETY: The entries were just taken, and were counted as anonymous.
        unsafe { gather.uncharge(counter::ANON, nr) };
    } else {
        dirty = old.dirty();
        if old.young() && recency {
            // SAFETY: As above.
            unsafe { kernel::bindings::folio_mark_accessed(folio) };
        }
        // SAFETY: The reference keeps the folio; the entries, just taken, were counted so.
        unsafe { gather.uncharge(bindings::mmops_mm_counter(folio) as usize, nr) };
    }
    // SAFETY: The entries were just taken.
    unsafe { after_take(table, i, nr, old, gather) };

    // SAFETY: The entries were just taken; they mapped `nr` pages of the folio from `page` on.
    let flush_due = unsafe { gather.remove_pages(page, nr, dirty) };

    Step::taken(nr, flush_due)
}

/// An entry without a folio that mm manages: the shared zero page.
///
/// # Safety
///
/// `i` is the index of such an entry, which is present, and `gather` was made for the table.
#[inline(never)]
unsafe fn zap_special(
    table: &mut PteTable<'_, '_>,
    i: usize,
    gather: &mut LockedGather<'_, '_, '_>,
) -> Step {
    // SAFETY: By this function's safety requirements.
    let old = unsafe { table.take(i, 1, gather) };

    // SAFETY: The entry was just taken.
    unsafe { after_take(table, i, 1, old, gather) };
    // SAFETY: The VMA is valid, and the entry was just taken.
    unsafe { bindings::mmops_unmap_special(table.vma().as_ptr(), old.as_raw()) };
    Step::taken(1, false)
}

/// What is left in the place of present entries.
///
/// # Safety
///
/// The table has `nr` entries from index `i` on. They are cleared, and `old` was the first.
#[inline(always)]
unsafe fn after_take(
    table: &mut PteTable<'_, '_>,
    i: usize,
    nr: usize,
    old: Pte,
    gather: &LockedGather<'_, '_, '_>,
) {
    let vma = gather.vma();

    // SAFETY: The VMA is valid.
    unsafe { bindings::mmops_check_zapped_pte(vma.as_ptr(), old.as_raw()) };
    // SAFETY: As above.
    if unsafe { bindings::mmops_userfaultfd_pte_wp(vma.as_ptr(), old.as_raw()) } {
        // SAFETY: By this function's safety requirements.
        unsafe { leave_marker(table, i, nr, old, vma) };
    }
}

/// Leaves uffd-wp markers where a file's entries were, if these were write-protected so.
///
/// # Safety
///
/// As [`after_take`]; `vma` is that of the table.
#[inline(never)]
unsafe fn leave_marker(table: &mut PteTable<'_, '_>, i: usize, nr: usize, old: Pte, vma: Vma<'_>) {
    // SAFETY: By this function's safety requirements; the VMA is valid, and the lock is held.
    unsafe {
        bindings::cond_install_uffd_wp_ptes(
            vma.as_ptr(),
            table.addr_of(i),
            table.entry_ptr(i),
            old.as_raw(),
            nr,
        )
    };
}

/// The number of entries that map consecutive pages of a large folio.
///
/// # Safety
///
/// `i` is the index of a present entry, whose value is `pte` and which maps a page of `folio`.
#[inline(never)]
unsafe fn batch(
    table: &PteTable<'_, '_>,
    i: usize,
    pte: Pte,
    folio: *mut bindings::folio,
) -> usize {
    // SAFETY: By this function's safety requirements there are `nr - i` entries from the place on,
    // the first of which keeps the folio.
    unsafe {
        bindings::mmops_folio_pte_batch(
            folio,
            table.entry_ptr(i),
            pte.as_raw(),
            (table.nr() - i) as u32,
        )
    }
    .max(1) as usize
}

fn has_recency(vma: Vma<'_>) -> bool {
    // SAFETY: The VMA is valid.
    unsafe { bindings::mmops_vma_has_recency(vma.as_ptr()) }
}

/// # Safety
///
/// `i` is the index of an entry, neither none nor present, whose value is `pte`, and `gather` was
/// made for the table.
///
/// Source: `zap_nonpresent_ptes()`.
#[inline(never)]
unsafe fn zap_nonpresent(
    table: &mut PteTable<'_, '_>,
    i: usize,
    pte: Pte,
    gather: &mut LockedGather<'_, '_, '_>,
) -> Step {
    use bindings as b;

    let vma = gather.vma();
    let raw = pte.as_raw();
    let mut nr = 1;

    match pte.soft_leaf() {
        // SAFETY: The entry is of a page, which it keeps: it has a reference, is in rmap and is
        // counted. The TLB knows nothing of it.
        Some(SoftLeaf::DevicePrivate { .. } | SoftLeaf::DeviceExclusive { .. }) => unsafe {
            let page = b::mmops_pte_softleaf_page(raw);
            let folio = b::mmops_page_folio(page);

            gather.uncharge(b::mmops_mm_counter(folio) as usize, 1);
            b::folio_remove_rmap_ptes(folio, page, 1, vma.as_ptr());
            table.take_nonpresent(i, 1, gather);
            b::mmops_folio_put(folio);
        },
        Some(SoftLeaf::Swap { .. }) => {
            let left = (table.nr() - i) as u32;

            // SAFETY: There are so many entries from the place on, the first of which is of swap.
            nr = unsafe { b::mmops_swap_pte_batch(table.entry_ptr(i), raw, left) } as usize;
            // SAFETY: The batch is of such entries, which kept these places in swap, and were
            // counted.
            unsafe {
                table.take_nonpresent(i, nr, gather);
                b::mmops_swap_put(raw, nr as u32);
                gather.uncharge(counter::SWAP, nr);
            }
        }
        // SAFETY: A migration entry is of a locked folio, which whoever migrates it keeps; it is
        // counted as its folio is.
        Some(SoftLeaf::Migration { .. }) => unsafe {
            let folio = b::mmops_page_folio(b::mmops_pte_softleaf_page(raw));

            crate::faults::migrations_zapped();

            gather.uncharge(b::mmops_mm_counter(folio) as usize, 1);
            table.take_nonpresent(i, 1, gather);
        },
        Some(SoftLeaf::Marker(Markers { uffd_wp: true, .. })) if !vma.is_anonymous() => {
            return Step::kept()
        }
        Some(SoftLeaf::Marker(Markers {
            uffd_wp: false,
            guard: true,
            ..
        })) => return Step::kept(),
        // SAFETY: By this function's safety requirements.
        _ => unsafe { table.take_nonpresent(i, 1, gather) },
    }
    // SAFETY: The entries were just taken.
    unsafe { leave_marker(table, i, nr, pte, vma) };
    Step::taken(nr, false)
}
