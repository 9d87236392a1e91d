// SPDX-License-Identifier: GPL-2.0

//! The callbacks behind `struct mm_walk_ops`.
//!
//! Only `pud_entry` and `pmd_entry` descend; below them the walker's own loop takes over. What is
//! exported to mmops.ko alone is called by functions that are not generic
//! ([`start`](super::start), [`lock`]), since a generic is instantiated in the module of its user.

use super::{
    hold::of_walk::Hold,
    lock,
    split,
    Action,
    SpareTable,
    Unlocked,
    Walk, //
};
use crate::{
    bindings,
    inside::walking,
    pgtable::{
        PmdLeaf,
        PmdTable,
        PteTable,
        PudLeaf, //
    },
    range::{
        AddrRange,
        PMD_SIZE,
        PUD_SIZE, //
    },
    vma::Vma, //
};
use core::{
    cmp,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    error::from_result,
    page::PAGE_SHIFT,
    prelude::*, //
};

/// The state of a walk, which `mm_walk::private` points to.
pub(super) struct Engine<'v, W: Walk> {
    walker: &'v mut W,
    /// The VMA being visited is one that the walker wants.
    wanted: bool,
    /// There while a VMA is visited that the walker wants.
    hold: Option<W::Hold<'v>>,
    /// There is one scope for all VMAs, open from before the walk to behind it.
    one_scope: bool,
    /// End of the part of the PMD table that is being visited which lies in the range.
    table_end: usize,
    /// What of that part is done with.
    done: usize,
}

impl<'v, W: Walk> Engine<'v, W> {
    pub(super) fn new(walker: &'v mut W) -> Self {
        Self {
            walker,
            wanted: false,
            hold: None,
            one_scope: false,
            table_end: 0,
            done: 0,
        }
    }

    /// Runs a walk of C: `start` gets the callbacks, and what they are to be called with.
    #[inline(always)]
    pub(super) fn walk(
        self,
        start: impl FnOnce(&bindings::mm_walk_ops, *mut c_void) -> Result,
    ) -> Result {
        walking(W::Hold::<'v>::CHANGES, || self.walk_entered(start))
    }

    /// As [`Self::walk`], by a task that counts already as one that walks, or as one that holds
    /// `i_mmap_rwsem`, which may do nothing that a walk may not.
    #[inline(always)]
    pub(super) fn walk_entered(
        mut self,
        start: impl FnOnce(&bindings::mm_walk_ops, *mut c_void) -> Result,
    ) -> Result {
        let private = ptr::from_mut(&mut self).cast();
        let ret = start(&Self::OPS, private);

        if self.one_scope {
            W::Hold::end(&mut self.hold);
        }
        ret
    }

    /// Begins a scope for all VMAs in `range`.
    ///
    /// # Safety
    ///
    /// As [`FlushScope::begin_mm`](crate::tlb::FlushScope::begin_mm), until the walk has ended.
    pub(super) unsafe fn begin_one_scope(
        &mut self,
        mm: *mut bindings::mm_struct,
        range: &AddrRange,
    ) {
        self.one_scope = true;
        // SAFETY: By this function's safety requirements.
        unsafe { W::Hold::begin_mm(&mut self.hold, mm, *range, W::EVENT) };
    }

    /// The walker, and what it holds in the VMA being visited: it is there, so `EINVAL` is never
    /// seen.
    #[inline(always)]
    fn held(&mut self) -> Result<(&mut W, &mut W::Hold<'v>)> {
        Ok((self.walker, self.hold.as_mut().ok_or(EINVAL)?))
    }

    const OPS: bindings::mm_walk_ops = bindings::mm_walk_ops {
        pgd_entry: None,
        p4d_entry: None,
        pud_entry: Some(Self::pud_entry),
        pmd_entry: Some(Self::pmd_entry),
        pte_entry: None,
        pte_hole: if W::WAITS_FOR_ZAP {
            Some(Self::pte_hole)
        } else {
            None
        },
        hugetlb_entry: None,
        test_walk: Some(Self::test_walk),
        pre_vma: Some(Self::pre_vma),
        post_vma: Some(Self::post_vma),
        install_pte: None,
        walk_lock: bindings::page_walk_lock_PGWALK_RDLOCK,
    };

    /// The engine and the VMA of a walk that is under way.
    ///
    /// # Safety
    ///
    /// `walk` is what `walk_page_*` passes to the callbacks of `Self::OPS`, and `private` is an
    /// `Engine<W>` that nothing else refers to during the callback.
    #[inline(always)]
    unsafe fn from_walk<'a>(walk: *mut bindings::mm_walk) -> (&'a mut Self, Vma<'a>) {
        // SAFETY: By this function's safety requirements.
        let engine = unsafe { &mut *(*walk).private.cast::<Self>() };
        // SAFETY: `vma` is set for each callback in `OPS`; `pte_hole`, for which it may not be,
        // asks.
        let vma = unsafe { Vma::from_raw(NonNull::new_unchecked((*walk).vma)) };

        (engine, vma)
    }

