// SPDX-License-Identifier: GPL-2.0

//! An address space of a process, held by the mmap lock.

use crate::{
    bindings,
    range::AddrRange, //
};
use core::{
    cmp,
    mem::{
        self,
        ManuallyDrop, //
    },
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    mm::{
        virt::VmaRef,
        MmWithUser, //
    },
    prelude::*,
    sync::aref::ARef,
    types::NotThreadSafe, //
};

/// A guard of the mmap lock, held for reading, that knows whose lock it is.
///
/// The kernel crate's guard does not tell its mm, which a walk has to be given.
///
/// What takes page-table locks of the address space takes the guard exclusively: so a callback
/// under such a lock, or the closure of a [gather](crate::gather), has no guard to begin another
/// walk with, which would wait for its own lock. A second guard of the same address space would do
/// as well, and no type forbids it: [`Self::lock`] is not to be called where the lock is held
/// already, nor in such a callback. A kernel with `CONFIG_DEBUG_ATOMIC_SLEEP` or lockdep tells.
///
/// # Invariants
///
/// The current thread holds the mmap lock of `mm`, at least for reading.
pub struct MmapRead<'a> {
    mm: &'a MmWithUser,
    // Locked and unlocked by the same thread.
    _nts: NotThreadSafe,
}

impl<'a> MmapRead<'a> {
    /// Takes the mmap lock of `mm` for reading.
    ///
    /// Sleeps. The caller does not hold the lock already: if somebody waits for it for writing,
    /// whoever takes it twice waits for ever.
    pub fn lock(mm: &'a MmWithUser) -> Self {
        // The value that is returned unlocks.
        mem::forget(mm.mmap_read_lock());
        // INVARIANT: The lock was just taken.
        Self {
            mm,
            _nts: NotThreadSafe,
        }
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
        self.find_vma(addr).filter(|vma| vma.start() <= addr)
    }

    /// The VMA at an address, or the next one behind it.
    pub fn find_vma(&self, addr: usize) -> Option<&VmaRef> {
        // SAFETY: By the type invariants the mmap lock is held.
        let vma = unsafe { kernel::bindings::find_vma(self.as_ptr(), addr) };

        // SAFETY: The VMA is valid for as long as the lock is held, which outlives the borrow.
        (!vma.is_null()).then(|| unsafe { VmaRef::from_raw(vma) })
    }

    /// Calls `f` for each VMA in `range`, in ascending order, with the part of the range that lies
    /// in it. Holes are passed over.
    ///
    /// # Errors
    ///
    /// What `f` returned. What `f` did before stays.
    pub fn for_each_mapped(
        &self,
        range: &AddrRange,
        mut f: impl FnMut(&VmaRef, AddrRange) -> Result,
    ) -> Result {
        let mut addr = range.start();

        while let Some(vma) = self.find_vma(addr) {
            let start = cmp::max(vma.start(), addr);
            let end = cmp::min(vma.end(), range.end());

            if start >= range.end() {
                break;
            }
            f(vma, AddrRange::new(start, end)?)?;
            addr = end;
        }
        Ok(())
    }

    /// Calls `f` for each VMA in `range`, in ascending order, with the part of the range that lies
    /// in it.
    ///
    /// # Errors
    ///
    /// `ENOMEM` at the first address of `range` that is not mapped, as `mprotect(2)` and
    /// `madvise(2)` have it; else what `f` returned. What `f` did before stays.
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

    /// Borrows the lock for what takes page-table locks.
    pub(crate) fn exclusive(&mut self) -> MmapExclusive<'_> {
        // INVARIANT: The guard is borrowed exclusively for the lifetime of the result.
        MmapExclusive(self)
    }
}

impl Drop for MmapRead<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the lock is held by this thread; for writing it is not,
        // since a `MmapWrite` does not drop the guard in it.
        unsafe { bindings::mmops_mmap_read_unlock(self.as_ptr()) };
    }
}

/// The mmap lock, borrowed exclusively from its guard: nobody else begins a walk with that guard
/// meanwhile. A walk takes it by value.
///
/// Not a `&mut MmapRead`, through which a guard could be replaced by another one.
///
/// # Invariants
///
/// The guard is borrowed exclusively for `'g`, and by this value alone.
pub(crate) struct MmapExclusive<'g>(&'g MmapRead<'g>);

