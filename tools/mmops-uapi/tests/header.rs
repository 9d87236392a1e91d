// SPDX-License-Identifier: GPL-2.0

//! Compares `mmops_uapi::sys` with the C header that it mirrors, and the page about it with both.
//!
//! A C program that includes the header prints each size, offset and number by name; the same
//! lines are made from the Rust items. `CC` names another compiler than `cc`.

use std::any::type_name_of_val;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use mmops_uapi::sys::*;

/// Expressions in C and what they are in Rust.
fn expected() -> BTreeMap<String, u64> {
    let mut map = BTreeMap::new();
    macro_rules! constants {
        ($($name:ident),* $(,)?) => { $(map.insert(stringify!($name).into(), $name as u64);)* };
    }
    macro_rules! structure {
        ($type:ident { $($field:ident),* $(,)? }) => {
            let name = stringify!($type);
            map.insert(format!("sizeof(struct {name})"), size_of::<$type>() as u64);
            let mut end = 0;
            $(
                let offset = offset_of!($type, $field) as u64;
                assert_eq!(offset, end, "{name} has padding before {}", stringify!($field));
                end = offset + size_of_val(&$type::default().$field) as u64;
                let field = stringify!($field);
                map.insert(format!("offsetof(struct {name}, {field})"), offset);
                map.insert(
                    format!("sizeof(((struct {name} *)0)->{field})"),
                    end - offset,
                );
            )*
            assert_eq!(end, size_of::<$type>() as u64, "{name} has padding at its end");
        };
    }
    constants!(
        MMOPS_UAPI_VERSION,
        MMOPS_FEATURE_WRITE_PROTECT,
        MMOPS_FEATURE_CLEAN_RECORD,
        MMOPS_FEATURE_HUGE_LEAVES,
        MMOPS_FEATURE_ZAP,
        MMOPS_FEATURE_SOFT_DIRTY,
        MMOPS_FEATURE_EXCLUSIVE,
        MMOPS_FEATURE_NOTIFIER,
        MMOPS_FEATURE_PROTECT,
        MMOPS_FEATURE_LEAVES,
        MMOPS_FEATURE_AGE,
        MMOPS_FEATURE_TRACK,
        MMOPS_FEATURE_TRACK_FULL,
        MMOPS_FEATURE_TRACK_FILE,
        MMOPS_FEATURE_TRACK_KINDS,
        MMOPS_FEATURE_TRACK_BITMAP,
        MMOPS_FEATURE_FAULTS,
        MMOPS_SPLIT,
        MMOPS_NO_TRANSFER,
        MMOPS_SOFT_DIRTY_ALL,
        MMOPS_SOFT_DIRTY_FORGET,
        MMOPS_IOC_MAGIC,
        MMOPS_IOC_INFO,
        MMOPS_IOC_WRITE_PROTECT,
        MMOPS_IOC_CLEAN_RECORD,
        MMOPS_IOC_ZAP,
        MMOPS_IOC_SOFT_DIRTY_CLEAR,
        MMOPS_IOC_EXCLUSIVE,
        MMOPS_IOC_REVOKE,
        MMOPS_IOC_ATOMIC_ADD,
        MMOPS_ATOMIC_ADD_MAX_PAGES,
        MMOPS_PAGE_UNTOUCHED,
        MMOPS_PAGE_EXCLUSIVE,
        MMOPS_PAGE_BUSY,
        MMOPS_PAGE_UNMAPPED,
        MMOPS_PAGE_NOT_ANONYMOUS,
        MMOPS_PAGE_READ_ONLY,
        MMOPS_PAGE_HUGETLB,
        MMOPS_PAGE_PINNED,
        MMOPS_PAGE_KSM,
        MMOPS_PAGE_USERFAULTFD,
        MMOPS_PAGE_POISONED,
        MMOPS_PAGE_NO_MEMORY,
        MMOPS_PAGE_FAULT,
        MMOPS_EVENT_UNMAP,
        MMOPS_EVENT_CLEAR,
        MMOPS_EVENT_PROTECTION_VMA,
        MMOPS_EVENT_PROTECTION_PAGE,
        MMOPS_EVENT_SOFT_DIRTY,
        MMOPS_EVENT_RELEASE,
        MMOPS_EVENT_MIGRATE,
        MMOPS_EVENT_EXCLUSIVE,
        MMOPS_NOTIFIER_BLOCKABLE,
        MMOPS_NOTIFIER_OWN,
        MMOPS_NOTIFIER_END,
        MMOPS_NOTIFIER_WAIT,
        MMOPS_NOTIFIER_MM,
        MMOPS_NOTIFIER_FILTER,
        MMOPS_NOTIFIER_MAX_EVENTS,
        MMOPS_NOTIFIER_MAX_DELAY_MS,
        MMOPS_IOC_NOTIFIER_LOG,
        MMOPS_IOC_NOTIFIER_SUBSCRIBE,
        MMOPS_IOC_NOTIFIER_PROBE,
        MMOPS_IOC_PROTECT,
        MMOPS_PROTECT_LARGE,
        MMOPS_IOC_LEAVES,
        MMOPS_IOC_AGE,
        MMOPS_LEAF_READ,
        MMOPS_LEAF_WRITE,
        MMOPS_LEAF_EXEC,
        MMOPS_LEAF_DIRTY,
        MMOPS_LEAF_YOUNG,
        MMOPS_LEAF_SOFT_DIRTY,
        MMOPS_LEAF_UFFD,
        MMOPS_LEAF_SPECIAL,
        MMOPS_LEAF_PRESENT,
        MMOPS_LEAF_SWAP,
        MMOPS_LEAF_MIGRATION,
        MMOPS_LEAF_DEVICE_PRIVATE,
        MMOPS_LEAF_DEVICE_EXCLUSIVE,
        MMOPS_LEAF_HWPOISON,
        MMOPS_LEAF_MARKER,
        MMOPS_LEAVES_MIN,
        MMOPS_TRACK_FAST,
        MMOPS_TRACK_FULL,
        MMOPS_TRACK_FILE,
        MMOPS_TRACK_KINDS,
        MMOPS_TRACK_OVERFLOW,
        MMOPS_TRACK_ENDED,
        MMOPS_TRACK_WRITTEN,
        MMOPS_TRACK_CHANGED,
        MMOPS_TRACK_PINNED,
        MMOPS_TRACK_NEW,
        MMOPS_TRACK_GONE,
        MMOPS_TRACK_ABORT,
        MMOPS_IOC_TRACK_OPEN,
        MMOPS_IOC_TRACK_BEGIN,
        MMOPS_IOC_TRACK_READ,
        MMOPS_IOC_TRACK_END,
        MMOPS_IOC_TRACK_BITMAP,
    );
    structure!(mmops_protect {
        pidfd,
        flags,
        addr,
        len,
        prot,
        pad,
        ptes,
        pmds,
        puds,
        split_pmds,
        split_puds,
        done,
        reserved,
    });
    structure!(mmops_leaf {
        addr,
        state,
        shift,
        kind,
        reserved
    });
    structure!(mmops_leaves {
        pidfd,
        flags,
        addr,
        len,
        vec,
        vec_len,
        nr,
        next,
        reserved
    });
    structure!(mmops_age {
        pidfd,
        flags,
        addr,
        len,
        aged,
        kept,
        done,
        reserved
    });
    structure!(mmops_info {
        version,
        page_size,
        features,
        reserved
    });
    structure!(mmops_write_protect {
        fd,
        flags,
        first,
        nr,
        write_protected,
        done,
        reserved
    });
    structure!(mmops_clean_record {
        fd,
        flags,
        first,
        nr,
        bitmap_pgoff,
        bitmap,
        bitmap_bits,
        start,
        end,
        cleaned,
        done,
        reserved,
    });
    structure!(mmops_zap {
        pidfd,
        flags,
        addr,
        len,
        zapped,
        done,
        reserved
    });
    structure!(mmops_soft_dirty_clear {
        pidfd,
        flags,
        addr,
        len,
        cleared,
        kept,
        done,
        reserved,
    });
    structure!(mmops_exclusive {
        pidfd,
        flags,
        addr,
        len,
        results,
        exclusive,
        done,
        reserved,
    });
    structure!(mmops_revoke {
        pidfd,
        flags,
        addr,
        len,
        revoked,
        done,
        reserved,
    });
    structure!(mmops_atomic_add {
        pidfd,
        flags,
        addr,
        stride,
        nr,
        value,
        rounds,
        added,
        taken,
        reserved,
    });
    structure!(mmops_notifier_event {
        time,
        start,
        end,
        event,
        flags,
    });
    structure!(mmops_notifier_log {
        events,
        nr,
        flags,
        lost,
        released,
        reserved0,
        reserved,
    });
    structure!(mmops_notifier_subscribe {
        pidfd,
        flags,
        addr,
        len,
        capacity,
        reserved0,
        reserved,
    });
    structure!(mmops_notifier_probe {
        delay_ms,
        collided,
        hint,
        reserved0,
        reserved,
    });
    structure!(mmops_track_open {
        pidfd,
        flags,
        addr,
        len,
        reserved,
    });
    structure!(mmops_track_begin {
        flags,
        state,
        written,
        changed,
        reserved,
    });
    structure!(mmops_track_range {
        addr,
        len,
        kind,
        reserved,
    });
    structure!(mmops_track_read {
        addr,
        vec,
        vec_len,
        nr,
        needed,
        reserved,
    });
    structure!(mmops_track_end {
        flags,
        pad,
        reserved,
    });
    structure!(mmops_track_bitmap {
        addr,
        bitmap,
        words,
        kinds,
        flags,
        nr,
        reserved,
    });
    map
}

