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
        Event,
        Owner, //
    },
    pgtable::PteTable,
    range::AddrRange,
    tlb::FlushScope,
    walk::Vma, //
};
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    mm::virt::VmaRef,
    page::PAGE_SHIFT,
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
///   `Exclusive` or `Refused`, and in no other state.
/// - With `locks`, the slot owns the lock of the folio.
pub(super) struct Slot {
    page: Option<NonNull<bindings::page>>,
    state: State,
    locks: bool,
    dirty: bool,
}

impl Slot {
    const EMPTY: Self = Self {
        page: None,
        state: State::Pending,
        locks: false,
        dirty: false,
    };

    pub(super) fn page(&self) -> Option<NonNull<bindings::page>> {
        self.page
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.state == State::Exclusive
    }

    fn folio(&self) -> Option<NonNull<bindings::folio>> {
        let page = self.page?;

        // SAFETY: By the type invariants the page is referenced.
        NonNull::new(unsafe { bindings::mmops_page_folio(page.as_ptr()) })
    }

    /// Unlocks and lets the page go, and says how far it has come by that.
    fn release(&mut self, state: State) {
        if let Some(folio) = self.folio() {
            if self.locks {
                // SAFETY: By the type invariants the lock is owned.
                unsafe { bindings::mmops_folio_unlock(folio.as_ptr()) };
            }
            // SAFETY: By the type invariants a reference is owned.
            unsafe { bindings::mmops_folio_put(folio.as_ptr()) };
        }
        *self = Self {
            state,
            ..Self::EMPTY
        };
    }

    fn settle(&mut self, result: PageResult) {
        self.release(State::Settled(result));
    }
}

/// Consecutive pages of one VMA.
pub(super) struct Batch {
    slots: KVec<Slot>,
    addr: usize,
}

impl Batch {
    /// Room for `capacity` pages. Sleeps.
    pub(super) fn new(capacity: usize) -> Result<Self> {
        Ok(Self {
            slots: KVec::with_capacity(capacity, GFP_KERNEL)?,
            addr: 0,
        })
    }

    /// Begins anew with `nr` pages from `addr` on, which lie in one VMA.
    pub(super) fn start(&mut self, addr: usize, nr: usize) -> Result {
        self.slots.clear();
        for _ in 0..nr {
            self.slots
                .push_within_capacity(Slot::EMPTY)
                .map_err(|_| EINVAL)?;
        }
        self.addr = addr;
        Ok(())
    }

