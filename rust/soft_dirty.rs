// SPDX-License-Identifier: GPL-2.0

//! Soft-dirty: which pages of a process were stored to since it was asked last.
//!
//! `/proc/PID/clear_refs` clears the soft-dirty bits of a whole address space; here it can be a
//! range as well. They are read from `/proc/PID/pagemap`, bit 55, or by `PAGEMAP_SCAN`.
//!
//! # Rules
//!
//! - A store that is made through an entry after [`clear`] has returned makes it soft-dirty. So the
//!   write permission is taken with the bit, and the TLB is flushed, over what was changed, if any
//!   entry was writable; else not at all, unless somebody else is changing entries of the address
//!   space. Data integrity would need no flush here (see the thread below), exact tracking does.
//! - A page outside the range that reads as soft-dirty before the call does so after it. One that
//!   is clean stays so, unless it is in a leaf that cannot be split and is pinned, writable or
//!   under migration.
//! - Dirty, accessed and uffd-wp bits stay.
//! - What cannot be tracked reads as before and counts as [`Cleared::kept`]: hugetlbfs and PFN
//!   maps, whose entries never fault for this, mixed maps of a driver with large leaves, a leaf
//!   that the range covers in part and that cannot be split, if it is soft-dirty, and new VMAs as
//!   below. C clears `VM_SOFTDIRTY` of all VMAs. Then the first two read as never stored
//!   to, and a store to the third faults for ever if the driver does nothing about it.
//! - A page that is pinned reads as soft-dirty, and is kept: a device may store to it at any time,
//!   and no fault tells; see [`PteTable::clear_soft_dirty`]. C does this for private mappings.
//!
//! What is stored by a kernel that has a plain reference to a page (`get_user_pages()`: ptrace,
//! some drivers) at the time of the call is not seen; Documentation/soft-dirty.rst says more.
//!
//! Source: `[PATCH 4/6] mm: proc: Invalidate TLB after clearing soft-dirty page state` (November
//! 2020) with its review, and `clear_refs_write()`.
//!
//! # Entries
//!
//! - Present PTE, PMD or PUD leaf: in one atomic exchange.
//! - Leaf that the range covers in part: split first. One that cannot be split (DAX) is kept.
//! - Swap entry, marker, device-exclusive entry: the bit alone.
//! - Writable migration or device-private entry: becomes a readable one, or else the page would
//!   come back writable. C leaves it.
//!
//! # Pieces
//!
//! A range is cleared in pieces of 1 GiB of what is mapped, and the mmap lock is dropped between
//! them. A piece is complete in itself: flushed and notified. What is unmapped meanwhile is passed
//! over.
//!
//! # New VMAs
//!
//! A VMA that is new carries `VM_SOFTDIRTY`, and all of it reads as soft-dirty, mapped or not: what
//! was at these addresses before is gone. The flag is taken from a VMA as a whole, under the mmap
//! lock held for writing, and the range of it is one piece however large: entries that are writable
//! and not soft-dirty are left until the last one was visited, and a `fork()` or `mremap()` must
//! not copy or move them to where they are not visited.
//!
//! If the range is only a part of the VMA, the flag is first pushed down to the pages outside the
//! range, once in the life of the VMA, and the VMA is not split. It is done where that costs little
//! however large the VMA is:
//!
//! - Where at most 256 MiB of the VMA lie outside, each entry there becomes soft-dirty, and if all
//!   pages have one the flag can go.
//! - Where at most 16 MiB lie outside, a page of anonymous memory that is not there is mapped for
//!   reading, which gives it the shared zero page, and becomes soft-dirty. A huge one is split
//!   first, since whoever splits it later drops the bit. It costs page tables,
//!   and no memory beside (unless huge pages are on and `use_zero_page` is off, or pages between
//!   are in swap or on a device: these come back). A page of a file that is not there has nowhere
//!   to keep the mark, and to read it in would take memory.
//! - Else the flag stays, and all pages of the VMA in the range are kept.
//!
//! With [`Untouched::Forget`] pages that are not there lose the mark, as if they had been cleared;
//! only PTE tables and leaves that are there count for the 256 MiB, each with all that it covers.
//!
//! A caller who wants every page to be cleared, at no cost, clears a VMA as a whole when it is new.
//! All of its pages were soft-dirty until then, and no store after it goes unseen.

mod entry;
mod new_vma;
mod split;

pub use entry::Cleared;

use crate::{
    faults,
    mm::{
        MmapRead,
        MmapWrite, //
    },
    notifier::ChangeEvent,
    partial::{
        Bytes,
        Partial, //
    },
    pgtable::{
        HugeLevel,
        Leaf,
        PteTable, //
    },
    range::{
        AddrRange,
        PUD_SIZE, //
    },
    signal,
    tlb::FlushScope,
    vma::Vma,
    walk::{
        walk_page_range_one_scope,
        Action,
        SpareTables,
        Unlocked,
        Walk, //
    }, //
};
use core::cmp;
use kernel::{
    mm::{
        virt::flags,
        MmWithUser, //
    },
    page::PAGE_SHIFT,
    prelude::*, //
};
use new_vma::{
    may_lose_flag,
    take_flags, //
};
use split::{
    split_ends,
    splits_zero, //
};

