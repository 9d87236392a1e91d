// SPDX-License-Identifier: GPL-2.0

//! A subscription to what happens to a whole address space, and to its end.

use super::{
    registry::{
        self,
        Place,
        Subscription, //
    },
    Invalidated, //
};
use crate::{
    inside,
    range::AddrRange, //
};
use core::mem::{
    offset_of,
    ManuallyDrop, //
};
use kernel::{
    bindings,
    error::to_result,
    mm::{
        Mm,
        MmWithUser, //
    },
    page::PAGE_MASK,
    prelude::*,
    sync::aref::ARef,
    types::Opaque, //
};

/// What is told to a subscriber of an address space.
///
/// Invalidations overlap: several threads invalidate at a time, also within each other. Every
/// start has an end, unless the end of the address space or of the subscription comes between.
///
/// None of the methods may enter reclaim (allocate with `GFP_KERNEL`) or take a lock under which
/// somebody does. They run inside an SRCU read-side section, for which dropping the notifier waits.
pub trait MmOps: Send + Sync + 'static {
    /// The page tables of `what.range()` are about to change; a secondary MMU must stop to use the
    /// range before this returns, and not begin again before the end.
    ///
    /// Sleeps only if `what.may_block()`. It cannot refuse: one that has to sleep uses an
    /// [`IntervalNotifier`](super::IntervalNotifier), whose lock is tried for it.
    fn invalidate_range_start(&self, what: &Invalidated);

    /// The page tables have changed, and no CPU uses what was there before.
    ///
    /// Sleeps only if `what.may_block()`.
    fn invalidate_range_end(&self, what: &Invalidated);

    /// The address space ends, or the subscription does. All memory is still there; after this it
    /// goes without further notice.
    ///
    /// It is called at least once, and may be called a second time by a drop that coincides with
    /// the end of the address space.
    fn release(&self);
}

/// A subscription to an address space; it holds what is told.
///
/// The address space may end while the subscription lives: it is not kept alive. Dropping the
/// subscription waits until no callback runs and none will; it sleeps. It must not be done by who
/// is inside of an invalidation, below `i_mmap_rwsem`, for which somebody else may wait inside of
/// one, or in the callback of a subscriber: that would wait for itself. Then the subscription
/// stays, with what it holds, and an error is logged.
///
/// One that is never dropped, as in a `static`, ends when the module of its callbacks is unloaded:
/// then [`MmOps::release`] is called as by a drop, and what is held stays in memory.
pub struct MmNotifier<T: MmOps> {
    // Not in place, so that it can stay.
    inner: ManuallyDrop<Pin<KBox<Inner<T>>>>,
}

/// # Invariants
///
/// `raw` is registered for `mm` with the operations [`Self::OPS`] from the end of the initializer
/// to the drop, unless the module of the operations is unloaded before.
#[pin_data(PinnedDrop)]
struct Inner<T: MmOps> {
    data: T,
    mm: ARef<Mm>,
    // The last, because callbacks come as soon as it is initialized.
    #[pin]
    raw: Opaque<bindings::mmu_notifier>,
}

// SAFETY: `mmu_notifier_unregister()` may be called by any thread; the data is `Send`.
unsafe impl<T: MmOps> Send for Inner<T> {}

// SAFETY: The data is `Sync`, and nothing of `raw` is used by a method but the address.
unsafe impl<T: MmOps> Sync for Inner<T> {}

impl<T: MmOps> Inner<T> {
    const OPS: bindings::mmu_notifier_ops = bindings::mmu_notifier_ops {
        release: Some(Self::release_callback),
        invalidate_range_start: Some(Self::start_callback),
        invalidate_range_end: Some(Self::end_callback),
        clear_flush_young: None,
        clear_young: None,
        test_young: None,
        arch_invalidate_secondary_tlbs: None,
        alloc_notifier: None,
        free_notifier: None,
    };

