// SPDX-License-Identifier: GPL-2.0

//! The index of a snapshot.

use std::fmt;
use std::ops::Range;

use anyhow::{ensure, Result};
use serde::{Deserialize, Serialize};

/// What it says that it is.
const FORMAT: &str = "mmops-snapshot";
/// Version of its format: another one has members that mean something else.
const VERSION: u32 = 1;

/// Addresses, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    pub start: String,
    pub end: String,
}

impl From<&Range<u64>> for Addresses {
    fn from(range: &Range<u64>) -> Self {
        Self {
            start: format!("{:x}", range.start),
            end: format!("{:x}", range.end),
        }
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
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
        write!(f, "{} {}: {}", self.addresses, self.path, self.reason)
    }
}

/// What tells whether the rest can be read.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
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

    /// The index that `text` is, if it is of this version. What it says may make no sense still.
    pub fn read(text: &[u8]) -> Result<Self> {
        let head: Head = serde_json::from_slice(text)?;
        ensure!(
            head.format == FORMAT,
            "its format is {:?} instead of {FORMAT:?}",
            head.format
        );
        ensure!(
            head.version == VERSION,
            "it is of version {} of the format, and this mmopsctl reads version {VERSION} alone",
            head.version
        );
        Ok(serde_json::from_slice(text)?)
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
        assert_eq!(Index::read(text.as_bytes()).unwrap(), sample());
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (value["format"].as_str(), value["version"].as_u64()),
            (Some("mmops-snapshot"), Some(1))
        );
        assert_eq!(value["mappings"][0]["start"], "1000");
        assert_eq!(value["mappings"][0]["end"], "9000");
        assert_eq!(value["left_out"][0]["start"], "7fff00000000");
        // A member of later times.
        value["host"] = "other".into();
        value["mappings"][0]["kind"] = 7.into();
        assert_eq!(Index::read(value.to_string().as_bytes()).unwrap(), sample());
    }

    #[test]
    fn what_is_no_index() {
        let text = serde_json::to_string(&sample()).unwrap();
        let error = |text: &str| Index::read(text.as_bytes()).unwrap_err().to_string();
        for length in 0..text.len() {
            error(&text[..length]);
        }
        error(&format!("{text}x"));
        assert!(error("[]").contains("invalid length 0"), "{}", error("[]"));
        for (old, new, expected) in [
            ("mmops-snapshot", "other", "its format is \"other\""),
            ("\"version\":1", "\"version\":2", "version 2 of the format"),
            ("\"end\":\"9000\",", "", "missing field `end`"),
            ("\"left_out\"", "\"left\"", "missing field `left_out`"),
            ("\"pid\":7", "\"pid\":-7", "invalid value"),
        ] {
            assert!(text.contains(old), "{old}");
            let error = error(&text.replace(old, new));
            assert!(error.contains(expected), "{error}");
        }
    }
}
