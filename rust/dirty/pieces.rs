// SPDX-License-Identifier: GPL-2.0

//! The pieces in which a range is walked.
//!
//! A range can be all of a sparse file, of which little is mapped, or a mapping of which little was
//! ever touched. So each piece is looked for: a walk that reads ends at the first present
//! entry that it meets, and a range without any costs the visit of its VMAs and of what they have
//! of page tables. What has no entry when it is looked at has nothing that was dirty or writable
//! when the call began.

use crate::{
    mapping::Mapping,
    pgtable::{
        HugeLevel,
        Leaf,
        PteTable, //
    },
    range::PageRange,
    signal,
    vma::Vma,
    walk::{
        walk_page_mapping,
        Action,
        Unlocked,
        Walk, //
    }, //
};
use core::cmp;
use kernel::prelude::*;

/// Pages of the largest piece, and what the page offset of its end is a multiple of: 1 GiB.
///
/// `i_mmap_rwsem` is held for one piece at a time, and a call tells its progress in pieces.
pub const PIECE_PAGES: usize = 1 << 18;

/// The largest part that is searched at once.
const MAX_SEARCH_PAGES: usize = 1 << 62;

/// The next piece of `range`, at or behind its first `done` pages, in which page tables of shared
/// mappings have present entries. Between the two, and behind the last piece, is none.
///
/// Sleeps; takes `i_mmap_rwsem` for reading.
///
/// # Errors
///
/// `EINTR` if a fatal signal came.
pub fn next_piece(
    mapping: &mut Mapping,
    range: &PageRange,
    done: usize,
) -> Result<Option<PageRange>> {
    search(range, done, |part| first_entry(mapping, part))
}

/// Calls `f` for each piece of `range`. Returns the number of pages that are done with, and the
/// error that ended the work early: what `f` returned, or `EINTR` after a fatal signal.
pub(super) fn for_each(
    mapping: &mut Mapping,
    range: &PageRange,
    mut f: impl FnMut(&mut Mapping, &PageRange) -> Result,
) -> (usize, Option<Error>) {
    let mut done = 0;

    loop {
        let piece = match next_piece(mapping, range, done) {
            Ok(Some(piece)) => piece,
            Ok(None) => return (range.nr(), None),
            Err(e) => return (done, Some(e)),
        };

        done = piece.first() - range.first();
        if let Err(e) = f(mapping, &piece) {
            return (done, Some(e));
        }
        done += piece.nr();
    }
}

/// [`next_piece`], with `find` for the look at the page tables: it gives a page offset in its range
/// where there is an entry, not always the first.
fn search(
    range: &PageRange,
    done: usize,
    mut find: impl FnMut(&PageRange) -> Result<Option<usize>>,
) -> Result<Option<PageRange>> {
    let mut skip = done;
    let mut size = PIECE_PAGES;

    while let Some(part) = range.part(skip, size - (range.first() + skip) % PIECE_PAGES) {
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

/// The page offset of the first entry that a walk over `range` meets.
fn first_entry(mapping: &mut Mapping, range: &PageRange) -> Result<Option<usize>> {
    let mut first = FirstEntry(None);

    signal::interruption()?;
    match walk_page_mapping(&mut mapping.i_mmap_lock_read(), range, &mut first) {
        Err(e) if first.0.is_none() => Err(e),
        _ => Ok(first.0),
    }
}

struct FirstEntry(Option<usize>);

impl FirstEntry {
    /// Ends the walk; the error is not seen by anyone.
    fn found(&mut self, pgoff: usize) -> Result<Action> {
        self.0 = Some(pgoff);
        Err(ECANCELED)
    }
}

impl Walk for FirstEntry {
    type Hold<'s> = ();

    fn test_vma(&mut self, vma: Vma<'_>) -> bool {
        vma.is_shared_maywrite()
    }

    fn checkpoint(&mut self, _nr: usize, _hold: &mut Unlocked<'_, '_, Self>) -> Result {
        signal::pending()
    }

    fn pte_table<'s>(&mut self, table: &mut PteTable<'_, 's>, (): &mut ()) -> Result<Action> {
        let mut first = None;

        // A table that is there can be empty, in the range of the walk or as a whole.
        table.for_each(|addr, pte| {
            if first.is_none() && pte.present() {
                first = Some(table.vma().pgoff_of(addr));
            }
        });
        first.map_or(Ok(Action::Done), |pgoff| self.found(pgoff))
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        (): &mut (),
    ) -> Result<Action> {
        if leaf.is_softleaf() {
            return Ok(Action::Done);
        }
        self.found(leaf.pages()?.first())
    }
}

#[kunit_tests(mmops_dirty_pieces)]
mod tests {
    use super::*;

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
    fn search_gives_errors_on() {
        let found = PageRange::new(0, 1).and_then(|range| search(&range, 0, |_part| Err(EINTR)));

        assert_eq!(found, Err(EINTR));
    }
}
