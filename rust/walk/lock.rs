// SPDX-License-Identifier: GPL-2.0

//! Page-table locks.
//!
//! What takes a lock is not generic, since it calls what is exported to mmops.ko alone.

use crate::{
    bindings,
    vma::Vma, //
};
use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::ffi::c_int;

/// A held page-table lock, and the entry that it was taken for.
///
/// # Invariants
///
/// The lock is held by the current task, and `entry` is protected by it.
pub(super) struct Locked<'t, T> {
    entry: NonNull<T>,
    ptl: *mut bindings::spinlock_t,
    _p: PhantomData<&'t T>,
}

impl<T> Locked<'_, T> {
    #[inline(always)]
    pub(super) fn entry(&self) -> NonNull<T> {
        self.entry
    }
}

impl<T> Drop for Locked<'_, T> {
    #[inline(never)]
    fn drop(&mut self) {
        // SAFETY: By the type invariants the lock is held.
        unsafe { bindings::mmops_ptl_unlock(self.ptl) };
    }
}

/// A mapped and locked PTE table, from one entry on.
///
/// # Invariants
///
/// As [`Locked`], and the table is mapped.
pub(super) struct LockedTable<'t> {
    ptep: NonNull<bindings::pte_t>,
    ptl: *mut bindings::spinlock_t,
    _p: PhantomData<&'t bindings::pte_t>,
}

impl LockedTable<'_> {
    #[inline(always)]
    pub(super) fn entry(&self) -> NonNull<bindings::pte_t> {
        self.ptep
    }
}

impl Drop for LockedTable<'_> {
    #[inline(never)]
    #[link_section = ".text.hot"]
    fn drop(&mut self) {
        // SAFETY: By the type invariants the table is mapped and locked.
        unsafe { bindings::mmops_pte_unmap_unlock(self.ptep.as_ptr(), self.ptl) };
    }
}

/// Locks a PMD leaf, or a non-present entry in the place of one; `None` if it is none any more.
///
/// # Safety
///
/// `pmdp` is an entry of `vma`, and the PMD table stays for `'t`.
#[inline(never)]
#[link_section = ".text.hot"]
pub(super) unsafe fn pmd_leaf<'t>(
    pmdp: *mut bindings::pmd_t,
    vma: Vma<'t>,
) -> Option<Locked<'t, bindings::pmd_t>> {
    crate::faults::before_lock();

    // SAFETY: `pmdp` is an entry of `vma`; the function takes the lock and looks again.
    let ptl = unsafe { bindings::__pmd_trans_huge_lock(pmdp, vma.as_ptr()) };

    match NonNull::new(pmdp) {
        // INVARIANT: A lock that is returned is held.
        Some(entry) if !ptl.is_null() => Some(Locked {
            entry,
            ptl,
            _p: PhantomData,
        }),
        _ => None,
    }
}

/// Locks the PTE table that a PMD entry points to; `None` if it points to none any more.
///
/// # Safety
///
/// `pmdp` is the entry for `addr` in `vma`, and the PMD table stays for `'t`.
#[inline(never)]
#[link_section = ".text.hot"]
pub(super) unsafe fn pte_table<'t>(
    pmdp: *mut bindings::pmd_t,
    addr: usize,
    vma: Vma<'t>,
) -> Option<LockedTable<'t>> {
    crate::faults::before_table_lock();

    let mut ptl = ptr::null_mut();
    // SAFETY: `pmdp` is an entry of `vma`'s mm; the function checks that it is a table.
    let ptep = unsafe { bindings::pte_offset_map_lock(vma.mm_ptr(), pmdp, addr, &mut ptl) };

    // INVARIANT: A table that is returned is mapped and locked.
    NonNull::new(ptep).map(|ptep| LockedTable {
        ptep,
        ptl,
        _p: PhantomData,
    })
}

/// Whether a PMD entry is a leaf now, or a non-present entry in the place of one.
///
/// # Safety
///
/// `pmdp` is an entry of a PMD table that a walk holds.
#[inline]
pub(super) unsafe fn is_pmd_leaf(pmdp: *mut bindings::pmd_t) -> bool {
    // SAFETY: By this function's safety requirements.
    unsafe { bindings::mmops_pmd_is_huge(bindings::mmops_pmdp_get_lockless(pmdp)) }
}

