// SPDX-License-Identifier: GPL-2.0
//! A device whose data may not be touched in the thread that invalidates.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::{
    exclusive::Device,
    notifier::Invalidated, //
};

#[cfg(wrong)]
pub struct Data(pub *mut u8);
#[cfg(twin)]
pub struct Data(pub usize);

impl Device for Data {
    //~[wrong]^ ERROR: E0277: `*mut u8` cannot be sent between threads safely
    fn invalidate(&mut self, _what: &Invalidated) {}
}
