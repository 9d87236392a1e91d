// SPDX-License-Identifier: GPL-2.0

//! Entries as plain values.

use super::level::{
    Level,
    PmdLevel,
    PteLevel,
    PudLevel, //
};
use crate::bindings;

/// A value of an entry of a page table.
///
/// All questions but [`Self::present`], [`Self::soft_leaf`] and, where there is one, `none`, are
/// for entries that map memory.
#[repr(transparent)]
pub struct Entry<L: Level>(pub(super) L::Raw);

/// A value of an entry of the lowest level.
pub type Pte = Entry<PteLevel>;
/// A value of an entry of a PMD table.
pub type Pmd = Entry<PmdLevel>;
/// A value of an entry of a PUD table.
pub type Pud = Entry<PudLevel>;

impl<L: Level> Clone for Entry<L> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: Level> Copy for Entry<L> {}

impl<L: Level> Entry<L> {
    #[inline(always)]
    pub(crate) fn from_raw(raw: L::Raw) -> Self {
        Self(raw)
    }

    #[inline(always)]
    pub(crate) fn as_raw(self) -> L::Raw {
        self.0
    }

    /// The entry maps memory, or a table.
    #[inline(always)]
    pub fn present(self) -> bool {
        L::present(self.0)
    }

    /// Stores are permitted.
    #[inline(always)]
    pub fn write(self) -> bool {
        L::write(self.0)
    }

    /// A store was made since the entry was last clean.
    #[inline(always)]
    pub fn dirty(self) -> bool {
        L::dirty(self.0)
    }

    /// The memory was accessed since the entry was last old.
    #[inline(always)]
    pub fn young(self) -> bool {
        L::young(self.0)
    }

    /// A store was made since soft-dirty was last cleared.
    #[inline(always)]
    pub fn soft_dirty(self) -> bool {
        L::soft_dirty(self.0)
    }

    /// The entry maps no folio that mm manages (PFN map, shared zero page).
    #[inline(always)]
    pub fn special(self) -> bool {
        L::special(self.0)
    }

    /// First page frame number that a present leaf maps.
    #[inline(always)]
    pub fn pfn(self) -> usize {
        L::pfn(self.0)
    }

    /// `MMOPS_LEAF_*` of a present leaf.
    #[inline(always)]
    pub(crate) fn leaf_state(self) -> u32 {
        L::leaf_state(self.0)
    }

    /// `MMOPS_LEAF_*` of an entry that is neither present nor none.
    #[inline(always)]
    pub(crate) fn softleaf_state(self) -> u32 {
        L::softleaf_state(self.0)
    }
}

