// SPDX-License-Identifier: GPL-2.0

//! The smallest user of the crate `mmops`: when it is loaded, it walks the page tables of the
//! process that loads it and says how many pages are present, writable and dirty.
//!
//! Documentation/own-driver.rst builds this module step by step.

use kernel::prelude::*;
use mmops::{
    mm::{
        self,
        MmapRead, //
    },
    pgtable::PteTable,
    walk::{
        walk_page_range,
        Action,
        Walk, //
    }, //
};

module! {
    type: Minimal,
    name: "mmops_minimal",
    authors: ["The mmops authors"],
    description: "Counts the pages of the process that loads it",
    license: "GPL",
    imports_ns: ["MMOPS"],
}

struct Minimal;

#[derive(Default)]
struct Count {
    present: usize,
    writable: usize,
    dirty: usize,
}

impl Walk for Count {
    type Hold<'s> = ();

    fn pte_table<'s>(&mut self, table: &mut PteTable<'_, 's>, (): &mut ()) -> Result<Action> {
        table.for_each(|_addr, pte| {
            if pte.present() {
                self.present += 1;
                self.writable += usize::from(pte.write());
                self.dirty += usize::from(pte.dirty());
            }
        });
        Ok(Action::Done)
    }
}

impl kernel::Module for Minimal {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let mm = mm::current()?;
        let mut count = Count::default();

        let mut guard = MmapRead::lock(&mm);
        let range = guard.user_range()?;

        walk_page_range(&mut guard, &range, &mut count)?;
        pr_info!(
            "{} pages present, {} writable, {} dirty\n",
            count.present,
            count.writable,
            count.dirty
        );
        Ok(Self)
    }
}
