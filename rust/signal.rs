// SPDX-License-Identifier: GPL-2.0

//! Giving up long work.

use crate::bindings;
use kernel::prelude::*;

/// Lets others run, and tells whether the current task is about to die.
///
/// To be called between the steps of long work. May sleep.
///
/// # Errors
///
/// `EINTR` if a fatal signal is pending.
///
/// Source: `fatal_signal_pending()`, `cond_resched()`.
#[inline(never)]
#[link_section = ".text.hot"]
pub fn interruption() -> Result {
    // SAFETY: Sleeping is allowed here.
    unsafe { bindings::mmops_cond_resched() };
    pending()
}

/// Tells whether the current task is about to die. Does not sleep.
///
/// For a walk's checkpoint: the walk has let others run before it.
///
/// # Errors
///
/// `EINTR` if a fatal signal is pending.
///
/// Source: `fatal_signal_pending()`.
#[inline]
pub fn pending() -> Result {
    // SAFETY: The function only looks at the current task.
    if unsafe { bindings::mmops_fatal_signal_pending() } {
        Err(EINTR)
    } else {
        Ok(())
    }
}
