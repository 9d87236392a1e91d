// SPDX-License-Identifier: GPL-2.0

//! The pages in the hands of a device.

use super::batch::{
    self,
    Slot, //
};
use crate::{
    bindings,
    notifier::{
        CriticalSection,
        IntervalNotifier,
        IntervalOps,
        Invalidated, //
    },
    range::AddrRange, //
};
use core::{
    cmp,
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        lock::Backend, //
    },
    types::NotThreadSafe, //
};

/// What tells notifiers apart: they are pinned.
pub(super) fn id_of<T: IntervalOps, B: Backend>(notifier: &IntervalNotifier<T, B>) -> *const () {
    ptr::from_ref(notifier).cast()
}

/// Pages whose folios are locked and whose entries are device-exclusive.
///
/// While it lives, a fault by the CPU waits, and the memory management neither migrates nor
/// reclaims the pages. It does not keep a `madvise(MADV_DONTNEED)` from taking one away: that a
/// page is still the one at its address is what the [`CriticalSection`] says.
///
/// Dropping it unlocks the folios and lets the pages go.
pub struct ExclusivePages<'b> {
    slots: &'b mut [Slot],
    addr: usize,
    // The notifier whose critical sections may grant the pages; null for none.
    notifier: *const (),
    // A folio is unlocked by the thread that locked it.
    _nts: NotThreadSafe,
}

impl<'b> ExclusivePages<'b> {
    pub(super) fn new(slots: &'b mut [Slot], addr: usize, notifier: *const ()) -> Self {
        Self {
            slots,
            addr,
            notifier,
            _nts: NotThreadSafe,
        }
    }

    /// The pages, in ascending order of addresses.
    pub fn iter(&self) -> impl Iterator<Item = ExclusivePage<'_>> {
        let slots = self.slots.iter().enumerate();

        slots.filter_map(|(i, slot)| {
            Some(ExclusivePage {
                addr: self.addr + (i << PAGE_SHIFT),
                page: slot.exclusive()?,
                notifier: self.notifier,
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
    notifier: *const (),
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

    /// Gives the page to the device. The section says that it may have it now.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the section is not of the notifier that
    /// [`make_exclusive`](super::make_exclusive) was called with: nothing else watches over the
    /// address in this address space.
    #[inline]
    pub fn grant<T: IntervalOps, B: Backend>(
        &self,
        section: &CriticalSection<'_, T, B>,
    ) -> Result<DevicePage> {
        if !ptr::eq(self.notifier, id_of(section.notifier())) {
            return Err(EINVAL);
        }
        Ok(self.get())
    }

    #[inline(never)]
    fn get(&self) -> DevicePage {
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
/// A driver keeps it in the data of its [`IntervalNotifier`](crate::notifier::IntervalNotifier), so
/// that it is reached under the lock alone, and drops it in [`IntervalOps::invalidate`]. What is
/// still used afterwards is not the process's memory any more. [`DevicePages`] does both.
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

/// The exclusive pages of a range, as what the lock of an
/// [`IntervalNotifier`](crate::notifier::IntervalNotifier) protects.
///
/// A page gets in only in a critical section, is reached only under the lock, and is gone after the
/// next invalidation of its address: what stays in the lock cannot be used later.
pub struct DevicePages {
    range: AddrRange,
    pages: KVVec<Option<DevicePage>>,
}

impl DevicePages {
    /// Room for the pages of `range`, without any. Sleeps.
    pub fn new(range: &AddrRange) -> Result<Self> {
        let mut pages = KVVec::with_capacity(range.nr_pages(), GFP_KERNEL | __GFP_NOWARN)?;

        for _ in 0..range.nr_pages() {
            pages.push_within_capacity(None).map_err(|_| ENOMEM)?;
        }
        Ok(Self {
            range: *range,
            pages,
        })
    }

    /// Gives pages to the device: the function for [`make_exclusive`](super::make_exclusive).
    ///
    /// Pages that are not in the range are left out.
    pub fn program<B: Backend>(
        section: &mut CriticalSection<'_, Self, B>,
        pages: &ExclusivePages<'_>,
    ) {
        for page in pages.iter() {
            if let (Some(i), Ok(granted)) = (section.index(page.addr()), page.grant(section)) {
                if let Some(place) = section.pages.get_mut(i) {
                    *place = Some(granted);
                }
            }
        }
    }

    /// The page at an address, if the device has it.
    pub fn get(&self, addr: usize) -> Option<&DevicePage> {
        self.pages.get(self.index(addr)?)?.as_ref()
    }

    fn index(&self, addr: usize) -> Option<usize> {
        Some(addr.checked_sub(self.range.start())? >> PAGE_SHIFT)
    }
}

impl IntervalOps for DevicePages {
    fn invalidate(self: Pin<&mut Self>, what: &Invalidated) {
        let this = self.get_mut();

        if crate::faults::ignore_invalidation() {
            return;
        }

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
