// SPDX-License-Identifier: GPL-2.0

//! `include/uapi/linux/mmops.h` in Rust: the same names, sizes, offsets and numbers.
//!
//! `tests/header.rs` compiles the header and compares every item here with it.

use std::mem::{offset_of, size_of};

/// Version of this interface: major in the upper 16 bits, minor in the lower.
pub const MMOPS_UAPI_VERSION: u32 = 0x0001_0001;

/// `mmops_info::features`: [`MMOPS_IOC_WRITE_PROTECT`] is there.
pub const MMOPS_FEATURE_WRITE_PROTECT: u64 = 1 << 0;
/// `mmops_info::features`: [`MMOPS_IOC_CLEAN_RECORD`] is there.
pub const MMOPS_FEATURE_CLEAN_RECORD: u64 = 1 << 1;
/// `mmops_info::features`: leaves of PMD and PUD size are handled, not skipped.
pub const MMOPS_FEATURE_HUGE_LEAVES: u64 = 1 << 2;
/// `mmops_info::features`: [`MMOPS_IOC_ZAP`] is there.
pub const MMOPS_FEATURE_ZAP: u64 = 1 << 3;
/// `mmops_info::features`: [`MMOPS_IOC_SOFT_DIRTY_CLEAR`].
pub const MMOPS_FEATURE_SOFT_DIRTY: u64 = 1 << 4;
/// `mmops_info::features`: `mmops.ko` was built with `MMOPS_FAULTS=1`.
pub const MMOPS_FEATURE_FAULTS: u64 = 1 << 63;

/// Split a leaf of PMD or PUD size before it is changed.
pub const MMOPS_SPLIT: u32 = 1 << 0;
/// Do not mark the folio dirty for a dirty bit that was taken.
pub const MMOPS_NO_TRANSFER: u32 = 1 << 1;

/// The whole address space.
pub const MMOPS_SOFT_DIRTY_ALL: u32 = 1 << 0;
/// Pages outside the range that are not mapped lose the mark of a new mapping.
pub const MMOPS_SOFT_DIRTY_FORGET: u32 = 1 << 1;

/// Argument of [`MMOPS_IOC_INFO`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_info {
    pub version: u32,
    pub page_size: u32,
    pub features: u64,
    pub reserved: [u64; 4],
}

/// Argument of [`MMOPS_IOC_WRITE_PROTECT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_write_protect {
    pub fd: i32,
    pub flags: u32,
    pub first: u64,
    pub nr: u64,
    pub write_protected: u64,
    pub done: u64,
    pub reserved: [u64; 2],
}

/// Argument of [`MMOPS_IOC_CLEAN_RECORD`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_clean_record {
    pub fd: i32,
    pub flags: u32,
    pub first: u64,
    pub nr: u64,
    pub bitmap_pgoff: u64,
    pub bitmap: u64,
    pub bitmap_bits: u64,
    pub start: u64,
    pub end: u64,
    pub cleaned: u64,
    pub done: u64,
    pub reserved: [u64; 2],
}

/// Argument of [`MMOPS_IOC_ZAP`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_zap {
    pub pidfd: i32,
    pub flags: u32,
    pub addr: u64,
    pub len: u64,
    pub zapped: u64,
    pub done: u64,
    pub reserved: [u64; 2],
}

/// Argument of [`MMOPS_IOC_SOFT_DIRTY_CLEAR`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_soft_dirty_clear {
    pub pidfd: i32,
    pub flags: u32,
    pub addr: u64,
    pub len: u64,
    pub cleared: u64,
    pub kept: u64,
    pub done: u64,
    pub reserved: [u64; 2],
}

