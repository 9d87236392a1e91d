// SPDX-License-Identifier: GPL-2.0

//! The walk that takes dirty bits, records them, and queues the folios that owe a mark.

use super::Transfer;
use crate::{
    bitmap::RecordBitmap,
    filemap,
    folio::DirtyQueue,
    notifier::ChangeEvent,
    pgtable::{
        EntrySet,
        Groups,
        HugeLevel,
        Leaf,
        Pte,
        PteTable,
        TakenLeaf, //
    },
    range::{
        PageRange,
        PMD_SIZE, //
    },
    signal,
    tlb::FlushScope,
    vma::Vma,
    walk::{
        Action,
        SpareTables,
        Unlocked,
        Walk, //
    }, //
};
use core::cmp;
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// Folios that wait for the TLB flush at the most. One flush serves as many pages, and the queue
/// stays a small allocation.
pub(crate) const QUEUE_FOLIOS: usize = 4096;

/// Dirty entries of one PTE table from which on the TLB is flushed before its lock is released.
const FLUSH_LOCKED: usize = 128;

pub(super) struct CleanRecord<'b, 'w> {
    pub(super) changed: usize,
    /// Base pages of dirty leaves that stay dirty, since the range covers them in part. A walk that
    /// is begun again finds them again.
    pub(super) kept: usize,
    pub(super) bitmap: &'b mut RecordBitmap<'w>,
    pub(super) tables: SpareTables,
    /// For leaves of page frames that a piece, or the range, covers in part.
    pub(super) frame_tables: SpareTables,
    pub(super) transfer: Transfer,
    /// The TLB is flushed before the lock of anything that was dirty is released.
    pub(super) flush_locked: bool,
    pub(super) queue: DirtyQueue,
}

/// Flushes and marks what waits in `queue`, if the next `nr` pages may find no room in it.
///
/// # Errors
///
/// `EAGAIN` if there is none even then: the walk has to end, and [`DirtyQueue::transfer`] to come.
pub(crate) fn make_room<'s, W: Walk<Hold<'s> = FlushScope<'s>>>(
    queue: &mut DirtyQueue,
    nr: usize,
    scope: &mut Unlocked<'_, 's, W>,
) -> Result {
    // A PTE table needs a place for each entry, a huge leaf needs one.
    let nr = cmp::min(nr, PMD_SIZE >> PAGE_SHIFT);

    if queue.room() >= nr {
        return Ok(());
    }

    if crate::faults::transfer_before_flush() {
        queue.transfer_trylock();
    }

    scope.flush();
    queue.transfer_trylock();
    if queue.room() >= nr {
        Ok(())
    } else {
        Err(EAGAIN)
    }
}

impl Walk for CleanRecord<'_, '_> {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn test_vma(&mut self, vma: Vma<'_>) -> bool {
        vma.is_shared_maywrite()
    }

    fn checkpoint(&mut self, nr: usize, scope: &mut Unlocked<'_, '_, Self>) -> Result {
        signal::pending()?;
        match self.transfer {
            Transfer::ToFolio => make_room(&mut self.queue, nr, scope),
            Transfer::Skip => Ok(()),
        }
    }

    #[inline(always)]
    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        self.changed += match self.transfer {
            Transfer::ToFolio => {
                let first = table.pgoff();

                clean_record_table_queue(table, scope, self.bitmap, first, &mut self.queue).changed
            }
            Transfer::Skip => clean_record_table(table, scope, self.bitmap, self.flush_locked),
        };
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
        if leaf.can_split() {
            if let Some(table) = self.tables.take_for(leaf.vma())? {
                return Ok(Action::Replace(table));
            }
        }
        if value.dirty() && value.special() && leaf.vma().is_pfn_map() && leaf.is_partial() {
            if let Some(table) = self.frame_tables.take_for(leaf.vma())? {
                return Ok(Action::Replace(table));
            }
        }
        if leaf.is_pinned() {
            self.record_pinned(leaf.pages()?);
            if value.write() {
                leaf.redirty();
            }
        } else if value.dirty() {
            let (pages, is_partial) = (leaf.pages()?, leaf.is_partial());

            // SAFETY: The bitmap records the pages, and the queue the folio, unless the caller of
            // `clean_record` said that it writes the data back itself.
            if !self.record_leaf(pages, is_partial, || unsafe { leaf.clean(scope) }) {
                leaf.redirty();
            }
        }
        if self.flush_locked {
            scope.flush_locked();
        }
        Ok(Action::Done)
    }
}

