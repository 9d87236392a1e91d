// SPDX-License-Identifier: GPL-2.0
//! A walk that begins in a callback of another one, with a shared reference to the guard.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    mm::MmapRead,
    pgtable::PteTable,
    range::AddrRange,
    walk::{
        walk_page_range,
        Action,
        Walk, //
    }, //
};

pub struct Inner;

impl Walk for Inner {
    type Hold<'s> = ();

    fn pte_table<'s>(&mut self, _table: &mut PteTable<'_, 's>, _: &mut ()) -> Result<Action> {
        Ok(Action::Done)
    }
}

pub fn case(guard: &mut MmapRead<'_>, range: AddrRange) -> Result {
    #[cfg(wrong)]
    let guard = &*guard;

    walk_page_range(guard, &range, &mut Inner)
    //~[wrong]^ ERROR: E0308: mismatched types
}
