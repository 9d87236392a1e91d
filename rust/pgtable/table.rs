// SPDX-License-Identifier: GPL-2.0

//! The part of a PTE table that a walk covers, under its page-table lock.

use super::{
    EntrySet,
    Pte,
    GROUP, //
};
use crate::{
    bindings,
    gather::LockedGather,
    range::PMD_SIZE,
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
    cmp,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::page::PAGE_SHIFT;

/// Groups of [`GROUP`] entries of one PTE table.
#[derive(Clone, Copy)]
pub(crate) struct Groups(u64);

const _: () = assert!((PMD_SIZE >> PAGE_SHIFT).div_ceil(GROUP) <= u64::BITS as usize);

impl Groups {
    const NONE: Self = Self(0);

    /// Whether the group of entry `i` is one of them.
    #[inline(always)]
    pub(crate) fn has(self, i: usize) -> bool {
        self.0 >> (i / GROUP % u64::BITS as usize) & 1 != 0
    }

    /// The groups that are in one of both.
    #[inline(always)]
    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[inline(always)]
    fn insert_if(&mut self, i: usize, condition: bool) {
        self.0 |= u64::from(condition) << (i / GROUP % u64::BITS as usize);
    }
}

/// What a look at all entries of a table has found.
pub(crate) struct Scan {
    /// Groups that may have dirty entries; all others have none.
    pub(crate) dirty: Groups,
    /// Groups that may have writable entries; all others have none.
    pub(crate) writable: Groups,
    /// Whole groups in which each entry is present, and none is special.
    pub(crate) mapped: Groups,
}

/// Consecutive entries of one PTE table, locked.
///
/// `'s` ties the table to the [`FlushScope`] of the VMA that it belongs to: an entry cannot be
/// changed against the scope of another walk.
///
/// # Invariants
///
/// `ptep` points to `nr` entries of one table, the first of which maps `addr` in `vma`; the table's
/// lock is held for `'t`.
pub struct PteTable<'t, 's> {
    ptep: NonNull<bindings::pte_t>,
    addr: usize,
    nr: usize,
    vma: Vma<'t>,
    _brand: ScopeBrand<'s>,
}

// SAFETY: By the type invariants the lock is held.
unsafe impl<'t> LockHeld<'t> for PteTable<'t, '_> {
    fn vma(&self) -> Vma<'t> {
        self.vma
    }
}

impl<'t, 's> PteTable<'t, 's> {
    /// # Safety
    ///
    /// The type invariants hold for as long as `'t`, and nothing else refers to the entries as
    /// locked.
    #[inline(always)]
    pub(crate) unsafe fn new(
        ptep: NonNull<bindings::pte_t>,
        addr: usize,
        nr: usize,
        vma: Vma<'t>,
    ) -> Self {
        // INVARIANT: By the function's safety requirements.
        Self {
            ptep,
            addr,
            nr,
            vma,
            _brand: PhantomData,
        }
    }

    /// Address that the first entry maps.
    #[inline]
    pub fn addr(&self) -> usize {
        self.addr
    }

    /// Number of entries, from 1 to a whole table.
    #[inline]
    pub fn nr(&self) -> usize {
        self.nr
    }

