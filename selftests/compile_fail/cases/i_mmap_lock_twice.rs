// SPDX-License-Identifier: GPL-2.0
//! `i_mmap_rwsem` taken twice by one task: it waits for ever if somebody else wants to write.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::mapping::Mapping;

pub fn case(mapping: &mut Mapping) -> Result {
    mapping.i_mmap_lock_read(|_first| {
        //~[wrong]^ ERROR: E0501: cannot borrow `*mapping` as mutable because previous closure
        //~[wrong]| ERROR: E0500: closure requires unique access to `*mapping`
        #[cfg(wrong)]
        mapping.i_mmap_lock_read(|_second| Ok(()))?;
        Ok(())
    })?;
    #[cfg(twin)]
    mapping.i_mmap_lock_read(|_second| Ok(()))?;
    Ok(())
}
