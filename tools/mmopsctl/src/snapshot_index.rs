// SPDX-License-Identifier: GPL-2.0

//! The index of a snapshot.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// What it says that it is.
const FORMAT: &str = "mmops-snapshot";
/// Version of its format: another one has members that mean something else.
const VERSION: u32 = 1;

/// Addresses, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    start: String,
    end: String,
}

impl From<&Range<u64>> for Addresses {
    fn from(range: &Range<u64>) -> Self {
        Self {
            start: format!("{:x}", range.start),
            end: format!("{:x}", range.end),
        }
    }
}

/// A mapping that was copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it was.
    #[serde(flatten)]
    pub addresses: Addresses,
    /// As in `/proc/PID/maps`.
    pub permissions: String,
    /// Where it begins in the file that it maps, in bytes.
    pub offset: u64,
    /// As in `/proc/PID/maps`; empty for anonymous memory.
    pub path: String,
    /// The file with its contents.
    pub contents: String,
    /// What of it could not be read.
    pub unreadable: Vec<Addresses>,
    /// BLAKE3, in hexadecimal; one that was made by an older mmopsctl has none.
    pub digest: Option<String>,
}

/// A mapping that was not copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Where it was.
    #[serde(flatten)]
    pub addresses: Addresses,
    /// As in `/proc/PID/maps`.
    pub path: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Addresses { start, end } = &self.addresses;
        write!(f, "{start}-{end} {}: {}", self.path, self.reason)
    }
}

/// The index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    format: String,
    version: u32,
    /// Process.
    pub pid: u32,
    /// Bytes of a page.
    pub page_size: u64,
    /// What was copied, in ascending order.
    pub mappings: Vec<Entry>,
    /// What was not.
    pub left_out: Vec<LeftOut>,
}

impl Index {
    /// An index of this version.
    pub fn new(pid: u32, page_size: u64, mappings: Vec<Entry>, left_out: Vec<LeftOut>) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            pid,
            page_size,
            mappings,
            left_out,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::snapshot_dir::Directory;

    /// With a mapping and one that was left out.
    pub fn sample() -> Index {
        let entry = Entry {
            addresses: (&(0x1000..0x9000)).into(),
            permissions: "rw-p".into(),
            offset: 4096,
            path: "/a \"path\"".into(),
            contents: Directory::name(0x1000),
            unreadable: vec![(&(0x2000..0x3000)).into()],
            digest: Some(blake3::hash(&[]).to_hex().to_string()),
        };
        let left_out = LeftOut {
            addresses: (&(0x7fff_0000_0000..0x7fff_0000_4000)).into(),
            path: "[vvar]".into(),
            reason: "memory of the kernel".into(),
        };
        Index::new(7, 4096, vec![entry], vec![left_out])
    }

    #[test]
    fn index_is_read_as_it_was_written() {
        let text = serde_json::to_string(&sample()).unwrap();
        assert_eq!(serde_json::from_str::<Index>(&text).unwrap(), sample());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (value["format"].as_str(), value["version"].as_u64()),
            (Some("mmops-snapshot"), Some(1))
        );
        assert_eq!(value["mappings"][0]["start"], "1000");
        assert_eq!(value["mappings"][0]["end"], "9000");
        assert_eq!(value["left_out"][0]["start"], "7fff00000000");
    }
}
