// SPDX-License-Identifier: GPL-2.0

//! Taking pages away from an address space.
//!
//! [`zap`] leaves a range as `madvise(MADV_DONTNEED)` does: the next access faults, and gets the
//! page of the file, or a zeroed one.
//!
//! # Rules
//!
//! - No store is lost to a file: a folio is marked dirty only after the TLB flush of the entry that
//!   was dirty (see [`crate::gather`]).
//! - A page is freed only after the flush.
//! - Page tables are not freed: a later fault finds them.
//! - Everything that can be refused is refused before the first entry is taken.
//!
//! Source: `[PATCH 2/2] mm: make sure to flush TLB before marking page dirty` (October 2022), and
//! `zap_vma_range()`.
//!
//! # Entries
//!
//! | entry                                  | what is done                                        |
//! |----------------------------------------|-----------------------------------------------------|
//! | present, of a file                     | taken; a dirty one is given to the folio            |
//! | present, anonymous                     | taken; its dirty bit has no meaning any more        |
//! | special (shared zero page)             | taken                                               |
//! | PMD or PUD leaf, whole                 | taken as one entry                                  |
//! | PMD or PUD leaf, in part               | split first, as the kernel splits it                |
//! | swap                                   | taken; its place in swap is given back              |
//! | migration                              | taken; who migrates the page finds no entry         |
//! | device-private, device-exclusive       | taken; the page is let go                           |
//! | hwpoison, poison marker                | taken                                               |
//! | uffd-wp marker                         | anonymous: taken; file: kept                        |
//! | uffd-wp bit of a file's page           | the page is taken, a marker is left                 |
//! | guard marker                           | kept                                                |
//!
//! A leaf of a file that the range covers in part is unmapped as a whole, as `__split_huge_pmd()`
//! and `__split_huge_pud()` have it; the rest comes back by page faults. A VMA of hugetlbfs has
//! page tables with rules of their own: it is handed to the kernel's `zap_vma_range()`.
//!
//! Not done: the event of `userfaultfd(2)` that a range was removed
//! (`UFFD_FEATURE_EVENT_REMOVE`), which needs the mmap lock dropped, as in `zap_vma_range()`; and
//! the hint that breakpoints of uprobes may be gone, without which the kernel only looks for them
//! in vain.

mod leaf;
mod table;

use crate::{
    bindings,
    gather::{
        with_gather_of,
        Gather, //
    },
    mm::{
        MmapExclusive,
        MmapRead, //
    },
    partial::{
        Bytes,
        Partial, //
    },
    pgtable::{
        ByLevel,
        HugeLevel,
        Leaf,
        PteTable, //
    },
    range::AddrRange,
    signal,
    vma::Vma,
    walk::{
        self,
        Action,
        Unlocked,
        Walk, //
    }, //
};
use kernel::{
    mm::virt::{
        flags,
        vm_flags_t,
        VmaRef, //
    },
    page::PAGE_SHIFT,
    prelude::*, //
};

/// What [`zap`] took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zapped {
    /// Base pages whose entry was taken, of whatever kind. Those of hugetlbfs are not counted, nor
    /// is what a leaf of a file maps that the range covers only in part.
    pub pages: usize,
}

/// Takes all pages in `range` away from the address space.
///
/// Sleeps. The guard holds the mmap lock. A fatal signal ends the call early, which
/// [`Partial::stopped`] tells. Secondary MMUs see `Event::Clear`, once for each VMA.
///
/// # Errors
///
/// As `madvise(MADV_DONTNEED)`, but that nothing was changed then:
///
/// - `ENOMEM` if a part of the range is not mapped;
/// - `EPERM` if a part of it is anonymous memory that is sealed (`mseal(2)`) and not writable;
/// - `EINVAL` if a part of it is locked in memory, is a PFN map, or is of hugetlbfs and does not
///   begin at one of its pages.
///
/// Source: `madvise_dontneed_free()`, `zap_vma_range()`.
///
/// # Examples
///
/// ```
/// use mmops::{
///     mm::{self, MmapRead},
///     range::AddrRange,
///     zap,
/// };
///
/// # let (start, end) = (0, 0);
/// let mm = mm::current()?;
/// let range = AddrRange::new(start, end)?;
/// let zapped = zap::zap(&mut MmapRead::lock(&mm), &range)?;
///
/// pr_info!("{} pages are gone\n", zapped.did.pages);
/// // A fatal signal ends the call early.
/// zapped.check()
/// ```
pub fn zap(guard: &mut MmapRead<'_>, range: &AddrRange) -> Result<Partial<Zapped>> {
    guard.for_each_vma(range, |vma, part| check(vma, &part))?;

    let mut zapped = Zapped::default();
    let mut reached = range.start();
    let mut walks = guard.exclusive();
    let ret = walks.guard().for_each_vma(range, |vma, part| {
        reached = part.start();
        if let Some(size) = hugetlb_page_size(vma) {
            signal::interruption()?;
            zap_hugetlb(vma, &part, size);
        } else {
            let of_vma = with_gather_of(walks.reborrow(), &part, |gather| zap_vma(gather, &part))?;

            zapped.pages += of_vma.did.pages;
            reached += of_vma.done.0;
            of_vma.check()?;
        }
        reached = part.end();
        Ok(())
    });

    Ok(Partial::new(zapped, Bytes(reached - range.start()), ret))
}

