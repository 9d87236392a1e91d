// SPDX-License-Identifier: GPL-2.0

//! New VMAs: the flag by which all of one reads as soft-dirty, and the marks in its entries that
//! take its place.

use super::{
    is_tracked,
    Ends,
    Untouched,
    PIECE_PAGES, //
};
use crate::{
    bindings,
    mm::{
        MmapExclusive,
        MmapRead,
        MmapWrite, //
    },
    notifier::ChangeEvent,
    pgtable::{
        HugeLevel,
        Leaf,
        PteTable, //
    },
    range::AddrRange,
    tlb::FlushScope,
    walk::{
        self,
        Action,
        Unlocked,
        Walk, //
    }, //
};
use core::cmp;
use kernel::{
    mm::virt::{
        flags,
        VmaRef, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Base pages outside the range that are visited for a new VMA, at the most: 256 MiB.
const MARK_PAGES: usize = 1 << 16;

/// Base pages outside the range that are mapped for a new VMA, at the most: 16 MiB.
const POPULATE_PAGES: usize = 1 << 12;

/// Whether a VMA carries the flag and can lose it.
fn is_new(vma: &VmaRef) -> bool {
    is_tracked(vma.into()) && vma.flags() & flags::SOFTDIRTY != 0
}

/// The parts of a VMA in front of and behind `part`.
fn outside(vma: &VmaRef, part: &AddrRange) -> impl Iterator<Item = AddrRange> {
    [
        AddrRange::new(vma.start(), part.start()),
        AddrRange::new(part.end(), vma.end()),
    ]
    .into_iter()
    .flatten()
}

fn nr_outside(vma: &VmaRef, part: &AddrRange) -> usize {
    ((vma.end() - vma.start()) >> PAGE_SHIFT) - part.nr_pages()
}

/// Whether it is worth the mmap lock for writing to try and take the flag of a new VMA.
pub(super) fn may_lose_flag(vma: &VmaRef, part: &AddrRange, untouched: Untouched) -> bool {
    is_new(vma) && (untouched == Untouched::Forget || nr_outside(vma, part) <= MARK_PAGES)
}

/// Takes the flag from all new VMAs in a piece from which it can go.
pub(super) fn take_flags(
    guard: &mut MmapWrite<'_>,
    piece: &AddrRange,
    untouched: Untouched,
) -> Result<Ends> {
    let mut ends = Ends::Behind(PIECE_PAGES);
    let mut keep = [None; 2];
    let mut nr_keep = 0;
    let mut walks = guard.exclusive();

    walks.guard().for_each_mapped(piece, |vma, part| {
        // Only the VMAs at both ends of a range can be covered in part.
        if may_lose_flag(vma, &part, untouched)
            && !push_down(walks.reborrow(), vma, &part, untouched)
        {
            if let Some(place) = keep.get_mut(nr_keep) {
                *place = Some(vma.start());
                nr_keep += 1;
            }
        }
        Ok(())
    })?;
    guard.for_each_mapped(piece, |vma, part| {
        if may_lose_flag(vma, &part, untouched) && !keep.contains(&Some(vma.start())) {
            guard.clear_vma_soft_dirty(vma)?;
            ends = Ends::Never;
        }
        Ok(())
    })?;
    Ok(ends)
}

/// Marks the pages of a new VMA outside `part` one by one. Returns whether all have their mark, so
/// that the flag can go.
fn push_down(
    mut guard: MmapExclusive<'_>,
    vma: &VmaRef,
    part: &AddrRange,
    untouched: Untouched,
) -> bool {
    let can_populate = nr_outside(vma, part) <= POPULATE_PAGES && can_populate(vma);
    let mut ends = Ends::Behind(MARK_PAGES);

    outside(vma, part).all(|range| {
        let all = Ok(range.nr_pages());
        let marked = mark(guard.reborrow(), &range, &mut ends);

        if marked == all || marked.is_ok() && untouched == Untouched::Forget {
            return true;
        }
        // Without memory the flag stays, as where it would cost too much.
        can_populate
            && populate(guard.guard(), &range).is_ok()
            && mark(guard.reborrow(), &range, &mut Ends::Never) == all
    })
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
        let nr = (range.end() - addr) >> PAGE_SHIFT;
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

/// Makes all entries in a part of a VMA soft-dirty, and returns the number of base pages that stay
/// so.
///
/// # Errors
///
/// `EINTR` if the walk ended early.
pub(super) fn mark(guard: MmapExclusive<'_>, range: &AddrRange, ends: &mut Ends) -> Result<usize> {
    let mut walker = Mark { marked: 0, ends };

    walk::range_vma(guard, range, &mut walker)?;
    Ok(walker.marked)
}

struct Mark<'e> {
    marked: usize,
    ends: &'e mut Ends,
}

impl Walk for Mark<'_> {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::SOFT_DIRTY;

    fn checkpoint(&mut self, nr: usize, _scope: &mut Unlocked<'_, '_, Self>) -> Result {
        self.ends.visit(nr)
    }

    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        self.marked += table.mark_soft_dirty(scope);
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        // Whoever splits the huge zero page later drops the bit (`__split_huge_zero_page_pmd()`).
        // PTEs keep it.
        if leaf.vma().is_anonymous() && !leaf.is_softleaf() && leaf.value().special() {
            return Ok(Action::Split);
        }
        leaf.mark_soft_dirty(scope);
        self.marked += leaf.pages()?.nr();
        Ok(Action::Done)
    }
}
