// SPDX-License-Identifier: GPL-2.0

//! Dirty tracking of shared mappings: write-protect, and clean with a record.
//!
//! # Rules
//!
//! - All mappings of the range count, in all processes that map the file shared and may write.
//!   Private mappings are not touched.
//! - [`write_protect`]: an entry keeps its dirty state. After the call no entry that it met permits
//!   stores, and a store through one faults, for as long as the entry is what it is: see
//!   [below](#how-a-write-permission-comes-back).
//! - [`clean_record`]: an entry that is dirty when the call begins is recorded; one that becomes
//!   dirty later is recorded, stays dirty, or both. No entry is cleaned without a record.
//! - Both flush the TLB before they return, and flush all of the range if another operation is
//!   under way on the same mm (see [`crate::tlb`]).
//! - Dirty state that was taken out of an entry is given to the folio after the flush, so that
//!   writeback and reclaim know of every store; C drops it. All blocks of the folio are marked, not
//!   only the folio. Where no folio can be pinned until then, the entry gets its dirty bit back. A
//!   caller that writes the data back itself asks for [`Transfer::Skip`].
//! - [`clean_record`]: a page that is pinned for DMA is recorded, dirty or not, where a process
//!   maps it that has ever pinned memory.
//!
//! Source: `[PATCH v5 4/8] mm: Add write-protect and clean utilities for address space ranges`
//! (October 2019) with its review, and `mm/mapping_dirty_helpers.c`.
//!
//! # How a write permission comes back
//!
//! By a write fault, which is what a caller of [`write_protect`] waits for. But whenever the kernel
//! makes an entry anew, it has the permissions of its VMA (`vm_page_prot`). Where the file system
//! wants to be told of the first store to a page (ext4, XFS and others: `page_mkwrite`, or dirty
//! pages are accounted), or while soft-dirty bits are tracked in the VMA, those do not include
//! stores: the entry is read-only, and the promise holds. On tmpfs, a memfd, shared anonymous
//! memory and page frames they do, and a page becomes writable **without a write fault** by
//!
//! - a read fault, which maps up to 16 pages around it too, where nothing was mapped when the call
//!   came by, or the page was unmapped since (reclaim, `MADV_DONTNEED`, a new mapping, `fork`);
//! - migration (compaction, NUMA balancing, memory that goes bad or offline);
//! - `MADV_COLLAPSE` and khugepaged, a NUMA hint, `mprotect` to read-only and back;
//! - userfaultfd, when a page is mapped or its own write protection is removed;
//!
//! and everywhere by a write fault that was under way, which ends after the call, and by `mprotect`
//! and a NUMA hint where the entry is dirty. A page that became writable so is dirty when it is
//! stored to, and [`clean_record`] records the store: whoever must not miss one asks that too.
//!
//! # What [`clean_record`] does not record
//!
//! It reads the dirty bits of the entries that are there. A change of the file is not recorded if
//! the bit went elsewhere before the call: to the folio, where the kernel unmaps the page, though
//! the memory stays mapped as the process sees it. The file loses nothing, only its tracker does:
//!
//! - collapse: `MADV_COLLAPSE`, khugepaged;
//! - a PMD leaf of a file that the kernel splits, which unmaps all of it: `mprotect()`, `munmap()`,
//!   `mremap()`, `mlock()` or `madvise()` of a part;
//! - a large folio that is split: a hole that is punched, a truncation, memory that fails or goes
//!   offline;
//! - `MADV_DONTNEED`, `MADV_PAGEOUT`, reclaim, and [`zap`](crate::zap), of the page or of a part of
//!   its leaf;
//! - `munmap()`, and the end of the process;
//! - writeback of a disk file system;
//! - a [tracker](crate::track) of the file, or of a process that maps the page, which takes the bit
//!   for itself;
//! - migration, on a machine whose migration entries have no room for a dirty bit.
//!
//! Nor if there never was one, since the store went through no entry of the file's mappings:
//!
//! - `write()` to the file;
//! - stores to memory that was pinned or looked up: `O_DIRECT`, fixed buffers of io_uring, RDMA,
//!   VFIO, `process_vm_writev()`, `/proc/PID/mem`, `ptrace()`. What is pinned while a harvest is
//!   running is recorded as above, and once more by the next harvest if its entry permits stores;
//!   what is pinned and let go between two is not. Nor is a pin that was made through the file
//!   alone (udmabuf), or whose process has unmapped the page;
//! - stores of a virtual machine: they go through the page tables of KVM.
//!
//! `selftests/harvest_contract.c` and `harvest_pinned.c` have a test of each but `ptrace()`, RDMA,
//! VFIO and udmabuf, and `kvm.c` has that of a virtual machine.
//!
//! # Leaves
//!
//! - PTE: in place; one page.
//! - PMD and PUD leaf of folios: in place, and counted in base pages; [`clean_record`] sets a bit
//!   for each base page. C warns and skips them.
//! - The same that the range covers in part: [`write_protect`] protects all of it and counts the
//!   pages in the range. [`clean_record`] records these pages and leaves the leaf dirty, since the
//!   bitmap has no bits for the others.
//! - PMD and PUD leaf of page frames (a PFN map): [`write_protect`] splits it to PTEs, in place. A
//!   write fault on a large leaf is its driver's business, which may leave the leaf alone
//!   (`vfio_pci_mmap_huge_fault()` does), and then the CPU faults for ever; that of a PTE is
//!   resolved by the kernel. [`clean_record`] takes the dirty bit in place. One that the range
//!   covers in part, or that lies across the end of a piece, since its page offset is not congruent
//!   to its address, is split first; without memory for that it is as a leaf of folios.
//! - PMD leaf of the page cache, with [`Huge::Split`]: replaced by a PTE table, then as PTEs.
//! - Special entry: as any other; there is no folio to mark.
//! - Entry that is not present: left alone, as by C. A page that is under migration when
//!   [`write_protect`] comes to it has afterwards the permissions of its VMA, as above. hugetlbfs:
//!   no [`Mapping`] can be made of it.

