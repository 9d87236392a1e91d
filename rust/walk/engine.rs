// SPDX-License-Identifier: GPL-2.0

//! The callbacks behind `struct mm_walk_ops`.
//!
//! Only `pud_entry` and `pmd_entry` descend; below them the walker's own loop takes over. What is
//! exported to mmops.ko alone is called by functions that are not generic ([`start`], [`lock`]),
//! since a generic is instantiated in the module of its user.

use super::{
    lock,
    split,
    LeafAction,
    SpareTable,
    Walk,
    WalkMut, //
};
use crate::{
    bindings,
    mapping::IMmapReadGuard,
    mm::MmapExclusive,
    notifier::{
        walking,
        Cause, //
    },
    pgtable::{
        PmdLeaf,
        PmdTable,
        PteTable,
        PudLeaf, //
    },
    range::{
        AddrRange,
        PageRange,
        PMD_SIZE,
        PUD_SIZE, //
    },
    tlb::{
        FlushScope,
        UnlockedScope, //
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
    error::{
        from_result,
        to_result, //
    },
    page::PAGE_SHIFT,
    prelude::*, //
};

/// What becomes of a PTE table after the callback.
pub(crate) enum TableAction {
    /// The table is done with.
    Done,
    /// Unlock the table, and visit it again.
    Again,
}

/// What becomes of a PMD leaf after the callback.
pub(crate) enum PmdAction {
    /// The leaf is done with.
    Done,
    /// Put the table in its place, and visit that.
    Replace(SpareTable),
    /// Split it as the kernel does, and visit what is there then: a PTE table for anonymous memory,
    /// nothing for a file. Source: `__split_huge_pmd()`.
    Split,
}

impl From<LeafAction<SpareTable>> for PmdAction {
    fn from(action: LeafAction<SpareTable>) -> Self {
        match action {
            LeafAction::Done => PmdAction::Done,
            LeafAction::Split(table) => PmdAction::Replace(table),
        }
    }
}

/// What walks of all kinds have in common.
pub(crate) trait Visitor {
    /// What the scope that each VMA needs tells, if entries are changed.
    const CAUSE: Option<Cause<'static>>;

    fn test_vma(&mut self, vma: Vma<'_>) -> bool;
    fn checkpoint(&mut self, nr: usize, scope: Option<UnlockedScope<'_, '_>>) -> Result;
    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: Option<&mut FlushScope<'s>>,
    ) -> Result<TableAction>;
    fn pmd_leaf<'s>(
        &mut self,
        leaf: &mut PmdLeaf<'_, 's>,
        scope: Option<&mut FlushScope<'s>>,
    ) -> Result<PmdAction>;
    fn pud_leaf<'s>(
        &mut self,
        leaf: &mut PudLeaf<'_, 's>,
        scope: Option<&mut FlushScope<'s>>,
    ) -> Result<LeafAction>;

    /// PMD leaves that follow each other and are covered whole come together, by
    /// [`Self::pmd_table`]: there are 512 under one lock.
    const PMD_TABLES: bool = false;

    /// Returns the number of entries that are done with. Those behind are visited one by one until
    /// there is a leaf again.
    fn pmd_table<'s>(
        &mut self,
        table: &mut PmdTable<'_, 's>,
        scope: Option<&mut FlushScope<'s>>,
    ) -> Result<usize> {
        let _ = (table, scope);
        Ok(0)
    }

    /// A table for the PUD leaf that is about to be split: one that maps no folio is then replaced
    /// in place by PMD leaves of the same bits, and not unmapped. Does not sleep.
    fn pud_table(&mut self) -> Option<SpareTable> {
        None
    }

    /// A leaf of `size` bytes was split as asked for. Not called if it had vanished, or been split,
    /// meanwhile.
    fn was_split(&mut self, size: usize) {
        let _ = size;
    }
}

pub(super) struct Reading<'w, W>(pub(super) &'w mut W);