const _: () = {
    assert!(size_of::<mmops_info>() == 48);
    assert!(offset_of!(mmops_info, features) == 8);
    assert!(size_of::<mmops_write_protect>() == 56);
    assert!(offset_of!(mmops_write_protect, first) == 8);
    assert!(offset_of!(mmops_write_protect, reserved) == 40);
    assert!(size_of::<mmops_clean_record>() == 96);
    assert!(offset_of!(mmops_clean_record, first) == 8);
    assert!(offset_of!(mmops_clean_record, reserved) == 80);
    assert!(size_of::<mmops_zap>() == 56);
    assert!(offset_of!(mmops_zap, addr) == 8);
    assert!(offset_of!(mmops_zap, reserved) == 40);
    assert!(size_of::<mmops_soft_dirty_clear>() == 64);
    assert!(offset_of!(mmops_soft_dirty_clear, addr) == 8);
    assert!(offset_of!(mmops_soft_dirty_clear, reserved) == 48);
};

/// Type byte of every ioctl number of the device.
pub const MMOPS_IOC_MAGIC: u8 = 0xBD;
const INFO_NR: u8 = 0x00;
const WRITE_PROTECT_NR: u8 = 0x01;
const CLEAN_RECORD_NR: u8 = 0x02;
const ZAP_NR: u8 = 0x03;
const SOFT_DIRTY_CLEAR_NR: u8 = 0x04;

/// Number as the ioctl is issued with it; the C library's type for it differs between libraries.
const fn number(nr: u8, size: usize) -> u32 {
    nix::request_code_readwrite!(MMOPS_IOC_MAGIC, nr, size) as u32
}

/// What the driver is and can do.
pub const MMOPS_IOC_INFO: u32 = number(INFO_NR, size_of::<mmops_info>());
/// Write-protects a range of a file in all shared mappings of it.
pub const MMOPS_IOC_WRITE_PROTECT: u32 = number(WRITE_PROTECT_NR, size_of::<mmops_write_protect>());
/// Takes and records the dirty bits of a range of a file in all shared mappings of it.
pub const MMOPS_IOC_CLEAN_RECORD: u32 = number(CLEAN_RECORD_NR, size_of::<mmops_clean_record>());
/// Takes the pages of a range away from an address space.
pub const MMOPS_IOC_ZAP: u32 = number(ZAP_NR, size_of::<mmops_zap>());
/// Clears the soft-dirty bits of a process, all or of a range.
pub const MMOPS_IOC_SOFT_DIRTY_CLEAR: u32 =
    number(SOFT_DIRTY_CLEAR_NR, size_of::<mmops_soft_dirty_clear>());

nix::ioctl_readwrite!(
    /// Issues [`MMOPS_IOC_INFO`].
    ///
    /// # Safety
    ///
    /// The pointer is to a structure that can be read and written.
    ioc_info,
    MMOPS_IOC_MAGIC,
    INFO_NR,
    mmops_info
);
nix::ioctl_readwrite!(
    /// Issues [`MMOPS_IOC_WRITE_PROTECT`].
    ///
    /// # Safety
    ///
    /// The pointer is to a structure that can be read and written.
    ioc_write_protect,
    MMOPS_IOC_MAGIC,
    WRITE_PROTECT_NR,
    mmops_write_protect
);
nix::ioctl_readwrite!(
    /// Issues [`MMOPS_IOC_CLEAN_RECORD`].
    ///
    /// # Safety
    ///
    /// The pointer is to a structure that can be read and written, and its fields `bitmap` and
    /// `bitmap_bits` describe memory that the kernel may write to.
    ioc_clean_record,
    MMOPS_IOC_MAGIC,
    CLEAN_RECORD_NR,
    mmops_clean_record
);
nix::ioctl_readwrite!(
    /// Issues [`MMOPS_IOC_ZAP`].
    ///
    /// # Safety
    ///
    /// The pointer is to a structure that can be read and written.
    ioc_zap,
    MMOPS_IOC_MAGIC,
    ZAP_NR,
    mmops_zap
);
nix::ioctl_readwrite!(
    /// Issues [`MMOPS_IOC_SOFT_DIRTY_CLEAR`].
    ///
    /// # Safety
    ///
    /// The pointer is to a structure that can be read and written.
    ioc_soft_dirty_clear,
    MMOPS_IOC_MAGIC,
    SOFT_DIRTY_CLEAR_NR,
    mmops_soft_dirty_clear
);
