// SPDX-License-Identifier: GPL-2.0
//! A value of an entry that no entry had.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::pgtable::{
    Entry,
    Pte, //
};

#[cfg(wrong)]
pub fn case() -> Pte {
    Entry(0)
    //~[wrong]^ ERROR: E0423: cannot initialize a tuple struct which contains private fields
}

#[cfg(twin)]
pub fn case(value: Pte) -> Pte {
    value
}
