// SPDX-License-Identifier: GPL-2.0

//! The levels of page tables at which entries map memory: what C calls `pte_`, `pmd_` and `pud_`.

use super::{
    Leaf,
    PmdLeaf,
    PudLeaf, //
};
use crate::{
    bindings,
    range::{
        PMD_SIZE,
        PUD_SIZE, //
    }, //
};
use kernel::page::PAGE_SIZE;

/// A level of page tables: [`PteLevel`], [`PmdLevel`] or [`PudLevel`].
pub trait Level: raw::Level {}

/// A level at which an entry is a table or a huge leaf: [`PmdLevel`] or [`PudLevel`].
pub trait HugeLevel: Level + raw::HugeLevel {}

/// The lowest level, of entries that map a base page.
#[derive(Clone, Copy, Debug)]
pub struct PteLevel;

/// The level of entries that map [`PMD_SIZE`].
#[derive(Clone, Copy, Debug)]
pub struct PmdLevel;

/// The level of entries that map [`PUD_SIZE`].
#[derive(Clone, Copy, Debug)]
pub struct PudLevel;

impl Level for PteLevel {}
impl Level for PmdLevel {}
impl Level for PudLevel {}
impl HugeLevel for PmdLevel {}
impl HugeLevel for PudLevel {}

/// A leaf as one of the level that it has, for what is not the same at both.
pub enum ByLevel<'a, 't, 's> {
    /// Of PMD size.
    Pmd(&'a mut PmdLeaf<'t, 's>),
    /// Of PUD size.
    Pud(&'a mut PudLeaf<'t, 's>),
}

/// What C has for a level. Nobody outside can name these traits, so the levels are those above.
pub(super) mod raw {
    use super::*;
    use bindings::{
        mm_struct,
        vm_area_struct, //
    };

    pub trait Level: Copy + 'static {
        /// The value of an entry.
        type Raw: Copy;

        /// Bytes that a leaf maps.
        const SIZE: usize;

        fn present(raw: Self::Raw) -> bool;
        fn write(raw: Self::Raw) -> bool;
        fn dirty(raw: Self::Raw) -> bool;
        fn young(raw: Self::Raw) -> bool;
        fn soft_dirty(raw: Self::Raw) -> bool;
        fn special(raw: Self::Raw) -> bool;
        fn pfn(raw: Self::Raw) -> usize;
        fn leaf_state(raw: Self::Raw) -> u32;

        /// The `softleaf_t` of any entry, and its `enum softleaf_type`. There is none of PUD size.
        fn softleaf(_raw: Self::Raw) -> usize {
            0
        }
        /// As above.
        fn softleaf_type(_raw: Self::Raw) -> u32 {
            bindings::softleaf_type_SOFTLEAF_NONE
        }
        /// What [`Self::leaf_state`] is of a present leaf.
        fn softleaf_state(_raw: Self::Raw) -> u32 {
            0
        }
    }

    /// # Safety
    ///
    /// Of all functions: `entry` is one of that level for `addr` in `vma`, or in a VMA of `mm`, and
    /// its lock is held. For [`Self::get`] it may be any; for [`Self::take`] and
    /// [`Self::mksoft_dirty`] it is a leaf, or the non-present entry in the place of one; for what
    /// is called `nonpresent` the latter; for all others a present leaf. A value that is handed
    /// over was that of such a leaf.
    #[expect(clippy::missing_safety_doc, clippy::unnecessary_safety_doc)]
    pub trait HugeLevel: Level {
        fn by_level<'a, 't, 's>(leaf: &'a mut Leaf<'t, 's, Self>) -> ByLevel<'a, 't, 's>
        where
            Self: super::HugeLevel;

        unsafe fn get(entry: *mut Self::Raw) -> Self::Raw;
        unsafe fn wrprotect(entry: *mut Self::Raw) -> Self::Raw;
        unsafe fn mkold(entry: *mut Self::Raw) -> Self::Raw;
        unsafe fn mkclean(entry: *mut Self::Raw) -> Self::Raw;
        unsafe fn redirty(entry: *mut Self::Raw) -> Self::Raw;
        unsafe fn take(vma: *mut vm_area_struct, addr: usize, entry: *mut Self::Raw) -> Self::Raw;

        unsafe fn track(entry: *mut Self::Raw) -> Self::Raw;
        unsafe fn untrack(entry: *mut Self::Raw, old: Self::Raw) -> bool;
        unsafe fn is_pinned(vma: *mut vm_area_struct, addr: usize, leaf: Self::Raw) -> bool;
        unsafe fn mksoft_dirty(mm: *mut mm_struct, addr: usize, entry: *mut Self::Raw);
        /// Of an entry that is not present, of which there is none of PUD size. Whether it was
        /// soft-dirty.
        unsafe fn track_nonpresent(
            _mm: *mut mm_struct,
            _addr: usize,
            _entry: *mut Self::Raw,
            _keep_write: bool,
        ) -> bool {
            false
        }

        unsafe fn protect(
            vma: *mut vm_area_struct,
            addr: usize,
            entry: *mut Self::Raw,
            prot: usize,
            upgrade: bool,
        ) -> u32;
        /// Of such an entry, which comes back writable.
        unsafe fn protect_nonpresent(
            _vma: *mut vm_area_struct,
            _addr: usize,
            _entry: *mut Self::Raw,
        ) {
        }
    }
}

