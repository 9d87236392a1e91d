// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_EXCLUSIVE`, `MMOPS_IOC_REVOKE` and `MMOPS_IOC_ATOMIC_ADD`: pages that a device has
//! for itself, and what a device does with them.

use crate::{
    addr_range,
    address_space,
    uapi,
    Device, //
};
use core::{
    cmp,
    pin::Pin, //
};
use kernel::{
    mm::MmWithUser,
    page::{
        PAGE_MASK,
        PAGE_SIZE, //
    },
    prelude::*,
    uaccess::UserSlice, //
};
use mmops::{
    exclusive::{
        self,
        DevicePages,
        PageResult,
        BATCH, //
    },
    kthread::{
        self,
        Waiter, //
    },
    mm::MmapRead,
    new_interval_notifier,
    notifier::IntervalNotifier,
    range::AddrRange, //
};

pub(crate) fn exclusive(me: Pin<&Device>, arg: &mut uapi::Exclusive) -> Result {
    let range = addr_range(arg.addr, arg.len)?;
    let mm = address_space(arg.pidfd)?;
    let mut results = KVec::from_elem(
        PageResult::Untouched,
        cmp::min(range.nr_pages(), BATCH),
        GFP_KERNEL,
    )?;
    let mut addr = range.start();

    arg.exclusive = 0;
    arg.done = 0;
    // In steps: the results go to user memory, which the mmap lock must not be held for.
    while addr < range.end() {
        let nr = cmp::min((range.end() - addr) / PAGE_SIZE, results.len());
        let part = AddrRange::new(addr, addr + nr * PAGE_SIZE)?;
        let results = results.get_mut(..nr).ok_or(EINVAL)?;
        let taken =
            exclusive::take_from_cpu(&mut MmapRead::lock(&mm), &part, Some(&me.owner), results)?;

        arg.exclusive += taken.did.pages as u64;
        store_results(arg, &range, addr, results)?;
        arg.done += taken.done.0 as u64;
        taken.check()?;
        addr = part.end();
    }
    Ok(())
}

fn store_results(
    arg: &uapi::Exclusive,
    range: &AddrRange,
    addr: usize,
    results: &[PageResult],
) -> Result {
    if arg.results == 0 {
        return Ok(());
    }

    let index = (addr - range.start()) / PAGE_SIZE;
    let at = (arg.results as usize).checked_add(index).ok_or(EFAULT)?;
    let mut writer = UserSlice::new(UserPtr::from_addr(at), results.len()).writer();

    for result in results {
        writer.write_slice(&[*result as u8])?;
    }
    Ok(())
}

pub(crate) fn revoke(arg: &mut uapi::Revoke) -> Result {
    let range = addr_range(arg.addr, arg.len)?;
    let mm = address_space(arg.pidfd)?;
    let revoked = exclusive::revoke(&mut MmapRead::lock(&mm), &range)?;

    arg.revoked = revoked.did.pages as u64;
    arg.done = revoked.done.0 as u64;
    revoked.check()
}

/// A device that adds to words in memory, by a load and a store: what makes the addition atomic is
/// that the page is its own. The device is a kernel thread, which lives as long as the call.
pub(crate) fn atomic_add(arg: &mut uapi::AtomicAdd) -> Result {
    let (addr, stride) = (arg.addr as usize, arg.stride as usize);
    let nr = usize::try_from(arg.nr)?;

    if addr % 8 != 0 || stride % 8 != 0 || stride == 0 || nr == 0 {
        return Err(EINVAL);
    }

    let last = (nr - 1)
        .checked_mul(stride)
        .and_then(|bytes| bytes.checked_add(addr))
        .ok_or(EINVAL)?;
    let end = (last & PAGE_MASK).checked_add(PAGE_SIZE).ok_or(EINVAL)?;
    let range = AddrRange::new(addr & PAGE_MASK, end)?;

    if range.nr_pages() > uapi::ATOMIC_ADD_MAX_PAGES {
        return Err(EINVAL);
    }

    arg.added = 0;
    arg.taken = 0;

    let mm = address_space(arg.pidfd)?;
    let pages = DevicePages::new(&range)?;
    let notifier = KBox::try_pin_init(new_interval_notifier!(&mm, range, pages), GFP_KERNEL)?;
    let mut words = KVVec::with_capacity(nr, GFP_KERNEL)?;

    for i in 0..nr {
        words
            .push_within_capacity(addr + i * stride)
            .map_err(|_| ENOMEM)?;
    }
    kthread::run(c"mmops-device", |waiter| {
        (0..arg.rounds).try_for_each(|_| add_to_all(waiter, &mm, &notifier, &words, arg))
    })?
}

/// Adds once to each word, in ascending order.
fn add_to_all(
    waiter: &Waiter,
    mm: &MmWithUser,
    notifier: &IntervalNotifier<DevicePages>,
    words: &[usize],
    arg: &mut uapi::AtomicAdd,
) -> Result {
    let mut next = 0;

    while let Some(first) = words.get(next) {
        waiter.interruption()?;

        let pages = notifier.lock();
        let before = next;

        // One page at a time, so that the CPU gets its turn.
        while let Some(addr) = words.get(next) {
            let Some(page) = pages.get(*addr).filter(|_| (addr ^ first) & PAGE_MASK == 0) else {
                break;
            };
            let offset = addr & !PAGE_MASK;
            let value = page.read_u64(offset)?;

            page.write_u64(offset, value.wrapping_add(arg.value))?;
            next += 1;
            arg.added += 1;
        }
        drop(pages);
        if next == before {
            take_page(mm, notifier, first & PAGE_MASK, arg)?;
        }
    }
    Ok(())
}

fn take_page(
    mm: &MmWithUser,
    notifier: &IntervalNotifier<DevicePages>,
    addr: usize,
    arg: &mut uapi::AtomicAdd,
) -> Result {
    let page = AddrRange::new(addr, addr + PAGE_SIZE)?;
    let mut result = [PageResult::Untouched];
    let made = exclusive::make_exclusive(
        &mut MmapRead::lock(mm),
        &page,
        notifier,
        &mut result,
        |(), _pages| (),
    )?;

    arg.taken += made.did.pages as u64;
    match result {
        [PageResult::Exclusive | PageResult::Busy] => Ok(()),
        [PageResult::Untouched] => Err(EINTR),
        [PageResult::NoMemory] => Err(ENOMEM),
        _ => Err(EFAULT),
    }
}
