// SPDX-License-Identifier: GPL-2.0

//! The walk at the begin of an epoch.
//!
//! It takes the dirty bits of the range out of the entries, gives them to the folios, and tells all
//! trackers of the address space. The rules are those of [`crate::dirty`]: the TLB is flushed
//! before the folios are marked, and before anybody is told.
//!
//! In mode full it takes write permissions first. An entry that has it was given it since the last
//! walk, and whoever stores without a fault needs it: so the page is reported, dirty or not.

use super::{
    bits::Pages,
    marks::Marks,
    Mode, //
};
use crate::{
    bindings,
    bitmap::{
        RecordBitmap,
        BITS_PER_WORD, //
    },
    dirty::{
        clean_record_groups_queue,
        clean_record_leaf_queue,
        make_room,
        take_write,
        QUEUE_FOLIOS, //
    },
    faults,
    folio::DirtyQueue,
    mm::{
        MmapRead,
        MmapWrite, //
    },
    notifier::ChangeEvent,
    pgtable::{
        ByLevel,
        Entry,
        EntrySet,
        HugeLevel,
        Leaf,
        Level,
        Markers,
        PmdLeaf,
        PteTable,
        Scan,
        SoftLeaf,
        GROUP, //
    },
    range::{
        AddrRange,
        PUD_SIZE, //
    },
    signal,
    tlb::FlushScope,
    vma::Vma,
    walk::{
        walk_page_range_one_scope,
        Action,
        Unlocked,
        Walk, //
    }, //
};
use core::cmp;
use kernel::{
    mm::{
        virt::{
            flags,
            vm_flags_t, //
        },
        MmWithUser, //
    },
    page::PAGE_SHIFT,
    prelude::*,
    sync::Arc, //
};

/// What is looked at under one hold of the mmap lock; leaves do not reach beyond.
const PIECE: usize = PUD_SIZE;

/// What a walk finds in a piece, and in the whole range.
struct Found<'f> {
    /// Pages that were dirty.
    written: RecordBitmap<'f>,
    /// Pages that cannot be tracked: they count as changed, in this epoch and in the next.
    unknown: RecordBitmap<'f>,
    /// Pages that are pinned for DMA.
    pinned: RecordBitmap<'f>,
    /// Pages that are there: in memory, in swap, or wherever those are that cannot be tracked.
    there: RecordBitmap<'f>,
    /// In mode full, pages that could be stored to without a fault: they count as changed.
    writable: RecordBitmap<'f>,
}

/// What an epoch gets: bitmaps whose words are as those of the marks.
pub(super) struct Words<'w> {
    /// Pages that were dirty are added.
    pub(super) written: &'w mut [u64],
    /// Those are added that could be stored to without a fault.
    pub(super) changed: &'w mut [u64],
    /// Becomes those that are pinned, or is empty.
    pub(super) pinned: &'w mut [u64],
    /// Becomes those that are there.
    pub(super) there: &'w mut [u64],
}

/// A bitmap whose bit 0 is the page with that number, and which is clear.
fn clear(words: &mut [u64], base: usize) -> RecordBitmap<'_> {
    words.fill(0);
    RecordBitmap::new(words, base)
}