/// Functions that compute on a value alone.
macro_rules! of_value {
    ($($(#[$meta:meta])* $vis:vis $fn:ident -> $ret:ty => $helper:ident;)+) => {
        $(
            $(#[$meta])*
            #[inline(always)]
            $vis fn $fn(self) -> $ret {
                // SAFETY: The function computes on the value alone.
                unsafe { bindings::$helper(self.0) }
            }
        )+
    };
}

impl Pte {
    /// An entry where nothing is.
    pub(crate) const NONE: Self = Entry(bindings::pte_t { pte: 0 });

    of_value! {
        /// Nothing is there.
        pub none -> bool => mmops_pte_none;
        /// As [`Self::write`], but false for a shadow stack: one bit, which tests cheaper. Shared
        /// file mappings have no shadow stacks.
        pub rw -> bool => mmops_pte_rw;
    }

    /// The bits that both have. If that is present, both are.
    #[inline(always)]
    pub(super) fn common(self, other: Self) -> Self {
        Entry(bindings::pte_t {
            pte: self.0.pte & other.0.pte,
        })
    }

    /// The bits that one of them has. If that is not dirty, writable, special or anything but none,
    /// neither is one of the two.
    #[inline(always)]
    pub(super) fn union(self, other: Self) -> Self {
        Entry(bindings::pte_t {
            pte: self.0.pte | other.0.pte,
        })
    }
}

impl Pmd {
    of_value! {
        /// Nothing is there.
        pub none -> bool => mmops_pmd_none;
        /// The entry is a leaf, or a non-present entry in the place of one.
        pub is_huge -> bool => mmops_pmd_is_huge;
    }
}

impl Pud {
    of_value! {
        /// The entry is a leaf.
        pub is_huge -> bool => mmops_pud_trans_huge;
    }
}

#[cfg(CONFIG_X86_64)]
#[kernel::prelude::kunit_tests(mmops_pgtable_value)]
mod tests {
    use super::*;

    const PRESENT: u64 = 1 << 0;
    const RW: u64 = 1 << 1;
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;
    const PSE: u64 = 1 << 7;
    const SAVED_DIRTY: u64 = 1 << 58;
    const PFN_MASK: u64 = 0x000f_ffff_ffff_f000;

    fn pte(bits: u64) -> Pte {
        Pte::from_raw(bindings::pte_t { pte: bits as usize })
    }

    fn bits(pte: Pte) -> u64 {
        pte.0.pte as u64
    }

    /// All combinations of the hardware bits of the lowest byte, with frames of every size.
    #[test]
    fn pte_predicates_read_their_bit() {
        for low in 0..=0xffu64 {
            for shift in 12..40 {
                let value = low | 1 << shift;
                let pte = pte(value);

                assert_eq!(pte.write(), value & RW != 0);
                assert_eq!(pte.dirty(), value & DIRTY != 0);
                assert_eq!(pte.young(), value & ACCESSED != 0);
                assert!(!pte.none());
                if value & PRESENT != 0 {
                    assert!(pte.present());
                    assert_eq!(pte.pfn(), ((value & PFN_MASK) >> 12) as usize);
                }
            }
        }
        assert!(pte(0).none());
        assert!(!pte(0).present());
        // Hardware erratum: stray accessed and dirty bits do not make an entry.
        assert!(pte(ACCESSED | DIRTY).none());
    }

    /// What is said of two values together holds of both, or misses neither.
    #[test]
    fn two_values_together() {
        const BITS: [u64; 6] = [PRESENT, RW, DIRTY, 1 << 8, 1 << 9, SAVED_DIRTY];
        let values = || {
            (0..1 << BITS.len()).map(|set| {
                BITS.iter()
                    .enumerate()
                    .fold(0, |value, (i, bit)| value | ((set >> i & 1) * bit))
            })
        };

        for a in values().map(pte) {
            for b in values().map(pte) {
                let (common, union) = (a.common(b), a.union(b));

                assert!(!common.present() || a.present() && b.present());
                assert_eq!(union.none(), a.none() && b.none());
                assert_eq!(union.dirty(), a.dirty() || b.dirty());
                assert_eq!(union.special(), a.special() || b.special());
                assert!(union.write() || !a.write() && !b.write());
            }
        }
    }

    /// Write-protection keeps the dirty state, cleaning keeps the permission, on every value.
    #[test]
    fn changes_touch_their_bit_only() {
        for low in (0..=0xffu64).filter(|low| low & PRESENT != 0) {
            let before = low | 0x1234_5000;

            // SAFETY: The function computes on the value alone.
            let wp = Pte::from_raw(unsafe { bindings::mmops_pte_wrprotect(pte(before).0) });

            assert!(!wp.write());
            assert_eq!(wp.dirty(), before & DIRTY != 0);
            assert_eq!(
                bits(wp) & !(RW | DIRTY | SAVED_DIRTY),
                before & !(RW | DIRTY | SAVED_DIRTY)
            );

            // SAFETY: As above.
            let clean = Pte::from_raw(unsafe { bindings::mmops_pte_mkclean(wp.0) });

            assert!(!clean.dirty());
            assert_eq!(bits(clean), before & !(RW | DIRTY));
        }
    }

    #[test]
    fn entry_update_returns_the_old_value() {
        let mut entry = pte(PRESENT | RW | DIRTY | 0x7000).0;
        // A value that the entry does not have (any more) costs one more turn.
        let stale = pte(PRESENT | RW | 0x7000).0;

        // SAFETY: `entry` is a valid, exclusive place.
        let old = Pte::from_raw(unsafe { bindings::mmops_ptep_mkclean(&mut entry, stale) });

        assert_eq!(bits(old), PRESENT | RW | DIRTY | 0x7000);
        assert_eq!(bits(Pte::from_raw(entry)), PRESENT | RW | 0x7000);

        // SAFETY: As above.
        let old = Pte::from_raw(unsafe { bindings::mmops_ptep_wrprotect(&mut entry, entry) });

        assert_eq!(bits(old), PRESENT | RW | 0x7000);
        assert_eq!(bits(Pte::from_raw(entry)), PRESENT | 0x7000);
    }

    #[test]
    fn huge_predicates_read_their_bit() {
        for low in (0..=0xffu64).filter(|low| low & PRESENT != 0) {
            let value = low | 0x4000_0000;
            let pmd = Pmd::from_raw(bindings::pmd_t {
                pmd: value as usize,
            });
            let pud = Pud::from_raw(bindings::pud_t {
                pud: value as usize,
            });

            assert_eq!(pmd.is_huge(), value & PSE != 0);
            assert_eq!(pud.is_huge(), value & PSE != 0);
            assert_eq!(pmd.write(), value & RW != 0);
            assert_eq!(pud.write(), value & RW != 0);
            assert_eq!(pmd.dirty(), value & DIRTY != 0);
            assert_eq!(pud.dirty(), value & DIRTY != 0);
            assert_eq!(pmd.young(), value & ACCESSED != 0);
            assert_eq!(pud.young(), value & ACCESSED != 0);
        }
    }
}
