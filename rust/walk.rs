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
//! [`walk_page_range_one_scope`] is the second with one flush scope for all VMAs. Each takes a
//! [`Walk`], which reads, or changes entries inside a [`FlushScope`]; its
//! [`Walk::Hold`] says which.
//!
//! A walk takes its guard exclusively, so that none begins in a callback of another, which holds a
//! page-table lock. What no type forbids in a callback is to sleep, to take a lock or a second
//! guard, and to walk another address space: a kernel with `CONFIG_DEBUG_ATOMIC_SLEEP` tells.
//!
//! VMAs of hugetlbfs are never visited: their page tables have rules of their own.
//!
//! [`FlushScope`]: crate::tlb::FlushScope
//!
//! C header: [`include/linux/pagewalk.h`](srctree/include/linux/pagewalk.h)

mod engine;
mod hold;
mod lock;
mod spare_table;
mod split;
mod start;

pub use hold::{
    Hold,
    Unlocked, //
};
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
        HugeLevel,
        Leaf,
        PmdTable,
        PteTable, //
    },
    range::{
        AddrRange,
        PageRange, //
    },
    vma::Vma, //
};
use engine::Engine;
use kernel::prelude::*;

/// What a walk does with a PTE table or a huge leaf after the callback.
pub enum Action {
    /// It is done with; go on behind it.
    Done,
    /// Unlock it, and visit what is there then once more.
    Again,
    /// Put the table in the place of the leaf, and visit that. Of a PTE table, as [`Self::Done`].
    ///
    /// A PMD leaf is replaced by a PTE table that maps the same pages with the same bits. One that
    /// cannot be ([`Leaf::can_split`]; one of a PFN map can) is passed over, as with
    /// [`Self::Done`]. A PUD leaf that maps no folio is replaced by PMD leaves of the same bits;
    /// any other is split as with [`Self::Split`]. A table of another address space ends the walk
    /// with `EINVAL`.
    Replace(SpareTable),
    /// Split the leaf as the kernel does, and visit what is there then: a PTE table for a PMD leaf
    /// of anonymous memory; else nothing, since the leaf is unmapped, with its dirty state kept in
    /// the folio, and comes back by page faults. Of a PTE table, as [`Self::Done`].
    ///
    /// Source: `__split_huge_pmd()`, `__split_huge_pud()`.
    Split,
}

/// A walk.
///
/// All callbacks but [`Self::checkpoint`], [`Self::test_vma`] and [`Self::was_split`] run under the
/// page-table lock of what they get: they must not sleep.
///
/// A walk that changes entries has a [`FlushScope`](crate::tlb::FlushScope) in each VMA that it
/// visits, which ends, and so has flushed, before the next VMA is visited
/// ([`walk_page_range_one_scope`]: one for all of them).
pub trait Walk {
    /// `()` for a walk that reads entries, a `FlushScope` for one that changes them.
    type Hold<'s>: Hold<'s>;

    /// What secondary MMUs are told, by a walk that changes entries.
    const EVENT: ChangeEvent = ChangeEvent::CLEAR;

    /// Whether `vma` is to be visited.
    fn test_vma(&mut self, vma: Vma<'_>) -> bool {
        let _ = vma;
        true
    }

    /// Called before each PTE table or huge leaf is locked; `nr` is the number of base pages that
    /// it covers at the most. An error ends the walk. May sleep; the walk has let others run
    /// before.
    fn checkpoint(&mut self, nr: usize, hold: &mut Unlocked<'_, '_, Self>) -> Result {
        let _ = (nr, hold);
        Ok(())
    }

