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
mod split;
mod split_pud;

pub use split::{
    SpareTable,
    SpareTables, //
};

use crate::{
    bindings,
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
    }, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use engine::{
    Changing,
    Engine,
    Reading, //
};
use kernel::{
    mm::virt::vm_flags_t,
    page::PAGE_SHIFT,
    prelude::*, //
};

/// A VMA that a walk visits.
///
/// Less is known of it than of a [`VmaRef`]: a walk over an address space does not hold the mmap
/// locks, so flags other than the immutable ones may change at any time. Its bounds do not, since
/// `i_mmap_rwsem` or the mmap lock is held.
///
/// # Invariants
///
/// `vma` is valid for `'v`, and so are its mm and its bounds.
#[derive(Clone, Copy)]
pub struct Vma<'v> {
    vma: NonNull<bindings::vm_area_struct>,
    _p: PhantomData<&'v bindings::vm_area_struct>,
}

impl Vma<'_> {
    /// # Safety
    ///
    /// The type invariants hold for as long as `'v`.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(vma: NonNull<bindings::vm_area_struct>) -> Self {
        // INVARIANT: By the function's safety requirements.
        Self {
            vma,
            _p: PhantomData,
        }
    }

    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut bindings::vm_area_struct {
        self.vma.as_ptr()
    }

    #[inline]
    pub(crate) fn mm_ptr(&self) -> *mut bindings::mm_struct {
        // SAFETY: By the type invariants the VMA is valid; `vm_mm` does not change.
        unsafe { (*self.as_ptr()).vm_mm }
    }

    /// The flags as they are now; see [`kernel::mm::virt::flags`].
    #[inline]
    pub fn flags(&self) -> vm_flags_t {
        // SAFETY: By the type invariants the VMA is valid; the helper reads once.
        unsafe { bindings::mmops_vma_flags(self.as_ptr()) as vm_flags_t }
    }

    /// First address.
    #[inline]
    pub fn start(&self) -> usize {
        // SAFETY: By the type invariants the VMA is valid and its bounds do not change.
        unsafe { (*self.as_ptr()).__bindgen_anon_1.__bindgen_anon_1.vm_start }
    }

    /// First address behind the VMA.
    #[inline]
    pub fn end(&self) -> usize {
        // SAFETY: As for `start`.
        unsafe { (*self.as_ptr()).__bindgen_anon_1.__bindgen_anon_1.vm_end }
    }

    /// Page offset, in the file's address space, of the first address.
    #[inline]
    pub fn start_pgoff(&self) -> usize {
        // SAFETY: As for `start`.
        unsafe { bindings::mmops_vma_start_pgoff(self.as_ptr()) }
    }

    /// Page offset, in the file's address space, of an address inside the VMA.
    #[inline(always)]
    pub fn pgoff_of(&self, addr: usize) -> usize {
        (addr.wrapping_sub(self.start()) >> PAGE_SHIFT).wrapping_add(self.start_pgoff())
    }

    /// Whether the VMA has no file.
    #[inline(never)]
    pub(crate) fn is_anonymous(&self) -> bool {
        // SAFETY: By the type invariants the VMA is valid.
        unsafe { bindings::mmops_vma_is_anonymous(self.as_ptr()) }
    }

    /// Whether the VMA maps page frames by their number, without folios or beside them.
    pub(crate) fn is_pfn_map(&self) -> bool {
        self.flags() & (bindings::VM_PFNMAP | bindings::VM_MIXEDMAP) as vm_flags_t != 0
    }

    /// Whether the VMA maps folios of the page cache: a file, and neither DAX nor a PFN map.
    #[inline(never)]
    pub(crate) fn has_page_cache(&self) -> bool {
        !self.is_anonymous()
            // SAFETY: By the type invariants the VMA is valid.
            && !unsafe { bindings::mmops_vma_is_dax(self.as_ptr()) }
            && !self.is_pfn_map()
    }

    /// Whether a file is mapped shared and stores may be permitted by `mprotect`: the VMAs in
    /// which dirty pages can be tracked. hugetlbfs is left out.
    ///
    /// Source: `wp_clean_test_walk()`.
    #[inline]
    pub fn is_shared_maywrite(&self) -> bool {
        const MASK: vm_flags_t =
            (bindings::VM_SHARED | bindings::VM_MAYWRITE | bindings::VM_HUGETLB) as vm_flags_t;
        const WANT: vm_flags_t = (bindings::VM_SHARED | bindings::VM_MAYWRITE) as vm_flags_t;

        self.flags() & MASK == WANT
    }
}

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
