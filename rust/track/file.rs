// SPDX-License-Identifier: GPL-2.0

//! A file as what is tracked: in all processes that map it, and by whatever else changes it.
//!
//! What the kernel tells of the file is marked (`filemap`). The begin of an epoch takes the
//! dirty bits that are in entries still, of all mappings that are there. Whoever takes one out of
//! an entry, be it the kernel or a harvest, tells under the lock of the page table: an entry that
//! the walk finds clean was told of, or no store has come.

use super::{
    bits::Pages,
    marks::Marks,
    Mode,
    Record, //
};
use crate::{
    bindings,
    bitmap::RecordBitmap,
    dirty::{
        clean_record_leaf_queue,
        clean_record_table_queue,
        make_room,
        take_write,
        QUEUE_FOLIOS, //
    },
    faults,
    filemap::{
        Change,
        FilemapNotifier,
        FilemapOps, //
    },
    folio::DirtyQueue,
    mapping::Mapping,
    notifier::ChangeEvent,
    pgtable::{
        HugeLevel,
        Leaf,
        PteTable, //
    },
    range::{
        PageRange,
        PUD_SIZE, //
    },
    signal,
    tlb::FlushScope,
    vma::Vma,
    walk::{
        walk_page_mapping,
        Action,
        Unlocked,
        Walk, //
    }, //
};
use core::{
    cmp,
    ptr,
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    }, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    sync::Arc,
    task::Task, //
};

/// What is walked under one hold of `i_mmap_rwsem`, in pages.
const PIECE: usize = PUD_SIZE >> PAGE_SHIFT;

/// A file that is tracked.
pub(super) struct File {
    // Before the mapping, whose address it compares.
    notifier: FilemapNotifier<Watch>,
    mapping: Mapping,
}

/// The subscription of a tracker.
struct Watch {
    marks: Arc<Marks>,
    /// The task that harvests for this tracker, while it tells what it has just found: that is in
    /// its epoch already.
    teller: AtomicPtr<kernel::bindings::task_struct>,
}

impl Watch {
    /// Runs `f`, and marks nothing of what the current task tells meanwhile. `f` runs under a
    /// spinlock, so it enters no reclaim, which would tell of others.
    #[inline(always)]
    fn deaf<T>(&self, f: impl FnOnce() -> T) -> T {
        self.teller.store(Task::current_raw(), Ordering::Relaxed);

        let ret = f();

        self.teller.store(ptr::null_mut(), Ordering::Relaxed);
        ret
    }

    fn is_deaf(&self) -> bool {
        // Who looks is the task that has stored, or another one, whatever that reads.
        // SAFETY: The function asks about the CPU alone.
        self.teller.load(Ordering::Relaxed) == Task::current_raw()
            && unsafe { bindings::mmops_in_task() }
    }
}

impl FilemapOps for Watch {
    fn changed(&self, first: usize, last: usize, change: Change) {
        let end = last.saturating_add(1);

        if first >= end || self.is_deaf() {
            return;
        }
        // INVARIANT: Not empty, as just checked.
        let Some(pages) = (Pages { first, end }).within(&self.marks.pages) else {
            return;
        };

        match change {
            Change::Stored if !faults::track_skip_stored() => self.marks.written.set(&pages),
            Change::Replaced if !faults::track_skip_replaced() => self.marks.changed.set(&pages),
            _ => {}
        }
    }
}

impl File {
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the kernel does not tell all that changes in a file of this kind.
    #[inline(never)]
    pub(super) fn check(mapping: &Mapping) -> Result {
        // SAFETY: The mapping is valid as long as the value.
        if unsafe { bindings::mmops_mapping_is_told(mapping.as_ptr()) } {
            Ok(())
        } else {
            Err(EOPNOTSUPP)
        }
    }

    /// Of a file that [`Self::check`] has let through. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    // Of this module: the callback has to be in mmops.ko, which the subscription keeps.
    #[inline(never)]
    pub(super) fn new(mapping: Mapping, marks: Arc<Marks>) -> Result<Self> {
        let watch = Watch {
            marks,
            teller: AtomicPtr::new(ptr::null_mut()),
        };

        Ok(Self {
            notifier: FilemapNotifier::new(&mapping, watch)?,
            mapping,
        })
    }

