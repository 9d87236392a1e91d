// SPDX-License-Identifier: GPL-2.0

//! Folios whose dirty bit was taken out of an entry, until they can be marked dirty.

use crate::bindings;
use core::ptr::NonNull;
use kernel::prelude::*;

/// A folio with a pin of its own.
///
/// A pin and not a plain reference: reclaim may take the buffers of a folio that is only
/// referenced, and ext4 has no way to write back a folio that is marked dirty without them.
///
/// # Invariants
///
/// The value owns one pin of the folio.
struct FolioRef(NonNull<bindings::folio>);

impl FolioRef {
    /// Pins a folio.
    ///
    /// # Safety
    ///
    /// The folio is mapped by a present entry whose page-table lock is held.
    #[inline(always)]
    unsafe fn get(folio: NonNull<bindings::folio>) -> Self {
        // SAFETY: The mapping holds a reference, by this function's safety requirements.
        unsafe { bindings::mmops_folio_pin(folio.as_ptr()) };
        // INVARIANT: The pin was just taken.
        Self(folio)
    }

    fn is_dirty(&self) -> bool {
        // SAFETY: By the type invariants the folio is valid.
        unsafe { bindings::mmops_folio_test_dirty(self.0.as_ptr()) }
    }

    fn try_lock(&self) -> Option<FolioLock<'_>> {
        if crate::faults::trylock_fails() {
            return None;
        }

        // SAFETY: As above.
        unsafe { bindings::mmops_folio_trylock(self.0.as_ptr()) }.then(|| FolioLock(self))
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
    /// Marks the folio dirty, unless it was truncated meanwhile.
    ///
    /// One of shmem may be in the swap cache by now: then it is written to swap again.
    fn mark_dirty(&self) {
        let folio = self.0 .0.as_ptr();

        // SAFETY: The folio is valid and locked, so it does not leave either cache.
        if unsafe { bindings::mmops_folio_is_cached(folio) } {
            // SAFETY: As above.
            unsafe { kernel::bindings::folio_mark_dirty(folio) };
        }
    }
}

impl Drop for FolioLock<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the lock is held.
        unsafe { bindings::mmops_folio_unlock(self.0 .0.as_ptr()) };
    }
}

/// Folios that owe a dirty mark after the next TLB flush.
///
/// The pin keeps reclaim from freeing a folio whose entry is clean already and which nobody has
/// marked dirty yet. Of fixed capacity: nothing is allocated while a lock is held.
///
/// A folio that is clean by then is marked under its lock, as file systems demand. That lock comes
/// before `i_mmap_rwsem`, so below the latter it is only tried.
pub(crate) struct DirtyQueue {
    folios: Option<KVec<FolioRef>>,
}

impl DirtyQueue {
    /// Allocates room for `capacity` folios. Sleeps.
    pub(crate) fn new(capacity: usize) -> Result<Self> {
        Ok(Self {
            folios: Some(KVec::with_capacity(capacity, GFP_KERNEL)?),
        })
    }

    /// A queue that takes nothing.
    pub(crate) const fn none() -> Self {
        Self { folios: None }
    }

    /// Number of folios that there is room for.
    pub(crate) fn room(&self) -> usize {
        self.folios
            .as_ref()
            .map_or(0, |folios| folios.capacity() - folios.len())
    }

    /// Notes the folio that a page frame belongs to. Without room it is not noted; nor if it
    /// is dirty and the TLB has been `flushed` since the entry was cleaned: whoever takes that mark
    /// from now on writes all that was stored.
    ///
    /// # Safety
    ///
    /// `pfn` is mapped by a present entry that is not special, and whose page-table lock is held.
    #[inline(always)]
    pub(crate) unsafe fn push(&mut self, pfn: usize, flushed: bool) {
        // SAFETY: By this function's safety requirements there is a folio.
        let folio = unsafe { bindings::mmops_pfn_folio(pfn) };
        let Some(folio) = NonNull::new(folio) else {
            return;
        };

        // SAFETY: The mapping holds a reference.
        if flushed && unsafe { bindings::mmops_folio_test_dirty(folio.as_ptr()) } {
            return;
        }

        let Some(folios) = &mut self.folios else {
            return;
        };

        // Neighbours are often of one large folio; one reference does.
        if folios.last().is_some_and(|last| last.0 == folio) {
            return;
        }
        // SAFETY: By this function's safety requirements the folio is mapped.
        let folio = unsafe { FolioRef::get(folio) };

        // The caller has made room; if not, dropping the pin is all that can be done.
        let _ = folios.push_within_capacity(folio);
    }

    /// Marks the folios dirty and drops them, but for those whose lock is taken by somebody else.
    ///
    /// To be called after the TLB flush. Does not sleep for a folio lock.
    pub(crate) fn transfer_trylock(&mut self) {
        let Some(folios) = &mut self.folios else {
            return;
        };

        folios.retain(|folio| {
            if folio.is_dirty() {
                return false;
            }
            match folio.try_lock() {
                Some(locked) => {
                    locked.mark_dirty();
                    false
                }
                None => true,
            }
        });
    }

    /// Marks all folios dirty and drops them.
    ///
    /// To be called after the TLB flush, without `i_mmap_rwsem` or a folio lock. Sleeps.
    pub(crate) fn transfer(&mut self) {
        let Some(folios) = &mut self.folios else {
            return;
        };

        for folio in folios.drain_all() {
            if !folio.is_dirty() {
                folio.lock().mark_dirty();
            }
        }
    }
}

impl Drop for DirtyQueue {
    fn drop(&mut self) {
        self.transfer();
    }
}
