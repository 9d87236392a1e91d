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
    let transfer = Transfer::ToFolio;

    mapping.i_mmap_lock_read(|_guard| {
        //~[wrong]^ ERROR: E0501: cannot borrow `*mapping` as mutable because previous closure
        //~[wrong]| ERROR: E0500: closure requires unique access to `*mapping`
        #[cfg(wrong)]
        dirty::clean_record(mapping, range, &mut bitmap, Huge::Keep, transfer)?;
        Ok(())
    })?;
    #[cfg(twin)]
    dirty::clean_record(mapping, range, &mut bitmap, Huge::Keep, transfer)?;
    Ok(())
}