/// Takes the dirty bits of the pages of `marks`, and tells all `trackers`, of which it is one;
/// `words` are for `marks`.
///
/// Sleeps, and takes the mmap lock for reading, and folio locks; in mode full at the end the mmap
/// lock for writing as well.
///
/// # Errors
///
/// `EINTR` after a fatal signal, `ENOMEM`. What was taken before is told.
pub(super) fn harvest(
    mm: &MmWithUser,
    marks: &Arc<Marks>,
    trackers: &[Arc<Marks>],
    words: Words<'_>,
) -> Result {
    let Words {
        written,
        changed,
        pinned,
        there,
    } = words;
    let pages = marks.pages;
    let range = AddrRange::new(pages.first << PAGE_SHIFT, pages.end << PAGE_SHIFT)?;
    let is_full = marks.mode == Mode::Full;
    let words = cmp::min(pages.words(), (PIECE >> PAGE_SHIFT) / BITS_PER_WORD + 1);
    let mut found = KVVec::from_elem(0, words, GFP_KERNEL)?;
    let mut unknown = KVVec::from_elem(0, words, GFP_KERNEL)?;
    let mut writable = KVVec::from_elem(0, if is_full { words } else { 0 }, GFP_KERNEL)?;
    let mut queue = DirtyQueue::new(cmp::min(pages.nr(), QUEUE_FOLIOS))?;
    let mut start = range.start();

    there.fill(0);
    pinned.fill(0);
    while start < range.end() {
        let end = start + cmp::min(PIECE - start % PIECE, range.end() - start);
        let piece = AddrRange::new(start, end)?;
        let base = Pages::of(&piece).base();
        let mut walker = Harvest {
            found: Found {
                written: clear(&mut found, base),
                unknown: clear(&mut unknown, base),
                pinned: RecordBitmap::new(pinned, pages.base()),
                there: RecordBitmap::new(there, pages.base()),
                writable: clear(&mut writable, base),
            },
            queue: &mut queue,
            is_full,
        };
        let ret = walker.piece(mm, &piece);

        // Whatever the walk came to: what it has taken is gone.
        tell(marks, trackers, base, &found, &unknown, &writable);
        take_own(written, pages.base(), base, &found);
        take_own(changed, pages.base(), base, &writable);
        ret?;
        start = end;
    }
    if is_full {
        // Who stores on behalf of others, as `ptrace()` and `/proc/PID/mem` do, has the mmap lock
        // from the look-up to the store. Who has looked up before the walk has stored after this.
        drop(MmapWrite::lock(mm)?);
    }
    Ok(())
}

/// Tells what was found in a piece, of which bit 0 is the page with the number `base`.
fn tell(
    own: &Arc<Marks>,
    trackers: &[Arc<Marks>],
    base: usize,
    found: &[u64],
    unknown: &[u64],
    writable: &[u64],
) {
    for marks in trackers {
        if !Arc::ptr_eq(marks, own) && !faults::track_skip_others() {
            marks.written.set_words(base, found);
            // It is no more, so a tracker that asks for it would not find it.
            if marks.mode == Mode::Full {
                marks.changed.set_words(base, writable);
            }
        }
        marks.changed.set_words(base, unknown);
    }
}

/// Sets the bits of `found` in `words`, whose bit 0 is the page with the number `first`.
fn take_own(words: &mut [u64], first: usize, base: usize, found: &[u64]) {
    let skip = (base - first) / BITS_PER_WORD;

    for (word, found) in words.iter_mut().skip(skip).zip(found) {
        *word |= found;
    }
}

struct Harvest<'f, 'q> {
    found: Found<'f>,
    queue: &'q mut DirtyQueue,
    is_full: bool,
}

impl Harvest<'_, '_> {
    fn piece(&mut self, mm: &MmWithUser, piece: &AddrRange) -> Result {
        loop {
            signal::interruption()?;

            let mut guard = MmapRead::lock(mm);

            self.look_at_vmas(&guard, piece)?;
            let ret = walk_page_range_one_scope(&mut guard, piece, self);

            drop(guard);
            if faults::track_skip_transfer() {
                self.queue.forget();
            }
            // The scope of the walk has flushed.
            self.queue.transfer();
            match ret {
                // The queue was full of folios whose lock was taken. What is clean already is not
                // found again, so each turn gets further.
                Err(e) if e == EAGAIN => continue,
                ret => return ret,
            }
        }
    }

    /// Notes what no entry tells of: where nothing is mapped something may come, and some mappings
    /// cannot be tracked.
    fn look_at_vmas(&mut self, guard: &MmapRead<'_>, piece: &AddrRange) -> Result {
        let mut behind = piece.start();

        guard.for_each_mapped(piece, |vma, part| {
            self.note_hole(behind, part.start());
            behind = part.end();
            let vma = Vma::from(vma);

            if !is_trackable(vma) {
                set(&mut self.found.unknown, &part);
                set(&mut self.found.there, &part);
            } else if !vma.is_anonymous() {
                // A page of the file comes and goes, and is the same.
                set(&mut self.found.there, &part);
            }
            Ok(())
        })?;
        self.note_hole(behind, piece.end());
        Ok(())
    }

    /// Notes that nothing is mapped from `start` to `end`, if that is not empty.
    fn note_hole(&mut self, start: usize, end: usize) {
        if faults::track_skip_hole() {
            return;
        }
        if let Ok(hole) = AddrRange::new(start, end) {
            set(&mut self.found.unknown, &hole);
        }
    }