    fn new<'a>(mm: &'a MmWithUser, data: T) -> impl PinInit<Self, Error> + 'a {
        // INVARIANT: `raw` is initialized by being registered, or not at all.
        try_pin_init!(Self {
            data,
            mm: ARef::<Mm>::from(&**mm),
            raw <- Opaque::try_ffi_init(move |raw: *mut bindings::mmu_notifier| {
                let place = Place::new()?;
                let notifier = bindings::mmu_notifier {
                    ops: &Self::OPS,
                    ..Default::default()
                };

                // SAFETY: `raw` is valid for writes.
                unsafe { raw.write(notifier) };
                // SAFETY: `raw` is pinned, and unregistered before it goes. All fields that the
                // callbacks use are initialized by now. The reference holds a user of the mm.
                to_result(unsafe { bindings::mmu_notifier_register(raw, mm.as_raw()) })?;
                // SAFETY: It was just registered, and `take` is called before it goes. The offset
                // is that of the field in the allocation.
                unsafe {
                    place.fill(
                        Subscription::Mm(raw),
                        raw.byte_sub(offset_of!(Self, raw)).cast(),
                        Self::start_callback as *const () as usize,
                    )
                };
                Ok::<(), Error>(())
            }),
        })
    }

    /// # Safety
    ///
    /// `raw` is the field of a registered notifier of this type, whose callback runs.
    unsafe fn from_raw<'a>(raw: *mut bindings::mmu_notifier) -> &'a Self {
        // SAFETY: All other fields were initialized before `raw` was registered, and the notifier
        // lives until no callback runs any more.
        unsafe { &*kernel::container_of!(Opaque::cast_from(raw), Self, raw) }
    }

    /// # Safety
    ///
    /// `range` is valid.
    unsafe fn what(range: *const bindings::mmu_notifier_range) -> Option<Invalidated> {
        let all = AddrRange::new(0, usize::MAX & PAGE_MASK).ok()?;

        // SAFETY: By this function's safety requirements.
        Some(Invalidated::new(unsafe { &*range }, &all))
    }

    /// # Safety
    ///
    /// Called by the memory management for a registered notifier of this type.
    unsafe extern "C" fn start_callback(
        raw: *mut bindings::mmu_notifier,
        range: *const bindings::mmu_notifier_range,
    ) -> c_int {
        // SAFETY: The caller passes a registered notifier and a valid range.
        let (this, what) = unsafe { (Self::from_raw(raw), Self::what(range)) };

        if let Some(what) = what {
            inside::called_back(|| this.data.invalidate_range_start(&what));
            if what.may_block() {
                crate::faults::invalidation_begun();
            }
        }
        0
    }

    /// # Safety
    ///
    /// As [`Self::start_callback`].
    unsafe extern "C" fn end_callback(
        raw: *mut bindings::mmu_notifier,
        range: *const bindings::mmu_notifier_range,
    ) {
        // SAFETY: The caller passes a registered notifier and a valid range.
        let (this, what) = unsafe { (Self::from_raw(raw), Self::what(range)) };

        if let Some(what) = what {
            inside::called_back(|| this.data.invalidate_range_end(&what));
            if what.may_block() {
                crate::faults::invalidation_ended();
            }
        }
    }

    /// # Safety
    ///
    /// As [`Self::start_callback`].
    unsafe extern "C" fn release_callback(
        raw: *mut bindings::mmu_notifier,
        _mm: *mut bindings::mm_struct,
    ) {
        // SAFETY: The caller passes a registered notifier.
        let this = unsafe { Self::from_raw(raw) };

        inside::called_back(|| this.data.release());
    }
}

#[pinned_drop]
impl<T: MmOps> PinnedDrop for Inner<T> {
    fn drop(self: Pin<&mut Self>) {
        let raw = self.raw.get();

        if registry::take(raw.cast()) {
            // SAFETY: By the type invariants the notifier is registered for `mm`, which the value
            // holds. When the function returns, no callback runs, and none will.
            unsafe { bindings::mmu_notifier_unregister(raw, self.mm.as_raw()) };
        }
    }
}

impl<T: MmOps> MmNotifier<T> {
    /// Subscribes to `mm`.
    ///
    /// Sleeps, and takes the mmap lock for writing: it must not be held, nor any lock below it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINTR` if a signal came; `EDEADLK` if the current task is inside of a walk or an
    /// invalidation, below `i_mmap_rwsem`, or in a callback of a subscriber.
    ///
    /// Source: `mmu_notifier_register()`.
    pub fn new<'a>(mm: &'a MmWithUser, data: T) -> impl PinInit<Self, Error> + 'a {
        try_init!(Self {
            inner: {
                inside::may_wait()?;
                ManuallyDrop::new(KBox::try_pin_init(Inner::new(mm, data), GFP_KERNEL)?)
            },
        })
    }

    /// The address space, which may have ended.
    pub fn mm(&self) -> &Mm {
        &self.inner.mm
    }

    /// What the subscription is for.
    pub fn data(&self) -> &T {
        &self.inner.data
    }
}

impl<T: MmOps> Drop for MmNotifier<T> {
    fn drop(&mut self) {
        if inside::in_invalidation() {
            pr_err!("a notifier is dropped where that would wait for itself; it stays for ever\n");
            return;
        }
        // SAFETY: It is not used again.
        unsafe { ManuallyDrop::drop(&mut self.inner) };
    }
}
