// SPDX-License-Identifier: GPL-2.0

//! Where the pieces are, by looks at parts of the range.

use crate::range::PageRange;
use core::cmp;
use kernel::prelude::*;

/// Pages of the largest piece, and what the page offset of its end is a multiple of: 1 GiB.
///
/// `i_mmap_rwsem` is held for one piece at a time, and a call tells its progress in pieces.
pub const PIECE_PAGES: usize = 1 << 18;

/// The largest part that is searched at once.
const MAX_SEARCH_PAGES: usize = 1 << 62;

/// What [`next_piece`](super::next_piece) finds, with `find` for the look at the page tables: it
/// gives a page offset in its range where there is an entry, not always the first.
pub(super) fn search(
    range: &PageRange,
    done: usize,
    mut find: impl FnMut(&PageRange) -> Result<Option<usize>>,
) -> Result<Option<PageRange>> {
    let mut skip = done;
    let mut size = PIECE_PAGES;

    // Behind the range there is no part; of the sum the remainder alone matters.
    while let Some(part) = range.part(skip, size - range.first().wrapping_add(skip) % PIECE_PAGES) {
        let mut found = None;
        let mut before = Some(part);

        // Another mapping may have an entry before the one that was found.
        while let Some(rest) = before {
            let Some(at) = find(&rest)? else {
                break;
            };
            let start = cmp::max(at & !(PIECE_PAGES - 1), part.first());

            found = Some(start);
            before = part.part(0, start - part.first());
        }
        if let Some(start) = found {
            return Ok(range.part(start - range.first(), PIECE_PAGES - start % PIECE_PAGES));
        }
        skip += part.nr();
        size = cmp::min(size * 2, MAX_SEARCH_PAGES);
    }
    Ok(None)
}

/// What is left of `range` behind its first `done` pages, if it lies in one piece.
pub(super) fn last_piece(range: &PageRange, done: usize) -> Option<PageRange> {
    let rest = range.part(done, usize::MAX)?;

    (rest.nr() <= PIECE_PAGES - rest.first() % PIECE_PAGES).then_some(rest)
}

#[kunit_tests(mmops_dirty_pieces)]
mod tests {
    use super::*;

    #[test]
    fn last_piece_is_the_rest() {
        const G: usize = PIECE_PAGES;

        let of = |first, nr, done| {
            let range = PageRange::new(first, nr).ok()?;
            let piece = last_piece(&range, done)?;

            Some((piece.first(), piece.end()))
        };

        assert_eq!(of(G, G, 0), Some((G, 2 * G)));
        assert_eq!(of(G - 1, G, 0), None);
        assert_eq!(of(G - 1, G, 1), Some((G, 2 * G - 1)));
        assert_eq!(of(7, 64, 63), Some((70, 71)));
        assert_eq!(of(7, 64, 64), None);
        assert_eq!(of(0, usize::MAX, 0), None);
    }

    /// Looks for `entries` as a walk over VMAs in another order than that of their page offsets.
    fn any_of(entries: &[usize], part: &PageRange) -> Result<Option<usize>> {
        Ok(entries
            .iter()
            .copied()
            .find(|at| (part.first()..part.end()).contains(at)))
    }

    #[test]
    fn pieces_are_those_with_entries() {
        const G: usize = PIECE_PAGES;
        // The last first, as the interval tree may have them.
        let entries = [(1 << 32) - 7, 5 * G + 3, 5 * G + 9, 7 * G - 1, 100];
        let range = PageRange::new(50, (1 << 32) - 50);
        let mut looks = 0;
        let mut done = 0;
        let mut pieces = [(0, 0); 4];

        for piece in &mut pieces {
            let next = range.and_then(|range| {
                search(&range, done, |part| {
                    looks += 1;
                    any_of(&entries, part)
                })
            });

            if let Ok(Some(next)) = next {
                *piece = (next.first(), next.end());
                done = next.end() - 50;
            }
        }
        assert_eq!(
            pieces,
            [
                (50, G),
                (5 * G, 6 * G),
                (6 * G, 7 * G),
                ((1 << 32) - G, 1 << 32)
            ]
        );
        // 16384 pieces, of which three have entries.
        assert!(looks < 32);
        let end = range.and_then(|range| search(&range, done, |part| any_of(&entries, part)));
        assert_eq!(end, Ok(None));
    }

    #[test]
    fn search_of_all_page_offsets_ends() {
        let mut looks = 0;
        let mut seen = 0;
        let found = PageRange::new(1, usize::MAX - 1).and_then(|range| {
            search(&range, 0, |part| {
                looks += 1;
                seen += part.nr();
                Ok(None)
            })
        });

        assert_eq!(found, Ok(None));
        assert_eq!(seen, usize::MAX - 1);
        assert!(looks < 64);
    }

    #[test]
    fn behind_the_range_is_nothing() {
        for done in [1, 2, usize::MAX] {
            let found = PageRange::new(1, 1)
                .and_then(|range| search(&range, done, |part| Ok(Some(part.first()))));

            assert_eq!(found, Ok(None));
        }
    }

    #[test]
    fn search_gives_errors_on() {
        let found = PageRange::new(0, 1).and_then(|range| search(&range, 0, |_part| Err(EINTR)));

        assert_eq!(found, Err(EINTR));
    }
}