impl CleanRecord<'_, '_> {
    /// Records a dirty huge leaf. `take` takes its dirty bit, and gives the page frame that owes a
    /// dirty mark if there is one. False if the bit has to go back, since nobody can be found who
    /// will mark the folio.
    ///
    /// A leaf that the range covers only in part keeps its dirty bit, since there are no bits for
    /// the rest of it in the bitmap: its pages inside are recorded, and will be again.
    #[must_use = "the dirty bit is lost unless it goes back"]
    fn record_leaf(
        &mut self,
        pages: PageRange,
        is_partial: bool,
        take: impl FnOnce() -> Option<TakenLeaf>,
    ) -> bool {
        let mut noted = true;

        if is_partial {
            self.kept += pages.nr();
        } else {
            let Some(taken) = take() else {
                return true;
            };

            if self.transfer == Transfer::ToFolio && !taken.special {
                // SAFETY: The leaf is present and not special, the bit was taken from it, and its
                // lock is held. The scope flushes before the queue, which outlives the walk, is
                // transferred.
                noted = unsafe { self.queue.push(taken.pfn, false) };
            }
            if noted {
                self.changed += pages.nr();
            }
        }
        self.bitmap.set_range(pages.first(), pages.nr());
        noted
    }

    /// Records a huge leaf that is pinned: as [`keep_pinned`].
    fn record_pinned(&mut self, pages: PageRange) {
        self.bitmap.set_range(pages.first(), pages.nr());
    }
}

/// What became of one PTE table.
pub(crate) struct Cleaned {
    /// Number of entries that were dirty, and are clean.
    pub(crate) changed: usize,
    /// Those that are pinned, if memory of the process was ever pinned.
    pub(crate) pinned: Option<EntrySet>,
}

/// Cleans the entries of one PTE table that `select` chooses, dirty ones, and sets their bits in
/// `bitmap`, where `first` is that of the first entry. Returns those that are clean now as well.
#[inline(always)]
fn clean_record_entries<'s>(
    table: &mut PteTable<'_, 's>,
    groups: Option<Groups>,
    select: impl Fn(Pte) -> bool,
    scope: &mut FlushScope<'s>,
    bitmap: &mut RecordBitmap<'_>,
    first: usize,
) -> (EntrySet, Cleaned) {
    let mut taken = EntrySet::EMPTY;
    let mut pinned = None;

    table.for_each_of(groups, scope, select, |i, entry| {
        // SAFETY: The callers record the entry, and queue its folio, unless the caller of
        // `clean_record` said that it writes the data back itself.
        if unsafe { entry.mkclean() }.dirty() {
            taken.insert(i);
        }
    });
    if filemap::is_watched() {
        tell_stored(table, &taken);
    }
    let mut changed = bitmap.set_words(first, taken.words());
    if table.vma().may_have_pins() {
        let found = keep_pinned(table, &mut taken, bitmap, first);

        changed -= found.1;
        pinned = Some(found.0);
    }
    (taken, Cleaned { changed, pinned })
}

/// Tells who tracks the file of the pages whose dirty bit was `taken`.
#[cold]
#[inline(never)]
pub(super) fn tell_stored(table: &PteTable<'_, '_>, taken: &EntrySet) {
    let (mut first, mut nr) = (0, 0);

    taken.for_each(|i| {
        if i != first + nr {
            filemap::stored(table.vma(), table.pgoff() + first, nr);
            (first, nr) = (i, 0);
        }
        nr += 1;
    });
    filemap::stored(table.vma(), table.pgoff() + first, nr);
}

/// As [`clean_record_table_queue`] for a huge leaf that is dirty; `first` is the offset, in the
/// bitmap's terms, of the first page that the walk covers. A leaf that it covers in part stays
/// dirty, since nobody would be told of the rest, and is found again.
#[inline]
pub(crate) fn clean_record_leaf_queue<'s, L: HugeLevel>(
    leaf: &mut Leaf<'_, 's, L>,
    scope: &mut FlushScope<'s>,
    bitmap: &mut RecordBitmap<'_>,
    first: usize,
    queue: &mut DirtyQueue,
) {
    bitmap.set_range(first, (leaf.end() - leaf.addr()) >> PAGE_SHIFT);
    if leaf.is_partial() {
        return;
    }

    // SAFETY: The bit is recorded, and the queue gets the folio, or the leaf gets the bit back.
    let Some(taken) = (unsafe { leaf.clean(scope) }) else {
        return;
    };

    // SAFETY: The leaf is present and not special, the bit was taken from it, and its lock is held.
    // The scope flushes before the queue, which outlives the walk, is transferred.
    if !taken.special && !unsafe { queue.push(taken.pfn, false) } {
        leaf.redirty();
    }
}