mod clean_record;
mod entry;
mod pieces;
mod write_protect;

pub use pieces::{
    next_piece,
    PIECE_PAGES, //
};

pub(crate) use clean_record::{
    clean_record_groups_queue,
    clean_record_leaf_queue,
    clean_record_table_queue,
    make_room,
    QUEUE_FOLIOS, //
};
pub(crate) use write_protect::take_write;

use crate::{
    bindings,
    bitmap::RecordBitmap,
    folio::DirtyQueue,
    inside::may_lock_folios,
    mapping::Mapping,
    partial::{
        Pages,
        Partial, //
    },
    range::PageRange,
    walk::{
        walk_page_mapping,
        SpareTables, //
    }, //
};
use clean_record::CleanRecord;
use core::cmp;
use kernel::prelude::*;
use write_protect::WriteProtect;

/// What becomes of huge leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Huge {
    /// They stay, and are handled in place.
    #[default]
    Keep,
    /// They are split first, so that the call and later stores are tracked in base pages.
    ///
    /// A PMD leaf that maps the page cache is replaced in place by a PTE table. It stays as it is
    /// if there is no memory for the table, or if others have made new leaves in the same 1 GiB a
    /// million times, and so do all other huge leaves.
    Split,
}

impl Huge {
    fn tables(self) -> SpareTables {
        match self {
            Huge::Keep => SpareTables::none(),
            Huge::Split => SpareTables::new(),
        }
    }
}

/// Who marks a folio dirty whose dirty bit was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transfer {
    /// [`clean_record`], after the TLB flush.
    #[default]
    ToFolio,
    /// Nobody: the caller writes the data back itself.
    ///
    /// For files of a file system that writes back. It has marked the folio when the entry became
    /// writable, and takes that mark only together with the write permission of all entries: until
    /// then reclaim leaves the page alone. So that no store comes after that, the TLB is flushed
    /// before the page-table lock is released, for each PTE table or huge leaf that had something
    /// dirty. And for files of ramfs, whose pages are never reclaimed.
    Skip,
}

impl Transfer {
    /// Whether it can be asked for with this file.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for [`Transfer::Skip`] and a file that is not written back: of tmpfs, a memfd,
    /// a device. Where the dirty bit is the only note of a store, reclaim drops a page without it,
    /// and the page comes back as it was before the store, or zeroed.
    ///
    /// Source: `mapping_can_writeback()`.
    pub fn check(self, mapping: &Mapping) -> Result {
        if self == Transfer::ToFolio || is_ramfs(mapping) {
            return Ok(());
        }
        // SAFETY: The mapping is valid as long as the reference.
        if unsafe { bindings::mmops_mapping_can_writeback(mapping.as_ptr()) } {
            Ok(())
        } else {
            Err(EOPNOTSUPP)
        }
    }
}

fn is_ramfs(mapping: &Mapping) -> bool {
    // SAFETY: The mapping is valid as long as the reference.
    unsafe { bindings::mmops_mapping_is_ramfs(mapping.as_ptr()) }
}

/// What [`write_protect`] or [`clean_record`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Base pages whose leaf was changed, summed over all mappings of the range.
    pub pages: usize,
}

