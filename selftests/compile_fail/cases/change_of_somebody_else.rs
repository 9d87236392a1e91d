// SPDX-License-Identifier: GPL-2.0
//! A walk that names an owner, whose subscriptions would pass over what it changes.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    notifier::{
        ChangeEvent,
        Owner, //
    },
    pgtable::PteTable,
    tlb::FlushScope,
    walk::{
        Action,
        Walk, //
    }, //
};

pub struct Protect(pub Owner);

impl Walk for Protect {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    #[cfg(wrong)]
    fn owner(&self) -> Owner {
        //~[wrong]^ ERROR: E0407: method `owner` is not a member of trait `Walk`
        self.0.clone()
    }

    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        table.for_each_selected(
            scope,
            |pte| pte.rw(),
            |_, entry| {
                entry.wrprotect();
            },
        );
        Ok(Action::Done)
    }
}
