// SPDX-License-Identifier: GPL-2.0

//! The pages of one batch.

use super::{
    device::ExclusivePages,
    scan::{
        self,
        Kind, //
    },
    PageResult, //
};
use crate::{
    bindings,
    mm::MmapRead,
    notifier::{
        with_invalidation,
        Cause,
        ChangeEvent,
        OwnerRef, //
    },
    pgtable::{
        Pte,
        PteTable, //
    },
    range::AddrRange,
    tlb::FlushScope,
    vma::Vma, //
};
use core::{
    cmp,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    mm::virt::VmaRef,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// How far a page has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is known of it.
    Pending,
    /// A write fault has to come first.
    NeedsFault,
    /// The slot owns a reference of the page.
    Referenced,
    /// As `Referenced`; the folio is locked, and the entry is exclusive.
    Exclusive,
    /// As `Referenced`, but it cannot become exclusive.
    Refused(PageResult),
    /// Done with.
    Settled(PageResult),
}

/// A page of a batch.
///
/// # Invariants
///
/// - `page` is set, and the slot owns one reference of its folio, if `state` is `Referenced`,
///   `Exclusive` or `Refused`, and in no other state. A folio with such a reference is not split,
///   so it is the page's for as long.
/// - With `locks`, the slot owns the lock of the folio. A slot that is `Exclusive` without owns it
///   by another one of the same batch, whose page is of the same folio, until [`release`].
pub(super) struct Slot {
    page: Option<NonNull<bindings::page>>,
    state: State,
    locks: bool,
    dirty: bool,
}

// A full batch is no large allocation.
const _: () = assert!(super::BATCH * size_of::<Slot>() <= 2 * PAGE_SIZE);

impl Slot {
    pub(super) const EMPTY: Self = Self {
        page: None,
        state: State::Pending,
        locks: false,
        dirty: false,
    };

    /// The page, if it is exclusive and its folio is locked.
    pub(super) fn exclusive(&self) -> Option<NonNull<bindings::page>> {
        match self.state {
            State::Exclusive => self.page,
            _ => None,
        }
    }

    /// The folio of the page, of which the slot owns a reference.
    #[inline(always)]
    fn folio(&self) -> Option<NonNull<bindings::folio>> {
        // SAFETY: By the type invariants a reference is owned.
        self.page
            .and_then(|page| NonNull::new(unsafe { bindings::mmops_page_folio(page.as_ptr()) }))
    }

    fn is_settled(&self) -> bool {
        matches!(self.state, State::Settled(_))
    }

    /// Gives the folio the dirty bit that its entry lost. The folio is locked still.
    #[inline(always)]
    fn mark_dirty(&mut self) {
        if let (true, Some(folio)) = (self.dirty, self.folio()) {
            // SAFETY: By the type invariants a reference is owned.
            unsafe {
                if !bindings::mmops_folio_test_dirty(folio.as_ptr()) {
                    kernel::bindings::folio_mark_dirty(folio.as_ptr());
                }
            }
        }
        self.dirty = false;
    }

    /// Unlocks and lets the page go, and says how far it has come by that. A dirty bit was given to
    /// the folio before.
    #[inline(always)]
    fn release(&mut self, state: State) {
        debug_assert!(!self.dirty);
        if let Some(folio) = self.folio() {
            // SAFETY: By the type invariants a reference is owned, and with `locks` the lock.
            unsafe {
                if self.locks {
                    bindings::mmops_folio_unlock(folio.as_ptr());
                }
                bindings::mmops_folio_put(folio.as_ptr());
            }
        }
        self.page = None;
        self.locks = false;
        self.state = state;
    }

    fn settle(&mut self, result: PageResult) {
        self.release(State::Settled(result));
    }
}

/// Unlocks the pages and lets them go; those that are exclusive are settled if `valid`.
#[inline(never)]
pub(super) fn release(slots: &mut [Slot], valid: bool) {
    // All before any: one of them may own the lock that is the others' as well.
    for slot in slots.iter_mut() {
        slot.mark_dirty();
    }
    for slot in slots {
        match slot.state {
            State::Settled(_) | State::NeedsFault | State::Pending => {}
            State::Exclusive if valid => slot.settle(PageResult::Exclusive),
            State::Refused(result) => slot.settle(result),
            _ => slot.release(State::Pending),
        }
    }
}

