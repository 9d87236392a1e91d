// SPDX-License-Identifier: GPL-2.0

//! A set of entries of one PTE table.

use crate::range::PMD_SIZE;
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

const BITS: usize = u64::BITS as usize;
const WORDS: usize = (PMD_SIZE >> PAGE_SHIFT) / BITS;

/// Entries that are looked at together before any is looked at alone.
pub(crate) const GROUP: usize = 8;

/// Indices of entries of one PTE table.
pub(crate) struct EntrySet([u64; WORDS]);

impl EntrySet {
    pub(crate) const EMPTY: Self = Self([0; WORDS]);

    /// Entries that [`Self::remove_runs`] asks for together.
    pub(crate) const RUN: usize = BITS;

    /// Adds an index. One that no table has stands for one that it has; no entry leads to it.
    #[inline(always)]
    pub(crate) fn insert(&mut self, i: usize) {
        // The remainder and not a check, which would cost for each entry and find nothing.
        self.0[i / BITS % WORDS] |= 1 << (i % BITS);
    }

    /// Adds the [`GROUP`] indices from `i` on, a multiple of that.
    #[inline(always)]
    pub(crate) fn insert_group(&mut self, i: usize) {
        const { assert!(BITS % GROUP == 0) };
        self.0[i / BITS % WORDS] |= ((1 << GROUP) - 1) << (i % BITS);
    }

    /// Removes an index; whether it was in the set.
    #[inline]
    pub(crate) fn remove(&mut self, i: usize) -> bool {
        let (word, bit) = (&mut self.0[i / BITS % WORDS], 1 << (i % BITS));
        let was_there = *word & bit != 0;

        *word &= !bit;
        was_there
    }

    /// The indices as bits.
    #[inline(always)]
    pub(crate) fn words(&self) -> &[u64] {
        &self.0
    }

    /// Removes each run of [`Self::RUN`] indices for which `f`, called with the first of them, says
    /// so. A run begins at a multiple of that, and all of its indices are in the set.
    #[inline(always)]
    pub(crate) fn remove_runs(&mut self, mut f: impl FnMut(usize) -> bool) {
        for (n, word) in self.0.iter_mut().enumerate() {
            if *word == u64::MAX && f(n * BITS) {
                *word = 0;
            }
        }
    }

    /// Keeps the indices for which `f` says so; they are asked for in rising order.
    pub(crate) fn retain(&mut self, mut f: impl FnMut(usize) -> bool) {
        for (n, word) in self.0.iter_mut().enumerate() {
            let mut left = *word;

            while left != 0 {
                if !f(n * BITS + left.trailing_zeros() as usize) {
                    *word &= !(left & left.wrapping_neg());
                }
                left &= left - 1;
            }
        }
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
            set.for_each(|i| {
                assert_eq!(i, next);
                next += step;
            });
            assert_eq!(next, 3 + (WORDS * BITS - 3).div_ceil(step) * step);
        }
    }

    #[test]
    fn a_group_is_its_entries() {
        for first in (0..WORDS * BITS).step_by(GROUP) {
            let (mut set, mut others) = (EntrySet::EMPTY, EntrySet::EMPTY);

            set.insert_group(first);
            for i in first..first + GROUP {
                others.insert(i);
            }
            assert_eq!(set.words(), others.words());
        }
    }

    #[test]
    fn retains_what_it_is_told() {
        let mut set = EntrySet::EMPTY;
        let mut next = 1;

        for i in (1..WORDS * BITS).step_by(3) {
            set.insert(i);
        }
        set.retain(|i| {
            assert_eq!(i, next);
            next += 3;
            i % 2 == 0
        });
        next = 4;
        set.for_each(|i| {
            assert_eq!(i, next);
            next += 6;
        });
        assert_eq!(next, 4 + (WORDS * BITS - 4).div_ceil(6) * 6);
    }

    #[test]
    fn removes_what_is_there() {
        let mut set = EntrySet::EMPTY;

        for i in [0, 63, 64, 511] {
            set.insert(i);
        }
        for (i, was_there) in [(63, true), (63, false), (62, false), (511, true)] {
            assert_eq!(set.remove(i), was_there);
        }
        assert_eq!(set.words()[..2], [1, 1]);
        assert_eq!(set.words()[2..], [0; WORDS - 2]);
    }

    #[test]
    fn removes_whole_runs_alone() {
        let mut set = EntrySet::EMPTY;
        let mut asked = 0;

        for i in BITS - 1..4 * BITS {
            set.insert(i);
        }
        set.remove_runs(|first| {
            asked += first;
            first != 2 * BITS
        });
        assert_eq!(asked, BITS + 2 * BITS + 3 * BITS);
        assert_eq!(set.words()[..4], [1 << (BITS - 1), 0, u64::MAX, 0]);
    }
}
