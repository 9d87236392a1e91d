// SPDX-License-Identifier: GPL-2.0
//! A flush scope that is forgotten would never flush.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    notifier::ChangeEvent,
    pgtable::PteTable,
    tlb::FlushScope,
    walk::{
        Action,
        Unlocked,
        Walk, //
    }, //
};

pub struct Protect;

impl Walk for Protect {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn checkpoint(&mut self, _nr: usize, scope: &mut Unlocked<'_, '_, Self>) -> Result {
        #[cfg(wrong)]
        core::mem::forget(*scope);
        //~[wrong]^ ERROR: E0507: cannot move out of `*scope` which is behind a mutable reference
        #[cfg(twin)]
        scope.flush();
        Ok(())
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
