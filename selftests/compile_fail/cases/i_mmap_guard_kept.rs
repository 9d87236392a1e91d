// SPDX-License-Identifier: GPL-2.0
//! The guard of `i_mmap_rwsem` is taken out of the function that has it: it would not know when the
//! lock is released.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::mapping::{
    IMmapReadGuard,
    Mapping, //
};

pub fn case(mapping: &mut Mapping) -> Result {
    let mut kept: Option<&mut IMmapReadGuard<'_>> = None;

    mapping.i_mmap_lock_read(|guard| {
        #[cfg(wrong)]
        kept.replace(guard);
        //~[wrong]^ ERROR: E0521: borrowed data escapes outside of closure
        #[cfg(twin)]
        let _ = guard;
        Ok(())
    })?;
    kept.take();
    Ok(())
}
