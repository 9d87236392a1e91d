// SPDX-License-Identifier: GPL-2.0
//! The owner of somebody else's event is taken out of it, to be used as one's own.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::notifier::{
    Invalidated,
    Owner, //
};

#[cfg(wrong)]
pub fn case(told: &Invalidated, _mine: &Owner) -> bool {
    let owner = told.owner();
    //~[wrong]^ ERROR: E0599: no method named `owner` found for reference `&Invalidated`

    told.is_from(&owner)
}

#[cfg(twin)]
pub fn case(told: &Invalidated, mine: &Owner) -> bool {
    told.is_from(mine)
}
