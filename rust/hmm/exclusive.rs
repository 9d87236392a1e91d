// SPDX-License-Identifier: GPL-2.0

//! Exclusive access of a mirror's device, page by page.

use super::{
    table::Access,
    Device,
    Mirror, //
};
use crate::{
    bindings,
    mm::MmapRead,
    notifier::Owner,
    range::AddrRange,
    signal, //
};
use kernel::{
    error::from_err_ptr,
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        lock::Backend, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

impl<D: Device, B: Backend> Mirror<D, B> {
    /// Enters all pages of `range` as [`Access::Exclusive`]: no CPU accesses them until one faults,
    /// upon which the entry goes first. Pages that have such an entry keep it. Sleeps.
    ///
    /// When it returns, entries may be gone again, as after [`Mirror::fault`].
    ///
    /// # Errors
    ///
    /// As [`Mirror::fault`], and `EBUSY` if a page is no anonymous one or is in use otherwise;
    /// pages before are entered.
    ///
    /// Source: `make_device_exclusive()`, which is called for each page with the mirror's
    /// [owner](Mirror::owner): the mirror does not hear of its own events.
    pub fn make_exclusive(&self, range: &AddrRange) -> Result {
        let mm: ARef<MmWithUser> = self.mm().mmget_not_zero().ok_or(ESRCH)?;

        self.fault(range, Access::Write)?;
        for addr in (range.start()..range.end()).step_by(PAGE_SIZE) {
            signal::pending()?;
            self.make_page_exclusive(&mm, addr)?;
        }
        Ok(())
    }

    fn make_page_exclusive(&self, mm: &MmWithUser, addr: usize) -> Result {
        let page = AddrRange::new(addr, addr + PAGE_SIZE)?;
        let started = Instant::<Monotonic>::now();

        loop {
            let access = self.lock().access(addr);

            match access {
                Some(Access::Exclusive) => return Ok(()),
                Some(Access::Write) => (),
                // A fault in make_device_exclusive() would void the token each time.
                _ => self.fault(&page, Access::Write)?,
            }

            let token = self.notifier.read_begin();
            let mmap = MmapRead::lock(mm);
            let locked = LockedPage::make_exclusive(&mmap, addr, self.owner())?;

            if let Some(_section) = self.notifier.lock_if_current(token) {
                // INVARIANT: This is the critical section of the lookup. The folio lock keeps a
                // fault from restoring the CPU's entry before it ends.
                self.table.enter_exclusive(addr, locked.pfn);
                return Ok(());
            }
            drop(locked);
            drop(mmap);
            signal::pending()?;
            if started.elapsed().as_millis() > super::mirror::RETRY_MS {
                return Err(EBUSY);
            }
        }
    }
}

/// A page whose entry is device-exclusive, and stays so while the value lives, unless it is
/// unmapped.
///
/// # Invariants
///
/// The value holds the lock of `folio` and a reference to it.
struct LockedPage {
    folio: *mut bindings::folio,
    pfn: usize,
}

impl LockedPage {
    #[inline(never)]
    fn make_exclusive(mmap: &MmapRead<'_>, addr: usize, owner: Owner) -> Result<Self> {
        let mut folio = core::ptr::null_mut();
        // SAFETY: The mmap lock is held; the owner is only compared.
        let page = from_err_ptr(unsafe {
            bindings::make_device_exclusive(mmap.mm().as_raw(), addr, owner.as_ptr(), &mut folio)
        })?;

        // INVARIANT: The function returns the folio locked, with a reference.
        Ok(Self {
            folio,
            // SAFETY: The page is one of the folio.
            pfn: unsafe { bindings::mmops_page_to_pfn(page) },
        })
    }
}

impl Drop for LockedPage {
    #[inline(never)]
    fn drop(&mut self) {
        // SAFETY: By the type invariants the lock and the reference are held, and go here.
        unsafe { bindings::mmops_folio_unlock_put(self.folio) };
    }
}
