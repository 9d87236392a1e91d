// SPDX-License-Identifier: GPL-2.0

//! `/dev/mmops_ref`: the kernel's own C functions, or mmops, timed inside the kernel.
//!
//! C header: [`mmops_ref.h`](../../../../selftests/modules/mmops_ref/mmops_ref.h)

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};

const PATH: &str = "/dev/mmops_ref";

/// `mmops_ref_dirty::op`
pub const WRITE_PROTECT: u32 = 0;
/// `mmops_ref_dirty::op`
pub const CLEAN_RECORD: u32 = 1;

/// `mmops_ref_dirty::side`: the kernel's function.
pub const KERNEL: u32 = 0;
/// `mmops_ref_dirty::side`: the function of mmops.
pub const MMOPS: u32 = 1;

/// `struct mmops_ref_dirty`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
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

mod ioctl {
    nix::ioctl_readwrite!(dirty, 0xbe, 0x00, super::Dirty);
    nix::ioctl_readwrite!(exclusive, 0xbe, 0x01, super::Exclusive);
}

/// An open `/dev/mmops_ref`.
pub struct Reference(File);

impl Reference {
    /// Opens the device.
    pub fn open() -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(PATH)
            .with_context(|| {
                format!("cannot open {PATH}: load mmops_ref.ko and run this as root")
            })?;
        Ok(Self(file))
    }

    /// Makes one call; the results are in the returned copy of `arg`.
    ///
    /// A clean sets bits in `bitmap`, which may be empty for other calls.
    pub fn dirty(&self, mut arg: Dirty, bitmap: &mut [u64]) -> Result<Dirty> {
        if !bitmap.is_empty() {
            arg.bitmap = bitmap.as_mut_ptr() as u64;
            arg.bitmap_bits = bitmap.len() as u64 * u64::from(u64::BITS);
        }
        // SAFETY: `arg` is the argument that this ioctl takes; the bitmap it names has the length
        // it names and is borrowed for writing. The call changes page-table entries only, never
        // the contents of memory.
        unsafe { ioctl::dirty(self.0.as_raw_fd(), &mut arg) }.context("MMOPS_REF_IOC_DIRTY")?;
        Ok(arg)
    }

    /// Makes pages device-exclusive; the results are in the returned copy of `arg`.
    pub fn exclusive(&self, mut arg: Exclusive) -> Result<Exclusive> {
        // SAFETY: `arg` is the argument that this ioctl takes. The call changes page-table entries
        // only, never the contents of memory.
        unsafe { ioctl::exclusive(self.0.as_raw_fd(), &mut arg) }
            .context("MMOPS_REF_IOC_EXCLUSIVE")?;
        Ok(arg)
    }
}
