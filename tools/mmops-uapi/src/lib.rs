// SPDX-License-Identifier: GPL-2.0

//! The interface of `/dev/mmops` for programs in Rust.
//!
//! [`sys`] is `include/uapi/linux/mmops.h`, item by item. [`Device`] makes its calls safe, and
//! its errors say what to do about them. [`Bitmap`] is what a harvest of dirty bits is collected
//! in. [`SharedMap`] is a shared mapping of a file that can be stored to without `unsafe`.
//!
//! C header: [`include/uapi/linux/mmops.h`](../../../include/uapi/linux/mmops.h).

mod bitmap;
mod device;
mod error;
mod map;
mod retry;
pub mod sys;
mod tracker;
pub mod units;

pub use bitmap::Bitmap;
pub use device::{
    has_ended, pidfd_open, wait_for_end, Age, CleanRecord, ClearSoftDirty, Device, Features, Flags,
    Heard, Info, Prot, Protect, Revoke, WriteProtect, Zap, DEVICE_PATH,
};
pub use error::Error;
pub use map::SharedMap;
pub use retry::retry_on_eintr;
pub use tracker::{Changed, Epoch, Kind, Mode, Tracker};
pub use units::Done;
