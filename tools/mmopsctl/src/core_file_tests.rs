// SPDX-License-Identifier: GPL-2.0

//! Core files of a snapshot, as another reader sees them.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::ReadCache;
use object::Endianness;

use crate::restore_check_tests::{Sample, FILE, PAGE, SPARSE};
use crate::sparse::data_in;

/// Where a core file goes; removed at the end.
struct Core(PathBuf);

impl Core {
    fn new(name: &str) -> Self {
        let name = format!("mmopsctl-{}-core-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn part(&self) -> PathBuf {
        self.0.with_extension("part")
    }

    /// Whether it is there, as a whole or not.
    fn is_there(&self) -> bool {
        self.0.exists() || self.part().exists()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A segment.
#[derive(Debug, PartialEq, Eq)]
struct Segment {
    kind: elf::ProgramType,
    flags: elf::ProgramFlags,
    address: u64,
    sizes: (u64, u64),
    align: u64,
}

/// The segments and where they are in the file, and the note that is the only one.
fn read(path: &Path) -> (Vec<(Segment, u64)>, Vec<u8>) {
    let data = ReadCache::new(File::open(path).unwrap());
    let header = elf::FileHeader64::<Endianness>::parse(&data).unwrap();
    let endian = header.endian().unwrap();
    assert_eq!(endian, Endianness::Little);
    assert_eq!(header.e_type(endian), elf::ET_CORE);
    assert_eq!(header.e_machine(endian), elf::EM_X86_64);
    let headers = header.program_headers(endian, &data).unwrap();
    let mut notes = headers[0].notes(endian, &data).unwrap().unwrap();
    let note = notes.next().unwrap().unwrap();
    assert!(notes.next().unwrap().is_none());
    assert_eq!(
        (note.name(), note.n_type(endian)),
        (&b"CORE"[..], elf::NT_FILE)
    );
    let segments = headers[1..].iter().map(|header| {
        let segment = Segment {
            kind: header.p_type(endian),
            flags: header.p_flags(endian),
            address: header.p_vaddr(endian),
            sizes: (header.p_filesz(endian), header.p_memsz(endian)),
            align: header.p_align(endian),
        };
        (segment, header.p_offset(endian))
    });
    (segments.collect(), note.desc().to_vec())
}

/// The pages of `range` of a file that are no holes, and by their numbers in it.
fn pages(file: &File, range: Range<u64>) -> BTreeMap<u64, Vec<u8>> {
    let mut pages = BTreeMap::new();
    for data in data_in(file, range.clone()) {
        let data = data.unwrap();
        for number in data.start / PAGE..data.end.div_ceil(PAGE) {
            let mut page = vec![0; PAGE as usize];
            file.read_exact_at(&mut page, number * PAGE).unwrap();
            pages.insert(number - range.start / PAGE, page);
        }
    }
    pages
}

#[test]
fn memory_at_its_addresses() {
    let (sample, core) = (Sample::new(), Core::new("whole"));
    let report = sample.check_with(Some(&core.0), false).unwrap();
    assert_eq!(report.core, core.0.to_str().map(str::to_owned));
    assert!(!core.part().exists());
    let (segments, note) = read(&core.0);
    let file = File::open(&core.0).unwrap();
    let expected = [
        (0x40_0000..0x40_3000, elf::PF_R | elf::PF_W),
        (SPARSE, elf::PF_R | elf::PF_W),
        (FILE, elf::PF_R | elf::PF_X),
    ];
    assert_eq!(segments.len(), expected.len());
    let mut end = 0;
    for ((segment, offset), (range, flags)) in segments.iter().zip(expected) {
        let size = range.end - range.start;
        let expected = Segment {
            kind: elf::PT_LOAD,
            flags,
            address: range.start,
            sizes: (size, size),
            align: PAGE,
        };
        assert_eq!(*segment, expected);
        assert!(*offset >= end && offset % PAGE == 0, "{offset:x} {end:x}");
        end = offset + size;
        let contents = sample.contents(range.start);
        assert!(pages(&file, *offset..end) == pages(&contents, 0..size));
    }
    assert_eq!(file.metadata().unwrap().len(), end);
    // All of the pages, and what is before them.
    assert!(file.metadata().unwrap().blocks() * 512 < 32 * PAGE);
    let numbers = [1, PAGE, FILE.start, FILE.end, 3];
    let expected: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
    assert_eq!(note, [&expected[..], b"/a file (deleted)\0"].concat());
}

#[test]
fn without_a_whole_snapshot_there_is_none() {
    let core = Core::new("none");
    let sample = Sample::new();
    let error = sample.check_with(Some(&core.0), true).unwrap_err();
    assert!(error.contains("interrupted") && !core.is_there(), "{error}");
    // In the last page, when all others are copied.
    let contents = sample.contents(FILE.start);
    contents.write_all_at(&[9], 7 * PAGE).unwrap();
    let error = sample.check_with(Some(&core.0), false).unwrap_err();
    assert!(error.contains("was changed") && !core.is_there(), "{error}");
}

#[test]
fn nothing_is_overwritten() {
    let (sample, core) = (Sample::new(), Core::new("there"));
    std::fs::write(&core.0, "mine").unwrap();
    let error = sample.check_with(Some(&core.0), false).unwrap_err();
    assert!(
        error.contains("is there already: name a new file"),
        "{error}"
    );
    assert_eq!(std::fs::read(&core.0).unwrap(), b"mine");
    assert!(!core.part().exists());
}

#[test]
fn the_snapshot_gets_no_file() {
    let sample = Sample::new();
    let link = Core::new("link");
    std::os::unix::fs::symlink(&sample.dir, &link.0).unwrap();
    for dir in [&sample.dir, &link.0] {
        let error = sample
            .check_with(Some(&dir.join("core")), false)
            .unwrap_err();
        assert!(error.contains("would be in the snapshot"), "{error}");
    }
    sample.check_with(None, false).unwrap();
}
