// SPDX-License-Identifier: GPL-2.0

//! Leaves of PMD and PUD size, under their page-table lock.

use super::{
    level::{
        ByLevel,
        HugeLevel,
        PmdLevel,
        PudLevel, //
    },
    Entry, //
};
use crate::{
    bindings,
    filemap,
    gather::LockedGather,
    range::{
        PageRange,
        PMD_SIZE, //
    },
    tlb::{
        FlushScope,
        ScopeBrand, //
    },
    vma::{
        LockHeld,
        Vma, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// What a leaf held whose dirty bit was taken.
pub(crate) struct TakenLeaf {
    /// First page frame number.
    pub(crate) pfn: usize,
    /// No folio that mm manages is mapped.
    pub(crate) special: bool,
}

/// A huge leaf, locked; or, at the level of PMDs, a non-present entry in the place of one.
///
/// # Invariants
///
/// `entry` is a leaf, or a non-present entry in the place of one, of `vma`, and maps `leaf_addr`;
/// its lock is held for `'t`. `addr..end` is the part that the walk covers.
pub struct Leaf<'t, 's, L: HugeLevel> {
    entry: NonNull<L::Raw>,
    addr: usize,
    end: usize,
    vma: Vma<'t>,
    _brand: ScopeBrand<'s>,
}

/// A leaf of PMD size (2 MiB), or a non-present entry in the place of one.
pub type PmdLeaf<'t, 's> = Leaf<'t, 's, PmdLevel>;

/// A leaf of PUD size (1 GiB).
pub type PudLeaf<'t, 's> = Leaf<'t, 's, PudLevel>;

// SAFETY: By the type invariants the lock is held.
unsafe impl<'t, L: HugeLevel> LockHeld<'t> for Leaf<'t, '_, L> {
    fn vma(&self) -> Vma<'t> {
        self.vma
    }
}

impl<'t, 's, L: HugeLevel> Leaf<'t, 's, L> {
    /// Bytes that the leaf maps.
    pub const SIZE: usize = L::SIZE;

    /// Base pages that the leaf maps.
    pub const PAGES: usize = L::SIZE >> PAGE_SHIFT;

    /// # Safety
    ///
    /// The type invariants hold for as long as `'t`.
    #[inline]
    pub(crate) unsafe fn new(
        entry: NonNull<L::Raw>,
        addr: usize,
        end: usize,
        vma: Vma<'t>,
    ) -> Self {
        // INVARIANT: By the function's safety requirements.
        Self {
            entry,
            addr,
            end,
            vma,
            _brand: PhantomData,
        }
    }

    /// The leaf as one of the level that it has.
    #[inline(always)]
    pub fn by_level(&mut self) -> ByLevel<'_, 't, 's> {
        L::by_level(self)
    }

    /// The VMA that the leaf belongs to.
    #[inline]
    pub fn vma(&self) -> Vma<'t> {
        self.vma
    }

    /// The place of the entry.
    #[inline(always)]
    pub(crate) fn entry_ptr(&self) -> *mut L::Raw {
        self.entry.as_ptr()
    }

    /// First address that the leaf maps.
    #[inline]
    pub fn leaf_addr(&self) -> usize {
        self.addr & !(L::SIZE - 1)
    }

    /// First address of the part of the leaf that the walk covers.
    #[inline]
    pub fn addr(&self) -> usize {
        self.addr
    }

    /// First address behind the part of the leaf that the walk covers.
    #[inline]
    pub fn end(&self) -> usize {
        self.end
    }

    /// Whether the walk covers only a part of the leaf.
    #[inline]
    pub fn is_partial(&self) -> bool {
        self.end - self.addr != L::SIZE
    }

    /// Page offsets of the part of the leaf that the walk covers.
    ///
    /// # Errors
    ///
    /// None for a leaf that a walk gives; `EINVAL` would mean an overflow.
    #[inline]
    pub fn pages(&self) -> Result<PageRange> {
        PageRange::new(
            self.vma.pgoff_of(self.addr),
            (self.end - self.addr) >> PAGE_SHIFT,
        )
    }

    /// Whether the entry is a non-present one in the place of a leaf. There is none of PUD size.
    #[inline]
    pub fn is_softleaf(&self) -> bool {
        !self.value().present()
    }

    /// The value of the entry now; the CPU may set its accessed and dirty bit at any time.
    #[inline]
    pub fn value(&self) -> Entry<L> {
        // SAFETY: By the type invariants the entry is valid.
        Entry::from_raw(unsafe { L::get(self.entry_ptr()) })
    }

    /// Replaces the entry of a present leaf by `change`, which returns the old one; the scope
    /// flushes what it maps. `None` if the entry is not present, and nothing was done.
    #[inline]
    fn update(
        &mut self,
        scope: &mut FlushScope<'s>,
        change: impl FnOnce(*mut L::Raw) -> L::Raw,
    ) -> Option<Entry<L>> {
        if !self.value().present() {
            return None;
        }

        let old = change(self.entry_ptr());

        self.record(scope);
        Some(Entry::from_raw(old))
    }

    /// Removes the write permission of a present leaf; the dirty state stays. Returns the old
    /// value; `None` if the entry is not present, and nothing was done.
    ///
    /// In place and atomic: the entry is never left cleared.
    ///
    /// The next store faults. A fault on a leaf of page frames (its value is `special()`) in a
    /// shared VMA is left to the driver that mapped it, and where its `huge_fault` does nothing
    /// about a leaf that is there, as that of `vfio-pci`, the CPU faults for ever. A walk that does
    /// not know the driver has such a leaf replaced
    /// ([`Action::Replace`](crate::walk::Action::Replace)), or leaves it alone.
    ///
    /// Source: `wp_huge_pmd()`, `wp_huge_pud()`.
    #[inline]
    pub fn wrprotect(&mut self, scope: &mut FlushScope<'s>) -> Option<Entry<L>> {
        // SAFETY: By the type invariants the entry is valid and its lock is held.
        self.update(scope, |entry| unsafe { L::wrprotect(entry) })
    }

    /// Removes the accessed bit of a present leaf. Returns the old value; `None` if the entry is
    /// not present, and nothing was done.
    #[inline]
    pub fn mkold(&mut self, scope: &mut FlushScope<'s>) -> Option<Entry<L>> {
        // SAFETY: By the type invariants the entry is valid and its lock is held.
        self.update(scope, |entry| unsafe { L::mkold(entry) })
    }

    /// Removes the dirty bit of a present leaf, and tells who tracks the file; the write permission
    /// stays. Returns the old value; `None` if the entry is not present, and nothing was done.
    ///
    /// # Safety
    ///
    /// As [`LockedPte::mkclean`](super::LockedPte::mkclean).
    #[inline]
    #[must_use = "the dirty bit is lost unless it is recorded"]
    pub(crate) unsafe fn mkclean(&mut self, scope: &mut FlushScope<'s>) -> Option<Entry<L>> {
        // SAFETY: By the type invariants the entry is valid and its lock is held.
        let old = self.update(scope, |entry| unsafe { L::mkclean(entry) })?;

        if old.dirty() {
            self.tell_stored();
        }
        Some(old)
    }

    /// Tells who tracks the file that the pages of the leaf were, or could be, stored to.
    #[inline]
    pub(crate) fn tell_stored(&self) {
        if filemap::is_watched() {
            let first = self.vma.pgoff_of(self.leaf_addr());

            filemap::stored(self.vma, first, L::SIZE >> PAGE_SHIFT);
        }
    }

    /// Notes that the leaf has lost a permission.
    #[inline]
    pub(crate) fn record(&self, scope: &mut FlushScope<'s>) {
        scope.record_leaves(self.leaf_addr(), L::SIZE, L::SIZE);
    }

    /// As [`Self::mkclean`]; `None` if the leaf was not dirty.
    ///
    /// # Safety
    ///
    /// As [`Self::mkclean`].
    #[must_use = "the dirty bit is lost unless it is recorded"]
    pub(crate) unsafe fn clean(&mut self, scope: &mut FlushScope<'s>) -> Option<TakenLeaf> {
        // SAFETY: By this function's safety requirements.
        let old = unsafe { self.mkclean(scope)? };

        old.dirty().then(|| TakenLeaf {
            pfn: old.pfn(),
            special: old.special(),
        })
    }

    /// Takes the leaf, or the non-present entry in its place, out of the page tables.
    ///
    /// What it mapped stays referenced, charged and in rmap, and a deposited table stays where it
    /// is: the caller hands all that over to `gather`.
    ///
    /// # Safety
    ///
    /// The leaf is not used again, but for [`PmdLeaf::free_deposited_table`].
    ///
    /// Source: `zap_huge_pmd()`, `zap_huge_pud()`.
    #[must_use = "the memory that the leaf mapped is leaked"]
    pub(crate) unsafe fn take(&mut self, gather: &mut LockedGather<'_, '_, '_>) -> Entry<L> {
        let addr = self.leaf_addr();

        gather.add_leaf(addr, L::SIZE);
        // SAFETY: By the type invariants the entry is valid and its lock is held.
        Entry::from_raw(unsafe { L::take(self.vma.as_ptr(), addr, self.entry_ptr()) })
    }

    /// Whether the leaf can be replaced by a PTE table that maps the same pages: it is of PMD size
    /// and maps a folio of the page cache. Not so for DAX, a PFN map, and an entry that is not
    /// present.
    pub fn can_split(&self) -> bool {
        let value = self.value();

        L::SIZE == PMD_SIZE && value.present() && !value.special() && self.vma.has_page_cache()
    }
}

