// SPDX-License-Identifier: GPL-2.0

//! Cases of what a tracker costs the program that it watches.
//!
//! `store` is the CPU time that the threads of a program take for the first store to each page of
//! an epoch: after an epoch has begun, or after a write of 4 to `/proc/self/clear_refs`, which
//! takes the write permission of each entry. That clears all of the process, so all pages are
//! stored to once before an epoch of the tracker begins.
//!
//! `remap` is a loop that unmaps memory, maps it again and stores to it, with a tracker of these
//! addresses and without one: each turn tells the tracker of an unmap.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Barrier;
use std::time::Instant;

use anyhow::{bail, ensure, Context, Result};
use mmops_uapi::{Mode, Tracker};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::{clock_gettime, ClockId};

use crate::bench::{Bench, Side};
use crate::zap::Anonymous;

/// Turns of the loop of `remap` in one sample.
const TURNS: u32 = 200;

/// CPU time of the thread.
fn cpu_time() -> Result<TimeSpec> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("clock_gettime")
}

/// Nanoseconds of CPU time that `threads` threads take for a store to each of `pages`, in all.
pub fn store(memory: &Anonymous, pages: &[u32], threads: u32) -> Result<f64> {
    let per_thread = pages.len().div_ceil(threads as usize);
    let barrier = Barrier::new(threads as usize);
    std::thread::scope(|scope| {
        let threads: Vec<_> = pages
            .chunks(per_thread)
            .map(|pages| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    let start = cpu_time()?;
                    memory.store(pages);
                    Ok((cpu_time()? - start).num_nanoseconds() as f64)
                })
            })
            .collect();
        let times = threads.into_iter().map(|thread| match thread.join() {
            Ok(time) => time,
            Err(_) => bail!("a thread has panicked"),
        });
        times.sum()
    })
}

/// Begins an epoch, and ends it. Returns how many pages it had.
fn epoch(tracker: &mut Tracker) -> Result<u64> {
    let epoch = tracker.begin()?;
    let pages = epoch.written() + epoch.changed();
    epoch.commit()?;
    Ok(pages)
}

/// The case `store`.
pub struct StoreBench {
    threads: u32,
    order: Vec<u32>,
    memory: Anonymous,
    tracker: Tracker,
    clear_refs: File,
}

impl StoreBench {
    /// Sets up memory of `pages` pages.
    pub fn new(pages: u32, threads: u32) -> Result<Self> {
        let memory = Anonymous::new(pages)?;
        Ok(Self {
            threads,
            order: (0..pages).collect(),
            tracker: Tracker::new(None, memory.memory().range(), Mode::Fast)?,
            memory,
            clear_refs: OpenOptions::new()
                .write(true)
                .open("/proc/self/clear_refs")
                .context("/proc/self/clear_refs")?,
        })
    }
}

impl Bench for StoreBench {
    fn sides(&self) -> &'static [Side] {
        &[Side::Reference, Side::Mmops]
    }

    fn sample(&mut self, side: Side, _seed: u64) -> Result<f64> {
        self.memory.store(&self.order);
        match side {
            Side::Reference => self.clear_refs.write_all(b"4").context("clear_refs")?,
            Side::Mmops | Side::Ioctl => drop(epoch(&mut self.tracker)?),
        }
        let ns = store(&self.memory, &self.order, self.threads)?;
        let (found, pages) = (epoch(&mut self.tracker)?, self.order.len() as u64);
        ensure!(found == pages, "{found} pages are told of {pages}");
        Ok(ns)
    }
}

/// The case `remap`.
pub struct RemapBench {
    pages: u32,
    order: Vec<u32>,
    memory: Option<Anonymous>,
}

impl RemapBench {
    /// Sets up memory of `pages` pages.
    pub fn new(pages: u32) -> Result<Self> {
        Ok(Self {
            pages,
            order: (0..pages).collect(),
            memory: Some(Anonymous::new(pages)?),
        })
    }

    fn turn(&mut self) -> Result<()> {
        // Unmapped before it is mapped again, so that it comes to the same place.
        self.memory = None;
        let memory = Anonymous::new(self.pages)?;
        memory.store(&self.order);
        self.memory = Some(memory);
        Ok(())
    }
}

impl Bench for RemapBench {
    fn sides(&self) -> &'static [Side] {
        &[Side::Reference, Side::Mmops]
    }

    fn sample(&mut self, side: Side, _seed: u64) -> Result<f64> {
        let range = self
            .memory
            .as_ref()
            .context("nothing is mapped")?
            .memory()
            .range();
        let mut tracker = match side {
            Side::Reference => None,
            Side::Mmops | Side::Ioctl => Some(Tracker::new(None, range.clone(), Mode::Fast)?),
        };
        if let Some(tracker) = &mut tracker {
            epoch(tracker)?;
        }
        let start = Instant::now();
        for _ in 0..TURNS {
            self.turn()?;
        }
        let ns = start.elapsed().as_nanos() as f64;
        let now = self.memory.as_ref().map(|memory| memory.memory().range());
        ensure!(
            now.as_ref() == Some(&range),
            "it was mapped at {now:x?}, not at {range:x?}"
        );
        if let Some(tracker) = &mut tracker {
            let found = epoch(tracker)?;
            ensure!(
                found == u64::from(self.pages),
                "{found} pages are told of {}",
                self.pages
            );
        }
        Ok(ns / f64::from(TURNS))
    }
}
