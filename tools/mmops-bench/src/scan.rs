// SPDX-License-Identifier: GPL-2.0

//! Cases of harvesting dirty pages against `PAGEMAP_SCAN`.
//!
//! Each side has a memfd of its own, of one size, with one mapping and the same pages stored to
//! in the same order. One memfd that is mapped for both would not do: a harvest by mmops walks
//! every mapping of a file, the other side's included, and its write to an entry there would
//! change what `PAGEMAP_SCAN` has to do. The set-ups exist side by side and take turns.
//!
//! The clock is in userspace, around all that a caller has to do for the set of written pages:
//! the ioctl, and for mmops the clearing of the bitmap before it, which `PAGEMAP_SCAN` has no
//! need of. mmops transfers the dirty bits to the folios, as `PAGEMAP_SCAN` leaves them in the
//! entries. A round has the stores before the harvest within the clock too, and with them the
//! faults that `PAGEMAP_SCAN`'s write protection causes.

use std::time::Instant;

use anyhow::{ensure, Result};
use mmops_uapi::{Bitmap, Device, Flags};

use crate::bench::{Bench, Side};
use crate::layout::{empty_bitmap, weight, Density, Layout};
use crate::pagemap::Tracked;
use crate::region::Region;

/// A case of harvesting dirty pages.
pub struct ScanBench {
    pages: u32,
    density: Density,
    time_stores: bool,
    /// Memory of the reference.
    scanned: Region,
    tracked: Tracked,
    region: Region,
    device: Device,
    bitmap: Bitmap,
}

impl ScanBench {
    /// Sets up two regions of `pages` pages; with `time_stores` a sample holds the stores, too.
    pub fn new(pages: u32, density: Density, time_stores: bool) -> Result<Self> {
        let scanned = Region::new(pages)?;
        let mut bench = Self {
            pages,
            density,
            time_stores,
            tracked: Tracked::new(scanned.memory())?,
            scanned,
            region: Region::new(pages)?,
            device: Device::open()?,
            bitmap: Bitmap::new(0, pages.into()),
        };
        // All is written so far: let both begin with nothing.
        let everything = Layout::new(Density::Dense, pages, 0);
        for side in [Side::Reference, Side::Mmops] {
            bench.harvest(side)?;
            bench.check(side, &everything)?;
        }
        Ok(bench)
    }

    fn store(&self, side: Side, layout: &Layout) {
        match side {
            Side::Reference => self.scanned.store(layout.order()),
            Side::Mmops | Side::Ioctl => self.region.store(layout.order()),
        }
    }

    fn harvest(&mut self, side: Side) -> Result<()> {
        match side {
            Side::Reference => self.tracked.harvest(),
            Side::Mmops | Side::Ioctl => {
                self.bitmap.reset(0);
                let (fd, nr) = (self.region.fd(), self.pages.into());
                self.device
                    .clean_record(fd, 0, nr, &mut self.bitmap, Flags::empty())?;
                Ok(())
            }
        }
    }

    fn check(&self, side: Side, layout: &Layout) -> Result<()> {
        let mut scanned;
        let found = match side {
            Side::Reference => {
                scanned = empty_bitmap(self.pages);
                self.tracked.record(&mut scanned);
                &scanned
            }
            Side::Mmops | Side::Ioctl => self.bitmap.words(),
        };
        ensure!(
            found == layout.bitmap(),
            "harvested {} pages, which are not the {} pages stored to",
            weight(found),
            layout.count()
        );
        Ok(())
    }
}

impl Bench for ScanBench {
    fn sides(&self) -> &'static [Side] {
        &[Side::Reference, Side::Mmops]
    }

    fn sample(&mut self, side: Side, seed: u64) -> Result<f64> {
        let layout = Layout::new(self.density, self.pages, seed);
        let mut start = Instant::now();
        self.store(side, &layout);
        if !self.time_stores {
            start = Instant::now();
        }
        self.harvest(side)?;
        let ns = start.elapsed().as_nanos() as f64;
        self.check(side, &layout)?;
        Ok(ns)
    }
}
