// SPDX-License-Identifier: GPL-2.0
//! Data of a subscription that may not be touched in the thread that invalidates.
//@revisions: wrong twin
//@[twin] check-pass
use core::pin::Pin;
use mmops::notifier::{
    IntervalOps,
    Invalidated, //
};

#[cfg(wrong)]
pub struct Data(pub *mut u8);
#[cfg(twin)]
pub struct Data(pub usize);

impl IntervalOps for Data {
    //~[wrong]^ ERROR: E0277: `*mut u8` cannot be sent between threads safely
    fn invalidate(self: Pin<&mut Self>, _what: &Invalidated) {}
}
