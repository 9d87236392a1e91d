// SPDX-License-Identifier: GPL-2.0
//! Another thread walks with a guard, and holds no lock when the owner of the guard drops it.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::mm::MmapRead;

fn share<T: Sync>(_what: &T) {}

pub fn case(guard: MmapRead<'_>) {
    #[cfg(wrong)]
    share(&guard);
    //~[wrong]^ ERROR: E0277: `*mut ()` cannot be shared between threads safely
    #[cfg(twin)]
    share(&guard.mm());
}
