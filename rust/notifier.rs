// SPDX-License-Identifier: GPL-2.0

//! MMU notifiers: telling secondary MMUs what happens to a range, and being told.
//!
//! - To tell: [`with_invalidation`], as every operation of the crate does.
//! - To be told of a range: [`IntervalNotifier`], with which a driver mirrors page tables.
//! - To be told of a whole address space and of its end: [`MmNotifier`].
//!
//! C header: [`include/linux/mmu_notifier.h`](srctree/include/linux/mmu_notifier.h)

mod interval;
mod mm;
mod what;

pub use self::{
    interval::{
        CriticalSection,
        IntervalGuard,
        IntervalNotifier,
        IntervalOps,
        Token, //
    },
    mm::{
        MmNotifier,
        MmOps, //
    },
    what::Invalidated, //
};

use crate::{
    bindings,
    mm::MmapRead,
    range::AddrRange, //
};
use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    error::to_result,
    mm::MmWithUser,
    prelude::*,
    types::NotThreadSafe, //
};

/// Why a range is invalidated; C's `enum mmu_notifier_event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `munmap` or `mremap`.
    Unmap,
    /// Entries are cleared, for one of many reasons.
    Clear,
    /// The protection of a whole VMA changes.
    ProtectionVma,
    /// Entries of single pages lose or gain a permission.
    ProtectionPage,
    /// Soft-dirty bits are cleared.
    SoftDirty,
    /// The address space ends.
    Release,
    /// Pages migrate to or from a device; filtered by owner.
    Migrate,
    /// Entries become device-exclusive; filtered by owner.
    Exclusive,
}

impl Event {
    fn as_raw(self) -> bindings::mmu_notifier_event {
        use kernel::bindings as b;

        match self {
            Event::Unmap => b::mmu_notifier_event_MMU_NOTIFY_UNMAP,
            Event::Clear => b::mmu_notifier_event_MMU_NOTIFY_CLEAR,
            Event::ProtectionVma => b::mmu_notifier_event_MMU_NOTIFY_PROTECTION_VMA,
            Event::ProtectionPage => b::mmu_notifier_event_MMU_NOTIFY_PROTECTION_PAGE,
            Event::SoftDirty => b::mmu_notifier_event_MMU_NOTIFY_SOFT_DIRTY,
            Event::Release => b::mmu_notifier_event_MMU_NOTIFY_RELEASE,
            Event::Migrate => b::mmu_notifier_event_MMU_NOTIFY_MIGRATE,
            Event::Exclusive => b::mmu_notifier_event_MMU_NOTIFY_EXCLUSIVE,
        }
    }

    /// An event that the crate does not know says that entries are cleared, which asks the most of
    /// a subscriber.
    fn from_raw(raw: bindings::mmu_notifier_event) -> Self {
        const ALL: [Event; 8] = [
            Event::Unmap,
            Event::Clear,
            Event::ProtectionVma,
            Event::ProtectionPage,
            Event::SoftDirty,
            Event::Release,
            Event::Migrate,
            Event::Exclusive,
        ];

        ALL.into_iter()
            .find(|event| event.as_raw() == raw)
            .unwrap_or(Event::Clear)
    }
}

/// Whom an event comes from, so that a subscriber can leave out its own.
///
/// Only its identity counts; nothing is read through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(*mut c_void);

// SAFETY: Nothing is read through the pointer.
unsafe impl Send for Owner {}

// SAFETY: As above.
unsafe impl Sync for Owner {}

impl Owner {
    /// No owner: every subscriber takes the event as somebody else's.
    pub const NONE: Self = Self(ptr::null_mut());

    /// The identity of a driver's pinned object, which has to outlive each notifier that is made
    /// with it: another object at its address would be taken for it.
    pub fn of<T>(object: Pin<&T>) -> Self {
        const {
            assert!(
                size_of::<T>() != 0,
                "objects without a size share an address"
            )
        };
        Self(ptr::from_ref(object.get_ref()).cast_mut().cast())
    }

    /// The identity of an object that does not move as long as it is an owner.
    pub(crate) fn at<T>(object: &T) -> Self {
        Self(ptr::from_ref(object).cast_mut().cast())
    }

    /// Whether this is somebody, and not [`Owner::NONE`].
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

/// An invalidation that secondary MMUs know of, from `invalidate_range_start` to
/// `invalidate_range_end`.
///
/// The end runs when the value is dropped.
///
/// # Invariants
///
/// `invalidate_range_start` succeeded for `range`, and the `mm` in it, and a lock that keeps others
/// from subscribing to it for the first time, outlive `'a`.
pub(crate) struct Invalidation<'a> {
    range: bindings::mmu_notifier_range,
    _mm: PhantomData<&'a MmWithUser>,
    // Start and end nest like a lock, in one thread.
    _nts: NotThreadSafe,
}

impl Invalidation<'_> {
    /// Tells subscribers that `range` is about to change. May sleep.
    ///
    /// Source: `mmu_notifier_invalidate_range_start()`.
    ///
    /// # Safety
    ///
    /// `mm` is valid for as long as the value lives. It need not have users: a walk over a file's
    /// mappings may meet an mm that exits, whose VMAs wait for the lock that the walk holds.
    ///
    /// The mmap lock, or the lock of a reverse map of a VMA of it, is held for as long:
    /// `mm_take_all_locks()` keeps a first subscriber away by them. Start and end look each for
    /// themselves whether there is one.
    pub(crate) unsafe fn start(
        mm: *mut bindings::mm_struct,
        range: &AddrRange,
        event: Event,
        owner: Owner,
    ) -> Self {
        let mut raw = Self::init(mm, range, event, owner);

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
        event: Event,
        owner: Owner,
    ) -> bindings::mmu_notifier_range {
        let mut raw = bindings::mmu_notifier_range::default();

        // SAFETY: `raw` is valid for writes, and the function only stores the arguments.
        unsafe {
            bindings::mmops_mmu_notifier_range_init(
                &mut raw,
                event.as_raw(),
                mm,
                range.start(),
                range.end(),
                owner.0,
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
    event: Event,
    owner: Owner,
    f: impl FnOnce() -> R,
) -> R {
    let invalidation = start_for(guard, range, event, owner);
    let ret = f();

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
    event: Event,
    owner: Owner,
    f: impl FnOnce() -> R,
) -> Result<R> {
    let invalidation = start_nonblock(guard, range, event, owner)?;
    let ret = f();

    drop(invalidation);
    Ok(ret)
}

// The two below are not generic, so that only mmops.ko calls what is exported to it alone.

#[inline(never)]
fn start_for<'a>(
    guard: &'a MmapRead<'_>,
    range: &AddrRange,
    event: Event,
    owner: Owner,
) -> Invalidation<'a> {
    // SAFETY: The guard keeps the mm, its users and the lock for the lifetime of the result.
    unsafe { Invalidation::start(guard.as_ptr(), range, event, owner) }
}

#[inline(never)]
fn start_nonblock<'a>(
    guard: &'a MmapRead<'_>,
    range: &AddrRange,
    event: Event,
    owner: Owner,
) -> Result<Invalidation<'a>> {
    let mut raw = Invalidation::init(guard.as_ptr(), range, event, owner);

    // SAFETY: `raw` is initialized; the guard keeps the mm, its users and the lock for the lifetime
    // of the result.
    to_result(unsafe { bindings::mmops_mmu_notifier_invalidate_range_start_nonblock(&mut raw) })?;

    // INVARIANT: The start has just succeeded.
    Ok(Invalidation {
        range: raw,
        _mm: PhantomData,
        _nts: NotThreadSafe,
    })
}
