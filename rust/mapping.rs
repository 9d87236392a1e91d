// SPDX-License-Identifier: GPL-2.0

//! The address space of a file, and the lock that keeps its mappings.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    fs::LocalFile,
    prelude::*,
    sync::aref::ARef,
    types::NotThreadSafe, //
};

/// The address space (`struct address_space`) of an open file that can be mapped shared.
///
/// # Invariants
///
/// `mapping` is `file->f_mapping`, and valid as long as the file is open.
pub struct Mapping {
    mapping: NonNull<bindings::address_space>,
    _file: ARef<LocalFile>,
}

impl Mapping {
    /// The address space of the file behind a descriptor of the current task.
    ///
    /// # Errors
    ///
    /// `EBADF` if `fd` is not an open descriptor; else as [`Self::from_file`].
    pub fn fget(fd: i32) -> Result<Self> {
        let fd = u32::try_from(fd).map_err(|_| EBADF)?;

        Self::from_file(LocalFile::fget(fd)?)
    }

    /// The address space of `file`.
    ///
    /// Does not sleep.
    ///
    /// # Errors
    ///
    /// - `EACCES` if the file is not open for reading and writing;
    /// - `ENODEV` if it cannot be mapped;
    /// - `EOPNOTSUPP` if it is of hugetlbfs, whose page tables have rules of their own.
    pub fn from_file(file: ARef<LocalFile>) -> Result<Self> {
        let raw = file.as_ptr();
        let rw = bindings::FMODE_READ | bindings::FMODE_WRITE;

        // SAFETY: `file` owns a reference, so `raw` is valid.
        if unsafe { bindings::mmops_file_mode(raw) } as usize & rw != rw {
            return Err(EACCES);
        }
        // SAFETY: As above.
        if !unsafe { bindings::mmops_can_mmap_file(raw) } {
            return Err(ENODEV);
        }
        // SAFETY: As above.
        if unsafe { bindings::mmops_is_file_hugepages(raw) } {
            return Err(EOPNOTSUPP);
        }
        // SAFETY: As above; `f_mapping` is set when the file is opened and not changed afterwards.
        let mapping = NonNull::new(unsafe { (*raw).f_mapping }).ok_or(ENODEV)?;

        // INVARIANT: `mapping` was just read from the file, which the value keeps open.
        Ok(Self {
            mapping,
            _file: file,
        })
    }

    /// Takes `i_mmap_rwsem` for reading: no mapping of the file is added or removed meanwhile.
    ///
    /// Sleeps. Taken inside the mmap lock and folio locks, and outside every page-table lock.
    ///
    /// The guard borrows the mapping exclusively, as do operations that take the lock themselves:
    /// whoever takes it twice waits for ever if somebody waits for it for writing. Two `Mapping`s
    /// of one file have the same lock, which no type knows; lockdep does.
    #[inline(never)]
    #[link_section = ".text.hot"]
    pub fn i_mmap_lock_read(&mut self) -> IMmapReadGuard<'_> {
        // SAFETY: By the type invariants the mapping is valid.
        unsafe { bindings::mmops_i_mmap_lock_read(self.as_ptr()) };

        // INVARIANT: The lock was just taken.
        IMmapReadGuard {
            mapping: self,
            _nts: NotThreadSafe,
        }
    }

    /// The raw pointer, valid as long as `self`.
    pub fn as_ptr(&self) -> *mut bindings::address_space {
        self.mapping.as_ptr()
    }
}

/// A guard of `i_mmap_rwsem`, held for reading.
///
/// # Invariants
///
/// The current task owns the lock of `mapping`.
pub struct IMmapReadGuard<'a> {
    mapping: &'a Mapping,
    // The lock is released by the task that took it.
    _nts: NotThreadSafe,
}

impl<'a> IMmapReadGuard<'a> {
    /// The address space whose lock is held.
    pub fn mapping(&self) -> &'a Mapping {
        self.mapping
    }
}

impl Drop for IMmapReadGuard<'_> {
    #[inline(never)]
    #[link_section = ".text.hot"]
    fn drop(&mut self) {
        // SAFETY: By the type invariants the lock is held.
        unsafe { bindings::mmops_i_mmap_unlock_read(self.mapping.as_ptr()) };
    }
}
