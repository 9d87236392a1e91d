// SPDX-License-Identifier: GPL-2.0

//! An epoch that is open, and what it tells.

use super::{
    bits::Pages,
    record::Record,
    Tracker, //
};
use crate::{
    bitmap::BITS_PER_WORD,
    faults, //
};
use core::cmp;
use kernel::prelude::*;

/// Why a page is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was stored to: its dirty bit was set.
    Written,
    /// It is pinned for DMA: a device may store to it at any time, and no entry tells of that. It
    /// is in the next epoch as well.
    ///
    /// All pages of a large folio count as pinned if one is, and so does one with 1024 references,
    /// or one that another harvest is about.
    Pinned,
    /// Of a process: its contents are new. There was nothing at the last begin, or no begin.
    New,
    /// Of a process: its contents are gone. Nothing is mapped there, or it reads as zeroes or as
    /// what userfaultfd serves for it.
    Gone,
    /// Nobody knows: its entry went and may have had a dirty bit, or it cannot be tracked. Of a
    /// file, its contents may be new or gone as well.
    Changed,
}

impl Kind {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::Written,
        Self::Pinned,
        Self::New,
        Self::Gone,
        Self::Changed,
    ];
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// These, and another one.
    #[must_use]
    pub const fn with(self, kind: Kind) -> Self {
        Self(self.0 | 1 << kind as u8)
    }

    /// Whether a kind is one of them.
    pub const fn has(self, kind: Kind) -> bool {
        self.0 >> kind as u8 & 1 != 0
    }
}

/// Consecutive pages that are reported for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The first: its address in a process, or its offset in a file, in base pages.
    pub first: usize,
    /// Base pages.
    pub nr: usize,
    /// Why they are reported.
    pub kind: Kind,
}

/// What an epoch holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Base pages of kind [`Kind::Written`] or [`Kind::Pinned`].
    pub written: usize,
    /// Base pages of all other kinds.
    pub changed: usize,
    /// There are no bits: the range is too large, or there was no memory. Each epoch has all of it.
    pub is_overflow: bool,
    /// The address space has ended, by exit or exec. All pages are reported, now and later.
    pub has_ended: bool,
}

/// An epoch that is open: what may have changed since the one before it began.
///
/// If it is dropped it stays open, and [`Tracker::epoch`] gives it again: it need not be read at
/// once. After a commit or an abort there is nothing left to be read.
pub struct Epoch<'t> {
    pub(super) tracker: &'t mut Tracker,
}

