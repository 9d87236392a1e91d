// SPDX-License-Identifier: GPL-2.0

//! A driver that asks for exclusive pages where its device is programmed for others.

use kernel::{
    ioctl::_IOWR,
    prelude::*, //
};
use mmops::{
    exclusive::{
        self,
        DevicePages,
        PageResult, //
    },
    hmm::{
        self,
        HmmPfn,
        Request, //
    },
    mm::{
        self,
        MmapRead, //
    },
    new_interval_notifier,
    notifier::IntervalNotifier,
    partial::Partial,
    range::AddrRange, //
};
use zerocopy_derive::Immutable;

pub(crate) const IOC: u32 = _IOWR::<Nested>(0xBE, 0x08);

/// `struct mmops_ref_nested`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Nested {
    addr: u64,
    len: u64,
    make: i32,
    take: i32,
    revoke: i32,
    fault: i32,
    programmed: u32,
    reserved32: u32,
    reserved: u64,
}

fn errno<T>(ret: Result<Partial<T>>) -> i32 {
    ret.map_or_else(|error| error.to_errno(), |_| 0)
}

impl Nested {
    pub(crate) fn run(&mut self) -> Result {
        if self.reserved32 != 0 || self.reserved != 0 {
            return Err(EINVAL);
        }

        let end = self.addr.checked_add(self.len).ok_or(EINVAL)?;
        let range = AddrRange::new(self.addr as usize, end as usize)?;
        let mm = mm::current()?;
        let mut results = KVVec::from_elem(PageResult::Untouched, range.nr_pages(), GFP_KERNEL)?;
        let mut pfns = KVVec::from_elem(HmmPfn::default(), range.nr_pages(), GFP_KERNEL)?;
        let mut inner = KVVec::from_elem(PageResult::Untouched, range.nr_pages(), GFP_KERNEL)?;
        let pages = DevicePages::new(&range)?;
        let notifier: Pin<KBox<IntervalNotifier<DevicePages>>> =
            KBox::try_pin_init(new_interval_notifier!(&mm, range, pages), GFP_KERNEL)?;

        // Of the time before, so that no change of its own comes between.
        let token = notifier.read_begin()?;

        self.programmed = 0;
        let made = exclusive::make_exclusive(
            &mut MmapRead::lock(&mm),
            &range,
            &notifier,
            &mut results,
            |(), _pages| {
                let mut guard = MmapRead::lock(&mm);
                let ret = exclusive::make_exclusive(
                    &mut guard,
                    &range,
                    &notifier,
                    &mut inner,
                    |(), _pages| (),
                );

                self.make = errno(ret);
                self.take = errno(exclusive::take_from_cpu(
                    &mut guard, &range, None, &mut inner,
                ));
                self.revoke = errno(exclusive::revoke(&mut guard, &range));
                self.fault = hmm::range_fault(
                    &notifier,
                    &mut guard,
                    &token,
                    &range,
                    Request::Write,
                    &mut pfns,
                )
                .map_or_else(|error| error.to_errno(), |()| 0);
                self.programmed += 1;
            },
        )?;

        made.check()
    }
}
