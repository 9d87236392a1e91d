// SPDX-License-Identifier: GPL-2.0

//! Pieces, by a set of the page offsets that have entries.

use super::search::{
    search,
    PIECE_PAGES, //
};
use crate::{
    given::check,
    range::PageRange, //
};
use kernel::prelude::EINTR;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Page offsets, many of which are in the same or in neighbouring pieces.
fn offset() -> impl Strategy<Value = usize> {
    let piece = prop_oneof![0..6usize, 0..1usize << 20, 0..1usize << 45];
    let within = prop_oneof![0..3usize, PIECE_PAGES - 3..PIECE_PAGES, 0..PIECE_PAGES];

    (piece, within).prop_map(|(piece, within)| piece * PIECE_PAGES + within)
}

/// Each piece has an entry, ends where it must, and what has an entry is in one.
#[test]
fn pieces_are_all_that_has_entries() {
    let entries = prop::collection::btree_set(offset(), 0..8);
    let range = (offset(), prop_oneof![1..3 * PIECE_PAGES, 1..1usize << 60]);

    check(
        20_000,
        (range, entries, any::<u64>()),
        |((first, nr), entries, mut choice)| {
            let range = PageRange::new(first, nr).expect("a range");
            let mut left: BTreeSet<usize> = entries.range(first..range.end()).copied().collect();
            let (mut done, mut looks, mut pieces) = (0, 0, 0);

            loop {
                // The mappings are looked at in any order.
                let found = search(&range, done, |part| {
                    let inside: Vec<_> = entries.range(part.first()..part.end()).collect();

                    looks += 1;
                    assert!(part.first() >= first + done && part.end() <= range.end());
                    choice = choice.wrapping_mul(6364136223846793005).wrapping_add(1);
                    Ok((!inside.is_empty())
                        .then(|| *inside[(choice >> 33) as usize % inside.len()]))
                });
                let Some(piece) = found.expect("no error") else {
                    break;
                };
                let next = left.pop_first().expect("no piece without an entry");
                let begin = (next / PIECE_PAGES * PIECE_PAGES).max(first + done);

                pieces += 1;
                prop_assert_eq!(piece.first(), begin);
                prop_assert_eq!(
                    piece.end(),
                    ((begin / PIECE_PAGES + 1) * PIECE_PAGES).min(range.end())
                );
                left.retain(|&entry| entry >= piece.end());
                done = piece.end() - first;
            }
            prop_assert!(left.is_empty(), "{:?} are in no piece", left);
            // Twice as much each time, and then half of it or less.
            prop_assert!(looks <= (pieces + 1) * 130, "{} looks", looks);
            Ok(())
        },
    );
}

/// An error of any look is that of the search.
#[test]
fn errors_end_the_search() {
    check(2_000, (1..1usize << 60, 0..20usize), |(nr, at)| {
        let range = PageRange::new(3, nr).expect("a range");
        let mut looks = 0;
        let found = search(&range, 0, |_part| {
            looks += 1;
            if looks > at {
                Err(EINTR)
            } else {
                Ok(None)
            }
        });

        prop_assert_eq!(found.is_err(), looks > at);
        prop_assert!(looks <= at + 1);
        Ok(())
    });
}
