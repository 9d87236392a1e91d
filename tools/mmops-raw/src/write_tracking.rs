// SPDX-License-Identifier: GPL-2.0

//! Asynchronous write protection by userfaultfd, and `PAGEMAP_SCAN`.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

pub use linux_raw_sys::general::{
    page_region, pm_scan_arg, PAGE_IS_WRITTEN, PM_SCAN_CHECK_WPASYNC, PM_SCAN_WP_MATCHING,
};
use linux_raw_sys::general::{
    uffdio_api, uffdio_range, uffdio_register, uffdio_writeprotect, UFFDIO_REGISTER_MODE_WP,
    UFFD_API, UFFD_FEATURE_WP_ASYNC, UFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFD_FEATURE_WP_UNPOPULATED,
};
use nix::errno::Errno;
use rustix::mm::{userfaultfd, UserfaultfdFlags};

use crate::ioctl::{arguments, ioctl, place};
use crate::Memory;

/// To protect, not to permit again.
const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1 << 0;

/// The pages of a process, for `PAGEMAP_SCAN`.
#[derive(Debug)]
pub struct Pagemap(File);

impl Pagemap {
    /// Opens `/proc/self/pagemap`.
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Opens that of a process.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/pagemap")).map(Self)
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
        let (start, len) = memory.place();
        let range = uffdio_range { start, len };
        start_asynchronous(&uffd)?;
        register(&uffd, range)?;
        Ok(Self { uffd, range })
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

/// A userfaultfd for asynchronous write protection that another process has made, of its memory.
#[derive(Debug)]
pub struct ProcessUffd(private::Uffd);

impl ProcessUffd {
    /// Takes one that nobody has used yet.
    ///
    /// # Errors
    ///
    /// `ENOTTY` if it is something else.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let file = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        if file.as_os_str() != "anon_inode:[userfaultfd]" {
            return Err(Errno::ENOTTY.into());
        }
        let uffd = private::Uffd(fd);
        start_asynchronous(&uffd)?;
        Ok(Self(uffd))
    }

    /// Registers addresses of the process, all of which have to be mapped; again, if they are.
    pub fn register(&self, range: Range<u64>) -> io::Result<()> {
        let (start, len) = (range.start, range.end.saturating_sub(range.start));
        register(&self.0, uffdio_range { start, len })
    }
}

/// Has a userfaultfd give no fault to anybody, but note which pages are written.
fn start_asynchronous(uffd: &private::Uffd) -> io::Result<()> {
    let features =
        UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    let mut api = uffdio_api {
        api: UFFD_API.into(),
        features: features.into(),
        ioctls: 0,
    };
    ioctl(uffd, &mut api, (), ())?;
    Ok(())
}

fn register(uffd: &private::Uffd, range: uffdio_range) -> io::Result<()> {
    let mut register = uffdio_register {
        range,
        mode: UFFDIO_REGISTER_MODE_WP.into(),
        ioctls: 0,
    };
    ioctl(uffd, &mut register, (), ())?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_userfaultfd_is_refused() {
        let file = File::open("/proc/self/pagemap").unwrap();
        let error = ProcessUffd::new(file.into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ENOTTY as i32));
    }
}
