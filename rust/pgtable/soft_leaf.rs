// SPDX-License-Identifier: GPL-2.0

//! Entries that are not present, and what the kernel keeps in them.
//!
//! A [`SoftLeafEntry`] is all of such an entry: the [`SoftLeaf`], and the software bits beside it.
//! It is got from a [`Pte`] or a [`Pmd`] by `try_from`, which refuses what the kernel would not
//! have written, and turned back by `try_from`, which refuses a field that does not fit. Between
//! the two no bit is lost; only of an entry of nothing, an accessed or a dirty bit that an erratum
//! of some CPUs has left there.
//!
//! C header: [`include/linux/leafops.h`](srctree/include/linux/leafops.h)

use super::{
    Pmd,
    Pte, //
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
    /// Nothing.
    None,
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

/// A whole entry that is not present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftLeafEntry {
    /// What it stands for.
    pub leaf: SoftLeaf,
    /// A store was made since soft-dirty was last cleared.
    pub soft_dirty: bool,
    /// A store is reported to userfaultfd.
    pub uffd_wp: bool,
    /// The page in swap is this process's alone.
    pub anon_exclusive: bool,
}

impl SoftLeafEntry {
    fn flags(&self) -> u32 {
        let bit = |is: bool, bit: u32| if is { bit } else { 0 };

        bit(self.soft_dirty, bindings::MMOPS_SOFT_LEAF_SOFT_DIRTY)
            | bit(self.uffd_wp, bindings::MMOPS_SOFT_LEAF_UFFD_WP)
            | bit(self.anon_exclusive, bindings::MMOPS_SOFT_LEAF_EXCLUSIVE)
    }

    fn new(leaf: SoftLeaf, flags: u32) -> Self {
        Self {
            leaf,
            soft_dirty: flags & bindings::MMOPS_SOFT_LEAF_SOFT_DIRTY != 0,
            uffd_wp: flags & bindings::MMOPS_SOFT_LEAF_UFFD_WP != 0,
            anon_exclusive: flags & bindings::MMOPS_SOFT_LEAF_EXCLUSIVE != 0,
        }
    }

    /// Whether a bit is set for which an entry of nothing has no place.
    fn has_flags(&self) -> bool {
        self.flags() != 0
    }
}

impl From<SoftLeaf> for SoftLeafEntry {
    /// The entry without software bits.
    fn from(leaf: SoftLeaf) -> Self {
        Self::new(leaf, 0)
    }
}

/// Type and offset of a `softleaf_t`.
struct Raw {
    kind: usize,
    offset: usize,
}

impl Raw {
    fn split(value: usize) -> Self {
        Self {
            kind: value >> bindings::LEAF_TYPE_SHIFT,
            offset: value & ((1 << bindings::LEAF_TYPE_SHIFT) - 1),
        }
    }

    /// The page frame, if there is nothing beside it.
    fn pfn(&self) -> Result<usize> {
        if self.offset & !pfn_mask() == 0 {
            Ok(self.offset)
        } else {
            Err(EINVAL)
        }
    }

    fn decode(&self) -> Result<SoftLeaf> {
        let migration = |access| -> Result<SoftLeaf> {
            let (young, dirty) = migration_bits();

            if self.offset & !(pfn_mask() | young | dirty) != 0 {
                return Err(EINVAL);
            }
            Ok(SoftLeaf::Migration {
                pfn: self.offset & pfn_mask(),
                access,
                young: self.offset & young != 0,
                dirty: self.offset & dirty != 0,
            })
        };

        match self.kind {
            // The kernel takes the first page of the first swap area, where its header is, for
            // nothing.
            0 if self.offset == 0 => Err(EINVAL),
            area if area < bindings::SWAP_AREAS => Ok(SoftLeaf::Swap {
                area: area as u8,
                offset: self.offset,
            }),
            bindings::LEAF_MIGRATION_READ => migration(MigrationAccess::Read),
            bindings::LEAF_MIGRATION_READ_EXCLUSIVE => migration(MigrationAccess::ReadExclusive),
            bindings::LEAF_MIGRATION_WRITE => migration(MigrationAccess::Write),
            bindings::LEAF_DEVICE_PRIVATE_READ => Ok(SoftLeaf::DevicePrivate {
                pfn: self.pfn()?,
                write: false,
            }),
            bindings::LEAF_DEVICE_PRIVATE_WRITE => Ok(SoftLeaf::DevicePrivate {
                pfn: self.pfn()?,
                write: true,
            }),
            bindings::LEAF_DEVICE_EXCLUSIVE => Ok(SoftLeaf::DeviceExclusive { pfn: self.pfn()? }),
            bindings::LEAF_HWPOISON => Ok(SoftLeaf::HwPoison { pfn: self.pfn()? }),
            bindings::LEAF_MARKER => Markers::decode(self.offset).map(SoftLeaf::Marker),
            _ => Err(EINVAL),
        }
    }

