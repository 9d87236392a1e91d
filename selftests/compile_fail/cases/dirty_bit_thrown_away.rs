// SPDX-License-Identifier: GPL-2.0
//! A dirty bit that is taken from an entry and given to nobody: reclaim takes the page for clean.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    mm::MmapRead,
    notifier::ChangeEvent,
    pgtable::{
        HugeLevel,
        Leaf,
        PteTable, //
    },
    range::AddrRange,
    tlb::FlushScope,
    walk::{
        walk_page_range,
        Action,
        Walk, //
    }, //
};

pub struct Clean(usize);

impl Walk for Clean {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        #[cfg(wrong)]
        table.for_each_selected(
            scope,
            |pte| pte.dirty(),
            |_, entry| {
                let _ = entry.mkclean();
                //~[wrong]^ ERROR: E0624: method `mkclean` is private
            },
        );
        #[cfg(twin)]
        table.take_dirty(scope, |_| self.0 += 1);
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        #[cfg(wrong)]
        let _ = leaf.mkclean(scope);
        //~[wrong]^ ERROR: E0624: method `mkclean` is private
        #[cfg(twin)]
        let _ = leaf.take_dirty(scope)?;
        Ok(Action::Done)
    }
}

pub fn case(guard: &mut MmapRead<'_>, range: &AddrRange) -> Result<usize> {
    let mut walker = Clean(0);

    walk_page_range(guard, range, &mut walker)?;
    Ok(walker.0)
}
