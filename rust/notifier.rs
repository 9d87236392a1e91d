// SPDX-License-Identifier: GPL-2.0

//! MMU notifiers: telling secondary MMUs what happens to a range, and being told.
//!
//! - To tell: [`with_invalidation`], as every operation of the crate does.
//! - To be told of a range: [`IntervalNotifier`], with which a driver mirrors page tables.
//! - To be told of a whole address space and of its end: [`MmNotifier`].
//!
//! C header: [`include/linux/mmu_notifier.h`](srctree/include/linux/mmu_notifier.h)

mod event;
mod interval;
mod invalidated;
mod mm;
mod owner;
mod registry;

pub use self::{
    event::{
        ChangeEvent,
        Event, //
    },
    interval::{
        CriticalSection,
        IntervalGuard,
        IntervalNotifier,
        IntervalOps,
        Token, //
    },
    invalidated::Invalidated,
    mm::{
        MmNotifier,
        MmOps, //
    },
    owner::Owner, //
};

pub(crate) use self::{
    event::Cause,
    owner::OwnerRef, //
};

use crate::{
    bindings,
    inside::invalidating,
    mm::MmapRead,
    range::AddrRange, //
};
use core::marker::PhantomData;
use kernel::{
    error::to_result,
    mm::MmWithUser,
    prelude::*,
    types::NotThreadSafe, //
};

/// What the notifiers of the crate need while it is loaded.
pub(crate) struct Global {
    /// It ends subscriptions.
    _registry: registry::Registry,
}

impl Global {
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// There is one value, for the module; there is no subscription any more when it is dropped.
    pub(crate) unsafe fn new() -> Result<Self> {
        Ok(Self {
            // SAFETY: By this function's safety requirements.
            _registry: unsafe { registry::Registry::new()? },
        })
    }
}

/// An invalidation that secondary MMUs know of, from `invalidate_range_start` to
/// `invalidate_range_end`.
///
/// The end runs when the value is dropped.
///
/// # Invariants
///
/// `invalidate_range_start` succeeded for `range`, and the `mm` in it, the owner in it, and a lock
/// that keeps others from subscribing to it for the first time, outlive `'a`.
pub(crate) struct Invalidation<'a> {
    range: bindings::mmu_notifier_range,
    _mm: PhantomData<&'a MmWithUser>,
    // Start and end nest like a lock, in one thread.
    _nts: NotThreadSafe,
}

impl<'a> Invalidation<'a> {
    /// Tells subscribers that `range` is about to change. May sleep.
    ///
    /// Source: `mmu_notifier_invalidate_range_start()`.
    ///
    /// # Safety
    ///
    /// `mm` is valid for as long as the value lives. It need not have users: a walk over a file's
    /// mappings may meet an mm that exits, whose VMAs wait for the lock that the walk holds.
    ///
    /// The mmap lock of it, or `i_mmap_rwsem` of a file that one of its VMAs maps, is held for as
    /// long: `mm_take_all_locks()` takes all of these to let a first subscriber in. Start and end
    /// look each for themselves whether there is one.
    pub(crate) unsafe fn start(
        mm: *mut bindings::mm_struct,
        range: &AddrRange,
        cause: Cause<'a>,
    ) -> Self {
        let mut raw = Self::init(mm, range, cause);

        // SAFETY: `raw` is initialized and `mm` is valid by this function's safety requirements.
        unsafe { bindings::mmops_mmu_notifier_invalidate_range_start(&mut raw) };

        // INVARIANT: The start has just been called; a blocking start cannot fail.
        Self {
            range: raw,
            _mm: PhantomData,
            _nts: NotThreadSafe,
        }
    }

    fn init(
        mm: *mut bindings::mm_struct,
        range: &AddrRange,
        cause: Cause<'_>,
    ) -> bindings::mmu_notifier_range {
        let mut raw = bindings::mmu_notifier_range::default();

        // SAFETY: `raw` is valid for writes, and the function only stores the arguments.
        unsafe {
            bindings::mmops_mmu_notifier_range_init(
                &mut raw,
                cause.event().as_raw(),
                mm,
                range.start(),
                range.end(),
                cause.owner(),
            )
        };
        raw
    }
}

impl Drop for Invalidation<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the start succeeded and the mm is valid.
        unsafe { bindings::mmops_mmu_notifier_invalidate_range_end(&mut self.range) };
    }
}

/// Runs `f` while secondary MMUs know that `range` of the address space is being invalidated.
///
/// The end is told when `f` returns, whatever it returns. May sleep. The mmap lock keeps the first
/// subscriber of the address space from coming between start and end, which would then not match.
///
/// Source: `mmu_notifier_invalidate_range_start()` and `_end()`.
pub fn with_invalidation<R>(
    guard: &MmapRead<'_>,
    range: &AddrRange,
    event: ChangeEvent,
    f: impl FnOnce() -> R,
) -> R {
    let invalidation = start_for(guard, range, event.cause());
    let ret = invalidating(f);

    drop(invalidation);
    ret
}

/// As [`with_invalidation`] for a caller that must not block: `f` is run only if no subscriber
/// has to sleep. Does not sleep itself.
///
/// # Errors
///
/// `EAGAIN` if a subscriber would have to sleep; `f` was not run then.
pub fn try_with_invalidation<R>(
    guard: &MmapRead<'_>,
    range: &AddrRange,
    event: ChangeEvent,
    f: impl FnOnce() -> R,
) -> Result<R> {
    let invalidation = start_nonblock(guard, range, event.cause())?;
    let ret = invalidating(f);

    drop(invalidation);
    Ok(ret)
}

// The two below are not generic, so that only mmops.ko calls what is exported to it alone.

#[inline(never)]
fn start_for<'a>(guard: &'a MmapRead<'_>, range: &AddrRange, cause: Cause<'a>) -> Invalidation<'a> {
    // SAFETY: The guard keeps the mm and holds its mmap lock for the lifetime of the result.
    unsafe { Invalidation::start(guard.as_ptr(), range, cause) }
}

#[inline(never)]
fn start_nonblock<'a>(
    guard: &'a MmapRead<'_>,
    range: &AddrRange,
    cause: Cause<'a>,
) -> Result<Invalidation<'a>> {
    let mut raw = Invalidation::init(guard.as_ptr(), range, cause);

    // SAFETY: `raw` is initialized; the guard keeps the mm and holds its mmap lock for the lifetime
    // of the result.
    to_result(unsafe { bindings::mmops_mmu_notifier_invalidate_range_start_nonblock(&mut raw) })?;

    // INVARIANT: The start has just succeeded.
    Ok(Invalidation {
        range: raw,
        _mm: PhantomData,
        _nts: NotThreadSafe,
    })
}
