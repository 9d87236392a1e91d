// SPDX-License-Identifier: GPL-2.0

//! Cases of the operation `exclusive` against `make_device_exclusive()`, and of giving the pages
//! back against the faults that do so.
//!
//! Pages are made exclusive in `/dev/mmops_ref` on either side, with the clock around that alone:
//! a call for each page there, one for all of them here. Before each call all pages are present,
//! writable and dirty.
//!
//! Pages are given back with the clock in userspace on either side: around a load from each page
//! there, and around one ioctl of `/dev/mmops` here.

use std::time::Instant;

use anyhow::{ensure, Result};
use mmops_uapi::Device;

use crate::bench::{Bench, Side};
use crate::neighbour::Neighbour;
use crate::reference::{self, Reference};
use crate::zap::Anonymous;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make pages exclusive.
    Make {
        /// Calls whose mean is a sample.
        calls: u32,
        /// A second thread runs meanwhile, on another CPU.
        second: bool,
    },
    /// Give pages back.
    Restore,
}

/// A case of the operation `exclusive`.
pub struct ExclusiveBench {
    op: Op,
    memory: Anonymous,
    order: Vec<u32>,
    reference: Reference,
    device: Device,
    _second: Option<Neighbour>,
}

impl ExclusiveBench {
    /// Sets up a mapping of `pages` pages.
    pub fn new(op: Op, pages: u32) -> Result<Self> {
        let second = matches!(op, Op::Make { second: true, .. })
            .then(Neighbour::start)
            .transpose()?;
        Ok(Self {
            op,
            memory: Anonymous::new(pages)?,
            order: (0..pages).collect(),
            reference: Reference::open()?,
            device: Device::open()?,
            _second: second,
        })
    }

    /// Makes all pages exclusive. Returns the nanoseconds.
    fn make(&self, side: u32) -> Result<f64> {
        let arg = reference::Exclusive {
            side,
            ..Default::default()
        };
        let out = self.reference.exclusive(arg, self.memory.memory())?;
        self.check(out.count)?;
        Ok(out.ns as f64)
    }

    fn check(&self, found: u64) -> Result<()> {
        let expected = self.order.len() as u64;
        ensure!(found == expected, "{found} pages instead of {expected}");
        Ok(())
    }

    fn revoke(&self) -> Result<u64> {
        let range = self.memory.memory().range();
        Ok(self.device.revoke(None, range)?.revoked)
    }
}

impl Bench for ExclusiveBench {
    fn sides(&self) -> &'static [Side] {
        &[Side::Reference, Side::Mmops]
    }

    fn sample(&mut self, side: Side, _seed: u64) -> Result<f64> {
        let in_kernel = match side {
            Side::Reference => reference::KERNEL,
            _ => reference::MMOPS,
        };
        match self.op {
            Op::Make { calls, .. } => {
                let mut ns = 0.0;
                for _ in 0..calls {
                    self.revoke()?;
                    self.memory.store(&self.order);
                    ns += self.make(in_kernel)?;
                }
                Ok(ns / f64::from(calls))
            }
            Op::Restore => {
                self.memory.store(&self.order);
                self.make(reference::MMOPS)?;
                let start = Instant::now();
                let restored = if side == Side::Reference {
                    self.memory.load(&self.order);
                    self.order.len() as u64
                } else {
                    self.revoke()?
                };
                let ns = start.elapsed().as_nanos() as f64;
                self.check(restored)?;
                // Nothing is left on either side.
                ensure!(self.revoke()? == 0, "some pages were still exclusive");
                Ok(ns)
            }
        }
    }
}
