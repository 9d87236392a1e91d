// SPDX-License-Identifier: GPL-2.0

//! The queue of a gather.

use super::encoded::{
    EncodedPage,
    PagePtr, //
};
use crate::{
    bindings,
    range::PMD_SIZE, //
};
use core::cmp;
use kernel::{
    alloc::flags::__GFP_NOWARN,
    page::PAGE_SHIFT,
    prelude::*, //
};

/// Slots that need no memory.
pub(crate) const INLINE: usize = 16;

/// Slots of a whole queue: pages that wait for one flush at the most.
const FULL: usize = 4096;

/// Slots for what a PTE table maps, with those that have to stay free.
const TABLE: usize = (PMD_SIZE >> PAGE_SHIFT) + SPARE;

/// Slots that have to be free for a page and its number.
const SPARE: usize = 2;

/// Pages between two looks at whether others have to run, when they are freed.
const FREE_STEP: usize = 512;

/// Encoded pages in the order in which their entries were taken.
///
/// # Invariants
///
/// A slot of a page with [`EncodedPage::NR_NEXT`] is followed by one with a number. The queue owns
/// a reference of each page that it holds. `settled` slots from the first on owe no dirty mark.
/// `len` is at most the number of slots.
pub(super) struct Queue {
    inline: [EncodedPage; INLINE],
    /// Used instead of `inline` if it is not empty.
    large: KVec<EncodedPage>,
    len: usize,
    settled: usize,
}

impl Queue {
    /// A queue for `nr` pages, or as many as it is worth to have. Sleeps.
    pub(super) fn new(nr: usize) -> Self {
        let mut wanted = cmp::min(nr.saturating_add(SPARE), FULL);
        let mut large = KVec::new();

        if crate::faults::gather_no_memory() {
            wanted = 0;
        }

        for size in [wanted, cmp::min(wanted, TABLE)] {
            if size > INLINE {
                if let Ok(slots) =
                    KVec::from_elem(EncodedPage::NONE, size, GFP_KERNEL | __GFP_NOWARN)
                {
                    large = slots;
                    break;
                }
            }
        }
        Self::with(large)
    }

    fn with(large: KVec<EncodedPage>) -> Self {
        Self {
            inline: [EncodedPage::NONE; INLINE],
            large,
            len: 0,
            settled: 0,
        }
    }

