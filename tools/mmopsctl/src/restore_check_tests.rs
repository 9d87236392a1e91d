// SPDX-License-Identifier: GPL-2.0

//! A snapshot in a real directory, whole and with one thing wrong at a time.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{symlink, FileExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{json, Value};

use crate::cli::RestoreCheck;
use crate::restore_check::{check, Report};
use crate::snapshot_digest::digest_of;
use crate::snapshot_dir::Directory;
use crate::snapshot_index::{Entry, Index, LeftOut};
use crate::stop::Stop;

pub const PAGE: u64 = 4096;
/// A mapping that is large, and has as good as nothing.
pub const SPARSE: Range<u64> = 0x7f00_0000_0000..0x7f40_0000_0000;
/// A mapping of a file, with pages that could not be read.
pub const FILE: Range<u64> = 0x7f50_0000_0000..0x7f50_0000_8000;
const UNREADABLE: Range<u64> = FILE.start + 2 * PAGE..FILE.start + 4 * PAGE;

/// A snapshot of three mappings, removed at the end.
pub struct Sample {
    pub dir: PathBuf,
}

impl Drop for Sample {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Sample {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mmopsctl-{}-restore-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&dir);
        let mut directory = Directory::new(&dir).unwrap();
        let mut entry = |range: Range<u64>, permissions: &str, path: &str, pages: &[u64]| {
            let size = range.end - range.start;
            let file = directory.contents(range.start, size).unwrap();
            for page in pages {
                let bytes = [(page % 251) as u8 + 1; 100];
                file.write_all_at(&bytes, page * PAGE + 50).unwrap();
            }
            let stop = Stop::for_test(false);
            let digest = digest_of(&file, "it", size, PAGE, &stop).unwrap();
            Entry {
                addresses: (&range).into(),
                permissions: permissions.into(),
                offset: if path.starts_with('/') { 3 * PAGE } else { 0 },
                path: path.into(),
                contents: Directory::name(range.start),
                unreadable: Vec::new(),
                digest: Some(digest.to_hex().to_string()),
            }
        };
        let mut entries = vec![
            entry(0x40_0000..0x40_3000, "rw-p", "[heap]", &[0, 1, 2]),
            entry(SPARSE, "rw-p", "", &[5, (1 << 26) - 1]),
            entry(FILE, "r-xs", "/a file (deleted)", &[1, 5, 6]),
        ];
        entries[2].unreadable = vec![(&UNREADABLE).into()];
        let left_out = LeftOut {
            addresses: (&(0xffff_ffff_ff60_0000..0xffff_ffff_ff60_1000)).into(),
            path: "[vsyscall]".into(),
            reason: "memory of the kernel".into(),
        };
        let index = Index::new(7, PAGE, entries, vec![left_out]);
        directory.finish(&index).unwrap();
        Self { dir }
    }

    fn path(&self, start: u64) -> PathBuf {
        self.dir.join(Directory::name(start))
    }

    pub fn contents(&self, start: u64) -> File {
        let mut options = File::options();
        options.read(true).write(true);
        options.open(self.path(start)).unwrap()
    }

    /// Changes the index.
    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let path = self.dir.join("index.json");
        let mut index = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut index);
        std::fs::write(&path, index.to_string()).unwrap();
    }

    /// A check, which makes a core file if it is asked to; with `is_stopped` a signal comes.
    pub fn check_with(&self, core: Option<&Path>, is_stopped: bool) -> Result<Report, String> {
        let args = RestoreCheck {
            dir: self.dir.clone(),
            json: false,
            core: core.map(Path::to_owned),
        };
        check(&args, &Stop::for_test(is_stopped)).map_err(|error| format!("{error:#}"))
    }

    fn check(&self) -> Result<Report, String> {
        self.check_with(None, false)
    }

    /// What it says is wrong, in which all of `words` are.
    #[track_caller]
    fn error(&self, words: &[&str]) {
        let error = self.check().unwrap_err();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in {error:?}");
        }
    }
}

/// Changes the index of a sample; `words` are in what is said of it then.
#[track_caller]
fn wrong_index(change: impl FnOnce(&mut Value), words: &[&str]) {
    let sample = Sample::new();
    sample.edit(change);
    sample.error(&[&["index.json is no index of a snapshot"], words].concat());
}

