// SPDX-License-Identifier: GPL-2.0
//! A walk that begins in a callback of another one, with its guard: it would wait for the lock of
//! the page table that the first one holds.
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

pub struct Outer<'x, 'g> {
    guard: Option<&'x mut MmapRead<'g>>,
    range: AddrRange,
}

impl Walk for Outer<'_, '_> {
    type Hold<'s> = ();

    fn pte_table<'s>(&mut self, _table: &mut PteTable<'_, 's>, _: &mut ()) -> Result<Action> {
        match &mut self.guard {
            Some(guard) => walk_page_range(guard, &self.range, &mut Inner)?,
            None => (),
        }
        Ok(Action::Done)
    }
}

pub fn case(guard: &mut MmapRead<'_>, range: AddrRange) -> Result {
    #[cfg(wrong)]
    let mut walker = Outer {
        guard: Some(guard),
        range,
    };
    #[cfg(twin)]
    let mut walker = Outer { guard: None, range };

    walk_page_range(guard, &range, &mut walker)
    //~[wrong]^ ERROR: E0499: cannot borrow `*guard` as mutable more than once
}