    /// Takes what is marked, and the dirty bits of all entries that map the pages.
    ///
    /// Sleeps; takes `i_mmap_rwsem` for reading, and folio locks.
    ///
    /// # Errors
    ///
    /// `EINTR` after a fatal signal, `ENOMEM`. What was taken before is in the record.
    pub(super) fn begin(&mut self, record: &mut Record) -> Result {
        let Self { notifier, mapping } = self;
        let watch: &Watch = notifier;
        let marks = &*watch.marks;

        marks.written.take(&mut record.written);
        marks.changed.take(&mut record.changed);
        faults::track_marks_taken();
        if !faults::track_skip_walk() {
            harvest(mapping, watch, &mut record.written, &mut record.pinned)?;
        }
        // What was told meanwhile may have been so before the call, of an entry that the walk came
        // to later. It may be that of a store to come, too, so it stays for the next epoch.
        if !faults::track_skip_late() {
            marks.written.copy(&mut record.written);
            marks.changed.copy(&mut record.changed);
        }
        Ok(())
    }
}

fn harvest(
    mapping: &mut Mapping,
    watch: &Watch,
    written: &mut [u64],
    pinned: &mut [u64],
) -> Result {
    let pages = watch.marks.pages;
    let mut queue = DirtyQueue::new(cmp::min(pages.nr(), QUEUE_FOLIOS))?;
    let mut first = pages.first;

    while first < pages.end {
        let nr = cmp::min(PIECE - first % PIECE, pages.end - first);
        let piece = PageRange::new(first, nr)?;
        let mut walker = Harvest {
            written: RecordBitmap::new(written, pages.base()),
            pinned: RecordBitmap::new(pinned, pages.base()),
            watch,
            queue: &mut queue,
        };

        loop {
            signal::interruption()?;

            let ret =
                mapping.i_mmap_lock_read(|guard| walk_page_mapping(guard, &piece, &mut walker));

            if faults::track_skip_transfer() {
                walker.queue.forget();
            }
            // The scopes of the walk have flushed, and `i_mmap_rwsem` is released.
            walker.queue.transfer();
            match ret {
                // The queue was full of folios whose lock was taken. What is clean already is not
                // found again, so each turn gets further. Or an entry got a leaf or a table while
                // the walk waited for a zap: for as long as others do that all the time, and a
                // fatal signal ends it.
                Err(e) if e == EAGAIN => continue,
                ret => break ret?,
            }
        }
        first += nr;
    }
    Ok(())
}

struct Harvest<'h, 'w> {
    /// Pages that were dirty.
    written: RecordBitmap<'h>,
    /// Pages that are pinned for DMA.
    pinned: RecordBitmap<'h>,
    watch: &'h Watch,
    queue: &'w mut DirtyQueue,
}

impl Harvest<'_, '_> {
    fn is_full(&self) -> bool {
        self.watch.marks.mode == Mode::Full && !faults::track_skip_wrprotect()
    }

    /// Notes that a device may store to pages after this walk, and let go before the next.
    fn note_pinned(&mut self, first: usize, nr: usize) {
        self.pinned.set_range(first, nr);
        // INVARIANT: Not empty.
        self.watch.marks.changed.set(&Pages {
            first,
            end: first + nr,
        });
    }
}

impl Walk for Harvest<'_, '_> {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    // Who takes a huge leaf away tells under the lock, as of PTEs.
    const WAITS_FOR_ZAP: bool = true;

    fn test_vma(&mut self, vma: Vma<'_>) -> bool {
        vma.is_shared_maywrite()
    }

    fn checkpoint(&mut self, nr: usize, scope: &mut Unlocked<'_, '_, Self>) -> Result {
        signal::pending()?;
        make_room(self.queue, nr, scope)
    }

    #[inline(always)]
    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        let first = table.pgoff();

        if self.is_full() {
            // They were given it since the last walk, and who looks a page up without a fault needs
            // it.
            let writable = self.watch.deaf(|| take_write(table, None, scope));

            self.written.set_words(first, writable.words());
        }

        let cleaned = self
            .watch
            .deaf(|| clean_record_table_queue(table, scope, &mut self.written, first, self.queue));

        if let Some(pinned) = cleaned.pinned {
            pinned.for_each(|i| self.note_pinned(first + i, 1));
        }
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        if leaf.is_softleaf() {
            return Ok(Action::Done);
        }

        let value = leaf.value();
        let pages = leaf.pages()?;
        // The rest of it is not tracked: it stays as it is, and is found again.
        let is_partial = leaf.is_partial();

        if self.is_full() && value.write() {
            if !is_partial || !faults::track_skip_partial() {
                self.written.set_range(pages.first(), pages.nr());
            }
            if !is_partial {
                leaf.wrprotect(scope);
                self.watch.deaf(|| leaf.tell_stored());
            }
        }
        if leaf.is_pinned() {
            self.written.set_range(pages.first(), pages.nr());
            self.note_pinned(pages.first(), pages.nr());
        } else if value.dirty() {
            let (written, first) = (&mut self.written, pages.first());

            self.watch
                .deaf(|| clean_record_leaf_queue(leaf, scope, written, first, self.queue));
        }
        Ok(Action::Done)
    }
}
