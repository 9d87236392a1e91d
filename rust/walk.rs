// SPDX-License-Identifier: GPL-2.0

//! Walks over the page tables of an address space.
//!
//! A walk visits, in each VMA of its range that the walker wants, every PTE table once and every
//! huge leaf once. The walker gets a whole PTE table under one lock and loops over it itself, so
//! that nothing is called through a pointer for a single entry.
//!
//! | function                | guard                                  | visits                    |
//! |-------------------------|----------------------------------------|---------------------------|
//! | [`walk_page_mapping`]   | [`IMmapReadGuard`] of a file           | all VMAs that map a range |
//! | [`walk_page_range`]     | [`MmapRead`] of a process              | all VMAs in a range       |
//! | [`walk_page_range_vma`] | [`MmapRead`] of a process              | a range inside one VMA    |
//!
//! Each takes a [`Walk`], which reads, or, as `…_mut`, a [`WalkMut`], which changes entries
//! inside a [`FlushScope`].
//!
//! A walk takes its guard exclusively, so that none begins in a callback of another, which holds a
//! page-table lock. What no type forbids in a callback is to sleep, to take a lock or a second
//! guard, and to walk another address space: a kernel with `CONFIG_DEBUG_ATOMIC_SLEEP` tells.
//!
//! VMAs of hugetlbfs are never visited: their page tables have rules of their own.
//!
//! C header: [`include/linux/pagewalk.h`](srctree/include/linux/pagewalk.h)

pub(crate) mod engine;
mod lock;
mod spare_table;
mod split;

pub use spare_table::{
    SpareTable,
    SpareTables, //
};

use crate::{
    mapping::IMmapReadGuard,
    mm::{
        MmapExclusive,
        MmapRead, //
    },
    notifier::ChangeEvent,
    pgtable::{
        PmdLeaf,
        PteTable,
        PudLeaf, //
    },
    range::{
        AddrRange,
        PageRange, //
    },
    tlb::{
        FlushScope,
        UnlockedScope, //
    },
    vma::Vma, //
};
use engine::{
    Changing,
    Engine,
    Reading, //
};
use kernel::prelude::*;

/// What a walk does with a huge leaf after the callback.
pub enum LeafAction<T = ()> {
    /// The leaf is done with; go on behind it.
    Done,
    /// Split the leaf and visit what is there then.
    ///
    /// A PMD leaf is replaced in place by a PTE table, which the walker brings along: it maps the
    /// same pages with the same bits. One that cannot be ([`PmdLeaf::can_split`]; one of a PFN map
    /// can) is passed over, as with [`Self::Done`]. A table of another address space ends the walk
    /// with `EINVAL`.
    ///
    /// A PUD leaf is replaced if [`WalkMut::pud_table`] gives a table and it maps no folio; else it
    /// is unmapped, with its dirty state kept in the folio, and comes back by page faults (source:
    /// `__split_huge_pud()`).
    Split(T),
}

/// A walk that reads entries.
///
/// All callbacks but [`Self::checkpoint`] and [`Self::test_vma`] run under the page-table lock of
/// what they get: they must not sleep.
pub trait Walk {
    /// Whether `vma` is to be visited.
    fn test_vma(&mut self, vma: Vma<'_>) -> bool {
        let _ = vma;
        true
    }

    /// Called before each PTE table or huge leaf is locked; `nr` is the number of base pages that
    /// it covers at the most. An error ends the walk. May sleep; the walk has let others run
    /// before.
    fn checkpoint(&mut self, nr: usize) -> Result {
        let _ = nr;
        Ok(())
    }

    /// A PTE table, or the part of one that lies in the range.
    fn pte_table(&mut self, table: &PteTable<'_, '_>) -> Result;

    /// A leaf of PMD size, or a non-present entry in the place of one.
    fn pmd_leaf(&mut self, leaf: &PmdLeaf<'_, '_>) -> Result {
        let _ = leaf;
        Ok(())
    }

    /// A leaf of PUD size.
    fn pud_leaf(&mut self, leaf: &PudLeaf<'_, '_>) -> Result {
        let _ = leaf;
        Ok(())
    }
}

/// A walk that takes permissions from entries.
///
/// Each visited VMA has a [`FlushScope`] of its own, which ends, and so has flushed, before the
/// next VMA is visited. All callbacks but [`Self::checkpoint`] and [`Self::test_vma`] run under the
/// page-table lock of what they get: they must not sleep.
pub trait WalkMut {
    /// What secondary MMUs are told.
    const EVENT: ChangeEvent;

    /// Whether `vma` is to be visited.
    fn test_vma(&mut self, vma: Vma<'_>) -> bool {
        let _ = vma;
        true
    }

    /// Called before each PTE table or huge leaf is locked; `nr` is the number of base pages that
    /// it covers at the most. An error ends the walk. May sleep; the walk has let others run
    /// before.
    fn checkpoint(&mut self, nr: usize, scope: &mut UnlockedScope<'_, '_>) -> Result {
        let _ = (nr, scope);
        Ok(())
    }

