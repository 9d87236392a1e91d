// SPDX-License-Identifier: GPL-2.0

//! Entries that are not present, and what the kernel keeps in them.
//!
//! C header: [`include/linux/leafops.h`](srctree/include/linux/leafops.h)

use super::{
    level::Level,
    value::Entry, //
};
use crate::bindings;
use kernel::prelude::*;

/// What a migration gives back to the entry when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationAccess {
    /// No write permission.
    Read,
    /// No write permission; the anonymous page is this process's alone.
    ReadExclusive,
    /// The write permission.
    Write,
}

/// Bits of a PTE marker: properties of an address whose page is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Markers {
    /// A store is reported to userfaultfd.
    pub uffd_wp: bool,
    /// An access is a memory error (`UFFDIO_POISON`).
    pub poisoned: bool,
    /// An access is a segmentation fault (`MADV_GUARD_INSTALL`).
    pub guard: bool,
}

/// What an entry that is not present stands for; C's `softleaf_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftLeaf {
    /// A page in a swap area.
    Swap {
        /// Number of the swap area.
        area: u8,
        /// Offset in it, in pages.
        offset: usize,
    },
    /// A page that is being migrated.
    Migration {
        /// Page frame number.
        pfn: usize,
        /// What comes back.
        access: MigrationAccess,
        /// The accessed bit.
        young: bool,
        /// The dirty bit.
        dirty: bool,
    },
    /// A page in memory of a device that the CPU cannot reach.
    DevicePrivate {
        /// Page frame number.
        pfn: usize,
        /// Stores are permitted.
        write: bool,
    },
    /// A page that a device has to itself for atomic operations, until the CPU accesses it.
    DeviceExclusive {
        /// Page frame number.
        pfn: usize,
    },
    /// A page with a memory error.
    HwPoison {
        /// Page frame number.
        pfn: usize,
    },
    /// No page, but properties of the address.
    Marker(Markers),
}

impl<L: Level> Entry<L> {
    /// What the entry stands for; `None` if it is present, or nothing is there.
    ///
    /// In the place of a huge leaf the kernel has migration and device-private entries alone, and
    /// of PUD size none.
    ///
    /// Source: `softleaf_from_pte()`, `softleaf_from_pmd()`, `softleaf_type()`.
    pub fn soft_leaf(self) -> Option<SoftLeaf> {
        SoftLeaf::decode(L::softleaf_type(self.0), L::softleaf(self.0))
    }
}

impl SoftLeaf {
    /// Whether the page comes back with the write permission.
    pub fn is_writable(&self) -> bool {
        matches!(
            self,
            Self::Migration {
                access: MigrationAccess::Write,
                ..
            } | Self::DevicePrivate { write: true, .. }
        )
    }

    /// `value` is a `softleaf_t`, and `kind` its `enum softleaf_type`.
    fn decode(kind: u32, value: usize) -> Option<Self> {
        use bindings as b;

        let offset = value & ((1 << b::LEAF_TYPE_SHIFT) - 1);
        // SAFETY: The function only computes.
        let pfn_bits = unsafe { b::mmops_swp_pfn_bits() };
        let pfn = offset & ((1 << pfn_bits) - 1);
        let migration = |access| Self::Migration {
            pfn,
            access,
            young: offset & (1 << pfn_bits) != 0,
            dirty: offset & (2 << pfn_bits) != 0,
        };

        Some(match kind {
            b::softleaf_type_SOFTLEAF_SWAP => Self::Swap {
                area: (value >> b::LEAF_TYPE_SHIFT) as u8,
                offset,
            },
            b::softleaf_type_SOFTLEAF_MIGRATION_READ => migration(MigrationAccess::Read),
            b::softleaf_type_SOFTLEAF_MIGRATION_READ_EXCLUSIVE => {
                migration(MigrationAccess::ReadExclusive)
            }
            b::softleaf_type_SOFTLEAF_MIGRATION_WRITE => migration(MigrationAccess::Write),
            b::softleaf_type_SOFTLEAF_DEVICE_PRIVATE_READ => {
                Self::DevicePrivate { pfn, write: false }
            }
            b::softleaf_type_SOFTLEAF_DEVICE_PRIVATE_WRITE => {
                Self::DevicePrivate { pfn, write: true }
            }
            b::softleaf_type_SOFTLEAF_DEVICE_EXCLUSIVE => Self::DeviceExclusive { pfn },
            b::softleaf_type_SOFTLEAF_HWPOISON => Self::HwPoison { pfn },
            b::softleaf_type_SOFTLEAF_MARKER => Self::Marker(Markers {
                uffd_wp: offset & b::MARKER_UFFD_WP != 0,
                poisoned: offset & b::MARKER_POISONED != 0,
                guard: offset & b::MARKER_GUARD != 0,
            }),
            _ => return None,
        })
    }
}

