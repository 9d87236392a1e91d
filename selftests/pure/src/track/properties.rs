// SPDX-License-Identifier: GPL-2.0

//! Bits for pages, by a set of pages.

use super::bits::{
    Bits,
    Pages, //
};
use crate::given::check;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Op {
    Set(usize, usize),
    SetWords(usize, Vec<u64>),
    Take,
    Copy,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let word = prop_oneof![Just(0), Just(u64::MAX), any::<u64>()];
    let op = prop_oneof![
        4 => (0..700usize, 1..300usize).prop_map(|(first, nr)| Op::Set(first, first + nr)),
        2 => (0..10usize, prop::collection::vec(word, 0..8))
            .prop_map(|(word, words)| Op::SetWords(word * 64, words)),
        1 => Just(Op::Take),
        1 => Just(Op::Copy),
    ];

    prop::collection::vec(op, 1..16)
}

/// The pages of a bitmap whose bit 0 is page `base`.
fn pages_of(base: usize, words: &[u64]) -> BTreeSet<usize> {
    (0..words.len() * 64)
        .filter(|bit| words[bit / 64] >> (bit % 64) & 1 != 0)
        .map(|bit| base + bit)
        .collect()
}

#[test]
fn bits_are_those_of_a_set() {
    let range = (0..500usize, 1..300usize, any::<bool>());

    check(10_000, (range, ops()), |((first, nr, is_set), ops)| {
        let range = Pages {
            first,
            end: first + nr,
        };
        let bits = Bits::new(&range, is_set).expect("memory");
        let base = first / 64 * 64;
        let behind = base + range.words() * 64;
        let mut model = BTreeSet::new();

        prop_assert_eq!(range.base(), base);
        prop_assert!(behind >= range.end && behind < range.end + 64);
        if is_set {
            model.extend(first..first + nr);
        }
        for op in ops {
            match op {
                // Whole words are kept, so a page beside the range may be in them.
                Op::Set(first, end) => {
                    bits.set(&Pages { first, end });
                    model.extend(first.max(base)..end.min(behind).max(base));
                }
                Op::SetWords(at, words) => {
                    bits.set_words(at, &words);
                    model.extend(pages_of(at, &words).range(base..behind.max(base)));
                }
                Op::Take | Op::Copy => {
                    let mut words = vec![0; range.words()];

                    if matches!(op, Op::Take) {
                        bits.take(&mut words);
                    } else {
                        bits.copy(&mut words);
                    }
                    prop_assert_eq!(pages_of(base, &words), model.clone());
                    if matches!(op, Op::Take) {
                        model.clear();
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn parts_are_what_both_have() {
    let pages = || (0..50usize, 1..50usize);

    check(10_000, (pages(), pages()), |(one, other)| {
        let [one, other] = [one, other].map(|(first, nr)| Pages {
            first,
            end: first + nr,
        });
        let both: Vec<_> = (one.first..one.end)
            .filter(|page| (other.first..other.end).contains(page))
            .collect();
        let within = one
            .within(&other)
            .map_or(vec![], |part| (part.first..part.end).collect());

        prop_assert_eq!(within, both);
        Ok(())
    });
}
