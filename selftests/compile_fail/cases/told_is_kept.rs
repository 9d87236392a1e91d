// SPDX-License-Identifier: GPL-2.0
//! What a subscriber is told is kept, to be compared with an owner of later, at the same address.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::notifier::{
    Invalidated,
    MmOps,
    Owner, //
};

pub struct Spy(pub Owner);

impl MmOps for Spy {
    fn invalidate_range_start(&self, told: &Invalidated) {
        #[cfg(wrong)]
        let kept: Invalidated = *told;
        //~[wrong]^ ERROR: E0507: cannot move out of `*told` which is behind a shared reference
        #[cfg(twin)]
        let kept = told;

        kept.is_from(&self.0);
    }

    fn invalidate_range_end(&self, _told: &Invalidated) {}

    fn release(&self) {}
}
