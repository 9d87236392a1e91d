// SPDX-License-Identifier: GPL-2.0

//! `/dev/mmops_ref`: the kernel's own C functions, or mmops, timed inside the kernel.
//!
//! C header: [`mmops_ref.h`](../../../../selftests/modules/mmops_ref/mmops_ref.h)

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use crate::device::misc;
use crate::ioctl::{arguments, place_of_bits};
use crate::Memory;

/// `mmops_ref_dirty::op`
pub const WRITE_PROTECT: u32 = 0;
/// `mmops_ref_dirty::op`
pub const CLEAN_RECORD: u32 = 1;

/// `mmops_ref_dirty::side`: the kernel's function.
pub const KERNEL: u32 = 0;
/// `mmops_ref_dirty::side`: the function of mmops.
pub const MMOPS: u32 = 1;

const MAGIC: u8 = 0xbe;

/// `struct mmops_ref_dirty`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // described in the header
pub struct Dirty {
    pub fd: i32,
    pub op: u32,
    pub side: u32,
    pub flags: u32,
    pub first: u64,
    pub nr: u64,
    pub bitmap_pgoff: u64,
    pub bitmap: u64,
    pub bitmap_bits: u64,
    pub start: u64,
    pub end: u64,
    pub count: u64,
    pub ns: u64,
    pub reserved: [u64; 2],
}

const _: () = assert!(size_of::<Dirty>() == 104);

/// `struct mmops_ref_exclusive`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // described in the header
pub struct Exclusive {
    pub side: u32,
    pub pad: u32,
    pub addr: u64,
    pub len: u64,
    pub count: u64,
    pub ns: u64,
    pub reserved: [u64; 2],
}

const _: () = assert!(size_of::<Exclusive>() == 56);

/// The device, open.
#[derive(Debug)]
pub struct Reference(File);

impl Reference {
    /// Opens the device at `path`.
    ///
    /// # Errors
    ///
    /// `ENOTTY` if it is another one.
    pub fn open(path: &Path) -> io::Result<Self> {
        misc(path, "mmops_ref").map(Self)
    }
}

impl AsFd for Reference {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const fn number(nr: u8, size: usize) -> u32 {
    nix::request_code_readwrite!(MAGIC, nr, size) as u32
}

arguments! {
    Reference:
    Dirty, number(0x00, size_of::<Dirty>()), BorrowedFd<'a>, &'a mut [u64], |arg, file, words| {
        arg.fd = file.as_raw_fd();
        (arg.bitmap, arg.bitmap_bits) = place_of_bits(words);
    };
    Exclusive, number(0x01, size_of::<Exclusive>()), &'a Memory, (),
        |arg, memory, ()| (arg.addr, arg.len) = memory.place();
}
