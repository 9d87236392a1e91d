// SPDX-License-Identifier: GPL-2.0

//! Bits for pages that are set from anywhere: by callbacks that may neither sleep nor allocate, and
//! by the harvests of others.

use core::{
    cmp,
    sync::atomic::{
        fence,
        AtomicU64,
        Ordering, //
    }, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

use crate::{
    bitmap::BITS_PER_WORD,
    range::AddrRange, //
};

/// The pages of a range of addresses, by their number: the address in base pages.
///
/// # Invariants
///
/// `first < end`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Pages {
    pub(super) first: usize,
    pub(super) end: usize,
}

impl Pages {
    pub(super) fn of(range: &AddrRange) -> Self {
        // INVARIANT: The range is not empty.
        Self {
            first: range.start() >> PAGE_SHIFT,
            end: range.end() >> PAGE_SHIFT,
        }
    }

    /// The part of it that lies in `other`.
    pub(super) fn within(&self, other: &Self) -> Option<Self> {
        let (first, end) = (
            cmp::max(self.first, other.first),
            cmp::min(self.end, other.end),
        );

        // INVARIANT: Checked here.
        (first < end).then_some(Self { first, end })
    }

    pub(super) fn nr(&self) -> usize {
        self.end - self.first
    }

    /// Number of the page of bit 0 of a bitmap for these pages: so that the words of all bitmaps
    /// hold the same pages.
    pub(super) fn base(&self) -> usize {
        self.first / BITS_PER_WORD * BITS_PER_WORD
    }

    /// Words of such a bitmap.
    pub(super) fn words(&self) -> usize {
        (self.end - self.base()).div_ceil(BITS_PER_WORD)
    }

    /// Those bits of word `i` of such a bitmap that stand for these pages.
    pub(super) fn mask(&self, i: usize) -> u64 {
        let word = self.base() + i * BITS_PER_WORD;
        let skip = self.first.saturating_sub(word);
        let end = cmp::min(self.end.saturating_sub(word), BITS_PER_WORD);

        if skip >= end {
            return 0;
        }
        (u64::MAX >> (BITS_PER_WORD - (end - skip))) << skip
    }
}

/// A bit for each page.
pub(super) struct Bits {
    words: KVVec<AtomicU64>,
    /// Number of the page of bit 0.
    base: usize,
}

impl Bits {
    /// Bits for `pages`, all of which are `set` or not.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(pages: &Pages, set: bool) -> Result<Self> {
        let nr = pages.words();
        let mut words = KVVec::with_capacity(nr, GFP_KERNEL_ACCOUNT)?;

        for i in 0..nr {
            let word = if set { pages.mask(i) } else { 0 };

            words
                .push_within_capacity(AtomicU64::new(word))
                .map_err(|_| ENOMEM)?;
        }
        Ok(Self {
            words,
            base: pages.base(),
        })
    }

    /// No bits at all: what is set is forgotten.
    pub(super) fn none() -> Self {
        Self {
            words: KVVec::new(),
            base: 0,
        }
    }

    /// Sets the bits of `pages`. Does not sleep.
    ///
    /// Who takes a bit that is set here, or was found set, sees all that was stored before.
    pub(super) fn set(&self, pages: &Pages) {
        let Some(all) = Pages::within(
            pages,
            &Pages {
                first: self.base,
                // Of a file, pages can be counted up to the last number that there is.
                end: self.base.saturating_add(self.words.len() * BITS_PER_WORD),
            },
        ) else {
            return;
        };
        let skip = (all.base() - self.base) / BITS_PER_WORD;

        // Else the contents could come after the read that finds a bit set.
        fence(Ordering::SeqCst);
        for i in 0..all.words() {
            self.or(skip + i, all.mask(i));
        }
    }

    /// Sets the bits that are set in `words`, bit 0 of which is the page with the number `base`, a
    /// multiple of [`BITS_PER_WORD`]. Those of other pages are ignored.
    pub(super) fn set_words(&self, base: usize, words: &[u64]) {
        fence(Ordering::SeqCst);
        for (i, &word) in words.iter().enumerate() {
            let page = base + i * BITS_PER_WORD;

            if word != 0 && page >= self.base {
                self.or((page - self.base) / BITS_PER_WORD, word);
            }
        }
    }

    fn or(&self, i: usize, bits: u64) {
        if let Some(word) = self.words.get(i) {
            // A read is less than a locked instruction, and most bits are set again and again.
            if word.load(Ordering::SeqCst) & bits != bits {
                word.fetch_or(bits, Ordering::SeqCst);
            }
        }
    }

    /// Moves all set bits to `words`.
    pub(super) fn take(&self, words: &mut [u64]) {
        for (word, out) in self.words.iter().zip(words) {
            if word.load(Ordering::SeqCst) != 0 {
                *out |= word.swap(0, Ordering::SeqCst);
            }
        }
    }

    /// Sets the bits in `words` that are set here, and leaves them here.
    pub(super) fn copy(&self, words: &mut [u64]) {
        for (word, out) in self.words.iter().zip(words) {
            *out |= word.load(Ordering::SeqCst);
        }
    }
}

