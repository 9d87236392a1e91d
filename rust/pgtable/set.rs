// SPDX-License-Identifier: GPL-2.0

//! A set of entries of one PTE table.

use super::PMD_SIZE;
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

const BITS: usize = u64::BITS as usize;
const WORDS: usize = (PMD_SIZE >> PAGE_SHIFT) / BITS;

/// Indices of entries of one PTE table.
pub(crate) struct EntrySet([u64; WORDS]);

impl EntrySet {
    pub(crate) const EMPTY: Self = Self([0; WORDS]);

    /// Adds an index; one that no table has is ignored.
    #[inline(always)]
    pub(crate) fn insert(&mut self, i: usize) {
        if let Some(word) = self.0.get_mut(i / BITS) {
            *word |= 1 << (i % BITS);
        }
    }

    /// Number of indices.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Calls `f` with each index, in rising order.
    #[inline(always)]
    pub(crate) fn for_each(&self, mut f: impl FnMut(usize)) {
        for (n, &word) in self.0.iter().enumerate() {
            let mut left = word;

            while left != 0 {
                f(n * BITS + left.trailing_zeros() as usize);
                left &= left - 1;
            }
        }
    }
}

#[kunit_tests(mmops_entry_set)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_added() {
        for step in 1..130 {
            let mut set = EntrySet::EMPTY;
            let mut next = 3;

            for i in (3..WORDS * BITS).step_by(step) {
                set.insert(i);
            }
            set.insert(WORDS * BITS);
            assert_eq!(set.len(), (WORDS * BITS - 3).div_ceil(step));
            set.for_each(|i| {
                assert_eq!(i, next);
                next += step;
            });
            assert_eq!(next, 3 + set.len() * step);
        }
    }
}
