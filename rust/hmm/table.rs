// SPDX-License-Identifier: GPL-2.0

//! The page table of a mirror: a maple tree of tables with an entry for each base page.
//!
//! Tables are made before the lock of the mirror is taken, since nothing may be allocated under it,
//! and stay until the mirror goes; entries come and go under it.

use super::HmmPfn;
use crate::{
    bindings,
    range::AddrRange, //
};
use core::cmp;
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    maple_tree::{
        InsertErrorKind,
        MapleTree, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Pages that a table is for: its entries take one page.
pub(super) const TABLE_PAGES: usize = PAGE_SIZE / size_of::<usize>();

/// What a device may do to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
    /// Read and write it while no CPU can: the device's atomic operations are atomic for all.
    Exclusive,
}

/// An entry of the table: a page frame number and an access, or nothing.
#[derive(Clone, Copy, Default)]
struct Entry(usize);

impl Entry {
    const ACCESS_BITS: u32 = 2;

    fn new(pfn: usize, access: Access) -> Self {
        let access = match access {
            Access::Read => 1,
            Access::Write => 2,
            Access::Exclusive => 3,
        };

        Self(pfn << Self::ACCESS_BITS | access)
    }

    fn get(self) -> Option<(usize, Access)> {
        let access = match self.0 & ((1 << Self::ACCESS_BITS) - 1) {
            1 => Access::Read,
            2 => Access::Write,
            3 => Access::Exclusive,
            _ => return None,
        };

        Some((self.0 >> Self::ACCESS_BITS, access))
    }
}

struct Table {
    /// Number of the first page.
    first: usize,
    entries: [Entry; TABLE_PAGES],
}

impl Table {
    /// Removes the entries of pages `first` to `last`.
    fn clear(&mut self, first: usize, last: usize) {
        let from = cmp::max(first, self.first) - self.first;
        let end = cmp::min(last - self.first + 1, TABLE_PAGES);

        if let Some(entries) = self.entries.get_mut(from..end) {
            entries.fill(Entry::default());
        }
    }
}

/// The page table.
///
/// The methods serialize themselves, for the memory of the tables. That an entry is not stale is up
/// to the one that owns the page table: entries are entered and used under the lock that
/// [`PageTable::clear`] is called under.
#[pin_data]
pub(super) struct PageTable {
    #[pin]
    tree: MapleTree<KBox<Table>>,
}

// SAFETY: The tree is changed under its own lock only, and owns its tables, which are `Send`.
unsafe impl Send for PageTable {}

// SAFETY: As above.
unsafe impl Sync for PageTable {}

impl PageTable {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            tree <- MapleTree::new(),
        })
    }

    /// Makes the table that `addr` is in. Sleeps.
    #[inline(never)]
    pub(super) fn prepare(&self, addr: usize) -> Result {
        let page = addr >> PAGE_SHIFT;
        let first = page - page % TABLE_PAGES;

        if self.tree.lock().load(page).is_some() {
            return Ok(());
        }

        // Made in place: it is larger than what should be on a stack.
        let table = KBox::init(
            init!(Table {
                first,
                entries <- pin_init::init_array_from_fn(|_| Entry::default()),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;

        match self
            .tree
            .insert_range(first..first + TABLE_PAGES, table, GFP_KERNEL)
        {
            Ok(()) => Ok(()),
            // Somebody else made it meanwhile.
            Err(error) if matches!(error.cause, InsertErrorKind::Occupied) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Enters the pages found from `addr` on. Its tables have been prepared.
    ///
    /// # Safety
    ///
    /// This is the critical section of the lookup: the lock is held under which entries are used
    /// and cleared, and nothing was invalidated since the pages were looked up at `addr`.
    #[inline(never)]
    pub(super) unsafe fn enter(&self, addr: usize, pfns: &[HmmPfn]) {
        let mut tree = self.tree.lock();

        for (i, found) in pfns.iter().enumerate() {
            let page = (addr >> PAGE_SHIFT) + i;
            let Some(pfn) = found.pfn() else { continue };
            let access = if found.is_write() {
                Access::Write
            } else {
                Access::Read
            };

            if let Some(table) = tree.load(page) {
                if let Some(entry) = table.entries.get_mut(page - table.first) {
                    *entry = Entry::new(pfn, access);
                }
            }
        }
    }

    /// Enters a page that no CPU accesses. Its table has been prepared.
    ///
    /// # Safety
    ///
    /// As for [`Self::enter`]; `pfn` is of the page, whose folio is locked.
    #[inline(never)]
    pub(super) unsafe fn enter_exclusive(&self, addr: usize, pfn: usize) {
        let page = addr >> PAGE_SHIFT;
        let mut tree = self.tree.lock();

        if let Some(table) = tree.load(page) {
            if let Some(entry) = table.entries.get_mut(page - table.first) {
                *entry = Entry::new(pfn, Access::Exclusive);
            }
        }
    }

    /// Removes all entries of a range; allocates nothing and does not sleep.
    #[inline(never)]
    pub(super) fn clear(&self, range: &AddrRange) {
        let first = range.start() >> PAGE_SHIFT;
        let last = (range.end() >> PAGE_SHIFT) - 1;
        let mut tree = self.tree.lock();
        let mut state = tree.ma_state(first, first);

        while let Some(table) = state.find(last) {
            table.clear(first, last);
        }
    }

    /// The page and the access of an entry.
    #[inline(never)]
    pub(super) fn get(&self, addr: usize) -> Option<(usize, Access)> {
        let page = addr >> PAGE_SHIFT;
        let mut tree = self.tree.lock();
        let table = tree.load(page)?;

        table.entries.get(page - table.first)?.get()
    }
}

/// Copies a page out. `EFAULT` if it is not in the kernel's direct map.
///
/// # Safety
///
/// `pfn` is of an entry of a [`PageTable`] that is not stale, and does not become so meanwhile.
#[inline(never)]
pub(super) unsafe fn copy_from(pfn: usize, to: &mut [u8; PAGE_SIZE]) -> Result {
    // SAFETY: The CPU maps the page, or has it exclusive for the device, which keeps it; that it
    // has a `struct page` is what `range_fault()` asserts, and an exclusive page is an anonymous
    // one. CPUs and other devices may store to it meanwhile, which the copying in C allows for.
    copied(unsafe { bindings::mmops_copy_from_pfn(to.as_mut_ptr().cast(), pfn) })
}

fn copied(done: bool) -> Result {
    done.then_some(()).ok_or(EFAULT)
}

/// Copies a page in, and sees to it that the kernel knows of the store.
///
/// # Safety
///
/// As [`copy_from`], and the entry may be written through.
#[inline(never)]
pub(super) unsafe fn copy_to(pfn: usize, from: &[u8; PAGE_SIZE]) -> Result {
    // SAFETY: As above.
    copied(unsafe { bindings::mmops_copy_to_pfn(pfn, from.as_ptr().cast()) })
}