/// Records the pages of a PTE table that are pinned for DMA, dirty or not: a device may store to
/// them at any time, and no entry tells. Their entries become dirty, or get back the bit that was
/// `taken`, so that what a device stores between this harvest and the end of the pin is recorded
/// by the next. An entry that permits no store is left clean: a file system could not account for
/// it.
///
/// Returns them, and the number of entries that got their bit back.
#[inline(never)]
fn keep_pinned(
    table: &PteTable<'_, '_>,
    taken: &mut EntrySet,
    bitmap: &mut RecordBitmap<'_>,
    first: usize,
) -> (EntrySet, usize) {
    let pinned = table.pinned();
    let mut kept = 0;

    table.for_each_in(&pinned, |i, pte| {
        let was_taken = taken.remove(i);

        kept += usize::from(was_taken);
        if was_taken || pte.write() {
            table.redirty(i);
        }
    });
    bitmap.set_words(first, pinned.words());
    (pinned, kept)
}

/// The loop over one PTE table for [`Transfer::Skip`]; a function of its own so that a test finds
/// it in the module.
#[inline(never)]
fn clean_record_table<'s>(
    table: &mut PteTable<'_, 's>,
    scope: &mut FlushScope<'s>,
    bitmap: &mut RecordBitmap<'_>,
    flush_locked: bool,
) -> usize {
    let changed = clean_record_entries(table, None, Pte::dirty, scope, bitmap, table.pgoff())
        .1
        .changed;

    if flush_locked && changed != 0 {
        scope.flush_locked();
    }
    changed
}

/// Whether folios wait for the flush at the end in any case: a control marks them before it.
fn waits_for_flush() -> bool {
    crate::faults::transfer_before_flush() || crate::faults::trylock_fails()
}

/// As [`clean_record_table`], and notes the folios that owe a dirty mark. `first` is the offset, in
/// the bitmap's terms, of the page that the first entry maps.
#[inline(never)]
pub(crate) fn clean_record_table_queue<'s>(
    table: &mut PteTable<'_, 's>,
    scope: &mut FlushScope<'s>,
    bitmap: &mut RecordBitmap<'_>,
    first: usize,
    queue: &mut DirtyQueue,
) -> Cleaned {
    let (mut taken, mut cleaned) =
        clean_record_entries(table, None, Pte::dirty, scope, bitmap, first);

    // SAFETY: The dirty bits of these entries, which are present, were just taken.
    cleaned.changed -= unsafe { queue_folios(table, &mut taken, cleaned.changed, scope, queue) };
    cleaned
}

/// As [`clean_record_table_queue`] for groups of entries, as [`PteTable::scan`] has found them
/// under the same hold of the lock: what is dirty in others stays so. Entries that are special stay
/// as they are: in memory that is tracked they map the page of zeroes, and a dirty one is known to
/// KSM by that.
///
/// Source: `is_ksm_zero_pte()`.
#[inline(never)]
pub(crate) fn clean_record_groups_queue<'s>(
    table: &mut PteTable<'_, 's>,
    groups: Groups,
    scope: &mut FlushScope<'s>,
    bitmap: &mut RecordBitmap<'_>,
    first: usize,
    queue: &mut DirtyQueue,
) -> Cleaned {
    let select = |pte: Pte| pte.dirty() && !pte.special();
    let (mut taken, mut cleaned) =
        clean_record_entries(table, Some(groups), select, scope, bitmap, first);

    // SAFETY: As above.
    cleaned.changed -= unsafe { queue_folios(table, &mut taken, cleaned.changed, scope, queue) };
    cleaned
}

/// Queues the folios of the `nr` entries whose dirty bit was `taken`. Returns for how many there
/// was no room: they have got it back, and are recorded once more.
///
/// # Safety
///
/// The entries are present, and their dirty bits were taken under this hold of the lock.
#[inline(never)]
unsafe fn queue_folios<'s>(
    table: &PteTable<'_, 's>,
    taken: &mut EntrySet,
    nr: usize,
    scope: &mut FlushScope<'s>,
    queue: &mut DirtyQueue,
) -> usize {
    let mut kept = 0usize;
    // Many entries: one flush here is less than a pin for each. The lock of the table keeps what
    // the entries map, so only folios that are clean by now have to wait, and be pinned.
    let flushed = nr >= FLUSH_LOCKED && !waits_for_flush();

    if flushed {
        scope.flush_locked();
        // The answer for most, or all, of a table in which all was dirty.
        taken.remove_runs(|i| table.maps_dirty_folios(i, EntrySet::RUN));
    }
    table.for_each_in(taken, |i, pte| {
        // SAFETY: By this function's safety requirements the entry is present, and its lock is held
        // since its bit was taken; it is not special. The scope flushes before the queue, which
        // outlives the walk, is transferred.
        if !pte.special() && !unsafe { queue.push(pte.pfn(), flushed) } {
            // Recorded, and dirty still: it will be recorded again.
            table.redirty(i);
            kept = kept.wrapping_add(1);
        }
    });
    kept
}
