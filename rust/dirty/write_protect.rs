// SPDX-License-Identifier: GPL-2.0

//! The walk that write-protects.

use super::clean_record::tell_stored;
use crate::{
    filemap,
    notifier::ChangeEvent,
    pgtable::{
        EntrySet,
        Groups,
        HugeLevel,
        Leaf,
        PteTable, //
    },
    signal,
    tlb::FlushScope,
    vma::Vma,
    walk::{
        Action,
        SpareTable,
        SpareTables,
        Unlocked,
        Walk, //
    }, //
};
use kernel::prelude::*;

pub(super) struct WriteProtect {
    pub(super) changed: usize,
    pub(super) tables: SpareTables,
    /// For leaves of page frames.
    pub(super) frame_tables: SpareTables,
}

impl WriteProtect {
    /// A table for a leaf of page frames, which is protected in base pages or not at all.
    fn frame_table(&mut self, vma: Vma<'_>) -> Result<SpareTable> {
        self.frame_tables.take_for(vma)?.ok_or(ENOMEM)
    }
}

impl Walk for WriteProtect {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn test_vma(&mut self, vma: Vma<'_>) -> bool {
        vma.is_shared_maywrite()
    }

    fn checkpoint(&mut self, _nr: usize, _scope: &mut Unlocked<'_, '_, Self>) -> Result {
        signal::pending()
    }

    #[inline(always)]
    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        if filemap::is_watched() {
            tell_writable(table);
        }
        self.changed += write_protect_table(table, scope);
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        let value = leaf.value();

        if leaf.is_softleaf() {
            return Ok(Action::Done);
        }
        if value.special() && value.write() && leaf.vma().is_pfn_map() {
            return Ok(Action::Replace(self.frame_table(leaf.vma())?));
        }
        if leaf.can_split() {
            if let Some(table) = self.tables.take_for(leaf.vma())? {
                return Ok(Action::Replace(table));
            }
        }
        if value.write() && leaf.wrprotect(scope).is_some_and(|old| old.write()) {
            leaf.tell_stored();
            self.changed += leaf.pages()?.nr();
        }
        Ok(Action::Done)
    }
}

/// Takes the write permission from all entries of a table, and returns those that had it; trackers
/// of the file are told of them, who would not find it any more. With `groups`, as
/// [`PteTable::scan`] has found them under the same hold of the lock, others are not looked at.
///
/// A change of an entry is a full barrier: who looks a page up without a lock and pins it looks at
/// the entry again after that, and is seen by who asks for pins after this.
#[must_use = "who tracks the pages in mode full has to know of them"]
#[inline(never)]
pub(crate) fn take_write<'s>(
    table: &mut PteTable<'_, 's>,
    groups: Option<Groups>,
    scope: &mut FlushScope<'s>,
) -> EntrySet {
    let mut writable = EntrySet::EMPTY;

    table.for_each_of(
        groups,
        scope,
        |pte| pte.write(),
        |i, entry| {
            entry.wrprotect();
            writable.insert(i);
        },
    );
    if filemap::is_watched() {
        tell_stored(table, &writable);
    }
    writable
}

/// Tells trackers of the file which pages could be stored to without a fault: one in mode full
/// would find that in the entries, which are about to lose it.
#[cold]
#[inline(never)]
fn tell_writable(table: &PteTable<'_, '_>) {
    let (mut i, mut writable) = (0, EntrySet::EMPTY);

    table.for_each(|_, pte| {
        if pte.write() {
            writable.insert(i);
        }
        i += 1;
    });
    tell_stored(table, &writable);
}

/// The loop over one PTE table; a function of its own so that a test finds it in the module.
#[inline(never)]
fn write_protect_table<'s>(table: &mut PteTable<'_, 's>, scope: &mut FlushScope<'s>) -> usize {
    let mut changed = 0usize;

    table.for_each_selected(
        scope,
        |pte| pte.rw(),
        |_, entry| {
            entry.wrprotect();
            // There are 512 entries: the check of an overflow would cost and find nothing.
            changed = changed.wrapping_add(1);
        },
    );
    changed
}
