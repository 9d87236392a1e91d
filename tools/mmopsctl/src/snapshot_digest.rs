// SPDX-License-Identifier: GPL-2.0

//! The digest of the contents of a mapping in a snapshot.
//!
//! It is over the pages that are not of zeros alone, and where they are: how long it takes depends
//! on these, and neither on the size of the mapping nor on what of the zeros is a hole.

use std::fs::File;

use anyhow::Result;
use blake3::{Hash, Hasher};

use crate::snapshot_area::check;
use crate::sparse::pages_with_data;
use crate::stop::Stop;

/// A digest that is being made.
#[derive(Debug)]
pub struct Digest {
    hasher: Hasher,
    page_size: u64,
    /// Pages that it is over.
    pub pages: u64,
}

impl Digest {
    /// Over no page yet.
    pub fn new(page_size: u64) -> Self {
        Self {
            hasher: Hasher::new(),
            page_size,
            pages: 0,
        }
    }

    /// Adds pages that are not of zeros, from `offset` on in the mapping: they are behind those
    /// before.
    pub fn add(&mut self, offset: u64, pages: &[u8]) {
        let first = offset / self.page_size;
        for (number, page) in (first..).zip(pages.chunks(self.page_size as usize)) {
            self.hasher.update(&number.to_le_bytes());
            self.hasher.update(page);
            self.pages += 1;
        }
    }

    /// The digest.
    pub fn finish(&self) -> Hash {
        self.hasher.finalize()
    }
}

/// The digest of the contents of a mapping of `size` bytes, in the file `name`.
pub fn digest_of(
    contents: &File,
    name: &str,
    size: u64,
    page_size: u64,
    stop: &Stop,
) -> Result<Hash> {
    let mut digest = Digest::new(page_size);
    pages_with_data(contents, name, size, page_size, |offset, pages| {
        digest.add(offset, pages);
        check(stop)
    })?;
    Ok(digest.finish())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use tempfile::tempfile;

    use super::*;

    const PAGE: u64 = 4096;

    /// As the help of the command has it.
    fn by_the_book(pages: &[(u64, &[u8])]) -> Hash {
        let mut bytes = Vec::new();
        for (number, page) in pages {
            bytes.extend(number.to_le_bytes());
            bytes.extend(*page);
        }
        blake3::hash(&bytes)
    }

    #[test]
    fn of_what_is_not_zero_alone() {
        let file = tempfile().unwrap();
        let size = 1 << 40;
        file.set_len(size).unwrap();
        let stop = Stop::for_test(false);
        let digest = || digest_of(&file, "it", size, PAGE, &stop).unwrap();
        assert_eq!(digest(), by_the_book(&[]));
        let (mut one, two) = (vec![1; PAGE as usize], [2; PAGE as usize]);
        one[7..].fill(0);
        for (number, page) in [(0, &one[..]), (300, &two), (301, &two), (1 << 27, &one)] {
            file.write_all_at(page, number * PAGE).unwrap();
        }
        let whole = by_the_book(&[(0, &one), (300, &two), (301, &two), (1 << 27, &one)]);
        assert_eq!(digest(), whole);
        // Zeros that are no hole.
        file.write_all_at(&[0; 9000], 5 * PAGE).unwrap();
        assert_eq!(digest(), whole);
        file.write_all_at(&[1], 5 * PAGE).unwrap();
        assert_ne!(digest(), whole);

        let stop = Stop::for_test(true);
        let error = digest_of(&file, "it", size, PAGE, &stop).unwrap_err();
        assert!(error.to_string().contains("interrupted"), "{error}");
    }

    #[test]
    fn the_same_bytes_elsewhere_are_others() {
        let (one, other) = (tempfile().unwrap(), tempfile().unwrap());
        for (file, at) in [(&one, 1), (&other, 2)] {
            file.set_len(4 * PAGE).unwrap();
            file.write_all_at(b"data", at * PAGE).unwrap();
        }
        let stop = Stop::for_test(false);
        let digest = |file| digest_of(file, "it", 4 * PAGE, PAGE, &stop).unwrap();
        assert_ne!(digest(&one), digest(&other));
    }
}