    /// Notes what `nr` pages from the one with the number `first` on are.
    #[inline(always)]
    fn note(&mut self, first: usize, nr: usize, content: Content) {
        match content {
            Content::Zeroes => {}
            Content::Memory => self.found.there.set_range(first, nr),
            Content::Nothing => self.found.unknown.set_range(first, nr),
            Content::Unknown => {
                self.found.unknown.set_range(first, nr);
                self.found.there.set_range(first, nr);
            }
        }
    }

    /// Notes what the entries of a table are, of which the first is the page with that number.
    #[inline(always)]
    fn note_table(&mut self, table: &PteTable<'_, '_>, scan: &Scan, first: usize, rules: Rules) {
        let mut there = EntrySet::EMPTY;

        for start in (0..table.nr()).step_by(GROUP) {
            // Most are of this kind, and their bits go into the bitmap by the word.
            if scan.mapped.has(start) && !rules.is_forced {
                there.insert_group(start);
            } else {
                self.note_group(table, start, first, rules);
            }
        }
        self.found.there.set_words(first, there.words());
    }

    #[inline(never)]
    fn note_group(&mut self, table: &PteTable<'_, '_>, start: usize, first: usize, rules: Rules) {
        for i in start..cmp::min(start + GROUP, table.nr()) {
            let pte = table.value(i);

            if !pte.none() {
                // SAFETY: The lock of the table is held.
                self.note(first + i, 1, unsafe { Content::of(pte, rules) });
            }
        }
    }

    /// Takes the write permission from all entries of a table, and notes those that had it.
    fn take_write<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scan: &Scan,
        scope: &mut FlushScope<'s>,
    ) {
        if faults::track_skip_wrprotect() {
            return;
        }

        let writable = take_write(table, Some(scan.writable), scope);

        if !faults::track_skip_writable() {
            self.found
                .writable
                .set_words(table.addr() >> PAGE_SHIFT, writable.words());
        }
    }

    /// Source of `is_forced`: `can_follow_write_common()`.
    fn rules(&self, vma: Vma<'_>) -> Rules {
        const MASK: vm_flags_t = flags::WRITE | flags::SHARED | flags::MAYSHARE | flags::MAYWRITE;

        Rules {
            is_forced: self.is_full
                && vma.flags() & MASK == flags::MAYWRITE
                && !faults::track_skip_forced(),
            is_anonymous: vma.is_anonymous(),
            may_have_pins: vma.may_have_pins(),
        }
    }

    fn pmd_leaf<'s>(&mut self, leaf: &mut PmdLeaf<'_, 's>, scope: &mut FlushScope<'s>) {
        let value = leaf.value();
        let addr = leaf.addr();
        let (first, nr) = (addr >> PAGE_SHIFT, (leaf.end() - addr) >> PAGE_SHIFT);
        let rules = self.rules(leaf.vma());

        // SAFETY: The lock of the leaf is held.
        self.note(first, nr, unsafe { Content::of(value, rules) });
        if !value.present() {
            return;
        }
        if self.is_full && value.write() && !faults::track_skip_wrprotect() {
            // One that is covered in part stays as it is, and is found again.
            if !leaf.is_partial() {
                leaf.wrprotect(scope);
                leaf.tell_stored();
            }
            if !faults::track_skip_writable() {
                self.found.writable.set_range(first, nr);
            }
        }
        if leaf.is_pinned() {
            self.found.written.set_range(first, nr);
            self.found.unknown.set_range(first, nr);
            self.found.pinned.set_range(first, nr);
        } else if value.dirty() {
            clean_record_leaf_queue(leaf, scope, &mut self.found.written, first, self.queue);
        }
    }
}

/// Whether a page frame belongs to a folio of anonymous memory.
///
/// # Safety
///
/// It is mapped by a present entry that is not special, whose lock is held.
unsafe fn maps_anon(pfn: usize) -> bool {
    // SAFETY: By this function's safety requirements the folio is there.
    unsafe { bindings::mmops_folio_test_anon(bindings::mmops_pfn_folio(pfn)) }
}

/// What there is to know of a VMA, to tell what its entries stand for.
#[derive(Clone, Copy)]
struct Rules {
    /// A debugger may store to anonymous pages of it though no entry permits that.
    is_forced: bool,
    /// It has no file.
    is_anonymous: bool,
    /// Pages of its mm may be pinned for DMA.
    may_have_pins: bool,
}

