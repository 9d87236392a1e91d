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

use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use mmops_uapi::{Device, Memory};

use crate::bench::{Bench, Side};
use crate::region::{store_to, use_base_pages, word_of, Region, PAGE_SIZE};

/// What a case takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
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
    fn memory(&self) -> &Memory {
        match self {
            Mapping::Shared(region) => region.memory(),
            Mapping::Anonymous(memory) => memory.memory(),
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
        let memory = self.memory();
        memory.discard().context("madvise(MADV_DONTNEED)")
    }
}

/// Anonymous memory in base pages.
pub struct Anonymous(Memory);

impl Anonymous {
    /// Maps `pages` pages, none of which is there yet.
    pub fn new(pages: u32) -> Result<Self> {
        let memory = Memory::anonymous(pages as usize * PAGE_SIZE).context("cannot map memory")?;
        use_base_pages(&memory)?;
        Ok(Self(memory))
    }

    /// The mapping.
    pub fn memory(&self) -> &Memory {
        &self.0
    }

    /// Loads from each of `pages`.
    pub fn load(&self, pages: &[u32]) {
        let words = self.0.words();
        for &page in pages {
            black_box(words[word_of(page)].load(Ordering::Relaxed));
        }
    }

    /// Stores to each of `pages`.
    pub fn store(&self, pages: &[u32]) {
        for &page in pages {
            store_to(&self.0, page);
        }
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
    pub fn new(kind: Kind, pages: u32) -> Result<Self> {
        Ok(Self {
            mapping: match kind {
                Kind::DirtyShared => Mapping::Shared(Region::new(pages)?),
                Kind::Anonymous => Mapping::Anonymous(Anonymous::new(pages)?),
            },
            order: (0..pages).collect(),
            device: Device::open()?,
        })
    }

    fn zap(&self) -> Result<()> {
        let found = self.device.zap_memory(self.mapping.memory())?.zapped;
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
        assert_eq!(mapping.memory().len(), 1000 * PAGE_SIZE);
        assert!(resident().unwrap() > 0);
    }
}