impl Epoch<'_> {
    fn record(&self) -> &Record {
        &self.tracker.inner.record
    }

    fn pages(&self) -> &Pages {
        &self.tracker.inner.marks.pages
    }

    /// Its number, from 1 on: another one of the tracker has another number.
    pub fn number(&self) -> u64 {
        self.record().number
    }

    /// What it holds.
    pub fn summary(&self) -> Summary {
        let record = self.record();
        let count = |words: &[u64]| words.iter().map(|word| word.count_ones() as usize).sum();
        let (written, changed) = if record.is_all {
            (0, self.pages().nr())
        } else {
            (count(&record.written), count(&record.changed))
        };

        Summary {
            written,
            changed,
            is_overflow: self.tracker.inner.marks.is_overflow,
            has_ended: record.has_ended,
        }
    }

    /// The first pages of it that lie at `page` or behind; `None` if there are none. Pages are
    /// counted as in [`Changed::first`].
    pub fn next(&self, page: usize) -> Option<Changed> {
        let pages = self.pages();
        let from = cmp::max(page, pages.first);

        if from >= pages.end {
            return None;
        }
        if self.record().is_all {
            return Some(changed(from, pages.end, Kind::Changed));
        }

        let first = self.first_set(from, |word| word.all())?;
        let kind = self.kind(first)?;
        let end = self
            .first_other(first, kind)
            .map_or(pages.end, |end| cmp::min(end, pages.end));

        Some(changed(first, end, kind))
    }

    /// Puts into `words` which pages are of one of `kinds`: bit 0 is the page `first`, and pages
    /// behind the range are of none. Returns how many there are.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `first` is no page of the range; `words` is as it was then.
    pub fn bits(&self, first: usize, kinds: Kinds, words: &mut [u64]) -> Result<usize> {
        let pages = self.pages();

        if first < pages.first || first >= pages.end {
            return Err(EINVAL);
        }

        let (mut i, shift) = (
            (first - pages.base()) / BITS_PER_WORD,
            (first - pages.base()) % BITS_PER_WORD,
        );
        let mut count = 0;
        let mut here = self.bits_of_word(i, kinds);

        for word in words {
            i += 1;
            let next = self.bits_of_word(i, kinds);

            // Two shifts, since one by all bits of a word is none.
            *word = here >> shift | next << 1 << (BITS_PER_WORD - 1 - shift);
            count += word.count_ones() as usize;
            here = next;
        }
        Ok(count)
    }

    /// The bits of a word of pages of the range.
    fn bits_of_word(&self, i: usize, kinds: Kinds) -> u64 {
        let bits = if self.record().is_all {
            u64::MAX * u64::from(kinds.has(Kind::Changed))
        } else {
            self.word(i).map_or(0, |word| {
                let of =
                    |bits, &kind: &Kind| bits | if kinds.has(kind) { word.of(kind) } else { 0 };

                Kind::ALL.iter().fold(0, of)
            })
        };

        // Behind the range there are no words, and there may be more than are asked for.
        if i < self.pages().words() {
            bits & self.pages().mask(i)
        } else {
            0
        }
    }

    /// A word of all bitmaps.
    fn word(&self, i: usize) -> Option<Word> {
        let record = self.record();
        let optional = |words: &[u64]| words.get(i).copied().unwrap_or(0);

        Some(Word {
            written: *record.written.get(i)?,
            changed: *record.changed.get(i)?,
            pinned: optional(&record.pinned),
            there: optional(&record.there),
            there_before: optional(&record.there_before),
        })
    }

    fn kind(&self, page: usize) -> Option<Kind> {
        let bit = page - self.pages().base();
        let word = self.word(bit / BITS_PER_WORD)?;

        Kind::ALL
            .into_iter()
            .find(|&kind| word.of(kind) >> (bit % BITS_PER_WORD) & 1 != 0)
    }

    /// The first page behind `page` that is not of this kind.
    fn first_other(&self, page: usize, kind: Kind) -> Option<usize> {
        self.first_set(page, |word| !word.of(kind))
    }

    /// The first page from `page` on whose bit is set in what `f` makes of the words.
    fn first_set(&self, page: usize, f: impl Fn(Word) -> u64) -> Option<usize> {
        let base = self.pages().base();
        let (mut i, mut mask) = (
            (page - base) / BITS_PER_WORD,
            u64::MAX << (page % BITS_PER_WORD),
        );

        while let Some(word) = self.word(i) {
            let bits = f(word) & mask;

            if bits != 0 {
                return Some(base + i * BITS_PER_WORD + bits.trailing_zeros() as usize);
            }
            mask = u64::MAX;
            i += 1;
        }
        None
    }

    /// Ends it: its pages are done with.
    pub fn commit(self) {
        self.tracker.clear();
    }

    /// Ends it: its pages are in the next one, with those that change until then.
    pub fn abort(self) {
        if faults::track_skip_abort() {
            return self.commit();
        }

        self.tracker.abort();
    }
}

/// Bits of the bitmaps of a [`Record`] for the same pages.
#[derive(Clone, Copy)]
struct Word {
    written: u64,
    changed: u64,
    pinned: u64,
    there: u64,
    there_before: u64,
}

impl Word {
    /// Those that are reported.
    fn all(self) -> u64 {
        self.written | self.changed
    }

    /// Those that are reported as of this kind. Each is of one.
    fn of(self, kind: Kind) -> u64 {
        let pinned = self.all() & self.pinned;
        let changed = self.changed & !pinned;
        let new = changed & self.there & !self.there_before;
        let gone = changed & !self.there & self.there_before;

        match kind {
            Kind::Written => self.written & !pinned,
            Kind::Pinned => pinned,
            Kind::New => new,
            Kind::Gone => gone,
            Kind::Changed => changed & !new & !gone,
        }
    }
}

/// The pages with the numbers `first..end`.
fn changed(first: usize, end: usize, kind: Kind) -> Changed {
    Changed {
        first,
        nr: end - first,
        kind,
    }
}
