// SPDX-License-Identifier: GPL-2.0

//! Soft-dirty bits of locked entries.
//!
//! To clear the bit means to take the write permission as well, so that the next store faults and
//! sets it again. That owes a flush, so it needs a [`FlushScope`]. To set the bit owes nothing.

use crate::{
    bindings,
    faults,
    pgtable::{
        ByLevel,
        Entry,
        HugeLevel,
        Leaf,
        Markers,
        MigrationAccess,
        Pte,
        PteTable,
        SoftLeaf, //
    },
    tlb::FlushScope, //
};
use core::cmp;
use kernel::page::PAGE_SHIFT;

/// Entries that are looked at together before any is looked at alone.
const GROUP: usize = 8;

fn is_writable_migration(value: Pte) -> bool {
    matches!(
        value.soft_leaf(),
        Some(SoftLeaf::Migration {
            access: MigrationAccess::Write,
            ..
        })
    )
}

fn is_uffd_marker(value: Pte) -> bool {
    matches!(
        value.soft_leaf(),
        Some(SoftLeaf::Marker(Markers { uffd_wp: true, .. }))
    )
}

/// What became of entries whose soft-dirty bit was to be cleared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Base pages whose bit was set and is clear now.
    pub cleared: usize,
    /// Base pages that are soft-dirty now, whether they were or not: they are pinned, and a device
    /// may store to them at any time.
    pub kept: usize,
}

impl Cleared {
    fn whole(was_soft_dirty: bool, nr: usize) -> Self {
        Self {
            cleared: if was_soft_dirty { nr } else { 0 },
            kept: 0,
        }
    }

    fn kept(nr: usize) -> Self {
        Self {
            cleared: 0,
            kept: nr,
        }
    }
}