#[test]
fn rust_is_the_header() {
    let include =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../include/uapi");
    let expected = expected();
    let mut source = String::from(
        "#include <stddef.h>\n#include <stdio.h>\n#include <linux/mmops.h>\nint main(void)\n{\n",
    );
    for expression in expected.keys() {
        writeln!(
            source,
            "\tprintf(\"%s=%llu\\n\", \"{expression}\", (unsigned long long)({expression}));"
        )
        .unwrap();
    }
    source.push_str("\treturn 0;\n}\n");

    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (c, program) = (dir.join("header.c"), dir.join("header"));
    std::fs::write(&c, source).unwrap();
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = Command::new(&cc)
        .args(["-Wall", "-Werror", "-I"])
        .arg(include)
        .arg("-o")
        .args([&program, &c])
        .status()
        .unwrap_or_else(|e| panic!("cannot run the C compiler {cc}: {e}"));
    assert!(status.success(), "the header does not compile");

    let output = Command::new(&program).output().unwrap();
    let actual: BTreeMap<String, u64> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let (name, value) = line.rsplit_once('=').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect();
    assert_eq!(actual, expected);
}

/// Every name that the header defines is in [`expected`], so that a new one is not forgotten.
#[test]
fn header_has_nothing_more() {
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
        .join("../../include/uapi/linux/mmops.h");
    let header = std::fs::read_to_string(path).unwrap();
    let expected = expected();
    for line in header.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("#define"), Some(name), Some(_)) => {
                assert!(
                    expected.contains_key(name),
                    "{name} is not in mmops_uapi::sys"
                );
            }
            (Some("struct"), Some(name), Some("{")) => {
                let size = format!("sizeof(struct {name})");
                assert!(
                    expected.contains_key(&size),
                    "{name} is not in mmops_uapi::sys"
                );
            }
            _ => {}
        }
    }
}