/// Base pages that are visited under the mmap lock before it is dropped: 1 GiB.
const PIECE_PAGES: usize = 1 << 18;

/// What becomes of pages outside the range that are not mapped and read as soft-dirty only because
/// their VMA is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Untouched {
    /// They go on to read as soft-dirty; see [New VMAs](self#new-vmas).
    #[default]
    Keep,
    /// They read as clean from now on, until they are stored to.
    Forget,
}

/// Clears the soft-dirty bits of a range of addresses.
///
/// Sleeps. Takes the mmap lock for reading, once for each piece, and before that for writing where
/// a new VMA loses its flag. A fatal signal ends the call early, which [`Partial::stopped`] tells.
///
/// [`Cleared`] counts no page in a new VMA whose entry was not soft-dirty; and as kept also those
/// of hugetlbfs, of PFN maps and of mixed maps of a driver with large leaves, which go on to read
/// as they did.
///
/// # Errors
///
/// - `ENOMEM` if a part of the range is not mapped;
/// - `EOPNOTSUPP` if the kernel has no soft-dirty bits.
///
/// On each of them no page that read as soft-dirty reads otherwise.
///
/// Source: `clear_refs_write()`.
///
/// # Examples
///
/// ```
/// use mmops::{
///     mm,
///     range::AddrRange,
///     soft_dirty::{self, Untouched},
/// };
///
/// # let (pidfd, start, end) = (0, 0, 0);
/// let mm = mm::of_pidfd(pidfd)?;
/// let range = AddrRange::new(start, end)?;
/// let cleared = soft_dirty::clear(&mm, &range, Untouched::Keep)?;
///
/// pr_info!("{} pages cleared, {} kept\n", cleared.did.cleared, cleared.did.kept);
/// cleared.check()
/// ```
pub fn clear(mm: &MmWithUser, range: &AddrRange, untouched: Untouched) -> Result<Partial<Cleared>> {
    is_supported()?;
    // A hole that comes later is passed over.
    MmapRead::lock(mm).for_each_vma(range, |_, _| Ok(()))?;
    clear_in_pieces(mm, range, untouched)
}

/// Clears the soft-dirty bits of a whole address space. Sleeps, and takes locks as [`clear`].
///
/// # Errors
///
/// `EOPNOTSUPP` as [`clear`].
///
/// Source: `clear_refs_write()`.
pub fn clear_all(mm: &MmWithUser) -> Result<Partial<Cleared>> {
    is_supported()?;

    let range = MmapRead::lock(mm).user_range()?;

    clear_in_pieces(mm, &range, Untouched::Keep)
}

fn is_supported() -> Result {
    if cfg!(CONFIG_MEM_SOFT_DIRTY) {
        Ok(())
    } else {
        Err(EOPNOTSUPP)
    }
}

fn clear_in_pieces(
    mm: &MmWithUser,
    range: &AddrRange,
    untouched: Untouched,
) -> Result<Partial<Cleared>> {
    let mut call = Call {
        range,
        untouched,
        reached: range.start(),
        window: PIECE_PAGES,
        cleared: Cleared::default(),
    };
    let ret = loop {
        if call.reached >= range.end() {
            break Ok(());
        }
        if call.reached > range.start() {
            faults::between_pieces();
        }
        if let Err(e) = signal::interruption().and_then(|()| call.clear_piece(mm)) {
            break Err(e);
        }
    };

    Ok(Partial::new(
        call.cleared,
        Bytes(call.reached - range.start()),
        ret,
    ))
}

/// Whether a walk may end early.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// After so many base pages or a little more, or at a fatal signal.
    Behind(usize),
    /// Only when all is done, as in `clear_refs_write()`: a flag was taken, and until what it stood
    /// for is done some pages read as clean and are not tracked.
    Never,
}

impl Ends {
    /// Counts pages that are to be visited.
    ///
    /// # Errors
    ///
    /// `EINTR` if the walk is to end before them.
    fn visit(&mut self, nr: usize) -> Result {
        if let Self::Behind(left) = self {
            if *left == 0 {
                return Err(EINTR);
            }
            *left = left.saturating_sub(nr);
            signal::pending()?;
        }
        Ok(())
    }
}

/// Whether stores to a VMA make entries soft-dirty.
///
/// Nor do they where a write fault on a large leaf of page frames is left to a driver, which may do
/// nothing about it: such a leaf, and one that comes later by the protection of a VMA without the
/// flag, must not be read-only.
fn is_tracked(vma: Vma<'_>) -> bool {
    vma.flags() & (flags::HUGETLB | flags::PFNMAP) == 0 && !vma.may_mix_large_frames()
}

/// A call, and how far it got.
struct Call<'r> {
    range: &'r AddrRange,
    untouched: Untouched,
    /// Address up to which all is done.
    reached: usize,
    /// Base pages of addresses that the next piece covers. It grows where little of them is mapped.
    window: usize,
    cleared: Cleared,
}

