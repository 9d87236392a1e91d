// SPDX-License-Identifier: GPL-2.0

//! Huge leaves of page frames, behind which there is no page.
//!
//! `hmm_range_fault()` passes over mappings that are page frames throughout (`VM_PFNMAP`), and
//! refuses single PTEs that are special. It does not look at the special bit of PMD and PUD leaves,
//! which a mapping of pages and page frames (`VM_MIXEDMAP`) can have: `/dev/mshv_vtl_low` is one.

use super::{
    HmmPfn,
    Request, //
};
use crate::{
    mm::MmapRead,
    pgtable::{
        HugeLevel,
        Leaf,
        PteTable, //
    },
    range::AddrRange,
    vma::Vma,
    walk::{
        walk_page_range,
        Action,
        Walk, //
    }, //
};
use core::cmp;
use kernel::{
    mm::virt::flags,
    page::PAGE_SHIFT,
    prelude::*, //
};

/// Refuses what was found in leaves that have no page, as is done for PTEs.
///
/// It comes after the lookup. A leaf that has become another one since was invalidated, and what
/// was looked up is void by its token.
///
/// # Errors
///
/// `EFAULT` if pages were asked for; [`Request::Snapshot`] marks them instead.
pub(super) fn refuse(
    mmap: &mut MmapRead<'_>,
    range: &AddrRange,
    request: Request,
    pfns: &mut [HmmPfn],
) -> Result {
    let mut mixed = false;

    mmap.for_each_mapped(range, |vma, _| {
        mixed |= vma.flags() & flags::MIXEDMAP != 0;
        Ok(())
    })?;
    if !mixed {
        return Ok(());
    }
    walk_page_range(
        mmap,
        range,
        &mut Refuse {
            first: range.start(),
            request,
            pfns,
        },
    )
}

struct Refuse<'p> {
    /// The address of the first element of `pfns`.
    first: usize,
    request: Request,
    pfns: &'p mut [HmmPfn],
}

impl Refuse<'_> {
    fn refuse(&mut self, start: usize, end: usize) -> Result {
        if self.request != Request::Snapshot {
            return Err(EFAULT);
        }

        let first = cmp::max(start, self.first) - self.first;

        for pfn in self
            .pfns
            .iter_mut()
            .take((end - self.first) >> PAGE_SHIFT)
            .skip(first >> PAGE_SHIFT)
        {
            *pfn = HmmPfn::ERROR;
        }
        Ok(())
    }
}

impl Walk for Refuse<'_> {
    type Hold<'s> = ();

    /// Elsewhere a special leaf is of the huge page of zeroes, which is a page.
    ///
    /// Source: `vm_normal_page_pmd()`.
    fn test_vma(&mut self, vma: Vma<'_>) -> bool {
        vma.flags() & flags::MIXEDMAP != 0
    }

    fn pte_table<'s>(&mut self, _table: &mut PteTable<'_, 's>, (): &mut ()) -> Result<Action> {
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        (): &mut (),
    ) -> Result<Action> {
        let value = leaf.value();

        if value.present() && value.special() {
            self.refuse(leaf.leaf_addr(), leaf.end())?;
        }
        Ok(Action::Done)
    }
}
