// SPDX-License-Identifier: GPL-2.0

//! Protection of leaves below what their VMA allows: write-notify for a driver's clients.
//!
//! [`protect`] changes the leaves of a range of addresses and leaves the VMAs alone. A CPU that
//! meets the lower protection faults, and the kernel resolves the fault as the VMA says: the page
//! becomes accessible again (after [`Access::NONE`] with it all of the same large folio that the
//! table maps, `numa_rebuild_large_mapping()`), and the driver learns of the access where it takes
//! part in the fault (`page_mkwrite`, `pfn_mkwrite`, `huge_fault`), or by the leaf that is writable
//! again.
//!
//! # Rules
//!
//! - A leaf is changed in place by one atomic exchange. It is never cleared: without the lock a zap
//!   (`MADV_DONTNEED`) would pass over an entry that is none, and the CPU may set accessed and
//!   dirty bits at any time. The new value is made of the value that the exchange returned, and
//!   keeps its accessed, dirty and software bits.
//! - A leaf that vanished, was split or was populated while we looked is looked at again. Each turn
//!   means that somebody else made progress. No page-table lock is held meanwhile.
//! - One TLB flush for the range, over as many VMAs as it has, with the size of the smallest leaf
//!   changed as stride; none if no leaf lost a permission. A call that needs a page table for a
//!   split flushes before it allocates one, and goes on in a new scope. If another operation is
//!   under way on the same mm, all of the range is flushed (see [`crate::tlb`]).
//! - Secondary MMUs are told of single pages, and not as by `mprotect(2)` of a VMA: it allows more
//!   than its leaves do, so who mirrors them has to look at them.
//! - Never above the VMA: asking for more is refused, and a write permission is given back only
//!   where a write fault would do no more than that. Other pages (to be copied, to be announced to
//!   the file system, write-protected by userfaultfd, not soft-dirty yet) are left to the fault.
//! - A leaf that is covered in part is split, and the rest of it keeps its protection; not so a
//!   leaf of a file system with DAX, which is unmapped, nor an anonymous one that permits nothing
//!   ([`Access::NONE`]): where that is split, by a call or by the kernel, the PTEs are as the VMA
//!   says. One of a file that is not present is changed as a whole.
//!
//! # What can be asked for
//!
//! - All that the VMA allows, or that without writing: any VMA, leaves of all sizes.
//! - Nothing ([`Access::NONE`]): anonymous memory and the page cache only. An access is resolved as
//!   a NUMA hinting fault. For page frame maps and DAX the kernel has no such fault at PUD size.
//! - Less than the VMA allows in another way: refused. On a leaf that lost only its right to
//!   execute the kernel takes a fault for spurious, and the CPU would fault forever.
//!
//! # Leaves
//!
//! | leaf | whole | part |
//! |---|---|---|
//! | PTE | in place | |
//! | PMD, anonymous | in place | its deposited PTE table, as `mprotect(2)` |
//! | PMD, page cache | in place | replaced in place by a PTE table |
//! | PMD, page frames | in place; see [`LargeFrames`] | replaced in place by a PTE table |
//! | PUD, page frames | in place; see [`LargeFrames`] | replaced in place by 512 PMD leaves |
//! | PMD or PUD, device-DAX | in place | `EINVAL` |
//! | PMD, file system with DAX | in place | unmapped; faults map it as the VMA says |
//! | not present, to be less than writable | comes back read-only if it was writable; see below | |
//! | hugetlbfs | refused | refused |
//!
//! An entry that is not present comes back as the VMA says where that has no write faults notified,
//! as in shared memory. One of a huge page that is covered in part is split if it is anonymous, and
//! changed as a whole else.
//!
//! userfaultfd-wp and -rwp bits, soft-dirty bits: kept, and obeyed when write permission is given
//! back. A NUMA hint is lost with the change, as by `mprotect(2)`. PUD leaves have neither
//! userfaultfd nor NUMA hints.
//!
//! A page that is mapped anew (reclaimed, migrated, unmapped and faulted in) has the protection of
//! the VMA. A driver that must know subscribes to the events of the range.
//!
//! Source: `[PATCH v3 8/8] mm/mprotect: fix dax pud handlings` (July 2024) with its review, and
//! `mm/mprotect.c`, `change_huge_pmd()`, `change_huge_pud()`.

mod entry;

