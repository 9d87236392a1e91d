// SPDX-License-Identifier: GPL-2.0

//! Cases of clearing soft-dirty bits against a write of 4 to `/proc/self/clear_refs`.
//!
//! Before each call all pages of the region are stored to, so that every entry is writable and
//! soft-dirty. The clock is in userspace, around the one system call on either side. The reference
//! is the same for a range: the kernel can only clear the whole process. What else is mapped is
//! that of a small program.
//!
//! Before the clock runs the TLB gets time to shrink, on either side (see [`settle`]). Then one
//! page elsewhere is cleared, also on either side: what a first call after a pause costs is not
//! what a range costs.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use mmops_uapi::Device;

use crate::bench::{Bench, Side};
use crate::region::{Region, PAGE_SIZE};
use crate::settle;

/// The bit in an entry of a pagemap.
pub const SOFT_DIRTY: u64 = 1 << 55;

/// A case of clearing soft-dirty bits.
pub struct SoftDirtyBench {
    pages: u32,
    order: Vec<u32>,
    /// Pages to clear; the whole process if there are none.
    range: Option<Range<u32>>,
    region: Region,
    /// One page for the call before the clock runs.
    spare: Region,
    device: Device,
    clear_refs: File,
    pagemap: File,
}

impl SoftDirtyBench {
    /// Sets up a region of `pages` pages, of which `range` is cleared, or all of the process.
    pub fn new(pages: u32, range: Option<Range<u32>>) -> Result<Self> {
        let bench = Self {
            pages,
            order: (0..pages).collect(),
            range,
            region: Region::new(pages)?,
            spare: Region::new(1)?,
            device: Device::open()?,
            clear_refs: OpenOptions::new()
                .write(true)
                .open("/proc/self/clear_refs")
                .context("/proc/self/clear_refs")?,
            pagemap: File::open("/proc/self/pagemap").context("/proc/self/pagemap")?,
        };
        // A new mapping is soft-dirty as a whole, once: no sample shall have to do with that.
        bench.clear(Side::Reference)?;
        Ok(bench)
    }

    fn clear(&self, side: Side) -> Result<()> {
        match side {
            Side::Reference => (&self.clear_refs).write_all(b"4").context("clear_refs"),
            Side::Mmops | Side::Ioctl => {
                let start = self.region.address();
                let address = |page: u32| start + u64::from(page) * PAGE_SIZE as u64;
                let range = self.range.clone();
                let range = range.map(|range| address(range.start)..address(range.end));
                self.device.clear_soft_dirty(None, range)?;
                Ok(())
            }
        }
    }

    /// Number of soft-dirty pages.
    fn soft_dirty(&self, pages: Range<u32>) -> Result<u32> {
        let mut bytes = vec![0; pages.len() * size_of::<u64>()];
        let first = self.region.address() / PAGE_SIZE as u64 + u64::from(pages.start);
        self.pagemap
            .read_exact_at(&mut bytes, first * size_of::<u64>() as u64)
            .context("/proc/self/pagemap")?;
        let (entries, _) = bytes.as_chunks();
        let set = |entry: &&[u8; 8]| u64::from_ne_bytes(**entry) & SOFT_DIRTY != 0;
        Ok(entries.iter().filter(set).count() as u32)
    }

    fn check(&self, side: Side) -> Result<()> {
        let expected = match (side, &self.range) {
            (Side::Reference, _) | (_, None) => 0,
            (_, Some(range)) => {
                let inside = self.soft_dirty(range.clone())?;
                ensure!(inside == 0, "{inside} pages of the range are soft-dirty");
                self.pages - range.len() as u32
            }
        };
        let found = self.soft_dirty(0..self.pages)?;
        ensure!(
            found == expected,
            "{found} pages are soft-dirty, not {expected}"
        );
        Ok(())
    }
}

impl Bench for SoftDirtyBench {
    fn sides(&self) -> &'static [Side] {
        &[Side::Reference, Side::Mmops]
    }

    fn sample(&mut self, side: Side, _seed: u64) -> Result<f64> {
        self.region.store(&self.order);
        settle::let_tlb_shrink()?;
        let spare = self.spare.address();
        self.spare.store(&[0]);
        self.device
            .clear_soft_dirty(None, Some(spare..spare + PAGE_SIZE as u64))?;
        let start = Instant::now();
        self.clear(side)?;
        let ns = start.elapsed().as_nanos() as f64;
        self.check(side)?;
        Ok(ns)
    }
}