impl<W: Walk> Visitor for Reading<'_, W> {
    const CAUSE: Option<Cause<'static>> = None;

    fn test_vma(&mut self, vma: Vma<'_>) -> bool {
        self.0.test_vma(vma)
    }

    fn checkpoint(&mut self, nr: usize, _scope: Option<UnlockedScope<'_, '_>>) -> Result {
        self.0.checkpoint(nr)
    }

    #[inline(always)]
    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        _scope: Option<&mut FlushScope<'s>>,
    ) -> Result<TableAction> {
        self.0.pte_table(table)?;
        Ok(TableAction::Done)
    }

    fn pmd_leaf<'s>(
        &mut self,
        leaf: &mut PmdLeaf<'_, 's>,
        _scope: Option<&mut FlushScope<'s>>,
    ) -> Result<PmdAction> {
        self.0.pmd_leaf(leaf)?;
        Ok(PmdAction::Done)
    }

    fn pud_leaf<'s>(
        &mut self,
        leaf: &mut PudLeaf<'_, 's>,
        _scope: Option<&mut FlushScope<'s>>,
    ) -> Result<LeafAction> {
        self.0.pud_leaf(leaf)?;
        Ok(LeafAction::Done)
    }
}

pub(super) struct Changing<'w, W>(pub(super) &'w mut W);

/// A changing walk has a scope in each VMA that it visits, so `EINVAL` is never seen.
fn scope_of<'a, 's>(scope: Option<&'a mut FlushScope<'s>>) -> Result<&'a mut FlushScope<'s>> {
    scope.ok_or(EINVAL)
}

impl<W: WalkMut> Visitor for Changing<'_, W> {
    const CAUSE: Option<Cause<'static>> = Some(W::EVENT.cause());

    fn test_vma(&mut self, vma: Vma<'_>) -> bool {
        self.0.test_vma(vma)
    }

    fn checkpoint(&mut self, nr: usize, scope: Option<UnlockedScope<'_, '_>>) -> Result {
        self.0.checkpoint(nr, &mut scope.ok_or(EINVAL)?)
    }

    #[inline(always)]
    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: Option<&mut FlushScope<'s>>,
    ) -> Result<TableAction> {
        self.0.pte_table(table, scope_of(scope)?)?;
        Ok(TableAction::Done)
    }

    fn pmd_leaf<'s>(
        &mut self,
        leaf: &mut PmdLeaf<'_, 's>,
        scope: Option<&mut FlushScope<'s>>,
    ) -> Result<PmdAction> {
        Ok(self.0.pmd_leaf(leaf, scope_of(scope)?)?.into())
    }

    fn pud_leaf<'s>(
        &mut self,
        leaf: &mut PudLeaf<'_, 's>,
        scope: Option<&mut FlushScope<'s>>,
    ) -> Result<LeafAction> {
        self.0.pud_leaf(leaf, scope_of(scope)?)
    }

    fn pud_table(&mut self) -> Option<SpareTable> {
        self.0.pud_table()
    }
}

/// The state of a walk, which `mm_walk::private` points to.
pub(crate) struct Engine<'v, V> {
    visitor: &'v mut V,
    /// The VMA being visited is one that the visitor wants.
    wanted: bool,
    /// Open while a VMA is visited by a walk that changes entries.
    scope: Option<FlushScope<'v>>,
    /// There is one scope for all VMAs, open from before the walk to behind it.
    one_scope: bool,
    /// End of the part of the PMD table that is being visited which lies in the range.
    table_end: usize,
    /// What of that part is done with.
    done: usize,
}

impl<'v, V: Visitor> Engine<'v, V> {
    pub(crate) fn new(visitor: &'v mut V) -> Self {
        Self {
            visitor,
            wanted: false,
            scope: None,
            one_scope: false,
            table_end: 0,
            done: 0,
        }
    }

    const OPS: bindings::mm_walk_ops = bindings::mm_walk_ops {
        pgd_entry: None,
        p4d_entry: None,
        pud_entry: Some(Self::pud_entry),
        pmd_entry: Some(Self::pmd_entry),
        pte_entry: None,
        pte_hole: None,
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
    /// `Engine<V>` that nothing else refers to during the callback.
    #[inline(always)]
    unsafe fn from_walk<'a>(walk: *mut bindings::mm_walk) -> (&'a mut Self, Vma<'a>) {
        // SAFETY: By this function's safety requirements.
        let engine = unsafe { &mut *(*walk).private.cast::<Self>() };
        // SAFETY: `vma` is set for each callback in `OPS`, since `pte_hole` is not in it.
        let vma = unsafe { Vma::from_raw(NonNull::new_unchecked((*walk).vma)) };

        (engine, vma)
    }

