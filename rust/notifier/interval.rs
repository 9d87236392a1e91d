// SPDX-License-Identifier: GPL-2.0

//! A subscription to what happens to a range of addresses, with the "collision-retry" scheme that
//! a driver fills its own page tables by.
//!
//! # How a driver fills its page table
//!
//! ```text
//!  driver                                   memory management
//!
//!  token = notifier.read_begin()?
//!  look pages up; may sleep                 invalidate_range_start()
//!                                             driver's lock
//!                                               the sequence changes
//!                                               IntervalOps::invalidate()
//!                                             driver's lock is released
//!  notifier.lock_if_current(token)            page tables change, TLB flush
//!    Some: enter the pages into the table   invalidate_range_end()
//!    None: begin anew
//! ```
//!
//! What was looked up may be used only if nothing was invalidated since `read_begin()`, and only
//! while the lock is held that [`IntervalOps::invalidate`] runs under. Both are carried by types:
//! the lock is part of the notifier, the notifier itself takes it and changes the sequence under
//! it, and a [`Token`] can be asked about only with a guard of this lock.
//!
//! # Locks
//!
//! ```text
//! mmap_lock, i_mmap_rwsem, anon_vma lock, folio lock (all by whoever invalidates)
//!   mmu_notifier_invalidate_range_start
//!     the lock of the notifier
//! ```
//!
//! So with the lock of the notifier held, nothing may be allocated that enters reclaim
//! (`GFP_KERNEL`), no user memory may be touched, and no lock of the first line may be taken.
//! Lockdep knows all of it.

use super::{
    registry::{
        self,
        Place,
        Subscription, //
    },
    Invalidated,
    OwnerRef, //
};
use crate::{
    inside,
    range::AddrRange, //
};
use core::{
    fmt,
    marker::PhantomData,
    mem::{
        offset_of,
        ManuallyDrop, //
    },
    ops::{
        Deref,
        DerefMut, //
    },
    ptr, //
};
use kernel::{
    bindings,
    error::to_result,
    mm::{
        Mm,
        MmWithUser, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        lock::{
            mutex::MutexBackend,
            Backend,
            Guard,
            Lock, //
        },
        LockClassKey, //
    },
    types::Opaque, //
};

/// What a driver keeps about a range, and does when a part of it is invalidated.
///
/// The implementing type is what the lock of the notifier protects.
pub trait IntervalOps: Send + 'static {
    /// The device must not use the pages of `what.range()` when this returns.
    ///
    /// Called with the lock held. Sleeps only if `what.may_block()` and the lock is a mutex, and
    /// never allocates memory in a way that may enter reclaim. A page is given back by whoever
    /// invalidates only after this has returned.
    fn invalidate(self: Pin<&mut Self>, what: &Invalidated);
}

/// A subscription to a range of an address space, and the lock and data of the driver that it is
/// for.
///
/// `B` is the kind of lock: a mutex, or a spinlock for a driver whose device is programmed in
/// atomic context.
///
/// The address space may end while the subscription lives. Then [`IntervalOps::invalidate`] is told
/// so ([`Event::Release`](super::Event::Release)); after it, what is still mapped goes, which is
/// told as well ([`Event::Unmap`](super::Event::Unmap)).
///
/// Dropping it waits until no callback runs and none will; it sleeps. It must not be dropped with
/// its lock held, nor by who is inside of an invalidation, below `i_mmap_rwsem`, for which somebody
/// else may wait inside of one, or in the callback of a subscriber: a callback has `&mut` to the
/// data alone, but the data may hold a reference count of whatever has the notifier. Such a task
/// would wait for itself. Then the subscription stays, with its data, and an error is logged.
///
/// One that is never dropped, as in a `static`, ends when the module of its callbacks is unloaded;
/// the data stays in memory then, and nobody is told.
pub struct IntervalNotifier<T: IntervalOps, B: Backend = MutexBackend> {
    // Not in place, so that it can stay.
    inner: ManuallyDrop<Pin<KBox<Inner<T, B>>>>,
}

/// # Invariants
///
/// `raw` is inserted for `mm` with the operations [`Self::OPS`] from the end of the initializer to
/// the drop, unless the module of the operations is unloaded before; `registration` says so.
#[pin_data(PinnedDrop)]
struct Inner<T: IntervalOps, B: Backend> {
    #[pin]
    data: Lock<T, B>,
    mm: ARef<Mm>,
    range: AddrRange,
    // The last, because callbacks come as soon as it is initialized.
    #[pin]
    raw: Opaque<bindings::mmu_interval_notifier>,
}

