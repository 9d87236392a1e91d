// SPDX-License-Identifier: GPL-2.0

//! `/dev/mmops_ref`: the kernel's own C functions and those of the crate `mmops`, on the same
//! range and timed the same way. For tests and benchmarks; the interface is `mmops_ref.h`.

#[macro_use]
#[path = "../misc_device.rs"]
mod misc_device;

mod exclusive;
mod nested;
mod nonblock;

use kernel::{
    bindings,
    ioctl::_IOWR,
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    },
    uaccess::UserSlice, //
};
use mmops::{
    bitmap::{
        RecordBitmap,
        BITS_PER_WORD, //
    },
    dirty::{
        self,
        Changed,
        Huge,
        Transfer, //
    },
    mapping::Mapping,
    partial::{
        Pages,
        Partial, //
    },
    range::PageRange, //
};
use zerocopy_derive::Immutable;

module! {
    type: MmopsRef,
    name: "mmops_ref",
    authors: ["The mmops authors"],
    description: "The kernel's functions as a reference for tests of mmops",
    license: "GPL",
    imports_ns: ["MMOPS"],
}

// The kernel's crate declares them with the same types and silences the same lint.
#[allow(improper_ctypes)]
extern "C" {
    // mm/mapping_dirty_helpers.c
    fn wp_shared_mapping_range(
        mapping: *mut bindings::address_space,
        first_index: usize,
        nr: usize,
    ) -> usize;
    fn clean_record_shared_mapping_range(
        mapping: *mut bindings::address_space,
        first_index: usize,
        nr: usize,
        bitmap_pgoff: usize,
        bitmap: *mut usize,
        start: *mut usize,
        end: *mut usize,
    ) -> usize;
}

const WRITE_PROTECT: u32 = 0;
const CLEAN_RECORD: u32 = 1;
const KERNEL: u32 = 0;
const MMOPS: u32 = 1;
const SPLIT: u32 = 1 << 0;
const NO_TRANSFER: u32 = 1 << 1;

const IOC_DIRTY: u32 = _IOWR::<Dirty>(0xBE, 0x00);

/// `struct mmops_ref_dirty`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Dirty {
    fd: i32,
    op: u32,
    side: u32,
    flags: u32,
    first: u64,
    nr: u64,
    bitmap_pgoff: u64,
    bitmap: u64,
    bitmap_bits: u64,
    start: u64,
    end: u64,
    count: u64,
    ns: u64,
    reserved: [u64; 2],
}

misc_device!(MmopsRef, c"mmops_ref", {
    IOC_DIRTY => Dirty::run,
    exclusive::IOC => exclusive::Exclusive::run,
    nested::IOC => nested::Nested::run,
    nonblock::IOC => nonblock::Nonblock::run,
    exclusive::IOC_PROGRAM => exclusive::Program::run,
});

impl Dirty {
    fn run(&mut self) -> Result {
        let known_flags = if self.side == MMOPS {
            SPLIT | NO_TRANSFER
        } else {
            0
        };

        if self.reserved != [0; 2] || self.flags & !known_flags != 0 || self.side > MMOPS {
            return Err(EINVAL);
        }

        let range = PageRange::new(self.first as usize, self.nr as usize)?;
        let mut mapping = Mapping::fget(self.fd)?;

        match self.op {
            WRITE_PROTECT => self.write_protect(&mut mapping, &range),
            CLEAN_RECORD => self.with_bitmap(&range, |arg, words| {
                arg.clean_record(&mut mapping, &range, words)
            }),
            _ => Err(EINVAL),
        }
    }

    /// Runs and times `f`.
    fn timed<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let start = Instant::<Monotonic>::now();
        let ret = f();

        self.ns = start.elapsed().as_nanos() as u64;
        ret
    }

    fn write_protect(&mut self, mapping: &mut Mapping, range: &PageRange) -> Result {
        if self.side == KERNEL {
            // SAFETY: `mapping` keeps the address space; the range does not overflow.
            self.count = self.timed(|| unsafe {
                wp_shared_mapping_range(mapping.as_ptr(), range.first(), range.nr())
            }) as u64;
            return Ok(());
        }

        let huge = self.huge();
        let changed = self.timed(|| dirty::write_protect(mapping, range, huge))?;

        self.finish(changed)
    }

    /// Copies the bitmap of the caller in, runs `f` on it, and copies it out.
    fn with_bitmap(
        &mut self,
        range: &PageRange,
        f: impl FnOnce(&mut Self, &mut [u64]) -> Result,
    ) -> Result {
        let bits = self.bitmap_bits as usize;
        let pgoff = self.bitmap_pgoff as usize;

        if bits % BITS_PER_WORD != 0 || !range.is_within(pgoff, bits) {
            return Err(EINVAL);
        }

        let user = || UserSlice::new(UserPtr::from_addr(self.bitmap as usize), bits / 8);
        let (mut reader, mut writer) = (user().reader(), user().writer());
        let mut words = KVVec::from_elem(0u64, bits / BITS_PER_WORD, GFP_KERNEL)?;

        reader.read_slice(words.as_mut_bytes())?;
        f(self, &mut words)?;
        writer.write_slice(words.as_bytes())
    }

    fn clean_record(
        &mut self,
        mapping: &mut Mapping,
        range: &PageRange,
        words: &mut [u64],
    ) -> Result {
        let pgoff = self.bitmap_pgoff as usize;
        let (mut start, mut end) = (self.start as usize, self.end as usize);

        if self.side == KERNEL {
            // SAFETY: `mapping` keeps the address space, the bitmap covers the range, and the
            // other pointers are valid for writes.
            self.count = self.timed(|| unsafe {
                clean_record_shared_mapping_range(
                    mapping.as_ptr(),
                    range.first(),
                    range.nr(),
                    pgoff,
                    words.as_mut_ptr().cast(),
                    &mut start,
                    &mut end,
                )
            }) as u64;
            (self.start, self.end) = (start as u64, end as u64);
            return Ok(());
        }

        let huge = self.huge();
        let transfer = if self.flags & NO_TRANSFER != 0 {
            Transfer::Skip
        } else {
            Transfer::ToFolio
        };
        let mut bitmap = RecordBitmap::with_known(words, pgoff, start, end);
        let changed =
            self.timed(|| dirty::clean_record(mapping, range, &mut bitmap, huge, transfer))?;

        (self.start, self.end) = (bitmap.start() as u64, bitmap.end() as u64);
        self.finish(changed)
    }

    fn huge(&self) -> Huge {
        if self.flags & SPLIT != 0 {
            Huge::Split
        } else {
            Huge::Keep
        }
    }

    fn finish(&mut self, changed: Partial<Changed, Pages>) -> Result {
        self.count = changed.did.pages as u64;
        changed.check()
    }
}
