// SPDX-License-Identifier: GPL-2.0

//! Copies between the device, which accesses memory with the lock of its mirror held, and a buffer
//! of a process, which must not be touched then: a fault there may come back to the mirror.

use crate::Simulated;
use core::cmp;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    uaccess::UserSlice, //
};
use mmops::{
    hmm::Pages,
    range::AddrRange, //
};

/// Pages that are copied at a time: nothing that is allocated grows with the range.
const PART_PAGES: usize = 64;

/// The parts of a range, each of at most [`PART_PAGES`].
pub(crate) fn parts(range: &AddrRange) -> impl Iterator<Item = AddrRange> + '_ {
    (range.start()..range.end())
        .step_by(PART_PAGES * PAGE_SIZE)
        .filter_map(|start| {
            let size = cmp::min(PART_PAGES * PAGE_SIZE, range.end() - start);

            AddrRange::new(start, start + size).ok()
        })
}

/// Memory of the kernel between the two copies.
pub(crate) struct Bounce(KVVec<u8>);

impl Bounce {
    /// Room for a part of `range`.
    pub(crate) fn new(range: &AddrRange) -> Result<Self> {
        let mut bytes = KVVec::new();

        bytes.resize(
            cmp::min(range.nr_pages(), PART_PAGES) * PAGE_SIZE,
            0,
            GFP_KERNEL,
        )?;
        Ok(Self(bytes))
    }

    /// The bytes of a part.
    fn of(&mut self, part: &AddrRange) -> Result<&mut [u8]> {
        self.0.get_mut(..part.nr_pages() * PAGE_SIZE).ok_or(EINVAL)
    }

    /// The page at `addr`.
    fn page(&mut self, part: &AddrRange, addr: usize) -> Result<&mut [u8; PAGE_SIZE]> {
        let (pages, _) = self.0.as_chunks_mut();

        pages
            .get_mut((addr - part.start()) / PAGE_SIZE)
            .ok_or(EINVAL)
    }

    /// The device reads from `addr` to the end of `part`; `addr` is how far it got.
    pub(crate) fn device_reads(
        &mut self,
        pages: &Pages<'_, Simulated>,
        part: &AddrRange,
        addr: &mut usize,
    ) -> Result {
        while *addr < part.end() {
            pages.read(*addr, self.page(part, *addr)?)?;
            *addr += PAGE_SIZE;
        }
        Ok(())
    }

    /// The device writes from `addr` to the end of `part`; `addr` is how far it got.
    pub(crate) fn device_writes(
        &mut self,
        pages: &mut Pages<'_, Simulated>,
        part: &AddrRange,
        addr: &mut usize,
    ) -> Result {
        while *addr < part.end() {
            pages.write(*addr, self.page(part, *addr)?)?;
            *addr += PAGE_SIZE;
        }
        Ok(())
    }

    pub(crate) fn copy_to_user(&mut self, addr: usize, part: &AddrRange) -> Result {
        let bytes = self.of(part)?;

        UserSlice::new(UserPtr::from_addr(addr), bytes.len())
            .writer()
            .write_slice(bytes)
    }

    pub(crate) fn copy_from_user(&mut self, addr: usize, part: &AddrRange) -> Result {
        let bytes = self.of(part)?;

        UserSlice::new(UserPtr::from_addr(addr), bytes.len())
            .reader()
            .read_slice(bytes)
    }
}
