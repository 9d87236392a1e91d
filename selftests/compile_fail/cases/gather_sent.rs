// SPDX-License-Identifier: GPL-2.0
//! Another thread clears entries with a gather whose mmap lock it does not hold.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::gather::Gather;

fn send<T: Send>(_what: T) {}

pub fn case(gather: &mut Gather<'_, '_>) {
    #[cfg(wrong)]
    send(gather);
    //~[wrong]^ ERROR: E0277: `*mut ()` cannot be sent between threads safely
    //~[wrong]| ERROR: E0277: `*mut ()` cannot be shared between threads safely
    #[cfg(twin)]
    send(gather.range());
}
