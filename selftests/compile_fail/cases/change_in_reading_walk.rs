// SPDX-License-Identifier: GPL-2.0
//! A walk that reads, and so tells nobody and flushes nothing, takes a permission from a leaf.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    pgtable::{
        HugeLevel,
        Leaf,
        PteTable, //
    },
    tlb::FlushScope,
    walk::{
        Action,
        Walk, //
    }, //
};

#[cfg(wrong)]
type Held<'s> = ();
#[cfg(twin)]
type Held<'s> = FlushScope<'s>;

pub struct Reader;

impl Walk for Reader {
    type Hold<'s> = Held<'s>;

    fn pte_table<'s>(&mut self, _: &mut PteTable<'_, 's>, _: &mut Held<'s>) -> Result<Action> {
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        hold: &mut Held<'s>,
    ) -> Result<Action> {
        leaf.wrprotect(hold);
        //~[wrong]^ ERROR: E0308: mismatched types
        Ok(Action::Done)
    }
}
