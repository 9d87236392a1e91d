// SPDX-License-Identifier: GPL-2.0

//! Operations on live user page tables, for drivers written in Rust.
//!
//! The crate wraps what C drivers use of `mm/`: walks over the page tables of an address space
//! ([`walk`]), the TLB flush that a removed permission owes ([`tlb`]), the events that secondary
//! MMUs have to see ([`notifier`]), pages that wait for a flush ([`gather`]), and values of
//! page-table entries ([`pgtable`]). On top of it stand the operations themselves: [`dirty`],
//! [`soft_dirty`], [`zap`], [`protect`], [`age`], [`exclusive`] and [`track`], and mirrors for
//! devices ([`hmm`]).
//!
//! A driver uses the operations, or writes one of its own as a [`walk::Walk`]; neither needs
//! `unsafe`. Types carry the rules, in short:
//!
//! - a page-table entry is reachable only through a reference that lives as long as its page-table
//!   lock is held;
//! - an entry loses a permission only against a [`tlb::FlushScope`], which flushes by itself, and
//!   is cleared only with a [`gather::Gather`] in hand, which flushes before it lets pages go;
//! - a walk starts only from a guard of the lock that it needs.
//!
//! # Order of locks and steps
//!
//! ```text
//! i_mmap_rwsem (read) or mmap_lock (read)
//!   mmu_notifier_invalidate_range_start()
//!     inc_tlb_flush_pending()
//!       page-table lock: entries change
//!     TLB flush
//!   mmu_notifier_invalidate_range_end()
//!     dec_tlb_flush_pending()
//! ```
//!
//! A folio whose dirty bit was taken is marked dirty after a TLB flush. When that is depends on the
//! operation:
//!
//! - [`dirty`]: at the end, when `i_mmap_rwsem` is released, under the folio lock. Where more
//!   folios wait than there is room for, some are marked before, after a flush of their own, if
//!   their lock is free.
//! - [`track`]: as [`dirty`], when the mmap lock is released.
//! - [`zap`]: before the page-table lock is released, after a flush under it.
//! - [`exclusive`]: when the folio, which is locked meanwhile, is unlocked: after the end of the
//!   notification, and after the device was programmed.
//! - [`soft_dirty`], [`protect`] and [`age`] leave dirty bits where they are.
//!
//! # Where code stands
//!
//! A call for a few pages spends much of its time on code that the TLB does not know any more after
//! the flush of the call before. So what is not generic and is run by each walk, once or once for a
//! table, stands together in the section `.text.hot`, and not in the order of the source.

pub mod age;
mod bindings;
pub mod bitmap;
pub mod dirty;
pub mod exclusive;
mod faults;
mod filemap;
mod folio;
pub mod gather;
pub mod hmm;
mod inside;
pub mod kthread;
pub mod leaves;
pub mod mapping;
pub mod mm;
mod module_ref;
pub mod notifier;
pub mod partial;
pub mod pgtable;
pub mod protect;
pub mod range;
pub mod signal;
pub mod soft_dirty;
pub mod tlb;
pub mod track;
pub mod vma;
pub mod walk;
mod workqueue;
pub mod zap;

use kernel::prelude::*;

module! {
    type: MmopsModule,
    name: "mmops",
    authors: ["The mmops authors"],
    description: "Operations on live user page tables for Rust drivers",
    license: "GPL",
}

/// Whether the module was built with `MMOPS_FAULTS=1`, for negative controls of tests.
pub const HAS_FAULTS: bool = cfg!(mmops_faults);

/// `ENODEV` on a Xen PV guest, whose page tables are not what the crate takes them for.
struct MmopsModule {
    _workqueue: workqueue::Global,
    _subjects: track::Global,
    // After the subscriptions, whose ends ask what a task is inside of.
    _notifiers: notifier::Global,
    _inside: inside::Global,
    _faults: faults::Files,
}

impl kernel::Module for MmopsModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // SAFETY: The function asks about the CPU alone.
        if unsafe { bindings::mmops_is_xen_pv() } {
            // Entries hold machine frames there, and special ones may have a page.
            return Err(ENODEV);
        }
        // The values are dropped when the module is unloaded or fails to load. Whoever uses the
        // crate keeps it loaded, and gets at nothing of it before this has returned.
        Ok(Self {
            // SAFETY: There is one module, and nothing of the crate runs while it has no value.
            _workqueue: unsafe { workqueue::Global::new()? },
            // SAFETY: As above.
            _subjects: unsafe { track::Global::new()? },
            // SAFETY: As above.
            _notifiers: unsafe { notifier::Global::new()? },
            // SAFETY: As above.
            _inside: unsafe { inside::Global::new()? },
            _faults: faults::Files::new()?,
        })
    }
}
