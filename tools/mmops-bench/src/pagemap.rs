// SPDX-License-Identifier: GPL-2.0

//! The reference for harvests: `PAGEMAP_SCAN` with asynchronous write protection by userfaultfd.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{ensure, Context, Result};
use linux_raw_sys::general::{
    page_region, pm_scan_arg, uffdio_api, uffdio_range, uffdio_register, uffdio_writeprotect,
    PAGE_IS_WRITTEN, PM_SCAN_CHECK_WPASYNC, PM_SCAN_WP_MATCHING, UFFDIO_REGISTER_MODE_WP, UFFD_API,
    UFFD_FEATURE_WP_ASYNC, UFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFD_FEATURE_WP_UNPOPULATED,
};
use nix::errno::Errno;

use crate::layout::set_bit;
use crate::region::PAGE_SIZE;

/// To protect, not to permit again.
const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1 << 0;

mod ioctl {
    use linux_raw_sys::general::{pm_scan_arg, uffdio_api, uffdio_register, uffdio_writeprotect};

    nix::ioctl_readwrite!(uffdio_api, 0xaa, 0x3f, uffdio_api);
    nix::ioctl_readwrite!(uffdio_register, 0xaa, 0x00, uffdio_register);
    nix::ioctl_readwrite!(uffdio_writeprotect, 0xaa, 0x06, uffdio_writeprotect);
    nix::ioctl_readwrite!(pagemap_scan, b'f', 16, pm_scan_arg);
}

/// Memory that is registered for asynchronous write protection, and the means to harvest it.
pub struct Tracked {
    range: uffdio_range,
    // Closing it ends the registration.
    uffd: OwnedFd,
    pagemap: File,
    vector: Vec<page_region>,
    /// How many of `vector` the last harvest filled in.
    regions: usize,
}

impl Tracked {
    /// Registers `len` bytes from `address` on, which are mapped and stay so; every page counts as
    /// written until the first harvest.
    pub fn new(address: u64, len: usize) -> Result<Self> {
        let uffd = userfaultfd().context("userfaultfd")?;
        let features =
            UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
        let mut api = uffdio_api {
            api: UFFD_API.into(),
            features: features.into(),
            ioctls: 0,
        };
        // SAFETY: `api` is the argument that this ioctl takes.
        unsafe { ioctl::uffdio_api(uffd.as_raw_fd(), &mut api) }
            .context("the kernel lacks asynchronous write protection by userfaultfd")?;
        let mut register = uffdio_register {
            range: uffdio_range {
                start: address,
                len: len as u64,
            },
            mode: UFFDIO_REGISTER_MODE_WP.into(),
            ioctls: 0,
        };
        // SAFETY: `register` is the argument that this ioctl takes. A fault on what it protects is
        // resolved by the kernel itself, so whoever uses that memory notices nothing.
        unsafe { ioctl::uffdio_register(uffd.as_raw_fd(), &mut register) }
            .context("UFFDIO_REGISTER")?;
        let pagemap = File::open("/proc/self/pagemap").context("/proc/self/pagemap")?;
        // Beyond some 512 regions the kernel returns a stale `walk_end`, and a caller that goes on
        // from there sees pages twice. A vector that can never fill up needs one call only.
        let most = len / PAGE_SIZE / 2 + 2;
        let empty = page_region {
            start: 0,
            end: 0,
            categories: 0,
        };
        Ok(Self {
            range: register.range,
            uffd,
            pagemap,
            vector: vec![empty; most],
            regions: 0,
        })
    }

    /// Write-protects all of it: from now on no page counts as written but those that are.
    pub fn protect(&mut self) -> Result<()> {
        let mut protect = uffdio_writeprotect {
            range: self.range,
            mode: UFFDIO_WRITEPROTECT_MODE_WP,
        };
        // SAFETY: As for the registration.
        unsafe { ioctl::uffdio_writeprotect(self.uffd.as_raw_fd(), &mut protect) }
            .context("UFFDIO_WRITEPROTECT")?;
        Ok(())
    }

    /// Finds the pages that were written since the last harvest and write-protects them again.
    pub fn harvest(&mut self) -> Result<()> {
        let mut scan = pm_scan_arg {
            size: size_of::<pm_scan_arg>() as u64,
            flags: (PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC).into(),
            start: self.range.start,
            end: self.range.start + self.range.len,
            walk_end: 0,
            vec: self.vector.as_mut_ptr() as u64,
            vec_len: self.vector.len() as u64,
            max_pages: 0,
            category_inverted: 0,
            category_mask: PAGE_IS_WRITTEN.into(),
            category_anyof_mask: 0,
            return_mask: PAGE_IS_WRITTEN.into(),
        };
        // SAFETY: `scan` is the argument that this ioctl takes; the vector it names has the
        // length it names and is borrowed for writing.
        let regions = unsafe { ioctl::pagemap_scan(self.pagemap.as_raw_fd(), &mut scan) }
            .context("PAGEMAP_SCAN")? as usize;
        ensure!(
            regions < self.vector.len(),
            "PAGEMAP_SCAN returned {regions} regions, more than there can be"
        );
        self.regions = regions;
        Ok(())
    }

    /// Sets the bit of each page that the last harvest found.
    pub fn record(&self, bitmap: &mut [u64]) {
        record(&self.vector[..self.regions], self.range.start, bitmap);
    }
}

fn record(regions: &[page_region], base: u64, bitmap: &mut [u64]) {
    let page = |address: u64| ((address - base) / PAGE_SIZE as u64) as u32;
    for region in regions {
        (page(region.start)..page(region.end)).for_each(|page| set_bit(bitmap, page));
    }
}

fn userfaultfd() -> nix::Result<OwnedFd> {
    // SAFETY: the call takes flags only.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made the descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
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
        let Ok(mut tracked) = Tracked::new(region.address(), region.len()) else {
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