    /// Visits each VMA: walk_page_mapping() would end the walk at the first one that is refused
    /// here. One that is not wanted is passed over by [`Self::pud_entry`].
    ///
    /// # Safety
    ///
    /// Called by `walk_page_*` alone, with `Self::OPS` and an `Engine<W>` as `private`.
    unsafe extern "C" fn test_walk(
        _start: usize,
        _end: usize,
        _walk: *mut bindings::mm_walk,
    ) -> c_int {
        0
    }

    /// Begins the hold of a VMA that is wanted.
    ///
    /// # Safety
    ///
    /// Called by `walk_page_*` alone, with `Self::OPS` and an `Engine<W>` as `private`.
    unsafe extern "C" fn pre_vma(start: usize, end: usize, walk: *mut bindings::mm_walk) -> c_int {
        // SAFETY: `walk` comes from a walk with `Self::OPS`.
        let (engine, vma) = unsafe { Self::from_walk(walk) };

        // SAFETY: Sleeping is allowed here.
        unsafe { bindings::mmops_cond_resched() };
        engine.wanted = vma.flags() & bindings::VM_HUGETLB == 0 && engine.walker.test_vma(vma);
        if engine.wanted {
            if engine.one_scope {
                // SAFETY: The VMA is valid, and the walk stays inside its bounds.
                unsafe { bindings::mmops_flush_cache_range(vma.as_ptr(), start, end) };
                return 0;
            }
            return from_result(|| {
                let range = AddrRange::new(start, end)?;

                // SAFETY: The VMA stays valid at least until `post_vma`, where the scope ends, and
                // the walk stays inside its bounds. Until then it holds the guard that it was
                // started with: of the VMA's mmap lock, or of `i_mmap_rwsem` of its file.
                unsafe { W::Hold::begin(&mut engine.hold, vma, range, W::EVENT) };
                Ok(0)
            });
        }
        0
    }

    /// Ends the scope, and with it flushes.
    ///
    /// # Safety
    ///
    /// Called by `walk_page_*` alone, with `Self::OPS` and an `Engine<W>` as `private`.
    unsafe extern "C" fn post_vma(walk: *mut bindings::mm_walk) {
        // SAFETY: `walk` comes from a walk with `Self::OPS`.
        let (engine, _) = unsafe { Self::from_walk(walk) };

        if !engine.one_scope {
            W::Hold::end(&mut engine.hold);
        }
    }

    /// Waits for who has the lock of a table in which an entry is none.
    ///
    /// # Safety
    ///
    /// Called by `walk_page_*` alone, with `Self::OPS` and an `Engine<W>` as `private`.
    unsafe extern "C" fn pte_hole(
        addr: usize,
        _next: usize,
        depth: c_int,
        walk: *mut bindings::mm_walk,
    ) -> c_int {
        // SAFETY: `walk` comes from a walk.
        if unsafe { (*walk).vma }.is_null() {
            return 0;
        }

        // SAFETY: `walk` comes from a walk with `Self::OPS`, in a VMA.
        let (engine, vma) = unsafe { Self::from_walk(walk) };

        // SAFETY: The walk holds what keeps the upper tables of the VMA.
        if !engine.wanted || unsafe { lock::wait_for_zap(vma, addr, depth) } {
            0
        } else {
            EAGAIN.to_errno()
        }
    }

