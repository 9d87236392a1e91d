// SPDX-License-Identifier: GPL-2.0
//! A huge leaf that loses a permission without a scope that flushes.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    notifier::ChangeEvent,
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

pub struct Protect;

impl Walk for Protect {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn pte_table<'s>(
        &mut self,
        _: &mut PteTable<'_, 's>,
        _: &mut FlushScope<'s>,
    ) -> Result<Action> {
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        #[cfg(wrong)]
        leaf.wrprotect();
        //~[wrong]^ ERROR: E0061: this method takes 1 argument but 0 arguments were supplied
        #[cfg(twin)]
        leaf.wrprotect(scope);
        Ok(Action::Done)
    }
}
