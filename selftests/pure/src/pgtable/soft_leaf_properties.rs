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
        SoftLeaf,
        SoftLeafEntry, //
    },
    Pmd,
    Pte, //
};
use crate::{
    bindings::{
        self,
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

    /// `None` if another bit is set than those of the fields.
    fn of(bits: usize) -> Option<Self> {
        let fields = Self {
            kind: bits >> 59,
            offset: OFFSETS - 1 - (bits >> 9) % OFFSETS,
            soft_dirty: bits & 2 != 0,
            uffd_wp: bits & 4 != 0,
            exclusive: bits & 8 != 0,
        };

        (bits & 0x1f1 == 0).then_some(fields)
    }

    fn leaf(self) -> Option<SoftLeaf> {
        let offset = self.offset;
        let pfn = (offset < PFNS).then_some(offset);
        let migration = |access| {
            (offset < 4 * PFNS).then_some(SoftLeaf::Migration {
                pfn: offset % PFNS,
                access,
                young: offset / PFNS % 2 == 1,
                dirty: offset / PFNS / 2 == 1,
            })
        };

        match self.kind {
            0 if offset == 0 => None,
            area @ 0..=23 => Some(SoftLeaf::Swap {
                area: area as u8,
                offset,
            }),
            bindings::LEAF_HWPOISON => pfn.map(|pfn| SoftLeaf::HwPoison { pfn }),
            bindings::LEAF_MIGRATION_READ => migration(MigrationAccess::Read),
            bindings::LEAF_MIGRATION_READ_EXCLUSIVE => migration(MigrationAccess::ReadExclusive),
            bindings::LEAF_MIGRATION_WRITE => migration(MigrationAccess::Write),
            bindings::LEAF_DEVICE_PRIVATE_READ => {
                pfn.map(|pfn| SoftLeaf::DevicePrivate { pfn, write: false })
            }
            bindings::LEAF_DEVICE_PRIVATE_WRITE => {
                pfn.map(|pfn| SoftLeaf::DevicePrivate { pfn, write: true })
            }
            bindings::LEAF_DEVICE_EXCLUSIVE => pfn.map(|pfn| SoftLeaf::DeviceExclusive { pfn }),
            bindings::LEAF_MARKER => (offset < 8).then_some(SoftLeaf::Marker(Markers {
                uffd_wp: offset & 1 != 0,
                poisoned: offset & 2 != 0,
                guard: offset & 4 != 0,
            })),
            _ => None,
        }
    }

    fn entry(self) -> Option<SoftLeafEntry> {
        let Self {
            soft_dirty,
            uffd_wp,
            exclusive,
            ..
        } = self;

        self.leaf().map(|leaf| SoftLeafEntry {
            leaf,
            soft_dirty,
            uffd_wp,
            anon_exclusive: exclusive,
        })
    }
}

/// What stands for nothing: no bit, but for two that an erratum of some CPUs sets.
fn is_none(bits: usize) -> bool {
    bits & !(1 << 5 | 1 << 6) == 0
}

/// What the bits of a PTE stand for.
fn decoded(bits: usize) -> Option<SoftLeafEntry> {
    if is_none(bits) {
        return Some(SoftLeaf::None.into());
    }
    // Present, or permitted to nobody.
    if bits & (1 << 0 | 1 << 8) != 0 {
        return None;
    }
    Fields::of(bits)?.entry()
}

/// What those of a PMD stand for.
fn huge_decoded(bits: usize) -> Option<SoftLeafEntry> {
    decoded(bits).filter(|entry| match entry.leaf {
        SoftLeaf::None => true,
        SoftLeaf::Migration { .. } | SoftLeaf::DevicePrivate { .. } => !entry.anon_exclusive,
        _ => false,
    })
}

/// Each value means what the picture says, in both directions.
fn try_bits(bits: usize) {
    let pte = SoftLeafEntry::try_from(Pte::from_raw(pte_t { pte: bits })).ok();
    let pmd = SoftLeafEntry::try_from(Pmd::from_raw(pmd_t { pmd: bits })).ok();

    assert_eq!(pte, decoded(bits), "PTE {bits:#x}");
    assert_eq!(pmd, huge_decoded(bits), "PMD {bits:#x}");
    let bits = if is_none(bits) { 0 } else { bits };
    if let Some(entry) = pte {
        assert_eq!(Pte::try_from(entry).map(|pte| pte.as_raw().pte), Ok(bits));
    }
    if let Some(entry) = pmd {
        assert_eq!(Pmd::try_from(entry).map(|pmd| pmd.as_raw().pmd), Ok(bits));
    }
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

fn leaves() -> impl Strategy<Value = SoftLeaf> {
    let pfn = || prop_oneof![edgy(), 0..PFNS, PFNS - 2..PFNS + 2];
    let access = prop_oneof![
        Just(MigrationAccess::Read),
        Just(MigrationAccess::ReadExclusive),
        Just(MigrationAccess::Write)
    ];

    prop_oneof![
        Just(SoftLeaf::None),
        (any::<u8>(), prop_oneof![edgy(), 0..OFFSETS])
            .prop_map(|(area, offset)| SoftLeaf::Swap { area, offset }),
        (pfn(), access, any::<bool>(), any::<bool>()).prop_map(|(pfn, access, young, dirty)| {
            SoftLeaf::Migration {
                pfn,
                access,
                young,
                dirty,
            }
        }),
        (pfn(), any::<bool>()).prop_map(|(pfn, write)| SoftLeaf::DevicePrivate { pfn, write }),
        pfn().prop_map(|pfn| SoftLeaf::DeviceExclusive { pfn }),
        pfn().prop_map(|pfn| SoftLeaf::HwPoison { pfn }),
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(uffd_wp, poisoned, guard)| {
            SoftLeaf::Marker(Markers {
                uffd_wp,
                poisoned,
                guard,
            })
        }),
    ]
}

/// What can be written is what comes back; all else is refused.
#[test]
fn what_is_written_comes_back() {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());

    check(
        100_000,
        (leaves(), flags),
        |(leaf, (soft_dirty, uffd_wp, anon_exclusive))| {
            let entry = SoftLeafEntry {
                leaf,
                soft_dirty,
                uffd_wp,
                anon_exclusive,
            };
            let bits = Pte::try_from(entry).ok().map(|pte| pte.as_raw().pte);
            let huge = Pmd::try_from(entry).ok().map(|pmd| pmd.as_raw().pmd);
            let fits = match leaf {
                SoftLeaf::None => !soft_dirty && !uffd_wp && !anon_exclusive,
                SoftLeaf::Swap { area, offset } => {
                    area < 24 && offset < OFFSETS && (area, offset) != (0, 0)
                }
                SoftLeaf::Migration { pfn, .. }
                | SoftLeaf::DevicePrivate { pfn, .. }
                | SoftLeaf::DeviceExclusive { pfn }
                | SoftLeaf::HwPoison { pfn } => pfn < PFNS,
                SoftLeaf::Marker(_) => true,
            };

            prop_assert_eq!(bits.is_some(), fits);
            prop_assert_eq!(
                huge.is_some(),
                fits && match leaf {
                    SoftLeaf::None => true,
                    SoftLeaf::Migration { .. } | SoftLeaf::DevicePrivate { .. } => !anon_exclusive,
                    _ => false,
                }
            );
            prop_assert!(huge.is_none() || huge == bits);
            if let Some(bits) = bits {
                prop_assert_eq!(decoded(bits), Some(entry));
            }
            Ok(())
        },
    );
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