#[kunit_tests(mmops_soft_leaf)]
mod tests {
    use super::{
        super::value::{
            Pmd,
            Pte, //
        },
        *, //
    };

    /// Values of a fixed sequence without a pattern.
    struct Sequence(u64);

    impl Sequence {
        fn next(&mut self) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 as usize
        }
    }

    fn pfn_mask() -> usize {
        // SAFETY: The function only computes.
        (1 << unsafe { bindings::mmops_swp_pfn_bits() }) - 1
    }

    /// Half of the values with few low bits, as entries have.
    fn like_an_entry(value: usize) -> usize {
        if value & 1 << 20 != 0 {
            value & !0x1f1
        } else {
            value
        }
    }

    /// Area and offset of a page in swap, which are not both 0.
    fn swap(value: usize) -> (usize, usize) {
        let offset = (value / bindings::SWAP_AREAS) & ((1 << bindings::SWAP_OFFSET_BITS) - 1);

        (value % bindings::SWAP_AREAS, offset.max(1))
    }

    /// What the kernel's constructor for a kind is called with.
    fn argument(leaf: &SoftLeaf, value: usize) -> usize {
        match leaf {
            SoftLeaf::Swap { area, offset } => offset * bindings::SWAP_AREAS + usize::from(*area),
            SoftLeaf::Marker(_) => value & 7,
            _ => value & pfn_mask(),
        }
    }

    /// One of each kind, and the kernel's name for it.
    fn kinds(value: usize, young: bool, dirty: bool) -> [(u32, SoftLeaf); 9] {
        let pfn = value & pfn_mask();
        let (area, offset) = swap(value);
        let migration = |access| SoftLeaf::Migration {
            pfn,
            access,
            young,
            dirty,
        };

        [
            (
                bindings::softleaf_type_SOFTLEAF_SWAP,
                SoftLeaf::Swap {
                    area: area as u8,
                    offset,
                },
            ),
            (
                bindings::softleaf_type_SOFTLEAF_MIGRATION_READ,
                migration(MigrationAccess::Read),
            ),
            (
                bindings::softleaf_type_SOFTLEAF_MIGRATION_READ_EXCLUSIVE,
                migration(MigrationAccess::ReadExclusive),
            ),
            (
                bindings::softleaf_type_SOFTLEAF_MIGRATION_WRITE,
                migration(MigrationAccess::Write),
            ),
            (
                bindings::softleaf_type_SOFTLEAF_DEVICE_PRIVATE_READ,
                SoftLeaf::DevicePrivate { pfn, write: false },
            ),
            (
                bindings::softleaf_type_SOFTLEAF_DEVICE_PRIVATE_WRITE,
                SoftLeaf::DevicePrivate { pfn, write: true },
            ),
            (
                bindings::softleaf_type_SOFTLEAF_DEVICE_EXCLUSIVE,
                SoftLeaf::DeviceExclusive { pfn },
            ),
            (
                bindings::softleaf_type_SOFTLEAF_HWPOISON,
                SoftLeaf::HwPoison { pfn },
            ),
            (
                bindings::softleaf_type_SOFTLEAF_MARKER,
                SoftLeaf::Marker(Markers {
                    uffd_wp: value & 1 != 0,
                    poisoned: value & 2 != 0,
                    guard: value & 4 != 0,
                }),
            ),
        ]
    }

    /// 9 kinds of 120,000 values each, with all combinations of software bits.
    #[test]
    fn entries_of_the_kernel_are_decoded() {
        let mut values = Sequence(0x006d_6d6f_7073);
        let mut differ = 0;

        for i in 0..120_000u32 {
            let value = values.next();
            let (young, dirty, flags) = (i & 1 != 0, i & 2 != 0, i >> 2 & 7);

            for (kind, leaf) in kinds(value, young, dirty) {
                let argument = argument(&leaf, value);
                // SAFETY: The function computes on the values alone.
                let pte = Pte::from_raw(unsafe {
                    bindings::mmops_softleaf_by_kernel(kind, argument, young, dirty, flags)
                });

                if pte.present() || pte.none() || pte.soft_leaf() != Some(leaf) {
                    differ += 1;
                }
            }
        }
        assert_eq!(differ, 0);
    }

    /// The kinds that there are in the place of a huge leaf, of 60,000 values each.
    #[test]
    fn huge_entries_of_the_kernel_are_decoded() {
        let mut values = Sequence(0x0070_6d64);
        let mut differ = 0;

        for i in 0..60_000u32 {
            let value = values.next();
            let (young, dirty, flags) = (i & 1 != 0, i & 2 != 0, i >> 2 & 3);

            for (kind, leaf) in kinds(value, young, dirty) {
                if !matches!(
                    leaf,
                    SoftLeaf::Migration { .. } | SoftLeaf::DevicePrivate { .. }
                ) {
                    continue;
                }

                let argument = argument(&leaf, value);
                // SAFETY: The function computes on the values alone.
                let pmd = Pmd::from_raw(unsafe {
                    bindings::mmops_softleaf_pmd_by_kernel(kind, argument, young, dirty, flags)
                });

                if pmd.present() || pmd.none() || pmd.soft_leaf() != Some(leaf) {
                    differ += 1;
                }
            }
        }
        assert_eq!(differ, 0);
    }

    /// What is present, or none, stands for nothing else, whatever the bits are.
    #[test]
    fn any_bits_stand_for_one_thing() {
        let mut values = Sequence(0x7265_6675_7365);
        let (mut decoded, mut refused, mut differ) = (0, 0, 0);

        for _ in 0..800_000 {
            let pte = Pte::from_raw(bindings::pte_t {
                pte: like_an_entry(values.next()),
            });
            let is_leaf = pte.soft_leaf().is_some();

            decoded += u32::from(is_leaf);
            refused += u32::from(!is_leaf);
            differ += u32::from(is_leaf && (pte.present() || pte.none()));
        }
        assert_eq!(differ, 0);
        // Both happened, or the test has seen nothing.
        assert!(decoded > 1000);
        assert!(refused > 1000);
    }

    #[test]
    fn what_is_present_or_none_is_no_soft_leaf() {
        assert_eq!(Pte::NONE.soft_leaf(), None);
        assert_eq!(Pmd::from_raw(bindings::pmd_t::default()).soft_leaf(), None);
        // The first page of the first swap area, where its header is, is nothing to the kernel.
        // SAFETY: The function computes on the values alone.
        let header = Pte::from_raw(unsafe {
            bindings::mmops_softleaf_by_kernel(
                bindings::softleaf_type_SOFTLEAF_SWAP,
                0,
                false,
                false,
                0,
            )
        });

        assert!(!header.none());
        assert_eq!(header.soft_leaf(), None);
    }
}
