// SPDX-License-Identifier: GPL-2.0
//! A page of a device that is taken from where an invalidation would find it.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::prelude::*;
use mmops::exclusive::DevicePages;

pub fn case(pages: &DevicePages, addr: usize) -> Result {
    #[cfg(wrong)]
    let page = *pages.get(addr).ok_or(ENOENT)?;
    //~[wrong]^ ERROR: E0507: cannot move out of a shared reference
    #[cfg(twin)]
    let page = pages.get(addr).ok_or(ENOENT)?;
    page.write_u64(0, 1)
}
