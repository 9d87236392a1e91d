// SPDX-License-Identifier: GPL-2.0

//! Steps that can be left out, so that a test can be shown to notice it.
//!
//! Compiled in by `MMOPS_FAULTS=1` alone. Each control is a file in
//! `/sys/kernel/debug/mmops/faults` that holds a decimal number; all are 0 when the module is
//! loaded.

use crate::bindings;
use core::sync::atomic::{
    AtomicUsize,
    Ordering, //
};
use kernel::{
    c_str,
    debugfs::{
        Dir,
        Scope, //
    },
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::{
        delay::udelay,
        Delta, //
    }, //
};

static SKIP_NESTED_CHECK: Atomic<u32> = Atomic::new(0);
static SKIP_PENDING: Atomic<u32> = Atomic::new(0);
static SKIP_FLUSH: Atomic<u32> = Atomic::new(0);
static DELAY_US: Atomic<u32> = Atomic::new(0);
static TRANSFER_BEFORE_FLUSH: Atomic<u32> = Atomic::new(0);
static TRYLOCK_FAILS: Atomic<u32> = Atomic::new(0);
static MARK_BEFORE_FLUSH: Atomic<u32> = Atomic::new(0);
static GATHER_NO_MEMORY: Atomic<u32> = Atomic::new(0);
static PROTECT_CLEAR_FIRST: Atomic<u32> = Atomic::new(0);
static PROTECT_STALE_VALUE: Atomic<u32> = Atomic::new(0);
static SKIP_RETRY: Atomic<u32> = Atomic::new(0);
static WINDOW_US: Atomic<u32> = Atomic::new(0);
static IGNORE_INVALIDATION: Atomic<u32> = Atomic::new(0);
static FAULT_IN_NO_MEMORY: Atomic<u32> = Atomic::new(0);
static ENTRY_CHANGES: Atomic<u32> = Atomic::new(0);
static SPLIT_CLEAR_FIRST: Atomic<u32> = Atomic::new(0);
static SPLIT_US: Atomic<u32> = Atomic::new(0);
static KEEP_MIGRATION_WRITABLE: Atomic<u32> = Atomic::new(0);
static MIGRATIONS_MET: Atomic<u32> = Atomic::new(0);
static MIGRATIONS_ZAPPED: Atomic<u32> = Atomic::new(0);
static LEAK_PENDING: Atomic<u32> = Atomic::new(0);
static WINDOWS_OPEN: Atomic<u32> = Atomic::new(0);

/// The longest delay that a control can ask for, in microseconds.
const MAX_DELAY_US: u32 = 500_000;

/// The debugfs files, which vanish with the value.
#[pin_data]
pub(crate) struct Controls {
    dir: Dir,
    #[pin]
    files: Scope<()>,
}

impl Controls {
    pub(crate) fn new() -> Result<Pin<KBox<Self>>> {
        let dir = Dir::new(c_str!("mmops"));

        KBox::try_pin_init(
            try_pin_init!(Self {
                files <- dir.scope((), c_str!("faults"), |(), dir| {
                    dir.read_write_file(c_str!("skip_nested_check"), &SKIP_NESTED_CHECK);
                    dir.read_write_file(c_str!("skip_pending"), &SKIP_PENDING);
                    dir.read_write_file(c_str!("skip_flush"), &SKIP_FLUSH);
                    dir.read_write_file(c_str!("delay_us"), &DELAY_US);
                    dir.read_write_file(c_str!("transfer_before_flush"), &TRANSFER_BEFORE_FLUSH);
                    dir.read_write_file(c_str!("trylock_fails"), &TRYLOCK_FAILS);
                    dir.read_write_file(c_str!("mark_before_flush"), &MARK_BEFORE_FLUSH);
                    dir.read_write_file(c_str!("gather_no_memory"), &GATHER_NO_MEMORY);
                    dir.read_write_file(c_str!("protect_clear_first"), &PROTECT_CLEAR_FIRST);
                    dir.read_write_file(c_str!("protect_stale_value"), &PROTECT_STALE_VALUE);
                    dir.read_write_file(c_str!("skip_retry"), &SKIP_RETRY);
                    dir.read_write_file(c_str!("window_us"), &WINDOW_US);
                    dir.read_write_file(c_str!("ignore_invalidation"), &IGNORE_INVALIDATION);
                    dir.read_write_file(c_str!("fault_in_no_memory"), &FAULT_IN_NO_MEMORY);
                    dir.read_write_file(c_str!("entry_changes"), &ENTRY_CHANGES);
                    dir.read_write_file(c_str!("split_clear_first"), &SPLIT_CLEAR_FIRST);
                    dir.read_write_file(c_str!("split_us"), &SPLIT_US);
                    dir.read_write_file(
                        c_str!("keep_migration_writable"),
                        &KEEP_MIGRATION_WRITABLE,
                    );
                    dir.read_write_file(c_str!("migrations_met"), &MIGRATIONS_MET);
                    dir.read_write_file(c_str!("migrations_zapped"), &MIGRATIONS_ZAPPED);
                    dir.read_write_file(c_str!("leak_pending"), &LEAK_PENDING);
                    dir.read_only_file(c_str!("windows_open"), &WINDOWS_OPEN);
                }),
                dir: dir.clone(),
            }? Error),
            GFP_KERNEL,
        )
    }
}

