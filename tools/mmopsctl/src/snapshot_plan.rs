// SPDX-License-Identifier: GPL-2.0

//! What a snapshot takes of a process, and when it stops the process.

use std::ops::Range;

use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use crate::trackers::is_of_kernel;

/// What becomes of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Its contents are copied.
    Copied,
    /// They are not, for this reason, which is told.
    LeftOut(&'static str),
    /// They are not: the process cannot have changed them, or cannot read them as it is.
    Passed,
}

/// What becomes of `map`; `is_device` tells whether it is memory of a device.
pub fn choose(map: &MemoryMap, is_device: bool) -> Choice {
    let needed = if map.perms.contains(MMPermissions::SHARED) {
        MMPermissions::READ
    } else {
        MMPermissions::READ | MMPermissions::WRITE
    };
    if is_of_kernel(map) {
        Choice::LeftOut("memory of the kernel")
    } else if !map.perms.contains(needed) {
        Choice::Passed
    } else if is_device {
        Choice::LeftOut("memory of a device")
    } else {
        Choice::Copied
    }
}

/// The name of a mapping, as in `/proc/PID/maps`.
pub fn name_of(path: &MMapPath) -> String {
    match path {
        MMapPath::Path(path) => path.display().to_string(),
        MMapPath::Heap => "[heap]".into(),
        MMapPath::Stack => "[stack]".into(),
        MMapPath::TStack(tid) => format!("[stack:{tid}]"),
        MMapPath::Vdso => "[vdso]".into(),
        MMapPath::Vvar => "[vvar]".into(),
        MMapPath::Vsyscall => "[vsyscall]".into(),
        MMapPath::Rollup => "[rollup]".into(),
        MMapPath::Anonymous => String::new(),
        MMapPath::Vsys(key) => format!("/SYSV{key:08x}"),
        MMapPath::Other(name) => format!("[{name}]"),
    }
}

/// Whether the process is to be stopped now: after rounds with so many pages each, for a pause of
/// at most `pause_pages` if that can be had, and at most `most` rounds.
pub fn is_time_to_stop(pages: &[u64], pause_pages: u64, most: u64) -> bool {
    let Some((last, before)) = pages.split_last() else {
        return false;
    };
    *last <= pause_pages
        || pages.len() as u64 >= most
        || before.last().is_some_and(|before| last >= before)
}

