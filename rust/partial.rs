// SPDX-License-Identifier: GPL-2.0

//! How far an operation got.

use kernel::prelude::*;

/// A number of bytes, from the start of a range of addresses on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub usize);

/// A number of base pages, from the start of a range of page offsets on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pages(pub usize);

/// What an operation on a range has done, perhaps of a part of the range alone.
///
/// What was done is complete: flushed, and told to whom it concerns. `D` is the unit of the range:
/// [`Bytes`] or [`Pages`].
#[must_use = "an operation may end before it has processed all of its range"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial<T, D = Bytes> {
    /// What was done. Some of it may lie behind [`Self::done`].
    pub did: T,
    /// From the start of the range on, what is completely processed.
    pub done: D,
    /// Why that is not the whole range: `EINTR` after a fatal signal, or as the operation says.
    pub stopped: Option<Error>,
}

impl<T, D> Partial<T, D> {
    /// What was done when the operation ended with `ret`.
    pub(crate) fn new(did: T, done: D, ret: Result) -> Self {
        Self {
            did,
            done,
            stopped: ret.err(),
        }
    }

    /// Whether the whole range was processed.
    ///
    /// # Errors
    ///
    /// [`Self::stopped`].
    pub fn check(&self) -> Result {
        self.stopped.map_or(Ok(()), Err)
    }
}
