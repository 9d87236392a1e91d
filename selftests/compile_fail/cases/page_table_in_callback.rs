// SPDX-License-Identifier: GPL-2.0
//! A page table that is allocated under a page-table lock, which sleeps: tables come from
//! `SpareTables`, which are filled between two walks.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::{
    mm::Mm,
    prelude::*,
    sync::aref::ARef, //
};
use mmops::{
    mm::MmapRead,
    notifier::ChangeEvent,
    pgtable::{
        PmdLeaf,
        PteTable, //
    },
    range::AddrRange,
    tlb::FlushScope,
    walk::{
        walk_page_range_mut,
        LeafAction,
        SpareTable,
        SpareTables,
        WalkMut, //
    }, //
};

pub struct Split(SpareTables, ARef<Mm>);

impl WalkMut for Split {
    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn pte_table<'s>(
        &mut self,
        _table: &mut PteTable<'_, 's>,
        _scope: &mut FlushScope<'s>,
    ) -> Result {
        Ok(())
    }

    fn pmd_leaf<'s>(
        &mut self,
        leaf: &mut PmdLeaf<'_, 's>,
        _scope: &mut FlushScope<'s>,
    ) -> Result<LeafAction<SpareTable>> {
        #[cfg(wrong)]
        let table = SpareTable::new(self.1.clone()).ok();
        //~[wrong]^ ERROR: E0624: associated function `new` is private
        #[cfg(twin)]
        let table = self.0.take_for(leaf.vma())?;

        match table {
            Some(table) => Ok(LeafAction::Split(table)),
            None => Ok(LeafAction::Done),
        }
    }
}

pub fn case(guard: &mut MmapRead<'_>, range: &AddrRange) -> Result {
    let mut walker = Split(SpareTables::new(), ARef::<Mm>::from(&**guard.mm()));
    let ret = walk_page_range_mut(guard, range, &mut walker);

    walker.0.refill();
    ret
}
