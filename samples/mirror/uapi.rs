// SPDX-License-Identifier: GPL-2.0

//! The kernel's `lib/test_hmm_uapi.h` in Rust, as far as the device has it.

use kernel::{
    ioctl::_IOWR,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};
use mmops::range::AddrRange;
use zerocopy_derive::Immutable;

const MAGIC: u32 = b'H' as u32;

pub(crate) const READ: u32 = _IOWR::<Command>(MAGIC, 0x00);
pub(crate) const WRITE: u32 = _IOWR::<Command>(MAGIC, 0x01);
pub(crate) const MIGRATE_TO_DEV: u32 = _IOWR::<Command>(MAGIC, 0x02);
pub(crate) const SNAPSHOT: u32 = _IOWR::<Command>(MAGIC, 0x04);
pub(crate) const EXCLUSIVE: u32 = _IOWR::<Command>(MAGIC, 0x05);
pub(crate) const CHECK_EXCLUSIVE: u32 = _IOWR::<Command>(MAGIC, 0x06);
pub(crate) const READ_UNLOCKED: u32 = _IOWR::<Command>(MAGIC, 0x09);

pub(crate) const PROT_ERROR: u8 = 0xff;
pub(crate) const PROT_NONE: u8 = 0x00;
pub(crate) const PROT_READ: u8 = 0x01;
pub(crate) const PROT_WRITE: u8 = 0x02;
pub(crate) const PROT_PMD: u8 = 0x04;
pub(crate) const PROT_PUD: u8 = 0x08;
pub(crate) const PROT_ZERO: u8 = 0x10;

/// `struct hmm_dmirror_cmd`
#[derive(Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Command {
    addr: u64,
    pub(crate) ptr: u64,
    npages: u64,
    pub(crate) cpages: u64,
    pub(crate) faults: u64,
}

impl Command {
    /// What the device accesses.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is empty, not aligned, or wraps.
    pub(crate) fn range(&self) -> Result<AddrRange> {
        let len = (self.npages as usize)
            .checked_mul(PAGE_SIZE)
            .ok_or(EINVAL)?;
        let start = self.addr as usize;

        AddrRange::new(start, start.checked_add(len).ok_or(EINVAL)?)
    }

    /// Where the bytes of `addr`, an address of `range`, are in the buffer of the command.
    pub(crate) fn buffer(&self, range: &AddrRange, addr: usize) -> usize {
        (self.ptr as usize).wrapping_add((addr - range.start()) >> PAGE_SHIFT << PAGE_SHIFT)
    }
}