    /// A PTE table, or the part of one that lies in the range.
    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        hold: &mut Self::Hold<'s>,
    ) -> Result<Action>;

    /// A leaf of PMD or PUD size, or a non-present entry in the place of a PMD leaf.
    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        hold: &mut Self::Hold<'s>,
    ) -> Result<Action> {
        let _ = (leaf, hold);
        Ok(Action::Done)
    }

    /// The walk passes over an entry of PMD or PUD size that is none, as C does, without the lock
    /// of its table; with this, it waits then for whoever has that lock. So who has taken a leaf
    /// away under it has unlocked it by now, and what that does before it unlocks has been done. If
    /// the entry is not none any more, the walk ends with `EAGAIN`, to be begun anew.
    ///
    /// Source: `sync_with_folio_pmd_zap()`.
    const WAITS_FOR_ZAP: bool = false;

    /// PMD leaves that follow each other and are covered whole come together, by
    /// [`Self::pmd_table`]: there are up to 512 under one lock.
    const PMD_TABLES: bool = false;

    /// Returns the number of entries that are done with; more than there are stands for all. Those
    /// behind are visited one by one until there is a leaf again.
    fn pmd_table<'s>(
        &mut self,
        table: &mut PmdTable<'_, 's>,
        hold: &mut Self::Hold<'s>,
    ) -> Result<usize> {
        let _ = (table, hold);
        Ok(0)
    }

    /// A leaf of `size` bytes was split as asked for. Not called if it had vanished, or been split,
    /// before; of two tasks that split one at the same moment as the kernel does
    /// ([`Action::Split`]), both may be told. No page-table lock is held.
    fn was_split(&mut self, size: usize) {
        let _ = size;
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
    Engine::new(walker).walk_entered(|ops, private| {
        // SAFETY: `private` is an engine, and `ops` are those of an engine.
        unsafe { start::mapping(guard, range, ops, private) }
    })
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
///
/// # Examples
///
/// ```
/// use mmops::{
///     mm::{self, MmapRead},
///     pgtable::PteTable,
///     range::AddrRange,
///     walk::{walk_page_range, Action, Walk},
/// };
///
/// struct Writable(usize);
///
/// impl Walk for Writable {
///     // It reads; what changes entries has a `FlushScope` here.
///     type Hold<'s> = ();
///
///     fn pte_table<'s>(&mut self, table: &mut PteTable<'_, 's>, _: &mut ()) -> Result<Action> {
///         table.for_each(|_addr, pte| self.0 += usize::from(pte.present() && pte.write()));
///         Ok(Action::Done)
///     }
/// }
///
/// # let (start, end) = (0, 0);
/// let mm = mm::current()?;
/// let range = AddrRange::new(start, end)?;
/// let mut writable = Writable(0);
///
/// walk_page_range(&mut MmapRead::lock(&mm), &range, &mut writable)?;
/// pr_info!("{} base pages can be stored to\n", writable.0);
/// Ok(())
/// ```
pub fn walk_page_range<W: Walk>(
    guard: &mut MmapRead<'_>,
    range: &AddrRange,
    walker: &mut W,
) -> Result {
    let guard = guard.exclusive();

    Engine::new(walker).walk(|ops, private| {
        // SAFETY: `private` is an engine, and `ops` are those of an engine.
        unsafe { start::range(guard, range, ops, private) }
    })
}

/// As [`walk_page_range`], with one `FlushScope` for all VMAs: secondary MMUs are told once, of
/// all of the range, and there is one TLB flush at the most, at the end.
///
/// Source: `clear_refs_write()`.
pub fn walk_page_range_one_scope<W: Walk>(
    guard: &mut MmapRead<'_>,
    range: &AddrRange,
    walker: &mut W,
) -> Result {
    let guard = guard.exclusive();
    let mm = guard.guard().as_ptr();
    let mut engine = Engine::new(walker);

    // SAFETY: The mm is there for longer than the guard, which holds its mmap lock, and the scope
    // ends with the walk.
    unsafe { engine.begin_one_scope(mm, range) };
    engine.walk(|ops, private| {
        // SAFETY: `private` is an engine, and `ops` are those of an engine.
        unsafe { start::range(guard, range, ops, private) }
    })
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
    range_vma(guard.exclusive(), range, walker)
}

pub(crate) fn range_vma<W: Walk>(
    guard: MmapExclusive<'_>,
    range: &AddrRange,
    walker: &mut W,
) -> Result {
    Engine::new(walker).walk(|ops, private| {
        // SAFETY: `private` is an engine, and `ops` are those of an engine.
        unsafe { start::range_vma(guard, range, ops, private) }
    })
}
