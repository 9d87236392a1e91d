// SPDX-License-Identifier: GPL-2.0
//! An owner that is the address of an object, which may be gone: another one at its address would
//! be taken for it.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::notifier::Owner;

#[cfg(wrong)]
pub fn case() -> Result<Owner> {
    let object = KBox::pin(0u64, GFP_KERNEL)?;

    Ok(Owner::of(object.as_ref()))
    //~[wrong]^ ERROR: E0599: no associated function or constant named `of` found for struct `Owner`
}

#[cfg(twin)]
pub fn case() -> Result<Owner> {
    Owner::new()
}
