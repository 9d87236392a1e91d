// SPDX-License-Identifier: GPL-2.0

//! Soft-dirty: which pages of a process were stored to since it was asked last.
//!
//! `/proc/PID/clear_refs` clears the soft-dirty bits of a whole address space; here it can be a
//! range as well. They are read from `/proc/PID/pagemap`, bit 55, or by `PAGEMAP_SCAN`.
//!
//! # Rules
//!
//! - A page that is stored to after [`clear`] has returned reads as soft-dirty, always. So the
//!   write permission is taken with the bit, and the TLB is flushed, once and over what was
//!   changed, if any entry was writable; else not at all. Data integrity would need no flush here
//!   (see the thread below), exact tracking does.
//! - A page outside the range that reads as soft-dirty before the call does so after it.
//! - Dirty, accessed and uffd-wp bits stay.
//! - What cannot be tracked is not cleared and counts as [`Outcome::kept`]: hugetlbfs and PFN maps,
//!   whose entries never fault for this, and pages of private mappings that are pinned for a
//!   device. C clears `VM_SOFTDIRTY` of such VMAs, and then they read as never stored to.
//!
//! Source: `[PATCH 4/6] mm: proc: Invalidate TLB after clearing soft-dirty page state` (November
//! 2020) with its review, and `clear_refs_write()`.
//!
//! # Entries
//!
//! - Present PTE, PMD or PUD leaf: in one atomic exchange.
//! - Leaf that the range covers in part: split first. One that cannot be split (DAX) is kept.
//! - Swap entry, marker, device-exclusive entry: the bit alone.
//! - Writable migration or device-private entry: becomes a readable one, or else the page would
//!   come back writable. C leaves it.
//!
//! # New VMAs
//!
//! A VMA that is new carries `VM_SOFTDIRTY`, and all of it reads as soft-dirty, mapped or not: what
//! was at these addresses before is gone. The flag is taken from a VMA as a whole, under the mmap
//! lock held for writing. If the range is only a part of the VMA, the flag is first pushed down to
//! the pages outside the range, once in the life of the VMA, and the VMA is not split:
//!
//! - each entry that is there becomes soft-dirty;
//! - a page of anonymous memory that is not there is mapped for reading, which gives it the shared
//!   zero page, and becomes soft-dirty. It costs page tables, and no memory beside (unless huge
//!   pages are on and `use_zero_page` is off). Beyond 16 GiB the flag stays, as in the next case;
//! - a page of a file that is not there has nowhere to keep the mark, and to read it in could take
//!   all memory. Then the flag stays, and all pages of the VMA are kept.
//!
//! With [`Untouched::Forget`] pages that are not there lose the mark, as if they had been cleared.
//! A caller who wants none of this clears a VMA as a whole when it is new.

use crate::{
    bindings,
    mm::{
        MmapExclusive,
        MmapRead,
        MmapWrite, //
    },
    notifier::ChangeEvent,
    pgtable::{
        Cleared,
        PmdLeaf,
        PteTable,
        PudLeaf,
        PMD_SIZE, //
    },
    range::AddrRange,
    signal,
    tlb::{
        FlushScope,
        UnlockedScope, //
    },
    walk::{
        self,
        walk_page_range_one_scope_mut,
        LeafAction,
        SpareTable,
        SpareTables,
        Vma,
        WalkMut, //
    }, //
};
use core::cmp;
use kernel::{
    mm::{
        virt::{
            flags,
            vm_flags_t,
            VmaRef, //
        },
        MmWithUser, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Pages that are mapped between two looks for a signal.
const POPULATE_PAGES: usize = 1 << 16;

/// Pages of a range that are mapped at the most: 16 GiB, or 32 MiB of page tables.
const POPULATE_MAX_PAGES: usize = 1 << 22;

/// What becomes of pages outside the range that are not mapped and read as soft-dirty only because
/// their VMA is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Untouched {
    /// They go on to read as soft-dirty; see [New VMAs](self#new-vmas).
    #[default]
    Keep,
    /// They read as clean from now on, until they are stored to.
    Forget,
}

/// What a call did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Base pages whose entry was soft-dirty. Of a page in a new VMA whose entry was not, nothing
    /// is counted.
    pub cleared: usize,
    /// Base pages in the range that cannot be tracked, and read as they did.
    pub kept: usize,
    /// Bytes from the start of the range on that are completely processed. Less than all only if a
    /// fatal signal came; then some pages behind may be processed too, and what was done is
    /// complete: flushed and notified. A range that had new VMAs is always done in whole.
    pub done: usize,
}