// SAFETY: `mmu_interval_notifier_remove()` may be called by any thread; the data is `Send`.
unsafe impl<T: IntervalOps, B: Backend> Send for Inner<T, B> {}

// SAFETY: The data is behind the lock, and is `Send`; what is read of `raw` is either constant or
// atomic, or is protected by the lock.
unsafe impl<T: IntervalOps, B: Backend> Sync for Inner<T, B> {}

impl<T: IntervalOps, B: Backend> Inner<T, B> {
    const OPS: bindings::mmu_interval_notifier_ops = bindings::mmu_interval_notifier_ops {
        invalidate: Some(Self::invalidate_callback),
        invalidate_start: None,
        invalidate_finish: None,
    };

    fn new<'a>(
        mm: &'a MmWithUser,
        range: AddrRange,
        data: impl PinInit<T> + 'a,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self, Error> + 'a
    where
        B: 'a,
    {
        // INVARIANT: `raw` is initialized by being inserted, or not at all.
        try_pin_init!(Self {
            data <- Lock::new(data, name, key),
            mm: ARef::<Mm>::from(&**mm),
            range,
            raw <- Opaque::try_ffi_init(move |raw: *mut bindings::mmu_interval_notifier| {
                let place = Place::new()?;

                // SAFETY: `raw` is valid for writes. It is pinned, and removed before it goes. All
                // fields that the callback uses are initialized by now.
                to_result(unsafe {
                    bindings::mmu_interval_notifier_insert(
                        raw,
                        mm.as_raw(),
                        range.start(),
                        range.end() - range.start(),
                        &Self::OPS,
                    )
                })?;
                // SAFETY: It was just inserted, and `take` is called before it goes. The offset is
                // that of the field in the allocation.
                unsafe {
                    place.fill(
                        Subscription::Interval(raw),
                        raw.byte_sub(offset_of!(Self, raw)).cast(),
                        Self::invalidate_callback as *const () as usize,
                    )
                };
                Ok::<(), Error>(())
            }),
        })
    }

    /// # Safety
    ///
    /// Called by the memory management for an inserted notifier of this type.
    unsafe extern "C" fn invalidate_callback(
        raw: *mut bindings::mmu_interval_notifier,
        range: *const bindings::mmu_notifier_range,
        seq: usize,
    ) -> bool {
        // SAFETY: `raw` is the field of a `Self`, of which all other fields were initialized before
        // it was inserted, and which lives until it has been removed.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(raw), Self, raw) };
        // SAFETY: The caller's range is valid during the call.
        let what = Invalidated::new(unsafe { &*range }, &this.range);

        if what.is_own(OwnerRef::of(&this.raw)) {
            return true;
        }

        let mut guard = if what.may_block() {
            this.data.lock()
        } else {
            match this.data.try_lock() {
                Some(guard) => guard,
                None => return false,
            }
        };

        // SAFETY: The structure is initialized. This is mmu_interval_set_seq(), which has to be
        // called under the lock that the sequence is compared under.
        unsafe { ptr::write_volatile(&raw mut (*raw).invalidate_seq, seq) };
        inside::called_back(|| guard.as_mut().invalidate(&what));
        true
    }
}

#[pinned_drop]
impl<T: IntervalOps, B: Backend> PinnedDrop for Inner<T, B> {
    fn drop(self: Pin<&mut Self>) {
        let raw = self.raw.get();

        if registry::take(raw.cast()) {
            // SAFETY: By the type invariants the notifier is inserted. When the function returns,
            // no callback runs, and none will.
            unsafe { bindings::mmu_interval_notifier_remove(raw) };
        }
    }
}

impl<T: IntervalOps, B: Backend> IntervalNotifier<T, B> {
    /// Subscribes to `range` of `mm`; `data` is what the lock protects.
    ///
    /// Events of kind [`Event::Exclusive`](super::Event::Exclusive) are left out where
    /// [`make_exclusive`](crate::exclusive::make_exclusive) takes pages for this very notifier:
    /// neither is the data told, nor does a [`Token`] end. Nothing else is left out.
    ///
    /// Sleeps, and takes the mmap lock for writing: it must not be held. Use the macro
    /// [`new_interval_notifier!`](crate::new_interval_notifier) for the name and the class of the
    /// lock.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINTR` if a signal came; `EDEADLK` if the current task is inside of a walk or an
    /// invalidation, below `i_mmap_rwsem`, or in a callback of a subscriber.
    ///
    /// Source: `mmu_interval_notifier_insert()`.
    pub fn new<'a>(
        mm: &'a MmWithUser,
        range: AddrRange,
        data: impl PinInit<T> + 'a,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self, Error> + 'a
    where
        B: 'a,
    {
        try_init!(Self {
            inner: {
                inside::may_wait()?;
                ManuallyDrop::new(KBox::try_pin_init(
                    Inner::new(mm, range, data, name, key),
                    GFP_KERNEL,
                )?)
            },
        })
    }