    /// The VMA that the entries belong to.
    #[inline]
    pub fn vma(&self) -> Vma<'t> {
        self.vma
    }

    /// Page offset, in the VMA's address space, of the first entry.
    #[inline]
    pub fn pgoff(&self) -> usize {
        self.vma.pgoff_of(self.addr)
    }

    /// Calls `f` with the address and the value of each entry, present or not.
    #[inline(always)]
    pub fn for_each(&self, mut f: impl FnMut(usize, Pte)) {
        for i in 0..self.nr {
            f(self.addr + (i << PAGE_SHIFT), self.value(i));
        }
    }

    /// Calls `f` with the index, from 0 to [`Self::nr`], of each present entry that `select`
    /// chooses, and a reference through which it can be changed.
    ///
    /// `select` has to be a pure question about single bits ([`Pte::dirty`], [`Pte::rw`]): it is
    /// first asked of a group of entries at once, so that a table in which nothing is to be done
    /// costs little more than the reading of it.
    #[inline(always)]
    pub fn for_each_selected(
        &mut self,
        scope: &mut FlushScope<'s>,
        select: impl Fn(Pte) -> bool,
        f: impl FnMut(usize, LockedPte<'_, 's>),
    ) {
        self.for_each_of(None, scope, select, f)
    }

    /// As [`Self::for_each_selected`], without its look at the groups where [`Self::scan`] has told
    /// which have such entries.
    #[inline(always)]
    pub(crate) fn for_each_of(
        &mut self,
        groups: Option<Groups>,
        scope: &mut FlushScope<'s>,
        select: impl Fn(Pte) -> bool,
        mut f: impl FnMut(usize, LockedPte<'_, 's>),
    ) {
        let mut start = 0;
        // First entry that was handed out, and the one behind the last.
        let (mut first, mut behind) = (self.nr, 0);
        // All of the last group were chosen, so the next is likely to have some.
        let mut dense = false;

        while start < self.nr {
            let end = cmp::min(start + GROUP, self.nr);

            if !dense && end - start == GROUP {
                let has_any = match groups {
                    Some(groups) => groups.has(start),
                    None => {
                        let mut any = false;

                        for i in start..start + GROUP {
                            // SAFETY: `end` is at most `nr`.
                            any |= select(unsafe { self.hint(i) });
                        }
                        any
                    }
                };

                if !has_any {
                    start = end;
                    continue;
                }
            }
            dense = true;
            while start < end {
                // SAFETY: `end` is at most `nr`.
                let value = unsafe { self.hint(start) };

                // A non-present entry keeps other things in the bits that are asked for.
                if select(value) && value.present() {
                    first = cmp::min(first, start);
                    behind = start + 1;
                    f(
                        start,
                        // INVARIANT: The entry is present, and the lock of the table is held.
                        LockedPte {
                            // SAFETY: As above.
                            ptep: unsafe { self.ptep_at(start) },
                            value,
                            // An address of the VMA; a check would cost for each entry.
                            addr: self.addr.wrapping_add(start << PAGE_SHIFT),
                            _brand: PhantomData,
                        },
                    );
                } else {
                    dense = false;
                }
                start += 1;
            }
        }

        // Once for the table, and not once for an entry: the scope outlives the lock of the table,
        // and its flush covers from the first to the last.
        if first < behind {
            scope.record(
                self.addr + (first << PAGE_SHIFT),
                (behind - first) << PAGE_SHIFT,
            );
        }
    }

    /// Looks at all entries once, in groups. An entry may get accessed and dirty bits meanwhile. Of
    /// dirty and writable groups there may be more than there are such entries; none is missed.
    #[inline(always)]
    pub(crate) fn scan(&self) -> Scan {
        let mut scan = Scan {
            dirty: Groups::NONE,
            writable: Groups::NONE,
            mapped: Groups::NONE,
        };
        let mut start = 0;

        while start + GROUP <= self.nr {
            // SAFETY: The table has all of the group.
            let first = unsafe { self.hint(start) };
            let (mut common, mut union) = (first, first);

            for i in start + 1..start + GROUP {
                // SAFETY: As above.
                let value = unsafe { self.hint(i) };

                common = common.common(value);
                union = union.union(value);
            }
            scan.dirty.insert_if(start, union.dirty());
            scan.writable.insert_if(start, union.write());
            scan.mapped
                .insert_if(start, common.present() && !union.special());
            start += GROUP;
        }
        if start < self.nr {
            scan.dirty.insert_if(start, true);
            scan.writable.insert_if(start, true);
        }
        scan
    }

    /// Calls `f` with the index and the value of each entry of `set`. Indices that the table has
    /// not are ignored.
    #[inline(always)]
    pub(crate) fn for_each_in(&self, set: &EntrySet, mut f: impl FnMut(usize, Pte)) {
        set.for_each(|i| {
            if i < self.nr {
                // SAFETY: The table has the entry.
                f(i, unsafe { self.hint(i) });
            }
        });
    }

    /// Notes all entries in the scope from the first that is present to the last: a CPU may hold
    /// translations that are older than what the entries are now.
    #[inline(always)]
    pub(crate) fn record_present(&self, scope: &mut FlushScope<'s>) {
        let is_present = |&i: &usize| self.value(i).present();

        if let Some(first) = (0..self.nr).find(is_present) {
            let last = (first..self.nr).rfind(is_present).unwrap_or(first);

            scope.record(self.addr_of(first), (last - first + 1) << PAGE_SHIFT);
        }
    }

    /// Whether each of `nr` entries from index `i` on maps a folio that is dirty as a whole. If one
    /// is special or not present, or the table has not as many, no is the answer.
    #[inline(never)]
    #[link_section = ".text.hot"]
    pub(crate) fn maps_dirty_folios(&self, i: usize, nr: usize) -> bool {
        if i >= self.nr || nr > self.nr - i {
            return false;
        }
        // SAFETY: The table has the entries, and by the type invariants their lock is held.
        unsafe { bindings::mmops_ptes_map_dirty_folios(self.ptep_at(i).as_ptr(), nr as u32) }
    }

    /// Takes `nr` present entries from index `i` on, which map consecutive pages of one folio, out
    /// of the table. Returns the first, young or dirty if any of them was.
    ///
    /// What they mapped stays referenced and, but for special entries, charged and in rmap: the
    /// caller hands all that over to `gather`.
    ///
    /// # Safety
    ///
    /// The table has the entries, and they map so.
    ///
    /// Source: `get_and_clear_full_ptes()`.
    #[inline(always)]
    #[must_use = "the pages that the entries mapped are leaked"]
    pub(crate) unsafe fn take(
        &mut self,
        i: usize,
        nr: usize,
        gather: &mut LockedGather<'_, '_, '_>,
    ) -> Pte {
        let addr = self.addr_of(i);

        debug_assert!(nr > 0 && i + nr <= self.nr);
        gather.add_ptes(addr, nr << PAGE_SHIFT);
        // SAFETY: By this function's safety requirements the entries are valid; by the type
        // invariants their lock is held.
        Pte::from_raw(unsafe {
            bindings::mmops_ptes_get_and_clear(
                self.vma.mm_ptr(),
                addr,
                self.ptep_at(i).as_ptr(),
                nr as u32,
            )
        })
    }

    /// Takes `nr` entries that are not present, from index `i` on, out of the table. The TLB knows
    /// nothing of them.
    ///
    /// What they stand for is the caller's from now on.
    ///
    /// # Safety
    ///
    /// The table has the entries, and none of them is present.
    #[inline]
    pub(crate) unsafe fn take_nonpresent(
        &mut self,
        i: usize,
        nr: usize,
        _gather: &mut LockedGather<'_, '_, '_>,
    ) {
        debug_assert!(nr > 0 && i + nr <= self.nr);
        // SAFETY: As for `take`.
        unsafe {
            bindings::mmops_ptes_clear_nonpresent(
                self.vma.mm_ptr(),
                self.addr_of(i),
                self.ptep_at(i).as_ptr(),
                nr as u32,
            )
        };
    }

    /// Address that entry `i` maps.
    #[inline(always)]
    pub(crate) fn addr_of(&self, i: usize) -> usize {
        self.addr + (i << PAGE_SHIFT)
    }

    /// The place of entry `i`; not to be used if the table has none.
    #[inline(always)]
    pub(crate) fn entry_ptr(&self, i: usize) -> *mut bindings::pte_t {
        self.ptep.as_ptr().wrapping_add(i)
    }

    /// As [`Self::value`], in a form that costs one load.
    ///
    /// An architecture may keep accessed and dirty bits of an entry in its neighbours (arm64's
    /// contiguous entries). So this is for questions whose answer is asked again, and for a value
    /// that an atomic exchange compares.
    ///
    /// # Safety
    ///
    /// `i` is less than [`Self::nr`].
    #[inline(always)]
    pub(crate) unsafe fn hint(&self, i: usize) -> Pte {
        // SAFETY: By this function's safety requirements; the CPU may change the entry meanwhile.
        Pte::from_raw(unsafe { self.ptep_at(i).as_ptr().read_volatile() })
    }

    /// The value of entry `i` as it is now; that of an entry that is none, if the table has not as
    /// many.
    #[inline(always)]
    pub(crate) fn value(&self, i: usize) -> Pte {
        if i >= self.nr {
            return Pte::NONE;
        }
        // SAFETY: The table has the entry.
        Pte::from_raw(unsafe { bindings::mmops_ptep_get(self.ptep_at(i).as_ptr()) })
    }

    /// # Safety
    ///
    /// `i` is less than [`Self::nr`].
    #[inline(always)]
    pub(super) unsafe fn ptep_at(&self, i: usize) -> NonNull<bindings::pte_t> {
        // SAFETY: By the type invariants there are `nr` entries, and `i` is less.
        unsafe { self.ptep.add(i) }
    }
}

