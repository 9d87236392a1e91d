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
    tlb::{
        FlushScope,
        UnlockedScope, //
    },
    walk::{
        walk_page_range_mut,
        WalkMut, //
    }, //
};

pub struct Flush;

impl WalkMut for Flush {
    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn checkpoint(&mut self, _nr: usize, scope: &mut UnlockedScope<'_, '_>) -> Result {
        scope.flush();
        Ok(())
    }

    fn pte_table<'s>(
        &mut self,
        _table: &mut PteTable<'_, 's>,
        _scope: &mut FlushScope<'s>,
    ) -> Result {
        #[cfg(wrong)]
        _scope.flush();
        //~[wrong]^ ERROR: E0624: method `flush` is private
        Ok(())
    }
}

pub fn case(guard: &mut MmapRead<'_>, range: &AddrRange) -> Result {
    walk_page_range_mut(guard, range, &mut Flush)
}