/// Functions that compute on a value alone.
macro_rules! of_value {
    ($($fn:ident -> $ret:ty => $helper:ident;)+) => {
        $(
            #[inline(always)]
            fn $fn(raw: Self::Raw) -> $ret {
                // SAFETY: The function computes on the value alone.
                unsafe { bindings::$helper(raw) }
            }
        )+
    };
}

/// Functions for an entry whose lock is held.
macro_rules! of_entry {
    ($($fn:ident($($arg:ident: $ty:ty),+) -> $ret:ty => $helper:ident;)*) => {
        $(
            /// # Safety
            ///
            /// As the trait says.
            #[inline(always)]
            unsafe fn $fn($($arg: $ty),+) -> $ret {
                // SAFETY: By this function's safety requirements.
                unsafe { bindings::$helper($($arg),+) }
            }
        )*
    };
}

impl raw::Level for PteLevel {
    type Raw = bindings::pte_t;

    const SIZE: usize = PAGE_SIZE;

    of_value! {
        present -> bool => mmops_pte_present;
        write -> bool => mmops_pte_write;
        dirty -> bool => mmops_pte_dirty;
        young -> bool => mmops_pte_young;
        soft_dirty -> bool => mmops_pte_soft_dirty;
        special -> bool => mmops_pte_special;
        pfn -> usize => mmops_pte_pfn;
        leaf_state -> u32 => mmops_pte_leaf_state;
        softleaf -> usize => mmops_pte_softleaf;
        softleaf_type -> u32 => mmops_pte_softleaf_type;
        softleaf_state -> u32 => mmops_pte_softleaf_state;
    }
}

