// SPDX-License-Identifier: GPL-2.0
//! A gather that is used in a callback of a walk: its flush frees pages, which sleeps, and a zap
//! takes page-table locks, while the walk holds one.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    gather::{
        with_gather,
        Gather, //
    },
    mm::MmapRead,
    pgtable::PteTable,
    range::AddrRange,
    walk::{
        walk_page_range,
        Action,
        Walk, //
    },
    zap::zap_vma, //
};

pub struct Flush<'x, 'a, 'g>(Option<&'x mut Gather<'a, 'g>>, AddrRange);

impl Walk for Flush<'_, '_, '_> {
    type Hold<'s> = ();

    fn pte_table<'s>(&mut self, _table: &mut PteTable<'_, 's>, _: &mut ()) -> Result<Action> {
        if let Some(gather) = &mut self.0 {
            gather.flush();
            zap_vma(gather, &self.1)?.check()?;
        }
        Ok(Action::Done)
    }
}

#[cfg(wrong)]
pub fn case(guard: &mut MmapRead<'_>, range: AddrRange) -> Result {
    with_gather(guard, &range, |gather| {
        //~[wrong]^ ERROR: E0500: closure requires unique access to `*guard`
        //~[wrong]^^ ERROR: E0501: cannot borrow `*guard` as mutable
        walk_page_range(guard, &range, &mut Flush(Some(gather), range))
    })
}

#[cfg(twin)]
pub fn case(guard: &mut MmapRead<'_>, range: AddrRange) -> Result {
    walk_page_range(guard, &range, &mut Flush(None, range))?;
    with_gather(guard, &range, |gather| {
        gather.flush();
        zap_vma(gather, &range)?.check()
    })
}