use crate::{
    bindings,
    mm::MmapRead,
    notifier::ChangeEvent,
    partial::{
        Bytes,
        Partial, //
    },
    pgtable::{
        HugeLevel,
        Leaf,
        PmdTable,
        PteTable, //
    },
    range::{
        AddrRange,
        PMD_SIZE, //
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
use entry::Protection;
use kernel::{
    error::to_result,
    mm::virt::{
        flags,
        vm_flags_t,
        VmaRef, //
    },
    page::PAGE_SHIFT,
    prelude::*, //
};

/// What a CPU may do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(vm_flags_t);

impl Access {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Read.
    pub const READ: Self = Self(flags::READ);
    /// Write.
    pub const WRITE: Self = Self(flags::WRITE);
    /// Execute.
    pub const EXEC: Self = Self(flags::EXEC);

    const ALL: vm_flags_t = flags::READ | flags::WRITE | flags::EXEC;

    /// The access that `PROT_READ`, `PROT_WRITE` and `PROT_EXEC` in `prot` stand for; `None` if
    /// there are other bits.
    pub fn from_prot(prot: u32) -> Option<Self> {
        // As calc_vm_prot_bits(): the bits are the same.
        let flags = prot as vm_flags_t;

        (flags & !Self::ALL == 0).then_some(Self(flags))
    }

    /// What a VMA with these flags allows.
    fn of(flags: vm_flags_t) -> Self {
        Self(flags & Self::ALL)
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What becomes of writable PMD and PUD leaves of page frames (PFN maps) that are to be read-only.
///
/// The kernel resolves a write fault on a PTE itself, but leaves one on a large leaf to
/// `vm_ops->huge_fault` of the driver. That of `vfio-pci` does nothing about a leaf that is there,
/// and the CPU would fault for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LargeFrames {
    /// They are split to PTEs first.
    #[default]
    Split,
    /// They stay: the caller knows that the driver resolves a write fault on one.
    Keep,
}

/// What [`protect`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// PTEs whose protection changed.
    pub ptes: usize,
    /// Leaves of PMD size whose protection changed.
    pub pmds: usize,
    /// Leaves of PUD size whose protection changed.
    pub puds: usize,
    /// Leaves of PMD size that were split.
    pub split_pmds: usize,
    /// Leaves of PUD size that were split.
    pub split_puds: usize,
}

impl Protected {
    /// The numbers of leaves of `size` bytes that were changed, and that were split.
    fn leaves_of(&mut self, size: usize) -> (&mut usize, &mut usize) {
        if size == PMD_SIZE {
            (&mut self.pmds, &mut self.split_pmds)
        } else {
            (&mut self.puds, &mut self.split_puds)
        }
    }
}

/// Gives all leaves in `range` the protection `access`. See the [module](self) for the rules.
///
/// Sleeps. The guard holds the mmap lock, for reading. A fatal signal, or no memory for a page
/// table, ends the call early, which [`Partial::stopped`] tells (`EINTR`, `ENOMEM`).
///
/// # Errors
///
/// Nothing was changed then:
///
/// - `ENOMEM`: not all of the range is mapped;
/// - `EACCES`: a VMA does not allow `access`;
/// - `EOPNOTSUPP`: `access` is less than a VMA allows in a way that no fault would resolve (see the
///   module), or the VMA is one of hugetlbfs or a shadow stack;
/// - `EINVAL`: an end of the range lies inside a leaf that the mapping cannot serve smaller, as for
///   `mprotect(2)`.
///
/// Source: `do_mprotect_pkey()`, `change_protection()`.
///
/// # Examples
///
/// ```
/// use mmops::{
///     mm::{self, MmapRead},
///     protect::{self, Access, LargeFrames},
///     range::AddrRange,
/// };
///
/// # let (pidfd, start, end, prot) = (0, 0, 0, 1);
/// let mm = mm::of_pidfd(pidfd)?;
/// let range = AddrRange::new(start, end)?;
/// // As mprotect(2) has it: PROT_READ, for instance.
/// let access = Access::from_prot(prot).ok_or(EINVAL)?;
/// let protected =
///     protect::protect(&mut MmapRead::lock(&mm), &range, access, LargeFrames::Split)?;
///
/// pr_info!("{} base pages, {} huge ones\n", protected.did.ptes, protected.did.pmds);
/// protected.check()
/// ```
pub fn protect(
    guard: &mut MmapRead<'_>,
    range: &AddrRange,
    access: Access,
    frames: LargeFrames,
) -> Result<Partial<Protected>> {
    guard.for_each_vma(range, |vma, part| check(vma, &part, access))?;

    let mut walker = Protect {
        access,
        frames,
        protected: Protected::default(),
        pos: range.start(),
        tables: match frames {
            LargeFrames::Split => SpareTables::new(),
            LargeFrames::Keep => SpareTables::few(),
        },
    };
    let mut refilled_at = range.start();
    let ret = loop {
        let rest = AddrRange::new(walker.pos, range.end())?;
        let ret = walk_page_range_one_scope(guard, &rest, &mut walker);

        match ret {
            Ok(()) => {
                walker.pos = range.end();
                break Ok(());
            }
            // A leaf is to be split. Leaves before it are done, so each turn gets further.
            Err(e) if e == EAGAIN => {
                if walker.pos != refilled_at {
                    refilled_at = walker.pos;
                    walker.tables.renew();
                }
                walker.tables.refill();
            }
            ret => break ret,
        }
        if walker.pos == range.end() {
            break Ok(());
        }
    };

    let done = Bytes(walker.pos - range.start());

    Ok(Partial::new(walker.protected, done, ret))
}

/// Whether the leaves of `vma` in `part` can be given the protection `access`.
#[inline(never)]
fn check(vma: &VmaRef, part: &AddrRange, access: Access) -> Result {
    let this = Vma::from(vma);
    let allowed = Access::of(this.flags());

    if !allowed.has(access) {
        return Err(EACCES);
    }
    if this.flags() & bindings::VM_HUGETLB as vm_flags_t != 0
        // SAFETY: The VMA is valid.
        || unsafe { bindings::mmops_vma_is_shadow_stack(this.as_ptr()) }
    {
        return Err(EOPNOTSUPP);
    }

    let can_be_asked_for = if access == Access::NONE && allowed != Access::NONE {
        this.is_anonymous() || this.has_page_cache()
    } else {
        access.0 | Access::WRITE.0 == allowed.0 | Access::WRITE.0
    };

    if !can_be_asked_for {
        return Err(EOPNOTSUPP);
    }
    for addr in [part.start(), part.end()] {
        if addr > this.start() && addr < this.end() {
            // SAFETY: The VMA is valid, and `addr` lies in it; the mmap lock is held.
            to_result(unsafe { bindings::mmops_vma_may_split(this.as_ptr(), addr) })?;
        }
    }
    Ok(())
}

struct Protect {
    access: Access,
    frames: LargeFrames,
    protected: Protected,
    /// All before is done.
    pos: usize,
    tables: SpareTables,
}

impl Protect {
    fn protection<'v>(&self, vma: Vma<'v>) -> Protection<'v> {
        // SAFETY: `protect` is the only one to start a walk with this walker, over a range of
        // addresses, which holds the mmap lock.
        unsafe { Protection::new(vma, self.access.0) }
    }

    /// Whether large leaves of page frames in `vma` have to be split.
    fn splits(&self, vma: Vma<'_>) -> bool {
        self.frames == LargeFrames::Split && !self.access.has(Access::WRITE) && vma.is_pfn_map()
    }
}

