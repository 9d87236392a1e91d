// SPDX-License-Identifier: GPL-2.0
//! A huge leaf that loses a permission with a scope of another walk, which flushes elsewhere.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::{
    pgtable::PmdLeaf,
    tlb::FlushScope, //
};

#[cfg(wrong)]
pub fn case<'s, 'o>(leaf: &mut PmdLeaf<'_, 's>, scope: &mut FlushScope<'o>) {
    leaf.wrprotect(scope);
    //~[wrong]^ ERROR: lifetime may not live long enough
    //~[wrong]| ERROR: lifetime may not live long enough
}

#[cfg(twin)]
pub fn case<'s>(leaf: &mut PmdLeaf<'_, 's>, scope: &mut FlushScope<'s>) {
    leaf.wrprotect(scope);
}
