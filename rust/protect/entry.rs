// SPDX-License-Identifier: GPL-2.0

//! Another protection for locked leaves.
//!
//! An entry is changed by one atomic exchange: it is never cleared, and the accessed, dirty and
//! software bits that it had at that moment are kept. The new value is made of the value that was
//! replaced.

use crate::{
    bindings,
    pgtable::{
        HugeLevel,
        Leaf,
        PmdTable,
        PteTable, //
    },
    range::{
        PMD_SIZE,
        PUD_SIZE, //
    },
    tlb::FlushScope,
    vma::Vma, //
};
use core::cmp;
use kernel::{
    mm::virt::{
        flags,
        vm_flags_t, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    }, //
};

/// What the C helpers tell of a change.
const CHANGED: u32 = bindings::MMOPS_PROT_CHANGED;
const LOST: u32 = bindings::MMOPS_PROT_LOST;

/// The protection of entries in one VMA, never above what the VMA allows.
///
/// # Invariants
///
/// The mmap lock of `vma`'s mm is held for `'v`, so `prot` stays what the VMA makes of it.
pub(crate) struct Protection<'v> {
    vma: Vma<'v>,
    prot: usize,
    /// Write permission that only faults grant in this VMA may be granted where the fault would.
    upgrade: bool,
    /// Entries that are not present are not to come back writable.
    lower: bool,
    /// Some access is permitted.
    accessible: bool,
}

impl<'v> Protection<'v> {
    /// The protection that permits `access`, of `VM_READ`, `VM_WRITE` and `VM_EXEC`, as far as
    /// `vma` does.
    ///
    /// # Safety
    ///
    /// The mmap lock of the VMA's mm is held for `'v`.
    pub(crate) unsafe fn new(vma: Vma<'v>, access: vm_flags_t) -> Self {
        let write = access & vma.flags() & flags::WRITE != 0;

        // INVARIANT: By the function's safety requirements.
        Self {
            vma,
            // SAFETY: The VMA is valid.
            prot: unsafe { bindings::mmops_vma_protection(vma.as_ptr(), access) },
            upgrade: write,
            lower: !write,
            accessible: access & vma.flags() & (flags::READ | flags::WRITE | flags::EXEC) != 0,
        }
    }

    /// Whether the protection is for the entries of `vma`.
    fn is_for(&self, vma: Vma<'_>) -> bool {
        core::ptr::eq(self.vma.as_ptr(), vma.as_ptr())
    }
}

impl<'s> PteTable<'_, 's> {
    /// Gives all present entries the protection `to`, and returns the number of those that it
    /// changed. Entries that would come back writable will not, if `to` is without.
    ///
    /// Source: `change_pte_range()`.
    #[inline(never)]
    pub(super) fn protect(&mut self, to: &Protection<'_>, scope: &mut FlushScope<'s>) -> usize {
        let mut changed = 0;
        // First entry that lost a permission, and the one behind the last.
        let (mut first, mut behind) = (self.nr(), 0);

        if !to.is_for(self.vma()) {
            return 0;
        }
        // SAFETY: The mm is valid. Reclaim may owe a flush for what it unmapped here.
        unsafe { bindings::mmops_flush_tlb_batched_pending(self.vma().mm_ptr()) };

        for i in 0..self.nr() {
            // SAFETY: The table has the entry.
            let value = unsafe { self.hint(i) };

            if value.none() {
                continue;
            }

            let addr = self.addr() + (i << PAGE_SHIFT);
            let ptep = self.entry_ptr(i);

            if !value.present() {
                if to.lower && value.soft_leaf().is_some_and(|leaf| leaf.is_writable()) {
                    // SAFETY: The entry is valid, and its table's lock is held; so it is what was
                    // looked at.
                    unsafe {
                        bindings::mmops_ptep_protect_softleaf(self.vma().as_ptr(), addr, ptep)
                    };
                }
                continue;
            }

            let change = |ptep| {
                // SAFETY: The entry is present, or a copy of one, and its table's lock is held.
                unsafe {
                    bindings::mmops_ptep_protect(
                        self.vma().as_ptr(),
                        addr,
                        ptep,
                        to.prot,
                        to.upgrade,
                    )
                }
            };
            // SAFETY: The entry is valid and locked.
            let done = unsafe { crate::faults::protect_entry(ptep, change) };

            if done & CHANGED != 0 {
                changed += 1;
            }
            if done & LOST != 0 {
                first = cmp::min(first, i);
                behind = i + 1;
            }
        }

        if first < behind {
            scope.record_leaves(
                self.addr() + (first << PAGE_SHIFT),
                (behind - first) << PAGE_SHIFT,
                PAGE_SIZE,
            );
        }
        changed
    }
}

impl<'s, L: HugeLevel> Leaf<'_, 's, L> {
    /// Gives a leaf the protection `to`; says whether that changed it. An entry that is not present
    /// is treated as in a [`PteTable`], and counts as not changed.
    ///
    /// A leaf of PUD size stays as it is if that permits no access, which no fault would resolve,
    /// and write permission that only a fault may grant is left to the fault.
    #[inline(never)]
    pub(super) fn protect(&mut self, to: &Protection<'_>, scope: &mut FlushScope<'s>) -> bool {
        if !to.is_for(self.vma()) || L::SIZE == PUD_SIZE && !to.accessible {
            return false;
        }

        let done = self.change_protection(to);

        if done & LOST != 0 {
            self.record(scope);
        }
        done & CHANGED != 0
    }

    /// Gives the entry the protection `to`, which is for its VMA, and says what that changed.
    ///
    /// Source: `change_huge_pmd()`, `change_huge_pud()`.
    #[inline(always)]
    fn change_protection(&mut self, to: &Protection<'_>) -> u32 {
        let vma = self.vma().as_ptr();
        let addr = self.leaf_addr();

        let value = self.value();

        if !value.present() {
            if to.lower && value.soft_leaf().is_some_and(|leaf| leaf.is_writable()) {
                // SAFETY: By the type invariants the entry is valid and its lock is held; so it is
                // what was looked at.
                unsafe { L::protect_nonpresent(vma, addr, self.entry_ptr()) };
            }
            return 0;
        }

        let change = |entry| {
            // SAFETY: The leaf, or the copy of it, is present, and its lock is held.
            unsafe { L::protect(vma, addr, entry, to.prot, to.upgrade) }
        };
        // SAFETY: The entry is valid and locked.
        unsafe { crate::faults::protect_entry(self.entry_ptr(), change) }
    }
}

impl<'s> PmdTable<'_, 's> {
    /// As [`Leaf::protect`], for all leaves up to the first entry that is none. Returns the
    /// number of entries before that, and of the leaves that it changed.
    #[inline(never)]
    pub(super) fn protect(
        &mut self,
        to: &Protection<'_>,
        scope: &mut FlushScope<'s>,
    ) -> (usize, usize) {
        let mut changed = 0;
        // First leaf that lost a permission, and the end of the last.
        let (mut first, mut behind) = (usize::MAX, 0);

        if !to.is_for(self.vma()) {
            return (0, 0);
        }
        let seen = self.for_each_leaf(|leaf| {
            let done = leaf.change_protection(to);

            if done & CHANGED != 0 {
                changed += 1;
            }
            if done & LOST != 0 {
                first = cmp::min(first, leaf.leaf_addr());
                behind = leaf.end();
            }
        });

        if first < behind {
            scope.record_leaves(first, behind - first, PMD_SIZE);
        }
        (seen, changed)
    }
}
