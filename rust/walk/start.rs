// SPDX-License-Identifier: GPL-2.0

//! The calls of the C walks.

use crate::{
    bindings,
    mapping::IMmapReadGuard,
    mm::MmapExclusive,
    range::{
        AddrRange,
        PageRange, //
    }, //
};
use kernel::{
    error::to_result,
    prelude::*, //
};

/// # Safety
///
/// `private` is what the callbacks of `ops` expect, and nothing else refers to it.
#[inline(never)]
#[link_section = ".text.hot"]
pub(super) unsafe fn mapping(
    guard: &mut IMmapReadGuard<'_>,
    range: &PageRange,
    ops: &bindings::mm_walk_ops,
    private: *mut c_void,
) -> Result {
    // SAFETY: The guard holds `i_mmap_rwsem`; `private` by this function's requirements.
    let ret = unsafe {
        bindings::walk_page_mapping(
            guard.mapping().as_ptr(),
            range.first(),
            range.nr(),
            ops,
            private,
        )
    };

    // Not a call of the kernel's crate where there is nothing to convert.
    if ret == 0 {
        Ok(())
    } else {
        to_result(ret)
    }
}

/// # Safety
///
/// As [`mapping`].
#[inline(never)]
pub(super) unsafe fn range(
    guard: MmapExclusive<'_>,
    range: &AddrRange,
    ops: &bindings::mm_walk_ops,
    private: *mut c_void,
) -> Result {
    let mm = guard.guard().as_ptr();

    // SAFETY: The guard holds the mmap lock; `private` by this function's requirements.
    to_result(unsafe { bindings::walk_page_range(mm, range.start(), range.end(), ops, private) })
}

/// # Safety
///
/// As [`mapping`].
#[inline(never)]
pub(super) unsafe fn range_vma(
    guard: MmapExclusive<'_>,
    range: &AddrRange,
    ops: &bindings::mm_walk_ops,
    private: *mut c_void,
) -> Result {
    let vma = guard.guard().vma_lookup(range.start()).ok_or(EINVAL)?;

    // SAFETY: The guard holds the mmap lock of the VMA's mm, so the VMA stays; the function
    // checks the range; `private` by this function's requirements.
    to_result(unsafe {
        bindings::walk_page_range_vma(vma.as_ptr(), range.start(), range.end(), ops, private)
    })
}
