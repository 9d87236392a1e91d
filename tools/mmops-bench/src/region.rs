// SPDX-License-Identifier: GPL-2.0

//! Memory to measure on: a memfd, or a file of ramfs, that is mapped shared, in base pages only.

use std::env;
use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr::NonNull;

use anyhow::{Context, Result};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::mman::{madvise, mmap, mprotect, munmap, MapFlags, MmapAdvise, ProtFlags};

/// Bytes in a base page.
///
/// The sizes in the names of the cases hold for this page size only.
pub const PAGE_SIZE: usize = 4096;

/// Names a directory on ramfs.
const RAMFS: &str = "MMOPS_RAMFS";

/// A mapped file. Every page is present, writable and dirty after its creation.
pub struct Region {
    file: File,
    base: NonNull<c_void>,
    pages: u32,
}

impl Region {
    /// Makes and fills a memfd of `pages` pages.
    pub fn new(pages: u32) -> Result<Self> {
        let fd = memfd_create(c"mmops-bench", MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
        Self::of(File::from(fd), pages)
    }

    /// Makes and fills a file of `pages` pages which reclaim leaves alone, so that a harvest need
    /// not mark what it has taken.
    pub fn on_ramfs(pages: u32) -> Result<Self> {
        let dir = env::var_os(RAMFS)
            .with_context(|| format!("{RAMFS} is not set: a directory on ramfs"))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_TMPFILE)
            .open(&dir)
            .with_context(|| format!("cannot make a file in {}", dir.display()))?;
        Self::of(file, pages)
    }

    fn of(file: File, pages: u32) -> Result<Self> {
        let len = NonZeroUsize::new(pages as usize * PAGE_SIZE).context("empty region")?;
        file.set_len(len.get() as u64)
            .context("cannot set the size of the file")?;
        // SAFETY: the kernel chooses the address, so no other mapping is touched.
        let base = unsafe {
            mmap(
                None,
                len,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &file,
                0,
            )
        }
        .context("cannot map the file")?;
        let region = Self { file, base, pages };
        // SAFETY: the range is this region's mapping, and the advice does not change its contents.
        let advice = unsafe { madvise(base, len.get(), MmapAdvise::MADV_NOHUGEPAGE) };
        match advice {
            // A kernel without huge pages does not know the advice, and needs none.
            Ok(()) | Err(nix::Error::EINVAL) => {}
            Err(error) => return Err(error).context("madvise(MADV_NOHUGEPAGE)"),
        }
        (0..pages).for_each(|page| region.store_one(page));
        Ok(region)
    }

    /// The file.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Address of the mapping.
    pub fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.pages as usize * PAGE_SIZE
    }

    /// Stores to each of `pages`, in that order.
    pub fn store(&self, pages: &[u32]) {
        for &page in pages {
            self.store_one(page);
        }
    }

    fn store_one(&self, page: u32) {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        // SAFETY: the page lies within the mapping, which lives as long as `self` and of which no
        // reference is ever made.
        unsafe {
            let first = self.base.as_ptr().cast::<u8>();
            first.add(page as usize * PAGE_SIZE).write_volatile(1);
        }
    }

    /// Makes the entry of every present page writable, without a fault for each.
    pub fn make_writable(&self) -> io::Result<()> {
        // Protecting and unprotecting rewrites each entry, with the write permission in it: a
        // shared mapping of a memfd needs no notice of the first store.
        for prot in [
            ProtFlags::PROT_READ,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        ] {
            // SAFETY: the range is this region's mapping; nobody stores to it meanwhile, as the
            // program has one thread.
            unsafe { mprotect(self.base, self.len(), prot) }?;
        }
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this region's own and no pointer into it outlives the region.
        let unmapped = unsafe { munmap(self.base, self.len()) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(region: &Region) -> Vec<u8> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; region.len()];
        region.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn every_page_is_stored_to() {
        let region = Region::new(3).unwrap();
        let bytes = contents(&region);
        assert_eq!(bytes.iter().filter(|&&byte| byte == 1).count(), 3);
        assert!((0..3).all(|page| bytes[page * PAGE_SIZE] == 1));
    }

    #[test]
    fn is_writable_again() {
        let region = Region::new(2).unwrap();
        region.make_writable().unwrap();
        region.store(&[1, 0]);
    }

    #[test]
    #[should_panic(expected = "page 2 of 2")]
    fn a_store_outside_is_refused() {
        Region::new(2).unwrap().store(&[2]);
    }
}