impl PmdLeaf<'_, '_> {
    /// Frees the PTE table that was deposited for the leaf.
    ///
    /// # Safety
    ///
    /// The leaf was just taken, and a table was deposited when it was made.
    pub(crate) unsafe fn free_deposited_table(&mut self) {
        // SAFETY: By this function's safety requirements; the lock is held by the type invariants.
        unsafe {
            bindings::mmops_free_deposited_table(self.vma.mm_ptr(), self.entry_ptr());
        }
    }

    /// As [`Self::can_split`], or the leaf is one of a PFN map: all that a walk can replace.
    #[inline(never)]
    pub(crate) fn is_replaceable(&self) -> bool {
        let value = self.value();

        if !value.present() || !(self.vma.has_page_cache() || self.vma.is_pfn_map()) {
            return false;
        }
        // SAFETY: A present leaf that is not special maps a folio, and its lock is held.
        value.special()
            || !unsafe { bindings::mmops_folio_test_anon(bindings::mmops_pfn_folio(value.pfn())) }
    }
}

/// Consecutive entries of one PMD table, locked: all entries of such a table have the same lock.
///
/// # Invariants
///
/// `pmdp` points to `nr` entries of one table, the first of which maps `addr` in `vma`, and all of
/// what they map lies in the range of the walk; the table's lock is held for `'t`. The first entry
/// is a leaf, or a non-present entry in the place of one.
pub struct PmdTable<'t, 's> {
    pmdp: NonNull<bindings::pmd_t>,
    addr: usize,
    nr: usize,
    vma: Vma<'t>,
    _brand: ScopeBrand<'s>,
}

