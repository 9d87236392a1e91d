// SPDX-License-Identifier: GPL-2.0

//! Addresses on the command line.

use std::ops::Range;

/// `START-END` or `START+LENGTH`, in hexadecimal as `/proc/PID/maps` has them, with or without
/// `0x`.
pub fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let number = |part: &str| {
        u64::from_str_radix(part.trim_start_matches("0x"), 16)
            .map_err(|_| format!("{part:?} is no hexadecimal address"))
    };
    let range = if let Some((start, end)) = text.split_once('-') {
        number(start)?..number(end)?
    } else if let Some((start, len)) = text.split_once('+') {
        let start = number(start)?;
        let end = start.checked_add(number(len)?).ok_or("the range wraps")?;
        start..end
    } else {
        return Err("a range is START-END or START+LENGTH, in hexadecimal".into());
    };
    if range.is_empty() {
        return Err("the end is not above the start".into());
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(parse_range("1000-3000"), Ok(0x1000..0x3000));
        assert_eq!(parse_range("0x7f00-0x8000"), Ok(0x7f00..0x8000));
        assert_eq!(parse_range("1000+2000"), Ok(0x1000..0x3000));
        for bad in [
            "",
            "1000",
            "3000-1000",
            "1000-1000",
            "1000+0",
            "x-y",
            "-",
            "ffffffffffffffff+1",
        ] {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
    }
}
