// SPDX-License-Identifier: GPL-2.0

//! Folios whose dirty bit was taken out of an entry, until they can be marked dirty.
//!
//! [`queue`] holds those that wait for the TLB flush, [`late`] those whose lock a task that was
//! killed did not wait for.

mod late;
mod queue;

pub(crate) use queue::DirtyQueue;

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*, //
};

/// A folio with a pin of its own, or, of anonymous memory, a reference.
///
/// Of a file a pin: reclaim may take the buffers of a folio that is only referenced, and ext4 has
/// no way to write back a folio that is marked dirty without them.
///
/// # Invariants
///
/// The value owns one pin of the folio, as `mmops_folio_pin()` takes it.
struct FolioRef(NonNull<bindings::folio>);

// SAFETY: A pin belongs to nobody in particular: any task may use the folio through it, and drop
// it.
unsafe impl Send for FolioRef {}

impl FolioRef {
    /// Pins a folio; `None` if it has too many references, as a process can arrange.
    ///
    /// # Safety
    ///
    /// The folio is mapped by a present entry whose page-table lock is held.
    #[inline(always)]
    unsafe fn get(folio: NonNull<bindings::folio>) -> Option<Self> {
        let overflow = crate::faults::pin_fails();

        // SAFETY: The mapping holds a reference, by this function's safety requirements.
        if unsafe { bindings::mmops_folio_pin(folio.as_ptr(), overflow) } {
            // INVARIANT: The pin was just taken.
            Some(Self(folio))
        } else {
            None
        }
    }

    /// Whether each block of the folio is dirty, so that a mark has nothing to add.
    ///
    /// `PG_dirty` alone does not say so: a file system whose blocks are smaller than the folio
    /// keeps dirty state for each of them (buffers of ext4, iomap of XFS), and writes no others.
    fn is_all_dirty(&self) -> bool {
        if crate::faults::part_is_all() {
            // SAFETY: By the type invariants the folio is valid.
            return unsafe { bindings::mmops_folio_test_dirty(self.0.as_ptr()) };
        }

        // SAFETY: As above.
        unsafe { bindings::mmops_folio_is_all_dirty(self.0.as_ptr()) }
    }

    fn try_lock(&self) -> Option<FolioLock<'_>> {
        if crate::faults::trylock_fails() {
            return None;
        }

        // SAFETY: As above.
        unsafe { bindings::mmops_folio_trylock(self.0.as_ptr()) }.then(|| FolioLock(self))
    }

    /// Waits for the lock; `EINTR` if a fatal signal comes first, or has come.
    ///
    /// Whoever holds it may wait for a file system that does not answer.
    fn lock_killable(&self) -> Result<FolioLock<'_>> {
        // SAFETY: As above.
        to_result(unsafe { bindings::mmops_folio_lock_killable(self.0.as_ptr()) })?;
        Ok(FolioLock(self))
    }

    fn lock(&self) -> FolioLock<'_> {
        // SAFETY: As above.
        unsafe { bindings::mmops_folio_lock(self.0.as_ptr()) };
        FolioLock(self)
    }
}

impl Drop for FolioRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the pin is owned.
        unsafe { bindings::mmops_folio_unpin(self.0.as_ptr()) };
    }
}

/// A locked folio.
///
/// # Invariants
///
/// The current task holds the lock of the folio.
struct FolioLock<'a>(&'a FolioRef);

impl FolioLock<'_> {
    /// Marks the folio dirty, all blocks of it, unless it was truncated meanwhile.
    ///
    /// One of shmem may be in the swap cache by now: then it is written to swap again.
    ///
    /// Sleeps where [`Self::mark_may_allocate`] says so.
    fn mark_dirty(&self) {
        let folio = self.0 .0.as_ptr();

        // SAFETY: The folio is valid and locked, so it does not leave either cache.
        if unsafe { bindings::mmops_folio_is_cached(folio) } {
            // SAFETY: As above.
            unsafe { bindings::mmops_folio_mark_dirty_quiet(folio) };
        }
    }

    /// Whether the file system may have to allocate the dirty state of the folio's blocks first,
    /// and so to reclaim memory.
    fn mark_may_allocate(&self) -> bool {
        // SAFETY: The folio is valid and locked.
        unsafe { bindings::mmops_folio_mark_may_allocate(self.0 .0.as_ptr()) }
    }
}

impl Drop for FolioLock<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the lock is held.
        unsafe { bindings::mmops_folio_unlock(self.0 .0.as_ptr()) };
    }
}