/// Consecutive pages of one VMA.
pub(super) struct Batch<'b> {
    room: &'b mut [Slot],
    nr: usize,
    addr: usize,
}

impl<'b> Batch<'b> {
    /// With room for so many pages.
    pub(super) fn new(room: &'b mut [Slot]) -> Self {
        Self {
            room,
            nr: 0,
            addr: 0,
        }
    }

    /// Begins anew with `nr` pages from `addr` on, which lie in one VMA.
    pub(super) fn start(&mut self, addr: usize, nr: usize) {
        self.nr = cmp::min(nr, self.room.len());
        self.addr = addr;
        for slot in self.some(0, nr) {
            slot.release(State::Pending);
        }
    }

    pub(super) fn nr(&self) -> usize {
        self.nr
    }

    fn range(&self, first: usize, nr: usize) -> Result<AddrRange> {
        let start = self.addr + (first << PAGE_SHIFT);

        AddrRange::new(start, start + (nr << PAGE_SHIFT))
    }

    fn some(&mut self, first: usize, nr: usize) -> &mut [Slot] {
        self.room.get_mut(first..first + nr).unwrap_or(&mut [])
    }

    /// Whether nothing is left to be done with the pages.
    pub(super) fn is_settled(&mut self, first: usize, nr: usize) -> bool {
        self.some(first, nr).iter().all(Slot::is_settled)
    }

    pub(super) fn give_up(&mut self, i: usize) {
        for slot in self.some(i, 1) {
            if !slot.is_settled() {
                slot.settle(PageResult::Busy);
            }
        }
    }

    /// Tells what became of the pages. Returns how many are exclusive.
    pub(super) fn report(&self, results: &mut [PageResult]) -> usize {
        let mut exclusive = 0;

        for (slot, result) in self.room.iter().zip(results) {
            *result = match slot.state {
                State::Settled(result) => result,
                _ => PageResult::Untouched,
            };
            exclusive += usize::from(*result == PageResult::Exclusive);
        }
        exclusive
    }

    /// Gets references of the pages, and faults in what is not there. No folio is locked.
    ///
    /// # Errors
    ///
    /// `EINTR` if a fatal signal came.
    #[inline(never)]
    pub(super) fn collect(
        &mut self,
        guard: &MmapRead<'_>,
        vma: &VmaRef,
        first: usize,
        nr: usize,
    ) -> Result {
        // Once more for what was faulted in, and for what reclaim was quicker with.
        for _ in 0..3 {
            if self.scan(guard, vma, first, nr)? || !self.fault_in(guard, first, nr)? {
                break;
            }
        }
        Ok(())
    }

    /// Returns whether nothing has to be faulted in.
    fn scan(
        &mut self,
        guard: &MmapRead<'_>,
        vma: &VmaRef,
        first: usize,
        nr: usize,
    ) -> Result<bool> {
        let range = self.range(first, nr)?;
        let addr = self.addr;
        let mut left = nr;
        let slots = &mut *self.room;

        scan::for_each_table(guard, vma, &range, true, |table| {
            let start = (table.addr() - addr) >> PAGE_SHIFT;

            for (i, slot) in part(slots, start, table.nr()) {
                if matches!(slot.state, State::Pending | State::NeedsFault) {
                    scan_entry(table, i, slot);
                }
                left -= usize::from(slot.state != State::NeedsFault);
            }
        })?;
        if left == 0 {
            return Ok(true);
        }

        // Where there is no page table.
        for slot in self.some(first, nr) {
            if slot.state == State::Pending {
                match scan::kind_of_nothing(vma) {
                    Kind::Refused(result) => slot.settle(result),
                    _ => slot.state = State::NeedsFault,
                }
            }
        }
        Ok(false)
    }

