// SPDX-License-Identifier: GPL-2.0

//! Cases of the operation `dirty` against the C functions of `mm/mapping_dirty_helpers.c`.
//!
//! Both sides run in `/dev/mmops_ref` over the same mapping, with the clock around the function
//! alone; the third side is the same call of mmops through `/dev/mmops`. A page of a memfd is
//! always dirty in the page cache, so that a transfer of the dirty bit finds its work done by
//! then on either side; what it costs to find that out is what is measured.
//!
//! With a limit the reference is a bare loop over the entries (`/dev/mmops_limit`), which reads
//! them or replaces each by itself: what is beyond that is the price of all that mmops does.
//!
//! Before a clean every entry is writable and clean but for those of the layout, which are dirty
//! because the pages were stored to. Before a write protection every entry is write-protected but
//! for those of the layout, which are writable because the pages were stored to, or, where the
//! layout is the whole range, because its protection was taken and given back.

use std::ops::Range;
use std::time::Instant;

use anyhow::{ensure, Result};
use mmops_uapi::{Bitmap, Device, Flags};

use crate::bench::{Bench, Side};
use crate::layout::{empty_bitmap, weight, Density, Layout};
use crate::reference::{self, Limit, Reference};
use crate::region::Region;

/// The operation of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Take dirty bits and record them.
    Clean {
        /// Mark the folio dirty for each bit that was taken, which C does not.
        transfer: bool,
    },
    /// Take write permissions.
    Protect,
}

/// A case of the operation `dirty`.
pub struct DirtyBench {
    op: Op,
    density: Density,
    pages: u32,
    calls: u32,
    region: Region,
    reference: Reference,
    limit: Option<(u32, Limit)>,
    device: Device,
    /// For the calls in the kernel, and for those through `/dev/mmops`.
    words: Vec<u64>,
    bitmap: Bitmap,
}

/// What a call reported.
struct Outcome<'a> {
    ns: f64,
    count: u64,
    words: &'a [u64],
    span: Range<u64>,
}

impl DirtyBench {
    /// As [`Self::new`], against a bare loop that changes each entry or none.
    pub fn with_limit(op: Op, pages: u32, density: Density, exchange: bool) -> Result<Self> {
        let loop_op = if exchange {
            reference::EXCHANGE
        } else {
            reference::READ
        };
        Ok(Self {
            limit: Some((loop_op, Limit::open()?)),
            ..Self::new(op, pages, density, 1)?
        })
    }

    /// Sets up a region of `pages` pages on which a sample is the mean of `calls` calls.
    pub fn new(op: Op, pages: u32, density: Density, calls: u32) -> Result<Self> {
        let mut bench = Self {
            op,
            density,
            pages,
            calls,
            region: match op {
                Op::Clean { transfer: false } => Region::on_ramfs(pages)?,
                Op::Clean { transfer: true } | Op::Protect => Region::new(pages)?,
            },
            reference: Reference::open()?,
            limit: None,
            device: Device::open()?,
            words: empty_bitmap(pages),
            bitmap: Bitmap::new(0, pages.into()),
        };
        // Every page is present, writable and dirty now: bring it to the state between calls.
        let count = bench.call(Side::Reference)?.count;
        ensure!(
            count == u64::from(pages),
            "{count} of {pages} pages were mapped as base pages: are huge pages forced on shmem?"
        );
        Ok(bench)
    }

    fn prepare(&mut self, layout: &Layout) -> Result<()> {
        if self.op == Op::Protect && self.density == Density::Dense {
            self.region.make_writable()?;
        } else {
            self.region.store(layout.order());
        }
        self.words.fill(0);
        self.bitmap.reset(0);
        Ok(())
    }