    /// Visits each VMA: walk_page_mapping() would end the walk at the first one that is refused
    /// here. One that is not wanted is passed over by [`Self::pud_entry`].
    ///
    /// # Safety
    ///
    /// Called by `walk_page_*` alone, with `Self::OPS` and an `Engine<V>` as `private`.
    unsafe extern "C" fn test_walk(
        _start: usize,
        _end: usize,
        _walk: *mut bindings::mm_walk,
    ) -> c_int {
        0
    }

    /// Opens the scope of a VMA that is wanted.
    ///
    /// # Safety
    ///
    /// Called by `walk_page_*` alone, with `Self::OPS` and an `Engine<V>` as `private`.
    unsafe extern "C" fn pre_vma(start: usize, end: usize, walk: *mut bindings::mm_walk) -> c_int {
        // SAFETY: `walk` comes from a walk with `Self::OPS`.
        let (engine, vma) = unsafe { Self::from_walk(walk) };

        // SAFETY: Sleeping is allowed here.
        unsafe { bindings::mmops_cond_resched() };
        engine.wanted = vma.flags() & bindings::VM_HUGETLB == 0 && engine.visitor.test_vma(vma);
        if engine.wanted {
            if engine.one_scope {
                // SAFETY: The VMA is valid, and the walk stays inside its bounds.
                unsafe { bindings::mmops_flush_cache_range(vma.as_ptr(), start, end) };
            } else if let Some(cause) = V::CAUSE {
                return from_result(|| {
                    let range = AddrRange::new(start, end)?;

                    // SAFETY: The VMA stays valid at least until `post_vma`, where the scope ends,
                    // and the walk stays inside its bounds. Until then it holds the guard that it
                    // was started with: of the VMA's mmap lock, or of `i_mmap_rwsem` of its file.
                    unsafe { begin_scope(&mut engine.scope, vma, range, cause) };
                    Ok(0)
                });
            }
        }
        0
    }

    /// Ends the scope, and with it flushes.
    ///
    /// # Safety
    ///
    /// Called by `walk_page_*` alone, with `Self::OPS` and an `Engine<V>` as `private`.
    unsafe extern "C" fn post_vma(walk: *mut bindings::mm_walk) {
        // SAFETY: `walk` comes from a walk with `Self::OPS`.
        let (engine, _) = unsafe { Self::from_walk(walk) };

        if !engine.one_scope {
            end_scope(&mut engine.scope);
        }
    }

