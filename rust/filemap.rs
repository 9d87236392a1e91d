// SPDX-License-Identifier: GPL-2.0

//! Which pages of a file change: what the kernel tells of it, and what the crate has to tell.
//!
//! The kernel calls a chain of subscribers where the dirty state of a page of a file arrives, and
//! where contents are replaced (kernel/patches). A harvest takes dirty bits of entries, and with
//! them what others would be told later: so whoever takes one tells, with [`stored`], under the
//! lock of the page table, and marks the folio without a word.
//!
//! C header: `include/linux/filemap_notifier.h`

use crate::{
    bindings,
    mapping::Mapping,
    module_ref::ModuleRef,
    vma::Vma, //
};
use core::{
    mem::offset_of,
    ops::Deref,
    ptr, //
};
use kernel::{
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// What became of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Someone stored to them.
    Stored,
    /// They were truncated, punched out or invalidated.
    Replaced,
}

/// What is told to a subscriber.
pub(crate) trait FilemapOps: Send + Sync + 'static {
    /// The pages with the offsets `first..=last` have changed.
    ///
    /// Called under page-table locks, and from interrupts: it neither sleeps nor takes a lock.
    fn changed(&self, first: usize, last: usize, change: Change);
}

/// A subscription to the changes of a file; it holds what is told.
///
/// While it lives `mmops.ko` is not unloaded, so that it can be left in a `static`. Dropping it
/// waits until no callback runs; it sleeps.
pub(crate) struct FilemapNotifier<T: FilemapOps>(Pin<KBox<Inner<T>>>);

/// # Invariants
///
/// `raw` is registered for `mapping` from the end of the initializer to the drop.
#[pin_data(PinnedDrop)]
struct Inner<T: FilemapOps> {
    data: T,
    /// The file, to be compared alone.
    mapping: *const bindings::address_space,
    _module: ModuleRef,
    // The last, because callbacks come as soon as it is initialized.
    #[pin]
    raw: Opaque<kernel::bindings::notifier_block>,
}

// SAFETY: A subscription may be ended by any task, and the data is `Send`.
unsafe impl<T: FilemapOps> Send for Inner<T> {}

// SAFETY: The data is `Sync`, and of the other fields no method uses more than the address.
unsafe impl<T: FilemapOps> Sync for Inner<T> {}

impl<T: FilemapOps> FilemapNotifier<T> {
    /// Subscribes to the changes of a file, for as long as somebody keeps that. What changes after
    /// the call is told. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENODEV` if `mmops.ko` is being unloaded.
    pub(crate) fn new(mapping: &Mapping, data: T) -> Result<Self> {
        let file = mapping.as_ptr().cast_const();
        // INVARIANT: `raw` is initialized by being registered, or not at all.
        let inner = KBox::try_pin_init(
            try_pin_init!(Inner {
                data,
                mapping: file,
                _module: ModuleRef::get()?,
                raw <- Opaque::try_ffi_init(|raw: *mut kernel::bindings::notifier_block| {
                    let block = kernel::bindings::notifier_block {
                        notifier_call: Some(Inner::<T>::callback),
                        ..Default::default()
                    };

                    // SAFETY: `raw` is valid for writes.
                    unsafe { raw.write(block) };
                    // SAFETY: `raw` is pinned, and unregistered before it goes. All fields that
                    // the callback uses are initialized by now.
                    unsafe { register(file, raw) }
                }),
            }? Error),
            GFP_KERNEL_ACCOUNT,
        )?;

        Ok(Self(inner))
    }
}

impl<T: FilemapOps> Deref for FilemapNotifier<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.data
    }
}

impl<T: FilemapOps> Inner<T> {
    /// # Safety
    ///
    /// Called by the chain of subscribers alone, with a `raw` of a registered `Inner<T>`, and with
    /// a `struct filemap_change`.
    unsafe extern "C" fn callback(
        raw: *mut kernel::bindings::notifier_block,
        event: usize,
        change: *mut c_void,
    ) -> c_int {
        let inner = raw
            .cast::<u8>()
            .wrapping_sub(offset_of!(Self, raw))
            .cast::<Self>();
        // SAFETY: By this function's safety requirements `raw` is the field of an `Inner<T>`, which
        // is there for as long as it is registered. Its drop, which has it exclusively until the
        // end of the registration, touches neither of the two.
        let (mapping, data) = unsafe { ((*inner).mapping, &(*inner).data) };
        // SAFETY: By this function's safety requirements.
        let change = unsafe { &*change.cast::<bindings::filemap_change>() };

        if ptr::eq(change.mapping, mapping) {
            let event = if event == bindings::filemap_event_FILEMAP_STORED as usize {
                Change::Stored
            } else {
                Change::Replaced
            };

            data.changed(change.first, change.last, event);
        }
        0
    }
}

#[pinned_drop]
impl<T: FilemapOps> PinnedDrop for Inner<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants it is registered. No callback runs after this.
        unsafe { unregister(self.mapping, self.raw.get()) };
    }
}

/// Not generic, as [`unregister`]: what they call is not for other modules.
///
/// # Safety
///
/// `raw` stays where it is, with all that its callback uses, until it is unregistered.
#[inline(never)]
unsafe fn register(
    mapping: *const bindings::address_space,
    raw: *mut kernel::bindings::notifier_block,
) -> Result {
    // SAFETY: By this function's safety requirements. Of the mapping only the address is used.
    to_result(unsafe { bindings::mmops_filemap_notifier_register(mapping, raw) })
}

/// # Safety
///
/// `raw` is registered for `mapping`.
#[inline(never)]
unsafe fn unregister(
    mapping: *const bindings::address_space,
    raw: *mut kernel::bindings::notifier_block,
) {
    // SAFETY: By this function's safety requirements.
    unsafe { bindings::mmops_filemap_notifier_unregister(mapping, raw) };
}

/// Whether anybody subscribes to the changes of files, so that it is worth to find out what to tell
/// with [`stored`].
#[inline(always)]
pub(crate) fn is_watched() -> bool {
    // SAFETY: The function reads a counter.
    unsafe { bindings::mmops_filemap_is_watched() }
}

/// Tells that `nr` pages from the page offset `first` on were stored to, if the VMA maps a file
/// shared: the dirty bits of its entries were just taken, and the lock of the entries is held.
///
/// Does not sleep.
#[cold]
#[inline(never)]
pub(crate) fn stored(vma: Vma<'_>, first: usize, nr: usize) {
    if nr != 0 && !crate::faults::filemap_skip_tell() {
        // SAFETY: The VMA is valid for as long as the value; the lock of its entries, under which
        // the walk has it, keeps it mapped, and so its file.
        unsafe { bindings::mmops_vma_filemap_stored(vma.as_ptr(), first, first + (nr - 1)) };
    }
}