impl<'g> MmapExclusive<'g> {
    /// # Safety
    ///
    /// The guard was borrowed exclusively, for longer than `'g`, and nothing else begins a walk
    /// with it during `'g`.
    pub(crate) unsafe fn new_unchecked(guard: &'g MmapRead<'_>) -> Self {
        // INVARIANT: By the function's safety requirements.
        Self(guard)
    }

    /// The same for a shorter time.
    pub(crate) fn reborrow(&mut self) -> MmapExclusive<'_> {
        // INVARIANT: `self` is borrowed exclusively for the lifetime of the result.
        MmapExclusive(self.0)
    }

    /// The guard, for what begins no walk.
    pub(crate) fn guard(&self) -> &'g MmapRead<'g> {
        self.0
    }
}

/// A guard of the mmap lock, held for writing. To look up VMAs, it is as good as [`MmapRead`]; for
/// a walk it is [downgraded](Self::downgrade) first.
///
/// # Invariants
///
/// The current thread holds the mmap lock of the mm for writing.
pub struct MmapWrite<'a>(ManuallyDrop<MmapRead<'a>>);

impl<'a> MmapWrite<'a> {
    /// Takes the mmap lock of `mm` for writing.
    ///
    /// Sleeps. The caller does not hold the lock, for reading or for writing, or it waits for
    /// itself.
    ///
    /// # Errors
    ///
    /// `EINTR` if a fatal signal came.
    #[inline(never)]
    pub fn lock(mm: &'a MmWithUser) -> Result<Self> {
        // SAFETY: The reference keeps the mm valid.
        to_result(unsafe { bindings::mmops_mmap_write_lock_killable(mm.as_raw()) })?;
        // INVARIANT: The lock was just taken.
        Ok(Self(ManuallyDrop::new(MmapRead {
            mm,
            _nts: NotThreadSafe,
        })))
    }

    /// Takes `VM_SOFTDIRTY` from a VMA: from now on stores to it fault until an entry is
    /// soft-dirty.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the VMA is of another mm.
    #[inline(never)]
    pub(crate) fn clear_vma_soft_dirty(&self, vma: &VmaRef) -> Result {
        if !self.owns(vma) {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariants the mmap lock of the VMA's mm is held for writing.
        unsafe { bindings::mmops_vma_clear_soft_dirty(vma.as_ptr()) };
        Ok(())
    }

    /// As [`MmapRead::exclusive`].
    pub(crate) fn exclusive(&mut self) -> MmapExclusive<'_> {
        self.0.exclusive()
    }

    /// Goes on with the lock held for reading; no other writer comes between.
    #[inline(never)]
    pub fn downgrade(self) -> MmapRead<'a> {
        let mut this = ManuallyDrop::new(self);

        // SAFETY: By the type invariants the lock is held for writing.
        unsafe { bindings::mmops_mmap_write_downgrade(this.as_ptr()) };
        // SAFETY: `this` is not used again, and not dropped.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl<'a> Deref for MmapWrite<'a> {
    type Target = MmapRead<'a>;

    fn deref(&self) -> &MmapRead<'a> {
        &self.0
    }
}

impl Drop for MmapWrite<'_> {
    #[inline(never)]
    fn drop(&mut self) {
        // SAFETY: By the type invariants the lock is held for writing.
        unsafe { bindings::mmops_mmap_write_unlock(self.as_ptr()) };
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
/// A process whose main thread has ended lives on with its other threads; then one of these is
/// asked. The result keeps the address space alive even if the process ends meanwhile. Sleeps.
///
/// # Errors
///
/// - `EBADF` if `pidfd` is not a pidfd;
/// - `ESRCH` if all threads of the process have ended, it is a kernel thread, or the pidfd is that
///   of a single thread (`PIDFD_THREAD`) which is not the main one, as for `process_madvise(2)`;
/// - `EACCES` if `ptrace(2)` would not be allowed to attach to it;
/// - `EINTR` if a fatal signal came.
///
/// Source: `pidfd_get_task()`, `mm_access()`, `find_lock_task_mm()`.
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
