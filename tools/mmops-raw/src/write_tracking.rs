// SPDX-License-Identifier: GPL-2.0

//! Asynchronous write protection by userfaultfd, and `PAGEMAP_SCAN`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub use linux_raw_sys::general::{
    page_region, pm_scan_arg, PAGE_IS_WRITTEN, PM_SCAN_CHECK_WPASYNC, PM_SCAN_WP_MATCHING,
};
use linux_raw_sys::general::{
    uffdio_api, uffdio_range, uffdio_register, uffdio_writeprotect, UFFDIO_REGISTER_MODE_WP,
    UFFD_API, UFFD_FEATURE_WP_ASYNC, UFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFD_FEATURE_WP_UNPOPULATED,
};
use rustix::mm::{userfaultfd, UserfaultfdFlags};

use crate::ioctl::{arguments, ioctl, place};
use crate::Memory;

/// To protect, not to permit again.
const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1 << 0;

/// The pages of this process, for `PAGEMAP_SCAN`.
#[derive(Debug)]
pub struct Pagemap(File);

impl Pagemap {
    /// Opens `/proc/self/pagemap`.
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }
}

impl AsFd for Pagemap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Addresses that are registered for asynchronous write protection: a store makes its page writable
/// again, and is not noticed by who makes it.
#[derive(Debug)]
pub struct Registration {
    // Closing it ends the registration.
    uffd: private::Uffd,
    range: uffdio_range,
}

impl Registration {
    /// Registers a mapping. Should it end first, its addresses are no longer registered.
    pub fn new(memory: &Memory) -> io::Result<Self> {
        // SAFETY: It is asked to do nothing but below: no fault is given to anybody, and no
        // contents change.
        let uffd = private::Uffd(unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }?);
        let features =
            UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
        let mut api = uffdio_api {
            api: UFFD_API.into(),
            features: features.into(),
            ioctls: 0,
        };
        ioctl(&uffd, &mut api, (), ())?;
        let (start, len) = memory.place();
        let mut register = uffdio_register {
            range: uffdio_range { start, len },
            mode: UFFDIO_REGISTER_MODE_WP.into(),
            ioctls: 0,
        };
        ioctl(&uffd, &mut register, (), ())?;
        Ok(Self {
            uffd,
            range: register.range,
        })
    }

    /// Write-protects all pages that are registered.
    pub fn protect(&self) -> io::Result<()> {
        let mut protect = uffdio_writeprotect {
            range: self.range,
            mode: UFFDIO_WRITEPROTECT_MODE_WP,
        };
        ioctl(&self.uffd, &mut protect, (), ())?;
        Ok(())
    }
}

mod private {
    use super::*;

    /// A userfaultfd, which nobody outside of this file has.
    #[derive(Debug)]
    pub struct Uffd(pub(super) OwnedFd);

    impl AsFd for Uffd {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    const fn number<A>(nr: u8) -> u32 {
        nix::request_code_readwrite!(0xaa, nr, size_of::<A>()) as u32
    }

    arguments! {
        Uffd:
        uffdio_api, number::<uffdio_api>(0x3f), (), (), |_, (), ()| {};
        uffdio_register, number::<uffdio_register>(0x00), (), (), |_, (), ()| {};
        uffdio_writeprotect, number::<uffdio_writeprotect>(0x06), (), (), |_, (), ()| {};
    }
}

const PAGEMAP_SCAN: u32 = nix::request_code_readwrite!(b'f', 16, size_of::<pm_scan_arg>()) as u32;

arguments! {
    Pagemap:
    pm_scan_arg, PAGEMAP_SCAN, (), &'a mut [page_region],
        |arg, (), regions| (arg.vec, arg.vec_len) = place(regions);
}
