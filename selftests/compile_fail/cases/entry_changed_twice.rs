// SPDX-License-Identifier: GPL-2.0
//! An entry that is handed out is changed again after that: the lock may be gone.
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
        table.for_each_selected(
            scope,
            |pte| pte.rw(),
            |_, entry| {
                entry.wrprotect();
                #[cfg(wrong)]
                entry.wrprotect();
                //~[wrong]^ ERROR: E0382: use of moved value: `entry`
            },
        );
        Ok(Action::Done)
    }
}
