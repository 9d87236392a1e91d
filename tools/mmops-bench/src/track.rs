// SPDX-License-Identifier: GPL-2.0

//! Cases of trackers of a process against what the kernel has for the same.
//!
//! All are on anonymous memory in base pages. Where both sides are compared in one state, each has
//! memory of its own with the same pages stored to in the same order, and they take turns. The
//! clock is in userspace: around all system calls that it takes to learn of the pages, the stores,
//! or both. For mmops these calls are the begin of an epoch, the read of its ranges, and its end.
//!
//! `begin` is what it takes until a first store is seen, with all pages dirty: to register with
//! userfaultfd and to protect them, or to open a tracker and to go through its first epoch.
//! `10trackers` has one tracker as its reference: the epoch of one, with the stores before it,
//! while nine others are on the same memory.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{ensure, Result};
use mmops_uapi::sys::mmops_track_range;
use mmops_uapi::{Mode, Tracker};

use crate::bench::{Bench, Side};
use crate::layout::{empty_bitmap, set_bit, weight, Density, Layout};
use crate::pagemap::Tracked;
use crate::region::PAGE_SIZE;
use crate::track_cost::store;
use crate::zap::Anonymous;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// To learn of the pages.
    Query,
    /// The stores, and to learn of them by a tracker of this mode.
    Round(Mode),
    /// What it takes until a first store is seen.
    Begin,
    /// The stores alone, of so many threads.
    Store(u32),
    /// As `Round`, with so many trackers on the same memory.
    Trackers(u32),
}

/// A case of trackers.
pub struct TrackBench {
    op: Op,
    pages: u32,
    density: Density,
    memory: Rc<Anonymous>,
    tracker: Tracker,
    /// Room for the ranges of an epoch.
    room: Vec<mmops_track_range>,
    /// How many there are.
    ranges: usize,
    /// Memory of the reference, if it is userfaultfd.
    reference: Option<(Rc<Anonymous>, Tracked)>,
}

fn memory(pages: u32) -> Result<Rc<Anonymous>> {
    let memory = Anonymous::new(pages)?;
    memory.store(&(0..pages).collect::<Vec<_>>());
    Ok(Rc::new(memory))
}

impl Op {
    fn mode(self) -> Mode {
        match self {
            Op::Round(mode) => mode,
            Op::Query | Op::Begin | Op::Store(_) | Op::Trackers(_) => Mode::Fast,
        }
    }
}

fn track(memory: &Anonymous, mode: Mode) -> Result<Tracker> {
    Ok(Tracker::new(None, memory.memory().range(), mode)?)
}

impl TrackBench {
    /// Sets up the memory.
    pub fn new(op: Op, pages: u32, density: Density) -> Result<Self> {
        let own = memory(pages)?;
        let reference = match op {
            Op::Query | Op::Round(_) | Op::Store(_) => {
                let memory = memory(pages)?;
                let tracked = Tracked::new(memory.memory())?;
                Some((memory, tracked))
            }
            Op::Begin | Op::Trackers(_) => None,
        };
        let mut bench = Self {
            op,
            pages,
            density,
            tracker: track(&own, op.mode())?,
            memory: own,
            // No two ranges of one kind touch.
            room: vec![mmops_track_range::default(); pages as usize + 1],
            ranges: 0,
            reference,
        };
        let everything = Layout::new(Density::Dense, pages, 0);
        // The first epoch has all pages, the second of the same tracker has none.
        let reference = bench.reference.is_some().then_some(Side::Reference);
        for side in reference.into_iter().chain([Side::Mmops]) {
            bench.query(side)?;
            bench.check(side, &everything)?;
        }
        Ok(bench)
    }

    fn memory(&self, side: Side) -> &Anonymous {
        match (side, &self.reference) {
            (Side::Reference, Some((memory, _))) => memory,
            _ => &self.memory,
        }
    }