impl Call<'_> {
    /// Clears a piece.
    ///
    /// # Errors
    ///
    /// `EINTR` if a fatal signal came before anything was done.
    fn clear_piece(&mut self, mm: &MmWithUser) -> Result {
        let guard = MmapRead::lock(mm);
        let piece = self.next_piece(&guard, self.window)?;
        let mut takes_flag = false;

        guard.for_each_mapped(&piece, |vma, part| {
            takes_flag |= may_lose_flag(vma, &part, self.untouched);
            Ok(())
        })?;
        if !takes_flag && !splits_zero(&guard, self.range, &piece) {
            return self.clear_locked(guard, &piece, Ends::Behind(PIECE_PAGES));
        }
        drop(guard);

        let mut guard = MmapWrite::lock(mm)?;
        let piece = self.next_piece(&guard, PIECE_PAGES)?;
        let ends = take_flags(&mut guard, &piece, self.untouched)?;

        // A huge zero page does not give its mark to the PTEs that it is split into. Nobody may
        // read them before they have it back.
        split_ends(guard.exclusive(), self.range, &piece)?;
        self.clear_locked(guard.downgrade(), &piece, ends)
    }

    /// What is done under one lock at the most: as many VMAs as make a window, or a part of one. A
    /// VMA that loses its flag is done in whole.
    fn next_piece(&self, guard: &MmapRead<'_>, window: usize) -> Result<AddrRange> {
        let rest = AddrRange::new(self.reached, self.range.end())?;
        let mut nr = 0;
        let mut end = rest.start();

        while let Some(vma) = guard.find_vma(end) {
            let start = cmp::max(vma.start(), end);

            if start >= rest.end() {
                break;
            }

            let part = AddrRange::new(start, cmp::min(vma.end(), rest.end()))?;

            if part.nr_pages() > window - nr {
                let end = if nr > 0 {
                    part.start()
                } else if may_lose_flag(vma, &part, self.untouched) {
                    part.end()
                } else {
                    // Where no leaf of any size reaches beyond.
                    let end = (part.start() + (window << PAGE_SHIFT)).next_multiple_of(PUD_SIZE);

                    cmp::min(end, part.end())
                };

                return AddrRange::new(rest.start(), end);
            }
            nr += part.nr_pages();
            end = part.end();
        }
        Ok(rest)
    }

    /// Clears a piece, or a part of it, in all VMAs that do not carry the flag.
    fn clear_locked(&mut self, mut guard: MmapRead<'_>, piece: &AddrRange, ends: Ends) -> Result {
        let mut walker = Clear {
            result: Cleared::default(),
            reached: piece.start(),
            ends,
            tables: SpareTables::new(),
        };

        split_ends(guard.exclusive(), self.range, piece)?;

        self.reached = loop {
            walker.result.kept = 0;
            walker.ends = ends;
            match walk_page_range_one_scope(&mut guard, piece, &mut walker) {
                // A table was needed to split the leaf at an end.
                Err(e) if e == EAGAIN => walker.tables.refill(),
                Err(e) if e == EINTR => break walker.reached,
                Err(e) => return Err(e),
                Ok(()) => break piece.end(),
            }
        };
        self.window = match walker.ends {
            Ends::Behind(left) if left > PIECE_PAGES / 2 => self.window.saturating_mul(2),
            _ => PIECE_PAGES,
        };

        let cleared = &mut self.cleared;

        cleared.cleared += walker.result.cleared;
        cleared.kept += walker.result.kept;
        if let Ok(done) = AddrRange::new(piece.start(), self.reached) {
            guard.for_each_mapped(&done, |vma, part| {
                if !Clear::wants(vma.into()) {
                    cleared.kept += part.nr_pages();
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

struct Clear {
    result: Cleared,
    /// Address up to which everything is done.
    reached: usize,
    ends: Ends,
    tables: SpareTables,
}

impl Clear {
    fn wants(vma: Vma<'_>) -> bool {
        vma.flags() & flags::SOFTDIRTY == 0 && is_tracked(vma)
    }

    fn add(&mut self, result: Cleared) {
        self.result.cleared += result.cleared;
        self.result.kept += result.kept;
    }
}

impl Walk for Clear {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::SOFT_DIRTY;

    fn test_vma(&mut self, vma: Vma<'_>) -> bool {
        Self::wants(vma)
    }

    fn checkpoint(&mut self, nr: usize, _scope: &mut Unlocked<'_, '_, Self>) -> Result {
        self.ends.visit(nr)
    }

    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        self.add(table.clear_soft_dirty(scope));
        self.reached = table.addr() + (table.nr() << PAGE_SHIFT);
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        if !leaf.is_partial() {
            self.add(leaf.clear_soft_dirty(scope));
        } else {
            if leaf.can_split() {
                if let Some(table) = self.tables.take_for(leaf.vma())? {
                    return Ok(Action::Replace(table));
                }
            }
            if !leaf.is_tracked() {
                // All of it is soft-dirty, or it would not be tracked at all.
                leaf.mark_soft_dirty(scope);
                self.result.kept += leaf.pages()?.nr();
            }
        }
        self.reached = leaf.end();
        Ok(Action::Done)
    }
}
