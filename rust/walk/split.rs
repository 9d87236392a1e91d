// SPDX-License-Identifier: GPL-2.0

//! Replacing a PMD leaf by a PTE table that maps the same pages.
//!
//! The kernel's `__split_huge_pmd()` unmaps a leaf of a file and leaves it to page faults to map it
//! again, as a leaf. For a tracker of dirty pages both is wrong: the dirty bit goes from the entry
//! to the folio, and the granularity stays that of the leaf. Here the leaf is replaced in place, as
//! `__split_huge_pmd_locked()` does for anonymous memory, and no bit of it is lost: each new PTE
//! has the permissions, and the accessed, dirty and software bits, of the leaf.
//!
//! A PTE table cannot be allocated below `i_mmap_rwsem`, which reclaim takes. So tables are
//! allocated before a walk, and a walk that runs out of them is ended, and begun again with more.

use super::{
    lock,
    Vma, //
};
use crate::{
    bindings,
    notifier::{
        Cause,
        Invalidation, //
    },
    pgtable::{
        PmdLeaf,
        PMD_SIZE, //
    },
    range::AddrRange, //
};
use core::{
    mem,
    ptr::NonNull, //
};
use kernel::{
    mm::Mm,
    page::PAGE_SHIFT,
    prelude::*,
    sync::aref::ARef,
    task::might_sleep, //
};

/// Entries in a PTE table, and base pages in a PMD leaf.
const ENTRIES: usize = PMD_SIZE >> PAGE_SHIFT;

/// Tables that are allocated at a time. Each time costs a walk from the start of the piece.
const BATCH: usize = 64;

/// How often more tables are allocated for one call: somebody else may make new leaves all the
/// time.
const MAX_REFILLS: usize = 1024;

/// A PTE table that is not in use. [`SpareTables`] has them.
///
/// # Invariants
///
/// `table` was returned by `pte_alloc_one()` and belongs to the value.
pub struct SpareTable {
    pub(super) table: NonNull<kernel::bindings::page>,
    mm: ARef<Mm>,
}

impl SpareTable {
    /// Allocates a table for an address space. Sleeps; not below `i_mmap_rwsem`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    #[inline(never)]
    fn new(mm: ARef<Mm>) -> Result<Self> {
        // SAFETY: The reference keeps the mm.
        let table = unsafe { bindings::pte_alloc_one(mm.as_raw()) };

        // INVARIANT: The table was just allocated.
        Ok(Self {
            table: NonNull::new(table).ok_or(ENOMEM)?,
            mm,
        })
    }

    /// Whether the table may be put into the page tables that `vma` is of.
    #[inline(never)]
    pub(super) fn is_for(&self, vma: Vma<'_>) -> bool {
        core::ptr::eq(self.mm.as_raw(), vma.mm_ptr())
    }

    /// Puts the table, filled with entries that map what `pmd` maps, in the place of a PMD entry.
    ///
    /// # Safety
    ///
    /// `pmdp` is the entry for `addr`, a multiple of [`PMD_SIZE`], of `mm`; it is an invalidated
    /// leaf, its lock is held, and each entry's mapping is accounted for.
    ///
    /// Returns the reference to the mm that the table was allocated for, which must not be dropped
    /// before the lock is released.
    unsafe fn install(
        self,
        mm: *mut bindings::mm_struct,
        addr: usize,
        pmdp: *mut bindings::pmd_t,
        pmd: bindings::pmd_t,
    ) -> ARef<Mm> {
        let table = self.table.as_ptr();

        // SAFETY: The table belongs to the value, and has `ENTRIES` entries; the rest by this
        // function's safety requirements.
        unsafe {
            bindings::mmops_set_ptes(
                mm,
                addr,
                bindings::mmops_pgtable_ptes(table),
                bindings::mmops_pmd_first_pte(pmd),
                ENTRIES as u32,
            );
            bindings::mmops_pmd_populate(mm, pmdp, table);
        }

        self.into_mm()
    }

    /// Gives the table away: the page tables own it from now on. The reference to the mm is still
    /// ours, and must not be dropped under a lock.
    pub(super) fn into_mm(self) -> ARef<Mm> {
        let this = mem::ManuallyDrop::new(self);

        // SAFETY: The field is not used again.
        unsafe { core::ptr::read(&this.mm) }
    }
}

impl Drop for SpareTable {
    #[inline(never)]
    fn drop(&mut self) {
        // SAFETY: By the type invariants the table belongs to the value.
        unsafe { bindings::mmops_pte_free(self.mm.as_raw(), self.table.as_ptr()) };
    }
}

/// The tables that a walk which splits leaves has in hand.
pub struct SpareTables {
    /// Made when the first are needed, so that a call which splits nothing frees nothing.
    tables: Option<KVec<SpareTable>>,
    /// The address space that the last walk ran out of tables in.
    wanted: Option<ARef<Mm>>,
    refills: usize,
    batch: usize,
    /// No leaf is to be split, or no more.
    exhausted: bool,
}

impl SpareTables {
    /// No tables yet; the first walk that wants one is ended.
    pub const fn new() -> Self {
        Self {
            tables: None,
            wanted: None,
            refills: 0,
            batch: BATCH,
            exhausted: false,
        }
    }

    /// As [`Self::new`], for a walk that splits at the ends of its range alone.
    pub const fn few() -> Self {
        Self {
            tables: None,
            wanted: None,
            refills: 0,
            batch: 4,
            exhausted: false,
        }
    }

    /// For a walk that splits nothing.
    pub const fn none() -> Self {
        Self {
            tables: None,
            wanted: None,
            refills: 0,
            batch: 0,
            exhausted: true,
        }
    }

    /// A table for a leaf in `vma`; `None` if it is not to be split. Does not sleep.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if the walk has to be ended, and begun again after [`Self::refill`].
    #[inline(never)]
    pub fn take_for(&mut self, vma: Vma<'_>) -> Result<Option<SpareTable>> {
        if self.exhausted {
            return Ok(None);
        }
        if let Some(tables) = &mut self.tables {
            if tables.last().is_some_and(|table| table.is_for(vma)) {
                return Ok(tables.pop());
            }
        }
        // SAFETY: The VMA keeps its mm from being freed.
        self.wanted = Some(unsafe { Mm::from_raw(vma.mm_ptr()) }.into());
        Err(EAGAIN)
    }

    /// Allocates tables if the last walk ran out of them. Sleeps; neither below `i_mmap_rwsem` nor
    /// in a callback of a walk.
    ///
    /// If there is no memory for even one, the leaves that are left will not be split.
    #[inline]
    pub fn refill(&mut self) {
        might_sleep();
        if let Some(mm) = self.wanted.take() {
            self.refill_for(mm);
        }
    }

    #[inline(never)]
    fn refill_for(&mut self, mm: ARef<Mm>) {
        let tables = self.tables.get_or_insert_with(KVec::new);

        // Those that are left are of another address space.
        tables.clear();
        self.refills += 1;
        while tables.len() < self.batch && self.refills <= MAX_REFILLS {
            let Ok(table) = SpareTable::new(mm.clone()) else {
                break;
            };
            if tables.push(table, GFP_KERNEL).is_err() {
                break;
            }
        }
        self.exhausted = tables.is_empty();
    }
}

impl Default for SpareTables {
    fn default() -> Self {
        Self::new()
    }
}

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
pub(super) unsafe fn split_pmd(
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
