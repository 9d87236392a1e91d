// SPDX-License-Identifier: GPL-2.0

//! Memory of this process that others change.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::process;
use std::sync::atomic::AtomicU64;

pub use memmap2::Advice;
use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};
use rustix::mm::{mprotect, MprotectFlags};

/// A readable and writable mapping of this process, as 64-bit words.
///
/// Every access is atomic, because other processes, other mappings and the kernel may store at the
/// same time. An access beyond the end of the file raises `SIGBUS`.
#[derive(Debug)]
pub struct Memory(MmapRaw);

impl Memory {
    /// Maps the first `len` bytes of a file, shared.
    pub fn shared(file: impl AsFd, len: usize) -> io::Result<Self> {
        let file = file.as_fd().as_raw_fd();
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self(MmapOptions::new().len(len).map_raw(file)?))
    }

    /// Maps `len` bytes of private anonymous memory.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self(MmapOptions::new().len(len).map_anon()?.into()))
    }

    /// Length in bytes, never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The addresses that it has in this process.
    pub fn range(&self) -> Range<u64> {
        let (address, len) = self.place();
        address..address + len
    }

    /// Address and length.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.0.as_mut_ptr() as u64, self.len() as u64)
    }

    /// The mapping as words that others may store to at any time.
    pub fn words(&self) -> &[AtomicU64] {
        let words = self.0.as_mut_ptr().cast::<AtomicU64>();
        // SAFETY: The mapping begins with a page, has so many words, and is as long as `self`. Any
        // content is a value, and who changes it otherwise is outside of the program.
        unsafe { std::slice::from_raw_parts(words, self.len() / size_of::<u64>()) }
    }

    /// `madvise(2)` that leaves the contents alone.
    pub fn advise(&self, advice: Advice) -> io::Result<()> {
        self.0.advise(advice)
    }

    /// `madvise(MADV_DONTNEED)`: the next access gets what is in the file, or zeros.
    pub fn discard(&self) -> io::Result<()> {
        // SAFETY: The contents may change at any time.
        unsafe { self.0.unchecked_advise(UncheckedAdvice::DontNeed) }
    }

    /// Takes the permission to store away and gives it back, by `mprotect(2)`.
    pub fn protect_and_permit(&mut self) -> io::Result<()> {
        let mprotect = |flags| {
            // SAFETY: The range is that of the mapping, and nobody has a reference to it.
            unsafe { mprotect(self.0.as_mut_ptr().cast(), self.len(), flags) }
        };
        mprotect(MprotectFlags::READ)?;
        if let Err(error) = mprotect(MprotectFlags::READ | MprotectFlags::WRITE) {
            // It is no such mapping any more.
            eprintln!("mprotect: {error}");
            process::abort();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn stores_reach_the_file() {
        let path = std::env::temp_dir().join(format!("mmops-raw-{}", process::id()));
        let file = File::create_new(&path).unwrap();
        let read_only = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(16384).unwrap();
        assert!(Memory::shared(&read_only, 16384).is_err());
        assert!(Memory::shared(&file, 0).is_err());
        let mut memory = Memory::shared(&file, 16384).unwrap();
        memory.protect_and_permit().unwrap();
        assert_eq!(memory.words().len(), 2048);
        memory.words()[2047].store(0x1122_3344_5566_7788, Relaxed);
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 16376).unwrap();
        assert_eq!(u64::from_ne_bytes(bytes), 0x1122_3344_5566_7788);
        memory.discard().unwrap();
        assert_eq!(memory.words()[2047].load(Relaxed), 0x1122_3344_5566_7788);
    }

    #[test]
    fn contents_of_no_file_are_discarded() {
        assert!(Memory::anonymous(0).is_err());
        let mut memory = Memory::anonymous(8192).unwrap();
        assert_eq!(memory.range().end - memory.range().start, 8192);
        memory.words()[512].store(7, Relaxed);
        memory.protect_and_permit().unwrap();
        assert_eq!(memory.words()[512].load(Relaxed), 7);
        memory.discard().unwrap();
        assert_eq!(memory.words()[512].load(Relaxed), 0);
    }
}