    fn query(&mut self, side: Side) -> Result<()> {
        if let (Side::Reference, Some((_, tracked))) = (side, &mut self.reference) {
            return tracked.harvest();
        }
        let epoch = self.tracker.begin()?;
        let (ranges, rest) = epoch.read(0, &mut self.room)?;
        ensure!(rest.is_none(), "there are more ranges than pages");
        self.ranges = ranges;
        Ok(epoch.commit()?)
    }

    fn check(&self, side: Side, layout: &Layout) -> Result<()> {
        let mut found = empty_bitmap(self.pages);
        if let (Side::Reference, Some((_, tracked))) = (side, &self.reference) {
            tracked.record(&mut found);
        } else {
            let start = self.memory.memory().range().start;
            let page = |addr: u64| ((addr - start) / PAGE_SIZE as u64) as u32;
            for range in &self.room[..self.ranges] {
                let pages = page(range.addr)..page(range.addr + range.len);
                pages.for_each(|page| set_bit(&mut found, page));
            }
        }
        ensure!(
            found == layout.bitmap(),
            "{} pages are told, which are not the {} pages stored to",
            weight(&found),
            layout.count()
        );
        Ok(())
    }

    fn begin(&mut self, side: Side) -> Result<f64> {
        // Nothing is tracked, and all is dirty and writable.
        let everything = Layout::new(Density::Dense, self.pages, 0);
        self.memory.store(everything.order());
        let start = Instant::now();
        let ns = match side {
            Side::Reference => {
                let mut tracked = Tracked::new(self.memory.memory())?;
                tracked.protect()?;
                let ns = start.elapsed().as_nanos() as f64;
                self.memory.store(&[1]);
                tracked.harvest()?;
                let mut found = empty_bitmap(self.pages);
                tracked.record(&mut found);
                ensure!(weight(&found) == 1, "not the page that was stored to");
                ns
            }
            Side::Mmops | Side::Ioctl => {
                self.tracker = track(&self.memory, self.op.mode())?;
                self.query(side)?;
                let ns = start.elapsed().as_nanos() as f64;
                self.check(side, &everything)?;
                self.memory.store(&[1]);
                let epoch = self.tracker.begin()?;
                ensure!(
                    (epoch.written(), epoch.changed()) == (1, 0),
                    "not the page that was stored to"
                );
                epoch.commit()?;
                ns
            }
        };
        Ok(ns)
    }

    fn with_others(&mut self, side: Side, layout: &Layout, trackers: u32) -> Result<f64> {
        let mut others = Vec::new();
        if side != Side::Reference {
            for _ in 1..trackers {
                let mut other = track(&self.memory, self.op.mode())?;
                other.begin()?.commit()?;
                others.push(other);
            }
        }
        let start = Instant::now();
        self.memory.store(layout.order());
        self.query(side)?;
        let ns = start.elapsed().as_nanos() as f64;
        self.check(side, layout)?;
        for other in &mut others {
            let epoch = other.begin()?;
            ensure!(
                epoch.written() == layout.count(),
                "another tracker was told of {} pages",
                epoch.written()
            );
            epoch.commit()?;
        }
        Ok(ns)
    }
}

impl Bench for TrackBench {
    fn sides(&self) -> &'static [Side] {
        &[Side::Reference, Side::Mmops]
    }

    fn sample(&mut self, side: Side, seed: u64) -> Result<f64> {
        let layout = Layout::new(self.density, self.pages, seed);
        let mut start = Instant::now();
        let ns = match self.op {
            Op::Begin => return self.begin(side),
            Op::Trackers(trackers) => return self.with_others(side, &layout, trackers),
            Op::Store(threads) => {
                let ns = store(self.memory(side), layout.order(), threads)?;
                self.query(side)?;
                ns
            }
            Op::Query | Op::Round(_) => {
                self.memory(side).store(layout.order());
                if self.op == Op::Query {
                    start = Instant::now();
                }
                self.query(side)?;
                start.elapsed().as_nanos() as f64
            }
        };
        self.check(side, &layout)?;
        Ok(ns)
    }
}
