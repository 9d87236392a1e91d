// SPDX-License-Identifier: GPL-2.0

//! What a replication writes to: a file here, or a stream to another machine.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

use crate::sparse::make_hole;

/// Takes the rounds of a replication.
pub trait Target {
    /// A round begins, in which the replica gets this size.
    fn begin(&mut self, size: u64) -> Result<()>;

    /// These bytes are at `offset` in the replica.
    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()>;

    /// `range` is zero in the replica, and a hole if it can be; returns how many bytes that was,
    /// as far as is known here. It may reach past the end, to the end of a page.
    fn make_hole(&mut self, range: Range<u64>) -> Result<u64>;

    /// The round is whole.
    fn end(&mut self) -> Result<()>;

    /// There are no more rounds.
    fn finish(&mut self) -> Result<()>;

    /// The replica, where it can be read.
    fn replica(&self) -> Option<&File>;
}

impl Target for &File {
    fn begin(&mut self, size: u64) -> Result<()> {
        if size != self.metadata()?.len() {
            self.set_len(size)
                .context("cannot set the size of the replica")?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        self.write_all_at(bytes, offset)
            .context("cannot write the replica")
    }

    fn make_hole(&mut self, range: Range<u64>) -> Result<u64> {
        make_hole(self, range).context("cannot make a hole in the replica")
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.sync_all()
            .context("cannot write the replica to its disk")
    }

    fn replica(&self) -> Option<&File> {
        Some(self)
    }
}

impl Target for Box<dyn Target + '_> {
    fn begin(&mut self, size: u64) -> Result<()> {
        (**self).begin(size)
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        (**self).write(bytes, offset)
    }

    fn make_hole(&mut self, range: Range<u64>) -> Result<u64> {
        (**self).make_hole(range)
    }

    fn end(&mut self) -> Result<()> {
        (**self).end()
    }

    fn finish(&mut self) -> Result<()> {
        (**self).finish()
    }

    fn replica(&self) -> Option<&File> {
        (**self).replica()
    }
}