/// Clears the soft-dirty bits of a range of addresses.
///
/// Sleeps. Takes the mmap lock for reading, and before that for writing if the range has new VMAs.
///
/// # Errors
///
/// - `ENOMEM` if a part of the range is not mapped, or if there is no memory to push down the flag
///   of a new VMA; then some pages of it outside the range are mapped that were not.
/// - `EINTR` if a fatal signal came before anything was cleared.
/// - `EOPNOTSUPP` if the kernel has no soft-dirty bits.
///
/// On each of them no page that read as soft-dirty reads otherwise.
///
/// Source: `clear_refs_write()`.
pub fn clear(mm: &MmWithUser, range: &AddrRange, untouched: Untouched) -> Result<Outcome> {
    let (guard, signals) = lock(mm, range, Holes::Refuse, untouched)?;

    clear_locked(guard, range, signals)
}

/// Clears the soft-dirty bits of a whole address space. Sleeps, and takes locks as [`clear`].
///
/// # Errors
///
/// `EINTR` and `EOPNOTSUPP` as [`clear`].
///
/// Source: `clear_refs_write()`.
pub fn clear_all(mm: &MmWithUser) -> Result<Outcome> {
    let range = MmapRead::lock(mm).user_range()?;

    let (guard, signals) = lock(mm, &range, Holes::Pass, Untouched::Keep)?;

    clear_locked(guard, &range, signals)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holes {
    Refuse,
    Pass,
}

/// Whether a fatal signal ends a walk early.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signals {
    Heed,
    /// A flag was taken, and what it stood for has to be done in whole: until then some pages read
    /// as clean and are not tracked. As in `clear_refs_write()`.
    Ignore,
}

impl Signals {
    fn pending(self) -> Result {
        match self {
            Self::Heed => signal::pending(),
            Self::Ignore => Ok(()),
        }
    }
}

/// Whether stores to a VMA make entries soft-dirty.
fn is_tracked(flags: vm_flags_t) -> bool {
    flags & (flags::HUGETLB | flags::PFNMAP) == 0
}

/// Whether a VMA carries the flag and can lose it.
fn is_new(vma: &VmaRef) -> bool {
    is_tracked(vma.flags()) && vma.flags() & flags::SOFTDIRTY != 0
}

/// Locks the address space, with the flag taken from all VMAs in the range that can be tracked, and
/// says whether what follows may be interrupted.
fn lock<'a>(
    mm: &'a MmWithUser,
    range: &AddrRange,
    holes: Holes,
    untouched: Untouched,
) -> Result<(MmapRead<'a>, Signals)> {
    if !cfg!(CONFIG_MEM_SOFT_DIRTY) {
        return Err(EOPNOTSUPP);
    }

    let guard = MmapRead::lock(mm);

    if !has_new(&guard, range, holes)? && !splits_zero(&guard, range) {
        return Ok((guard, Signals::Heed));
    }
    drop(guard);

    let mut guard = MmapWrite::lock(mm)?;
    let mut signals = Signals::Heed;

    if has_new(&guard, range, holes)? {
        // The VMAs of both ends, if they have to keep the flag.
        let mut keep = [None; 2];
        let mut walks = guard.exclusive();

        walks.guard().for_each_mapped(range, |vma, part| {
            if is_new(vma) && !push_down(walks.reborrow(), vma, &part, untouched)? {
                let place = usize::from(keep[0].is_some());

                keep[place] = Some(vma.start());
            }
            Ok(())
        })?;
        guard.for_each_mapped(range, |vma, _| {
            if is_new(vma) && !keep.contains(&Some(vma.start())) {
                guard.clear_vma_soft_dirty(vma)?;
                signals = Signals::Ignore;
            }
            Ok(())
        })?;
    }
    // A huge zero page does not give its mark to the PTEs that it is split into. Nobody may read
    // them before they have it back.
    split_ends(guard.exclusive(), range)?;
    Ok((guard.downgrade(), signals))
}

/// Whether a soft-dirty huge zero page has an end of `range` inside it.
fn splits_zero(guard: &MmapRead<'_>, range: &AddrRange) -> bool {
    [range.start(), range.end()].into_iter().any(|addr| {
        addr % PMD_SIZE != 0
            && guard
                .vma_lookup(addr)
                .is_some_and(|vma| Clear::wants(vma.flags()) && is_soft_dirty_zero(vma, addr))
    })
}

#[inline(never)]
fn is_soft_dirty_zero(vma: &VmaRef, addr: usize) -> bool {
    // SAFETY: The VMA is valid, `addr` is inside it, and the mmap lock is held.
    unsafe { bindings::mmops_is_soft_dirty_huge_zero(vma.as_ptr(), addr) }
}

