// SPDX-License-Identifier: GPL-2.0

//! Cases of the operation `protect` against `mprotect(2)`.
//!
//! Both sides take the write permission from all leaves of one shared mapping and give it back,
//! in turn. The clock is in userspace, around the two system calls. A thread on a second processor
//! runs all the time, so that a TLB flush has to reach it, too.
//!
//! `pte` and `pmd` are a memfd in base pages and in huge pages; `pud` is a device-DAX with leaves
//! of 1 GiB.

use std::fs::{self, File, OpenOptions};
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use mmops_raw::{Advice, Memory};
use mmops_uapi::{sys, Device, Prot};
use nix::sys::memfd::{memfd_create, MFdFlags};

use crate::bench::{Bench, Side};
use crate::neighbour::Neighbour;
use crate::region::PAGE_SIZE;

const SHMEM_ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
const DAX: &str = "/dev/dax0.0";

/// The leaves of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Base pages.
    Pte,
    /// 2 MiB.
    Pmd,
    /// 1 GiB.
    Pud,
}

impl Leaves {
    fn shift(self) -> u8 {
        match self {
            Leaves::Pte => 12,
            Leaves::Pmd => 21,
            Leaves::Pud => 30,
        }
    }

    /// Pairs of calls whose times are added up.
    pub fn pairs(self) -> u32 {
        match self {
            Leaves::Pte => 1,
            Leaves::Pmd => 20,
            Leaves::Pud => 200,
        }
    }
}

/// A shared mapping of `pages` base pages in leaves of one size, all writable.
fn map(leaves: Leaves, pages: u32) -> Result<Memory> {
    let len = pages as usize * PAGE_SIZE;
    let file = match leaves {
        Leaves::Pud => OpenOptions::new()
            .read(true)
            .write(true)
            .open(DAX)
            .with_context(|| format!("cannot open {DAX}: give the guest a device-DAX"))?,
        Leaves::Pte | Leaves::Pmd => {
            fs::write(SHMEM_ENABLED, "advise").context(SHMEM_ENABLED)?;
            let fd = memfd_create(c"mmops-bench", MFdFlags::MFD_CLOEXEC)?;
            let file = File::from(fd);
            file.set_len(len as u64)?;
            file
        }
    };
    let memory = Memory::shared(&file, len).context("cannot map the memory")?;
    let advice = match leaves {
        Leaves::Pte => Some(Advice::NoHugePage),
        Leaves::Pmd => Some(Advice::HugePage),
        Leaves::Pud => None,
    };
    if let Some(advice) = advice {
        memory.advise(advice).context("madvise")?;
    }
    for offset in (0..len).step_by(1 << leaves.shift()) {
        memory.words()[offset / size_of::<u64>()].store(1, Ordering::Relaxed);
    }
    Ok(memory)
}

/// A case of the operation `protect`.
pub struct ProtectBench {
    leaves: Leaves,
    count: u64,
    device: Device,
    _neighbour: Neighbour,
    memory: Memory,
}

impl ProtectBench {
    /// Sets up a mapping of `pages` base pages in `leaves`.
    pub fn new(leaves: Leaves, pages: u32) -> Result<Self> {
        let memory = map(leaves, pages)?;
        let count = (memory.len() >> leaves.shift()) as u64;
        let bench = Self {
            leaves,
            count,
            device: Device::open()?,
            _neighbour: Neighbour::start()?,
            memory,
        };
        bench.check()?;
        Ok(bench)
    }

    /// All leaves are there, of the wanted size and writable.
    fn check(&self) -> Result<()> {
        let leaves = self.device.leaves(None, self.memory.range())?;
        let right = leaves.iter().filter(|leaf| {
            leaf.shift == self.leaves.shift() && leaf.state & sys::MMOPS_LEAF_WRITE != 0
        });
        let right = right.count() as u64;
        ensure!(
            right == self.count && leaves.len() as u64 == self.count,
            "{right} of {} leaves are writable ones of {} bytes",
            leaves.len(),
            1u64 << self.leaves.shift()
        );
        Ok(())
    }

    fn protect(&self, prot: Prot) -> Result<()> {
        let done = self.device.protect(None, self.memory.range(), prot)?;
        let changed = done.ptes + done.pmds + done.puds;
        ensure!(
            changed == self.count,
            "changed {changed} leaves of {}",
            self.count
        );
        Ok(())
    }
}

impl Bench for ProtectBench {
    fn sides(&self) -> &'static [Side] {
        &[Side::Reference, Side::Mmops]
    }

    fn sample(&mut self, side: Side, _seed: u64) -> Result<f64> {
        let pairs = self.leaves.pairs();
        let start = Instant::now();
        for _ in 0..pairs {
            match side {
                Side::Reference => self.memory.protect_and_permit().context("mprotect")?,
                Side::Mmops | Side::Ioctl => {
                    self.protect(Prot::READ)?;
                    self.protect(Prot::READ | Prot::WRITE)?;
                }
            }
        }
        let ns = start.elapsed().as_nanos() as f64;
        self.check()?;
        Ok(ns / f64::from(pairs))
    }
}
