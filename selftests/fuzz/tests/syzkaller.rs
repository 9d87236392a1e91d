// SPDX-License-Identifier: GPL-2.0

//! Holds `syzkaller/mmops.txt` to the header: its calls, and name, order and size of the fields of
//! each structure.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Fields with their sizes, by structure.
type Structures = BTreeMap<String, Vec<(String, usize)>>;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(path).unwrap()
}

fn header() -> String {
    read("../../include/uapi/linux/mmops.h")
}

/// What is between a line that `opens` has a name for, and one that begins with `}`.
fn structures(
    text: &str,
    opens: impl Fn(&str) -> Option<&str>,
    field: impl Fn(&str) -> (String, usize),
) -> Structures {
    let mut structures = Structures::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = opens(line) {
            let fields = lines.by_ref().take_while(|line| !line.starts_with('}'));
            structures.insert(name.to_owned(), fields.map(&field).collect());
        }
    }
    structures
}

/// `__u64 reserved[2];`
fn field_in_c(line: &str) -> (String, usize) {
    let (kind, name) = line
        .trim()
        .trim_end_matches(';')
        .split_once(' ')
        .expect(line);
    let bits = kind.trim_start_matches(['_', 'u', 's']);
    let size = bits.parse::<usize>().expect(line) / 8;
    match name.split_once('[') {
        Some((name, nr)) => {
            let nr: usize = nr.trim_end_matches(']').parse().expect(line);
            (name.to_owned(), size * nr)
        }
        None => (name.to_owned(), size),
    }
}

/// The size of a type of syzkaller's.
fn size(kind: &str) -> usize {
    let (name, arguments) = kind.split_once('[').unwrap_or((kind, ""));
    let last = |arguments: &str| {
        arguments
            .trim_end_matches(']')
            .rsplit_once(", ")
            .map(|x| x.1.to_owned())
    };
    match name {
        "fd" | "fd_pidfd" => 4,
        "ptr64" | "vma64" => 8,
        "const" | "flags" | "len" | "bitsize" => size(&last(arguments).expect(kind)),
        "array" => {
            let (of, nr) = arguments
                .trim_end_matches(']')
                .rsplit_once(", ")
                .expect(kind);
            size(of) * nr.parse::<usize>().expect(kind)
        }
        _ => {
            name.strip_prefix("int")
                .expect(kind)
                .parse::<usize>()
                .expect(kind)
                / 8
        }
    }
}

/// `reserved array[const[0, int64], 2]`
fn field_of_syzkaller(line: &str) -> (String, usize) {
    let line = line.trim().trim_end_matches("(out)").trim_end();
    let (name, kind) = line.split_once('\t').expect(line);
    (name.to_owned(), size(kind.trim()))
}

#[test]
fn structures_are_those_of_the_header() {
    let text = read("syzkaller/mmops.txt");
    let described = structures(&text, |line| line.strip_suffix(" {"), field_of_syzkaller);
    let wanted = structures(
        &header(),
        |line| line.strip_prefix("struct ")?.strip_suffix(" {"),
        field_in_c,
    );
    assert!(wanted.len() > 18);
    assert_eq!(described, wanted);
}

#[test]
fn calls_are_those_of_the_header() {
    let text = read("syzkaller/mmops.txt");
    let mut described = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("ioctl$")) {
        let (name, rest) = line.split_once('(').unwrap();
        let structure = name.strip_prefix("MMOPS_IOC_").unwrap().to_lowercase();
        let arguments =
            format!("fd fd_mmops, cmd const[{name}], arg ptr[inout, mmops_{structure}])");
        assert_eq!(rest, arguments);
        described.insert(name.to_owned());
    }
    let text = header();
    let names = text
        .lines()
        .filter_map(|line| line.strip_prefix("#define MMOPS_IOC_"));
    let names = names.map(|line| line.split_whitespace().next().unwrap());
    let names = names.filter(|name| *name != "MAGIC");
    let wanted: BTreeSet<_> = names.map(|name| format!("MMOPS_IOC_{name}")).collect();
    assert_eq!(described, wanted);
}

/// Each constant that is named is one of the header, or of the system.
#[test]
fn constants_are_those_of_the_header() {
    let header = header();
    let text = read("syzkaller/mmops.txt");
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for word in words.filter(|word| word.starts_with("MMOPS_")) {
        let mut defined = header
            .lines()
            .filter_map(|line| line.strip_prefix("#define "));
        let is = |line: &str| line.split_whitespace().next() == Some(word);
        assert!(defined.any(is), "{word}");
    }
}
