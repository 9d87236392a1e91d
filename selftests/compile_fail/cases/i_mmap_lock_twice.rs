// SPDX-License-Identifier: GPL-2.0
//! `i_mmap_rwsem` taken twice by one task: it waits for ever if somebody else wants to write.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::mapping::Mapping;

pub fn case(mapping: &mut Mapping) {
    let first = mapping.i_mmap_lock_read();

    #[cfg(twin)]
    drop(first);
    let _second = mapping.i_mmap_lock_read();
    //~[wrong]^ ERROR: E0499: cannot borrow `*mapping` as mutable more than once
    #[cfg(wrong)]
    drop(first);
}