    /// The address space, which may have ended.
    pub fn mm(&self) -> &Mm {
        &self.inner.mm
    }

    /// The range that was subscribed to.
    pub fn range(&self) -> &AddrRange {
        &self.inner.range
    }

    /// Who takes pages for this notifier: no other one is the same.
    pub(crate) fn as_owner(&self) -> OwnerRef<'_> {
        OwnerRef::of(&self.inner.raw)
    }

    /// Begins to look pages up: the token says later whether anything was invalidated since now.
    ///
    /// Waits until no invalidation of the range runs. Sleeps; must not be called with the lock of
    /// the notifier held.
    ///
    /// # Errors
    ///
    /// `EDEADLK` if the current task would wait for itself: it is inside of an invalidation, be it
    /// of another range, in the callback of a subscriber, inside of a walk, or below
    /// `i_mmap_rwsem`.
    ///
    /// Source: `mmu_interval_read_begin()`.
    pub fn read_begin(&self) -> Result<Token<'_>> {
        inside::may_wait()?;
        // SAFETY: By the type invariants the notifier is inserted; the token gets the result.
        Ok(unsafe { self.token(bindings::mmu_interval_read_begin(self.inner.raw.get())) })
    }

    /// Takes the lock. What was looked up under a token must not be used with it alone; see
    /// [`Self::lock_if_current`].
    pub fn lock(&self) -> IntervalGuard<'_, T, B> {
        IntervalGuard {
            notifier: self,
            guard: self.inner.data.lock(),
        }
    }

    /// Takes the lock if nothing was invalidated since `token` was got. If something was, `None`:
    /// what was looked up is void, and the driver begins anew.
    ///
    /// Source: `mmu_interval_read_retry()`.
    pub fn lock_if_current(&self, token: Token<'_>) -> Option<CriticalSection<'_, T, B>> {
        self.lock().into_critical(token).ok()
    }

    /// A hint, without the lock, whether going on with `token` is useless.
    ///
    /// `false` is no promise: only [`Self::lock_if_current`] decides.
    ///
    /// Source: `mmu_interval_check_retry()`.
    pub fn has_collided(&self, token: &Token<'_>) -> bool {
        !self.owns(token) || self.seq() != token.seq
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::mmu_interval_notifier {
        self.inner.raw.get()
    }

    /// Whether `token` is of this notifier.
    pub(crate) fn owns(&self, token: &Token<'_>) -> bool {
        ptr::eq(token.notifier, self.inner.raw.get())
    }

    /// The token of a `mmu_interval_read_begin()` for this notifier.
    ///
    /// # Safety
    ///
    /// `seq` is what that call returned.
    pub(crate) unsafe fn token(&self, seq: usize) -> Token<'_> {
        Token {
            seq,
            notifier: self.inner.raw.get(),
            _notifier: PhantomData,
        }
    }

    fn seq(&self) -> usize {
        // SAFETY: By the type invariants the structure is initialized. The field is changed only by
        // the callback below, by one store; the read pairs with it as the C side's does.
        unsafe { ptr::read_volatile(&raw const (*self.inner.raw.get()).invalidate_seq) }
    }
}

impl<T: IntervalOps, B: Backend> Drop for IntervalNotifier<T, B> {
    fn drop(&mut self) {
        if inside::in_invalidation() {
            pr_err!("a notifier is dropped where that would wait for itself; it stays for ever\n");
            return;
        }
        // SAFETY: It is not used again.
        unsafe { ManuallyDrop::drop(&mut self.inner) };
    }
}