impl<'s> PteTable<'_, 's> {
    /// Clears the soft-dirty bit of all entries, present or not, and takes their write permission.
    ///
    /// - Present: in one atomic exchange, so that no dirty bit is lost; uffd-wp stays. Noted in the
    ///   scope only if the entry was writable.
    /// - Writable migration or device-private entry: becomes a readable one. C leaves it, and then
    ///   a store goes unseen after the page has come back.
    /// - Page that is pinned (`pin_user_pages()`): is soft-dirty, and writable if it was. In
    ///   private and in shared mappings, and whether its entry is writable or not: it may have been
    ///   when the page was pinned.
    ///
    /// Whether a page is pinned is asked after the exchange. GUP-fast takes no lock: it pins a page
    /// whose entry is writable, and then looks whether the entry has changed meanwhile. So either
    /// it finds the change, and comes back by a write fault, or the pin is found here. C asks
    /// before, and loses what the device stores if the page is pinned in between.
    ///
    /// A pin is known of pages that the address space itself has pinned, for ever after the first
    /// one. A small folio with 1024 references or more counts as pinned then.
    ///
    /// Source: `clear_soft_dirty()`, `change_softleaf_pte()`, `gup_fast_pte_range()`.
    #[inline(never)]
    pub fn clear_soft_dirty(&mut self, scope: &mut FlushScope<'s>) -> Cleared {
        let has_pins = self.vma().may_have_pins();

        faults::soft_dirty_now();
        if has_pins {
            return self.clear_soft_dirty_pinned(scope);
        }

        let mut result = Cleared::default();
        // First entry that was writable, and the one behind the last.
        let (mut first, mut behind) = (self.nr(), 0);
        // The entry before was chosen, so the next is likely to be.
        let mut dense = false;
        let mut i = 0;

        // SAFETY: The function computes on the value alone.
        let selected = |value: Pte| unsafe { bindings::mmops_pte_tracks_no_store(value.as_raw()) };

        while i < self.nr() {
            if !dense && i + GROUP <= self.nr() {
                let mut any = false;

                for j in i..i + GROUP {
                    // SAFETY: The group ends inside the table.
                    any |= selected(unsafe { self.hint(j) });
                }
                if !any {
                    i += GROUP;
                    continue;
                }
            }

            // What was just stored to, in a loop of its own that is short. Under the lock the CPU
            // changes neither of the bits that are asked for, so they are those of the old value.
            let run = i;

            while i < self.nr() {
                // SAFETY: The table has the entry.
                let value = unsafe { self.hint(i) };

                // SAFETY: The function computes on the value alone.
                if !unsafe { bindings::mmops_pte_is_stored_to(value.as_raw()) } {
                    break;
                }
                // SAFETY: The entry is present, and its lock is held.
                unsafe { bindings::mmops_ptep_track(self.entry_ptr(i), value.as_raw()) };
                i += 1;
            }
            if run < i {
                first = cmp::min(first, run);
                behind = i;
                result.cleared += i - run;
                dense = true;
                if self.may_have_new_pins() {
                    // SAFETY: These entries were just changed, and are present.
                    unsafe { self.keep_first_pins(run, i, &mut result) };
                }
                continue;
            }

            // SAFETY: The table has the entry.
            let value = unsafe { self.hint(i) };

            dense = selected(value);
            // SAFETY: As above; no entry that is none is selected.
            if dense && unsafe { self.clear_soft_dirty_one(i, value, &mut result) } {
                first = cmp::min(first, i);
                behind = i + 1;
            }
            i += 1;
        }

        self.record(scope, first, behind);
        result
    }

    /// As [`Self::clear_soft_dirty`], where pages were pinned before. Any entry may be of one, not
    /// only those that [`Self::clear_soft_dirty`] selects.
    #[cold]
    #[inline(never)]
    fn clear_soft_dirty_pinned(&mut self, scope: &mut FlushScope<'s>) -> Cleared {
        let mut result = Cleared::default();
        let (mut first, mut behind) = (self.nr(), 0);

        for i in 0..self.nr() {
            // SAFETY: The table has the entry.
            let value = unsafe { self.hint(i) };

            // SAFETY: As above; the entry is not none.
            if !value.none() && unsafe { self.clear_soft_dirty_one(i, value, &mut result) } {
                first = cmp::min(first, i);
                behind = i + 1;
            }
        }
        self.record(scope, first, behind);
        result
    }

    /// Notes that the entries from `first` to before `behind` were writable.
    fn record(&self, scope: &mut FlushScope<'s>, first: usize, behind: usize) {
        if first < behind {
            scope.record(
                self.addr() + (first << PAGE_SHIFT),
                (behind - first) << PAGE_SHIFT,
            );
        }
    }

    /// Whether the page of an entry may be pinned that was just changed.
    #[inline(always)]
    fn may_have_new_pins(&self) -> bool {
        !faults::skip_pin_check() && self.vma().may_have_pins()
    }

    /// An entry that is not none. Whether it has lost a permission to write.
    ///
    /// # Safety
    ///
    /// `i` is the index of such an entry, whose value was `value` a moment ago.
    #[inline(always)]
    unsafe fn clear_soft_dirty_one(&mut self, i: usize, value: Pte, result: &mut Cleared) -> bool {
        if !value.present() {
            // SAFETY: By this function's safety requirements.
            unsafe { self.clear_soft_dirty_nonpresent(i, value, result) };
            return false;
        }

        // SAFETY: The entry is present, and its lock is held.
        let old =
            Pte::from_raw(unsafe { bindings::mmops_ptep_track(self.entry_ptr(i), value.as_raw()) });

        // SAFETY: The entry is present.
        if self.may_have_new_pins() && unsafe { self.keep_pinned(i, old.rw()) } {
            result.kept += 1;
            return old.write() && !old.rw();
        }
        // There are 512 entries: the check of an overflow would find nothing.
        result.cleared = result.cleared.wrapping_add(usize::from(old.soft_dirty()));
        old.write()
    }

    /// An entry that is neither none nor present.
    ///
    /// # Safety
    ///
    /// `i` is the index of such an entry, whose value is `value`.
    #[cold]
    #[inline(never)]
    unsafe fn clear_soft_dirty_nonpresent(&mut self, i: usize, value: Pte, result: &mut Cleared) {
        let keep_write = crate::faults::keep_writable(|| is_writable_migration(value));

        // SAFETY: The entry is neither none nor present, and its lock is held.
        let cleared = unsafe {
            bindings::mmops_ptep_track_nonpresent(
                self.vma().mm_ptr(),
                self.addr() + (i << PAGE_SHIFT),
                self.entry_ptr(i),
                keep_write,
            )
        };

        result.cleared += usize::from(cleared);
    }

    /// The first pins of the address space were made while the entries from `run` to before `end`
    /// were changed, which all were writable and soft-dirty.
    ///
    /// # Safety
    ///
    /// The table has the entries, and they are present.
    #[cold]
    #[inline(never)]
    unsafe fn keep_first_pins(&mut self, run: usize, end: usize, result: &mut Cleared) {
        for i in run..end {
            // SAFETY: By this function's safety requirements.
            if unsafe { self.keep_pinned(i, true) } {
                result.cleared -= 1;
                result.kept += 1;
            }
        }
    }

    /// Makes an entry that was just changed soft-dirty, and writable if it `was_rw`, if its page is
    /// pinned. Whether it is.
    ///
    /// # Safety
    ///
    /// `i` is the index of a present entry.
    #[cold]
    #[inline(never)]
    unsafe fn keep_pinned(&mut self, i: usize, was_rw: bool) -> bool {
        let vma = self.vma().as_ptr();
        let addr = self.addr() + (i << PAGE_SHIFT);

        // SAFETY: The entry is present, maps `addr` in the VMA, and its lock is held.
        let is_pinned = unsafe { bindings::mmops_pte_is_pinned(vma, addr, self.hint(i).as_raw()) };

        if is_pinned {
            // SAFETY: As above.
            unsafe { bindings::mmops_ptep_untrack(self.entry_ptr(i), was_rw) };
        }
        is_pinned
    }

    /// Sets the soft-dirty bit of all entries that are not none, and returns the number of those
    /// that keep it: a marker of userfaultfd loses it when the page is read.
    ///
    /// Nothing is taken from an entry, so nothing is owed.
    ///
    /// Source: `pte_mksoft_dirty()`, `pte_swp_mksoft_dirty()`.
    #[inline(never)]
    pub fn mark_soft_dirty(&mut self, _scope: &mut FlushScope<'s>) -> usize {
        let mut marked = 0;

        for i in 0..self.nr() {
            // SAFETY: The table has the entry.
            let value = unsafe { self.hint(i) };

            if value.none() {
                continue;
            }
            if value.present() || !is_uffd_marker(value) {
                marked += 1;
            }
            // SAFETY: The entry is not none, maps the address, and its lock is held.
            unsafe {
                bindings::mmops_ptep_mksoft_dirty(
                    self.vma().mm_ptr(),
                    self.addr() + (i << PAGE_SHIFT),
                    self.entry_ptr(i),
                )
            };
        }
        marked
    }
}

