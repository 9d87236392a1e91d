// SPDX-License-Identifier: GPL-2.0
//! An entry that is kept until the next one is looked at.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    notifier::ChangeEvent,
    pgtable::PteTable,
    tlb::FlushScope,
    walk::{
        Action,
        Walk, //
    }, //
};

pub struct Protect;

impl Walk for Protect {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        let mut kept = None;

        table.for_each_selected(
            scope,
            |pte| pte.rw(),
            |_, entry| {
                #[cfg(wrong)]
                {
                    kept = Some(entry);
                    //~[wrong]^ ERROR: E0521: borrowed data escapes outside of closure
                }
                #[cfg(twin)]
                {
                    kept = Some(entry.wrprotect());
                }
            },
        );
        drop(kept);
        Ok(Action::Done)
    }
}