/// The entry for `addr` in the PMD table that a PUD entry points to; `None` if it points to none.
/// The table stays for as long as the walk holds the page tables.
///
/// # Safety
///
/// `pudp` is the entry for `addr` in page tables that a walk holds.
#[inline(never)]
pub(super) unsafe fn pmd_offset(
    pudp: *mut bindings::pud_t,
    addr: usize,
) -> Option<*mut bindings::pmd_t> {
    // SAFETY: By this function's safety requirements.
    let pmdp = unsafe { bindings::mmops_pmd_offset(pudp, addr) };

    (!pmdp.is_null()).then_some(pmdp)
}

/// Whether a PUD entry is a leaf now.
///
/// # Safety
///
/// `pudp` is an entry of a PUD table that a walk holds.
#[inline]
pub(super) unsafe fn is_pud_leaf(pudp: *mut bindings::pud_t) -> bool {
    // SAFETY: By this function's safety requirements.
    unsafe { bindings::mmops_pud_trans_huge(bindings::mmops_pudp_get(pudp)) }
}

/// Locks a PUD leaf; `None` if it is none any more.
///
/// # Safety
///
/// `pudp` is an entry of `vma`, and the PUD table stays for `'t`.
#[inline(never)]
pub(super) unsafe fn pud<'t>(
    pudp: *mut bindings::pud_t,
    vma: Vma<'t>,
) -> Option<Locked<'t, bindings::pud_t>> {
    crate::faults::before_lock();

    // SAFETY: `pudp` is an entry of `vma`; the function takes the lock and looks again.
    let ptl = unsafe { bindings::__pud_trans_huge_lock(pudp, vma.as_ptr()) };

    match NonNull::new(pudp) {
        // INVARIANT: A lock that is returned is held.
        Some(entry) if !ptl.is_null() => Some(Locked {
            entry,
            ptl,
            _p: PhantomData,
        }),
        _ => None,
    }
}

/// Splits a PMD leaf as the kernel does, if it still is one; says whether it was.
///
/// # Safety
///
/// `pmdp` is the entry for `addr` in `vma`, and no page-table lock is held.
#[inline(never)]
pub(super) unsafe fn split_huge_pmd(pmdp: *mut bindings::pmd_t, addr: usize, vma: Vma<'_>) -> bool {
    // SAFETY: By this function's safety requirements.
    let is_leaf = unsafe { is_pmd_leaf(pmdp) };

    // SAFETY: By this function's safety requirements; the function looks again under the lock.
    unsafe { bindings::__split_huge_pmd(vma.as_ptr(), pmdp, addr, false) };
    is_leaf
}

/// Unmaps a PUD leaf, if it still is one, for page faults to map what they find; says whether it
/// was.
///
/// # Safety
///
/// `pudp` is the entry for `addr` in `vma`, and no page-table lock is held.
#[inline(never)]
pub(super) unsafe fn unmap_pud(pudp: *mut bindings::pud_t, addr: usize, vma: Vma<'_>) -> bool {
    // SAFETY: By this function's safety requirements.
    let is_leaf = unsafe { is_pud_leaf(pudp) };

    // SAFETY: By this function's safety requirements; the function looks again under the lock.
    unsafe { bindings::__split_huge_pud(vma.as_ptr(), pudp, addr) };
    is_leaf
}

/// Waits for who has the lock of the entry for `addr` at the level `depth` of a walk, where that
/// is none; says whether it is none still.
///
/// # Safety
///
/// A walk over `vma` is under way and has come to `addr`, in a table of that level.
#[inline(never)]
pub(super) unsafe fn wait_for_zap(vma: Vma<'_>, addr: usize, depth: c_int) -> bool {
    // SAFETY: The walk keeps the tables above the entry.
    unsafe { bindings::mmops_wait_for_zap(vma.mm_ptr(), addr, depth) }
}
