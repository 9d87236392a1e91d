// SPDX-License-Identifier: GPL-2.0
//! Pages that are made exclusive in the function that programs the device for others: the folios
//! of the outer batch are locked, and so is the notifier, which the inner call waits for.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::{
    mm::MmWithUser,
    prelude::*, //
};
use mmops::{
    exclusive::{
        make_exclusive,
        DevicePages,
        PageResult, //
    },
    mm::MmapRead,
    notifier::IntervalNotifier,
    range::AddrRange, //
};

pub fn case(mm: &MmWithUser, range: AddrRange, n: &IntervalNotifier<DevicePages>) -> Result {
    let mut guard = MmapRead::lock(mm);
    let mut results = [PageResult::Untouched; 1];

    make_exclusive(&mut guard, &range, n, &mut results, |(), _pages| {
        //~[wrong]^ ERROR: E0499: cannot borrow `guard` as mutable more than once
        #[cfg(wrong)]
        let _ = make_exclusive(&mut guard, &range, n, &mut [], |(), _pages| ());
    })?;
    Ok(())
}