/// A scope takes itself for the only one.
pub(crate) fn skip_nested_check() -> bool {
    SKIP_NESTED_CHECK.load(Relaxed) != 0
}

/// A scope does not raise `mm->tlb_flush_pending`, so that no other knows of it.
pub(crate) fn skip_pending() -> bool {
    SKIP_PENDING.load(Relaxed) != 0
}

/// A scope does not lower `mm->tlb_flush_pending` again, so that all later ones take it for open.
pub(crate) fn leak_pending() -> bool {
    LEAK_PENDING.load(Relaxed) != 0
}

/// No flush at all.
pub(crate) fn skip_flush() -> bool {
    SKIP_FLUSH.load(Relaxed) != 0
}

/// Folios are marked dirty before the flush.
pub(crate) fn transfer_before_flush() -> bool {
    TRANSFER_BEFORE_FLUSH.load(Relaxed) != 0
}

/// Each folio that is tried is locked by somebody else: one that waits for its dirty mark until the
/// walk has ended, and one of a batch of exclusive pages until it is waited for.
pub(crate) fn trylock_fails() -> bool {
    TRYLOCK_FAILS.load(Relaxed) != 0
}

/// A gather marks folios dirty, and removes their rmap, before the flush.
pub(crate) fn mark_before_flush() -> bool {
    MARK_BEFORE_FLUSH.load(Relaxed) != 0
}

/// There is no memory for the queue of a gather.
pub(crate) fn gather_no_memory() -> bool {
    GATHER_NO_MEMORY.load(Relaxed) != 0
}

/// An entry that changed before it could be locked is passed over.
pub(crate) fn skip_retry() -> bool {
    SKIP_RETRY.load(Relaxed) != 0
}

/// Widens the window between the look at a huge leaf and its lock.
pub(crate) fn delay_before_lock() {
    delay(WINDOW_US.load(Relaxed));
}

/// Runs `change` on a page-table entry in place, or as a fault has it: on a copy, with the entry
/// cleared or left alone meanwhile.
///
/// # Safety
///
/// `entry` is a valid page-table entry of the size of a word, and its lock is held.
pub(crate) unsafe fn protect_entry<T>(entry: *mut T, change: impl FnOnce(*mut T) -> u32) -> u32 {
    let clear = PROTECT_CLEAR_FIRST.load(Relaxed) != 0;

    if !clear && PROTECT_STALE_VALUE.load(Relaxed) == 0 {
        return change(entry);
    }

    // SAFETY: By this function's safety requirements; the CPU changes it atomically, too.
    let atomic = unsafe { AtomicUsize::from_ptr(entry.cast()) };
    let mut copy = if clear {
        atomic.swap(0, Ordering::SeqCst)
    } else {
        atomic.load(Ordering::SeqCst)
    };
    let ret = change(core::ptr::from_mut(&mut copy).cast());

    hold_open(WINDOW_US.load(Relaxed));
    atomic.store(copy, Ordering::SeqCst);
    ret
}

/// A device goes on using pages that it was told to let go.
pub(crate) fn ignore_invalidation() -> bool {
    IGNORE_INVALIDATION.load(Relaxed) != 0
}

/// There is no memory for pages that have to be faulted in to become exclusive.
pub(crate) fn fault_in_no_memory() -> bool {
    FAULT_IN_NO_MEMORY.load(Relaxed) != 0
}

/// The entry of each page that is to become exclusive changes while its folio is being locked.
pub(crate) fn entry_changes() -> bool {
    ENTRY_CHANGES.load(Relaxed) != 0
}

/// Widens the window between the invalidation of a PMD leaf and the table that replaces it; as a
/// fault has it, with the entry cleared meanwhile.
///
/// # Safety
///
/// `pmdp` is the entry of an invalidated leaf, and its lock is held.
pub(crate) unsafe fn split_window(pmdp: *mut bindings::pmd_t) {
    if SPLIT_CLEAR_FIRST.load(Relaxed) != 0 {
        // SAFETY: By this function's safety requirements; the CPU changes it atomically, too.
        unsafe { AtomicUsize::from_ptr(pmdp.cast()) }.store(0, Ordering::SeqCst);
    }
    hold_open(SPLIT_US.load(Relaxed));
}

/// A clear of soft-dirty met a writable migration entry, which is counted. Whether it stays
/// writable, as C leaves it.
pub(crate) fn met_migration() -> bool {
    MIGRATIONS_MET.add(1, Relaxed);
    KEEP_MIGRATION_WRITABLE.load(Relaxed) != 0
}

/// A zap met a migration entry, which is counted.
pub(crate) fn zapped_migration() {
    MIGRATIONS_ZAPPED.add(1, Relaxed);
}

/// Widens the window between the last changed entry and the flush.
pub(crate) fn delay_before_flush() {
    hold_open(DELAY_US.load(Relaxed));
}

/// A window that a test can wait for, instead of guessing when it opens.
fn hold_open(us: u32) {
    if us != 0 {
        WINDOWS_OPEN.add(1, Relaxed);
        delay(us);
        WINDOWS_OPEN.fetch_sub(1, Relaxed);
    }
}

fn delay(us: u32) {
    let us = us.min(MAX_DELAY_US);

    for _ in 0..us / 1000 {
        udelay(Delta::from_millis(1));
    }
    udelay(Delta::from_micros((us % 1000).into()));
}
