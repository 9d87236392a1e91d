// SPDX-License-Identifier: GPL-2.0

//! What a harvest is collected in.

use std::ops::Range;

/// One bit for each page of a window of a file, set where a dirty bit was taken.
///
/// All page numbers in the interface are page offsets in the file, not in the window.
#[derive(Clone, Debug)]
pub struct Bitmap {
    pgoff: u64,
    words: Vec<u64>,
    /// First set bit, and last set bit plus one; both 0 when no bit is set.
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Bitmap {
    /// An empty bitmap for at least `pages` pages from page offset `pgoff` on.
    pub fn new(pgoff: u64, pages: u64) -> Self {
        let words = usize::try_from(pages.div_ceil(64)).expect("a bitmap that fits in memory");
        Self {
            pgoff,
            words: vec![0; words],
            start: 0,
            end: 0,
        }
    }

    /// Page offset of the first bit.
    pub fn pgoff(&self) -> u64 {
        self.pgoff
    }

    /// Number of bits, a multiple of 64.
    pub fn bits(&self) -> u64 {
        self.words.len() as u64 * 64
    }

    /// The bits themselves: bit n is bit n % 64 of word n / 64.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Smallest range of page offsets that holds all set bits; empty when none is set.
    pub fn extent(&self) -> Range<u64> {
        self.pgoff + self.start..self.pgoff + self.end
    }

    /// Number of pages whose bit is set.
    pub fn count(&self) -> u64 {
        self.used().iter().map(|w| u64::from(w.count_ones())).sum()
    }

    /// Whether the bit of the page at page offset `page` is set.
    pub fn contains(&self, page: u64) -> bool {
        page.checked_sub(self.pgoff)
            .filter(|&bit| bit < self.bits())
            .is_some_and(|bit| self.words[(bit / 64) as usize] >> (bit % 64) & 1 == 1)
    }

    /// Sets the bit of the page at page offset `page`, which is in the window.
    pub fn set(&mut self, page: u64) {
        let bit = page
            .checked_sub(self.pgoff)
            .filter(|&bit| bit < self.bits());
        let bit = bit.expect("a page in the window");
        self.words[(bit / 64) as usize] |= 1 << (bit % 64);
        let empty = self.start >= self.end;
        self.start = if empty { bit } else { self.start.min(bit) };
        self.end = if empty {
            bit + 1
        } else {
            self.end.max(bit + 1)
        };
    }

    /// Clears all bits and moves the window to start at page offset `pgoff`.
    pub fn reset(&mut self, pgoff: u64) {
        let used = self.used_words();
        self.words[used].fill(0);
        self.pgoff = pgoff;
        self.start = 0;
        self.end = 0;
    }

    /// The set bits as ranges of page offsets, in order, each as long as possible.
    pub fn runs(&self) -> Runs<'_> {
        Runs {
            bitmap: self,
            next: self.start,
        }
    }

    fn used_words(&self) -> Range<usize> {
        (self.start / 64) as usize..self.end.div_ceil(64) as usize
    }

    fn used(&self) -> &[u64] {
        &self.words[self.used_words()]
    }

    /// First bit from `from` on, and before `end`, whose value is `value`; else `end`.
    fn find(&self, from: u64, value: bool) -> u64 {
        let mut bit = from;
        while bit < self.end {
            let word = self.words[(bit / 64) as usize];
            let candidates = (if value { word } else { !word }) & (u64::MAX << (bit % 64));
            if candidates != 0 {
                return (bit / 64 * 64 + u64::from(candidates.trailing_zeros())).min(self.end);
            }
            bit = (bit / 64 + 1) * 64;
        }
        self.end
    }
}

/// Iterator of [`Bitmap::runs`].
#[derive(Debug)]
pub struct Runs<'a> {
    bitmap: &'a Bitmap,
    next: u64,
}

impl Iterator for Runs<'_> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        let start = self.bitmap.find(self.next, true);
        if start >= self.bitmap.end {
            return None;
        }
        let end = self.bitmap.find(start, false);
        self.next = end;
        Some(self.bitmap.pgoff + start..self.bitmap.pgoff + end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pgoff: u64, pages: u64, set: &[u64]) -> Bitmap {
        let mut b = Bitmap::new(pgoff, pages);
        for &bit in set {
            b.set(pgoff + bit);
        }
        b
    }

    #[test]
    fn size_is_a_multiple_of_64() {
        assert_eq!(Bitmap::new(0, 0).bits(), 0);
        assert_eq!(Bitmap::new(0, 1).bits(), 64);
        assert_eq!(Bitmap::new(0, 64).bits(), 64);
        assert_eq!(Bitmap::new(7, 65).bits(), 128);
    }

    #[test]
    fn runs_are_page_offsets_and_maximal() {
        assert_eq!(with(10, 200, &[]).runs().count(), 0);
        let b = with(10, 200, &[0, 1, 5, 63, 64, 65, 191]);
        let runs: Vec<_> = b.runs().collect();
        assert_eq!(runs, [10..12, 15..16, 73..76, 201..202]);
        assert_eq!(b.count(), 7);
        assert_eq!(b.extent(), 10..202);
    }

    #[test]
    fn runs_of_whole_words() {
        let runs = |range: Range<u64>| {
            let set: Vec<u64> = range.collect();
            with(0, 192, &set).runs().collect::<Vec<_>>()
        };
        for range in [0..192, 64..128, 128..192, 63..65] {
            assert_eq!(runs(range.clone()), std::slice::from_ref(&range));
        }
    }

    #[test]
    fn runs_agree_with_contains() {
        // A fixed sequence of a linear congruential generator: any layout will do.
        let mut state = 12345_u64;
        for _ in 0..50 {
            let mut set = Vec::new();
            for bit in 0..500 {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                if state >> 62 == 0 {
                    set.push(bit);
                }
            }
            let b = with(1000, 500, &set);
            let from_runs: Vec<u64> = b.runs().flatten().collect();
            let expected: Vec<u64> = set.iter().map(|bit| bit + 1000).collect();
            assert_eq!(from_runs, expected);
            assert!(expected.iter().all(|&page| b.contains(page)));
            assert_eq!(b.count(), set.len() as u64);
        }
    }

    #[test]
    fn reset_leaves_nothing() {
        let mut b = with(0, 256, &[3, 200]);
        b.reset(77);
        assert_eq!((b.count(), b.pgoff(), b.extent()), (0, 77, 77..77));
        assert!(b.words().iter().all(|&w| w == 0));
        assert!(!b.contains(76) && !b.contains(77 + 256));
    }
}
