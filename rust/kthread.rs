// SPDX-License-Identifier: GPL-2.0

//! Work that a kernel thread does for somebody who waits for it.

use crate::{
    bindings,
    inside, //
};
use core::ptr;
use kernel::{
    error::to_result,
    prelude::*,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// Whoever waits for a kernel thread, as the thread knows it.
pub struct Waiter(NotThreadSafe);

impl Waiter {
    /// Lets others run, and tells whether whoever waits is about to die.
    ///
    /// To be called between the steps of long work, as [`crate::signal::interruption`], which would
    /// ask about the kernel thread itself. May sleep.
    ///
    /// # Errors
    ///
    /// `EINTR` if the one who waits has got a fatal signal.
    ///
    /// Source: `kthread_should_stop()`, `cond_resched()`.
    #[inline(never)]
    pub fn interruption(&self) -> Result {
        // SAFETY: Sleeping is allowed here.
        unsafe { bindings::mmops_cond_resched() };
        // SAFETY: The value exists in a kernel thread alone.
        if unsafe { bindings::mmops_kthread_should_stop() } {
            Err(EINTR)
        } else {
            Ok(())
        }
    }
}

/// What a kernel thread is to do, and what came of it.
struct Job<F, R> {
    f: Option<F>,
    ret: Option<R>,
    done: Opaque<kernel::bindings::completion>,
}

/// Runs `f` in a kernel thread of its own, and returns what it returned.
///
/// Waits for the end of the thread, so that `f` may borrow, and so that the code of `f` may go
/// afterwards. A fatal signal does not end the wait: `f` learns of it from its [`Waiter`], and has
/// to return soon. Sleeps; a lock that `f` takes must not be held.
///
/// # Errors
///
/// - `EDEADLK` if the current task is inside of a walk or an invalidation, below `i_mmap_rwsem`, or
///   in a callback of a subscriber: the thread is inside of nothing, and `f` might wait for the end
///   of that, with the current task waiting for `f`;
/// - `ENOMEM`, or what else keeps the kernel from making a thread, such as `EAGAIN`;
/// - `EINTR` if a fatal signal came before `f` was called.
///
/// Source: `kthread_create()`, `kthread_stop()`.
pub fn run<R: Send>(name: &'static CStr, f: impl FnOnce(&Waiter) -> R + Send) -> Result<R> {
    let mut job = Job {
        f: Some(f),
        ret: None,
        done: Opaque::uninit(),
    };
    let entry = entry_of(&job);
    let data = ptr::from_mut(&mut job);

    // SAFETY: The job is of the types of the function, and is left alone until the thread ended.
    unsafe { start(name, entry, data.cast(), (*data).done.get()) }?;
    job.ret.ok_or(EINTR)
}

type Entry = unsafe extern "C" fn(*mut c_void) -> c_int;

fn entry_of<F: FnOnce(&Waiter) -> R, R>(_job: &Job<F, R>) -> Entry {
    entry::<F, R>
}

/// # Safety
///
/// `data` is a [`Job`] of these types, of which nobody else uses anything but `done`, which is
/// initialized. This is a kernel thread.
unsafe extern "C" fn entry<F: FnOnce(&Waiter) -> R, R>(data: *mut c_void) -> c_int {
    let job = data.cast::<Job<F, R>>();
    // SAFETY: By this function's safety requirements.
    let (f, ret) = unsafe { (&mut (*job).f, &mut (*job).ret) };

    *ret = f.take().map(|f| f(&Waiter(NotThreadSafe)));
    // SAFETY: As above. The job is there until the thread has ended.
    unsafe { kernel::bindings::complete_all((*job).done.get()) };
    0
}

/// Not generic, so that only mmops.ko calls what it is made of.
///
/// # Safety
///
/// `entry` may be called with `job` by another thread, and `done` is valid, as long as this
/// function does not return.
#[inline(never)]
unsafe fn start(
    name: &'static CStr,
    entry: Entry,
    job: *mut c_void,
    done: *mut kernel::bindings::completion,
) -> Result {
    inside::may_wait()?;
    // SAFETY: By this function's safety requirements; the C function returns when the thread has
    // ended, or was never let run.
    to_result(unsafe { bindings::mmops_kthread_run(Some(entry), job, name.as_char_ptr(), done) })
}