    pub(super) fn nr(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn addr_of(&self, i: usize) -> usize {
        self.addr + (i << PAGE_SHIFT)
    }

    fn range(&self, first: usize, nr: usize) -> Result<AddrRange> {
        AddrRange::new(self.addr_of(first), self.addr_of(first + nr))
    }

    fn some(&mut self, first: usize, nr: usize) -> &mut [Slot] {
        self.slots.get_mut(first..first + nr).unwrap_or(&mut [])
    }

    /// Whether nothing is left to be done with the pages.
    pub(super) fn is_settled(&self, first: usize, nr: usize) -> bool {
        self.slots
            .iter()
            .skip(first)
            .take(nr)
            .all(|slot| matches!(slot.state, State::Settled(_)))
    }

    pub(super) fn give_up(&mut self, i: usize) {
        for slot in self.some(i, 1) {
            if !matches!(slot.state, State::Settled(_)) {
                slot.settle(PageResult::Busy);
            }
        }
    }

    /// Tells what became of the pages. Returns how many are exclusive.
    pub(super) fn report(&self, results: &mut [PageResult]) -> usize {
        let mut exclusive = 0;

        for (slot, result) in self.slots.iter().zip(results) {
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
            self.scan(guard, vma, first, nr)?;
            if !self.fault_in(guard, first, nr)? {
                break;
            }
        }
        Ok(())
    }

    fn scan(&mut self, guard: &MmapRead<'_>, vma: &VmaRef, first: usize, nr: usize) -> Result {
        let range = self.range(first, nr)?;
        let addr = self.addr;
        let slots = &mut self.slots;

        scan::walk(guard, vma, &range, &mut |table: &mut PteTable<'_, '_>| {
            let start = (table.addr() - addr) >> PAGE_SHIFT;

            for (i, slot) in slots.iter_mut().skip(start).take(table.nr()).enumerate() {
                if matches!(slot.state, State::Pending | State::NeedsFault) {
                    scan_entry(table, i, slot);
                }
            }
        })?;

        // Where there is no page table.
        for slot in self.some(first, nr) {
            if slot.state == State::Pending {
                match scan::kind_of_nothing(vma) {
                    Kind::Refused(result) => slot.settle(result),
                    _ => slot.state = State::NeedsFault,
                }
            }
        }
        Ok(())
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

            let addr = self.addr_of(i);
            // SAFETY: The guard holds the mmap lock.
            let ret = unsafe { bindings::mmops_fault_in_writable(guard.as_ptr(), addr, run) };

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
        owner: Owner,
        first: usize,
        nr: usize,
    ) -> Result<Option<ExclusivePages<'_>>> {
        let (lowest, behind) = self.lock(first, nr)?;

        if lowest >= behind {
            return Ok(None);
        }

        let range = self.range(lowest, behind - lowest)?;
        // SAFETY: The guard keeps the VMA until the function returns.
        let raw = unsafe { Vma::from_raw(NonNull::new(vma.as_ptr()).ok_or(EINVAL)?) };
        // SAFETY: As above; the pages lie in the VMA.
        let mut scope = unsafe { FlushScope::begin(raw, range, Event::Exclusive, owner) };
        let addr = self.addr;
        let slots = &mut self.slots;
        let mut any = false;

        let ret = scan::walk(guard, vma, &range, &mut |table: &mut PteTable<'_, '_>| {
            let start = (table.addr() - addr) >> PAGE_SHIFT;

            for (i, slot) in slots.iter_mut().skip(start).take(table.nr()).enumerate() {
                if slot.state == State::Referenced {
                    any |= convert_entry(table, i, slot, &mut scope);
                }
            }
        });

        scope.flush();
        for slot in self.some(first, nr) {
            if let (true, Some(folio)) = (slot.dirty, slot.folio()) {
                // SAFETY: The folio is referenced and locked.
                unsafe { kernel::bindings::folio_mark_dirty(folio.as_ptr()) };
            }
        }
        drop(scope);

        // Lets go what did not get so far, when it is dropped at the latest.
        let pages = ExclusivePages::new(self, first, nr);

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
        let slots = &mut self.slots;

        scan::walk_tables(guard, vma, &range, &mut |table: &mut PteTable<'_, '_>| {
            let start = (table.addr() - addr) >> PAGE_SHIFT;

            for (i, slot) in slots.iter_mut().skip(start).take(table.nr()).enumerate() {
                if !table.value(i).present() {
                    if let Kind::Already(_) = scan::kind(table, i) {
                        scan_entry(table, i, slot);
                    }
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
        let slots = &mut self.slots;
        let mut restored = 0;

        let ret = with_invalidation(guard.mm(), &range, Event::Clear, Owner::NONE, || {
            scan::walk_tables(guard, vma, &range, &mut |table: &mut PteTable<'_, '_>| {
                let start = (table.addr() - addr) >> PAGE_SHIFT;

                for (i, slot) in slots.iter_mut().skip(start).take(table.nr()).enumerate() {
                    if slot.state == State::Referenced {
                        restored += usize::from(restore_entry(table, i, slot));
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
            let Some(folio) = slot.folio() else { continue };

            // Neighbours are often of one large folio; one lock does.
            if locked != Some(folio) {
                // SAFETY: The slot has a reference of the folio.
                slot.locks = unsafe { bindings::mmops_folio_trylock(folio.as_ptr()) };
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

    /// Unlocks the pages and lets them go; those that are exclusive are settled if `valid`.
    pub(super) fn release(&mut self, first: usize, nr: usize, valid: bool) {
        for slot in self.some(first, nr) {
            match slot.state {
                State::Exclusive if valid => slot.settle(PageResult::Exclusive),
                State::Refused(result) => slot.settle(result),
                State::Settled(_) | State::NeedsFault => {}
                _ => slot.release(State::Pending),
            }
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let nr = self.nr();

        self.release(0, nr, false);
    }
}

/// Looks at one entry, and gets a reference of its page.
fn scan_entry(table: &PteTable<'_, '_>, i: usize, slot: &mut Slot) {
    match scan::kind(table, i) {
        Kind::Page(page) | Kind::Already(page) => {
            // SAFETY: The entry keeps the page, and its lock is held.
            unsafe { bindings::mmops_folio_get(bindings::mmops_page_folio(page.as_ptr())) };
            // INVARIANT: The reference was just got.
            slot.page = Some(page);
            slot.state = State::Referenced;
        }
        Kind::NeedsFault => slot.state = State::NeedsFault,
        Kind::Refused(result) => slot.settle(result),
    }
}

/// Restores one entry, if it still is of the slot's page, whose folio is locked.
fn restore_entry(table: &PteTable<'_, '_>, i: usize, slot: &Slot) -> bool {
    match (scan::kind(table, i), slot.page) {
        (Kind::Already(found), Some(page)) if found == page => {
            // SAFETY: The VMA is valid, the entry's lock is held and the folio is locked.
            unsafe {
                bindings::mmops_excl_restore(
                    table.vma().as_ptr(),
                    page.as_ptr(),
                    table.addr_of(i),
                    table.entry_ptr(i),
                    table.value(i).as_raw(),
                )
            };
            true
        }
        _ => false,
    }
}

/// Replaces one entry, if it still is of the slot's page, whose folio is locked. Returns whether it
/// is exclusive now.
fn convert_entry(
    table: &PteTable<'_, '_>,
    i: usize,
    slot: &mut Slot,
    scope: &mut FlushScope<'_>,
) -> bool {
    let Some(page) = slot.page else { return false };

    match scan::kind(table, i) {
        Kind::Already(found) if found == page => {}
        Kind::Page(found) if found == page => {
            let old = table.value(i);
            let ptep = table.entry_ptr(i);
            let mm = table.vma().mm_ptr();

            scope.record(table.addr_of(i), 1 << PAGE_SHIFT);
            // SAFETY: The entry is valid and its lock is held; it maps the page.
            let old = unsafe {
                bindings::mmops_excl_make(mm, table.addr_of(i), ptep, old.as_raw(), page.as_ptr())
            };

            // Whoever pins a page without a lock looks at the entry afterwards.
            // SAFETY: The slot has a reference of the page.
            if unsafe { bindings::mmops_page_maybe_pinned(page.as_ptr()) } {
                // SAFETY: As above; the entry was this one, and the lock was held since.
                unsafe { bindings::mmops_excl_undo(mm, table.addr_of(i), ptep, old) };
                slot.state = State::Refused(PageResult::Pinned);
                return false;
            }
            slot.dirty = crate::pgtable::Pte::from_raw(old).dirty();
        }
        Kind::Refused(result) => {
            // Neighbours may need its lock.
            slot.state = State::Refused(result);
            return false;
        }
        _ => return false,
    }
    slot.state = State::Exclusive;
    true
}
