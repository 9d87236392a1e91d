// SPDX-License-Identifier: GPL-2.0

//! Looking at the entries of a batch.

use super::PageResult;
use crate::{
    bindings,
    mm::MmapRead,
    pgtable::{
        Markers,
        Pte,
        PteTable,
        SoftLeaf, //
    },
    range::{
        AddrRange,
        PMD_SIZE, //
    },
    vma::Vma, //
};
use core::{
    cmp,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    mm::virt::VmaRef,
    page::PAGE_SHIFT,
    prelude::*, //
};

/// What an entry has to do with a device that wants its page.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Maps a page that may become exclusive.
    Page(NonNull<bindings::page>),
    /// Is device-exclusive already.
    Already(NonNull<bindings::page>),
    /// A write fault has to come first.
    NeedsFault,
    Refused(PageResult),
}

/// Looks at entry `i` of a table, whose lock is held: its value, and what that means. Nothing is in
/// an entry that the table has not.
#[inline(always)]
pub(super) fn kind(table: &PteTable<'_, '_>, i: usize) -> (Pte, Kind) {
    if i >= table.nr() {
        return (Pte::NONE, Kind::NeedsFault);
    }

    let pte = table.value(i);

    // SAFETY: The table's lock is held, so that the entry keeps the page.
    (pte, unsafe { kind_of(table.vma().as_ptr(), pte) })
}

/// What is to be done where there is no page table.
#[inline(never)]
pub(super) fn kind_of_nothing(vma: &VmaRef) -> Kind {
    // SAFETY: The reference keeps the VMA. There is no page.
    unsafe { kind_of(vma.as_ptr(), Pte::NONE) }
}

/// # Safety
///
/// The VMA is valid, and the page that the entry is of is kept.
#[inline(always)]
unsafe fn kind_of(vma: *mut bindings::vm_area_struct, pte: Pte) -> Kind {
    use bindings as b;

    if !pte.present() {
        // SAFETY: By this function's safety requirements.
        return unsafe { kind_of_nonpresent(vma, pte) };
    }

    let mut page = ptr::null_mut();
    // SAFETY: By this function's safety requirements.
    let kind = unsafe { b::mmops_excl_kind(vma, pte.as_raw(), &mut page) } as u32;

    match (kind, NonNull::new(page)) {
        (b::mmops_excl_kind_MMOPS_EXCL_PAGE, Some(page)) => Kind::Page(page),
        (b::mmops_excl_kind_MMOPS_EXCL_KSM, _) => Kind::Refused(PageResult::Ksm),
        (b::mmops_excl_kind_MMOPS_EXCL_USERFAULTFD, _) => Kind::Refused(PageResult::Userfaultfd),
        _ => Kind::NeedsFault,
    }
}

/// # Safety
///
/// As [`kind_of`], of an entry that is not present.
#[inline(always)]
unsafe fn kind_of_nonpresent(vma: *mut bindings::vm_area_struct, pte: Pte) -> Kind {
    match pte.soft_leaf() {
        Some(SoftLeaf::DeviceExclusive { .. }) => {
            // SAFETY: The entry is of a page.
            match NonNull::new(unsafe { bindings::mmops_pte_softleaf_page(pte.as_raw()) }) {
                Some(page) => Kind::Already(page),
                None => Kind::NeedsFault,
            }
        }
        Some(SoftLeaf::HwPoison { .. } | SoftLeaf::Marker(Markers { poisoned: true, .. })) => {
            Kind::Refused(PageResult::Poisoned)
        }
        Some(SoftLeaf::Marker(Markers { guard: true, .. })) => Kind::Refused(PageResult::Fault),
        // SAFETY: By this function's safety requirements.
        _ if unsafe { bindings::mmops_excl_asks_userspace(vma, pte.as_raw()) } => {
            Kind::Refused(PageResult::Userfaultfd)
        }
        _ => Kind::NeedsFault,
    }
}

/// Whether the VMA is of the address space whose lock is held, and the range lies in it.
///
/// # Errors
///
/// `EINVAL` if not.
pub(super) fn check(guard: &MmapRead<'_>, vma: &VmaRef, range: &AddrRange) -> Result {
    if guard.owns(vma) && vma.start() <= range.start() && range.end() <= vma.end() {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

/// Calls `f` with each PTE table in the range, locked. Huge leaves are split first, or passed over.
///
/// The walks of [`crate::walk`] do more for each table than the work on a single page is.
///
/// # Errors
///
/// `EINVAL` if the range does not lie in the VMA, or that is of another address space.
#[inline(always)]
pub(super) fn for_each_table(
    guard: &MmapRead<'_>,
    vma: &VmaRef,
    range: &AddrRange,
    split: bool,
    mut f: impl FnMut(&PteTable<'_, '_>),
) -> Result {
    check(guard, vma, range)?;

    let raw = NonNull::new(vma.as_ptr()).ok_or(EINVAL)?;
    let mut addr = range.start();

    while addr < range.end() {
        let end = cmp::min((addr & !(PMD_SIZE - 1)) + PMD_SIZE, range.end());
        let mut ptl = ptr::null_mut();
        // SAFETY: The guard holds the mmap lock of the VMA's mm, so that the VMA and all tables but
        // the lowest stay; the address lies in it.
        let ptep = unsafe { bindings::mmops_excl_lock_table(raw.as_ptr(), addr, split, &mut ptl) };

        if let Some(ptep) = NonNull::new(ptep) {
            let nr = (end - addr) >> PAGE_SHIFT;

            // SAFETY: The table is mapped and locked until below, and has `nr` entries from the
            // address on; the guard keeps the VMA.
            unsafe {
                f(&PteTable::new(ptep, addr, nr, Vma::from_raw(raw)));
                bindings::mmops_pte_unmap_unlock(ptep.as_ptr(), ptl);
            }
        }
        addr = end;
    }
    Ok(())
}
