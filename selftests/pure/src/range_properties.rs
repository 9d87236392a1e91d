// SPDX-License-Identifier: GPL-2.0

//! Ranges, by numbers that do not overflow.

use crate::{
    given::{
        check,
        edgy, //
    },
    range::{
        AddrRange,
        PageRange,
        Span, //
    }, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::EINVAL, //
};
use proptest::prelude::*;

const MAX: u128 = usize::MAX as u128;

/// All numbers at both ends.
fn ends() -> impl Iterator<Item = usize> + Clone {
    (0..8).chain(usize::MAX - 7..=usize::MAX)
}

fn is_range(first: usize, nr: usize) -> bool {
    nr != 0 && first as u128 + nr as u128 <= MAX
}

#[test]
fn page_ranges_are_those_that_exist() {
    check(20_000, (edgy(), edgy()), |(first, nr)| {
        match PageRange::new(first, nr) {
            Ok(range) => {
                prop_assert!(is_range(first, nr));
                prop_assert_eq!((range.first(), range.nr()), (first, nr));
                prop_assert_eq!(range.end() as u128, first as u128 + nr as u128);
            }
            Err(error) => {
                prop_assert!(!is_range(first, nr));
                prop_assert_eq!(error, EINVAL);
            }
        }
        Ok(())
    });
}

/// All ranges with both numbers at an end, in all others.
#[test]
fn page_ranges_at_the_ends() {
    let mut both = [0u32; 2];

    for (first, nr) in ends().flat_map(|first| ends().map(move |nr| (first, nr))) {
        let Ok(range) = PageRange::new(first, nr) else {
            assert!(!is_range(first, nr));
            continue;
        };

        assert!(is_range(first, nr));
        for (start, len) in ends().flat_map(|start| ends().map(move |len| (start, len))) {
            let is_within =
                first >= start && first as u128 + nr as u128 <= start as u128 + len as u128;

            assert_eq!(range.is_within(start, len), is_within);
            both[usize::from(is_within)] += 1;
        }
    }
    assert!(both.iter().all(|&nr| nr > 500), "{both:?}");
}

#[test]
fn parts_are_cut_out() {
    check(
        20_000,
        (edgy(), edgy(), edgy(), edgy()),
        |(first, nr, skip, max)| {
            let Ok(range) = PageRange::new(first, nr) else {
                return Ok(());
            };
            let start = first as u128 + skip as u128;
            let end = (first as u128 + nr as u128).min(start + max as u128);
            let part = range
                .part(skip, max)
                .map(|part| (part.first() as u128, part.end() as u128));

            prop_assert_eq!(part, (start < end).then_some((start, end)));
            Ok(())
        },
    );
}

#[test]
fn address_ranges_are_those_that_exist() {
    let addr = || prop_oneof![edgy(), edgy().prop_map(|n| n & !(PAGE_SIZE - 1))];

    check(
        20_000,
        (addr(), addr(), addr(), addr()),
        |(start, end, from, to)| {
            let size = PAGE_SIZE;
            let range = AddrRange::new(start, end);

            prop_assert_eq!(
                range.is_ok(),
                start < end && start % size == 0 && end % size == 0
            );
            let (Ok(range), Ok(other)) = (range, AddrRange::new(from, to)) else {
                return Ok(());
            };
            prop_assert_eq!((range.start(), range.end()), (start, end));
            prop_assert_eq!(range.nr_pages() * size, end - start);
            prop_assert_eq!(
                range.is_within(&other),
                (from..to).contains(&start) && (from..to).contains(&(end - 1))
            );
            Ok(())
        },
    );
}

#[test]
fn spans_are_tight() {
    let added = prop::collection::vec((edgy(), 1..1usize << 31), 0..8);

    check(10_000, added, |added| {
        let mut span = Span::EMPTY;

        for &(addr, size) in &added {
            span.add(addr, size);
        }
        let first = added.iter().map(|&(addr, _)| addr).min();
        let end = added
            .iter()
            .map(|&(addr, size)| (addr as u128 + size as u128).min(MAX) as usize)
            .max();
        // The last byte of all has no address behind it.
        let expected = first.zip(end).filter(|(first, end)| first < end);

        prop_assert_eq!(span.take(), expected);
        prop_assert_eq!(span.take(), None);
        Ok(())
    });
}
