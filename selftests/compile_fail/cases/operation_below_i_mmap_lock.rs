// SPDX-License-Identifier: GPL-2.0
//! An operation that takes `i_mmap_rwsem`, and folio locks, which come before it, while it is held.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::{
    bitmap::RecordBitmap,
    dirty::{
        self,
        Huge,
        Transfer, //
    },
    mapping::Mapping,
    range::PageRange, //
};

pub fn case(mapping: &mut Mapping, range: &PageRange, words: &mut [u64]) -> Result {
    let mut bitmap = RecordBitmap::new(words, range.first());
    let guard = mapping.i_mmap_lock_read();

    #[cfg(twin)]
    drop(guard);
    dirty::clean_record(mapping, range, &mut bitmap, Huge::Keep, Transfer::ToFolio)?;
    //~[wrong]^ ERROR: E0499: cannot borrow `*mapping` as mutable more than once
    #[cfg(wrong)]
    drop(guard);
    Ok(())
}
