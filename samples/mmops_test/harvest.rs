// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_CLEAN_RECORD`: harvest dirty pages into a bitmap in user memory.
//!
//! The bitmap is handled in windows, so that no allocation grows with the range. All of it is read
//! and written back once before anything is cleaned: if that works, only a process that unmaps or
//! writes its own bitmap meanwhile can lose a record.

use crate::{
    huge,
    interrupted,
    uapi, //
};
use kernel::{
    prelude::*,
    uaccess::UserSlice, //
};
use mmops::{
    bitmap::{
        RecordBitmap,
        BITS_PER_WORD, //
    },
    dirty::{
        self,
        Transfer, //
    },
    mapping::Mapping,
    range::PageRange,
    signal, //
};

/// Pages in a window: 1 GiB, a bitmap of 32 KiB.
const WINDOW_PAGES: usize = 1 << 18;

pub(crate) fn clean_record(arg: &mut uapi::CleanRecord) -> Result {
    let range = PageRange::new(arg.first as usize, arg.nr as usize)?;
    let bitmap = UserBitmap::new(arg)?;

    if !range.is_within(bitmap.pgoff, bitmap.bits) {
        return Err(EINVAL);
    }

    let mut mapping = Mapping::fget(arg.fd)?;
    let transfer = if arg.flags & uapi::NO_TRANSFER != 0 {
        Transfer::Skip
    } else {
        Transfer::ToFolio
    };
    let mut words = KVVec::new();
    let window_at = |done: usize| {
        // A window ends at a multiple of its size, so that none ends inside a huge leaf.
        let part = range.part(done, WINDOW_PAGES - (range.first() + done) % WINDOW_PAGES)?;

        Some((part, bitmap.window(&part)))
    };

    let mut probed = 0;
    while let Some((part, window)) = window_at(probed) {
        signal::interruption()?;
        window.load(&mut words)?;
        window.store(&words)?;
        probed += part.nr();
    }

    arg.cleaned = 0;
    arg.done = 0;
    while let Some((part, window)) = window_at(arg.done as usize) {
        window.load(&mut words)?;

        let mut record = RecordBitmap::new(&mut words, window.pgoff);
        let outcome =
            dirty::clean_record(&mut mapping, &part, &mut record, huge(arg.flags), transfer)?;

        window.extend_known(arg, &record);
        arg.cleaned += outcome.changed as u64;
        window.store(&words)?;
        arg.done += outcome.done as u64;
        interrupted(outcome.done < part.nr())?;
    }
    Ok(())
}

/// A bitmap in user memory: an array of 64-bit words.
struct UserBitmap {
    addr: usize,
    pgoff: usize,
    bits: usize,
}

impl UserBitmap {
    fn new(arg: &uapi::CleanRecord) -> Result<Self> {
        let bits = arg.bitmap_bits as usize;

        if arg.bitmap % size_of::<u64>() as u64 != 0 || bits % BITS_PER_WORD != 0 {
            return Err(EINVAL);
        }
        (arg.bitmap as usize).checked_add(bits / 8).ok_or(EFAULT)?;
        Ok(Self {
            addr: arg.bitmap as usize,
            pgoff: arg.bitmap_pgoff as usize,
            bits,
        })
    }

    /// The whole words that hold the bits of `part`, which the bitmap covers.
    fn window(&self, part: &PageRange) -> Window {
        let first = (part.first() - self.pgoff) / BITS_PER_WORD;
        let end = (part.end() - self.pgoff).div_ceil(BITS_PER_WORD);

        Window {
            addr: self.addr + first * size_of::<u64>(),
            words: end - first,
            pgoff: self.pgoff + first * BITS_PER_WORD,
            bit: first * BITS_PER_WORD,
        }
    }
}

/// A part of a [`UserBitmap`].
struct Window {
    addr: usize,
    words: usize,
    /// Page offset of its first bit.
    pgoff: usize,
    /// Index of its first bit in the whole bitmap.
    bit: usize,
}

impl Window {
    fn user(&self) -> UserSlice {
        UserSlice::new(UserPtr::from_addr(self.addr), self.words * size_of::<u64>())
    }

    fn load(&self, words: &mut KVVec<u64>) -> Result {
        words.clear();
        words.resize(self.words, 0, GFP_KERNEL)?;
        self.user().reader().read_slice(words.as_mut_bytes())
    }

    fn store(&self, words: &KVVec<u64>) -> Result {
        self.user().writer().write_slice(words.as_bytes())
    }

    /// Extends the known range of set bits by what `record`, a bitmap over this window, gained.
    fn extend_known(&self, arg: &mut uapi::CleanRecord, record: &RecordBitmap<'_>) {
        if record.start() >= record.end() {
            return;
        }

        let start = (self.bit + record.start()) as u64;
        let end = (self.bit + record.end()) as u64;

        if arg.start >= arg.end {
            (arg.start, arg.end) = (start, end);
        } else {
            (arg.start, arg.end) = (arg.start.min(start), arg.end.max(end));
        }
    }
}
