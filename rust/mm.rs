// SPDX-License-Identifier: GPL-2.0

//! An address space of a process, held by the mmap lock.

use crate::{
    bindings,
    range::AddrRange, //
};
use kernel::{
    mm::{
        virt::VmaRef,
        MmWithUser,
        MmapReadGuard, //
    },
    prelude::*, //
};

/// A guard of the mmap lock, held for reading, that knows whose lock it is.
///
/// The kernel crate's [`MmapReadGuard`] does not tell its mm, which a walk has to be given.
///
/// # Invariants
///
/// `guard` holds the mmap lock of `mm`.
pub struct MmapRead<'a> {
    mm: &'a MmWithUser,
    guard: MmapReadGuard<'a>,
}

impl<'a> MmapRead<'a> {
    /// Takes the mmap lock of `mm` for reading. Sleeps.
    pub fn lock(mm: &'a MmWithUser) -> Self {
        // INVARIANT: The guard is of `mm`.
        Self {
            mm,
            guard: mm.mmap_read_lock(),
        }
    }

    /// Takes the lock if that needs no sleep.
    pub fn try_lock(mm: &'a MmWithUser) -> Option<Self> {
        // INVARIANT: The guard is of `mm`.
        Some(Self {
            mm,
            guard: mm.mmap_read_trylock()?,
        })
    }

    /// The address space whose lock is held.
    pub fn mm(&self) -> &'a MmWithUser {
        self.mm
    }

    /// All addresses that the process may map.
    #[inline(never)]
    pub fn user_range(&self) -> Result<AddrRange> {
        // SAFETY: The reference keeps the mm valid.
        AddrRange::new(0, unsafe { bindings::mmops_mm_task_size(self.as_ptr()) })
    }

    /// The VMA at an address, if there is one.
    pub fn vma_lookup(&self, addr: usize) -> Option<&VmaRef> {
        self.guard.vma_lookup(addr)
    }

    /// Whether `vma` belongs to the address space whose lock is held.
    pub(crate) fn owns(&self, vma: &VmaRef) -> bool {
        core::ptr::eq(vma.mm().as_raw(), self.mm.as_raw())
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::mm_struct {
        self.mm.as_raw()
    }
}

/// The address space of the current task, or `EINVAL` for a kernel thread.
pub fn current() -> Result<kernel::sync::aref::ARef<MmWithUser>> {
    let task = kernel::current!();

    task.mm().map(Into::into).ok_or(EINVAL)
}
