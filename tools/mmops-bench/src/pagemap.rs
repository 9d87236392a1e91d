// SPDX-License-Identifier: GPL-2.0

//! The reference for harvests: `PAGEMAP_SCAN` with asynchronous write protection by userfaultfd.

use std::ops::Range;

use anyhow::{ensure, Context, Result};
use mmops_raw::write_tracking::{
    page_region, pm_scan_arg, Pagemap, Registration, PAGE_IS_WRITTEN, PM_SCAN_CHECK_WPASYNC,
    PM_SCAN_WP_MATCHING,
};
use mmops_raw::{ioctl, Memory};

use crate::layout::set_bit;
use crate::region::PAGE_SIZE;

/// Memory that is registered for asynchronous write protection, and the means to harvest it.
pub struct Tracked {
    registration: Registration,
    range: Range<u64>,
    pagemap: Pagemap,
    vector: Vec<page_region>,
    /// How many of `vector` the last harvest filled in.
    regions: usize,
}

impl Tracked {
    /// Registers a mapping, which stays; every page counts as written until the first harvest.
    pub fn new(memory: &Memory) -> Result<Self> {
        let registration = Registration::new(memory)
            .context("asynchronous write protection by userfaultfd, which the kernel may lack")?;
        Ok(Self {
            registration,
            range: memory.range(),
            pagemap: Pagemap::open().context("/proc/self/pagemap")?,
            vector: room(memory.len() / PAGE_SIZE),
            regions: 0,
        })
    }

    /// Write-protects all of it: from now on no page counts as written but those that are.
    pub fn protect(&mut self) -> Result<()> {
        self.registration.protect().context("UFFDIO_WRITEPROTECT")
    }

    /// Finds the pages that were written since the last harvest and write-protects them again.
    pub fn harvest(&mut self) -> Result<()> {
        self.regions = scan(
            &self.pagemap,
            self.range.clone(),
            PM_SCAN_CHECK_WPASYNC,
            &mut self.vector,
        )?;
        Ok(())
    }

    /// Sets the bit of each page that the last harvest found.
    pub fn record(&self, bitmap: &mut [u64]) {
        record(&self.vector[..self.regions], self.range.start, bitmap);
    }
}

/// Room for the regions of so many pages.
///
/// Beyond some 512 regions the kernel returns a stale `walk_end`, and a caller that goes on from
/// there sees pages twice. A vector that can never fill up needs one call only.
pub fn room(pages: usize) -> Vec<page_region> {
    let empty = page_region {
        start: 0,
        end: 0,
        categories: 0,
    };
    vec![empty; pages / 2 + 2]
}

/// Puts the pages of a range that were written since they were last write-protected into `vector`,
/// and write-protects them again. Returns how many regions they are.
pub fn scan(
    pagemap: &Pagemap,
    range: Range<u64>,
    flags: u32,
    vector: &mut [page_region],
) -> Result<usize> {
    let mut scan = pm_scan_arg {
        size: size_of::<pm_scan_arg>() as u64,
        flags: (PM_SCAN_WP_MATCHING | flags).into(),
        start: range.start,
        end: range.end,
        walk_end: 0,
        vec: 0,
        vec_len: 0,
        max_pages: 0,
        category_inverted: 0,
        category_mask: PAGE_IS_WRITTEN.into(),
        category_anyof_mask: 0,
        return_mask: PAGE_IS_WRITTEN.into(),
    };
    let regions = ioctl(pagemap, &mut scan, (), &mut *vector);
    let regions = regions.context("PAGEMAP_SCAN")? as usize;
    ensure!(
        regions < vector.len(),
        "PAGEMAP_SCAN returned {regions} regions, more than there can be"
    );
    Ok(regions)
}

fn record(regions: &[page_region], base: u64, bitmap: &mut [u64]) {
    let page = |address: u64| ((address - base) / PAGE_SIZE as u64) as u32;
    for region in regions {
        (page(region.start)..page(region.end)).for_each(|page| set_bit(bitmap, page));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{empty_bitmap, Density, Layout};
    use crate::region::Region;

    #[test]
    fn regions_become_bits() {
        let page = |start: u64, end: u64| page_region {
            start: 0x10000 + start * 4096,
            end: 0x10000 + end * 4096,
            categories: 0,
        };
        let regions = [page(1, 3), page(64, 65)];
        let mut bitmap = [0; 2];
        record(&regions, 0x10000, &mut bitmap);
        assert_eq!(bitmap, [0b110, 1]);
    }

    /// Runs where the kernel of the build machine has asynchronous write protection.
    #[test]
    fn harvest_finds_what_was_stored_to() {
        const PAGES: u32 = 1 << 16;
        let region = Region::new(PAGES).unwrap();
        let Ok(mut tracked) = Tracked::new(region.memory()) else {
            eprintln!("skipped: no asynchronous write protection here");
            return;
        };
        let mut first = empty_bitmap(PAGES);
        tracked.harvest().unwrap();
        tracked.record(&mut first);
        assert_eq!(first, Layout::new(Density::Dense, PAGES, 0).bitmap());
        // More than 512 regions: the case in which `walk_end` is stale.
        for seed in 0..2 {
            let layout = Layout::new(Density::Sparse, PAGES, seed);
            assert!(layout.count() > 600);
            region.store(layout.order());
            let mut bitmap = empty_bitmap(PAGES);
            tracked.harvest().unwrap();
            tracked.record(&mut bitmap);
            assert_eq!(bitmap, layout.bitmap());
        }
    }
}
