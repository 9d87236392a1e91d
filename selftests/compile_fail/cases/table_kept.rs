// SPDX-License-Identifier: GPL-2.0

//! A PTE table is kept beyond the callback that it is lent to: its lock is released by then.

//@revisions: wrong twin
//@[twin] check-pass

use kernel::prelude::*;
use mmops::{
    pgtable::PteTable,
    walk::{
        Action,
        Walk, //
    }, //
};

pub struct Keeper<'k> {
    pub kept: Option<&'k dyn HasPgoff>,
    pub pgoff: usize,
}

pub trait HasPgoff {
    fn pgoff(&self) -> usize;
}

impl HasPgoff for PteTable<'_, '_> {
    fn pgoff(&self) -> usize {
        PteTable::pgoff(self)
    }
}

impl Walk for Keeper<'static> {
    type Hold<'s> = ();

    fn pte_table<'s>(&mut self, table: &mut PteTable<'_, 's>, _: &mut ()) -> Result<Action> {
        #[cfg(wrong)]
        {
            // One error for each lifetime of the table.
            self.kept = Some(table);
            //~[wrong]^ ERROR: lifetime may not live long enough
            //~[wrong]| ERROR: lifetime may not live long enough
            //~[wrong]| ERROR: lifetime may not live long enough
        }
        #[cfg(twin)]
        {
            self.pgoff = HasPgoff::pgoff(table);
        }
        Ok(Action::Done)
    }
}
