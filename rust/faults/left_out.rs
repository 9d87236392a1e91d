// SPDX-License-Identifier: GPL-2.0

//! Kinds of lines of the table in a build without faults: nothing at all.

use kernel::prelude::*;

pub(crate) struct Fault;

impl Fault {
    #[inline(always)]
    pub(super) fn is_on(&self) -> bool {
        false
    }
}

pub(crate) struct Count;

impl Count {
    #[inline(always)]
    pub(super) fn reached(&self) {}
}

pub(crate) struct Gate;

impl Gate {
    #[inline(always)]
    pub(super) fn reached(&self) {}
}

pub(crate) struct SpinGate;

impl SpinGate {
    #[inline(always)]
    pub(super) fn reached(&self) {}
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