impl Walk for Protect {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn checkpoint(&mut self, _nr: usize, _scope: &mut Unlocked<'_, '_, Self>) -> Result {
        signal::pending()
    }

    fn pte_table<'s>(
        &mut self,
        table: &mut PteTable<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        let to = self.protection(table.vma());

        self.protected.ptes += table.protect(&to, scope);
        self.pos = table.addr() + (table.nr() << PAGE_SHIFT);
        Ok(Action::Done)
    }

    fn leaf<'s, L: HugeLevel>(
        &mut self,
        leaf: &mut Leaf<'_, 's, L>,
        scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        let vma = leaf.vma();
        let value = leaf.value();
        let split = leaf.is_partial() || self.splits(vma) && value.special() && value.write();

        // A PUD leaf that maps folios is unmapped in any case.
        if split && L::SIZE == PMD_SIZE && !(vma.has_page_cache() || vma.is_pfn_map()) {
            return Ok(Action::Split);
        }
        if split && !leaf.is_softleaf() {
            return Ok(Action::Replace(self.tables.take_for(vma)?.ok_or(ENOMEM)?));
        }
        if leaf.protect(&self.protection(vma), scope) {
            *self.protected.leaves_of(L::SIZE).0 += 1;
        }
        self.pos = leaf.end();
        Ok(Action::Done)
    }

    const PMD_TABLES: bool = true;

    fn pmd_table<'s>(
        &mut self,
        table: &mut PmdTable<'_, 's>,
        scope: &mut FlushScope<'s>,
    ) -> Result<usize> {
        // They are visited one by one.
        if self.splits(table.vma()) {
            return Ok(0);
        }

        let to = self.protection(table.vma());
        let (seen, changed) = table.protect(&to, scope);

        self.protected.pmds += changed;
        if seen != 0 {
            self.pos = table.addr() + seen * PMD_SIZE;
        }
        Ok(seen)
    }

    fn was_split(&mut self, size: usize) {
        *self.protected.leaves_of(size).1 += 1;
    }
}
