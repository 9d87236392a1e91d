// SPDX-License-Identifier: GPL-2.0

//! The interface of `/dev/mmops` for programs in Rust.
//!
//! [`sys`] is `include/uapi/linux/mmops.h`, item by item. [`Device`] makes its calls safe, and
//! its errors say what to do about them. [`Bitmap`] is what a harvest of dirty bits is collected
//! in. With the feature `memory` there is also `Memory`, a mapping that can be stored to while
//! others change it.
//!
//! C header: [`include/uapi/linux/mmops.h`](../../../include/uapi/linux/mmops.h).

#![forbid(unsafe_code)]

mod bitmap;
mod device;
mod error;
mod retry;
mod tracker;

pub use bitmap::Bitmap;
pub use device::{
    has_ended, other_process, pidfd_open, wait_for_end, Age, CleanRecord, ClearSoftDirty, Device,
    Features, Flags, Heard, Info, Prot, Protect, Revoke, WriteProtect, Zap, DEVICE_PATH,
};
pub use error::Error;
pub use mmops_raw::process::OtherProcess;
#[cfg(feature = "memory")]
pub use mmops_raw::Memory;
pub use mmops_raw::{sys, units};
pub use retry::retry_on_eintr;
pub use tracker::{Changed, Epoch, Kind, Mode, Tracker};
pub use units::Done;
