// SPDX-License-Identifier: GPL-2.0

//! Calls that no crate has a safe interface for: all unsafe code of the tools is here, behind a
//! safe interface. Documentation/unsafe.rst says what would break it.
//!
//! [`sys`] is `include/uapi/linux/mmops.h`, item by item. [`ioctl()`] issues a call of the device
//! that its argument belongs to. With the feature `memory` there are also mappings of the program
//! itself, which change at any time ([`Memory`]), what is measured on them, and the tests' device
//! [`reference`](mod@reference). With the feature `fuzz` there is a range of addresses for any call
//! with any argument (`sandbox`), and what of the kernel a thread comes to (`kcov`).

mod device;
mod ioctl;
#[cfg(feature = "fuzz")]
pub mod kcov;
#[cfg(feature = "memory")]
pub mod limit;
#[cfg(feature = "memory")]
mod memory;
pub mod process;
#[cfg(feature = "memory")]
pub mod reference;
#[cfg(feature = "fuzz")]
pub mod sandbox;
pub mod sys;
pub mod units;
#[cfg(feature = "memory")]
pub mod write_tracking;

pub use device::Mmops;
pub use ioctl::{ioctl, Argument, Process, Target};
#[cfg(feature = "memory")]
pub use memory::{Advice, Memory};
