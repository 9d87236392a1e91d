// SPDX-License-Identifier: GPL-2.0
//! A page frame that no page table has.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::hmm::HmmPfn;

#[cfg(wrong)]
pub fn case() -> HmmPfn {
    HmmPfn(0)
    //~[wrong]^ ERROR: E0423: cannot initialize a tuple struct which contains private fields
}

#[cfg(twin)]
pub fn case(value: HmmPfn) -> HmmPfn {
    value
}
