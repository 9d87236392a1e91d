// SPDX-License-Identifier: GPL-2.0

//! Folios that are marked dirty by a kernel thread, since the task that owed the mark was killed.

use super::FolioRef;
use crate::{
    bindings,
    workqueue, //
};
use core::{
    pin::Pin,
    ptr::NonNull, //
};
use kernel::{
    impl_has_work,
    new_work,
    prelude::*,
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// Folios that owe a dirty mark, and what it takes to have that done by somebody else: allocated
/// with them, since the one who is killed must not fail.
#[pin_data]
pub(super) struct Batch {
    folios: KVec<FolioRef>,
    #[pin]
    work: Work<Self>,
}

impl_has_work! {
    impl HasWork<Self> for Batch { self.work }
}

impl Batch {
    /// Room for `capacity` folios. Sleeps.
    pub(super) fn new(capacity: usize) -> Result<Pin<KBox<Self>>> {
        let folios = KVec::with_capacity(capacity, GFP_KERNEL)?;

        KBox::pin_init(
            pin_init!(Self {
                folios,
                work <- new_work!("mmops::folio::late"),
            }),
            GFP_KERNEL,
        )
    }

    /// Number of folios that there is room for.
    pub(super) fn room(&self) -> usize {
        self.folios.capacity() - self.folios.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.folios.is_empty()
    }

    /// Pins and adds a folio; false if it cannot be pinned, or there is no room.
    ///
    /// # Safety
    ///
    /// The folio is mapped by a present entry whose page-table lock is held.
    #[inline(always)]
    pub(super) unsafe fn push(self: Pin<&mut Self>, folio: NonNull<bindings::folio>) -> bool {
        let folios = self.project().folios;

        // Neighbours are often of one large folio; one reference does.
        if folios.last().is_some_and(|last| last.0 == folio) {
            return true;
        }
        // SAFETY: By this function's safety requirements the folio is mapped.
        match unsafe { FolioRef::get(folio) } {
            Some(folio) => folios.push_within_capacity(folio).is_ok(),
            None => false,
        }
    }

    /// Drops the folios for which `f` says no.
    pub(super) fn retain(self: Pin<&mut Self>, mut f: impl FnMut(&FolioRef) -> bool) {
        self.project().folios.retain(|folio| f(folio));
    }
}

impl WorkItem for Batch {
    type Pointer = Pin<KBox<Self>>;

    fn run(mut this: Pin<KBox<Self>>) {
        this.as_mut().retain(|folio| {
            folio.lock().mark_dirty();
            false
        });
    }
}

/// Has the folios marked dirty by a kernel thread. `mmops.ko` is not unloaded before.
pub(super) fn mark(batch: Pin<KBox<Batch>>) {
    workqueue::enqueue(batch);
}
