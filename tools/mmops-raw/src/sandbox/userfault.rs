// SPDX-License-Identifier: GPL-2.0

//! userfaultfd(2) for ranges of the sandbox.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use linux_raw_sys::general::{
    uffdio_api, uffdio_copy, uffdio_range, uffdio_register, uffdio_writeprotect, uffdio_zeropage,
    UFFDIO_REGISTER_MODE_MISSING, UFFDIO_REGISTER_MODE_WP, UFFD_API, UFFD_FEATURE_SIGBUS,
    UFFD_FEATURE_WP_ASYNC, UFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFD_FEATURE_WP_UNPOPULATED,
};
use linux_raw_sys::ioctl::{
    UFFDIO_API, UFFDIO_COPY, UFFDIO_REGISTER, UFFDIO_UNREGISTER, UFFDIO_WRITEPROTECT,
    UFFDIO_ZEROPAGE,
};
use nix::errno::Errno;
use nix::libc;
use rustix::mm::{userfaultfd, UserfaultfdFlags};

use super::span::Span;
use super::{syscall, wide};

/// A userfaultfd for ranges of the sandbox: who faults where a page is missing or protected gets a
/// signal, or `EFAULT` in a call, and nobody waits.
#[derive(Debug)]
pub struct Userfault(OwnedFd);

impl Userfault {
    /// With `wp_async`, a store to a page that is protected makes it writable instead.
    pub fn new(wp_async: bool) -> io::Result<Self> {
        // SAFETY: It is asked to do nothing but below, on ranges of the sandbox.
        let this = Self(unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }?);
        let mut features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
        if wp_async {
            features |= UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED;
        }
        let mut api = uffdio_api {
            api: UFFD_API.into(),
            features: features.into(),
            ioctls: 0,
        };
        this.call(UFFDIO_API, &mut api)?;
        Ok(this)
    }

    /// A call that takes such a structure, and changes memory in the range of the sandbox alone.
    fn call<A>(&self, number: u32, arg: &mut A) -> nix::Result<()> {
        let fd = wide(self.0.as_raw_fd());
        let args = [fd, number.into(), std::ptr::from_mut(arg) as u64, 0, 0, 0];
        syscall(libc::SYS_ioctl, args).map(drop)
    }

    fn range(span: Span) -> nix::Result<uffdio_range> {
        let (start, len) = (span.addr, span.len);
        span.is_inside()
            .then_some(uffdio_range { start, len })
            .ok_or(Errno::EINVAL)
    }

    /// Registers a range: for missing pages, for protected ones, or both.
    pub fn register(&self, span: Span, missing: bool, wp: bool) -> nix::Result<()> {
        let mut mode = 0;
        if missing {
            mode |= UFFDIO_REGISTER_MODE_MISSING;
        }
        if wp {
            mode |= UFFDIO_REGISTER_MODE_WP;
        }
        let mut arg = uffdio_register {
            range: Self::range(span)?,
            mode: mode.into(),
            ioctls: 0,
        };
        self.call(UFFDIO_REGISTER, &mut arg)
    }

    /// Ends that.
    pub fn unregister(&self, span: Span) -> nix::Result<()> {
        let mut arg = Self::range(span)?;
        self.call(UFFDIO_UNREGISTER, &mut arg)
    }

    /// Protects a range, or permits stores again.
    pub fn write_protect(&self, span: Span, protect: bool) -> nix::Result<()> {
        let mut arg = uffdio_writeprotect {
            range: Self::range(span)?,
            mode: protect.into(),
        };
        self.call(UFFDIO_WRITEPROTECT, &mut arg)
    }

    /// Maps zeros where pages are missing.
    pub fn zero(&self, span: Span) -> nix::Result<()> {
        let mut arg = uffdio_zeropage {
            range: Self::range(span)?,
            mode: 0,
            zeropage: 0,
        };
        self.call(UFFDIO_ZEROPAGE, &mut arg)
    }

    /// Maps copies of other pages of the sandbox where pages are missing.
    pub fn copy(&self, from: Span, to: Span) -> nix::Result<()> {
        let (from, to) = (Self::range(from)?, Self::range(to)?);
        let mut arg = uffdio_copy {
            dst: to.start,
            src: from.start,
            len: to.len.min(from.len),
            mode: 0,
            copy: 0,
        };
        self.call(UFFDIO_COPY, &mut arg)
    }
}
