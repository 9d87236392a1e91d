// SPDX-License-Identifier: GPL-2.0

//! The bitmap, by a set of page offsets.

use crate::{
    bitmap::{
        RecordBitmap,
        BITS_PER_WORD, //
    },
    given::{
        check,
        edgy, //
    },
    range::PageRange, //
};
use proptest::prelude::*;
use std::collections::BTreeSet;

const WORDS: usize = 5;
const BITS: usize = WORDS * BITS_PER_WORD;

/// What is done to it; offsets are relative to that of bit 0.
#[derive(Clone, Debug)]
enum Op {
    Set(i64),
    SetRange(i64, usize),
    SetWords(usize, Vec<u64>),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let bits = BITS as i64;
    let near = -70..bits + 70;
    // Few bits, many, and none.
    let word = prop_oneof![
        Just(0),
        Just(u64::MAX),
        any::<u64>(),
        (0..64u32).prop_map(|bit| 1 << bit)
    ];
    let op = prop_oneof![
        near.clone().prop_map(Op::Set),
        (near, 0..BITS + 200).prop_map(|(at, nr)| Op::SetRange(at, nr)),
        (0..BITS + 70, prop::collection::vec(word, 0..WORDS + 2))
            .prop_map(|(at, words)| Op::SetWords(at, words)),
    ];

    prop::collection::vec(op, 1..12)
}

/// Where bit 0 is: anywhere, and at both ends of all page offsets.
fn origin() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..100usize,
        (0..100usize).prop_map(|less| usize::MAX - BITS - less),
        1000..1usize << 52,
    ]
}

#[test]
fn bits_are_those_of_a_set() {
    let known = (0..BITS, 0..BITS);

    check(20_000, (origin(), known, ops()), |(pgoff, known, ops)| {
        let mut words = [0u64; WORDS];
        let mut map = RecordBitmap::with_known(&mut words, pgoff, known.0, known.1);
        // Bits as whole numbers, so that nothing wraps.
        let mut set = BTreeSet::new();

        for op in ops {
            // A page offset below 0 is none.
            let exists = |at: i64| (pgoff as i128 + i128::from(at)) >= 0;

            match op {
                Op::Set(at) if exists(at) => {
                    map.set(pgoff.wrapping_add_signed(at as isize));
                    set.insert(at);
                }
                Op::SetRange(at, nr) if exists(at) => {
                    map.set_range(pgoff.wrapping_add_signed(at as isize), nr);
                    set.extend(at..at + nr as i64);
                }
                Op::SetWords(at, bits) => {
                    let count = map.set_words(pgoff.saturating_add(at), &bits);
                    let each = bits.iter().enumerate().flat_map(|(n, word)| {
                        (0..BITS_PER_WORD)
                            .filter(move |bit| word >> bit & 1 != 0)
                            .map(move |bit| (at + n * BITS_PER_WORD + bit) as i64)
                    });
                    let each: Vec<_> = each.collect();

                    prop_assert_eq!(count, each.len());
                    set.extend(each);
                }
                _ => {}
            }
        }
        set.retain(|bit| (0..BITS as i64).contains(bit));

        let mut hull = (known.0 < known.1).then_some(known);
        if let (Some(&first), Some(&last)) = (set.first(), set.last()) {
            let found = (first as usize, last as usize + 1);
            hull = Some(hull.map_or(found, |(start, end)| (start.min(found.0), end.max(found.1))));
        }
        let told = (map.start() < map.end()).then_some((map.start(), map.end()));
        prop_assert_eq!(told, hull);
        prop_assert_eq!(map.pgoff(), pgoff);
        for bit in 0..BITS {
            let is_set = words[bit / BITS_PER_WORD] >> (bit % BITS_PER_WORD) & 1 != 0;
            prop_assert_eq!(is_set, set.contains(&(bit as i64)), "bit {}", bit);
        }
        Ok(())
    });
}

#[test]
fn covered_are_the_ranges_with_a_bit_for_each_page() {
    check(
        20_000,
        (edgy(), edgy(), edgy(), 0..4usize),
        |(pgoff, first, nr, words)| {
            let mut words = vec![0u64; words];
            let end = pgoff as u128 + (words.len() * BITS_PER_WORD) as u128;
            let map = RecordBitmap::new(&mut words, pgoff);

            if let Ok(range) = PageRange::new(first, nr) {
                prop_assert_eq!(
                    map.covers(&range),
                    first >= pgoff && first as u128 + nr as u128 <= end
                );
            }
            Ok(())
        },
    );
}