/// Write-protects all leaves that map `range` of a file shared. The [module](self) says for how
/// long that holds.
///
/// Returns the number of leaves, in base pages, that were writable.
///
/// Sleeps; takes `i_mmap_rwsem` for reading. A fatal signal, or no memory for the page tables of a
/// split leaf of page frames, ends the call early, which [`Partial::stopped`] tells (`EINTR`,
/// `ENOMEM`).
///
/// # Errors
///
/// `EDEADLK` in the callback of a subscriber, below `i_mmap_rwsem`, and in the function that
/// programs a device for exclusive pages.
///
/// Source: `wp_shared_mapping_range()`.
///
/// # Examples
///
/// ```
/// use mmops::{
///     dirty::{self, Huge},
///     mapping::Mapping,
///     range::PageRange,
/// };
///
/// # let fd = 0;
/// let mut mapping = Mapping::fget(fd)?;
/// let range = PageRange::new(0, 512)?;
/// let protected = dirty::write_protect(&mut mapping, &range, Huge::Split)?;
///
/// pr_info!("{} of {} pages were writable\n", protected.did.pages, protected.done.0);
/// // A fatal signal ends the call early.
/// protected.check()
/// ```
pub fn write_protect(
    mapping: &mut Mapping,
    range: &PageRange,
    huge: Huge,
) -> Result<Partial<Changed, Pages>> {
    may_lock_folios()?;

    let mut walker = WriteProtect {
        changed: 0,
        tables: huge.tables(),
        frame_tables: SpareTables::new(),
    };
    let (done, ret) = pieces::for_each(mapping, range, |mapping, piece| {
        walker.tables.renew();
        walker.frame_tables.renew();
        loop {
            let ret =
                mapping.i_mmap_lock_read(|guard| walk_page_mapping(guard, piece, &mut walker));

            walker.tables.refill();
            walker.frame_tables.refill();
            match ret {
                // More tables were needed. What is split already stays, so each turn gets further.
                Err(e) if e == EAGAIN => continue,
                ret => break ret,
            }
        }
    });

    let changed = Changed {
        pages: walker.changed,
    };

    Ok(Partial::new(changed, done, ret))
}

/// Takes the dirty bit from all leaves that map `range` of a file shared, and sets the bit of each
/// such page in `bitmap`. [What it does not record](self#what-clean_record-does-not-record) is in
/// the description of the module.
///
/// Returns the number of leaves, in base pages, that were dirty and lost the bit, or that the range
/// covers in part.
///
/// A page that is pinned for DMA is recorded, and its leaf becomes or stays dirty if it is
/// writable. That is looked for in the mappings of processes that have ever pinned memory; all of a
/// large folio counts as pinned, and so may a page that another harvest is at work on.
///
/// Sleeps; takes `i_mmap_rwsem` for reading, and folio locks. A fatal signal ends the call early,
/// which [`Partial::stopped`] tells; the bits of what was cleaned are set in any case. It also ends
/// the wait for a folio lock: a kernel thread then marks the folio when the lock is free.
/// `mmops.ko` is not unloaded before.
///
/// # Errors
///
/// - `EDEADLK` as [`write_protect`];
/// - `EINVAL` if the bitmap does not cover the range;
/// - as [`Transfer::check`];
/// - `ENOMEM` if there is no memory for the queue of folios.
///
/// Nothing was changed then.
///
/// Source: `clean_record_shared_mapping_range()`.
///
/// # Examples
///
/// ```
/// use mmops::{
///     bitmap::{RecordBitmap, BITS_PER_WORD},
///     dirty::{self, Huge, Transfer},
///     mapping::Mapping,
///     range::PageRange,
/// };
///
/// # let fd = 0;
/// let mut mapping = Mapping::fget(fd)?;
/// let range = PageRange::new(0, 512)?;
/// let mut words = KVec::from_elem(0u64, range.nr().div_ceil(BITS_PER_WORD), GFP_KERNEL)?;
/// let mut record = RecordBitmap::new(&mut words, range.first());
///
/// let cleaned =
///     dirty::clean_record(&mut mapping, &range, &mut record, Huge::Keep, Transfer::ToFolio)?;
///
/// pr_info!("dirty pages are within bits {} to {}\n", record.start(), record.end());
/// cleaned.check()
/// ```
pub fn clean_record(
    mapping: &mut Mapping,
    range: &PageRange,
    bitmap: &mut RecordBitmap<'_>,
    huge: Huge,
    transfer: Transfer,
) -> Result<Partial<Changed, Pages>> {
    may_lock_folios()?;
    if !bitmap.covers(range) {
        return Err(EINVAL);
    }
    transfer.check(mapping)?;

    let queue = match transfer {
        Transfer::ToFolio => DirtyQueue::new(cmp::min(range.nr(), QUEUE_FOLIOS))?,
        Transfer::Skip => DirtyQueue::none(),
    };
    let mut walker = CleanRecord {
        changed: 0,
        kept: 0,
        bitmap,
        tables: huge.tables(),
        frame_tables: SpareTables::few(),
        transfer,
        flush_locked: transfer == Transfer::Skip
            && !is_ramfs(mapping)
            && !crate::faults::flush_late(),
        queue,
    };
    let (done, ret) = pieces::for_each(mapping, range, |mapping, piece| {
        let mut kept = 0;

        walker.tables.renew();
        walker.frame_tables.renew();
        loop {
            walker.kept = 0;
            let ret =
                mapping.i_mmap_lock_read(|guard| walk_page_mapping(guard, piece, &mut walker));

            // The scopes of the walk have flushed, and `i_mmap_rwsem` is released.
            walker.queue.transfer();
            walker.tables.refill();
            walker.frame_tables.refill();
            kept = cmp::max(kept, walker.kept);
            match ret {
                // The queue was full of folios whose lock was taken, or more tables were needed.
                // What is cleaned or split already is not found again, so each turn gets further.
                Err(e) if e == EAGAIN => continue,
                ret => {
                    walker.changed += kept;
                    break ret;
                }
            }
        }
    });

    let changed = Changed {
        pages: walker.changed,
    };

    Ok(Partial::new(changed, done, ret))
}