    /// Returns whether anything was to be done.
    fn fault_in(&mut self, guard: &MmapRead<'_>, first: usize, nr: usize) -> Result<bool> {
        let end = first + nr;
        let mut any = false;
        let mut i = first;

        while i < end {
            let run = self
                .some(i, end - i)
                .iter()
                .take_while(|slot| slot.state == State::NeedsFault)
                .count();

            if run == 0 {
                i += 1;
                continue;
            }
            any = true;

            let ret = fault_in_writable(guard, self.addr + (i << PAGE_SHIFT), run);

            if ret > 0 {
                for slot in self.some(i, ret as usize) {
                    slot.state = State::Pending;
                }
                i += ret as usize;
                continue;
            }
            crate::signal::pending()?;
            for slot in self.some(i, 1) {
                match to_result(ret as c_int) {
                    Err(e) if e == ENOMEM => slot.settle(PageResult::NoMemory),
                    Err(e) if e == EFAULT => slot.settle(PageResult::Fault),
                    Err(e) if e == EHWPOISON => slot.settle(PageResult::Poisoned),
                    // Nothing was done, or has to be done again.
                    _ => slot.state = State::Pending,
                }
            }
            i += 1;
        }
        Ok(any)
    }

    /// Locks the folios, and replaces the entries. `None` if no page got so far. A folio lock is
    /// slept on only if there is but one page.
    ///
    /// # Errors
    ///
    /// `EINTR` if a fatal signal came.
    ///
    /// Source: `make_device_exclusive()`.
    #[inline(never)]
    pub(super) fn convert(
        &mut self,
        guard: &MmapRead<'_>,
        vma: &VmaRef,
        owner: Option<OwnerRef<'_>>,
        first: usize,
        nr: usize,
    ) -> Result<Option<ExclusivePages<'_>>> {
        let (lowest, behind) = self.lock(first, nr)?;

        if lowest >= behind {
            return Ok(None);
        }

        let range = self.range(lowest, behind - lowest)?;

        scan::check(guard, vma, &range)?;
        // SAFETY: The guard keeps the VMA until the function returns.
        let raw = unsafe { Vma::from_raw(NonNull::new(vma.as_ptr()).ok_or(EINVAL)?) };
        // SAFETY: As above, and holds the mmap lock; the range lies in the VMA, as was just
        // checked.
        let mut scope = unsafe { FlushScope::begin(raw, range, Cause::Exclusive(owner)) };
        let addr = self.addr;
        let slots = &mut *self.room;
        let mut any = false;

        let ret = scan::for_each_table(guard, vma, &range, true, |table| {
            let start = (table.addr() - addr) >> PAGE_SHIFT;

            for (i, slot) in part(slots, start, table.nr()) {
                if slot.state == State::Referenced {
                    // SAFETY: `lock()` locked the folios of all that are referenced still. The
                    // table is of the scope's VMA, and its range lies in that of the scope.
                    any |= unsafe { convert_entry(table, i, slot, &mut scope) };
                }
            }
        });

        // Flushes. Folios are marked dirty when they are let go, which comes after it.
        drop(scope);

        // Lets go what did not get so far, when it is dropped at the latest.
        let start = range_start(self.addr, first);
        // SAFETY: The pages from `first` on begin at this address. Those that are exclusive were
        // locked together by `lock()`, and none was unlocked since.
        let pages = unsafe { ExclusivePages::new(self.some(first, nr), start) };

