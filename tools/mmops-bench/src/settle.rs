// SPDX-License-Identifier: GPL-2.0

//! Time for the TLB of an emulated CPU to shrink.
//!
//! It has a size that follows its use, and a flush costs as much as it is large: after a store to
//! each page of 1 GiB that is more than many a call. It shrinks by and by, and at a flush only.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::region::Region;

/// How often and how long it is given the occasion.
const FLUSHES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(130);
/// More pages than are flushed one by one.
const PAGES: u32 = 64;

/// Lets the TLB become what it usually is.
pub fn let_tlb_shrink() -> Result<()> {
    for _ in 0..FLUSHES {
        thread::sleep(PAUSE);
        drop(Region::new(PAGES)?);
    }
    Ok(())
}
