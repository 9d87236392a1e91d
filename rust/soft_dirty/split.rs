// SPDX-License-Identifier: GPL-2.0

//! Huge leaves of anonymous memory with an end of the range inside them, which are split first.

use super::{
    new_vma::mark,
    Clear,
    Ends, //
};
use crate::{
    bindings,
    mm::{
        MmapExclusive,
        MmapRead, //
    },
    range::{
        AddrRange,
        PMD_SIZE, //
    },
    vma::Vma, //
};
use core::cmp;
use kernel::{
    mm::virt::VmaRef,
    prelude::*, //
};

/// The ends of `range` that are those of `piece`. At other ends of a piece there is no leaf inside
/// of which it ends.
fn ends_of(range: &AddrRange, piece: &AddrRange) -> impl Iterator<Item = usize> {
    [(range.start(), piece.start()), (range.end(), piece.end())]
        .into_iter()
        .filter_map(|(of_range, of_piece)| (of_range == of_piece).then_some(of_range))
}

/// Whether a soft-dirty huge zero page has an end of `range` that is one of `piece` inside it.
pub(super) fn splits_zero(guard: &MmapRead<'_>, range: &AddrRange, piece: &AddrRange) -> bool {
    ends_of(range, piece).any(|addr| {
        addr % PMD_SIZE != 0
            && guard
                .vma_lookup(addr)
                .filter(|vma| Clear::wants(Vma::from(*vma)))
                // SAFETY: The VMA has the address, and the guard holds the mmap lock.
                .is_some_and(|vma| unsafe { is_soft_dirty_zero(vma, addr) })
    })
}

/// Whether a soft-dirty huge zero page is mapped at `addr`.
///
/// # Safety
///
/// The VMA has the address `addr`, and the mmap lock is held.
#[inline(never)]
unsafe fn is_soft_dirty_zero(vma: &VmaRef, addr: usize) -> bool {
    // SAFETY: By this function's safety requirements.
    unsafe { bindings::mmops_is_soft_dirty_huge_zero(vma.as_ptr(), addr) }
}

/// Splits the huge leaves of anonymous memory that have an end of `range` which is one of `piece`
/// inside them.
pub(super) fn split_ends(
    mut guard: MmapExclusive<'_>,
    range: &AddrRange,
    piece: &AddrRange,
) -> Result {
    ends_of(range, piece).try_for_each(|addr| split_at(guard.reborrow(), range, addr))
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

    // SAFETY: The VMA has the address, and the guard holds the mmap lock.
    if !Clear::wants(vma.into()) || !unsafe { split_anon_leaf(vma, addr) } {
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
        mark(guard.reborrow(), &outside, &mut Ends::Never)?;
    }
    Ok(())
}

/// Splits the huge leaf of anonymous memory at `addr`, if there is one. Sleeps.
///
/// # Safety
///
/// The VMA has the address `addr`, and the mmap lock is held.
#[inline(never)]
unsafe fn split_anon_leaf(vma: &VmaRef, addr: usize) -> bool {
    // SAFETY: By this function's safety requirements.
    unsafe { bindings::mmops_split_anon_leaf(vma.as_ptr(), addr) }
}
