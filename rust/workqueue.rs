// SPDX-License-Identifier: GPL-2.0

//! Work that the task which owes it must not do itself, or cannot wait for: done by a kernel
//! thread.

use crate::bindings;
use core::{
    ptr,
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    }, //
};
use kernel::{
    prelude::*,
    workqueue::{
        Queue,
        RawWorkItem, //
    }, //
};

/// Where the work is done; null unless the module is loaded.
static WORKQUEUE: AtomicPtr<kernel::bindings::workqueue_struct> = AtomicPtr::new(ptr::null_mut());

/// The kernel threads, for as long as the module is loaded: it is not unloaded before all is done.
pub(crate) struct Global(());

impl Global {
    /// Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// There is one value, made when the module is loaded: nothing of the crate that queues work
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

impl Drop for Global {
    fn drop(&mut self) {
        let queue = WORKQUEUE.swap(ptr::null_mut(), Ordering::AcqRel);

        // SAFETY: The queue was made by `new`, for the one value. By the safety requirements of
        // that nobody adds to it any more; what it holds is done before this returns.
        unsafe { bindings::mmops_destroy_workqueue(queue) };
    }
}

/// Has the work done, soon. Does not sleep.
pub(crate) fn enqueue<W: RawWorkItem<0> + Send + 'static>(work: W) {
    let queue = WORKQUEUE.load(Ordering::Acquire);

    // SAFETY: By the safety requirements of `Global::new` the queue is there.
    unsafe { Queue::from_raw(queue) }.enqueue(work);
}
