// SPDX-License-Identifier: GPL-2.0

//! Folios that owe a dirty mark after the next TLB flush.

use super::late;
use crate::bindings;
use core::{
    pin::Pin,
    ptr::NonNull, //
};
use kernel::prelude::*;

/// Folios that owe a dirty mark after the next TLB flush.
///
/// The pin keeps reclaim from freeing a folio whose entry is clean already and which nobody has
/// marked dirty yet. Of fixed capacity: nothing is allocated while a lock is held.
///
/// A folio that is not dirty as a whole by then is marked under its lock, as file systems demand.
/// That lock comes before `i_mmap_rwsem`, so below the latter it is only tried.
pub(crate) struct DirtyQueue {
    /// `None` if the queue takes nothing, or not any more.
    batch: Option<Pin<KBox<late::Batch>>>,
}

impl DirtyQueue {
    /// Allocates room for `capacity` folios. Sleeps.
    pub(crate) fn new(capacity: usize) -> Result<Self> {
        Ok(Self {
            batch: Some(late::Batch::new(capacity)?),
        })
    }

    /// A queue that takes nothing.
    pub(crate) const fn none() -> Self {
        Self { batch: None }
    }

    /// Number of folios that there is room for.
    pub(crate) fn room(&self) -> usize {
        self.batch.as_ref().map_or(0, |batch| batch.room())
    }

    /// Notes the folio that a page frame belongs to. If that cannot be, the result is false: the
    /// dirty bit has to go back where it was taken.
    ///
    /// A folio that is dirty is not noted if the TLB has been `flushed` since the entry was
    /// cleaned: whoever takes that mark from now on writes all that was stored. Only the blocks
    /// of it that are not dirty are made so.
    ///
    /// # Safety
    ///
    /// `pfn` is mapped by a present entry that is not special, from which a dirty bit was taken,
    /// all under the page-table lock, which is held. A TLB flush covers that entry before the
    /// queue is next transferred or dropped.
    #[inline(always)]
    #[must_use = "a folio that is not noted is not marked"]
    pub(crate) unsafe fn push(&mut self, pfn: usize, flushed: bool) -> bool {
        // SAFETY: By this function's safety requirements there is a folio.
        let folio = unsafe { bindings::mmops_pfn_folio(pfn) };
        let Some(folio) = NonNull::new(folio) else {
            return false;
        };

        // SAFETY: The mapping holds a reference.
        if flushed && unsafe { bindings::mmops_folio_test_dirty(folio.as_ptr()) } {
            // SAFETY: By this function's safety requirements, and it is dirty.
            unsafe { mark_blocks(folio) };
            return true;
        }

        let Some(batch) = &mut self.batch else {
            return false;
        };

        // SAFETY: By this function's safety requirements the folio is mapped.
        unsafe { batch.as_mut().push(folio) }
    }

    /// Marks the folios dirty and drops them, but for those whose lock is taken by somebody else,
    /// and those for which that may need memory.
    ///
    /// The TLB flush that [`Self::push`] asks for comes first. Does not sleep for a folio lock or
    /// for memory.
    pub(crate) fn transfer_trylock(&mut self) {
        let Some(batch) = &mut self.batch else {
            return;
        };

        batch.as_mut().retain(|folio| {
            if folio.is_all_dirty() {
                return false;
            }
            match folio.try_lock() {
                Some(locked) if !locked.mark_may_allocate() => {
                    locked.mark_dirty();
                    false
                }
                _ => true,
            }
        });
    }

    /// Drops all folios without a mark, which loses what was stored: for a fault alone.
    pub(crate) fn forget(&mut self) {
        if let Some(batch) = &mut self.batch {
            batch.as_mut().retain(|_| false);
        }
    }

    /// Marks all folios dirty and drops them.
    ///
    /// If a fatal signal has come, those whose lock is held by somebody else are left to a kernel
    /// thread, which waits for it however long that takes; the queue takes nothing any more then.
    /// They stay pinned until they are marked, so nothing is lost.
    ///
    /// The TLB flush that [`Self::push`] asks for comes first. Sleeps; `i_mmap_rwsem` and folio
    /// locks come after the locks that it takes.
    pub(crate) fn transfer(&mut self) {
        let Some(batch) = &mut self.batch else {
            return;
        };

        batch.as_mut().retain(|folio| {
            if folio.is_all_dirty() {
                return false;
            }
            match folio.lock_killable() {
                Ok(locked) => {
                    locked.mark_dirty();
                    false
                }
                Err(_) => true,
            }
        });
        if !batch.is_empty() {
            if let Some(batch) = self.batch.take() {
                late::mark(batch);
            }
        }
    }
}

impl Drop for DirtyQueue {
    fn drop(&mut self) {
        self.transfer();
    }
}

/// Makes the blocks dirty of a folio that is marked dirty as a whole.
///
/// Without the lock of the folio, as where the kernel zaps a dirty entry: writeback has to take
/// the page-table lock before it takes the mark, and to allocate there is nothing, since the state
/// of the blocks is there for as long as the entry is writable.
///
/// # Safety
///
/// The folio is dirty, and an entry maps it from which a dirty bit was taken under the page-table
/// lock, which is held.
///
/// Source: `zap_present_folio_ptes()`.
#[inline(always)]
unsafe fn mark_blocks(folio: NonNull<bindings::folio>) {
    // SAFETY: The entry keeps the folio.
    if !unsafe { bindings::mmops_folio_is_all_dirty(folio.as_ptr()) } {
        // SAFETY: By this function's safety requirements.
        unsafe { bindings::mmops_folio_mark_dirty_quiet(folio.as_ptr()) };
    }
}
