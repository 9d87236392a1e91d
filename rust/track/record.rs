// SPDX-License-Identifier: GPL-2.0

//! The bitmaps of an epoch.

use super::{
    bits::Pages,
    marks::Marks, //
};
use crate::faults;
use core::mem;
use kernel::prelude::*;

/// The bitmaps of an epoch. All have the same words, or none.
pub(super) struct Record {
    pub(super) written: KVVec<u64>,
    pub(super) changed: KVVec<u64>,
    /// Pages of an open epoch that are pinned. Of a process, none until it has ever pinned any.
    pub(super) pinned: KVVec<u64>,
    /// Of a process, pages that were there at the last begin.
    pub(super) there: KVVec<u64>,
    /// Those of an open epoch that were there at the begin before it; else room for the next ones.
    pub(super) there_before: KVVec<u64>,
    /// It has begun, and neither was committed nor aborted.
    pub(super) is_open: bool,
    /// All pages count as changed, whatever the bitmaps say.
    pub(super) is_all: bool,
    /// Number of the epoch, from 1 on.
    pub(super) number: u64,
    pub(super) has_ended: bool,
}

/// Whose pages a record is for.
#[derive(Clone, Copy)]
pub(super) enum Of {
    Process,
    File,
}

/// A clear bitmap of `nr` words.
pub(super) fn words(nr: usize) -> Result<KVVec<u64>> {
    Ok(KVVec::from_elem(0, nr, GFP_KERNEL_ACCOUNT)?)
}

impl Record {
    /// For `nr` words of pages of a process, or of a file.
    pub(super) fn new(nr: usize, of: Of) -> Result<Self> {
        let (there, pinned) = match of {
            Of::Process => (nr, 0),
            Of::File => (0, nr),
        };

        Ok(Self {
            written: words(nr)?,
            changed: words(nr)?,
            pinned: words(pinned)?,
            there: words(there)?,
            there_before: words(there)?,
            is_open: false,
            is_all: false,
            number: 0,
            has_ended: false,
        })
    }

    /// Makes the pages that came to where nothing was count as changed.
    pub(super) fn add_new(&mut self) {
        if faults::track_skip_new() {
            return;
        }
        for ((changed, there), before) in self
            .changed
            .iter_mut()
            .zip(self.there.iter())
            .zip(self.there_before.iter())
        {
            *changed |= there & !before;
        }
    }

    /// Leaves no bit set that stands for no page, nor one of each kind for the same.
    pub(super) fn trim(&mut self, pages: &Pages) {
        for (i, (written, changed)) in self
            .written
            .iter_mut()
            .zip(self.changed.iter_mut())
            .enumerate()
        {
            let was_there = self.there_before.get(i).copied().unwrap_or(0);
            // Whatever was stored before, it is gone.
            let gone = was_there & !self.there.get(i).copied().unwrap_or(0);

            *changed |= *written & gone;
            *written &= pages.mask(i) & !gone;
            *changed &= pages.mask(i) & !*written;
        }
    }

    /// Leaves its pages to the next epoch.
    pub(super) fn give_back(&mut self, marks: &Marks) {
        let base = marks.pages.base();

        marks.written.set_words(base, &self.written);
        marks.changed.set_words(base, &self.changed);
        self.clear();
    }

    /// As [`Self::give_back`], of an epoch that was open.
    pub(super) fn abort(&mut self, marks: &Marks) {
        self.give_back(marks);
        // What is new or gone since the begin before is so in the next epoch.
        mem::swap(&mut self.there, &mut self.there_before);
    }

    /// Forgets its pages.
    pub(super) fn clear(&mut self) {
        self.written.fill(0);
        self.changed.fill(0);
        self.pinned.fill(0);
        self.is_all = false;
        self.is_open = false;
    }
}
