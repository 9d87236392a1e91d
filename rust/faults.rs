// SPDX-License-Identifier: GPL-2.0

//! Steps that can be left out, so that a test can be shown to notice it.
//!
//! Compiled in by `MMOPS_FAULTS=1` alone. In any other build each function here is empty or a
//! constant, and nothing of it is left, so that callers need no `cfg`.
//!
//! The table below declares them all. Each is a file in `/sys/kernel/debug/mmops/faults` that takes
//! a decimal number and is 0 when the module is loaded:
//!
//! - `Fault`: a step is left out, or fails, while the file holds another number than 0.
//! - `Count`: how often the code came by.
//! - `Gate`: a point at which a thread stops, until it is let go. `N` closes the gate for the next
//!   `N` threads that come to it, `N K` after `K` others; all later ones pass. 0 opens it. Whatever
//!   is written, who stands there goes on. To be read is how many stand there.
//! - `SpinGate`: the same, under a spinlock.
//!
//! Who stands at a `Gate` sleeps, and goes on when a fatal signal comes. After 60 s at a `Gate`,
//! 10 s at a `SpinGate`, a thread goes on by itself, and the file `gates_given_up` counts it:
//! nothing hangs for ever, and a test whose gate was forgotten fails.

use crate::{
    bindings,
    HAS_FAULTS, //
};
use core::sync::atomic::{
    AtomicUsize,
    Ordering, //
};

#[cfg(mmops_faults)]
#[path = "faults/built_in.rs"]
mod kind;
#[cfg(not(mmops_faults))]
#[path = "faults/left_out.rs"]
mod kind;

pub(crate) use kind::{
    Files,
    Kept, //
};

/// The function of one line.
macro_rules! function {
    (Fault $name:ident $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name() -> bool {
            state::$name.is_on()
        }
    };
    ($kind:ident $name:ident $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name() {
            state::$name.reached()
        }
    };
}

