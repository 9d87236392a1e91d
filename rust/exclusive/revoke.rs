// SPDX-License-Identifier: GPL-2.0

//! Giving exclusive pages back to the CPU without a fault.

use super::{
    batch::{
        Batch,
        Slot, //
    },
    room,
    BATCH,
    FEW, //
};
use crate::{
    inside::may_lock_folios,
    mm::MmapRead,
    partial::{
        Bytes,
        Partial, //
    },
    range::AddrRange,
    signal, //
};
use core::cmp;
use kernel::{
    mm::virt::{
        flags,
        VmaRef, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// What [`revoke`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Base pages that were given back.
    pub pages: usize,
}

/// Gives all exclusive pages in `range` back to the CPU, whosesoever they are. Holes are passed
/// over.
///
/// Subscribers are told of each batch ([`Event::Clear`](crate::notifier::Event::Clear)) before the
/// entries are restored, and have let go by then. There is nothing to flush: what was not present
/// is in no TLB.
///
/// Sleeps. The guard holds the mmap lock. A fatal signal ends the call early, which
/// [`Partial::stopped`] tells.
///
/// # Errors
///
/// Nothing was changed then:
///
/// - `EDEADLK` if this is called by the function that programs a device for exclusive pages, in the
///   callback of a subscriber, or below `i_mmap_rwsem`;
/// - `ENOMEM`.
///
/// Source: `remove_device_exclusive_entry()`, `restore_exclusive_pte()`.
pub fn revoke(guard: &mut MmapRead<'_>, range: &AddrRange) -> Result<Partial<Revoked>> {
    may_lock_folios()?;

    let mut few = [Slot::EMPTY; FEW];
    let mut many = None;
    let mut batch = Batch::new(room(range.nr_pages(), &mut few, &mut many)?);
    let mut revoked = Revoked::default();
    let mut reached = range.start();

    let guard = &*guard;
    let ret = guard.for_each_mapped(range, |vma, part| {
        let mut addr = part.start();

        if vma.flags() & (flags::HUGETLB | flags::SHARED) != 0 {
            return Ok(());
        }
        while addr < part.end() {
            let end = cmp::min(part.end(), addr.saturating_add(BATCH * PAGE_SIZE));

            reached = addr;
            signal::interruption()?;
            batch.start(addr, (end - addr) >> PAGE_SHIFT);
            revoke_batch(guard, vma, &mut batch, &mut revoked.pages)?;
            addr = end;
        }
        Ok(())
    });

    if ret.is_ok() {
        reached = range.end();
    }
    Ok(Partial::new(revoked, Bytes(reached - range.start()), ret))
}

/// Adds to `restored` as it goes: a fatal signal may come while a busy page is waited for.
fn revoke_batch(
    guard: &MmapRead<'_>,
    vma: &VmaRef,
    batch: &mut Batch<'_>,
    restored: &mut usize,
) -> Result {
    let nr = batch.nr();

    batch.collect_exclusive(guard, vma, 0, nr)?;

    *restored += batch.restore(guard, vma, 0, nr)?;

    // What was busy, alone: then a folio lock may be waited for.
    for i in 0..nr {
        if !batch.is_settled(i, 1) {
            batch.collect_exclusive(guard, vma, i, 1)?;
            *restored += batch.restore(guard, vma, i, 1)?;
        }
    }
    Ok(())
}