#[test]
fn whole() {
    let sample = Sample::new();
    let report = Report {
        dir: sample.dir.display().to_string(),
        pid: 7,
        page_size: PAGE,
        mappings: 3,
        left_out: 1,
        unreadable: 2,
        size: 0x3000 + (SPARSE.end - SPARSE.start) + 0x8000,
        pages: 8,
        bytes: 8 * PAGE,
        core: None,
    };
    assert_eq!(sample.check().unwrap(), report);
    // Zeros may be holes or not.
    let sparse = sample.contents(SPARSE.start);
    sparse.write_all_at(&[0; 1 << 16], 9 * PAGE).unwrap();
    assert_eq!(sample.check().unwrap(), report);
}

#[test]
fn contents_that_were_changed() {
    let name = Directory::name(SPARSE.start);
    // In a page with data, in a hole, and in the last byte.
    for at in [5 * PAGE + 50, 1 << 30, SPARSE.end - SPARSE.start - 1] {
        let sample = Sample::new();
        let file = sample.contents(SPARSE.start);
        file.write_all_at(&[0xff], at).unwrap();
        sample.error(&[&name, "was changed", "7f0000000000-7f4000000000"]);
    }
    // Two pages in each other's place.
    let sample = Sample::new();
    let file = sample.contents(0x40_0000);
    let mut pages = [0; 2 * PAGE as usize];
    file.read_exact_at(&mut pages, 0).unwrap();
    pages.rotate_left(PAGE as usize);
    file.write_all_at(&pages, 0).unwrap();
    sample.error(&["0000000000400000 was changed", "digest of 400000-403000"]);
}

#[test]
fn contents_of_another_length() {
    let sample = Sample::new();
    for len in [0x2fff, 0x3001, 0, 0x4000] {
        sample.contents(0x40_0000).set_len(len).unwrap();
        sample.error(&["0000000000400000", &format!("{len} bytes instead of 12288")]);
    }
}

#[test]
fn files_that_are_missing_or_others() {
    let sample = Sample::new();
    let path = sample.path(FILE.start);
    let name = path.to_str().unwrap();
    let moved = sample.dir.with_extension("moved");
    std::fs::rename(&path, &moved).unwrap();
    sample.error(&[name, "is missing"]);
    // With the same contents, and yet not in the directory.
    symlink(&moved, &path).unwrap();
    sample.error(&[name, "is no regular file"]);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    sample.error(&[name, "is no regular file"]);
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&moved, &path).unwrap();
    sample.check().unwrap();
}

#[test]
fn files_that_nobody_named() {
    for name in ["index.json.part", "0000000000401000", "core"] {
        let sample = Sample::new();
        let path = sample.dir.join(name);
        File::create(&path).unwrap();
        sample.error(&[path.to_str().unwrap(), "is no part of the snapshot"]);
    }
    // Of a mapping that the index no longer has.
    let sample = Sample::new();
    sample.edit(|index| drop(index["mappings"].as_array_mut().unwrap().remove(0)));
    sample.error(&["0000000000400000", "is no part of the snapshot"]);
}

#[test]
fn what_could_not_be_read_has_no_data() {
    let sample = Sample::new();
    let file = sample.contents(FILE.start);
    file.write_all_at(&[1], 3 * PAGE + 7).unwrap();
    // Whether the digest is right or not.
    for _ in 0..2 {
        sample.error(&[
            "00007f5000000000 has data at 7f5000003000",
            "could not be read",
        ]);
        let stop = Stop::for_test(false);
        let digest = digest_of(&file, "it", 0x8000, PAGE, &stop).unwrap();
        sample.edit(|index| index["mappings"][2]["digest"] = digest.to_string().into());
    }
}

#[test]
fn no_snapshot() {
    let sample = Sample::new();
    std::fs::remove_file(sample.dir.join("index.json")).unwrap();
    let dir = sample.dir.display().to_string();
    sample.error(&[&format!("{dir} is no snapshot: it has no index.json")]);
    std::fs::remove_dir_all(&sample.dir).unwrap();
    sample.error(&["cannot read the directory", &dir, "No such file"]);
    File::create(&sample.dir).unwrap();
    sample.error(&["cannot read the directory", "Not a directory"]);
    std::fs::remove_file(&sample.dir).unwrap();
}

#[test]
fn index_of_another_format() {
    wrong_index(
        |index| index["version"] = 2.into(),
        &["version 2", "version 1"],
    );
    wrong_index(|index| index["format"] = "tar".into(), &["\"tar\""]);
    wrong_index(|index| *index = json!([]), &["invalid length"]);
    wrong_index(
        |index| index["mappings"][1]["unreadable"] = Value::Null,
        &["invalid type: null"],
    );
    for size in [0_u64, 1, 2048, 4097, 12288, 1 << 21, 1 << 63] {
        wrong_index(
            |index| index["page_size"] = size.into(),
            &[&format!("pages of {size} bytes")],
        );
    }
}

