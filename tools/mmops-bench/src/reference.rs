// SPDX-License-Identifier: GPL-2.0

//! `/dev/mmops_ref`: the kernel's own C functions, or mmops, timed inside the kernel.
//!
//! C header: [`mmops_ref.h`](../../../../selftests/modules/mmops_ref/mmops_ref.h)

use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::{Context, Result};
use mmops_raw::{ioctl, reference, Memory};

pub use mmops_raw::reference::{Dirty, Exclusive, CLEAN_RECORD, KERNEL, MMOPS, WRITE_PROTECT};

const PATH: &str = "/dev/mmops_ref";

/// An open `/dev/mmops_ref`.
pub struct Reference(reference::Reference);

impl Reference {
    /// Opens the device.
    pub fn open() -> Result<Self> {
        let device = reference::Reference::open(Path::new(PATH)).with_context(|| {
            format!("cannot open {PATH}: load mmops_ref.ko and run this as root")
        })?;
        Ok(Self(device))
    }

    /// Makes one call on a file; the results are in the returned copy of `arg`.
    ///
    /// A clean sets bits in `bitmap`, which may be empty for other calls.
    pub fn dirty(&self, mut arg: Dirty, file: BorrowedFd<'_>, bitmap: &mut [u64]) -> Result<Dirty> {
        ioctl(&self.0, &mut arg, file, bitmap).context("MMOPS_REF_IOC_DIRTY")?;
        Ok(arg)
    }

    /// Makes pages of a mapping device-exclusive; the results are in the returned copy of `arg`.
    pub fn exclusive(&self, mut arg: Exclusive, memory: &Memory) -> Result<Exclusive> {
        ioctl(&self.0, &mut arg, memory, ()).context("MMOPS_REF_IOC_EXCLUSIVE")?;
        Ok(arg)
    }
}