/// Whether there is a new VMA in the range.
///
/// # Errors
///
/// `ENOMEM` if there is a hole that is to be refused.
fn has_new(guard: &MmapRead<'_>, range: &AddrRange, holes: Holes) -> Result<bool> {
    let mut found = false;
    let look = |vma: &VmaRef, _: AddrRange| {
        found |= is_new(vma);
        Ok(())
    };

    match holes {
        Holes::Refuse => guard.for_each_vma(range, look)?,
        Holes::Pass => guard.for_each_mapped(range, look)?,
    }
    Ok(found)
}

/// Marks the pages of a new VMA outside `part` one by one. Returns whether all have their mark, so
/// that the flag can go.
fn push_down(
    mut guard: MmapExclusive<'_>,
    vma: &VmaRef,
    part: &AddrRange,
    untouched: Untouched,
) -> Result<bool> {
    let outside = [
        AddrRange::new(vma.start(), part.start()),
        AddrRange::new(part.end(), vma.end()),
    ];

    for range in outside.into_iter().flatten() {
        let marked = mark(guard.reborrow(), &range, Signals::Heed)?;

        if marked == range.nr_pages() || untouched == Untouched::Forget {
            continue;
        }
        if !can_populate(vma) || range.nr_pages() > POPULATE_MAX_PAGES {
            return Ok(false);
        }
        populate(guard.guard(), &range)?;
        mark(guard.reborrow(), &range, Signals::Heed)?;
    }
    Ok(true)
}

#[inline(never)]
fn can_populate(vma: &VmaRef) -> bool {
    // SAFETY: The VMA is valid.
    unsafe { bindings::mmops_vma_can_populate(vma.as_ptr()) }
}

/// Maps all pages of a range of anonymous memory that are not there, for reading.
#[inline(never)]
fn populate(guard: &MmapRead<'_>, range: &AddrRange) -> Result {
    let mut addr = range.start();

    while addr < range.end() {
        signal::interruption()?;

        let nr = cmp::min((range.end() - addr) >> PAGE_SHIFT, POPULATE_PAGES);
        // SAFETY: The mmap lock is held.
        let done = unsafe { bindings::mmops_populate(guard.as_ptr(), addr, nr) };

        addr += match kernel::error::to_result(done as i32) {
            Err(e) if e == ENOMEM || e == EINTR => return Err(e),
            // A page that nobody can read, such as a guard page.
            Err(_) => PAGE_SIZE,
            Ok(()) => cmp::max(done as usize, 1) << PAGE_SHIFT,
        };
    }
    Ok(())
}

/// Makes all entries in a part of a VMA soft-dirty, and returns the number of base pages that have
/// one.
fn mark(guard: MmapExclusive<'_>, range: &AddrRange, signals: Signals) -> Result<usize> {
    let mut walker = Mark { marked: 0, signals };

    walk::range_vma_mut(guard, range, &mut walker)?;
    Ok(walker.marked)
}

struct Mark {
    marked: usize,
    signals: Signals,
}

impl WalkMut for Mark {
    const EVENT: ChangeEvent = ChangeEvent::SOFT_DIRTY;

    fn checkpoint(&mut self, _nr: usize, _scope: &mut UnlockedScope<'_, '_>) -> Result {
        self.signals.pending()
    }

    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        _scope: &mut FlushScope<'s>,
    ) -> Result {
        self.marked += table.mark_soft_dirty();
        Ok(())
    }

    fn pmd_leaf<'s>(
        &mut self,
        leaf: &mut PmdLeaf<'_, 's>,
        _scope: &mut FlushScope<'s>,
    ) -> Result<LeafAction<SpareTable>> {
        leaf.mark_soft_dirty();
        self.marked += leaf.pages()?.nr();
        Ok(LeafAction::Done)
    }

    fn pud_leaf<'s>(
        &mut self,
        leaf: &mut PudLeaf<'_, 's>,
        _scope: &mut FlushScope<'s>,
    ) -> Result<LeafAction> {
        leaf.mark_soft_dirty();
        self.marked += leaf.pages()?.nr();
        Ok(LeafAction::Done)
    }
}

