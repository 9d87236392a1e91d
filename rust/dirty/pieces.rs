// SPDX-License-Identifier: GPL-2.0

//! The pieces in which a range is walked.
//!
//! A range can be all of a sparse file, of which little is mapped, or a mapping of which little was
//! ever touched. So pieces are looked for: a walk that reads ends at the first present entry that
//! it meets, and a range without any costs the visit of its VMAs and of what they have of page
//! tables. What has no entry when it is looked at has nothing that was dirty or writable when the
//! call began.
//!
//! What is left of a range and lies in one piece is not looked for. If there is no entry in it,
//! secondary MMUs are told of it all the same, as by the C functions.

mod search;

use crate::{
    mapping::Mapping,
    partial::Pages,
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
use kernel::prelude::*;
use search::{
    last_piece,
    search, //
};

pub use search::PIECE_PAGES;

/// The next piece of `range`, at or behind its first `done` pages, in which page tables of shared
/// mappings have present entries. Between the two, and behind the last piece, is none.
///
/// Sleeps; takes `i_mmap_rwsem` for reading.
///
/// # Errors
///
/// `EDEADLK` as [`write_protect`](super::write_protect); `EINTR` if a fatal signal came.
pub fn next_piece(
    mapping: &mut Mapping,
    range: &PageRange,
    done: usize,
) -> Result<Option<PageRange>> {
    search(range, done, |part| first_entry(mapping, part))
}

/// Calls `f` for each piece of `range`. Returns how many pages are done with, and the error that
/// ended the work early: what `f` returned, or `EINTR` after a fatal signal.
pub(super) fn for_each(
    mapping: &mut Mapping,
    range: &PageRange,
    mut f: impl FnMut(&mut Mapping, &PageRange) -> Result,
) -> (Pages, Result) {
    let mut done = 0;

    loop {
        // The search costs as much as the walk over a piece, and is no help where that is the last.
        let next = match last_piece(range, done) {
            Some(piece) => signal::interruption().map(|()| Some(piece)),
            None => next_piece(mapping, range, done),
        };
        let piece = match next {
            Ok(Some(piece)) => piece,
            Ok(None) => return (Pages(range.nr()), Ok(())),
            Err(e) => return (Pages(done), Err(e)),
        };

        done = piece.first() - range.first();
        if let Err(e) = f(mapping, &piece) {
            return (Pages(done), Err(e));
        }
        done += piece.nr();
    }
}

/// The page offset of the first entry that a walk over `range` meets.
fn first_entry(mapping: &mut Mapping, range: &PageRange) -> Result<Option<usize>> {
    let mut first = FirstEntry(None);

    signal::interruption()?;
    match mapping.i_mmap_lock_read(|guard| walk_page_mapping(guard, range, &mut first)) {
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
