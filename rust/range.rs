// SPDX-License-Identifier: GPL-2.0

//! Ranges of page offsets and of addresses, checked when they are made, and sizes of leaves.

use core::cmp;
use kernel::{
    page::{
        PAGE_MASK,
        PAGE_SHIFT, //
    },
    prelude::*, //
};

/// Bytes that a PMD leaf maps.
pub const PMD_SIZE: usize = 1 << PMD_SHIFT;
/// Bytes that a PUD leaf maps.
pub const PUD_SIZE: usize = 1 << PUD_SHIFT;

const PMD_SHIFT: usize = 21;
const PUD_SHIFT: usize = 30;

/// A non-empty range of page offsets of an address space.
///
/// # Invariants
///
/// `nr` is not 0, and `first + nr` does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    first: usize,
    nr: usize,
}

impl PageRange {
    /// The range of `nr` pages from page offset `first` on.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `nr` is 0 or the end overflows.
    pub const fn new(first: usize, nr: usize) -> Result<Self> {
        if nr == 0 || first.checked_add(nr).is_none() {
            return Err(EINVAL);
        }
        // INVARIANT: Both conditions were just checked.
        Ok(Self { first, nr })
    }

    /// First page offset.
    #[inline]
    pub const fn first(&self) -> usize {
        self.first
    }

    /// Number of pages, never 0.
    #[inline]
    pub const fn nr(&self) -> usize {
        self.nr
    }

    /// Page offset behind the last page.
    #[inline]
    pub const fn end(&self) -> usize {
        self.first + self.nr
    }

    /// Whether all of the range lies in the `nr` pages from page offset `first` on.
    pub const fn is_within(&self, first: usize, nr: usize) -> bool {
        self.first >= first && self.end() - first <= nr
    }

    /// The part of the range that starts `skip` pages in and has at most `max` pages; `None` if
    /// nothing is left or `max` is 0.
    pub fn part(&self, skip: usize, max: usize) -> Option<Self> {
        let left = self.nr.checked_sub(skip)?;

        Self::new(self.first + skip, cmp::min(left, max)).ok()
    }
}

/// A non-empty, page-aligned range of user addresses, in bytes.
///
/// # Invariants
///
/// `start < end`, and both are multiples of the page size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddrRange {
    start: usize,
    end: usize,
}

impl AddrRange {
    /// The range from `start` to `end`, which is exclusive.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range is empty or wraps, or if an end is not page-aligned.
    pub const fn new(start: usize, end: usize) -> Result<Self> {
        if start >= end || start & !PAGE_MASK != 0 || end & !PAGE_MASK != 0 {
            return Err(EINVAL);
        }
        // INVARIANT: The conditions were just checked.
        Ok(Self { start, end })
    }

    /// First address.
    #[inline]
    pub const fn start(&self) -> usize {
        self.start
    }

    /// First address behind the range.
    #[inline]
    pub const fn end(&self) -> usize {
        self.end
    }

    /// Number of base pages.
    #[inline]
    pub const fn nr_pages(&self) -> usize {
        (self.end - self.start) >> PAGE_SHIFT
    }

    /// Whether all of the range lies in `other`.
    #[inline]
    pub const fn is_within(&self, other: &Self) -> bool {
        self.start >= other.start && self.end <= other.end
    }
}

/// The lowest and the highest of the addresses that were added, as one range.
///
/// This is what a TLB flush or a notifier needs to know of many changed entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    first: usize,
    end: usize,
}

impl Span {
    pub(crate) const EMPTY: Self = Self {
        first: usize::MAX,
        end: 0,
    };

    /// Adds `size` bytes from `addr` on.
    #[inline(always)]
    pub(crate) fn add(&mut self, addr: usize, size: usize) {
        self.first = cmp::min(self.first, addr);
        self.end = cmp::max(self.end, addr.saturating_add(size));
    }

    /// The range that covers everything added and leaves the span empty; `None` if nothing was.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<(usize, usize)> {
        let Self { first, end } = core::mem::replace(self, Self::EMPTY);

        (first < end).then_some((first, end))
    }
}

#[kunit_tests(mmops_range)]
mod tests {
    use super::*;
    use kernel::page::PAGE_SIZE;

    #[test]
    fn page_range_refuses_empty_and_overflow() {
        assert_eq!(PageRange::new(0, 0).err(), Some(EINVAL));
        assert_eq!(PageRange::new(usize::MAX, 1).err(), Some(EINVAL));
        assert_eq!(PageRange::new(1, usize::MAX).err(), Some(EINVAL));
        assert_eq!(
            PageRange::new(usize::MAX - 1, 1).map(|r| r.end()),
            Ok(usize::MAX)
        );
        assert_eq!(
            PageRange::new(0, usize::MAX).map(|r| r.end()),
            Ok(usize::MAX)
        );
    }

    #[test]
    fn page_range_parts_cover_it_once() {
        let range = PageRange::new(7, 1000).unwrap_or(PageRange { first: 0, nr: 1 });
        let mut done = 0;
        let mut next = 7;

        while let Some(part) = range.part(done, 300) {
            assert_eq!(part.first(), next);
            done += part.nr();
            next = part.end();
        }
        assert_eq!(done, 1000);
        assert_eq!(next, 1007);
        assert!(range.part(0, 0).is_none());
        assert!(range.part(1001, 1).is_none());
    }

    #[test]
    fn addr_range_refuses_unaligned_and_wrapping() {
        assert_eq!(AddrRange::new(1, PAGE_SIZE).err(), Some(EINVAL));
        assert_eq!(AddrRange::new(0, PAGE_SIZE + 1).err(), Some(EINVAL));
        assert_eq!(AddrRange::new(PAGE_SIZE, PAGE_SIZE).err(), Some(EINVAL));
        assert_eq!(AddrRange::new(2 * PAGE_SIZE, PAGE_SIZE).err(), Some(EINVAL));
        assert_eq!(
            AddrRange::new(PAGE_SIZE, 4 * PAGE_SIZE).map(|r| r.nr_pages()),
            Ok(3)
        );
    }

    #[test]
    fn span_covers_what_was_added() {
        let mut span = Span::EMPTY;

        assert!(span.take().is_none());
        span.add(5 * PAGE_SIZE, PAGE_SIZE);
        span.add(2 * PAGE_SIZE, PAGE_SIZE);
        span.add(3 * PAGE_SIZE, PAGE_SIZE);
        assert_eq!(span.take(), Some((2 * PAGE_SIZE, 6 * PAGE_SIZE)));
        assert!(span.take().is_none());
    }
}
