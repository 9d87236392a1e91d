// SPDX-License-Identifier: GPL-2.0

//! `/dev/mmops_limit`: the least that work on page tables can cost, timed inside the kernel.
//!
//! C header: [`mmops_limit.h`](../../../../selftests/modules/mmops_limit/mmops_limit.h)

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::device::misc;
use crate::ioctl::arguments;
use crate::Memory;

/// `mmops_limit_run::op`: read each entry.
pub const READ: u32 = 0;
/// `mmops_limit_run::op`: and replace it by the same value.
pub const EXCHANGE: u32 = 1;

/// `struct mmops_limit_run`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // described in the header
pub struct Run {
    pub op: u32,
    pub pad: u32,
    pub addr: u64,
    pub len: u64,
    pub present: u64,
    pub ns: u64,
}

const _: () = assert!(size_of::<Run>() == 40);

/// The device, open.
#[derive(Debug)]
pub struct Limit(File);

impl Limit {
    /// Opens the device at `path`.
    ///
    /// # Errors
    ///
    /// `ENOTTY` if it is another one.
    pub fn open(path: &Path) -> io::Result<Self> {
        misc(path, "mmops_limit").map(Self)
    }
}

impl AsFd for Limit {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

arguments! {
    Limit:
    Run, nix::request_code_readwrite!(0xbf_u8, 0x10_u8, size_of::<Run>()) as u32, &'a Memory, (),
        |arg, memory, ()| (arg.addr, arg.len) = memory.place();
}