macro_rules! huge_level {
    (
        $level:ident, $raw:ident, $size:ident, $by_level:ident;
        $present:ident $write:ident $dirty:ident $young:ident $soft_dirty:ident $special:ident
        $pfn:ident $leaf_state:ident;
        { $($softleaf:tt)* }
        $get:ident $wrprotect:ident $mkold:ident $mkclean:ident $redirty:ident
        $take:ident $track:ident $untrack:ident $is_pinned:ident $mksoft_dirty:ident $protect:ident;
        $($nonpresent:tt)*
    ) => {
        impl raw::Level for $level {
            type Raw = bindings::$raw;

            const SIZE: usize = $size;

            of_value! {
                present -> bool => $present;
                write -> bool => $write;
                dirty -> bool => $dirty;
                young -> bool => $young;
                soft_dirty -> bool => $soft_dirty;
                special -> bool => $special;
                pfn -> usize => $pfn;
                leaf_state -> u32 => $leaf_state;
                $($softleaf)*
            }
        }

        impl raw::HugeLevel for $level {
            #[inline(always)]
            fn by_level<'a, 't, 's>(leaf: &'a mut Leaf<'t, 's, Self>) -> ByLevel<'a, 't, 's> {
                ByLevel::$by_level(leaf)
            }

            of_entry! {
                get(entry: *mut Self::Raw) -> Self::Raw => $get;
                wrprotect(entry: *mut Self::Raw) -> Self::Raw => $wrprotect;
                mkold(entry: *mut Self::Raw) -> Self::Raw => $mkold;
                mkclean(entry: *mut Self::Raw) -> Self::Raw => $mkclean;
                redirty(entry: *mut Self::Raw) -> Self::Raw => $redirty;
                take(
                    vma: *mut bindings::vm_area_struct, addr: usize, entry: *mut Self::Raw
                ) -> Self::Raw => $take;
                track(entry: *mut Self::Raw) -> Self::Raw => $track;
                untrack(entry: *mut Self::Raw, old: Self::Raw) -> bool => $untrack;
                is_pinned(
                    vma: *mut bindings::vm_area_struct, addr: usize, leaf: Self::Raw
                ) -> bool => $is_pinned;
                mksoft_dirty(
                    mm: *mut bindings::mm_struct, addr: usize, entry: *mut Self::Raw
                ) -> () => $mksoft_dirty;
                protect(
                    vma: *mut bindings::vm_area_struct, addr: usize, entry: *mut Self::Raw,
                    prot: usize, upgrade: bool
                ) -> u32 => $protect;
            }

            of_entry! { $($nonpresent)* }
        }
    };
}

huge_level! {
    PmdLevel, pmd_t, PMD_SIZE, Pmd;
    mmops_pmd_present mmops_pmd_write mmops_pmd_dirty mmops_pmd_young mmops_pmd_soft_dirty
    mmops_pmd_special mmops_pmd_pfn mmops_pmd_leaf_state;
    {
        softleaf -> usize => mmops_pmd_softleaf;
        softleaf_type -> u32 => mmops_pmd_softleaf_type;
        softleaf_state -> u32 => mmops_pmd_softleaf_state;
    }
    mmops_pmdp_get_lockless mmops_pmdp_wrprotect mmops_pmdp_mkold mmops_pmdp_mkclean
    mmops_pmdp_redirty mmops_pmdp_get_and_clear
    mmops_pmdp_track mmops_pmdp_untrack mmops_pmd_is_pinned mmops_pmdp_mksoft_dirty
    mmops_pmdp_protect;

    track_nonpresent(
        mm: *mut bindings::mm_struct, addr: usize, entry: *mut Self::Raw, keep_write: bool
    ) -> bool => mmops_pmdp_track_nonpresent;
    protect_nonpresent(
        vma: *mut bindings::vm_area_struct, addr: usize, entry: *mut Self::Raw
    ) -> () => mmops_pmdp_protect_softleaf;
}

// Of this size only present leaves are leaves.
huge_level! {
    PudLevel, pud_t, PUD_SIZE, Pud;
    mmops_pud_present mmops_pud_write mmops_pud_dirty mmops_pud_young mmops_pud_soft_dirty
    mmops_pud_special mmops_pud_pfn mmops_pud_leaf_state;
    {}
    mmops_pudp_get mmops_pudp_wrprotect mmops_pudp_mkold mmops_pudp_mkclean
    mmops_pudp_redirty mmops_pudp_get_and_clear
    mmops_pudp_track mmops_pudp_untrack mmops_pud_is_pinned mmops_pudp_mksoft_dirty
    mmops_pudp_protect;
}