    /// Not for [`SoftLeaf::None`].
    fn encode(leaf: &SoftLeaf) -> Result<Self> {
        let with_pfn = |kind, pfn, bits| {
            if pfn & !pfn_mask() == 0 {
                Ok(Self {
                    kind,
                    offset: pfn | bits,
                })
            } else {
                Err(EINVAL)
            }
        };

        match *leaf {
            SoftLeaf::None => Err(EINVAL),
            SoftLeaf::Swap { area, offset } => {
                let raw = Self {
                    kind: area.into(),
                    offset,
                };

                if raw.kind >= bindings::SWAP_AREAS
                    || offset >> bindings::SWAP_OFFSET_BITS != 0
                    || (raw.kind, offset) == (0, 0)
                {
                    return Err(EINVAL);
                }
                Ok(raw)
            }
            SoftLeaf::Migration {
                pfn,
                access,
                young,
                dirty,
            } => {
                let kind = match access {
                    MigrationAccess::Read => bindings::LEAF_MIGRATION_READ,
                    MigrationAccess::ReadExclusive => bindings::LEAF_MIGRATION_READ_EXCLUSIVE,
                    MigrationAccess::Write => bindings::LEAF_MIGRATION_WRITE,
                };
                let (young_bit, dirty_bit) = migration_bits();
                let bits = if young { young_bit } else { 0 } | if dirty { dirty_bit } else { 0 };

                with_pfn(kind, pfn, bits)
            }
            SoftLeaf::DevicePrivate { pfn, write: false } => {
                with_pfn(bindings::LEAF_DEVICE_PRIVATE_READ, pfn, 0)
            }
            SoftLeaf::DevicePrivate { pfn, write: true } => {
                with_pfn(bindings::LEAF_DEVICE_PRIVATE_WRITE, pfn, 0)
            }
            SoftLeaf::DeviceExclusive { pfn } => with_pfn(bindings::LEAF_DEVICE_EXCLUSIVE, pfn, 0),
            SoftLeaf::HwPoison { pfn } => with_pfn(bindings::LEAF_HWPOISON, pfn, 0),
            SoftLeaf::Marker(markers) => Ok(Self {
                kind: bindings::LEAF_MARKER,
                offset: markers.encode(),
            }),
        }
    }
}

impl Markers {
    fn decode(bits: usize) -> Result<Self> {
        if bits & !bindings::MARKER_MASK != 0 {
            return Err(EINVAL);
        }
        Ok(Self {
            uffd_wp: bits & bindings::MARKER_UFFD_WP != 0,
            poisoned: bits & bindings::MARKER_POISONED != 0,
            guard: bits & bindings::MARKER_GUARD != 0,
        })
    }

    fn encode(self) -> usize {
        let bit = |is: bool, bit: usize| if is { bit } else { 0 };

        bit(self.uffd_wp, bindings::MARKER_UFFD_WP)
            | bit(self.poisoned, bindings::MARKER_POISONED)
            | bit(self.guard, bindings::MARKER_GUARD)
    }
}

fn pfn_bits() -> u32 {
    // SAFETY: The function only computes.
    unsafe { bindings::mmops_swp_pfn_bits() }
}

fn pfn_mask() -> usize {
    (1 << pfn_bits()) - 1
}

/// The accessed and the dirty bit in the offset of a migration entry.
fn migration_bits() -> (usize, usize) {
    (1 << pfn_bits(), 2 << pfn_bits())
}

impl TryFrom<Pte> for SoftLeafEntry {
    type Error = Error;

    /// # Errors
    ///
    /// `EINVAL` if the entry is present, or is nothing that this kernel writes.
    fn try_from(pte: Pte) -> Result<Self> {
        if pte.none() {
            return Ok(SoftLeaf::None.into());
        }
        if pte.present() {
            return Err(EINVAL);
        }
        // SAFETY: The functions compute on the value alone.
        let (value, flags) = unsafe {
            (
                bindings::mmops_softleaf_from_pte(pte.0),
                bindings::mmops_softleaf_pte_flags(pte.0),
            )
        };
        let entry = Self::new(Raw::split(value).decode()?, flags);

        // Bits that stand for nothing would be lost.
        // SAFETY: As above.
        if unsafe { bindings::mmops_pte_same(Pte::try_from(entry)?.0, pte.0) } {
            Ok(entry)
        } else {
            Err(EINVAL)
        }
    }
}