/// The same addresses as ranges that are in order and apart.
pub fn union(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut apart: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

/// What of `ranges`, which are in order and apart, lies in `within`.
pub fn clip(ranges: &[Range<u64>], within: &Range<u64>) -> Vec<Range<u64>> {
    let first = ranges.partition_point(|range| range.end <= within.start);
    ranges[first..]
        .iter()
        .take_while(|range| range.start < within.end)
        .map(|range| range.start.max(within.start)..range.end.min(within.end))
        .collect()
}

/// `within` in pieces that are in `ranges`, which are in order and apart, and pieces that are not.
pub fn pieces(ranges: &[Range<u64>], within: &Range<u64>) -> Vec<(Range<u64>, bool)> {
    let (mut pieces, mut at) = (Vec::new(), within.start);
    for range in clip(ranges, within) {
        pieces.push((at..range.start, false));
        at = range.end;
        pieces.push((range, true));
    }
    pieces.push((at..within.end, false));
    pieces.retain(|(piece, _)| !piece.is_empty());
    pieces
}

/// What of `within` is not in `ranges`, which are in order and apart.
pub fn rest(ranges: &[Range<u64>], within: &Range<u64>) -> Vec<Range<u64>> {
    let pieces = pieces(ranges, within).into_iter();
    pieces
        .filter(|(_, is_in)| !is_in)
        .map(|(piece, _)| piece)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use procfs::process::MemoryMaps;
    use procfs::FromRead;

    /// Mappings as the kernel lists them.
    const MAPS: &str = "\
        400000-401000 r-xp 00000000 08:01 11 /usr/bin/program\n\
        401000-402000 rw-p 00001000 08:01 11 /usr/bin/program\n\
        500000-600000 rw-p 00000000 00:00 0 [heap]\n\
        7f0000000000-7f0000100000 rw-p 00000000 00:00 0 \n\
        7f0000100000-7f0000200000 ---p 00000000 00:00 0 \n\
        7f0000200000-7f0000300000 rw-s 00000000 00:01 5 /memfd:ram (deleted)\n\
        7f0000300000-7f0000400000 r--s 00002000 08:01 12 /var/a file\n\
        7f0000400000-7f0000500000 -w-s 00000000 08:01 12 /var/a file\n\
        7f0000500000-7f0000600000 rw-s 00000000 00:06 13 /dev/card\n\
        7f0000600000-7f0000604000 r--p 00000000 00:00 0 [vvar]\n\
        7f0000604000-7f0000606000 r--p 00000000 00:00 0 [vvar_vclock]\n\
        7f0000700000-7f0000800000 rw-p 00000000 00:00 0 [anon:a name]\n\
        7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0 [stack]\n\
        ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n";

    #[test]
    fn what_is_taken() {
        let maps = MemoryMaps::from_read(MAPS.as_bytes()).unwrap();
        let chosen: Vec<_> = maps
            .into_iter()
            .map(|map| {
                let name = name_of(&map.pathname);
                let is_device = name == "/dev/card";
                (map.address.0 & 0xffff_ffff, name, choose(&map, is_device))
            })
            .collect();
        let kernel = Choice::LeftOut("memory of the kernel");
        let expected = [
            (0x40_0000, "/usr/bin/program", Choice::Passed),
            (0x40_1000, "/usr/bin/program", Choice::Copied),
            (0x50_0000, "[heap]", Choice::Copied),
            (0, "", Choice::Copied),
            (0x10_0000, "", Choice::Passed),
            (0x20_0000, "/memfd:ram (deleted)", Choice::Copied),
            (0x30_0000, "/var/a file", Choice::Copied),
            (0x40_0000, "/var/a file", Choice::Passed),
            (
                0x50_0000,
                "/dev/card",
                Choice::LeftOut("memory of a device"),
            ),
            (0x60_0000, "[vvar]", kernel),
            (0x60_4000, "[vvar_vclock]", kernel),
            (0x70_0000, "[anon:a name]", Choice::Copied),
            (0xfffd_e000, "[stack]", Choice::Copied),
            (0xff60_0000, "[vsyscall]", kernel),
        ];
        let expected = expected.map(|(start, name, choice)| (start, name.to_owned(), choice));
        assert_eq!(chosen, expected);
    }

    #[test]
    fn when_to_stop() {
        assert!(!is_time_to_stop(&[], 0, 1));
        assert!(!is_time_to_stop(&[1000], 10, 2));
        // Few enough.
        assert!(is_time_to_stop(&[10], 10, 9));
        assert!(is_time_to_stop(&[1000, 500, 10], 10, 9));
        assert!(is_time_to_stop(&[1000, 0], 0, 9));
        // They get fewer, still.
        assert!(!is_time_to_stop(&[1000, 500, 499], 10, 9));
        // They do not any more.
        assert!(is_time_to_stop(&[1000, 500, 500], 10, 9));
        assert!(is_time_to_stop(&[1000, 1001], 10, 9));
        // It has taken long enough.
        assert!(is_time_to_stop(&[1000], 10, 1));
        assert!(is_time_to_stop(&[1000, 900, 800], 10, 3));
    }

    #[test]
    fn ranges() {
        assert_eq!(
            union(vec![8..9, 5..5, 1..3, 3..4, 2..3, 7..8]),
            [1..4, 7..9]
        );
        let ranges = [1..4, 7..9, 12..20];
        assert_eq!(clip(&ranges, &(3..13)), [3..4, 7..9, 12..13]);
        assert_eq!(clip(&ranges, &(4..7)), []);
        assert_eq!(
            pieces(&ranges, &(2..12)),
            [(2..4, true), (4..7, false), (7..9, true), (9..12, false)]
        );
        assert_eq!(rest(&ranges, &(0..30)), [0..1, 4..7, 9..12, 20..30]);
        assert_eq!(rest(&ranges, &(13..15)), []);
        let all = 13..15;
        assert_eq!(rest(&[], &all), [all]);
    }
}
