// SPDX-License-Identifier: GPL-2.0

//! Exclusive access of a mirror's device.

use super::{
    table::TABLE_PAGES,
    Device,
    Mirror,
    MirrorLock, //
};
use crate::{
    exclusive::{
        self,
        PageResult, //
    },
    inside::may_wait,
    mm::MmapRead,
    range::AddrRange,
    signal, //
};
use core::cmp;
use kernel::{
    mm::MmWithUser,
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    }, //
};

impl<D: Device, B: MirrorLock> Mirror<D, B> {
    /// Enters all pages of `range` as [`Access::Exclusive`](super::Access::Exclusive): no CPU
    /// accesses them until one faults, upon which the entry goes first. Sleeps.
    ///
    /// When it returns, entries may be gone again, as after [`Mirror::fault`].
    ///
    /// # Errors
    ///
    /// As [`Mirror::fault`], and `EBUSY` if a page is no anonymous one or is in use otherwise. The
    /// other pages of the same PMD table, and all before it, are entered nevertheless. `EDEADLK`
    /// where a device is programmed for exclusive pages ([`exclusive::make_exclusive`]).
    ///
    /// Source: `make_device_exclusive()`. It is [`exclusive::make_exclusive`] for the mirror's own
    /// notifier, so that the device does not hear of what it takes itself.
    pub fn make_exclusive(&self, range: &AddrRange) -> Result {
        may_wait()?;

        let mut results = KVec::from_elem(
            PageResult::Untouched,
            cmp::min(range.nr_pages(), TABLE_PAGES),
            GFP_KERNEL,
        )?;

        self.for_each_table(range, |part, mm| {
            self.table.prepare(part.start())?;
            self.make_part_exclusive(mm, part, results.get_mut(..part.nr_pages()).ok_or(EINVAL)?)
        })
    }

    /// The pages of one table.
    fn make_part_exclusive(
        &self,
        mm: &MmWithUser,
        part: &AddrRange,
        results: &mut [PageResult],
    ) -> Result {
        let started = Instant::<Monotonic>::now();

        loop {
            let made = exclusive::make_exclusive_with(
                &mut MmapRead::lock(mm),
                part,
                &self.notifier,
                results,
                |_section, pages| {
                    for page in pages.iter() {
                        // SAFETY: This is the critical section of the lookup, as the invariants of
                        // `Mirror` ask. The folio lock keeps a fault from restoring the CPU's
                        // entry before it ends.
                        unsafe { self.table.enter_exclusive(page.addr(), page.pfn()) };
                    }
                },
            )?;

            if made.did.pages == part.nr_pages() {
                return Ok(());
            }
            for result in results.iter() {
                check(*result)?;
            }
            signal::pending()?;
            if started.elapsed().as_millis() > super::mirror::RETRY_MS {
                return Err(EBUSY);
            }
        }
    }
}

/// What a mirror says of a page that is not exclusive, if it is of no use to try again.
fn check(result: PageResult) -> Result {
    match result {
        PageResult::Exclusive | PageResult::Busy => Ok(()),
        PageResult::Untouched => Err(EINTR),
        PageResult::Unmapped | PageResult::Userfaultfd | PageResult::Fault => Err(EFAULT),
        PageResult::ReadOnly => Err(EPERM),
        PageResult::NotAnonymous | PageResult::Hugetlb | PageResult::Pinned | PageResult::Ksm => {
            Err(EBUSY)
        }
        PageResult::Poisoned => Err(EHWPOISON),
        PageResult::NoMemory => Err(ENOMEM),
    }
}
