// SPDX-License-Identifier: GPL-2.0

//! Calls of devices, and what memory each may change beside its structure.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::span::{array, Span, PAGE};
use crate::device::{again, misc};
use crate::ioctl::number_for;
use crate::sys::*;
use crate::Mmops;

/// A call of a device that changes memory only where its structure says.
pub trait Call: Sealed + Copy {
    /// What has the call.
    type Device: AsFd;
    /// The number of the call.
    const NUMBER: u32;
    /// Whose contents the call may change, beside the structure.
    fn touches(&self) -> [Span; 2];
}

use sealed::Sealed;
mod sealed {
    /// Of this crate, which knows what a call does.
    pub trait Sealed {}
}

/// No address.
const NONE: Span = Span { addr: 0, len: 0 };

macro_rules! calls {
    ($device:ty: $($type:ty, $number:expr, $touches:expr;)+) => {
        $(
            impl Sealed for $type {}

            impl Call for $type {
                type Device = $device;
                const NUMBER: u32 = number_for::<Self>($number);

                fn touches(&self) -> [Span; 2] {
                    let touches: fn(&Self) -> [Span; 2] = $touches;
                    touches(self)
                }
            }
        )+
    };
}

calls! {
    Mmops:
    mmops_info, MMOPS_IOC_INFO, |_| [NONE; 2];
    mmops_write_protect, MMOPS_IOC_WRITE_PROTECT, |_| [NONE; 2];
    mmops_clean_record, MMOPS_IOC_CLEAN_RECORD,
        |arg| [array(arg.bitmap, arg.bitmap_bits.div_ceil(64), 8), NONE];
    mmops_zap, MMOPS_IOC_ZAP, |arg| [array(arg.addr, arg.len, 1), NONE];
    mmops_soft_dirty_clear, MMOPS_IOC_SOFT_DIRTY_CLEAR, |_| [NONE; 2];
    mmops_exclusive, MMOPS_IOC_EXCLUSIVE,
        |arg| [array(arg.results, arg.len.div_ceil(PAGE), 1), NONE];
    mmops_revoke, MMOPS_IOC_REVOKE, |_| [NONE; 2];
    mmops_atomic_add, MMOPS_IOC_ATOMIC_ADD,
        |arg| [array(arg.addr, arg.nr, arg.stride.max(8)), NONE];
    mmops_notifier_log, MMOPS_IOC_NOTIFIER_LOG,
        |arg| [array(arg.events, arg.nr.into(), size_of::<mmops_notifier_event>() as u64), NONE];
    mmops_notifier_subscribe, MMOPS_IOC_NOTIFIER_SUBSCRIBE, |_| [NONE; 2];
    mmops_notifier_probe, MMOPS_IOC_NOTIFIER_PROBE, |_| [NONE; 2];
    mmops_protect, MMOPS_IOC_PROTECT, |_| [NONE; 2];
    mmops_leaves, MMOPS_IOC_LEAVES,
        |arg| [array(arg.vec, arg.vec_len, size_of::<mmops_leaf>() as u64), NONE];
    mmops_age, MMOPS_IOC_AGE, |_| [NONE; 2];
    mmops_track_open, MMOPS_IOC_TRACK_OPEN, |_| [NONE; 2];
    mmops_track_begin, MMOPS_IOC_TRACK_BEGIN, |_| [NONE; 2];
    mmops_track_read, MMOPS_IOC_TRACK_READ,
        |arg| [array(arg.vec, arg.vec_len, size_of::<mmops_track_range>() as u64), NONE];
    mmops_track_end, MMOPS_IOC_TRACK_END, |_| [NONE; 2];
    mmops_track_bitmap, MMOPS_IOC_TRACK_BITMAP,
        |arg| [array(arg.bitmap, arg.words, size_of::<u64>() as u64), NONE];
}

macro_rules! device {
    ($(#[$doc:meta])* $device:ident, $name:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $device(File);

        impl $device {
            /// Opens the device at `path`.
            ///
            /// # Errors
            ///
            /// `ENOTTY` if it is another one.
            pub fn open(path: &Path) -> io::Result<Self> {
                misc(path, $name).map(Self)
            }

            /// Opens the device once more: `path` is where this one was opened.
            ///
            /// # Errors
            ///
            /// `ENOTTY` if it is another one now.
            pub fn open_again(&self, path: &Path) -> io::Result<Self> {
                again(path, &self.0).map(Self)
            }
        }

        impl AsFd for $device {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }
    };
}

device! {
    /// The first device of `samples/mirror`, open.
    Mirror, "hmm_dmirror0"
}
device! {
    /// The device of `mmops_leafmap.ko`, open.
    Leafmap, "mmops_leafmap"
}
device! {
    /// The device of `mmops_walk.ko`, open.
    Walk, "mmops_walk"
}

/// `struct hmm_dmirror_cmd` of the kernel's `lib/test_hmm_uapi.h`, for the call of the number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct hmm_dmirror_cmd<const NR: u8> {
    pub addr: u64,
    pub ptr: u64,
    pub npages: u64,
    pub cpages: u64,
    pub faults: u64,
}

impl<const NR: u8> Sealed for hmm_dmirror_cmd<NR> {}

impl<const NR: u8> Call for hmm_dmirror_cmd<NR> {
    type Device = Mirror;
    const NUMBER: u32 = nix::request_code_readwrite!(b'H', NR, size_of::<Self>()) as u32;

    fn touches(&self) -> [Span; 2] {
        [self.addr, self.ptr].map(|addr| array(addr, self.npages, PAGE))
    }
}

/// `struct mmops_walk` of `selftests/modules/mmops_walk/mmops_walk.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_walk {
    pub op: u32,
    pub flags: u32,
    pub fd: i32,
    pub pad: u32,
    pub first: u64,
    pub nr: u64,
    pub gather: u64,
    pub vmas: u64,
    pub tables: u64,
    pub leaves: u64,
    pub present: u64,
    pub writable: u64,
    pub changed: u64,
    pub split: u64,
    pub reserved: u64,
}

/// `mmops_walk::op`: the one that takes pages away.
pub const MMOPS_WALK_ZAP: u32 = 7;

calls! {
    Walk:
    mmops_walk, nix::request_code_readwrite!(0xbc, 0x00, size_of::<mmops_walk>()) as u32,
        |arg| if arg.op == MMOPS_WALK_ZAP {
            [array(arg.first, arg.nr, PAGE), array(arg.first, arg.gather, PAGE)]
        } else {
            [NONE; 2]
        };
}

/// `struct mmops_leafmap_serve` of `selftests/modules/mmops_leafmap/mmops_leafmap.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_leafmap_serve {
    pub order: u32,
    pub flags: u32,
    pub skew: u64,
}

/// `struct mmops_leafmap_unmap`, likewise.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_leafmap_unmap {
    pub offset: u64,
    pub len: u64,
}

macro_rules! leafmap_calls {
    ($($type:ty, $nr:expr;)+) => {
        $(
            impl Sealed for $type {}

            // What the device maps is mapped in the sandbox alone.
            impl Call for $type {
                type Device = Leafmap;
                const NUMBER: u32 =
                    nix::request_code_write!(0xbf, $nr, size_of::<Self>()) as u32;

                fn touches(&self) -> [Span; 2] {
                    [NONE; 2]
                }
            }
        )+
    };
}

leafmap_calls! {
    mmops_leafmap_serve, 0x00;
    mmops_leafmap_unmap, 0x02;
}