impl<'t, 's> PmdTable<'t, 's> {
    /// # Safety
    ///
    /// The type invariants hold for as long as `'t`, and nothing else refers to the entries as
    /// locked.
    pub(crate) unsafe fn new(
        pmdp: NonNull<bindings::pmd_t>,
        addr: usize,
        nr: usize,
        vma: Vma<'t>,
    ) -> Self {
        // INVARIANT: By the function's safety requirements.
        Self {
            pmdp,
            addr,
            nr,
            vma,
            _brand: PhantomData,
        }
    }

    /// Address that the first entry maps.
    pub fn addr(&self) -> usize {
        self.addr
    }

    /// The VMA that the entries belong to.
    pub fn vma(&self) -> Vma<'t> {
        self.vma
    }

    /// Calls `f` with each entry up to the first that is neither a leaf nor in the place of one;
    /// returns the number of entries before that.
    #[inline(always)]
    pub fn for_each_leaf(&mut self, mut f: impl FnMut(&mut PmdLeaf<'t, 's>)) -> usize {
        for i in 0..self.nr {
            let addr = self.addr + i * PMD_SIZE;
            // SAFETY: By the type invariants the table has that many entries.
            let entry = unsafe { self.pmdp.add(i) };

            // SAFETY: By the type invariants the entry is valid.
            if !unsafe {
                bindings::mmops_pmd_is_huge(bindings::mmops_pmdp_get_lockless(entry.as_ptr()))
            } {
                return i;
            }
            // SAFETY: The entry is a leaf, or in the place of one, and all else is by the type
            // invariants; the caller cannot keep the reference.
            f(&mut unsafe { PmdLeaf::new(entry, addr, addr + PMD_SIZE, self.vma) });
        }
        self.nr
    }
}
