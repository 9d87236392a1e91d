// SPDX-License-Identifier: GPL-2.0
//! A walk that write-protects and tells secondary MMUs that pages become exclusive for one of them,
//! or that the address space ends: that one, or all that pass over such an event, go on to write.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
#[cfg(twin)]
use mmops::notifier::ChangeEvent;
#[cfg(wrong)]
use mmops::notifier::Event;
use mmops::{
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

    #[cfg(wrong)]
    const EVENT: Event = Event::Exclusive;
    //~[wrong]^ ERROR: E0326: implemented const `EVENT` has an incompatible type for trait
    #[cfg(twin)]
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
            },
        );
        Ok(Action::Done)
    }
}