    /// Visits a PUD leaf, or lets the walk descend.
    ///
    /// # Safety
    ///
    /// Called by `walk_page_*` alone, with `Self::OPS` and an `Engine<V>` as `private`.
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
            if V::PMD_TABLES {
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
                let done = engine.visitor.pud_leaf(&mut leaf, engine.scope.as_mut())?;

                drop(locked);
                if let LeafAction::Split(()) = done {
                    let table = engine.visitor.pud_table();

                    check_table(table.as_ref(), vma)?;
                    // SAFETY: `pudp` is an entry of `vma`'s page tables, which the walk holds by
                    // the mmap lock or `i_mmap_rwsem`; no page-table lock is held.
                    if unsafe { split::replace_pud(pudp, addr, vma, table) } {
                        engine.visitor.was_split(PUD_SIZE);
                    }
                    action = bindings::page_walk_action_ACTION_AGAIN;
                }
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
    /// Called by `walk_page_*` alone, with `Self::OPS` and an `Engine<V>` as `private`.
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
            if V::PMD_TABLES {
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
                let done = engine
                    .visitor
                    .pte_table(&mut table, engine.scope.as_mut())?;

                drop(locked);
                if let TableAction::Again = done {
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
            let done = engine.visitor.pmd_leaf(&mut leaf, engine.scope.as_mut())?;
            // Asked under the lock that the visitor had, and not when the leaf is split: what
            // cannot be split is passed over, what changes meanwhile is visited again.
            let replaceable = matches!(done, PmdAction::Replace(_)) && leaf.is_replaceable();

            drop(locked);
            let was_leaf = match done {
                PmdAction::Done => return Ok(0),
                PmdAction::Replace(table) => {
                    check_table(Some(&table), vma)?;
                    if !replaceable {
                        return Ok(0);
                    }
                    // SAFETY: `pmdp` is an entry of `vma`'s page tables, which the walk holds by
                    // the mmap lock or `i_mmap_rwsem`; no page-table lock is held.
                    unsafe { split::replace_pmd(pmdp, addr, vma, table) }
                }
                // SAFETY: As above.
                PmdAction::Split => unsafe { lock::split_huge_pmd(pmdp, addr, vma) },
            };

            if was_leaf {
                engine.visitor.was_split(PMD_SIZE);
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
            let seen = self.visitor.pmd_table(&mut table, self.scope.as_mut())?;

            self.done = addr + seen * PMD_SIZE;
        }
        Ok(())
    }

    /// Tells secondary MMUs of all of the leaf of `size` bytes at `addr`, if the walk covers only
    /// `addr..next` of it.
    fn cover_leaf(&mut self, addr: usize, next: usize, size: usize, vma: Vma<'_>) -> Result {
        if next - addr == size || crate::faults::skip_cover() {
            return Ok(());
        }
        let (Some(scope), Some(cause)) = (&mut self.scope, V::CAUSE) else {
            return Ok(());
        };
        let start = addr & !(size - 1);
        let leaf = AddrRange::new(
            cmp::max(start, vma.start()),
            cmp::min(start + size, vma.end()),
        )?;

        // SAFETY: As for the scope itself, in `pre_vma` or `walk_range_one_scope`.
        unsafe { cover_leaf(scope, leaf, cause) };
        Ok(())
    }

    fn checkpoint(&mut self, addr: usize, next: usize) -> Result {
        // SAFETY: The function may be called where sleeping is allowed, as it is here.
        unsafe { bindings::mmops_cond_resched() };

        let scope = self.scope.as_mut().map(|scope| {
            // SAFETY: The callbacks of the walk come here before they take a page-table lock.
            unsafe { UnlockedScope::new(scope) }
        });

        self.visitor.checkpoint((next - addr) >> PAGE_SHIFT, scope)
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

/// See [`FlushScope::begin`].
///
/// # Safety
///
/// As there.
#[inline(never)]
#[link_section = ".text.hot"]
unsafe fn begin_scope(
    scope: &mut Option<FlushScope<'_>>,
    vma: Vma<'_>,
    range: AddrRange,
    cause: Cause<'static>,
) {
    // SAFETY: By this function's safety requirements.
    *scope = Some(unsafe { FlushScope::begin(vma, range, cause) });
}

/// See [`FlushScope::begin_mm`].
///
/// # Safety
///
/// As there.
#[inline(never)]
unsafe fn begin_scope_mm(
    scope: &mut Option<FlushScope<'_>>,
    mm: *mut bindings::mm_struct,
    range: AddrRange,
    cause: Cause<'static>,
) {
    // SAFETY: By this function's safety requirements.
    *scope = Some(unsafe { FlushScope::begin_mm(mm, range, cause) });
}

/// See [`FlushScope::cover_leaf`].
///
/// # Safety
///
/// As there.
#[inline(never)]
unsafe fn cover_leaf(scope: &mut FlushScope<'_>, leaf: AddrRange, cause: Cause<'static>) {
    // SAFETY: By this function's safety requirements.
    unsafe { scope.cover_leaf(leaf, cause) };
}

#[inline(never)]
#[link_section = ".text.hot"]
fn end_scope(scope: &mut Option<FlushScope<'_>>) {
    *scope = None;
}

pub(super) fn walk_mapping<V: Visitor>(
    guard: &mut IMmapReadGuard<'_>,
    range: &PageRange,
    mut engine: Engine<'_, V>,
) -> Result {
    let private = ptr::from_mut(&mut engine).cast();
    // SAFETY: `engine` is what the callbacks of its `OPS` take `private` for.
    walking(V::CAUSE.is_some(), || unsafe {
        start::mapping(guard, range, &Engine::<V>::OPS, private)
    })
}

pub(super) fn walk_range<V: Visitor>(
    guard: MmapExclusive<'_>,
    range: &AddrRange,
    mut engine: Engine<'_, V>,
) -> Result {
    let private = ptr::from_mut(&mut engine).cast();
    // SAFETY: `engine` is what the callbacks of its `OPS` take `private` for.
    walking(V::CAUSE.is_some(), || unsafe {
        start::range(guard, range, &Engine::<V>::OPS, private)
    })
}

/// As [`walk_range`], with one scope for all VMAs.
pub(crate) fn walk_range_one_scope<V: Visitor>(
    guard: MmapExclusive<'_>,
    range: &AddrRange,
    mut engine: Engine<'_, V>,
) -> Result {
    let mm = guard.guard().as_ptr();

    if let Some(cause) = V::CAUSE {
        engine.one_scope = true;
        // SAFETY: The mm is longer there than the guard, which holds its mmap lock; the scope ends
        // below.
        unsafe { begin_scope_mm(&mut engine.scope, mm, *range, cause) };
    }
    let private = ptr::from_mut(&mut engine).cast();
    // SAFETY: `engine` is what the callbacks of its `OPS` take `private` for.
    let ret = walking(V::CAUSE.is_some(), || unsafe {
        start::range(guard, range, &Engine::<V>::OPS, private)
    });

    end_scope(&mut engine.scope);
    ret
}

pub(crate) fn walk_range_vma<V: Visitor>(
    guard: MmapExclusive<'_>,
    range: &AddrRange,
    mut engine: Engine<'_, V>,
) -> Result {
    let private = ptr::from_mut(&mut engine).cast();
    // SAFETY: `engine` is what the callbacks of its `OPS` take `private` for.
    walking(V::CAUSE.is_some(), || unsafe {
        start::range_vma(guard, range, &Engine::<V>::OPS, private)
    })
}

/// The calls of the C walks.
mod start {
    use super::*;

    /// # Safety
    ///
    /// `private` is what the callbacks of `ops` expect, and nothing else refers to it.
    #[inline(never)]
    #[link_section = ".text.hot"]
    pub(super) unsafe fn mapping(
        guard: &mut IMmapReadGuard<'_>,
        range: &PageRange,
        ops: &bindings::mm_walk_ops,
        private: *mut c_void,
    ) -> Result {
        // SAFETY: The guard holds `i_mmap_rwsem`; `private` by this function's requirements.
        let ret = unsafe {
            bindings::walk_page_mapping(
                guard.mapping().as_ptr(),
                range.first(),
                range.nr(),
                ops,
                private,
            )
        };

        // Not a call of the kernel's crate where there is nothing to convert.
        if ret == 0 {
            Ok(())
        } else {
            to_result(ret)
        }
    }

    /// # Safety
    ///
    /// As [`mapping`].
    #[inline(never)]
    pub(super) unsafe fn range(
        guard: MmapExclusive<'_>,
        range: &AddrRange,
        ops: &bindings::mm_walk_ops,
        private: *mut c_void,
    ) -> Result {
        let mm = guard.guard().as_ptr();

        // SAFETY: The guard holds the mmap lock; `private` by this function's requirements.
        to_result(unsafe {
            bindings::walk_page_range(mm, range.start(), range.end(), ops, private)
        })
    }

    /// # Safety
    ///
    /// As [`mapping`].
    #[inline(never)]
    pub(super) unsafe fn range_vma(
        guard: MmapExclusive<'_>,
        range: &AddrRange,
        ops: &bindings::mm_walk_ops,
        private: *mut c_void,
    ) -> Result {
        let vma = guard.guard().vma_lookup(range.start()).ok_or(EINVAL)?;

        // SAFETY: The guard holds the mmap lock of the VMA's mm, so the VMA stays; the function
        // checks the range; `private` by this function's requirements.
        to_result(unsafe {
            bindings::walk_page_range_vma(vma.as_ptr(), range.start(), range.end(), ops, private)
        })
    }
}
