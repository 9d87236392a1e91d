// SPDX-License-Identifier: GPL-2.0
//! The mmap lock is released by another task than the one that took it.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::mm::MmapRead;

fn send<T: Send>(_what: T) {}

pub fn case(guard: MmapRead<'_>) {
    #[cfg(wrong)]
    send(guard);
    //~[wrong]^ ERROR: E0277: `*mut ()` cannot be sent between threads safely
    #[cfg(twin)]
    send(guard.mm());
}
