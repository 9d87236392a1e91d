// SPDX-License-Identifier: GPL-2.0

//! Page tables that a walk puts in the place of leaves.
//!
//! A PTE table cannot be allocated below `i_mmap_rwsem`, which reclaim takes. So tables are
//! allocated before a walk, and a walk that runs out of them is ended, and begun again with more.

use crate::{
    bindings,
    faults,
    range::PMD_SIZE,
    vma::Vma, //
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
pub(super) const ENTRIES: usize = PMD_SIZE >> PAGE_SHIFT;

/// Tables that are allocated at a time. Each time costs a walk from the start of the piece.
const BATCH: usize = 64;

/// How often more tables are allocated for one part of a range: somebody else may make new leaves
/// all the time.
const MAX_REFILLS: usize = 1 << 14;

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
    pub(super) unsafe fn install(
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

    /// The walk has come to another part of its range: what was tried before does not count there.
    /// Tables in hand stay.
    pub(crate) fn renew(&mut self) {
        if faults::skip_renew() {
            return;
        }
        self.refills = 0;
        self.exhausted = self.batch == 0;
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
        // Another one is left to the next refill: the last reference may sleep.
        if self.wanted.is_none() {
            // SAFETY: The VMA keeps its mm from being freed.
            self.wanted = Some(unsafe { Mm::from_raw(vma.mm_ptr()) }.into());
        }
        Err(EAGAIN)
    }

    /// Allocates tables if the last walk ran out of them. Sleeps; neither below `i_mmap_rwsem` nor
    /// in a callback of a walk.
    ///
    /// If there is no memory for even one, or after a great many, the leaves that are left will not
    /// be split.
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

        let (batch, max_refills) = if faults::few_tables() {
            (1, 1)
        } else {
            (self.batch, MAX_REFILLS)
        };

        // Those that are left are of another address space.
        tables.clear();
        self.refills += 1;
        while tables.len() < batch && self.refills <= max_refills {
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