    /// Visits a PUD leaf, or lets the walk descend.
    ///
    /// # Safety
    ///
    /// Called by `walk_page_*` alone, with `Self::OPS` and an `Engine<W>` as `private`.
    unsafe extern "C" fn pud_entry(
        pudp: *mut bindings::pud_t,
        addr: usize,
        next: usize,
        walk: *mut bindings::mm_walk,
    ) -> c_int {
        // SAFETY: `walk` comes from a walk with `Self::OPS`.
        let (engine, vma) = unsafe { Self::from_walk(walk) };
        let mut action = bindings::page_walk_action_ACTION_CONTINUE;

        let ret = if !engine.wanted {
            0
        // SAFETY: `pudp` is an entry of `vma`'s page tables, which the walk holds.
        } else if !unsafe { lock::is_pud_leaf(pudp) } {
            action = bindings::page_walk_action_ACTION_SUBTREE;
            if W::PMD_TABLES {
                engine.table_end = next;
                engine.done = addr;
                from_result(|| {
                    // SAFETY: `pudp` is an entry of `vma`'s page tables, which the walk holds.
                    if let Some(pmdp) = unsafe { lock::pmd_offset(pudp, addr) } {
                        // SAFETY: `pmdp` is the entry for `addr` in a PMD table, which stays.
                        unsafe { engine.pmd_table(pmdp, addr, vma)? };
                    }
                    if engine.done == next {
                        action = bindings::page_walk_action_ACTION_CONTINUE;
                    }
                    Ok(0)
                })
            } else {
                0
            }
        } else {
            from_result(|| {
                engine.checkpoint(addr, next)?;
                engine.cover_leaf(addr, next, PUD_SIZE, vma)?;

                // SAFETY: `pudp` is an entry of `vma`'s page tables, which the walk holds.
                let Some(locked) = (unsafe { lock::pud(pudp, vma) }) else {
                    action = again();
                    return Ok(0);
                };
                // SAFETY: `locked` holds the lock of this leaf, and is dropped after it.
                let mut leaf = unsafe { PudLeaf::new(locked.entry(), addr, next, vma) };
                let (walker, hold) = engine.held()?;
                let done = walker.leaf(&mut leaf, hold)?;

                drop(locked);
                let table = match done {
                    Action::Done => return Ok(0),
                    Action::Again => {
                        action = bindings::page_walk_action_ACTION_AGAIN;
                        return Ok(0);
                    }
                    Action::Replace(table) => Some(table),
                    Action::Split => None,
                };

                check_table(table.as_ref(), vma)?;
                // SAFETY: `pudp` is an entry of `vma`'s page tables, which the walk holds by the
                // mmap lock or `i_mmap_rwsem`; no page-table lock is held.
                if unsafe { split::replace_pud(pudp, addr, vma, table) } {
                    engine.walker.was_split(PUD_SIZE);
                }
                action = bindings::page_walk_action_ACTION_AGAIN;
                Ok(0)
            })
        };
        // SAFETY: `walk` is valid for the callback.
        unsafe { (*walk).action = action };
        ret
    }

    /// Visits a PMD leaf or a PTE table; the walk never descends further.
    ///
    /// # Safety
    ///
    /// Called by `walk_page_*` alone, with `Self::OPS` and an `Engine<W>` as `private`.
    unsafe extern "C" fn pmd_entry(
        pmdp: *mut bindings::pmd_t,
        addr: usize,
        next: usize,
        walk: *mut bindings::mm_walk,
    ) -> c_int {
        // SAFETY: `walk` comes from a walk with `Self::OPS`.
        let (engine, vma) = unsafe { Self::from_walk(walk) };
        let mut action = bindings::page_walk_action_ACTION_CONTINUE;

        let ret = from_result(|| {
            if W::PMD_TABLES {
                if addr >= engine.done {
                    // SAFETY: `pmdp` is the entry for `addr` in `vma`'s page tables, which the walk
                    // holds.
                    unsafe { engine.pmd_table(pmdp, addr, vma)? };
                }
                if addr < engine.done {
                    return Ok(0);
                }
            }
            engine.checkpoint(addr, next)?;

            // What the entry is has to be the same when it is announced and when it is locked: all
            // of a leaf is announced, of a table only the part that is visited.
            // SAFETY: `pmdp` is an entry of `vma`'s page tables, which the walk holds.
            if !unsafe { lock::is_pmd_leaf(pmdp) } {
                // SAFETY: As above.
                let Some(locked) = (unsafe { lock::pte_table(pmdp, addr, vma) }) else {
                    action = again();
                    return Ok(0);
                };
                let nr = (next - addr) >> PAGE_SHIFT;
                // SAFETY: `locked` holds the lock of the table, and is dropped after it. The `nr`
                // entries from `addr` to `next` are of one table.
                let mut table = unsafe { PteTable::new(locked.entry(), addr, nr, vma) };
                let (walker, hold) = engine.held()?;
                let done = walker.pte_table(&mut table, hold)?;

                drop(locked);
                if let Action::Again = done {
                    action = bindings::page_walk_action_ACTION_AGAIN;
                }
                return Ok(0);
            }
            engine.cover_leaf(addr, next, PMD_SIZE, vma)?;

            // SAFETY: As above.
            let Some(locked) = (unsafe { lock::pmd_leaf(pmdp, vma) }) else {
                action = again();
                return Ok(0);
            };
            // SAFETY: `locked` holds the lock of this leaf, and is dropped after it.
            let mut leaf = unsafe { PmdLeaf::new(locked.entry(), addr, next, vma) };
            let (walker, hold) = engine.held()?;
            let done = walker.leaf(&mut leaf, hold)?;
            // Asked under the lock that the walker had, and not when the leaf is split: what
            // cannot be split is passed over, what changes meanwhile is visited again.
            let replaceable = matches!(done, Action::Replace(_)) && leaf.is_replaceable();

            drop(locked);
            let was_leaf = match done {
                Action::Done => return Ok(0),
                Action::Again => {
                    action = bindings::page_walk_action_ACTION_AGAIN;
                    return Ok(0);
                }
                Action::Replace(table) => {
                    check_table(Some(&table), vma)?;
                    if !replaceable {
                        return Ok(0);
                    }
                    // SAFETY: `pmdp` is an entry of `vma`'s page tables, which the walk holds by
                    // the mmap lock or `i_mmap_rwsem`; no page-table lock is held.
                    unsafe { split::replace_pmd(pmdp, addr, vma, table) }
                }
                // SAFETY: As above.
                Action::Split => unsafe { lock::split_huge_pmd(pmdp, addr, vma) },
            };

            if was_leaf {
                engine.walker.was_split(PMD_SIZE);
            }
            action = bindings::page_walk_action_ACTION_AGAIN;
            Ok(0)
        });
        // SAFETY: `walk` is valid for the callback.
        unsafe { (*walk).action = action };
        ret
    }

