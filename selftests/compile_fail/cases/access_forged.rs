// SPDX-License-Identifier: GPL-2.0
//! A permission that is not one of a mapping.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::protect::Access;

#[cfg(wrong)]
pub fn case() -> Access {
    Access(0)
    //~[wrong]^ ERROR: E0423: cannot initialize a tuple struct which contains private fields
}

#[cfg(twin)]
pub fn case(value: Access) -> Access {
    value
}
