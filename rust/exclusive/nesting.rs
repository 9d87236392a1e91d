// SPDX-License-Identifier: GPL-2.0

//! Threads that are in the function that programs a device.
//!
//! What that function is called with is locked: the folios of its pages, and the notifier. A thread
//! that began anew from there would wait for what it holds itself. A type cannot say it: any code
//! can take one more guard of the mmap lock.

use core::ptr;
use kernel::{
    bindings,
    prelude::*, //
};

/// A thread, for as long as it is in the function; on its stack.
struct Thread {
    task: *const bindings::task_struct,
    next: *mut Thread,
}

/// The threads, in a list.
///
/// # Invariants
///
/// Each element is valid as long as it is in the list.
struct Threads {
    first: *mut Thread,
}

// SAFETY: An element is reached under the lock of the list alone, by any thread.
unsafe impl Send for Threads {}

kernel::sync::global_lock! {
    // SAFETY: `init()` is called when the module is loaded, before anybody can use it.
    unsafe(uninit) static THREADS: SpinLock<Threads> = Threads { first: ptr::null_mut() };
}

/// To be called when the module is loaded.
///
/// # Safety
///
/// Called once, before anything else here.
pub(crate) unsafe fn init() {
    // SAFETY: By this function's safety requirements.
    unsafe { THREADS.init() };
}

/// Whether a call that locks folios, or takes them from a device, may be made.
///
/// # Errors
///
/// `EDEADLK` if this thread is in [`within`].
#[inline(never)]
pub(super) fn check() -> Result {
    let me = this_task();
    let threads = THREADS.lock();
    let mut next = threads.first;

    // SAFETY: By the invariants of the list, whose lock is held.
    while let Some(thread) = unsafe { next.as_ref() } {
        if thread.task == me {
            return Err(EDEADLK);
        }
        next = thread.next;
    }
    Ok(())
}

/// Calls a function that must not come back here.
pub(super) fn within(f: impl FnOnce()) {
    let mut thread = Thread {
        task: ptr::null(),
        next: ptr::null_mut(),
    };
    let thread = &raw mut thread;

    // SAFETY: The element stays on the stack until after `leave()`.
    unsafe { enter(thread) };
    f();
    // SAFETY: As above; it was entered.
    unsafe { leave(thread) };
}

/// # Safety
///
/// The element is valid, and nobody else uses it, until [`leave`] was called.
#[inline(never)]
unsafe fn enter(thread: *mut Thread) {
    let task = this_task();
    let mut threads = THREADS.lock();

    // SAFETY: By this function's safety requirements.
    unsafe {
        thread.write(Thread {
            task,
            next: threads.first,
        })
    };
    // INVARIANT: By this function's safety requirements.
    threads.first = thread;
}

/// # Safety
///
/// The element is in the list.
#[inline(never)]
unsafe fn leave(thread: *mut Thread) {
    let mut threads = THREADS.lock();
    let mut link = &raw mut threads.first;

    // SAFETY: By the invariants of the list, all links are valid, and this element comes.
    unsafe {
        while *link != thread {
            link = &raw mut (**link).next;
        }
        *link = (*thread).next;
    }
}

fn this_task() -> *const bindings::task_struct {
    kernel::current!().as_ptr()
}
