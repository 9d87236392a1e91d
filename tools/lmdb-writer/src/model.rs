// SPDX-License-Identifier: GPL-2.0

//! What a database holds, as one number that does not depend on the order of changes.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};

use serde::{Deserialize, Serialize};

/// Hash of an entry.
pub fn hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_usize(key.len());
    hasher.write(key);
    hasher.write(value);
    hasher.finish()
}

/// Number of entries, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Number of entries.
    pub entries: u64,
    /// Sum of their hashes, modulo 2^64.
    pub checksum: u64,
}

impl Content {
    /// An entry was added.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.add_hash(hash(key, value));
    }

    /// An entry with this hash was added.
    pub fn add_hash(&mut self, hash: u64) {
        self.entries += 1;
        self.checksum = self.checksum.wrapping_add(hash);
    }

    /// An entry with this hash was taken away.
    pub fn remove_hash(&mut self, hash: u64) {
        self.entries -= 1;
        self.checksum = self.checksum.wrapping_sub(hash);
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{} entries with checksum {:016x}",
            self.entries, self.checksum
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_content_does() {
        let content = |entries: &[(&str, &str)]| {
            let mut content = Content::default();
            entries
                .iter()
                .for_each(|(key, value)| content.add(key.as_bytes(), value.as_bytes()));
            content
        };
        let ab = content(&[("a", "1"), ("b", "2")]);
        assert_eq!(ab, content(&[("b", "2"), ("a", "1")]));
        assert_ne!(ab, content(&[("a", "2"), ("b", "1")]));
        assert_ne!(content(&[("ab", "c")]), content(&[("a", "bc")]));
        let mut less = ab;
        less.remove_hash(hash(b"b", b"2"));
        assert_eq!(less, content(&[("a", "1")]));
    }
}
