// SPDX-License-Identifier: GPL-2.0

//! A VMA as a walk over page tables knows it.

use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    mm::virt::{
        vm_flags_t,
        VmaRef, //
    },
    page::PAGE_SHIFT, //
};

/// A VMA that a walk visits.
///
/// Less is known of it than of a [`VmaRef`](kernel::mm::virt::VmaRef): a walk over an address space
/// does not hold the mmap locks, so flags other than the immutable ones may change at any time. Its
/// bounds do not, since `i_mmap_rwsem` or the mmap lock is held.
///
/// # Invariants
///
/// `vma` is valid for `'v`, and so are its mm and its bounds.
#[derive(Clone, Copy)]
pub struct Vma<'v> {
    vma: NonNull<bindings::vm_area_struct>,
    _p: PhantomData<&'v bindings::vm_area_struct>,
}

impl<'v> From<&'v VmaRef> for Vma<'v> {
    #[inline(always)]
    fn from(vma: &'v VmaRef) -> Self {
        // SAFETY: The reference means that the mmap lock or the VMA's own is held, for as long as
        // it lasts: the VMA is valid, and neither its mm nor its bounds change.
        unsafe { Self::from_raw(NonNull::from(vma).cast()) }
    }
}

impl Vma<'_> {
    /// # Safety
    ///
    /// The type invariants hold for as long as `'v`.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(vma: NonNull<bindings::vm_area_struct>) -> Self {
        // INVARIANT: By the function's safety requirements.
        Self {
            vma,
            _p: PhantomData,
        }
    }

    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut bindings::vm_area_struct {
        self.vma.as_ptr()
    }

    #[inline]
    pub(crate) fn mm_ptr(&self) -> *mut bindings::mm_struct {
        // SAFETY: By the type invariants the VMA is valid; `vm_mm` does not change.
        unsafe { (*self.as_ptr()).vm_mm }
    }

    /// The flags as they are now; see [`kernel::mm::virt::flags`].
    #[inline]
    pub fn flags(&self) -> vm_flags_t {
        // SAFETY: By the type invariants the VMA is valid; the helper reads once.
        unsafe { bindings::mmops_vma_flags(self.as_ptr()) as vm_flags_t }
    }

    /// First address.
    #[inline]
    pub fn start(&self) -> usize {
        // SAFETY: By the type invariants the VMA is valid and its bounds do not change.
        unsafe { (*self.as_ptr()).__bindgen_anon_1.__bindgen_anon_1.vm_start }
    }

    /// First address behind the VMA.
    #[inline]
    pub fn end(&self) -> usize {
        // SAFETY: As for `start`.
        unsafe { (*self.as_ptr()).__bindgen_anon_1.__bindgen_anon_1.vm_end }
    }

    /// Page offset, in the file's address space, of the first address.
    #[inline]
    pub fn start_pgoff(&self) -> usize {
        // SAFETY: As for `start`.
        unsafe { bindings::mmops_vma_start_pgoff(self.as_ptr()) }
    }

    /// Page offset, in the file's address space, of an address inside the VMA.
    #[inline(always)]
    pub fn pgoff_of(&self, addr: usize) -> usize {
        (addr.wrapping_sub(self.start()) >> PAGE_SHIFT).wrapping_add(self.start_pgoff())
    }

    /// Whether the VMA has no file.
    #[inline(never)]
    pub(crate) fn is_anonymous(&self) -> bool {
        // SAFETY: By the type invariants the VMA is valid.
        unsafe { bindings::mmops_vma_is_anonymous(self.as_ptr()) }
    }

    /// Whether the VMA maps page frames by their number, without folios or beside them.
    pub(crate) fn is_pfn_map(&self) -> bool {
        self.flags() & (bindings::VM_PFNMAP | bindings::VM_MIXEDMAP) as vm_flags_t != 0
    }

    /// Whether a driver may have mapped page frames in large leaves, in a VMA that may have pages
    /// as well, and has to resolve the write faults on them.
    ///
    /// Source: `wp_huge_pmd()`, `wp_huge_pud()`.
    #[inline(never)]
    pub(crate) fn may_mix_large_frames(&self) -> bool {
        // SAFETY: By the type invariants the VMA is valid.
        unsafe { bindings::mmops_vma_may_mix_large_frames(self.as_ptr()) }
    }

    /// Whether the VMA maps folios of the page cache: a file, and neither DAX nor a PFN map.
    #[inline(never)]
    pub(crate) fn has_page_cache(&self) -> bool {
        !self.is_anonymous()
            // SAFETY: By the type invariants the VMA is valid.
            && !unsafe { bindings::mmops_vma_is_dax(self.as_ptr()) }
            && !self.is_pfn_map()
    }

    /// Whether a file is mapped shared and stores may be permitted by `mprotect`: the VMAs in
    /// which dirty pages can be tracked. hugetlbfs is left out.
    ///
    /// Source: `wp_clean_test_walk()`.
    #[inline]
    pub fn is_shared_maywrite(&self) -> bool {
        const MASK: vm_flags_t =
            (bindings::VM_SHARED | bindings::VM_MAYWRITE | bindings::VM_HUGETLB) as vm_flags_t;
        const WANT: vm_flags_t = (bindings::VM_SHARED | bindings::VM_MAYWRITE) as vm_flags_t;

        self.flags() & MASK == WANT
    }

    /// Whether memory of this mm was ever pinned for DMA. The answer is for good once it is yes.
    #[inline(always)]
    pub(crate) fn may_have_pins(&self) -> bool {
        // SAFETY: By the type invariants the VMA is valid, and so is its mm.
        unsafe { bindings::mmops_mm_has_pins(self.mm_ptr()) }
    }
}

/// A reference to entries of [`Self::vma`] whose page-table lock is held for `'t`.
///
/// # Safety
///
/// The lock is held so.
pub(crate) unsafe trait LockHeld<'t> {
    /// The VMA that the entries belong to.
    fn vma(&self) -> Vma<'t>;
}
