// SPDX-License-Identifier: GPL-2.0

//! The address space that the mappings of a file hang on, and the lock that keeps them.
//!
//! The VMAs of a file hang on the address space (`struct address_space`) of `vma->vm_file`, and
//! that need not be the file that was opened: `mmap` may put another one into the VMA. So what is
//! right depends on the kind of the file:
//!
//! | file | address space |
//! |---|---|
//! | regular file, memfd, shared memory of System V | that of its inode |
//! | regular file of overlayfs | that of the inode in the upper layer |
//! | regular file of eCryptfs | that of its inode, whose pages are its own |
//! | regular file of another stacked file system (FUSE with passthrough), of Coda | refused |
//! | regular file with an address space of a device (`resource0` of PCI) | refused |
//! | block device | that of the device |
//! | character device | what its driver chose (device-DAX, `/dev/mem`, vfio), or of its inode |
//! | `/dev/zero`, devices of DRM and accel: what is mapped has a file of its own | refused |
//! | no type, and an inode of its own (dma-buf, io_uring) | that of the inode |
//! | no type, and the inode that strangers share (perf event, KVM) | refused |
//! | the same, with an address space that the driver chose (vfio) | that one |
//!
//! A character device whose driver chose none when it was opened has one for each node in `/dev`.
//! A dma-buf that DRM has exported has the address space, and the page offsets, of its device, and
//! is refused too.
//!
//! # overlayfs
//!
//! What is open for writing was copied up when it was opened, and stays in the upper layer for as
//! long as the inode exists. So each mapping that may write is one of the inode in the upper layer,
//! and a [`Mapping`], which takes a file that is open for writing, is right for good. A file that
//! was opened for reading before the copy-up keeps its mappings of the lower layer. They cannot
//! write, and are no mappings of the file that is written.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use crate::{
    bindings,
    inside::below_i_mmap, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    fs::LocalFile,
    prelude::*,
    sync::aref::ARef,
    types::NotThreadSafe, //
};

/// The address space (`struct address_space`) that shared mappings of an open file hang on.
///
/// # Invariants
///
/// `mapping` is embedded in `host`, or was chosen for it by the driver of a device, and lives as
/// long as `host`, of which the value owns a reference.
pub struct Mapping {
    mapping: NonNull<bindings::address_space>,
    host: NonNull<bindings::inode>,
    // Its mount keeps the file system, so that no inode outlives that.
    _file: ARef<LocalFile>,
}

// SAFETY: References to a file and to an inode may be dropped by any task. The file is used for
// nothing else, so it does not matter that it may be in use at its position elsewhere.
unsafe impl Send for Mapping {}

