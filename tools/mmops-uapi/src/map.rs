// SPDX-License-Identifier: GPL-2.0

//! A shared mapping of a file, to store to without `unsafe`.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{self, MapFlags, ProtFlags};

/// A readable and writable `MAP_SHARED` mapping of a part of a file, as 64-bit words.
///
/// Every access is atomic, because other processes and other mappings may store at the same
/// time. An access beyond the end of the file raises `SIGBUS`.
#[derive(Debug)]
pub struct SharedMap {
    addr: NonNull<c_void>,
    len: usize,
}

impl SharedMap {
    /// Maps `len` bytes of `file` from byte `offset` on, which must be a multiple of the page
    /// size.
    pub fn new(file: impl AsFd, offset: u64, len: usize) -> io::Result<Self> {
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let length = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses overlaps nothing.
        let addr = unsafe {
            mman::mmap(
                None,
                length,
                prot,
                MapFlags::MAP_SHARED,
                file,
                offset.try_into().map_err(invalid)?,
            )
        }?;
        Ok(Self { addr, len })
    }

    /// Number of whole words.
    pub fn words(&self) -> usize {
        self.len / size_of::<u64>()
    }

    /// Address of the mapping in this process.
    pub fn addr(&self) -> usize {
        self.addr.as_ptr() as usize
    }

    /// The mapping as words that others may store to at any time.
    pub fn as_words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `words()` words long, readable and writable, and
        // lives as long as `self`. Any content is a valid word, and atomics may be shared.
        unsafe { std::slice::from_raw_parts(self.addr.as_ptr().cast(), self.words()) }
    }

    /// Stores `value` to word `index`.
    pub fn store(&self, index: usize, value: u64) {
        self.as_words()[index].store(value, Ordering::Relaxed);
    }

    /// Loads word `index`.
    pub fn load(&self, index: usize) -> u64 {
        self.as_words()[index].load(Ordering::Relaxed)
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives `self`.
        let result = unsafe { mman::munmap(self.addr, self.len) };
        debug_assert!(result.is_ok());
    }
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for SharedMap {}
// SAFETY: it is only accessed through atomics.
unsafe impl Sync for SharedMap {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn stores_reach_the_file() {
        let path = std::env::temp_dir().join(format!("mmops-uapi-{}", std::process::id()));
        let file = File::create_new(&path).unwrap();
        let read_only = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(16384).unwrap();
        assert!(SharedMap::new(&read_only, 0, 16384).is_err());
        assert!(SharedMap::new(&file, 0, 0).is_err());
        let map = SharedMap::new(&file, 0, 16384).unwrap();
        assert_eq!(map.words(), 2048);
        map.store(2047, 0x1122_3344_5566_7788);
        assert_eq!(map.load(2047), 0x1122_3344_5566_7788);
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 16376).unwrap();
        assert_eq!(u64::from_ne_bytes(bytes), 0x1122_3344_5566_7788);
    }
}
