// SPDX-License-Identifier: GPL-2.0

//! Making the memory of a process old, and counting what was young.
//!
//! [`age`] clears accessed bits. What is young at the next call was accessed in between, or mapped
//! anew: the kernel makes an entry young when it maps a page, that of a neighbour of the one that
//! faulted included (fault-around), or when a migration ends.
//!
//! # Rules
//!
//! - Every access that begins after the call sets the bit again. A CPU sets it only when it loads a
//!   translation, so what it holds of the old ones is flushed before the call returns: of entries
//!   that were old before, too, since `/proc/PID/clear_refs`, reclaim and DAMON make them so
//!   without a flush. The next call finds the bit, unless one of these or another call took it
//!   before, or the entry is gone.
//! - The device of a secondary MMU sets no bit here. Subscribers are told of
//!   `Event::ProtectionPage`, so that a device has to look its pages up again, by which they become
//!   young.
//! - Nothing but the accessed bit changes, and it comes from the atomic exchange that replaced the
//!   entry: a dirty bit that a CPU sets meanwhile stays.
//!
//! Source: `clear_refs_write()`, `damon_ptep_mkold()`.
//!
//! # Entries
//!
//! | entry                           | what is done                                               |
//! |---------------------------------|------------------------------------------------------------|
//! | present, of a page or special   | made old, counted if it was young                          |
//! | PMD or PUD leaf, whole          | the same, for all of its base pages                        |
//! | PMD or PUD leaf, in part        | stays, since its one bit is that of other pages, too       |
//! | not present                     | stays; a page that was young when it was taken for a       |
//! |                                 | migration is young again when that has ended               |
//!
//! hugetlbfs is left out, as from every walk. Reclaim takes what is old for less used than it is.

use crate::{
    mm::MmapRead,
    notifier::ChangeEvent,
    partial::{
        Bytes,
        Partial, //
    },
    pgtable::{
        Entry,
        HugeLevel,
        Leaf,
        Pte,
        PteTable, //
    },
    range::AddrRange,
    signal,
    tlb::FlushScope,
    walk::{
        walk_page_range,
        Action,
        Unlocked,
        Walk, //
    }, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// What [`age`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aged {
    /// Base pages whose leaf was young, and is old now.
    pub aged: usize,
    /// Base pages of the range whose leaf is young still, since the range covers it in part.
    pub kept: usize,
}

/// Clears the accessed bits of all leaves in `range`, and counts those that were set. Holes are
/// passed over.
///
/// Sleeps. The guard holds the mmap lock. Secondary MMUs see `Event::ProtectionPage`, once for each
/// VMA. A fatal signal ends the call early, which [`Partial::stopped`] tells.
///
/// # Errors
///
/// None that says something of the range: what it does not map is old.
///
/// Source: `clear_refs_write()`.
pub fn age(guard: &mut MmapRead<'_>, range: &AddrRange) -> Result<Partial<Aged>> {
    let mut walker = Ager {
        result: Aged::default(),
        reached: range.start(),
    };
    let ret = walk_page_range(guard, range, &mut walker);

    if ret.is_ok() {
        walker.reached = range.end();
    }

    let done = Bytes(walker.reached - range.start());

    Ok(Partial::new(walker.result, done, ret))
}

struct Ager {
    result: Aged,
    /// Address up to which everything is done.
    reached: usize,
}

impl Walk for Ager {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn checkpoint(&mut self, _nr: usize, _scope: &mut Unlocked<'_, '_, Self>) -> Result {
        signal::pending()
    }

    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        self.result.aged += age_table(table, scope);
        self.reached = table.addr() + (table.nr() << PAGE_SHIFT);
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        let nr = leaf.pages()?.nr();

        if !leaf.is_partial() {
            if leaf.mkold(scope).is_some_and(Entry::young) {
                self.result.aged += nr;
            }
        } else if !leaf.is_softleaf() {
            if leaf.value().young() {
                self.result.kept += nr;
            } else {
                // As for entries of a table: who made it old may not have flushed.
                leaf.record(scope);
            }
        }
        self.reached = leaf.end();
        Ok(Action::Done)
    }
}

/// Makes the young entries of a table old, and returns their number.
#[inline(never)]
fn age_table<'s>(table: &mut PteTable<'_, 's>, scope: &mut FlushScope<'s>) -> usize {
    let mut aged = 0;

    // Those that are old already, too: who made them so may not have flushed.
    table.record_present(scope);
    table.for_each_selected(scope, Pte::young, |_, pte| {
        aged += usize::from(pte.mkold().young());
    });
    aged
}
