// SPDX-License-Identifier: GPL-2.0
//! An epoch that is kept while the next one begins.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::error::Result;
use mmops::track::Tracker;

pub fn case(tracker: &mut Tracker) -> Result {
    let epoch = tracker.begin()?;
    #[cfg(twin)]
    epoch.commit();
    let next = tracker.begin()?;
    //~[wrong]^ ERROR: E0499: cannot borrow `*tracker` as mutable more than once at a time

    #[cfg(wrong)]
    epoch.commit();
    next.commit();
    Ok(())
}