#[kunit_tests(mmops_track_bits)]
mod tests {
    use super::*;

    fn pages(first: usize, end: usize) -> Pages {
        Pages { first, end }
    }

    #[test]
    fn masks_cover_each_page_once() {
        for first in 60..140 {
            for end in first + 1..first + 140 {
                let all = pages(first, end);

                for page in all.base()..all.base() + all.words() * BITS_PER_WORD {
                    let i = (page - all.base()) / BITS_PER_WORD;
                    let is_set = all.mask(i) >> (page % BITS_PER_WORD) & 1 != 0;

                    assert_eq!(is_set, (first..end).contains(&page));
                }
            }
        }
    }

    #[test]
    fn ranges_are_clipped() -> Result {
        let bits = Bits::new(&pages(100, 300), false)?;
        let mut words = [0u64; 4];

        bits.set(&pages(0, 101));
        bits.set(&pages(190, 194));
        bits.set(&pages(299, 1 << 40));
        bits.set(&pages(1 << 40, 1 << 41));
        bits.copy(&mut words);
        // Up to the ends of words, of which the rest stands for no page of the range.
        assert_eq!(words, [(1 << 37) - 1, 3 << 62, 3, u64::MAX << 43]);
        bits.take(&mut words);
        bits.take(&mut words);
        assert_eq!(words, [(1 << 37) - 1, 3 << 62, 3, u64::MAX << 43]);
        words = [0; 4];
        bits.take(&mut words);
        assert_eq!(words, [0; 4]);
        Ok(())
    }

    #[test]
    fn the_last_pages_of_a_file() -> Result {
        let last = pages(usize::MAX - 10, usize::MAX);
        let bits = Bits::new(&last, false)?;
        let mut words = [0u64];

        assert_eq!((last.words(), last.mask(0)), (1, 0x3ff << 53));
        bits.set(&pages(usize::MAX - 3, usize::MAX));
        bits.set(&pages(5, usize::MAX - 9));
        bits.take(&mut words);
        assert_eq!(words, [7 << 60 | ((1 << 54) - 1)]);
        bits.set_words(last.base(), &[1 << 62]);
        words = [0];
        bits.take(&mut words);
        assert_eq!(words, [1 << 62]);
        Ok(())
    }

    #[test]
    fn words_go_where_their_pages_are() -> Result {
        let bits = Bits::new(&pages(128, 256), false)?;
        let mut words = [0u64; 2];

        bits.set_words(64, &[1, 2, 4, 8]);
        bits.take(&mut words);
        assert_eq!(words, [2, 4]);
        words = [0; 2];
        bits.set_words(192, &[16, 32]);
        bits.take(&mut words);
        assert_eq!(words, [0, 16]);
        Ok(())
    }
}