/// What an entry stands for, to a tracker.
#[derive(Clone, Copy)]
enum Content {
    /// Nothing that was ever stored to.
    Zeroes,
    /// A page, wherever it is.
    Memory,
    /// A device may store to it, or it comes and goes untold.
    Unknown,
    /// An access fails. Something may come there.
    Nothing,
}

impl Content {
    /// Of an entry that is not none.
    ///
    /// # Safety
    ///
    /// The lock of the entry has been held since it was read.
    #[inline(always)]
    unsafe fn of<L: Level>(entry: Entry<L>, rules: Rules) -> Self {
        if !entry.present() {
            Self::of_nonpresent(entry.soft_leaf(), rules)
        } else if entry.special() {
            Self::of_zero_page(rules)
        // SAFETY: The entry is present and not special, and by this function's safety requirements
        // its lock is held.
        } else if rules.is_forced && unsafe { maps_anon(entry.pfn()) } {
            Self::Unknown
        } else {
            Self::Memory
        }
    }

    /// In a private mapping of a file, `UFFDIO_ZEROPAGE` puts it in the place of a page of the
    /// file, without an event.
    ///
    /// Source: `mfill_atomic_pte_zeropage()`.
    #[inline(always)]
    fn of_zero_page(rules: Rules) -> Self {
        if rules.is_anonymous || faults::track_skip_zero_page() {
            Self::Zeroes
        } else {
            Self::Unknown
        }
    }

    #[cold]
    fn of_nonpresent(leaf: Option<SoftLeaf>, rules: Rules) -> Self {
        match leaf {
            // A page of a file may be pinned, which no entry tells of, and no event comes when the
            // migration is given up.
            Some(SoftLeaf::Migration { .. }) if rules.may_have_pins && !rules.is_anonymous => {
                Self::Unknown
            }
            Some(
                SoftLeaf::Swap { .. } | SoftLeaf::Migration { .. } | SoftLeaf::HwPoison { .. },
            ) => Self::Memory,
            Some(SoftLeaf::Marker(Markers { uffd_wp: true, .. })) => Self::Zeroes,
            Some(SoftLeaf::Marker(_)) => Self::Nothing,
            _ => Self::Unknown,
        }
    }
}

/// Sets the bits of a range of addresses.
fn set(bits: &mut RecordBitmap<'_>, range: &AddrRange) {
    bits.set_range(range.start() >> PAGE_SHIFT, range.nr_pages());
}

/// Whether entries and notifiers tell of each store to a VMA.
fn is_trackable(vma: Vma<'_>) -> bool {
    // SAFETY: The VMA is valid for as long as the value.
    let entries_tell = unsafe { bindings::mmops_vma_entries_tell(vma.as_ptr()) };

    entries_tell && (is_memory(vma) || faults::track_skip_driver())
}

fn is_memory(vma: Vma<'_>) -> bool {
    // SAFETY: As above.
    unsafe { bindings::mmops_vma_is_memory(vma.as_ptr()) }
}

impl Walk for Harvest<'_, '_> {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::HARVEST;

    fn test_vma(&mut self, vma: Vma<'_>) -> bool {
        is_trackable(vma)
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
        let first = table.addr() >> PAGE_SHIFT;
        let rules = self.rules(table.vma());

        let scan = table.scan();
        // What is stored from here on keeps its dirty bit for the next epoch.
        let mut dirty = scan.dirty;

        if self.is_full {
            self.take_write(table, &scan, scope);
            // Stores before that are reported now, and their bits are not for the next epoch.
            dirty = dirty.union(scan.writable);
        }

        let cleaned = clean_record_groups_queue(
            table,
            dirty,
            scope,
            &mut self.found.written,
            first,
            self.queue,
        );

        if let Some(pinned) = cleaned.pinned {
            // Who stores to them may do so after this walk, and let go before the next.
            self.found.unknown.set_words(first, pinned.words());
            self.found.pinned.set_words(first, pinned.words());
        }
        self.note_table(table, &scan, first, rules);
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        match leaf.by_level() {
            ByLevel::Pmd(leaf) => self.pmd_leaf(leaf, scope),
            // Only DAX and page frames have such leaves, which no tracker visits.
            ByLevel::Pud(leaf) => self.note(
                leaf.addr() >> PAGE_SHIFT,
                (leaf.end() - leaf.addr()) >> PAGE_SHIFT,
                Content::Unknown,
            ),
        }
        Ok(Action::Done)
    }
}