/// Clears the range, in all VMAs that do not carry the flag.
fn clear_locked(mut guard: MmapRead<'_>, range: &AddrRange, signals: Signals) -> Result<Outcome> {
    let mut untracked = 0;
    let mut walker = Clear {
        result: Cleared::default(),
        reached: range.start(),
        signals,
        tables: SpareTables::new(),
    };

    guard.for_each_mapped(range, |vma, part| {
        if !Clear::wants(vma.flags()) {
            untracked += part.nr_pages();
        }
        Ok(())
    })?;
    split_ends(guard.exclusive(), range)?;

    let done = loop {
        walker.result.kept = 0;
        match walk_page_range_one_scope_mut(&mut guard, range, &mut walker) {
            // A table was needed to split the leaf at an end.
            Err(e) if e == EAGAIN => walker.tables.refill(),
            Err(e) if e == EINTR => break walker.reached - range.start(),
            Err(e) => return Err(e),
            Ok(()) => break range.end() - range.start(),
        }
    };

    Ok(Outcome {
        cleared: walker.result.cleared,
        kept: untracked + walker.result.kept,
        done,
    })
}

/// Splits the huge leaves of anonymous memory that have an end of `range` inside them.
fn split_ends(mut guard: MmapExclusive<'_>, range: &AddrRange) -> Result {
    split_at(guard.reborrow(), range, range.start())?;
    split_at(guard, range, range.end())
}

/// Splits the huge leaf of anonymous memory that has `addr`, an end of `range`, inside it.
///
/// Leaves of the page cache are split by the walk.
fn split_at(mut guard: MmapExclusive<'_>, range: &AddrRange, addr: usize) -> Result {
    if addr % PMD_SIZE == 0 {
        return Ok(());
    }
    let Some(vma) = guard.guard().vma_lookup(addr) else {
        return Ok(());
    };

    if !Clear::wants(vma.flags()) || !split_anon_leaf(vma, addr) {
        return Ok(());
    }

    // It was soft-dirty, which a huge zero page does not give to its PTEs.
    let start = addr & !(PMD_SIZE - 1);
    let end = start + PMD_SIZE;

    for outside in [
        AddrRange::new(start, cmp::min(range.start(), end)),
        AddrRange::new(cmp::max(range.end(), start), end),
    ]
    .into_iter()
    .flatten()
    {
        // No more than a PMD: what was split is marked again in whole.
        mark(guard.reborrow(), &outside, Signals::Ignore)?;
    }
    Ok(())
}

#[inline(never)]
fn split_anon_leaf(vma: &VmaRef, addr: usize) -> bool {
    // SAFETY: The VMA is valid, `addr` is inside it, and the mmap lock is held.
    unsafe { bindings::mmops_split_anon_leaf(vma.as_ptr(), addr) }
}

struct Clear {
    result: Cleared,
    /// Address up to which everything is done.
    reached: usize,
    signals: Signals,
    tables: SpareTables,
}

impl Clear {
    fn wants(flags: vm_flags_t) -> bool {
        is_tracked(flags) && flags & flags::SOFTDIRTY == 0
    }

    fn add(&mut self, result: Cleared) {
        self.result.cleared += result.cleared;
        self.result.kept += result.kept;
    }
}

impl WalkMut for Clear {
    const EVENT: ChangeEvent = ChangeEvent::SOFT_DIRTY;

    fn test_vma(&mut self, vma: Vma<'_>) -> bool {
        Self::wants(vma.flags())
    }

    fn checkpoint(&mut self, _nr: usize, _scope: &mut UnlockedScope<'_, '_>) -> Result {
        self.signals.pending()
    }

    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result {
        self.add(table.clear_soft_dirty(scope));
        self.reached = table.addr() + (table.nr() << PAGE_SHIFT);
        Ok(())
    }

    fn pmd_leaf<'s>(
        &mut self,
        leaf: &mut PmdLeaf<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<LeafAction<SpareTable>> {
        if !leaf.is_partial() {
            self.add(leaf.clear_soft_dirty(scope));
            self.reached = leaf.leaf_addr() + PMD_SIZE;
        } else {
            if leaf.can_split() {
                if let Some(table) = self.tables.take_for(leaf.vma())? {
                    return Ok(LeafAction::Split(table));
                }
            }
            // All of it is soft-dirty, or it would not be tracked at all.
            leaf.mark_soft_dirty();
            self.result.kept += leaf.pages()?.nr();
        }
        Ok(LeafAction::Done)
    }

    fn pud_leaf<'s>(
        &mut self,
        leaf: &mut PudLeaf<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<LeafAction> {
        if leaf.is_partial() {
            leaf.mark_soft_dirty();
            self.result.kept += leaf.pages()?.nr();
        } else {
            self.add(leaf.clear_soft_dirty(scope));
        }
        Ok(LeafAction::Done)
    }
}
