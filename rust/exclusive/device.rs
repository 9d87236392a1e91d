// SPDX-License-Identifier: GPL-2.0

//! The pages in the hands of a device.

use super::batch::{
    self,
    Slot, //
};
use crate::{
    bindings,
    notifier::{
        IntervalOps,
        Invalidated, //
    },
    range::AddrRange, //
};
use core::{
    cmp,
    marker::{
        PhantomData,
        PhantomPinned, //
    },
    ptr::NonNull, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::NotThreadSafe, //
};

/// Pages whose folios are locked and whose entries are device-exclusive.
///
/// While it lives, a fault by the CPU waits, and the memory management neither migrates nor
/// reclaims the pages. It does not keep a `madvise(MADV_DONTNEED)` from taking one away: that a
/// page is still the one at its address is what the critical section of the notifier says, in which
/// the pages are lent.
///
/// Dropping it unlocks the folios and lets the pages go.
///
/// # Invariants
///
/// `slots` are of consecutive pages, the first of which is at `addr`. The folio of each that is
/// exclusive is locked, by one of them.
pub struct ExclusivePages<'b> {
    slots: &'b mut [Slot],
    addr: usize,
    // A folio is unlocked by the thread that locked it.
    _nts: NotThreadSafe,
}

impl<'b> ExclusivePages<'b> {
    /// # Safety
    ///
    /// The type invariants hold.
    pub(super) unsafe fn new(slots: &'b mut [Slot], addr: usize) -> Self {
        // INVARIANT: By the function's safety requirements.
        Self {
            slots,
            addr,
            _nts: NotThreadSafe,
        }
    }

    /// The pages, in ascending order of addresses.
    pub fn iter(&self) -> impl Iterator<Item = ExclusivePage<'_>> {
        let slots = self.slots.iter().enumerate();

        slots.filter_map(|(i, slot)| {
            // INVARIANT: By the invariants of the slot and of this type.
            Some(ExclusivePage {
                addr: self.addr + (i << PAGE_SHIFT),
                page: slot.exclusive()?,
                _pages: PhantomData,
            })
        })
    }

    /// Lets the pages go; `valid` says whether the device got them.
    pub(super) fn release(mut self, valid: bool) {
        self.let_go(valid);
    }

    #[inline(never)]
    fn let_go(&mut self, valid: bool) {
        batch::release(self.slots, valid);
    }
}

impl Drop for ExclusivePages<'_> {
    fn drop(&mut self) {
        self.let_go(false);
    }
}

/// A page whose folio is locked and whose entry is device-exclusive; see [`ExclusivePages`].
///
/// # Invariants
///
/// The page is referenced and its folio locked for `'a`.
pub struct ExclusivePage<'a> {
    addr: usize,
    page: NonNull<bindings::page>,
    _pages: PhantomData<&'a Slot>,
}

impl ExclusivePage<'_> {
    /// The address that it has in the process.
    pub fn addr(&self) -> usize {
        self.addr
    }

    #[inline(never)]
    pub(crate) fn pfn(&self) -> usize {
        // SAFETY: By the type invariants the page is referenced.
        unsafe { bindings::mmops_page_to_pfn(self.page.as_ptr()) }
    }

    /// Gives the page to the device.
    ///
    /// # Safety
    ///
    /// Nothing was invalidated since the page was looked up. The result is dropped in the callback
    /// of the next invalidation of its address, and reached by nobody afterwards.
    #[inline(never)]
    unsafe fn grant(&self) -> DevicePage {
        // SAFETY: By the type invariants the page is referenced.
        unsafe { bindings::mmops_folio_get(bindings::mmops_page_folio(self.page.as_ptr())) };
        // INVARIANT: The reference was just got.
        DevicePage {
            page: self.page,
            written: Atomic::new(0),
        }
    }
}

/// A page that a device has for itself, until its address is invalidated.
///
/// It exists in [`DevicePages`] alone, which is reached under the lock of its notifier and drops it
/// when it is invalidated. What is used afterwards is not the process's memory any more.
///
/// # Invariants
///
/// The value owns a reference of the page.
pub struct DevicePage {
    page: NonNull<bindings::page>,
    written: Atomic<u32>,
}

// SAFETY: A page may be used and let go by any thread.
unsafe impl Send for DevicePage {}

// SAFETY: The accesses are those of a device: not atomic for each other, but of plain memory that
// Rust knows nothing of.
unsafe impl Sync for DevicePage {}

