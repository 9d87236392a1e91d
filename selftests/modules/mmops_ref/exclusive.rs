// SPDX-License-Identifier: GPL-2.0

//! `make_device_exclusive()` and the operation `exclusive`, on the same pages.

use crate::{
    KERNEL,
    MMOPS, //
};
use core::ptr;
use kernel::{
    bindings,
    ioctl::_IOWR,
    page::PAGE_SIZE,
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    },
    uaccess::UserSlice, //
};
use mmops::{
    exclusive::{
        self,
        DevicePages,
        PageResult, //
    },
    mm::{
        self,
        MmapRead, //
    },
    new_interval_notifier,
    notifier::IntervalNotifier,
    range::AddrRange, //
};
use zerocopy_derive::Immutable;

// As in the kernel's crate.
#[allow(improper_ctypes)]
extern "C" {
    // mm/rmap.c
    fn make_device_exclusive(
        mm: *mut bindings::mm_struct,
        addr: usize,
        owner: *mut c_void,
        foliop: *mut *mut bindings::folio,
    ) -> *mut bindings::page;
}

pub(crate) const IOC: u32 = _IOWR::<Exclusive>(0xBE, 0x01);
pub(crate) const IOC_PROGRAM: u32 = _IOWR::<Program>(0xBE, 0x02);

/// `struct mmops_ref_exclusive`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Exclusive {
    side: u32,
    pad: u32,
    addr: u64,
    len: u64,
    count: u64,
    ns: u64,
    reserved: [u64; 2],
}

impl Exclusive {
    pub(crate) fn run(&mut self) -> Result {
        if self.pad != 0 || self.reserved != [0; 2] || self.side > MMOPS {
            return Err(EINVAL);
        }

        let end = self.addr.checked_add(self.len).ok_or(EINVAL)?;
        let range = AddrRange::new(self.addr as usize, end as usize)?;
        let mm = mm::current()?;
        let mut results = KVVec::from_elem(PageResult::Untouched, range.nr_pages(), GFP_KERNEL)?;
        let mut guard = MmapRead::lock(&mm);
        let start = Instant::<Monotonic>::now();

        let count = if self.side == KERNEL {
            by_kernel(&guard, &range)?
        } else {
            exclusive::take_from_cpu(&mut guard, &range, None, &mut results)?
                .did
                .pages
        };

        self.ns = start.elapsed().as_nanos() as u64;
        self.count = count as u64;
        Ok(())
    }
}

fn by_kernel(guard: &MmapRead<'_>, range: &AddrRange) -> Result<usize> {
    let mut count = 0;

    for addr in (range.start()..range.end()).step_by(PAGE_SIZE) {
        let mut folio = ptr::null_mut();
        // SAFETY: The guard holds the mmap lock of the mm.
        let page = kernel::error::from_err_ptr(unsafe {
            make_device_exclusive(guard.mm().as_raw(), addr, ptr::null_mut(), &mut folio)
        })?;

        // SAFETY: The function returned the folio locked and with a reference. It is one page, and
        // its entry keeps it, so that this drops a reference and frees nothing.
        unsafe {
            bindings::folio_unlock(folio);
            bindings::__free_pages(page, 0);
        }
        count += 1;
    }
    Ok(count)
}

/// `struct mmops_ref_program`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Program {
    addr: u64,
    len: u64,
    results: u64,
    value: u64,
    count: u64,
    programmed: u64,
    batches: u64,
    reserved: [u64; 2],
}

impl Program {
    pub(crate) fn run(&mut self) -> Result {
        if self.reserved != [0; 2] {
            return Err(EINVAL);
        }

        let end = self.addr.checked_add(self.len).ok_or(EINVAL)?;
        let range = AddrRange::new(self.addr as usize, end as usize)?;
        let mm = mm::current()?;
        let mut results = KVVec::from_elem(PageResult::Untouched, range.nr_pages(), GFP_KERNEL)?;
        let pages = DevicePages::new(&range)?;
        let notifier: Pin<KBox<IntervalNotifier<DevicePages>>> =
            KBox::try_pin_init(new_interval_notifier!(&mm, range, pages), GFP_KERNEL)?;
        let mut batches = 0;
        let made = exclusive::make_exclusive(
            &mut MmapRead::lock(&mm),
            &range,
            &notifier,
            &mut results,
            |(), _pages| batches += 1,
        )?;

        self.count = made.did.pages as u64;
        self.batches = batches;
        self.programmed = 0;

        let pages = notifier.lock();

        for addr in (range.start()..range.end()).step_by(PAGE_SIZE) {
            if let Some(page) = pages.get(addr) {
                page.write_u64(0, self.value)?;
                self.programmed += 1;
            }
        }
        drop(pages);

        let mut writer =
            UserSlice::new(UserPtr::from_addr(self.results as usize), results.len()).writer();

        for result in &results {
            writer.write_slice(&[*result as u8])?;
        }
        Ok(())
    }
}