impl<'s, L: HugeLevel> Leaf<'_, 's, L> {
    /// As [`PteTable::clear_soft_dirty`]. All of the leaf is changed, even if the walk covers only
    /// a part of it; the result counts all of its pages. A pin of one page keeps them all.
    ///
    /// In place and atomic; C clears a PMD leaf meanwhile, flushes for each, and does not ask for
    /// pins. It splits a PUD leaf, which unmaps it.
    ///
    /// Source: `clear_soft_dirty_pmd()`, `change_non_present_huge_pmd()`.
    #[inline(always)]
    pub fn clear_soft_dirty(&mut self, scope: &mut FlushScope<'s>) -> Cleared {
        clear_soft_dirty(self.by_level(), scope)
    }

    /// As [`PteTable::mark_soft_dirty`]; returns the number of base pages of the whole leaf.
    #[inline(always)]
    pub fn mark_soft_dirty(&mut self, scope: &mut FlushScope<'s>) -> usize {
        mark_soft_dirty(self.by_level(), scope);
        Self::PAGES
    }

    /// Whether the leaf is present and clean, the next store faults, which makes it soft-dirty, and
    /// no page of it is pinned.
    #[inline]
    pub(super) fn is_tracked(&self) -> bool {
        let value = self.value();

        value.present() && !value.soft_dirty() && !value.write() && !self.is_pinned()
    }

    #[inline(always)]
    fn track(&mut self, scope: &mut FlushScope<'s>) -> Cleared {
        let vma = self.vma();
        let addr = self.leaf_addr();
        let entry = self.entry_ptr();

        if self.is_softleaf() {
            // SAFETY: The entry is a non-present one in the place of a leaf, and its lock is held.
            let was_soft_dirty = unsafe { L::track_nonpresent(vma.mm_ptr(), addr, entry, false) };

            return Cleared::whole(was_soft_dirty, Self::PAGES);
        }

        // SAFETY: The leaf is present, and its lock is held.
        let old = Entry::<L>::from_raw(unsafe { L::track(entry) });
        // SAFETY: The leaf is present and of the VMA, and its lock is held.
        let is_pinned =
            vma.may_have_pins() && unsafe { L::is_pinned(vma.as_ptr(), addr, old.as_raw()) };
        // SAFETY: As above.
        let has_lost = !is_pinned || unsafe { L::untrack(entry, old.as_raw()) };

        if has_lost && old.write() {
            scope.record(addr, L::SIZE);
        }
        if is_pinned {
            Cleared::kept(Self::PAGES)
        } else {
            Cleared::whole(old.soft_dirty(), Self::PAGES)
        }
    }

    #[inline(always)]
    fn mark(&mut self) {
        // SAFETY: The entry is not none, and its lock is held.
        unsafe { L::mksoft_dirty(self.vma().mm_ptr(), self.leaf_addr(), self.entry_ptr()) };
    }
}

/// [`Leaf::clear_soft_dirty`]; not generic, so that no other module has it.
#[inline(never)]
fn clear_soft_dirty<'s>(leaf: ByLevel<'_, '_, 's>, scope: &mut FlushScope<'s>) -> Cleared {
    match leaf {
        ByLevel::Pmd(leaf) => leaf.track(scope),
        ByLevel::Pud(leaf) => leaf.track(scope),
    }
}

/// [`Leaf::mark_soft_dirty`]; not generic, so that no other module has it.
#[inline(never)]
fn mark_soft_dirty<'s>(leaf: ByLevel<'_, '_, 's>, _scope: &mut FlushScope<'s>) {
    match leaf {
        ByLevel::Pmd(leaf) => leaf.mark(),
        ByLevel::Pud(leaf) => leaf.mark(),
    }
}