/// One present PTE, under its page-table lock. The table notes it in the scope when it hands it
/// out.
///
/// # Invariants
///
/// `ptep` points to a present entry whose table's lock is held for `'a`, and maps `addr` in the
/// VMA of the scope `'s`.
pub struct LockedPte<'a, 's> {
    ptep: NonNull<bindings::pte_t>,
    /// What the entry was a moment ago.
    value: Pte,
    addr: usize,
    _brand: PhantomData<(&'a bindings::pte_t, ScopeBrand<'s>)>,
}

impl LockedPte<'_, '_> {
    /// Address that the entry maps.
    #[inline(always)]
    pub fn addr(&self) -> usize {
        self.addr
    }

    /// Removes the write permission; the dirty state stays in the entry. Returns the old value.
    ///
    /// Source: `ptep_set_wrprotect()`.
    #[inline(always)]
    pub fn wrprotect(self) -> Pte {
        // SAFETY: By the type invariants the entry is valid and its lock is held.
        Pte::from_raw(unsafe { bindings::mmops_ptep_wrprotect(self.ptep.as_ptr(), self.value.0) })
    }

    /// Removes the accessed bit. Returns the old value.
    ///
    /// Source: `ptep_test_and_clear_young()`.
    #[inline(always)]
    pub fn mkold(self) -> Pte {
        // SAFETY: By the type invariants the entry is valid and its lock is held.
        Pte::from_raw(unsafe { bindings::mmops_ptep_mkold(self.ptep.as_ptr(), self.value.0) })
    }

    /// Removes the dirty bit; the write permission stays. Returns the old value.
    ///
    /// # Safety
    ///
    /// If the old value is dirty, the caller is now the only one who knows that the page was
    /// stored to: it marks the folio dirty after the flush, unless the data is written back
    /// otherwise. [`PteTable::take_dirty`] does.
    ///
    /// Source: `clean_record_pte()`.
    #[inline(always)]
    #[must_use = "the dirty bit is lost unless it is recorded"]
    pub(crate) unsafe fn mkclean(self) -> Pte {
        // SAFETY: By the type invariants the entry is valid and its lock is held.
        Pte::from_raw(unsafe { bindings::mmops_ptep_mkclean(self.ptep.as_ptr(), self.value.0) })
    }
}
