// SPDX-License-Identifier: GPL-2.0

//! An address space of a process, held by the mmap lock.

use crate::{
    bindings,
    range::AddrRange, //
};
use core::{
    cmp,
    ptr::NonNull, //
};
use kernel::{
    error::from_err_ptr,
    mm::{
        virt::VmaRef,
        MmWithUser,
        MmapReadGuard, //
    },
    prelude::*,
    sync::aref::ARef, //
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

    /// Calls `f` for each VMA in `range`, in ascending order, with the part of the range that lies in
    /// it.
    ///
    /// # Errors
    ///
    /// `ENOMEM` at the first address of `range` that is not mapped, as `mprotect(2)` and `madvise(2)`
    /// have it; else what `f` returned. What `f` did before stays.
    pub fn for_each_vma(
        &self,
        range: &AddrRange,
        mut f: impl FnMut(&VmaRef, AddrRange) -> Result,
    ) -> Result {
        let mut addr = range.start();

        while addr < range.end() {
            let vma = self.vma_lookup(addr).ok_or(ENOMEM)?;
            let end = cmp::min(vma.end(), range.end());

            f(vma, AddrRange::new(addr, end)?)?;
            addr = end;
        }
        Ok(())
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
pub fn current() -> Result<ARef<MmWithUser>> {
    let task = kernel::current!();

    task.mm().map(Into::into).ok_or(EINVAL)
}

/// The address space of the process behind a pidfd of the current task, which has to be allowed to
/// change it as a debugger does.
///
/// The result keeps the address space alive even if the process ends meanwhile. Sleeps.
///
/// # Errors
///
/// - `EBADF` if `pidfd` is not a pidfd;
/// - `ESRCH` if the process is gone, or is a kernel thread;
/// - `EACCES` if `ptrace(2)` would not be allowed to attach to it;
/// - `EINTR` if a fatal signal came.
///
/// Source: `pidfd_get_task()`, `mm_access()`.
pub fn of_pidfd(pidfd: i32) -> Result<ARef<MmWithUser>> {
    // Other negative numbers stand for the caller itself in pidfd_get_task().
    if pidfd < 0 {
        return Err(EBADF);
    }
    // SAFETY: The function checks the descriptor.
    let mm = from_err_ptr(unsafe { bindings::mmops_mm_of_pidfd(pidfd) })?;
    let mm = NonNull::new(mm).ok_or(ESRCH)?;

    // SAFETY: The function returned a reference to the mm's users, which goes to the result.
    // `MmWithUser` is a transparent wrapper.
    Ok(unsafe { ARef::from_raw(mm.cast()) })
}
