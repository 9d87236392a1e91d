// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_CLEAN_RECORD`: harvest dirty pages into a bitmap in user memory.
//!
//! The bitmap is handled in windows, one for each piece of the range that has entries, so that
//! neither an allocation nor the time grows with the range. Before anything is cleaned, the
//! mappings of all of it are looked at, and those windows are read and written back once: if that
//! works, only a process that unmaps or writes its own bitmap meanwhile can lose a record.

use crate::{
    huge,
    uapi, //
};
use kernel::{
    mm::virt::flags,
    page::{
        PAGE_MASK,
        PAGE_SIZE, //
    },
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
    mm::{
        self,
        MmapRead, //
    },
    range::{
        AddrRange,
        PageRange, //
    }, //
};

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
    transfer.check(&mapping)?;

    let mut words = KVVec::new();

    bitmap.window(&range).check()?;

    let mut probed = 0;
    let mut loaded = None;
    while let Some(piece) = dirty::next_piece(&mut mapping, &range, probed)? {
        let window = bitmap.window(&piece);

        window.load(&mut words)?;
        window.store(&words)?;
        probed = piece.end() - range.first();
        loaded = Some(piece);
    }

    arg.cleaned = 0;
    arg.done = 0;
    while let Some(piece) = dirty::next_piece(&mut mapping, &range, arg.done as usize)? {
        let window = bitmap.window(&piece);

        arg.done = (piece.first() - range.first()) as u64;
        // Where there is but one window, the words are those of it. It is a new one where somebody
        // began to use a mapping meanwhile.
        if loaded.take() != Some(piece) {
            window.load(&mut words)?;
            window.store(&words)?;
        }

        let mut record = RecordBitmap::new(&mut words, window.pgoff);
        let cleaned =
            dirty::clean_record(&mut mapping, &piece, &mut record, huge(arg.flags), transfer)?;

        let known = (record.start(), record.end());

        arg.cleaned += cleaned.did.pages as u64;
        window.store(&words)?;
        // Not before the caller has them: a bit that could not be stored is not set.
        window.extend_known(arg, known);
        arg.done += cleaned.done.0 as u64;
        cleaned.check()?;
    }
    arg.done = arg.nr;
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
    /// Whether all of it is mapped, to be read and written. None of it is touched.
    fn check(&self) -> Result {
        let end = self.addr + self.words * size_of::<u64>();
        let end = end.checked_next_multiple_of(PAGE_SIZE).ok_or(EFAULT)?;
        let range = AddrRange::new(self.addr & PAGE_MASK, end).map_err(|_| EFAULT)?;
        let mm = mm::current()?;
        let guard = MmapRead::lock(&mm);
        let access = flags::READ | flags::WRITE;

        guard
            .for_each_vma(&range, |vma, _part| {
                if vma.flags() & access == access {
                    Ok(())
                } else {
                    Err(EFAULT)
                }
            })
            .map_err(|_| EFAULT)
    }

    fn user(&self) -> UserSlice {
        UserSlice::new(UserPtr::from_addr(self.addr), self.words * size_of::<u64>())
    }

    fn load(&self, words: &mut KVVec<u64>) -> Result {
        words.resize(self.words, 0, GFP_KERNEL)?;
        self.user().reader().read_slice(words.as_mut_bytes())
    }

    fn store(&self, words: &KVVec<u64>) -> Result {
        self.user().writer().write_slice(words.as_bytes())
    }

    /// Extends the known range of set bits by what a bitmap over this window has gained, from
    /// `start` to `end`.
    fn extend_known(&self, arg: &mut uapi::CleanRecord, (start, end): (usize, usize)) {
        if start >= end {
            return;
        }

        let start = (self.bit + start) as u64;
        let end = (self.bit + end) as u64;

        if arg.start >= arg.end {
            (arg.start, arg.end) = (start, end);
        } else {
            (arg.start, arg.end) = (arg.start.min(start), arg.end.max(end));
        }
    }
}