impl TryFrom<SoftLeafEntry> for Pte {
    type Error = Error;

    /// # Errors
    ///
    /// `EINVAL` if a page frame or an offset does not fit, or a bit is set beside nothing.
    fn try_from(entry: SoftLeafEntry) -> Result<Self> {
        if entry.leaf == SoftLeaf::None {
            return if entry.has_flags() {
                Err(EINVAL)
            } else {
                Ok(Self(bindings::pte_t::default()))
            };
        }

        let raw = Raw::encode(&entry.leaf)?;

        // SAFETY: The function computes on the values alone.
        Ok(Self(unsafe {
            bindings::mmops_softleaf_to_pte(raw.kind, raw.offset, entry.flags())
        }))
    }
}

impl TryFrom<Pmd> for SoftLeafEntry {
    type Error = Error;

    /// # Errors
    ///
    /// `EINVAL` if the entry is present, or is nothing that this kernel writes in the place of a
    /// huge leaf: there are migration and device-private entries.
    fn try_from(pmd: Pmd) -> Result<Self> {
        if pmd.none() {
            return Ok(SoftLeaf::None.into());
        }
        if pmd.present() {
            return Err(EINVAL);
        }
        // SAFETY: The functions compute on the value alone.
        let (value, flags) = unsafe {
            (
                bindings::mmops_softleaf_from_pmd(pmd.0),
                bindings::mmops_softleaf_pmd_flags(pmd.0),
            )
        };
        let entry = Self::new(Raw::split(value).decode()?, flags);

        // SAFETY: As above.
        if unsafe { bindings::mmops_pmd_same(Pmd::try_from(entry)?.0, pmd.0) } {
            Ok(entry)
        } else {
            Err(EINVAL)
        }
    }
}

impl TryFrom<SoftLeafEntry> for Pmd {
    type Error = Error;

    /// # Errors
    ///
    /// `EINVAL` if a page frame does not fit, or no such entry exists in the place of a huge leaf.
    fn try_from(entry: SoftLeafEntry) -> Result<Self> {
        match entry.leaf {
            SoftLeaf::None if !entry.has_flags() => Ok(Self(bindings::pmd_t::default())),
            SoftLeaf::Migration { .. } | SoftLeaf::DevicePrivate { .. }
                if !entry.anon_exclusive =>
            {
                let raw = Raw::encode(&entry.leaf)?;

                // SAFETY: The function computes on the values alone.
                Ok(Self(unsafe {
                    bindings::mmops_softleaf_to_pmd(raw.kind, raw.offset, entry.flags())
                }))
            }
            _ => Err(EINVAL),
        }
    }
}

#[kunit_tests(mmops_soft_leaf)]
mod tests {
    use super::*;

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

    fn raw(pte: Pte) -> usize {
        pte.0.pte
    }

