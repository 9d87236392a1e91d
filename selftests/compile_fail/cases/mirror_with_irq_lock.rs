// SPDX-License-Identifier: GPL-2.0
//! A mirror that is read in an interrupt: the lock of its page table, a plain spinlock, may be held
//! by what was interrupted.
//@revisions: wrong twin
//@[twin] check-pass
use kernel::sync::lock::spinlock;
use mmops::hmm::{
    Device,
    Mirror, //
};

#[cfg(twin)]
use spinlock::SpinLockBackend as Lock;
#[cfg(wrong)]
use spinlock::SpinLockIrqBackend as Lock;

pub fn case<D: Device>(_mirror: &Mirror<D, Lock>) {}
//~[wrong]^ ERROR: E0277: the trait bound `SpinLockIrqBackend: MirrorLock` is not satisfied