        ret?;
        Ok(any.then_some(pages))
    }

    /// Gets references of the pages whose entries are exclusive; the others are settled.
    #[inline(never)]
    pub(super) fn collect_exclusive(
        &mut self,
        guard: &MmapRead<'_>,
        vma: &VmaRef,
        first: usize,
        nr: usize,
    ) -> Result {
        let range = self.range(first, nr)?;
        let addr = self.addr;
        let slots = &mut *self.room;

        scan::for_each_table(guard, vma, &range, false, |table| {
            let start = (table.addr() - addr) >> PAGE_SHIFT;

            for (i, slot) in part(slots, start, table.nr()) {
                let pte = table.value(i);

                if pte.none() || pte.present() {
                    continue;
                }
                if let Kind::Already(page) = scan::kind(table, i).1 {
                    // SAFETY: The entry keeps the page, as the table is locked.
                    unsafe { refer(slot, page) };
                }
            }
        })?;
        for slot in self.some(first, nr) {
            if slot.state != State::Referenced {
                slot.settle(PageResult::Untouched);
            }
        }
        Ok(())
    }

    /// Locks the folios, and restores the entries. Returns how many.
    ///
    /// # Errors
    ///
    /// `EINTR` if a fatal signal came.
    ///
    /// Source: `remove_device_exclusive_entry()`.
    #[inline(never)]
    pub(super) fn restore(
        &mut self,
        guard: &MmapRead<'_>,
        vma: &VmaRef,
        first: usize,
        nr: usize,
    ) -> Result<usize> {
        let (lowest, behind) = self.lock(first, nr)?;

        if lowest >= behind {
            return Ok(0);
        }

        let range = self.range(lowest, behind - lowest)?;
        let addr = self.addr;
        let slots = &mut *self.room;
        let mut restored = 0;

        let ret = with_invalidation(guard, &range, ChangeEvent::CLEAR, || {
            scan::for_each_table(guard, vma, &range, false, |table| {
                let start = (table.addr() - addr) >> PAGE_SHIFT;

                for (i, slot) in part(slots, start, table.nr()) {
                    if slot.state == State::Referenced {
                        // SAFETY: `lock()` locked the folios of all that are referenced still.
                        restored += usize::from(unsafe { restore_entry(table, i, slot) });
                    }
                }
            })
        });

        for slot in self.some(first, nr) {
            match slot.state {
                State::Pending | State::Settled(_) => {}
                // Restored, or gone by itself.
                _ => slot.settle(PageResult::Untouched),
            }
        }
        ret?;
        Ok(restored)
    }

    /// Locks the folios of referenced pages. Returns the first page of which that worked, and the
    /// one behind the last; what did not work waits.
    fn lock(&mut self, first: usize, nr: usize) -> Result<(usize, usize)> {
        let (mut lowest, mut behind) = (usize::MAX, 0);
        let mut locked = None;

        for (i, slot) in self.some(first, nr).iter_mut().enumerate() {
            let Some(folio) = slot.folio() else {
                continue;
            };

            // Neighbours are often of one large folio; one lock does.
            if locked != Some(folio) {
                // SAFETY: The slot has a reference of the folio.
                slot.locks = unsafe { trylock(folio) };
                if !slot.locks && nr == 1 {
                    // SAFETY: As above; no other folio lock is held, and no page-table lock.
                    to_result(unsafe { bindings::mmops_folio_lock_killable(folio.as_ptr()) })
                        .map_err(|_| {
                            slot.release(State::Pending);
                            EINTR
                        })?;
                    slot.locks = true;
                }
                if !slot.locks {
                    slot.release(State::Pending);
                    continue;
                }
                locked = Some(folio);
            }
            lowest = core::cmp::min(lowest, first + i);
            behind = first + i + 1;
        }
        Ok((lowest, behind))
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        release(self.room, false);
    }
}

/// Faults in pages; how many, or an error of the first.
fn fault_in_writable(guard: &MmapRead<'_>, addr: usize, nr: usize) -> c_long {
    if crate::faults::fault_in_no_memory() {
        return ENOMEM.to_errno() as c_long;
    }

    // SAFETY: The guard holds the mmap lock.
    unsafe { bindings::mmops_fault_in_writable(guard.as_ptr(), addr, nr) }
}

/// # Safety
///
/// The caller has a reference of the folio.
#[inline(always)]
unsafe fn trylock(folio: NonNull<bindings::folio>) -> bool {
    if crate::faults::trylock_fails() {
        return false;
    }

    // SAFETY: By this function's safety requirements.
    unsafe { bindings::mmops_folio_trylock(folio.as_ptr()) }
}

fn range_start(addr: usize, first: usize) -> usize {
    addr + (first << PAGE_SHIFT)
}

/// The slots for the entries of a table, with the indices of these.
#[inline(always)]
fn part(slots: &mut [Slot], start: usize, nr: usize) -> impl Iterator<Item = (usize, &mut Slot)> {
    let slots = slots.get_mut(start..start + nr).unwrap_or(&mut []);

    slots.iter_mut().enumerate()
}

