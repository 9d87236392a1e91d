// SPDX-License-Identifier: GPL-2.0

//! Numbers as people read them.

use indicatif::{HumanBytes, HumanCount};

/// Bytes with a binary unit.
pub fn bytes(n: u64) -> String {
    HumanBytes(n).to_string()
}

/// A count with separators, and the word for what is counted.
pub fn count(n: u64, one: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {one}{plural}", HumanCount(n))
}

/// A number of pages, and how much that is.
pub fn pages(n: u64, page_size: u64) -> String {
    format!("{} ({})", count(n, "page"), bytes(n * page_size))
}

/// Seconds with a fitting unit.
pub fn seconds(s: f64) -> String {
    match s {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        assert_eq!(pages(1, 4096), "1 page (4.00 KiB)");
        assert_eq!(pages(32768, 4096), "32,768 pages (128.00 MiB)");
        assert_eq!(seconds(0.000_25), "250 µs");
        assert_eq!(seconds(0.25), "250.0 ms");
        assert_eq!(seconds(61.25), "61.2 s");
    }
}
