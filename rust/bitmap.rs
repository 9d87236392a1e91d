// SPDX-License-Identifier: GPL-2.0

//! The bitmap in which taken dirty bits are recorded.

use crate::range::PageRange;
use core::cmp;
use kernel::prelude::*;

/// Bits in a word of the bitmap.
pub const BITS_PER_WORD: usize = u64::BITS as usize;

/// A bitmap over page offsets, and the range of its bits that is known to hold set ones.
///
/// Bits are only ever set. `start` and `end` keep the contract of C's
/// `clean_record_shared_mapping_range()`: both are relative to the page offset of bit 0, an empty
/// range (`start >= end`) means that no set bit is known, and they are only ever extended. Where C
/// compares an absolute number of pages with a relative offset, this is exact for any bit 0.
pub struct RecordBitmap<'a> {
    words: &'a mut [u64],
    pgoff: usize,
    start: usize,
    end: usize,
}

impl<'a> RecordBitmap<'a> {
    /// A bitmap whose bit 0 is the page at offset `pgoff`, with no set bit known.
    pub fn new(words: &'a mut [u64], pgoff: usize) -> Self {
        Self::with_known(words, pgoff, 0, 0)
    }

    /// As [`Self::new`], with bits `start..end` known to hold set ones.
    pub fn with_known(words: &'a mut [u64], pgoff: usize, start: usize, end: usize) -> Self {
        Self {
            words,
            pgoff,
            start,
            end,
        }
    }

    /// Page offset of bit 0.
    pub fn pgoff(&self) -> usize {
        self.pgoff
    }

    /// First bit known to be set; not below [`Self::end`] if none is.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Last bit known to be set plus one; not above [`Self::start`] if none is.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Whether there is a bit for each page of `range`.
    pub fn covers(&self, range: &PageRange) -> bool {
        range.is_within(self.pgoff, self.words.len().saturating_mul(BITS_PER_WORD))
    }

    /// Sets the bit of the page at offset `pgoff`; one that the bitmap does not cover is ignored.
    #[inline(always)]
    pub fn set(&mut self, pgoff: usize) {
        let bit = pgoff.wrapping_sub(self.pgoff);

        if let Some(word) = self.words.get_mut(bit / BITS_PER_WORD) {
            *word |= 1 << (bit % BITS_PER_WORD);
            self.extend(bit, bit + 1);
        }
    }

    /// Sets the bits of the pages whose bit is set in `set`, where bit 0 is the page at offset
    /// `pgoff`; those that the bitmap does not cover are ignored. `pgoff` is not before bit 0.
    ///
    /// Returns the number of bits in `set`.
    #[inline(never)]
    #[link_section = ".text.hot"]
    pub(crate) fn set_words(&mut self, pgoff: usize, set: &[u64]) -> usize {
        let base = pgoff.wrapping_sub(self.pgoff);
        let (index, shift) = (base / BITS_PER_WORD, base % BITS_PER_WORD);
        let (mut carry, mut count) = (0, 0);
        // The first word in which bits were set, and the last, with these bits.
        let (mut first, mut last) = (None, (0, 0));

        for n in 0..=set.len() {
            let bits = set.get(n).copied().unwrap_or(0);

            if bits | carry == 0 {
                continue;
            }

            let here = bits << shift | carry;
            let at = index.wrapping_add(n);

            // Two shifts, since one by all bits of a word is none.
            carry = bits >> 1 >> (BITS_PER_WORD - 1 - shift);
            count += bits.count_ones() as usize;
            if here == 0 {
                continue;
            }
            if let Some(word) = self.words.get_mut(at) {
                *word |= here;
                last = (at, here);
                if first.is_none() {
                    first = Some(last);
                }
            }
        }
        if let Some((at, bits)) = first {
            self.extend(
                at * BITS_PER_WORD + bits.trailing_zeros() as usize,
                (last.0 + 1) * BITS_PER_WORD - last.1.leading_zeros() as usize,
            );
        }
        count
    }