#[test]
fn names_that_lead_elsewhere() {
    for name in [
        "../0000000000400000",
        "/etc/passwd",
        "400000",
        "",
        "index.json",
    ] {
        wrong_index(
            |index| index["mappings"][0]["contents"] = name.into(),
            &[
                "mapping 400000-403000",
                &format!("{name:?} instead of \"0000000000400000\""),
            ],
        );
    }
}

#[test]
fn addresses_that_make_no_sense() {
    for (start, expected) in [
        ("400001", "400001 is not the address of a page"),
        ("403000", "403000 is not above 403000"),
        ("404000", "403000 is not above 404000"),
        ("0x400000", "\"0x400000\" is no address"),
        ("0400000", "no address"),
        ("+400000", "no address"),
        ("4A0000", "no address"),
        ("", "no address"),
        ("10000000000000000", "no address"),
    ] {
        let mapping = format!("mapping {start}-403000");
        wrong_index(
            |index| index["mappings"][0]["start"] = start.into(),
            &[&mapping, expected],
        );
    }
}

#[test]
fn mappings_in_disorder() {
    wrong_index(
        |index| index["mappings"][0]["end"] = "7f0000001000".into(),
        &["7f0000000000-7f4000000000 is not behind 400000-7f0000001000"],
    );
    wrong_index(
        |index| index["mappings"].as_array_mut().unwrap().swap(0, 1),
        &["400000-403000 is not behind 7f0000000000-7f4000000000"],
    );
    wrong_index(
        |index| {
            index["left_out"][0]["start"] = "402000".into();
            index["left_out"][0]["end"] = "500000".into();
        },
        &["402000-403000 was copied and left out"],
    );
    wrong_index(
        |index| index["left_out"][0]["end"] = "0".into(),
        &["left out, ffffffffff600000-0", "not above"],
    );
}

#[test]
fn mappings_that_make_no_sense() {
    for permissions in ["rw-", "rwxp-", "wr-p", "rw--", "rw-sp", "RW-P", ""] {
        wrong_index(
            |index| index["mappings"][1]["permissions"] = permissions.into(),
            &[
                "mapping 7f0000000000-7f4000000000",
                &format!("permissions are {permissions:?}"),
            ],
        );
    }
    wrong_index(
        |index| index["mappings"][2]["offset"] = 4097.into(),
        &["mapping 7f5000000000-", "offset 4097"],
    );
    wrong_index(
        |index| index["mappings"][2]["path"] = "/a\0b".into(),
        &["mapping 7f5000000000-", "zero byte"],
    );
    for digest in ["", "00", &"0".repeat(63), &"x".repeat(64)] {
        wrong_index(
            |index| index["mappings"][2]["digest"] = (*digest).into(),
            &["mapping 7f5000000000-", "its digest is none"],
        );
    }
    wrong_index(
        |index| {
            drop(
                index["mappings"][2]
                    .as_object_mut()
                    .unwrap()
                    .remove("digest"),
            )
        },
        &[
            "mapping 7f5000000000-",
            "no digest",
            "an older mmopsctl",
            "cannot be checked",
        ],
    );
}

#[test]
fn unreadable_ranges_that_make_no_sense() {
    let unreadable = |ranges: &[(&str, &str)], words: &[&str]| {
        let ranges = ranges.iter();
        let ranges: Vec<_> = ranges
            .map(|(start, end)| json!({"start": start, "end": end}))
            .collect();
        wrong_index(
            |index| index["mappings"][2]["unreadable"] = ranges.into(),
            &[&["mapping 7f5000000000-7f5000008000", "unreadable"], words].concat(),
        );
    };
    unreadable(
        &[("7f5000002001", "7f5000004000")],
        &["7f5000002001 is not the address of a page"],
    );
    unreadable(&[("7f5000002000", "7f5000002000")], &["not above"]);
    unreadable(
        &[("7f5000007000", "7f5000009000")],
        &["7f5000007000-7f5000009000", "not within the mapping"],
    );
    unreadable(&[("400000", "401000")], &["400000-401000", "not within"]);
    unreadable(
        &[
            ("7f5000002000", "7f5000004000"),
            ("7f5000003000", "7f5000005000"),
        ],
        &["7f5000003000-7f5000005000 is not behind 7f5000002000-7f5000004000"],
    );
}

#[test]
fn interrupted() {
    let error = Sample::new().check_with(None, true).unwrap_err();
    assert!(error.contains("was not checked"), "{error}");
}
