// SPDX-License-Identifier: GPL-2.0

//! Locked entries whose pages are pinned for DMA.

use super::{
    EntrySet,
    PmdLeaf,
    PteTable,
    PudLeaf, //
};
use crate::{
    bindings,
    walk::Vma, //
};

impl Vma<'_> {
    /// Whether memory of this mm was ever pinned for DMA. The answer is for good once it is yes.
    #[inline(always)]
    pub(crate) fn may_have_pins(&self) -> bool {
        // SAFETY: By the type invariants the VMA is valid, and so is its mm.
        unsafe { bindings::mmops_mm_has_pins(self.mm_ptr()) }
    }
}

impl PteTable<'_, '_> {
    /// The present entries whose page may be pinned for DMA. Special ones are not asked about.
    ///
    /// All pages of a large folio count as pinned if one is, and so does one with 1024 references.
    ///
    /// Source: `folio_maybe_dma_pinned()`.
    #[inline(never)]
    pub(crate) fn pinned(&self) -> EntrySet {
        let mut pinned = EntrySet::EMPTY;

        for i in 0..self.nr() {
            let value = self.value(i);

            if !value.present() || value.special() {
                continue;
            }
            // SAFETY: The entry is present and not special, and its lock is held.
            if unsafe { bindings::mmops_pfn_is_pinned(value.pfn()) } {
                pinned.insert(i);
            }
        }
        pinned
    }
}

macro_rules! is_pinned {
    ($name:ident) => {
        impl $name<'_, '_> {
            /// Whether a page of the leaf may be pinned for DMA; see [`PteTable::pinned`].
            pub(crate) fn is_pinned(&self) -> bool {
                let value = self.value();

                self.vma().may_have_pins()
                    && value.present()
                    && !value.special()
                    // SAFETY: The leaf is present and not special, and its lock is held.
                    && unsafe { bindings::mmops_pfn_is_pinned(value.pfn()) }
            }
        }
    };
}

is_pinned!(PmdLeaf);
is_pinned!(PudLeaf);
