// SPDX-License-Identifier: GPL-2.0
//! An entry that is changed in a walk that reads: it has no scope that flushes.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    pgtable::PmdLeaf,
    tlb::FlushScope, //
};

#[cfg(wrong)]
type Leaf<'x, 't, 's> = &'x PmdLeaf<'t, 's>;
#[cfg(twin)]
type Leaf<'x, 't, 's> = &'x mut PmdLeaf<'t, 's>;

pub fn case<'s>(leaf: Leaf<'_, '_, 's>, scope: &mut FlushScope<'s>) -> Result {
    leaf.wrprotect(scope);
    //~[wrong]^ ERROR: E0596: cannot borrow `*leaf` as mutable, as it is behind a `&` reference
    Ok(())
}
