// SPDX-License-Identifier: GPL-2.0

//! An invalidation that must not block, as the OOM reaper's.

use kernel::{
    ioctl::_IOWR,
    prelude::*, //
};
use mmops::{
    mm::{
        self,
        MmapRead, //
    },
    new_interval_notifier,
    notifier::{
        self,
        ChangeEvent,
        IntervalNotifier,
        IntervalOps,
        Invalidated, //
    },
    range::AddrRange, //
};
use zerocopy_derive::Immutable;

pub(crate) const IOC: u32 = _IOWR::<Nonblock>(0xBE, 0x03);

/// `struct mmops_ref_nonblock`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Nonblock {
    addr: u64,
    len: u64,
    locked: u32,
    refused: u32,
    ran: u32,
    told: u32,
    reserved: [u64; 2],
}

/// How often the driver was told.
struct Told(u32);

impl IntervalOps for Told {
    fn invalidate(self: Pin<&mut Self>, what: &Invalidated) {
        self.get_mut().0 += u32::from(!what.may_block());
    }
}

impl Nonblock {
    pub(crate) fn run(&mut self) -> Result {
        if self.reserved != [0; 2] || self.locked > 1 {
            return Err(EINVAL);
        }

        let end = self.addr.checked_add(self.len).ok_or(EINVAL)?;
        let range = AddrRange::new(self.addr as usize, end as usize)?;
        let mm = mm::current()?;
        let driver: Pin<KBox<IntervalNotifier<Told>>> =
            KBox::try_pin_init(new_interval_notifier!(&mm, range, Told(0)), GFP_KERNEL)?;
        let mmap = MmapRead::lock(&mm);
        let guard = (self.locked != 0).then(|| driver.lock());
        let mut ran = 0;
        let ret = notifier::try_with_invalidation(&mmap, &range, ChangeEvent::CLEAR, || ran += 1);

        drop(guard);
        drop(mmap);
        // Waits for ever if an invalidation that was refused is still open.
        let token = driver.read_begin()?;

        self.told = driver.lock().0;
        drop(driver.lock_if_current(token));
        self.ran = ran;
        self.refused = u32::from(ret == Err(EAGAIN));
        match ret {
            Err(e) if e != EAGAIN => Err(e),
            _ => Ok(()),
        }
    }
}