/// Takes all pages in a range of one VMA, and lets them go when `gather` ends at the latest.
///
/// Sleeps. A fatal signal ends the call early, which [`Partial::stopped`] tells.
///
/// # Errors
///
/// - `EINVAL` if the range does not lie in one VMA and in the range of `gather`, or the VMA is of a
///   kind that [`zap`] refuses or hands on; nothing was changed then;
/// - `EPERM` as [`zap`].
///
/// Source: `zap_vma_range()`.
pub fn zap_vma(gather: &mut Gather<'_, '_>, range: &AddrRange) -> Result<Partial<Zapped>> {
    let within = gather.range();
    let guard = gather.guard();
    let vma = guard.vma_lookup(range.start()).ok_or(EINVAL)?;

    check(vma, range)?;
    if hugetlb_page_size(vma).is_some()
        || range.start() < within.start()
        || range.end() > within.end()
    {
        return Err(EINVAL);
    }

    let mut zapper = Zapper {
        gather,
        zapped: Zapped::default(),
        reached: range.start(),
    };

    // SAFETY: The guard was borrowed for the gather, which `zapper` has exclusively.
    let walk = unsafe { MmapExclusive::new_unchecked(guard) };
    let ret = walk::range_vma(walk, range, &mut zapper);

    if ret.is_ok() {
        zapper.reached = range.end();
    }

    let done = Bytes(zapper.reached - range.start());

    Ok(Partial::new(zapper.zapped, done, ret))
}

/// The size of the pages of a VMA of hugetlbfs; `None` of any other.
#[inline(never)]
fn hugetlb_page_size(vma: &VmaRef) -> Option<usize> {
    // SAFETY: The reference keeps the VMA, which is of hugetlbfs.
    (vma.flags() & flags::HUGETLB != 0)
        .then(|| unsafe { bindings::mmops_hugetlb_page_size(vma.as_ptr()) })
}

/// Source: `can_madvise_modify()`, `madvise_dontneed_free_valid_vma()`.
#[inline(never)]
fn check(vma: &VmaRef, part: &AddrRange) -> Result {
    let forbidden = bindings::VM_LOCKED as vm_flags_t | flags::PFNMAP;

    // SAFETY: The reference keeps the VMA.
    if !unsafe { bindings::mmops_vma_may_discard(vma.as_ptr()) } {
        return Err(EPERM);
    }

    let refused = match hugetlb_page_size(vma) {
        Some(size) => part.start() & size.wrapping_sub(1) != 0,
        None => vma.flags() & forbidden != 0,
    };

    if refused {
        Err(EINVAL)
    } else {
        Ok(())
    }
}

/// Zaps the whole huge pages, of `size` bytes, in `part`, as madvise() does.
fn zap_hugetlb(vma: &VmaRef, part: &AddrRange, size: usize) {
    let end = part.end() & !size.wrapping_sub(1);

    if part.start() < end {
        vma.zap_vma_range(part.start(), end - part.start());
    }
}

/// The walk that zaps.
struct Zapper<'z, 'a, 'g> {
    gather: &'z mut Gather<'a, 'g>,
    zapped: Zapped,
    /// Address up to which everything is done.
    reached: usize,
}

impl Walk for Zapper<'_, '_, '_> {
    /// The gather tells secondary MMUs, and flushes.
    type Hold<'s> = ();

    fn test_vma(&mut self, vma: Vma<'_>) -> bool {
        self.gather.start_vma(vma);
        true
    }

    fn checkpoint(&mut self, _nr: usize, _hold: &mut Unlocked<'_, '_, Self>) -> Result {
        signal::pending()?;
        self.gather.make_room();
        Ok(())
    }

    fn pte_table<'s>(&mut self, table: &mut PteTable<'_, 's>, (): &mut ()) -> Result<Action> {
        let taken = table::zap_table(table, self.gather)?;

        self.zapped.pages += taken.entries;
        if !taken.complete {
            return Ok(Action::Again);
        }
        self.reached = table.addr() + (table.nr() << PAGE_SHIFT);
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        (): &mut (),
    ) -> Result<Action> {
        if leaf.is_partial() {
            return Ok(Action::Split);
        }

        // Of a leaf that was taken nothing is used.
        let (nr, end) = (leaf.pages()?.nr(), leaf.end());

        match leaf.by_level() {
            ByLevel::Pmd(leaf) => leaf::zap_pmd(leaf, self.gather)?,
            ByLevel::Pud(leaf) => leaf::zap_pud(leaf, self.gather)?,
        }
        self.zapped.pages += nr;
        self.reached = end;
        Ok(Action::Done)
    }
}