    fn raw_pmd(pmd: Pmd) -> usize {
        pmd.0.pmd
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
    fn bits_are_those_of_the_kernel() {
        let mut values = Sequence(0x006d_6d6f_7073);
        let mut differ = 0;

        for i in 0..120_000u32 {
            let value = values.next();
            let (young, dirty, flags) = (i & 1 != 0, i & 2 != 0, i >> 2 & 7);

            for (kind, leaf) in kinds(value, young, dirty) {
                let entry = SoftLeafEntry::new(leaf, flags);
                // SAFETY: The function computes on the values alone.
                let theirs = Pte::from_raw(unsafe {
                    bindings::mmops_softleaf_by_kernel(
                        kind,
                        argument(&leaf, value),
                        young,
                        dirty,
                        flags,
                    )
                });

                if !Pte::try_from(entry).is_ok_and(|ours| {
                    raw(ours) == raw(theirs)
                        && ours.softleaf_type() == kind
                        && SoftLeafEntry::try_from(theirs) == Ok(entry)
                }) {
                    differ += 1;
                }
            }
        }
        assert_eq!(differ, 0);
    }

    /// Any bits decode to an entry of the same bits, or to an error.
    #[test]
    fn undefined_bits_are_an_error() {
        let mut values = Sequence(0x7265_6675_7365);
        let (mut decoded, mut refused, mut differ) = (0, 0, 0);

        for _ in 0..800_000 {
            let value = like_an_entry(values.next());
            let pte = Pte::from_raw(bindings::pte_t { pte: value });

            match SoftLeafEntry::try_from(pte) {
                Ok(entry) => {
                    decoded += 1;
                    if Pte::try_from(entry).map(raw) != Ok(value) {
                        differ += 1;
                    }
                }
                Err(_) => refused += 1,
            }
            if pte.present() && SoftLeafEntry::try_from(pte).is_ok() {
                differ += 1;
            }
        }
        assert_eq!(differ, 0);
        // Both happened, or the test has seen nothing.
        assert!(decoded > 1000);
        assert!(refused > 1000);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let too_high = pfn_mask() + 1;
        let pte = |leaf: SoftLeaf| Pte::try_from(SoftLeafEntry::from(leaf)).map(raw);

        assert_eq!(pte(SoftLeaf::None), Ok(0));
        assert!(pte(SoftLeaf::HwPoison { pfn: too_high }).is_err());
        assert!(pte(SoftLeaf::DeviceExclusive { pfn: too_high }).is_err());
        assert!(pte(SoftLeaf::Swap { area: 0, offset: 0 }).is_err());
        assert!(pte(SoftLeaf::Swap {
            area: 0,
            offset: 1 << bindings::SWAP_OFFSET_BITS
        })
        .is_err());
        assert!(pte(SoftLeaf::Swap {
            area: bindings::SWAP_AREAS as u8,
            offset: 1
        })
        .is_err());
        assert!(Pte::try_from(SoftLeafEntry::new(SoftLeaf::None, 1)).is_err());
    }

    /// The kinds that there are in the place of a huge leaf, of 60,000 values each; the others are
    /// refused.
    #[test]
    fn bits_of_huge_entries_are_those_of_the_kernel() {
        let mut values = Sequence(0x0070_6d64);
        let mut differ = 0;

        for i in 0..60_000u32 {
            let value = values.next();
            let (young, dirty, flags) = (i & 1 != 0, i & 2 != 0, i >> 2 & 3);

            for (kind, leaf) in kinds(value, young, dirty) {
                let entry = SoftLeafEntry::new(leaf, flags);
                let ours = Pmd::try_from(entry);

                if !matches!(
                    leaf,
                    SoftLeaf::Migration { .. } | SoftLeaf::DevicePrivate { .. }
                ) {
                    differ += u32::from(ours.is_ok());
                    continue;
                }

                // SAFETY: The function computes on the values alone.
                let theirs = Pmd::from_raw(unsafe {
                    bindings::mmops_softleaf_pmd_by_kernel(
                        kind,
                        argument(&leaf, value),
                        young,
                        dirty,
                        flags,
                    )
                });

                if !ours.is_ok_and(|ours| {
                    raw_pmd(ours) == raw_pmd(theirs)
                        && ours.softleaf_type() == kind
                        && SoftLeafEntry::try_from(theirs) == Ok(entry)
                }) {
                    differ += 1;
                }
                // Of swap alone.
                differ += u32::from(
                    Pmd::try_from(SoftLeafEntry {
                        anon_exclusive: true,
                        ..entry
                    })
                    .is_ok(),
                );
            }
        }
        assert_eq!(differ, 0);
    }

    /// Any bits decode to a huge entry of the same bits, or to an error.
    #[test]
    fn undefined_bits_of_huge_entries_are_an_error() {
        let mut values = Sequence(0x0070_6d64_3f3f);
        let (mut decoded, mut refused, mut differ) = (0, 0, 0);
        // x86 keeps the offset inverted, from bit 9 on.
        let above_pfn = (((1 << bindings::SWAP_OFFSET_BITS) - 1) & !pfn_mask()) << 9;

        for i in 0..300_000 {
            let value = like_an_entry(values.next());
            // Half of them with no more than a page frame.
            let value = if i % 2 == 0 { value | above_pfn } else { value };
            let pmd = Pmd::from_raw(bindings::pmd_t { pmd: value });

            match SoftLeafEntry::try_from(pmd) {
                Ok(entry) => {
                    decoded += 1;
                    if pmd.present() || Pmd::try_from(entry).map(raw_pmd) != Ok(value) {
                        differ += 1;
                    }
                }
                Err(_) => refused += 1,
            }
        }
        assert_eq!(differ, 0);
        // Both happened, or the test has seen nothing.
        assert!(decoded > 1000);
        assert!(refused > 1000);
    }
}