    /// Visits the PMD leaves from the one at `addr` on, up to the first entry that is none, or is
    /// not covered whole. Nothing is done with if the entry is no such leaf.
    ///
    /// # Safety
    ///
    /// `pmdp` is the entry for `addr` in `vma`, and the PMD table stays for the call.
    unsafe fn pmd_table(
        &mut self,
        pmdp: *mut bindings::pmd_t,
        addr: usize,
        vma: Vma<'_>,
    ) -> Result {
        let end = self.table_end & !(PMD_SIZE - 1);

        // SAFETY: By this function's safety requirements.
        if addr & (PMD_SIZE - 1) != 0 || addr >= end || !unsafe { lock::is_pmd_leaf(pmdp) } {
            return Ok(());
        }
        self.checkpoint(addr, end)?;

        // SAFETY: By this function's safety requirements.
        let locked = unsafe { lock::pmd_leaf(pmdp, vma) };

        if locked.is_none() && crate::faults::skip_retry() {
            self.done = addr + PMD_SIZE;
        }
        if let Some(locked) = locked {
            let nr = (end - addr) / PMD_SIZE;
            // SAFETY: `locked` holds the lock of the table, and is dropped after it. The `nr`
            // entries from `addr` to `end` are of one table, and in the range of the walk.
            let mut table = unsafe { PmdTable::new(locked.entry(), addr, nr, vma) };
            let (walker, hold) = self.held()?;
            let seen = walker.pmd_table(&mut table, hold)?;

            // A walker may say more than the table has.
            self.done = addr + cmp::min(seen, nr) * PMD_SIZE;
        }
        Ok(())
    }

    /// Tells secondary MMUs of all of the leaf of `size` bytes at `addr`, if the walk covers only
    /// `addr..next` of it.
    fn cover_leaf(&mut self, addr: usize, next: usize, size: usize, vma: Vma<'_>) -> Result {
        if next - addr == size || crate::faults::skip_cover() {
            return Ok(());
        }
        let (_, hold) = self.held()?;
        let start = addr & !(size - 1);
        let leaf = AddrRange::new(
            cmp::max(start, vma.start()),
            cmp::min(start + size, vma.end()),
        )?;

        // SAFETY: As for the scope itself, in `pre_vma` or `begin_one_scope`.
        unsafe { hold.cover_leaf(leaf, W::EVENT) };
        Ok(())
    }

    fn checkpoint(&mut self, addr: usize, next: usize) -> Result {
        // SAFETY: The function may be called where sleeping is allowed, as it is here.
        unsafe { bindings::mmops_cond_resched() };

        let (walker, hold) = self.held()?;
        // SAFETY: The callbacks of the walk come here before they take a page-table lock.
        let mut hold = unsafe { Unlocked::new(hold) };

        walker.checkpoint((next - addr) >> PAGE_SHIFT, &mut hold)
    }
}

/// Refuses a table that was allocated for another address space.
fn check_table(table: Option<&SpareTable>, vma: Vma<'_>) -> Result {
    if table.is_some_and(|table| !table.is_for(vma)) {
        return Err(EINVAL);
    }
    Ok(())
}

/// What the walk does with an entry that changed before it was locked: somebody else got further,
/// and it is looked at again.
fn again() -> bindings::page_walk_action {
    if crate::faults::skip_retry() {
        return bindings::page_walk_action_ACTION_CONTINUE;
    }

    bindings::page_walk_action_ACTION_AGAIN
}
