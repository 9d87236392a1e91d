// SPDX-License-Identifier: GPL-2.0
//! A huge leaf that loses a permission without a scope that flushes.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    notifier::ChangeEvent,
    pgtable::{
        PmdLeaf,
        PteTable, //
    },
    tlb::FlushScope,
    walk::{
        LeafAction,
        SpareTable,
        WalkMut, //
    }, //
};

pub struct Protect;

impl WalkMut for Protect {
    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn pte_table<'s>(&mut self, _: &mut PteTable<'_, 's>, _: &mut FlushScope<'s>) -> Result {
        Ok(())
    }

    fn pmd_leaf<'s>(
        &mut self,
        leaf: &mut PmdLeaf<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<LeafAction<SpareTable>> {
        #[cfg(wrong)]
        leaf.wrprotect();
        //~[wrong]^ ERROR: E0061: this method takes 1 argument but 0 arguments were supplied
        #[cfg(twin)]
        leaf.wrprotect(scope);
        Ok(LeafAction::Done)
    }
}
