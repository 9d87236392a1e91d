// SPDX-License-Identifier: GPL-2.0

//! Entries that are not present, by the picture in `arch/x86/include/asm/pgtable_64.h`:
//!
//! ```text
//! | TYPE (59-63) | ~OFFSET (9-58)  |0|0|X|X| X| E|F|SD|0| <- swp entry
//! ```

use super::{
    soft_leaf::{
        Markers,
        MigrationAccess,
        SoftLeaf, //
    },
    Pmd,
    Pte, //
};
use crate::{
    bindings::{
        pmd_t,
        pte_t, //
    },
    given::{
        check,
        edgy, //
    }, //
};
use proptest::prelude::*;

/// Bits of a page frame number: of 46 of an address, or of 52 with page tables of five levels.
const PFN_BITS: u32 = if cfg!(feature = "five-levels") {
    40
} else {
    34
};

const PFNS: usize = 1 << PFN_BITS;
const OFFSETS: usize = 1 << 50;

/// What an entry has where.
#[derive(Clone, Copy, Debug)]
struct Fields {
    kind: usize,
    offset: usize,
    soft_dirty: bool,
    uffd_wp: bool,
    exclusive: bool,
}

impl Fields {
    fn bits(self) -> usize {
        self.kind << 59
            | (OFFSETS - 1 - self.offset) << 9
            | usize::from(self.exclusive) << 3
            | usize::from(self.uffd_wp) << 2
            | usize::from(self.soft_dirty) << 1
    }

    fn of(bits: usize) -> Self {
        Self {
            kind: bits >> 59,
            offset: OFFSETS - 1 - (bits >> 9) % OFFSETS,
            soft_dirty: bits & 2 != 0,
            uffd_wp: bits & 4 != 0,
            exclusive: bits & 8 != 0,
        }
    }

    /// By the types of `include/linux/swap.h`, of which the first 24 are swap areas.
    fn leaf(self) -> Option<SoftLeaf> {
        let offset = self.offset;
        let pfn = offset % PFNS;
        let migration = |access| SoftLeaf::Migration {
            pfn,
            access,
            young: offset / PFNS % 2 == 1,
            dirty: offset / PFNS / 2 % 2 == 1,
        };

        Some(match self.kind {
            0 if offset == 0 => return None,
            area @ 0..=23 => SoftLeaf::Swap {
                area: area as u8,
                offset,
            },
            24 => SoftLeaf::HwPoison { pfn },
            25 => migration(MigrationAccess::Read),
            26 => migration(MigrationAccess::ReadExclusive),
            27 => migration(MigrationAccess::Write),
            28 => SoftLeaf::DevicePrivate { pfn, write: true },
            29 => SoftLeaf::DevicePrivate { pfn, write: false },
            30 => SoftLeaf::DeviceExclusive { pfn },
            31 => SoftLeaf::Marker(Markers {
                uffd_wp: offset & 1 != 0,
                poisoned: offset & 2 != 0,
                guard: offset & 4 != 0,
            }),
            _ => unreachable!("there are five bits"),
        })
    }
}

/// What stands for nothing: no bit, but for two that an erratum of some CPUs sets.
fn is_none(bits: usize) -> bool {
    bits & !(1 << 5 | 1 << 6) == 0
}

/// Present, or permitted to nobody.
fn is_present(bits: usize) -> bool {
    bits & (1 << 0 | 1 << 8) != 0
}

/// A huge leaf is present also while it is being split, when it lacks the other two bits.
fn is_huge_present(bits: usize) -> bool {
    is_present(bits) || bits & 1 << 7 != 0
}

/// Each value means what the picture says.
fn try_bits(bits: usize) {
    let decoded = || (!is_none(bits)).then(|| Fields::of(bits).leaf()).flatten();
    let pte = Pte::from_raw(pte_t { pte: bits }).soft_leaf();
    let pmd = Pmd::from_raw(pmd_t { pmd: bits }).soft_leaf();

    assert_eq!(
        pte,
        decoded().filter(|_| !is_present(bits)),
        "PTE {bits:#x}"
    );
    assert_eq!(
        pmd,
        decoded().filter(|_| !is_huge_present(bits)),
        "PMD {bits:#x}"
    );
}

/// All types, with all low bits, and offsets of no, one, all but one and all bits.
#[test]
fn entries_are_those_of_the_picture() {
    let one = (0..50).map(|bit| 1usize << bit);
    let offsets: Vec<usize> = one
        .clone()
        .chain(one.map(|bit| (OFFSETS - 1) ^ bit))
        .chain((0..20).chain(OFFSETS - 3..OFFSETS))
        .chain([PFNS - 1, PFNS, 2 * PFNS, 3 * PFNS, 4 * PFNS - 1, 4 * PFNS])
        .collect();

    for kind in 0..32 {
        for &offset in &offsets {
            for low in 0..512 {
                try_bits(kind << 59 | offset << 9 | low);
            }
        }
    }
}

#[test]
fn entries_at_random_are_those_of_the_picture() {
    let like_one = (0..32usize, edgy(), 0..8usize).prop_map(|(kind, offset, flags)| {
        kind << 59 | (OFFSETS - 1 - offset % OFFSETS) << 9 | flags << 1
    });

    check(100_000, prop_oneof![like_one, any::<usize>()], |bits| {
        try_bits(bits);
        Ok(())
    });
}

/// Of migrations and pages of a device, one type each.
#[test]
fn pages_come_back_writable_by_their_type() {
    for kind in 0..32 {
        let fields = Fields {
            kind,
            offset: 7,
            soft_dirty: false,
            uffd_wp: true,
            exclusive: false,
        };
        let leaf = Pte::from_raw(pte_t { pte: fields.bits() }).soft_leaf();

        assert_eq!(
            leaf.map(|leaf| leaf.is_writable()),
            Some(kind == 27 || kind == 28)
        );
    }
}

/// The picture itself, once by hand.
#[test]
fn picture_is_read_right() {
    let fields = Fields {
        kind: 3,
        offset: 1,
        soft_dirty: true,
        uffd_wp: false,
        exclusive: true,
    };

    assert_eq!(fields.bits(), 3 << 59 | ((1 << 50) - 2) << 9 | 0b1010);
}
