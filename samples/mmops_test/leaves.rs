// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_LEAVES`: list the leaves of an address space.
//!
//! The mmap lock is not held while records are copied to the caller, since that may fault.

use crate::{
    addr_range,
    address_space,
    uapi, //
};
use kernel::{
    prelude::*,
    uaccess::UserSlice, //
};
use mmops::{
    leaves::{
        self,
        MIN_ROOM, //
    },
    mm::MmapRead,
    range::AddrRange, //
};

/// Records that are listed under one hold of the mmap lock.
const BATCH: usize = 8 * MIN_ROOM;

pub(crate) fn leaves(arg: &mut uapi::Leaves) -> Result {
    let range = addr_range(arg.addr, arg.len)?;
    let vec_len = arg.vec_len as usize;

    if vec_len < MIN_ROOM {
        return Err(EINVAL);
    }

    let bytes = vec_len.checked_mul(size_of::<uapi::Leaf>()).ok_or(EINVAL)?;
    let mut user = UserSlice::new(UserPtr::from_addr(arg.vec as usize), bytes).writer();
    let mm = address_space(arg.pidfd)?;
    let mut list = KVVec::new();
    let mut records = KVVec::with_capacity(BATCH, GFP_KERNEL)?;

    let (mut nr, mut next) = (0, range.start());

    while next < range.end() {
        let room = vec_len - nr;

        if room < MIN_ROOM {
            break;
        }
        list.clear();
        records.clear();
        if list.capacity() != room.min(BATCH) {
            list = KVVec::with_capacity(room.min(BATCH), GFP_KERNEL)?;
        }

        let rest = AddrRange::new(next, range.end())?;

        let listed = leaves::list(&mut MmapRead::lock(&mm), &rest, &mut list)?;

        if let Some(e) = listed.stopped.filter(|e| *e != ENOSPC) {
            return Err(e);
        }
        next += listed.done.0;

        for leaf in &list {
            records.push(
                uapi::Leaf::new(
                    leaf.addr as u64,
                    leaf.state.bits(),
                    leaf.size.trailing_zeros() as u8,
                    leaf.kind as u8,
                ),
                GFP_KERNEL,
            )?;
        }
        user.write_slice(records.as_bytes())?;
        nr += records.len();
    }

    // The argument is as it was if a call fails.
    arg.nr = nr as u64;
    arg.next = next as u64;
    Ok(())
}
