// SPDX-License-Identifier: GPL-2.0
//! The mmap lock for writing is released by another task than the one that took it.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::mm::MmapWrite;

fn send<T: Send>(_what: T) {}

pub fn case(guard: MmapWrite<'_>) {
    #[cfg(wrong)]
    send(guard);
    //~[wrong]^ ERROR: E0277: `*mut ()` cannot be sent between threads safely
    #[cfg(twin)]
    send(guard.downgrade().mm());
}