/// The unit of each field `done` is the one that the header's comment on it names.
#[test]
fn progress_has_the_unit_of_the_header() {
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
        .join("../../include/uapi/linux/mmops.h");
    let header = std::fs::read_to_string(path).unwrap();
    let unit_in_header = |name: &str| {
        let (_, comment) = header
            .split_once(&format!(" * struct {name} - "))
            .unwrap_or_else(|| panic!("no comment on {name}"));
        let (comment, _) = comment.split_once("*/").unwrap();
        let (_, done) = comment.split_once("@done: out: ").expect("a comment");
        done.split(' ').next().unwrap().to_lowercase()
    };
    let mut checked = 0;
    macro_rules! check {
        ($($type:ident),* $(,)?) => { $(
            let unit = type_name_of_val(&$type::default().done).rsplit("::").next().unwrap();
            assert_eq!(unit.to_lowercase(), unit_in_header(stringify!($type)), stringify!($type));
            checked += 1;
        )* };
    }
    check!(
        mmops_write_protect,
        mmops_clean_record,
        mmops_zap,
        mmops_soft_dirty_clear,
        mmops_exclusive,
        mmops_revoke,
        mmops_protect,
        mmops_age,
    );
    let all = expected();
    let fields = all.keys().filter(|key| key.ends_with(", done)"));
    assert_eq!(fields.count(), checked, "a structure is not in the list");
}

/// `Documentation/uapi.rst` has each call with its number, size and fields, and each feature bit.
#[test]
fn documentation_has_all() {
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
        .join("../../Documentation/uapi.rst");
    let page = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Vec<&str>> = page
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let expected = expected();
    let mut calls = 0;
    for (name, value) in &expected {
        if name.starts_with("MMOPS_FEATURE_") {
            let bit = value.trailing_zeros();
            let line = format!("``{name}`` (bit {bit})");
            assert!(page.lines().any(|l| l == line), "no line {line}");
        }
        let Some(call) = name.strip_prefix("MMOPS_IOC_").filter(|c| *c != "MAGIC") else {
            continue;
        };
        let structure = format!("mmops_{}", call.to_lowercase());
        let (number, size) = (value & 0xff, (value >> 16) & 0x3fff);
        let row = format!("``{name}`` {number:#04x} ``struct {structure}`` {size} bytes");
        let row: Vec<&str> = row.split(' ').collect();
        assert!(lines.contains(&row), "the table of calls has no {row:?}");

        let (_, section) = page
            .split_once(&format!("\n{name}\n==="))
            .unwrap_or_else(|| panic!("no section {name}"));
        let section = section.split("\nMMOPS_IOC_").next().unwrap();
        let fields = format!("offsetof(struct {structure}, ");
        for key in expected.keys() {
            if let Some(field) = key.strip_prefix(&fields) {
                let field = field.trim_end_matches(')');
                assert!(
                    section.contains(&format!("\n``{field}`` ")),
                    "{name}: no field {field}"
                );
            }
        }
        calls += 1;
    }
    assert!(calls > 0);
}
