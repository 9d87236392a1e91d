// SPDX-License-Identifier: GPL-2.0

//! `/dev/mmops_ref`: the kernel's own C functions, or mmops, timed inside the kernel; and
//! `/dev/mmops_limit`, a loop that does nothing.
//!
//! C header: [`mmops_ref.h`](../../../../selftests/modules/mmops_ref/mmops_ref.h)

use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use mmops_raw::{ioctl, limit, reference, Memory};

use crate::region::PAGE_SIZE;

pub use mmops_raw::reference::{Dirty, Exclusive, CLEAN_RECORD, KERNEL, MMOPS, WRITE_PROTECT};

pub use mmops_raw::limit::{EXCHANGE, READ};

const PATH: &str = "/dev/mmops_ref";
const LIMIT_PATH: &str = "/dev/mmops_limit";

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

/// An open `/dev/mmops_limit`.
pub struct Limit(limit::Limit);

impl Limit {
    /// Opens the device.
    pub fn open() -> Result<Self> {
        let device = limit::Limit::open(Path::new(LIMIT_PATH)).with_context(|| {
            format!("cannot open {LIMIT_PATH}: load mmops_limit.ko and run this as root")
        })?;
        Ok(Self(device))
    }

    /// Goes through the entries of a mapping in base pages. Returns the nanoseconds that it took.
    pub fn run(&self, op: u32, memory: &Memory) -> Result<f64> {
        let mut arg = limit::Run {
            op,
            ..Default::default()
        };
        ioctl(&self.0, &mut arg, memory, ()).context("MMOPS_LIMIT_IOC_RUN")?;
        ensure!(
            arg.present * PAGE_SIZE as u64 == arg.len,
            "{} entries of {} are present",
            arg.present,
            arg.len / PAGE_SIZE as u64
        );
        Ok(arg.ns as f64)
    }
}