    /// A PTE table, or the part of one that lies in the range.
    fn pte_table<'s>(&mut self, table: &mut PteTable<'_, 's>, scope: &mut FlushScope<'s>)
        -> Result;

    /// A leaf of PMD size, or a non-present entry in the place of one.
    fn pmd_leaf<'s>(
        &mut self,
        leaf: &mut PmdLeaf<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<LeafAction<SpareTable>> {
        let _ = (leaf, scope);
        Ok(LeafAction::Done)
    }

    /// A leaf of PUD size.
    fn pud_leaf<'s>(
        &mut self,
        leaf: &mut PudLeaf<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<LeafAction> {
        let _ = (leaf, scope);
        Ok(LeafAction::Done)
    }

    /// A table for the PUD leaf that [`Self::pud_leaf`] wants split: a leaf that maps no folio is
    /// then replaced in place by PMD leaves of the same bits, and not unmapped. Does not sleep.
    fn pud_table(&mut self) -> Option<SpareTable> {
        None
    }
}

/// Walks all mappings of a range of a file's page offsets, in all processes.
///
/// Unlike the C function, the walk goes on behind a VMA that the walker does not want.
///
/// Sleeps. The guard holds `i_mmap_rwsem`; the mmap locks of the processes are not needed.
///
/// # Errors
///
/// What a callback returned; what was visited before is complete.
///
/// Source: `walk_page_mapping()`.
pub fn walk_page_mapping<W: Walk>(
    guard: &mut IMmapReadGuard<'_>,
    range: &PageRange,
    walker: &mut W,
) -> Result {
    engine::walk_mapping(guard, range, Engine::new(&mut Reading(walker)))
}

/// As [`walk_page_mapping`], with entries that can be changed.
///
/// Source: `walk_page_mapping()`.
pub fn walk_page_mapping_mut<W: WalkMut>(
    guard: &mut IMmapReadGuard<'_>,
    range: &PageRange,
    walker: &mut W,
) -> Result {
    engine::walk_mapping(guard, range, Engine::new(&mut Changing(walker)))
}

/// Walks all VMAs in a range of addresses of one process. Holes are passed over.
///
/// Sleeps. The guard holds the mmap lock.
///
/// # Errors
///
/// What a callback returned; what was visited before is complete.
///
/// Source: `walk_page_range()`.
pub fn walk_page_range<W: Walk>(
    guard: &mut MmapRead<'_>,
    range: &AddrRange,
    walker: &mut W,
) -> Result {
    engine::walk_range(guard.exclusive(), range, Engine::new(&mut Reading(walker)))
}

/// As [`walk_page_range`], with entries that can be changed.
///
/// Source: `walk_page_range()`.
pub fn walk_page_range_mut<W: WalkMut>(
    guard: &mut MmapRead<'_>,
    range: &AddrRange,
    walker: &mut W,
) -> Result {
    engine::walk_range(guard.exclusive(), range, Engine::new(&mut Changing(walker)))
}

/// As [`walk_page_range_mut`], with one [`FlushScope`] for all VMAs: secondary MMUs are told once,
/// of all of the range, and there is one TLB flush at the most, at the end.
///
/// Source: `clear_refs_write()`.
pub fn walk_page_range_one_scope_mut<W: WalkMut>(
    guard: &mut MmapRead<'_>,
    range: &AddrRange,
    walker: &mut W,
) -> Result {
    engine::walk_range_one_scope(guard.exclusive(), range, Engine::new(&mut Changing(walker)))
}

/// Walks a range of addresses inside one VMA.
///
/// Sleeps. The guard holds the mmap lock.
///
/// # Errors
///
/// `EINVAL` if the range does not lie in one VMA; else what a callback returned, and what was
/// visited before is complete.
///
/// Source: `walk_page_range_vma()`.
pub fn walk_page_range_vma<W: Walk>(
    guard: &mut MmapRead<'_>,
    range: &AddrRange,
    walker: &mut W,
) -> Result {
    engine::walk_range_vma(guard.exclusive(), range, Engine::new(&mut Reading(walker)))
}

/// As [`walk_page_range_vma`], with entries that can be changed.
///
/// Source: `walk_page_range_vma()`.
pub fn walk_page_range_vma_mut<W: WalkMut>(
    guard: &mut MmapRead<'_>,
    range: &AddrRange,
    walker: &mut W,
) -> Result {
    range_vma_mut(guard.exclusive(), range, walker)
}

pub(crate) fn range_vma_mut<W: WalkMut>(
    guard: MmapExclusive<'_>,
    range: &AddrRange,
    walker: &mut W,
) -> Result {
    engine::walk_range_vma(guard, range, Engine::new(&mut Changing(walker)))
}
