// SPDX-License-Identifier: GPL-2.0

//! Cases of clearing accessed bits against a write of 1 to `/proc/self/clear_refs`.
//!
//! Before each call all pages of the region are stored to, so that every leaf is young. The clock
//! is in userspace, around the one system call on either side. The kernel clears the whole process,
//! of which the region is nearly all, and does not flush the TLB; the call of mmops does.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use mmops_uapi::Device;

use crate::bench::{Bench, Side};
use crate::region::Region;
use crate::settle;

/// A case of clearing accessed bits.
pub struct AgeBench {
    pages: u32,
    order: Vec<u32>,
    region: Region,
    device: Device,
    clear_refs: File,
}

impl AgeBench {
    /// Sets up a region of `pages` pages.
    pub fn new(pages: u32) -> Result<Self> {
        Ok(Self {
            pages,
            order: (0..pages).collect(),
            region: Region::new(pages)?,
            device: Device::open()?,
            clear_refs: OpenOptions::new()
                .write(true)
                .open("/proc/self/clear_refs")
                .context("/proc/self/clear_refs")?,
        })
    }

    /// Makes the region old, and returns how many of its pages were young.
    fn age(&self) -> Result<u64> {
        let start = self.region.address();
        let result = self
            .device
            .age(None, start..start + self.region.len() as u64)?;
        ensure!(result.kept == 0, "{} pages are young still", result.kept);
        Ok(result.aged)
    }
}

impl Bench for AgeBench {
    fn sides(&self) -> &'static [Side] {
        &[Side::Reference, Side::Mmops]
    }

    fn sample(&mut self, side: Side, _seed: u64) -> Result<f64> {
        // What is old is made young by a load after a miss of the TLB only.
        self.age()?;
        self.region.store(&self.order);
        settle::let_tlb_shrink()?;
        let start = Instant::now();
        let young = match side {
            Side::Reference => {
                (&self.clear_refs).write_all(b"1").context("clear_refs")?;
                None
            }
            Side::Mmops | Side::Ioctl => Some(self.age()?),
        };
        let ns = start.elapsed().as_nanos() as f64;
        if let Some(young) = young {
            let expected = u64::from(self.pages);
            ensure!(
                young == expected,
                "{young} pages were young, not {expected}"
            );
        }
        Ok(ns)
    }
}