impl DevicePage {
    /// Reads the word at a byte offset: one load, not atomic with a store.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the offset is not a multiple of 8 or is not in the page.
    pub fn read_u64(&self, offset: usize) -> Result<u64> {
        let mut bytes = [0; 8];

        if offset % 8 != 0 {
            return Err(EINVAL);
        }
        self.read(offset, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Stores to the word at a byte offset: one store.
    ///
    /// # Errors
    ///
    /// As [`Self::read_u64`].
    pub fn write_u64(&self, offset: usize, value: u64) -> Result {
        if offset % 8 != 0 {
            return Err(EINVAL);
        }
        self.write(offset, &value.to_ne_bytes())
    }

    /// Copies out of the page.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a part of it is not in the page.
    #[inline(never)]
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result {
        check(offset, to.len())?;
        // SAFETY: By the type invariants the page is referenced; the range lies in it.
        unsafe {
            bindings::mmops_page_read(self.page.as_ptr(), offset, to.as_mut_ptr().cast(), to.len())
        };
        Ok(())
    }

    /// Copies into the page.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    #[inline(never)]
    pub fn write(&self, offset: usize, from: &[u8]) -> Result {
        check(offset, from.len())?;
        self.written.store(1, Relaxed);
        crate::faults::device_stores();
        // SAFETY: As for `read`.
        unsafe {
            bindings::mmops_page_write(self.page.as_ptr(), offset, from.as_ptr().cast(), from.len())
        };
        Ok(())
    }
}

fn check(offset: usize, len: usize) -> Result {
    match offset.checked_add(len) {
        Some(end) if end <= PAGE_SIZE => Ok(()),
        _ => Err(EINVAL),
    }
}

impl Drop for DevicePage {
    #[inline(never)]
    fn drop(&mut self) {
        // SAFETY: By the type invariants the page is referenced.
        let folio = unsafe { bindings::mmops_page_folio(self.page.as_ptr()) };

        // The entry is clean to the memory management: what the device stored is told here.
        if self.written.load(Relaxed) != 0 {
            // SAFETY: As above; marking an anonymous folio needs no lock.
            unsafe { kernel::bindings::folio_mark_dirty(folio) };
        }
        // SAFETY: As above.
        unsafe { bindings::mmops_folio_put(folio) };
    }
}

/// What a driver keeps beside the pages of its device, and does when some are invalidated.
pub trait Device: Send + 'static {
    /// The device must not use the pages of `what.range()` when this returns. They are let go
    /// afterwards, and what it stored to them is told to the memory management.
    ///
    /// Called with the lock held; the rules of [`IntervalOps::invalidate`] apply.
    fn invalidate(&mut self, what: &Invalidated);
}

/// Of a device that does nothing but what is done through [`DevicePage`], under the lock.
impl Device for () {
    fn invalidate(&mut self, _what: &Invalidated) {}
}

/// The exclusive pages of a range, and the data of the driver, as what the lock of an
/// [`IntervalNotifier`](crate::notifier::IntervalNotifier) protects.
///
/// A page gets in by [`make_exclusive`](super::make_exclusive) alone, is reached under the lock
/// alone, and is gone after the next invalidation of its address. It cannot be taken out: pages are
/// entered when the value is pinned in the lock already, and it cannot be moved then. To put
/// another in its place (`Pin::set`) drops them.
#[pin_data]
pub struct DevicePages<T = ()> {
    // Before the pages: it stops first when the value is dropped.
    device: T,
    range: AddrRange,
    pages: KVVec<Option<DevicePage>>,
    #[pin]
    _pin: PhantomPinned,
}

impl DevicePages {
    /// Room for the pages of `range`, without any. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(range: &AddrRange) -> Result<Self> {
        Self::with_device(range, ())
    }
}

impl<T> DevicePages<T> {
    /// As [`DevicePages::new`], with the data of a driver.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn with_device(range: &AddrRange, device: T) -> Result<Self> {
        let mut pages = KVVec::with_capacity(range.nr_pages(), GFP_KERNEL | __GFP_NOWARN)?;

        for _ in 0..range.nr_pages() {
            pages.push_within_capacity(None).map_err(|_| ENOMEM)?;
        }
        Ok(Self {
            device,
            range: *range,
            pages,
            _pin: PhantomPinned,
        })
    }

    /// The range that there is room for.
    pub fn range(&self) -> &AddrRange {
        &self.range
    }

    /// The page at an address, if the device has it.
    pub fn get(&self, addr: usize) -> Option<&DevicePage> {
        let index = addr.checked_sub(self.range.start())? >> PAGE_SHIFT;

        self.pages.get(index)?.as_ref()
    }

    /// The data of the driver.
    pub fn device(&self) -> &T {
        &self.device
    }

    /// The data of the driver, to be changed. It is not pinned with the pages.
    pub fn device_mut(self: Pin<&mut Self>) -> &mut T {
        self.project().device
    }

    /// Gives pages to the device. Those that are not in the range are left out.
    ///
    /// # Safety
    ///
    /// This is what the lock of the notifier protects that the pages became exclusive for. The lock
    /// is held, and nothing was invalidated since the pages were looked up.
    pub(super) unsafe fn keep(self: Pin<&mut Self>, pages: &ExclusivePages<'_>) {
        let this = self.project();

        for page in pages.iter() {
            let index = page.addr().wrapping_sub(this.range.start()) >> PAGE_SHIFT;

            if let Some(place) = this.pages.get_mut(index) {
                // SAFETY: By this function's safety requirements nothing was invalidated. The next
                // invalidation clears the place in the callback below: nobody can take the page
                // out of it, nor all of it out of the lock, in which it is pinned.
                *place = Some(unsafe { page.grant() });
            }
        }
    }
}

impl<T: Device> IntervalOps for DevicePages<T> {
    fn invalidate(self: Pin<&mut Self>, what: &Invalidated) {
        let this = self.project();

        if crate::faults::ignore_invalidation() {
            return;
        }

        this.device.invalidate(what);

        // The notifier may watch over more.
        let start = cmp::max(what.range().start(), this.range.start());
        let end = cmp::min(what.range().end(), this.range.end());

        if start >= end {
            return;
        }

        let first = (start - this.range.start()) >> PAGE_SHIFT;
        let nr = (end - start) >> PAGE_SHIFT;

        for place in this.pages.iter_mut().skip(first).take(nr) {
            *place = None;
        }
    }
}
