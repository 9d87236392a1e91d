// SPDX-License-Identifier: GPL-2.0
//! What needs the mmap lock for writing, after it was made one for reading.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::mm::MmapWrite;

pub fn case(guard: MmapWrite<'_>) {
    #[cfg(wrong)]
    drop(guard.downgrade());
    let _read = guard.downgrade();
    //~[wrong]^ ERROR: E0382: use of moved value: `guard`
}