/// Makes a function of each line, with what the line holds behind it.
macro_rules! table {
    ($( $(#[$doc:meta])* $kind:ident $name:ident; )*) => {
        #[allow(non_upper_case_globals)]
        mod state {
            $(
                #[cfg(mmops_faults)]
                pub(super) static $name: super::kind::$kind = super::kind::$kind::new();
                #[cfg(not(mmops_faults))]
                pub(super) const $name: super::kind::$kind = super::kind::$kind;
            )*
        }

        $( function!($kind $name $(#[$doc])*); )*

        #[cfg(mmops_faults)]
        fn make_files(dir: &kernel::debugfs::ScopedDir<'static, '_>) {
            $( state::$name.make_file(dir, kernel::c_str!(stringify!($name))); )*
        }
    };
}

table! {
    /// A scope takes itself for the only one.
    Fault skip_nested_check;

    /// A scope does not raise `mm->tlb_flush_pending`, so that no other knows of it.
    Fault skip_pending;

    /// A scope does not lower `mm->tlb_flush_pending` again, so that all later ones take it for
    /// open.
    Fault leak_pending;

    /// No flush at all.
    Fault skip_flush;

    /// Folios are marked dirty before the flush.
    Fault transfer_before_flush;

    /// Each folio that is tried is locked by somebody else: one that waits for its dirty mark
    /// until the walk has ended, and one of a batch of exclusive pages until it is waited for.
    Fault trylock_fails;

    /// The count of references of each folio that is to be pinned until its dirty mark has
    /// overflowed.
    Fault pin_fails;

    /// A folio that waits for its dirty mark is taken for dirty if a part of it is.
    Fault part_is_all;

    /// A harvest whose caller writes back itself flushes at the end of the scope, and not before
    /// the page-table lock is released.
    Fault flush_late;

    /// A gather marks folios dirty, and removes their rmap, before the flush.
    Fault mark_before_flush;

    /// There is no memory for the queue of a gather.
    Fault gather_no_memory;

    /// An entry that changed before it could be locked is passed over.
    Fault skip_retry;

    /// A leaf that a walk covers only in part is not told of as a whole.
    Fault skip_cover;

    /// An entry is cleared while its new value is made.
    Fault protect_clear_first;

    /// The new value of an entry is made from a copy, and what the CPU sets meanwhile is lost.
    Fault protect_stale_value;

    /// A PMD leaf that is split is cleared, and not only made invalid, until its table is there.
    Fault split_clear_first;

    /// A device goes on using pages that it was told to let go.
    Fault ignore_invalidation;

    /// There is no memory for pages that have to be faulted in to become exclusive.
    Fault fault_in_no_memory;

    /// The entry of each page that is to become exclusive changes while its folio is being locked.
    Fault entry_changes;

    /// A clear of soft-dirty leaves a writable migration entry writable, as C does.
    Fault keep_migration_writable;

    /// A clear of soft-dirty does not ask for pins after it has changed an entry.
    Fault skip_pin_check;

    /// A tracker that is told of an invalidation marks nothing.
    Fault track_skip_mark;

    /// The begin of an epoch leaves nothing marked for the invalidations that are under way.
    Fault track_skip_in_flight;

    /// What is marked while the begin of an epoch walks is left to the next epoch alone.
    Fault track_skip_late;

    /// What a harvest finds is told to no tracker but the one that it was made for.
    Fault track_skip_others;

    /// A page that came to where nothing was is not looked for.
    Fault track_skip_new;

    /// Where nothing is mapped, nothing is marked.
    Fault track_skip_hole;

    /// The pages of an aborted epoch are not in the next.
    Fault track_skip_abort;

    /// The dirty bits that the begin of an epoch has taken go to no folio.
    Fault track_skip_transfer;

    /// Who takes dirty bits of a file's entries tells no subscriber of the file.
    Fault filemap_skip_tell;

    /// A tracker of a file is not told of stores.
    Fault track_skip_stored;

    /// A tracker of a file is not told of contents that are replaced.
    Fault track_skip_replaced;

    /// A tracker of a file does not look at the entries that map it.
    Fault track_skip_walk;

    /// A tracker in mode full leaves entries writable.
    Fault track_skip_wrprotect;

    /// A tracker in mode full takes no page for changed whose entry is writable and not dirty.
    Fault track_skip_writable;

    /// A tracker in mode full marks nothing for what takes the write permission alone.
    Fault track_skip_lowered;

    /// A tracker in mode full does not look for anonymous pages that a debugger may store to.
    Fault track_skip_forced;

    /// A tracker takes memory that only a driver maps for what it can track.
    Fault track_skip_driver;

    /// A tracker takes a page of zeroes in a private mapping of a file for nothing.
    Fault track_skip_zero_page;

    /// A tracker of a file in mode full does not report a huge leaf that its range covers in part.
    Fault track_skip_partial;

    /// A call that splits leaves has one page table for each part of its range.
    Fault few_tables;

    /// What was used up of page tables in one part of a range is so in all later ones.
    Fault skip_renew;

    /// A clear of soft-dirty met a writable migration entry.
    Count migrations_met;

    /// A zap met a migration entry.
    Count migrations_zapped;

    /// Threads that went on from a gate though nobody let them go.
    #[cfg_attr(not(mmops_faults), allow(dead_code))]
    Count gates_given_up;

    /// A walk has changed entries, and is about to flush. Under no spinlock.
    Gate before_flush;

    /// A clear of soft-dirty is between two pieces. Under no lock.
    Gate between_pieces;

    /// A walk has seen a huge leaf, and is about to lock it.
    Gate before_lock;

    /// A walk has seen a PTE table, and is about to lock it.
    Gate before_table_lock;

    /// The begin of an epoch has taken the marks, and is about to walk.
    Gate track_marks_taken;

    /// A subscriber of an address space was told of the begin of an invalidation. No entry has
    /// changed yet.
    Gate invalidation_begun;

    /// A subscriber of an address space was told of the end of an invalidation. Whoever migrates a
    /// page has put migration entries in its place by then, and not moved it yet.
    Gate invalidation_ended;

    /// A device is about to store to a page that it has for itself. Under the lock of its notifier,
    /// which is a mutex in the test driver.
    Gate device_stores;

    /// An entry that is to be protected is locked, and not changed yet; with a fault, the new value
    /// is made and not stored yet. Under the page-table lock.
    SpinGate entry_changes_now;

    /// A clear of soft-dirty has asked whether there are pins, and changes the entries of a table
    /// next. Under the page-table lock.
    SpinGate soft_dirty_now;

    /// A PMD leaf is made invalid, and its table is not there yet. Under the page-table lock.
    SpinGate split_now;

    /// A zap has taken dirty entries, and is about to flush. Under the page-table lock.
    SpinGate zap_before_flush;
}

/// Runs `change` on a page-table entry in place, or as a fault has it: on a copy, with the entry
/// cleared or left alone meanwhile.
///
/// # Safety
///
/// `entry` is a valid page-table entry of the size of a word, and its lock is held.
#[inline(always)]
pub(crate) unsafe fn protect_entry<T>(entry: *mut T, change: impl FnOnce(*mut T) -> u32) -> u32 {
    let clear = protect_clear_first();

    if !clear && !protect_stale_value() {
        entry_changes_now();
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

    entry_changes_now();
    atomic.store(copy, Ordering::SeqCst);
    ret
}

/// Between the invalidation of a PMD leaf and the table that replaces it.
///
/// # Safety
///
/// `pmdp` is the entry of an invalidated leaf, and its lock is held.
#[inline(always)]
pub(crate) unsafe fn split_window(pmdp: *mut bindings::pmd_t) {
    if split_clear_first() {
        // SAFETY: By this function's safety requirements; the CPU changes it atomically, too.
        unsafe { AtomicUsize::from_ptr(pmdp.cast()) }.store(0, Ordering::SeqCst);
    }
    split_now();
}

/// Whether a clear of soft-dirty leaves an entry that is not present writable. `is_writable` says
/// whether it is a writable migration entry.
#[inline(always)]
pub(crate) fn keep_writable(is_writable: impl FnOnce() -> bool) -> bool {
    if !HAS_FAULTS || !is_writable() {
        return false;
    }
    migrations_met();
    keep_migration_writable()
}
