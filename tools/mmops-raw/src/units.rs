// SPDX-License-Identifier: GPL-2.0

//! Units of what a call tells of its progress.

use std::fmt;

/// A number of bytes, in a structure of the interface.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A number of base pages, in a structure of the interface.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pages(pub u64);

/// How far a call got: from the first page or address on, in the unit of its structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The call tells nothing of its progress.
    Untold,
    /// Bytes that are completely processed.
    Bytes(Bytes),
    /// Pages that are completely processed.
    Pages(Pages),
}

impl Done {
    /// Whether the call got anywhere.
    pub fn is_something(self) -> bool {
        !matches!(
            self,
            Done::Untold | Done::Bytes(Bytes(0)) | Done::Pages(Pages(0))
        )
    }
}

impl From<Bytes> for Done {
    fn from(bytes: Bytes) -> Self {
        Done::Bytes(bytes)
    }
}

impl From<Pages> for Done {
    fn from(pages: Pages) -> Self {
        Done::Pages(pages)
    }
}

fn count(f: &mut fmt::Formatter<'_>, n: u64, one: &str) -> fmt::Result {
    write!(f, " after {n} {one}{}", if n == 1 { "" } else { "s" })
}

/// What follows the words that say why the call ended.
impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Done::Untold => Ok(()),
            Done::Bytes(Bytes(n)) => count(f, n, "byte"),
            Done::Pages(Pages(n)) => count(f, n, "page"),
        }
    }
}
