// SPDX-License-Identifier: GPL-2.0
//! The device of a mirror that is used after the lock of the mirror was released.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::hmm::{
    Device,
    Mirror, //
};

pub fn case<D: Device>(mirror: &Mirror<D>) {
    let mut pages = mirror.lock();
    let device = pages.device();

    #[cfg(wrong)]
    drop(pages);
    //~[wrong]^ ERROR: E0505: cannot move out of `pages` because it is borrowed
    let _ = core::ptr::from_mut(device);
}
