// SPDX-License-Identifier: GPL-2.0

//! Folios that are marked dirty by a kernel thread, since the task that owed the mark was killed.

use super::FolioRef;
use crate::bindings;
use core::{
    pin::Pin,
    ptr,
    ptr::NonNull,
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    }, //
};
use kernel::{
    impl_has_work,
    new_work,
    prelude::*,
    workqueue::{
        Queue,
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

/// Where the work is done; null unless the module is loaded.
static WORKQUEUE: AtomicPtr<kernel::bindings::workqueue_struct> = AtomicPtr::new(ptr::null_mut());

/// The kernel threads that mark folios for tasks that were killed, for as long as the module is
/// loaded: it is not unloaded before all is marked.
pub(crate) struct LateMarks(());

impl LateMarks {
    /// Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// There is one value, made when the module is loaded: nothing of the crate that marks folios
    /// runs before it is there, nor after it is dropped.
    pub(crate) unsafe fn new() -> Result<Self> {
        // SAFETY: Sleeping is allowed here.
        let queue = unsafe { bindings::mmops_alloc_workqueue() };

        if queue.is_null() {
            return Err(ENOMEM);
        }
        WORKQUEUE.store(queue, Ordering::Release);
        Ok(Self(()))
    }
}

impl Drop for LateMarks {
    fn drop(&mut self) {
        let queue = WORKQUEUE.swap(ptr::null_mut(), Ordering::AcqRel);

        // SAFETY: The queue was made by `new`, for the one value. By the safety requirements of
        // that nobody adds to it any more; what it holds is done before this returns.
        unsafe { bindings::mmops_destroy_workqueue(queue) };
    }
}

/// Has the folios marked dirty by a kernel thread.
pub(super) fn mark(batch: Pin<KBox<Batch>>) {
    let queue = WORKQUEUE.load(Ordering::Acquire);

    // SAFETY: By the safety requirements of `LateMarks::new` the queue is there.
    unsafe { Queue::from_raw(queue) }.enqueue(batch);
}