    #[inline(always)]
    fn slots(&mut self) -> &mut [EncodedPage] {
        if self.large.is_empty() {
            &mut self.inline
        } else {
            &mut self.large
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn size(&self) -> usize {
        cmp::max(self.large.len(), INLINE)
    }

    pub(super) fn has_room_for_table(&self) -> bool {
        self.len + TABLE <= self.size()
    }

    /// Queues `nr` consecutive pages of one folio. Returns whether a flush is due: there may be no
    /// room for another.
    ///
    /// Without room, which a caller that heeds the result never meets, nothing is queued: the pages
    /// are leaked then, and not freed too early.
    ///
    /// # Safety
    ///
    /// A reference of each of the pages goes over to the queue.
    #[inline(always)]
    pub(super) unsafe fn push(&mut self, page: PagePtr, nr: usize, dirty: bool) -> bool {
        let len = self.len;
        let slots = self.slots();

        if let Some([first, second]) = slots.get_mut(len..).and_then(|s| s.first_chunk_mut()) {
            let single = nr == 1;

            *first = EncodedPage::new(page, dirty, !single);
            if !single {
                *second = EncodedPage::number(nr);
            }
            self.len = len + 1 + usize::from(!single);
        }
        self.len + SPARE > self.size()
    }

    /// Calls `f` with each page that owes a dirty mark, and the number of its pages; then none
    /// does.
    pub(super) fn settle(&mut self, mut f: impl FnMut(PagePtr, usize)) {
        let (settled, len) = (self.settled, self.len);
        let mut slots = self.slots().iter_mut().take(len).skip(settled);

        while let Some(slot) = slots.next() {
            let nr = if slot.has_number() {
                slots.next().map_or(1, |nr| nr.as_number())
            } else {
                1
            };

            if slot.is_dirty() {
                *slot = slot.settled();
                if let Some(page) = slot.page() {
                    f(page, nr);
                }
            }
        }
        // INVARIANT: All slots were looked at.
        self.settled = len;
    }

    /// Takes note that nothing in the queue owes a dirty mark.
    #[inline(always)]
    pub(super) fn mark_settled(&mut self) {
        self.settled = self.len;
    }

    /// Drops the references, and leaves the queue empty. May sleep.
    ///
    /// # Safety
    ///
    /// The TLB is flushed of the entries that the pages were mapped by, and no page owes a dirty
    /// mark.
    pub(super) unsafe fn release(&mut self) {
        let len = core::mem::take(&mut self.len);
        let slots = self.slots();
        let mut start = 0;

        while start < len {
            let mut end = cmp::min(start + FREE_STEP, len);

            // A page is not parted from its number.
            if end < len && slots.get(end - 1).is_some_and(|slot| slot.has_number()) {
                end += 1;
            }
            if let Some(part) = slots.get_mut(start..end) {
                // SAFETY: By this function's safety requirements and the type invariants; the
                // layout of a slot is C's.
                unsafe {
                    bindings::free_pages_and_swap_cache(
                        part.as_mut_ptr().cast(),
                        part.len() as c_int,
                    )
                };
            }
            // SAFETY: Sleeping is allowed here.
            unsafe { bindings::mmops_cond_resched() };
            start = end;
        }
        self.settled = 0;
    }
}

#[kunit_tests(mmops_gather_queue)]
mod tests {
    use super::*;

    fn page(i: usize) -> Option<PagePtr> {
        PagePtr::new(((i + 1) * core::mem::align_of::<bindings::page>()) as *mut _)
    }

    /// Fills a queue as far as it goes, and returns the number of pages that it took.
    fn fill(queue: &mut Queue, nr: usize) -> usize {
        let mut i = 0;

        while let Some(page) = page(i) {
            i += 1;
            // SAFETY: The queues of these tests are never released, so no reference is dropped.
            if unsafe { queue.push(page, nr, i % 2 == 0) } {
                break;
            }
        }
        i
    }

    #[test]
    fn inline_queue_says_when_it_is_full() {
        for (nr, slots) in [(1, 1), (3, 2)] {
            let mut queue = Queue::with(KVec::new());
            let pushed = fill(&mut queue, nr);

            assert!(!queue.has_room_for_table());
            assert!(pushed * slots + SPARE > INLINE);
            assert!(pushed * slots <= INLINE);
            assert_eq!(queue.len, pushed * slots);
        }
    }

    #[test]
    fn settle_finds_each_dirty_page_once() {
        let mut queue = Queue::new(FULL);
        let pushed = fill(&mut queue, 1);
        let (mut seen, mut in_order) = (0, true);

        queue.settle(|page, nr| {
            seen += 1;
            in_order &= super::tests::page(2 * seen - 1) == Some(page) && nr == 1;
        });
        assert_eq!(seen, pushed / 2);
        assert!(in_order);
        queue.settle(|_, _| seen += 1);
        assert_eq!(seen, pushed / 2);
    }

    #[test]
    fn settle_tells_numbers_of_pages() {
        let mut queue = Queue::with(KVec::new());
        let mut seen = 0;

        fill(&mut queue, 7);
        queue.settle(|_, nr| seen += nr);
        assert_eq!(seen, 7 * (INLINE / 2 / 2));
    }

    #[test]
    fn queue_is_no_larger_than_asked_for() {
        assert_eq!(Queue::new(1).size(), INLINE);
        assert_eq!(Queue::new(100).size(), 100 + SPARE);
        assert_eq!(Queue::new(usize::MAX).size(), FULL);
    }
}
