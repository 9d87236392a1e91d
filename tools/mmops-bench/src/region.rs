// SPDX-License-Identifier: GPL-2.0

//! Memory to measure on: a memfd, or a file of ramfs, that is mapped shared, in base pages only.

use std::env;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use mmops_raw::{Advice, Memory};
use nix::sys::memfd::{memfd_create, MFdFlags};

/// Bytes in a base page.
///
/// The sizes in the names of the cases hold for this page size only.
pub const PAGE_SIZE: usize = 4096;

/// Names a directory on ramfs.
const RAMFS: &str = "MMOPS_RAMFS";

/// A mapped file. Every page is present, writable and dirty after its creation.
pub struct Region {
    file: File,
    memory: Memory,
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
        let len = pages as usize * PAGE_SIZE;
        file.set_len(len as u64)
            .context("cannot set the size of the file")?;
        let memory = Memory::shared(&file, len).context("cannot map the file")?;
        use_base_pages(&memory)?;
        let region = Self {
            file,
            memory,
            pages,
        };
        (0..pages).for_each(|page| region.store_one(page));
        Ok(region)
    }

    /// The file.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The mapping.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Address of the mapping.
    pub fn address(&self) -> u64 {
        self.memory.range().start
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
        store_to(&self.memory, page);
    }

    /// Makes the entry of every present page writable, without a fault for each.
    pub fn make_writable(&mut self) -> io::Result<()> {
        // This rewrites each entry, with the write permission in it: a shared mapping of a memfd
        // needs no notice of the first store.
        self.memory.protect_and_permit()
    }
}

/// The first word of a page of a mapping.
pub fn word_of(page: u32) -> usize {
    page as usize * (PAGE_SIZE / size_of::<u64>())
}

/// Stores to a page of a mapping.
pub fn store_to(memory: &Memory, page: u32) {
    memory.words()[word_of(page)].store(1, Ordering::Relaxed);
}

/// Has a mapping consist of base pages.
pub fn use_base_pages(memory: &Memory) -> Result<()> {
    match memory.advise(Advice::NoHugePage) {
        // A kernel without huge pages does not know the advice, and needs none.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result.context("madvise(MADV_NOHUGEPAGE)"),
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
        let mut region = Region::new(2).unwrap();
        region.make_writable().unwrap();
        region.store(&[1, 0]);
    }

    #[test]
    #[should_panic(expected = "page 2 of 2")]
    fn a_store_outside_is_refused() {
        Region::new(2).unwrap().store(&[2]);
    }
}
