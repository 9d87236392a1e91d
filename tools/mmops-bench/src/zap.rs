// SPDX-License-Identifier: GPL-2.0

//! Cases of the operation `zap` against `madvise(MADV_DONTNEED)`.
//!
//! Both sides take away all pages of one mapping, in turn, after each of them was stored to. The
//! clock is in userspace, around the one system call; the stores, and with them the page faults,
//! are outside.
//!
//! `dirty-shared` is a mapping of a memfd, whose dirty bits have to reach the folios; the pages
//! stay in the memfd. `anon` is anonymous memory, whose pages are freed within the clock. Both are
//! in base pages. madvise() also frees the PTE tables that it empties (`CONFIG_PT_RECLAIM`), which
//! zap leaves for the faults to come.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use mmops_uapi::Device;
use nix::sys::mman::{madvise, mmap_anonymous, munmap, MapFlags, MmapAdvise, ProtFlags};

use crate::bench::{Bench, Side};
use crate::region::{Region, PAGE_SIZE};

/// What a case takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Pages of a memfd, mapped shared and dirty.
    DirtyShared,
    /// Anonymous pages.
    Anonymous,
}

/// A mapping in base pages.
enum Mapping {
    Shared(Region),
    Anonymous(Anonymous),
}

impl Mapping {
    fn address(&self) -> u64 {
        match self {
            Mapping::Shared(region) => region.address(),
            Mapping::Anonymous(memory) => memory.address(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Mapping::Shared(region) => region.len(),
            Mapping::Anonymous(memory) => memory.len(),
        }
    }

    fn store(&self, pages: &[u32]) {
        match self {
            Mapping::Shared(region) => region.store(pages),
            Mapping::Anonymous(memory) => memory.store(pages),
        }
    }

    /// Takes all pages away, as the kernel does.
    fn dont_need(&self) -> Result<()> {
        let base = NonNull::new(self.address() as *mut c_void).context("a mapping at 0")?;
        // SAFETY: The range is the mapping's own, and nobody keeps a reference into it; its
        // contents are not relied on.
        unsafe { madvise(base, self.len(), MmapAdvise::MADV_DONTNEED) }
            .context("madvise(MADV_DONTNEED)")
    }
}

/// Anonymous memory in base pages.
pub struct Anonymous {
    base: NonNull<c_void>,
    len: NonZeroUsize,
}

// SAFETY: The contents are changed by atomic stores alone.
unsafe impl Sync for Anonymous {}

impl Anonymous {
    /// Maps `pages` pages, none of which is there yet.
    pub fn new(pages: u32) -> Result<Self> {
        let len = NonZeroUsize::new(pages as usize * PAGE_SIZE).context("empty region")?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: The kernel chooses the address, so no other mapping is touched.
        let base = unsafe { mmap_anonymous(None, len, prot, MapFlags::MAP_PRIVATE) }
            .context("cannot map memory")?;
        let memory = Self { base, len };
        // SAFETY: The range is this mapping, and the advice does not change its contents.
        match unsafe { madvise(base, len.get(), MmapAdvise::MADV_NOHUGEPAGE) } {
            // A kernel without huge pages does not know the advice, and needs none.
            Ok(()) | Err(nix::Error::EINVAL) => Ok(memory),
            Err(error) => Err(error).context("madvise(MADV_NOHUGEPAGE)"),
        }
    }

    /// The first address.
    pub fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len.get()
    }

    /// Loads from each of `pages`.
    pub fn load(&self, pages: &[u32]) {
        for &page in pages {
            let offset = page as usize * PAGE_SIZE;
            assert!(offset < self.len.get(), "page {page} is outside");
            // SAFETY: As for `store`.
            unsafe { self.base.as_ptr().cast::<u8>().add(offset).read_volatile() };
        }
    }

    /// Stores to each of `pages`.
    pub fn store(&self, pages: &[u32]) {
        for &page in pages {
            let offset = page as usize * PAGE_SIZE;
            assert!(offset < self.len.get(), "page {page} is outside");
            // SAFETY: The page lies within the mapping, which lives as long as `self` and of which
            // no reference is ever made.
            unsafe {
                let byte = self.base.as_ptr().cast::<u8>().add(offset);
                AtomicU8::from_ptr(byte).store(1, Ordering::Relaxed);
            };
        }
    }
}

impl Drop for Anonymous {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own, and no pointer into it outlives it.
        let unmapped = unsafe { munmap(self.base, self.len.get()) };
        debug_assert!(unmapped.is_ok());
    }
}

/// A case of the operation `zap`.
pub struct ZapBench {
    mapping: Mapping,
    order: Vec<u32>,
    device: Device,
}

impl ZapBench {
    /// Sets up a mapping of `pages` pages.
    pub fn new(memory: Memory, pages: u32) -> Result<Self> {
        Ok(Self {
            mapping: match memory {
                Memory::DirtyShared => Mapping::Shared(Region::new(pages)?),
                Memory::Anonymous => Mapping::Anonymous(Anonymous::new(pages)?),
            },
            order: (0..pages).collect(),
            device: Device::open()?,
        })
    }

    fn zap(&self) -> Result<()> {
        let start = self.mapping.address();
        let range = start..start + self.mapping.len() as u64;
        // SAFETY: As for `Mapping::dont_need`.
        let found = unsafe { self.device.zap(None, range) }?.zapped;
        ensure!(
            found == self.order.len() as u64,
            "took {found} pages of {}",
            self.order.len()
        );
        Ok(())
    }
}

/// Pages that this process has mapped.
fn resident() -> Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").context("cannot read statm")?;
    let field = statm.split(' ').nth(1).context("statm has one field")?;
    field.parse().context("statm has no number")
}

impl Bench for ZapBench {
    fn sides(&self) -> &'static [Side] {
        &[Side::Reference, Side::Mmops]
    }

    fn sample(&mut self, side: Side, _seed: u64) -> Result<f64> {
        // A few pages of the program itself may come or go.
        const SLACK: u64 = 64;

        self.mapping.store(&self.order);
        let before = resident()?;
        let start = Instant::now();
        match side {
            Side::Reference => self.mapping.dont_need()?,
            Side::Mmops | Side::Ioctl => self.zap()?,
        }
        let ns = start.elapsed().as_nanos() as f64;
        let gone = before.saturating_sub(resident()?);
        ensure!(
            gone.abs_diff(self.order.len() as u64) <= SLACK,
            "{gone} of {} pages are gone",
            self.order.len()
        );
        Ok(ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dont_need_takes_what_was_stored() {
        let mapping = Mapping::Anonymous(Anonymous::new(1000).unwrap());
        let order: Vec<u32> = (0..1000).collect();
        mapping.store(&order);
        mapping.dont_need().unwrap();
        assert_eq!(mapping.len(), 1000 * PAGE_SIZE);
        assert!(resident().unwrap() > 0);
    }
}
