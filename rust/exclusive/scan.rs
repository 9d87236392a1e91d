// SPDX-License-Identifier: GPL-2.0

//! Looking at the entries of a batch.

use super::PageResult;
use crate::{
    bindings,
    mm::MmapRead,
    notifier::{
        Event,
        Owner, //
    },
    pgtable::{
        PmdLeaf,
        Pte,
        PteTable,
        PudLeaf, //
    },
    range::AddrRange,
    tlb::FlushScope,
    walk::{
        engine::{
            self,
            Engine,
            PmdAction,
            TableAction,
            Visitor, //
        },
        LeafAction,
        Vma, //
    }, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    mm::virt::VmaRef,
    prelude::*, //
};

/// What an entry has to do with a device that wants its page.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Maps a page that may become exclusive.
    Page(NonNull<bindings::page>),
    /// Is device-exclusive already.
    Already(NonNull<bindings::page>),
    /// A write fault has to come first.
    NeedsFault,
    Refused(PageResult),
}

/// Looks at entry `i` of a table.
#[inline(never)]
pub(super) fn kind(table: &PteTable<'_, '_>, i: usize) -> Kind {
    // SAFETY: The table's lock is held, so that the entry keeps the page.
    unsafe { kind_of(table.vma().as_ptr(), table.addr_of(i), table.value(i)) }
}

/// What is to be done where there is no page table.
#[inline(never)]
pub(super) fn kind_of_nothing(vma: &VmaRef) -> Kind {
    // SAFETY: The reference keeps the VMA. An entry of zero is none.
    unsafe {
        kind_of(
            vma.as_ptr(),
            vma.start(),
            Pte::from_raw(bindings::pte_t { pte: 0 }),
        )
    }
}

/// # Safety
///
/// The VMA is valid, and the page that the entry is of is kept.
#[inline(always)]
unsafe fn kind_of(vma: *mut bindings::vm_area_struct, addr: usize, pte: Pte) -> Kind {
    use bindings as b;

    let mut page = ptr::null_mut();
    // SAFETY: By this function's safety requirements.
    let kind = unsafe { b::mmops_excl_kind(vma, addr, pte.as_raw(), &mut page) } as u32;

    match (kind, NonNull::new(page)) {
        (b::mmops_excl_kind_MMOPS_EXCL_PAGE, Some(page)) => Kind::Page(page),
        (b::mmops_excl_kind_MMOPS_EXCL_ALREADY, Some(page)) => Kind::Already(page),
        (b::mmops_excl_kind_MMOPS_EXCL_KSM, _) => Kind::Refused(PageResult::Ksm),
        (b::mmops_excl_kind_MMOPS_EXCL_PINNED, _) => Kind::Refused(PageResult::Pinned),
        (b::mmops_excl_kind_MMOPS_EXCL_USERFAULTFD, _) => Kind::Refused(PageResult::Userfaultfd),
        (b::mmops_excl_kind_MMOPS_EXCL_POISONED, _) => Kind::Refused(PageResult::Poisoned),
        (b::mmops_excl_kind_MMOPS_EXCL_GUARD, _) => Kind::Refused(PageResult::Fault),
        _ => Kind::NeedsFault,
    }
}

/// Calls `f` with each PTE table in the range. Huge leaves are split first.
#[inline(never)]
pub(super) fn walk(
    guard: &MmapRead<'_>,
    vma: &VmaRef,
    range: &AddrRange,
    f: &mut dyn FnMut(&mut PteTable<'_, '_>),
) -> Result {
    engine::walk_range_vma(
        guard,
        vma,
        range,
        Engine::new(&mut Tables { f, split: true }),
    )
}

/// As [`walk`]; huge leaves are passed over.
#[inline(never)]
pub(super) fn walk_tables(
    guard: &MmapRead<'_>,
    vma: &VmaRef,
    range: &AddrRange,
    f: &mut dyn FnMut(&mut PteTable<'_, '_>),
) -> Result {
    engine::walk_range_vma(
        guard,
        vma,
        range,
        Engine::new(&mut Tables { f, split: false }),
    )
}

struct Tables<'f> {
    f: &'f mut dyn FnMut(&mut PteTable<'_, '_>),
    split: bool,
}

impl Visitor for Tables<'_> {
    /// The scope is the caller's.
    const EVENT: Option<Event> = None;

    fn owner(&self) -> Owner {
        Owner::NONE
    }

    fn test_vma(&mut self, _vma: Vma<'_>) -> bool {
        true
    }

    fn checkpoint(&mut self, _nr: usize, _scope: Option<&mut FlushScope<'_>>) -> Result {
        Ok(())
    }

    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        _scope: Option<&mut FlushScope<'s>>,
    ) -> Result<TableAction> {
        (self.f)(table);
        Ok(TableAction::Done)
    }

    fn pmd_leaf<'s>(
        &mut self,
        _leaf: &mut PmdLeaf<'_, 's>,
        _scope: Option<&mut FlushScope<'s>>,
    ) -> Result<PmdAction> {
        Ok(if self.split {
            PmdAction::Split
        } else {
            PmdAction::Done
        })
    }

    /// Such a leaf is not anonymous.
    fn pud_leaf<'s>(
        &mut self,
        _leaf: &mut PudLeaf<'_, 's>,
        _scope: Option<&mut FlushScope<'s>>,
    ) -> Result<LeafAction> {
        Ok(LeafAction::Done)
    }
}
