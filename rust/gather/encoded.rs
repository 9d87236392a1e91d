// SPDX-License-Identifier: GPL-2.0

//! A page pointer with a flag in its low bit.

use crate::bindings;
use core::ptr::NonNull;

/// A pointer to a page structure of the kernel; nothing is known of what it points to.
///
/// Not `Debug`, as all here: the kernel's addresses are nobody's business.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct PagePtr(NonNull<bindings::page>);

impl PagePtr {
    #[inline(always)]
    pub(crate) fn new(page: *mut bindings::page) -> Option<Self> {
        NonNull::new(page).map(Self)
    }

    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *mut bindings::page {
        self.0.as_ptr()
    }

    fn addr(self) -> usize {
        self.0.as_ptr() as usize
    }
}

/// One slot of the queue of a gather: a page pointer with two flags in the bits that its alignment
/// leaves, or the number of pages that the slot before it stands for.
///
/// - [`Self::DIRTY`], the low bit: the page owes a dirty mark after the TLB flush.
/// - [`Self::NR_NEXT`]: the next slot holds a number of consecutive pages of one folio.
///
/// The layout is that of C's `struct encoded_page *`, whose low bit delays the removal of rmap.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct EncodedPage(usize);

impl EncodedPage {
    /// The page owes a dirty mark.
    pub(super) const DIRTY: usize = 1 << 0;
    /// The next slot is a number of pages.
    pub(super) const NR_NEXT: usize = 1 << 1;

    const FLAGS: usize = Self::DIRTY | Self::NR_NEXT;
    const NR_SHIFT: u32 = 2;

    /// An unused slot.
    pub(super) const NONE: Self = Self(0);

    /// Encodes a page; `next_nr` says that the next slot is of [`Self::number`].
    #[inline(always)]
    pub(super) fn new(page: PagePtr, dirty: bool, next_nr: bool) -> Self {
        // `|` and not `+`: a pointer that is not aligned, which no page has, spoils a flag alone.
        Self(page.addr() | usize::from(dirty) | usize::from(next_nr) << 1)
    }

    /// Encodes a number of pages.
    #[inline(always)]
    pub(super) fn number(nr: usize) -> Self {
        Self(nr << Self::NR_SHIFT)
    }

    /// Whether the page owes a dirty mark.
    #[inline(always)]
    pub(super) fn is_dirty(self) -> bool {
        self.0 & Self::DIRTY != 0
    }

    /// Whether the next slot is a number of pages.
    #[inline(always)]
    pub(super) fn has_number(self) -> bool {
        self.0 & Self::NR_NEXT != 0
    }

    /// The same page without a debt.
    #[inline(always)]
    pub(super) fn settled(self) -> Self {
        Self(self.0 & !Self::DIRTY)
    }

    /// The page; `None` for an unused slot.
    #[inline(always)]
    pub(super) fn page(self) -> Option<PagePtr> {
        PagePtr::new((self.0 & !Self::FLAGS) as *mut _)
    }

    /// The number of pages, of a slot made by [`Self::number`].
    #[inline(always)]
    pub(super) fn as_number(self) -> usize {
        self.0 >> Self::NR_SHIFT
    }
}

const _: () = assert!(
    core::mem::align_of::<bindings::page>() > EncodedPage::FLAGS,
    "the alignment of a page structure leaves no bits for the flags"
);

#[kernel::prelude::kunit_tests(mmops_gather_encoded)]
mod tests {
    use super::*;
    use core::mem::align_of;

    fn ptr(addr: usize) -> PagePtr {
        PagePtr::new(addr as *mut _).unwrap_or(PagePtr(NonNull::dangling()))
    }

    fn round_trip(addr: usize) -> bool {
        let page = ptr(addr);

        [(false, false), (false, true), (true, false), (true, true)]
            .into_iter()
            .all(|(dirty, next)| {
                let encoded = EncodedPage::new(page, dirty, next);

                encoded.page() == Some(page)
                    && encoded.is_dirty() == dirty
                    && encoded.has_number() == next
                    && encoded.settled() == EncodedPage::new(page, false, next)
            })
    }

    /// More than a million page pointers, each with all flags.
    #[test]
    fn every_pointer_comes_back() {
        let align = align_of::<bindings::page>();
        let first = usize::MAX - (align - 1);
        let bad = (0..1usize << 20)
            .filter(|i| !round_trip(first - i * align) || !round_trip((i + 1) * align))
            .count();

        assert_eq!(bad, 0);
    }

    /// Every alignment that leaves the flags free, up to that of a section of memory.
    #[test]
    fn every_alignment_comes_back() {
        for shift in 2..usize::BITS {
            assert!(round_trip(1 << shift));
            assert!(round_trip(usize::MAX << shift));
        }
    }

    #[test]
    fn numbers_come_back() {
        let bad = (0..1usize << 20)
            .filter(|&nr| {
                let encoded = EncodedPage::number(nr);

                encoded.as_number() != nr || encoded.is_dirty() || encoded.has_number()
            })
            .count();

        assert_eq!(bad, 0);
        assert!(EncodedPage::NONE.page().is_none());
    }
}