/// Creates an initializer of an [`IntervalNotifier`], whose lock gets the name and class of the
/// place of the call.
///
/// `new_interval_notifier!(mm, range, data)`; see [`IntervalNotifier::new`].
///
/// # Examples
///
/// ```
/// use core::pin::Pin;
/// use mmops::{
///     mm,
///     new_interval_notifier,
///     notifier::{IntervalNotifier, IntervalOps, Invalidated},
///     range::AddrRange,
/// };
///
/// struct Cache;
///
/// impl IntervalOps for Cache {
///     fn invalidate(self: Pin<&mut Self>, what: &Invalidated) {
///         // Here a driver drops what it has of these addresses.
///         pr_info!("{} pages\n", what.range().nr_pages());
///     }
/// }
///
/// # let (start, end) = (0, 0);
/// let mm = mm::current()?;
/// let range = AddrRange::new(start, end)?;
/// let notifier: Pin<KBox<IntervalNotifier<Cache>>> =
///     KBox::try_pin_init(new_interval_notifier!(&mm, range, Cache), GFP_KERNEL)?;
///
/// let token = notifier.read_begin()?;
/// // Here it looks addresses up.
/// if let Some(mut critical) = notifier.lock_if_current(token) {
///     let _cache: Pin<&mut Cache> = critical.as_mut();
/// }
/// Ok(())
/// ```
#[macro_export]
macro_rules! new_interval_notifier {
    ($mm:expr, $range:expr, $data:expr $(, $name:literal)? $(,)?) => {
        $crate::notifier::IntervalNotifier::new(
            $mm,
            $range,
            $data,
            ::kernel::optional_name!($($name)?),
            ::kernel::static_lock_class!(),
        )
    };
}

/// When a driver began to look pages up; from [`IntervalNotifier::read_begin`].
///
/// It is worth something only to the notifier that it is from: another one takes it for void.
#[must_use = "what is looked up may only be used if nothing was invalidated meanwhile"]
pub struct Token<'a> {
    seq: usize,
    notifier: *const bindings::mmu_interval_notifier,
    _notifier: PhantomData<&'a ()>,
}

impl Token<'_> {
    pub(crate) fn seq(&self) -> usize {
        self.seq
    }
}

// Without the address of the notifier.
impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

/// The lock of an [`IntervalNotifier`], held: nothing is invalidated meanwhile.
///
/// It dereferences to the driver's data.
#[must_use = "the lock is released when the guard is dropped"]
pub struct IntervalGuard<'a, T: IntervalOps, B: Backend = MutexBackend> {
    notifier: &'a IntervalNotifier<T, B>,
    guard: Guard<'a, T, B>,
}

impl<'a, T: IntervalOps, B: Backend> IntervalGuard<'a, T, B> {
    /// Whether nothing was invalidated since `token` was got. While the guard lives, that stays so.
    ///
    /// Source: `mmu_interval_read_retry()`.
    #[must_use]
    pub fn is_current(&self, token: &Token<'_>) -> bool {
        !self.notifier.has_collided(token)
    }

    /// The section in which what was looked up since `token` may be used, or the guard again if the
    /// token is void.
    pub fn into_critical(self, token: Token<'_>) -> Result<CriticalSection<'a, T, B>, Self> {
        if self.is_current(&token) {
            // INVARIANT: Just checked, under the lock.
            Ok(CriticalSection(self))
        } else {
            Err(self)
        }
    }

    /// The data, where it must not be moved.
    pub fn as_mut(&mut self) -> Pin<&mut T> {
        self.guard.as_mut()
    }

    /// The notifier whose lock is held.
    pub fn notifier(&self) -> &'a IntervalNotifier<T, B> {
        self.notifier
    }
}

impl<T: IntervalOps, B: Backend> Deref for IntervalGuard<'_, T, B> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T: IntervalOps + Unpin, B: Backend> DerefMut for IntervalGuard<'_, T, B> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// The lock of an [`IntervalNotifier`], held, and nothing of what was looked up is void: here a
/// device may be programmed.
///
/// It dereferences to the driver's data, and not to the guard: one could put another in its place.
///
/// # Invariants
///
/// The token that it was made of was current under the lock.
#[must_use = "the lock is released when the section is dropped"]
pub struct CriticalSection<'a, T: IntervalOps, B: Backend = MutexBackend>(IntervalGuard<'a, T, B>);

impl<'a, T: IntervalOps, B: Backend> CriticalSection<'a, T, B> {
    /// The data, where it must not be moved.
    pub fn as_mut(&mut self) -> Pin<&mut T> {
        self.0.as_mut()
    }

    /// The notifier whose lock is held.
    pub fn notifier(&self) -> &'a IntervalNotifier<T, B> {
        self.0.notifier()
    }
}

impl<T: IntervalOps, B: Backend> Deref for CriticalSection<'_, T, B> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: IntervalOps + Unpin, B: Backend> DerefMut for CriticalSection<'_, T, B> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