    /// Sets the bits of `nr` pages from offset `pgoff` on; those that the bitmap does not cover are
    /// ignored.
    pub fn set_range(&mut self, pgoff: usize, nr: usize) {
        let before = self.pgoff.saturating_sub(pgoff);
        let mut bit = pgoff.saturating_sub(self.pgoff);
        let end = bit.saturating_add(nr.saturating_sub(before));

        while bit < end {
            let first = bit % BITS_PER_WORD;
            let bits = cmp::min(BITS_PER_WORD - first, end - bit);
            let Some(word) = self.words.get_mut(bit / BITS_PER_WORD) else {
                break;
            };

            *word |= (u64::MAX >> (BITS_PER_WORD - bits)) << first;
            self.extend(bit, bit + bits);
            bit += bits;
        }
    }

    #[inline(always)]
    fn extend(&mut self, start: usize, end: usize) {
        if self.start >= self.end {
            (self.start, self.end) = (start, end);
        } else {
            self.start = cmp::min(self.start, start);
            self.end = cmp::max(self.end, end);
        }
    }
}

#[kunit_tests(mmops_bitmap)]
mod tests {
    use super::*;

    #[test]
    fn first_bit_starts_the_known_range() {
        let mut words = [0u64; 2];
        let mut map = RecordBitmap::new(&mut words, 1000);

        map.set(1070);
        assert_eq!((map.start(), map.end()), (70, 71));
        map.set(1003);
        assert_eq!((map.start(), map.end()), (3, 71));
        map.set(1127);
        assert_eq!((map.start(), map.end()), (3, 128));
        assert_eq!(words, [1 << 3, 1 << 6 | 1 << 63]);
    }

    #[test]
    fn known_range_is_only_extended() {
        let mut words = [u64::MAX, 0];
        let mut map = RecordBitmap::with_known(&mut words, 0, 10, 90);

        map.set(50);
        assert_eq!((map.start(), map.end()), (10, 90));
        map.set(95);
        assert_eq!((map.start(), map.end()), (10, 96));
        assert_eq!(words, [u64::MAX, 1 << 31]);
    }

    #[test]
    fn offsets_outside_are_ignored() {
        let mut words = [0u64; 1];
        let mut map = RecordBitmap::new(&mut words, 100);

        map.set(99);
        map.set(164);
        map.set_range(160, 10);
        assert_eq!((map.start(), map.end()), (60, 64));
        map.set_range(90, 10);
        assert_eq!((map.start(), map.end()), (60, 64));
        map.set_range(90, 12);
        assert_eq!((map.start(), map.end()), (0, 64));
        assert_eq!(words, [0xf << 60 | 3]);
    }

    #[test]
    fn words_set_each_bit() {
        for step in 1..130 {
            for offset in [0, 3, 64, 127] {
                let (mut words, mut others) = ([0u64; 5], [0u64; 5]);
                let mut map = RecordBitmap::new(&mut words, 1000);
                let mut other = RecordBitmap::new(&mut others, 1000);
                let mut set = [0u64; 5];

                for i in (5..317).step_by(step) {
                    set[i / BITS_PER_WORD] |= 1 << (i % BITS_PER_WORD);
                    other.set(1000 + offset + i);
                }
                assert_eq!(
                    map.set_words(1000 + offset, &set),
                    (5..317).step_by(step).count()
                );
                assert_eq!((map.start(), map.end()), (other.start(), other.end()));
                assert_eq!(words, others);
            }
        }
    }

    #[test]
    fn ranges_set_each_bit() {
        for first in 0..130 {
            for nr in 1..70 {
                let mut words = [0u64; 4];
                let mut one_by_one = [0u64; 4];
                let mut map = RecordBitmap::new(&mut words, 7);

                map.set_range(7 + first, nr);
                assert_eq!((map.start(), map.end()), (first, first + nr));
                for bit in first..first + nr {
                    one_by_one[bit / BITS_PER_WORD] |= 1 << (bit % BITS_PER_WORD);
                }
                assert_eq!(words, one_by_one);
            }
        }
    }

    #[test]
    fn covers_is_exact() {
        let mut words = [0u64; 2];
        let map = RecordBitmap::new(&mut words, 64);

        for (first, nr, covered) in [
            (64, 128, true),
            (64, 129, false),
            (63, 1, false),
            (191, 1, true),
            (192, 1, false),
            (0, usize::MAX, false),
        ] {
            assert_eq!(
                PageRange::new(first, nr).map(|r| map.covers(&r)),
                Ok(covered)
            );
        }
    }
}