/// Gets a reference of a page.
///
/// # Safety
///
/// An entry whose lock is held keeps the page.
#[inline(always)]
unsafe fn refer(slot: &mut Slot, page: NonNull<bindings::page>) {
    // SAFETY: By this function's safety requirements.
    unsafe { bindings::mmops_folio_get(bindings::mmops_page_folio(page.as_ptr())) };
    // INVARIANT: The reference was just got.
    slot.page = Some(page);
    slot.state = State::Referenced;
}

/// Looks at one entry, and gets a reference of its page.
#[inline(always)]
fn scan_entry(table: &PteTable<'_, '_>, i: usize, slot: &mut Slot) {
    match scan::kind(table, i).1 {
        // SAFETY: The entry keeps the page, as the table is locked.
        Kind::Page(page) | Kind::Already(page) => unsafe { refer(slot, page) },
        Kind::NeedsFault => slot.state = State::NeedsFault,
        Kind::Refused(result) => slot.settle(result),
    }
}

/// Restores one entry, if it still is of the slot's page.
///
/// # Safety
///
/// The folio of the slot's page is locked.
#[inline(always)]
unsafe fn restore_entry(table: &PteTable<'_, '_>, i: usize, slot: &Slot) -> bool {
    match (scan::kind(table, i), slot.page) {
        ((pte, Kind::Already(found)), Some(page)) if found == page => {
            // SAFETY: The VMA is valid, the entry's lock is held, and the folio is locked by this
            // function's safety requirements.
            unsafe {
                bindings::mmops_excl_restore(
                    table.vma().as_ptr(),
                    page.as_ptr(),
                    table.addr_of(i),
                    table.entry_ptr(i),
                    pte.as_raw(),
                )
            };
            true
        }
        _ => false,
    }
}

/// Replaces one entry, if it still is of the slot's page. Returns whether it is exclusive now.
///
/// # Safety
///
/// The folio of the slot's page is locked. The scope is of the table's VMA, and covers the entry.
#[inline(always)]
unsafe fn convert_entry(
    table: &PteTable<'_, '_>,
    i: usize,
    slot: &mut Slot,
    scope: &mut FlushScope<'_>,
) -> bool {
    let (Some(page), Some(folio)) = (slot.page, slot.folio()) else {
        return false;
    };
    let pte = table.value(i);

    if crate::faults::entry_changes() {
        return false;
    }

    // SAFETY: The function computes on the values alone.
    if !unsafe { bindings::mmops_excl_is_of(pte.as_raw(), page.as_ptr()) } {
        match scan::kind(table, i).1 {
            Kind::Already(found) if found == page => {
                // SAFETY: The VMA is valid, and the entry's lock is held.
                slot.state = match unsafe {
                    bindings::mmops_excl_again(
                        table.vma().as_ptr(),
                        table.addr_of(i),
                        table.entry_ptr(i),
                    )
                } {
                    true => State::Exclusive,
                    false => State::Refused(PageResult::Userfaultfd),
                };
            }
            // Neighbours may need its lock.
            Kind::Refused(result) => slot.state = State::Refused(result),
            _ => {}
        }
        return slot.state == State::Exclusive;
    }

    let ptep = table.entry_ptr(i);
    let mm = table.vma().mm_ptr();
    let addr = table.addr_of(i);

    scope.record(addr, 1 << PAGE_SHIFT);
    // SAFETY: The entry is valid and its lock is held; it maps the page.
    let old = unsafe { bindings::mmops_excl_make(mm, addr, ptep, pte.as_raw(), page.as_ptr()) };

    // Whoever pins a page without a lock looks at the entry afterwards.
    // SAFETY: The slot has a reference of the folio.
    if unsafe { bindings::mmops_folio_maybe_pinned(folio.as_ptr()) } {
        // SAFETY: As above; the entry was this one, and the lock was held since.
        unsafe { bindings::mmops_excl_undo(mm, addr, ptep, old) };
        slot.state = State::Refused(PageResult::Pinned);
        return false;
    }
    slot.dirty = Pte::from_raw(old).dirty();
    slot.state = State::Exclusive;
    true
}
