// SPDX-License-Identifier: GPL-2.0
//! A TLB flush in a callback under a page-table lock: whoever wants the lock spins until all CPUs
//! have answered.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    mm::MmapRead,
    notifier::ChangeEvent,
    pgtable::PteTable,
    range::AddrRange,
    tlb::FlushScope,
    walk::{
        walk_page_range,
        Action,
        Unlocked,
        Walk, //
    }, //
};

pub struct Flush;

impl Walk for Flush {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn checkpoint(&mut self, _nr: usize, scope: &mut Unlocked<'_, '_, Self>) -> Result {
        scope.flush();
        Ok(())
    }

    fn pte_table<'s>(
        &mut self,
        _table: &mut PteTable<'_, 's>,
        _scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        #[cfg(wrong)]
        _scope.flush();
        //~[wrong]^ ERROR: E0624: method `flush` is private
        Ok(Action::Done)
    }
}

pub fn case(guard: &mut MmapRead<'_>, range: &AddrRange) -> Result {
    walk_page_range(guard, range, &mut Flush)
}