    fn call(&mut self, side: Side) -> Result<Outcome<'_>> {
        match side {
            Side::Reference => self.call_in_kernel(reference::KERNEL, Flags::empty()),
            Side::Mmops => self.call_in_kernel(reference::MMOPS, self.flags()),
            Side::Ioctl => self.call_device(),
        }
    }

    fn flags(&self) -> Flags {
        match self.op {
            Op::Clean { transfer: false } => Flags::NO_TRANSFER,
            Op::Clean { transfer: true } | Op::Protect => Flags::empty(),
        }
    }

    fn call_in_kernel(&mut self, side: u32, flags: Flags) -> Result<Outcome<'_>> {
        let (op, words) = match self.op {
            Op::Clean { .. } => (reference::CLEAN_RECORD, &mut self.words[..]),
            Op::Protect => (reference::WRITE_PROTECT, &mut [][..]),
        };
        let arg = reference::Dirty {
            op,
            side,
            flags: flags.bits(),
            nr: self.pages.into(),
            ..Default::default()
        };
        let out = self.reference.dirty(arg, self.region.fd(), words)?;
        Ok(Outcome {
            ns: out.ns as f64,
            count: out.count,
            words: &self.words,
            span: out.start..out.end,
        })
    }

    fn call_device(&mut self) -> Result<Outcome<'_>> {
        let (fd, nr, flags) = (self.region.fd(), self.pages.into(), self.flags());
        let start = Instant::now();
        let count = match self.op {
            Op::Clean { .. } => {
                let result = self
                    .device
                    .clean_record(fd, 0, nr, &mut self.bitmap, flags)?;
                result.cleaned
            }
            Op::Protect => self.device.write_protect(fd, 0, nr, flags)?.write_protected,
        };
        Ok(Outcome {
            ns: start.elapsed().as_nanos() as f64,
            count,
            words: self.bitmap.words(),
            span: self.bitmap.extent(),
        })
    }
}

/// Compares all that a call reported with the pages that it had to find.
fn check(op: Op, layout: &Layout, outcome: &Outcome<'_>) -> Result<()> {
    let (found, expected) = (outcome.count, layout.count());
    ensure!(
        found == expected,
        "returned {found} pages instead of {expected}"
    );
    if op == Op::Protect {
        return Ok(());
    }
    ensure!(
        outcome.words == layout.bitmap(),
        "set {} bits, which are not those of the {expected} pages stored to",
        weight(outcome.words)
    );
    let (found, expected) = (&outcome.span, layout.span());
    ensure!(
        *found == expected,
        "reported pages {found:?} instead of {expected:?}"
    );
    Ok(())
}

impl Bench for DirtyBench {
    fn sides(&self) -> &'static [Side] {
        &[Side::Reference, Side::Mmops, Side::Ioctl]
    }

    fn sample(&mut self, side: Side, seed: u64) -> Result<f64> {
        let layout = Layout::new(self.density, self.pages, seed);
        let mut ns = 0.0;
        for _ in 0..self.calls {
            self.prepare(&layout)?;
            let op = self.op;
            // It changes nothing, so what it has gone through is brought to the state between calls
            // by the call that follows.
            let bare = match (side, &self.limit) {
                (Side::Reference, Some((op, limit))) => Some(limit.run(*op, self.region.memory())?),
                _ => None,
            };
            let outcome = self.call(side)?;
            check(op, &layout, &outcome)?;
            ns += bare.unwrap_or(outcome.ns);
        }
        Ok(ns / f64::from(self.calls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: Op = Op::Clean { transfer: false };

    fn outcome<'a>(count: u64, words: &'a [u64], span: Range<u64>) -> Outcome<'a> {
        let ns = 1.0;
        Outcome {
            ns,
            count,
            words,
            span,
        }
    }

    #[test]
    fn a_right_result_passes() {
        let layout = Layout::new(Density::Sparse, 6400, 3);
        let right = outcome(64, layout.bitmap(), layout.span());
        check(CLEAN, &layout, &right).unwrap();
        // A write protection has no bitmap.
        check(Op::Protect, &layout, &outcome(64, &[], 0..0)).unwrap();
    }

    #[test]
    fn each_wrong_part_is_found() {
        let layout = Layout::new(Density::Sparse, 6400, 3);
        let error = |op, outcome| check(op, &layout, &outcome).unwrap_err().to_string();
        let right = layout.bitmap();
        let mut wrong = right.to_vec();
        wrong.rotate_left(1);
        let message = error(CLEAN, outcome(63, right, layout.span()));
        assert_eq!(message, "returned 63 pages instead of 64");
        let message = error(Op::Protect, outcome(65, &[], 0..0));
        assert_eq!(message, "returned 65 pages instead of 64");
        let message = error(CLEAN, outcome(64, &wrong, layout.span()));
        assert!(
            message.starts_with("set 64 bits, which are not"),
            "{message}"
        );
        let message = error(CLEAN, outcome(64, right, 0..6400));
        assert!(message.starts_with("reported pages 0..6400"), "{message}");
    }
}
