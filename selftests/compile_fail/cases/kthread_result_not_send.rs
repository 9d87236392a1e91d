// SPDX-License-Identifier: GPL-2.0
//! A result of a kernel thread that only that thread may use.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::{
    c_str,
    prelude::*, //
};
use mmops::kthread;

pub fn case() -> Result {
    #[cfg(wrong)]
    kthread::run(c_str!("case"), |_| core::ptr::null::<u8>())?;
    //~[wrong]^ ERROR: E0277: `*const u8` cannot be sent between threads safely
    #[cfg(twin)]
    kthread::run(c_str!("case"), |_| 0usize)?;
    Ok(())
}
