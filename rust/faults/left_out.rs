// SPDX-License-Identifier: GPL-2.0

//! Kinds of lines of the table in a build without faults: nothing at all.

use kernel::prelude::*;

/// What the code asks a line of the table.
pub(crate) trait Kind {
    type Answer;

    fn reached(&self) -> Self::Answer;
}

pub(crate) struct Fault;

impl Kind for Fault {
    type Answer = bool;

    #[inline(always)]
    fn reached(&self) -> bool {
        false
    }
}

pub(crate) struct Count;

impl Kind for Count {
    type Answer = ();

    #[inline(always)]
    fn reached(&self) {}
}

pub(crate) struct Delay;

impl Kind for Delay {
    type Answer = ();

    #[inline(always)]
    fn reached(&self) {}
}

/// The answer of a fault, kept for later.
pub(crate) struct Kept;

impl Kept {
    #[inline(always)]
    pub(crate) fn new(_answer: bool) -> Self {
        Self
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> bool {
        false
    }
}

/// The files of the table.
pub(crate) struct Files;

impl Files {
    #[inline(always)]
    pub(crate) fn new() -> Result<Self> {
        Ok(Self)
    }
}
