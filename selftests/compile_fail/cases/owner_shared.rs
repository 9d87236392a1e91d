// SPDX-License-Identifier: GPL-2.0
//! The owner of a mirror's events is used by a second subscription: it takes pages that the mirror,
//! which is not told, goes on to write.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::{
    hmm::{
        Device,
        Mirror, //
    },
    notifier::{
        Invalidated,
        Owner, //
    }, //
};

#[cfg(wrong)]
pub fn case<D: Device>(told: &Invalidated, mirror: &Mirror<D>, _mine: &Owner) -> bool {
    told.is_from(mirror.owner())
    //~[wrong]^ ERROR: E0599: no method named `owner` found for reference `&Mirror<D>`
}

#[cfg(twin)]
pub fn case<D: Device>(told: &Invalidated, _mirror: &Mirror<D>, mine: &Owner) -> bool {
    told.is_from(mine)
}
