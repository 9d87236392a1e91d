// SPDX-License-Identifier: GPL-2.0
//! A page pointer made of a number: what a gather queues is nobody else's.
//@revisions: wrong twin
//@[twin] check-pass
#[cfg(wrong)]
use mmops::gather::EncodedPage;
//~[wrong]^ ERROR: E0432: unresolved import `mmops::gather::EncodedPage`
#[cfg(twin)]
use mmops::gather::Gather;

#[cfg(wrong)]
pub fn case() -> bool {
    EncodedPage::number(0x1234).page().is_some()
}

#[cfg(twin)]
pub fn case(gather: &mut Gather<'_, '_>) {
    gather.flush();
}
