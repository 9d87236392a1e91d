// SPDX-License-Identifier: GPL-2.0

//! Entries as plain values.

use crate::bindings;

macro_rules! entry_value {
    (
        $(#[$meta:meta])* $name:ident, $raw:ident;
        $($(#[$fn_meta:meta])* $fn:ident => $helper:ident),+ $(,)?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub struct $name(pub(super) bindings::$raw);

        impl $name {
            #[inline(always)]
            pub(crate) fn from_raw(raw: bindings::$raw) -> Self {
                Self(raw)
            }

            $(
                $(#[$fn_meta])*
                #[inline(always)]
                pub fn $fn(self) -> bool {
                    // SAFETY: The function computes on the value alone.
                    unsafe { bindings::$helper(self.0) }
                }
            )+
        }
    };
}

entry_value! {
    /// A value of a page-table entry of the lowest level.
    Pte, pte_t;
    /// Nothing is there.
    none => mmops_pte_none,
    /// The entry maps a page; all other questions are for such entries only.
    present => mmops_pte_present,
    /// Stores are permitted.
    write => mmops_pte_write,
    /// As [`Self::write`], but false for a shadow stack: one bit, which tests cheaper. Shared file
    /// mappings have no shadow stacks.
    rw => mmops_pte_rw,
    /// A store was made since the entry was last clean.
    dirty => mmops_pte_dirty,
    /// The page was accessed since the entry was last old.
    young => mmops_pte_young,
    /// A store was made since soft-dirty was last cleared.
    soft_dirty => mmops_pte_soft_dirty,
    /// The entry maps no folio that mm manages (PFN map, shared zero page).
    special => mmops_pte_special,
}

entry_value! {
    /// A value of an entry of a PMD table.
    Pmd, pmd_t;
    /// Nothing is there.
    none => mmops_pmd_none,
    /// The entry maps memory or a PTE table.
    present => mmops_pmd_present,
    /// The entry is a leaf, or a non-present entry in the place of one.
    is_huge => mmops_pmd_is_huge,
    /// Stores are permitted.
    write => mmops_pmd_write,
    /// A store was made since the leaf was last clean.
    dirty => mmops_pmd_dirty,
    /// The memory was accessed since the leaf was last old.
    young => mmops_pmd_young,
    /// A store was made since soft-dirty was last cleared.
    soft_dirty => mmops_pmd_soft_dirty,
    /// The leaf maps no folio that mm manages.
    special => mmops_pmd_special,
}

entry_value! {
    /// A value of an entry of a PUD table.
    Pud, pud_t;
    /// The entry maps memory or a PMD table.
    present => mmops_pud_present,
    /// The entry is a leaf.
    is_huge => mmops_pud_trans_huge,
    /// Stores are permitted.
    write => mmops_pud_write,
    /// A store was made since the leaf was last clean.
    dirty => mmops_pud_dirty,
    /// The memory was accessed since the leaf was last old.
    young => mmops_pud_young,
    /// A store was made since soft-dirty was last cleared.
    soft_dirty => mmops_pud_soft_dirty,
    /// The leaf maps no folio that mm manages.
    special => mmops_pud_special,
}

impl Pte {
    /// An entry where nothing is.
    pub(crate) const NONE: Self = Self(bindings::pte_t { pte: 0 });

    #[inline(always)]
    pub(crate) fn as_raw(self) -> bindings::pte_t {
        self.0
    }

    /// Page frame number that a present entry maps.
    #[inline(always)]
    pub fn pfn(self) -> usize {
        // SAFETY: The function computes on the value alone.
        unsafe { bindings::mmops_pte_pfn(self.0) }
    }
}

impl Pmd {
    #[inline(always)]
    pub(crate) fn as_raw(self) -> bindings::pmd_t {
        self.0
    }

    /// First page frame number that a present leaf maps.
    #[inline(always)]
    pub fn pfn(self) -> usize {
        // SAFETY: The function computes on the value alone.
        unsafe { bindings::mmops_pmd_pfn(self.0) }
    }
}

impl Pud {
    #[inline(always)]
    pub(crate) fn as_raw(self) -> bindings::pud_t {
        self.0
    }

    /// First page frame number that a present leaf maps.
    #[inline(always)]
    pub fn pfn(self) -> usize {
        // SAFETY: The function computes on the value alone.
        unsafe { bindings::mmops_pud_pfn(self.0) }
    }
}

macro_rules! leaf_state {
    ($($name:ident: $($(#[$meta:meta])* $fn:ident => $helper:ident),+;)+) => {
        $(
            impl $name {
                $(
                    $(#[$meta])*
                    #[inline(always)]
                    pub(crate) fn $fn(self) -> u32 {
                        // SAFETY: The function computes on the value alone.
                        unsafe { bindings::$helper(self.0) }
                    }
                )+
            }
        )+
    };
}

leaf_state! {
    Pte:
        /// `MMOPS_LEAF_*` of a present entry.
        leaf_state => mmops_pte_leaf_state,
        /// `MMOPS_LEAF_*` of an entry that is neither present nor none.
        softleaf_state => mmops_pte_softleaf_state,
        /// `enum softleaf_type` of such an entry.
        softleaf_type => mmops_pte_softleaf_type;
    Pmd:
        /// `MMOPS_LEAF_*` of a present leaf.
        leaf_state => mmops_pmd_leaf_state,
        /// `MMOPS_LEAF_*` of an entry that is not present, in the place of a leaf.
        softleaf_state => mmops_pmd_softleaf_state,
        /// `enum softleaf_type` of such an entry.
        softleaf_type => mmops_pmd_softleaf_type;
    Pud:
        /// `MMOPS_LEAF_*` of a present leaf.
        leaf_state => mmops_pud_leaf_state;
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
