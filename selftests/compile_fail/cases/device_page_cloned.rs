// SPDX-License-Identifier: GPL-2.0
//! A copy of the access to a page, which no invalidation would find.
//@revisions: wrong twin
//@[twin] check-pass
use mmops::exclusive::DevicePage;

#[cfg(wrong)]
pub fn case(page: &DevicePage) -> DevicePage {
    <DevicePage as Clone>::clone(page)
    //~[wrong]^ ERROR: E0277: the trait bound `DevicePage: Clone` is not satisfied
}

#[cfg(twin)]
pub fn case(page: &DevicePage) -> &DevicePage {
    <&DevicePage as Clone>::clone(&page)
}