// SAFETY: A shared reference gives the address of the mapping alone.
unsafe impl Sync for Mapping {}

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

    /// The address space that shared mappings of `file` hang on; see the [module](self).
    ///
    /// May sleep, and so may dropping the value.
    ///
    /// # Errors
    ///
    /// - `EACCES` if the file is not open for reading and writing;
    /// - `ENODEV` if it cannot be mapped, or is going away;
    /// - `EOPNOTSUPP` if it is of hugetlbfs, whose page tables have rules of their own, or if it
    ///   cannot be known what its mappings hang on, or strangers share that.
    #[inline(never)]
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

        // SAFETY: As above, and it is open for writing.
        let mapping = unsafe { mmap_mapping(raw) }?;
        // SAFETY: The open file keeps the mapping until here; `host` does not change.
        let host = NonNull::new(unsafe { (*mapping.as_ptr()).host }).ok_or(ENODEV)?;
        // SAFETY: A mapping does not outlive its host, so that is valid. It can be on its way out.
        let host = NonNull::new(unsafe { kernel::bindings::igrab(host.as_ptr()) }).ok_or(ENODEV)?;

        // INVARIANT: `mapping` is one of `host`, of which a reference was just taken.
        Ok(Self {
            mapping,
            host,
            _file: file,
        })
    }

    /// Takes `i_mmap_rwsem` for reading while `f` runs: no mapping of the file is added or removed
    /// meanwhile.
    ///
    /// Sleeps. Taken inside the mmap lock and folio locks, and outside every page-table lock.
    ///
    /// The mapping is borrowed exclusively, as by operations that take the lock themselves: whoever
    /// takes it twice waits for ever if somebody waits for it for writing. Whoever invalidates may
    /// wait for the lock: so what waits for the end of invalidations is refused in `f` (`EDEADLK`).
    ///
    /// # Errors
    ///
    /// `EDEADLK` if the current task has the lock of a file by this function already, is in the
    /// callback of a subscriber, whose caller may have it, or in the function that programs a
    /// device for exclusive pages; else what `f` returns.
    #[inline(always)]
    pub fn i_mmap_lock_read<R>(
        &mut self,
        f: impl FnOnce(&mut IMmapReadGuard<'_>) -> Result<R>,
    ) -> Result<R> {
        below_i_mmap(|| f(&mut self.lock()))
    }

    /// Not generic, so that only mmops.ko takes the lock.
    #[inline(never)]
    #[link_section = ".text.hot"]
    fn lock(&mut self) -> IMmapReadGuard<'_> {
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

impl Drop for Mapping {
    #[inline(never)]
    fn drop(&mut self) {
        // SAFETY: By the type invariants the value owns a reference. The file is closed later, so
        // the file system is still there.
        unsafe { kernel::bindings::iput(self.host.as_ptr()) };
    }
}

/// What the VMAs of a file hang on that is mapped shared, or `EOPNOTSUPP`.
///
/// # Safety
///
/// `file` is open for reading and writing.
unsafe fn mmap_mapping(file: *mut bindings::file) -> Result<NonNull<bindings::address_space>> {
    // SAFETY: The file is open. `f_inode` does not change; `f_mapping` does for a file of Coda
    // alone, which is refused. Both are kept by the file.
    let (inode, mapping) = unsafe { ((*file).f_inode, (*file).f_mapping) };
    // SAFETY: The file keeps its inode, and that its superblock. The fields do not change.
    let (mode, magic) = unsafe { (u32::from((*inode).i_mode), (*(*inode).i_sb).s_magic) };

    match mode & bindings::INODE_TYPE {
        bindings::INODE_REGULAR => {
            let data = if magic == bindings::OVERLAYFS_MAGIC {
                // SAFETY: The file is open, and for writing, so it has been copied up. It keeps
                // its dentry, which keeps the one in the upper layer and its inode.
                unsafe { bindings::mmops_d_real_inode(file) }
            } else {
                inode
            };

            // SAFETY: The file keeps the inode, and that its superblock.
            let (own, chosen, depth, magic) = unsafe {
                let sb = (*data).i_sb;

                (
                    &raw mut (*data).i_data,
                    (*data).i_mapping,
                    (*sb).s_stack_depth,
                    (*sb).s_magic,
                )
            };

            // FUSE has a depth from the moment that it may pass files through.
            if magic == bindings::CODA_MAGIC || depth > 0 && magic != bindings::ECRYPTFS_MAGIC {
                return Err(EOPNOTSUPP);
            }
            if !ptr::eq(own, chosen) || ptr::eq(data, inode) && !ptr::eq(own, mapping) {
                return Err(EOPNOTSUPP);
            }
            NonNull::new(own).ok_or(ENODEV)
        }
        bindings::INODE_CHAR_DEVICE => {
            // SAFETY: As above.
            let device = unsafe { (*inode).i_rdev };
            let major = device >> bindings::DEVICE_MINOR_BITS;

            if device == bindings::DEVICE_ZERO
                || major == bindings::MAJOR_DRM
                || major == bindings::MAJOR_ACCEL
            {
                return Err(EOPNOTSUPP);
            }
            NonNull::new(mapping).ok_or(ENODEV)
        }
        bindings::INODE_BLOCK_DEVICE => NonNull::new(mapping).ok_or(ENODEV),
        _ => {
            // SAFETY: As above; `S_PRIVATE` is set before an inode is seen, if at all.
            let (own, flags) = unsafe { (&raw mut (*inode).i_data, (*inode).i_flags) };
            // An inode of one's own in this file system is not private; see
            // `anon_inode_make_secure_inode()`.
            let shared =
                magic == bindings::ANON_INODE_MAGIC && flags & bindings::INODE_PRIVATE != 0;

            if shared == ptr::eq(own, mapping) {
                return Err(EOPNOTSUPP);
            }
            NonNull::new(mapping).ok_or(ENODEV)
        }
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
