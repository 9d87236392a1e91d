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
        HugeLevel,
        Leaf,
        PteTable, //
    },
    range::AddrRange,
    tlb::FlushScope,
    walk::{
        walk_page_range,
        Action,
        SpareTable,
        SpareTables,
        Walk, //
    }, //
};

pub struct Split(SpareTables, ARef<Mm>);

impl Walk for Split {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn pte_table<'s>(
        &mut self,
        _table: &mut PteTable<'_, 's>,
        _scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        _scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        #[cfg(wrong)]
        let table = SpareTable::new(self.1.clone()).ok();
        //~[wrong]^ ERROR: E0624: associated function `new` is private
        #[cfg(twin)]
        let table = self.0.take_for(leaf.vma())?;

        match table {
            Some(table) => Ok(Action::Replace(table)),
            None => Ok(Action::Done),
        }
    }
}

pub fn case(guard: &mut MmapRead<'_>, range: &AddrRange) -> Result {
    let mut walker = Split(SpareTables::new(), ARef::<Mm>::from(&**guard.mm()));
    let ret = walk_page_range(guard, range, &mut walker);

    walker.0.refill();
    ret
}
