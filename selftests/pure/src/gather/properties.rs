// SPDX-License-Identifier: GPL-2.0

//! The queue of a gather, by a list of the pages in it.

use super::{
    encoded::{
        EncodedPage,
        PagePtr, //
    },
    queue::{
        Queue,
        INLINE, //
    }, //
};
use crate::{
    bindings::{
        Call,
        CALLS, //
    },
    given::{
        check,
        edgy, //
    }, //
};
use kernel::alloc::set_largest;
use proptest::prelude::*;

/// Slots of the largest queue, and those that the entries of a PTE table take.
const FULL: usize = 4096;
const TABLE: usize = 512 + 2;
/// Slots that are let go in one call, and one more for the number of the last.
const STEP: usize = 512;

/// Each address that leaves the flags free comes back, with them; and C's bits are those.
#[test]
fn encoded_pages_come_back() {
    check(
        50_000,
        (edgy(), any::<bool>(), any::<bool>()),
        |(addr, dirty, next)| {
            let addr = addr / 4 * 4;
            let Some(page) = PagePtr::new(addr as *mut _) else {
                prop_assert_eq!(addr, 0);
                return Ok(());
            };
            let encoded = EncodedPage::new(page, dirty, next);
            // SAFETY: It is a number.
            let raw: usize = unsafe { std::mem::transmute(encoded) };

            prop_assert_eq!(raw, addr + usize::from(dirty) + 2 * usize::from(next));
            prop_assert!(encoded.page() == Some(page));
            prop_assert_eq!((encoded.is_dirty(), encoded.has_number()), (dirty, next));
            prop_assert!(encoded.settled() == EncodedPage::new(page, false, next));
            Ok(())
        },
    );
}

/// A number has neither flag, and is its own for all that a folio may have of pages.
#[test]
fn encoded_numbers_come_back() {
    check(50_000, edgy(), |nr| {
        let nr = nr >> 2;
        let encoded = EncodedPage::number(nr);

        prop_assert_eq!(encoded.as_number(), nr);
        prop_assert_eq!((encoded.is_dirty(), encoded.has_number()), (false, false));
        Ok(())
    });
}

#[derive(Clone, Debug)]
enum Op {
    /// So often, of folios with so many pages.
    Push(usize, usize, bool),
    Settle,
    /// As for pages of which none was dirty.
    MarkSettled,
    Release,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let nr = prop_oneof![Just(1), 2..5usize, Just(512)];
    let times = prop_oneof![1..4usize, 500..530usize, 1..5000usize];
    let op = prop_oneof![
        6 => (times, nr, any::<bool>()).prop_map(|(times, nr, dirty)| Op::Push(times, nr, dirty)),
        2 => Just(Op::Settle),
        1 => Just(Op::MarkSettled),
        1 => Just(Op::Release),
    ];

    prop::collection::vec(op, 1..10)
}

/// A page of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    addr: usize,
    nr: usize,
    dirty: bool,
}

fn slots_of(list: &[Page]) -> usize {
    list.iter().map(|page| 1 + usize::from(page.nr > 1)).sum()
}

/// What the kernel has to be called with to let the pages go: C's `encode_page()` and
/// `encode_nr_pages()`.
fn words_of(list: &[Page]) -> Vec<usize> {
    list.iter()
        .flat_map(|page| match page.nr {
            1 => vec![page.addr],
            nr => vec![page.addr | 2, nr << 2],
        })
        .collect()
}

/// As many slots as there is memory for: all, those of a table, or the inline ones.
fn size_of(nr: usize, largest: usize) -> usize {
    let wanted = nr.saturating_add(2).min(FULL);

    [wanted, wanted.min(TABLE)]
        .into_iter()
        .find(|&size| size <= largest)
        .map_or(INLINE, |size| size.max(INLINE))
}

#[test]
fn queue_is_a_list() {
    let nr = prop_oneof![0..40usize, 500..520usize, 0..5000usize, edgy()];
    let largest = prop_oneof![Just(usize::MAX), 0..5000usize, Just(20), Just(600)];

    check(2_000, (nr, largest, ops()), |(nr, largest, ops)| {
        set_largest(largest);
        let mut queue = Queue::new(nr);
        let size = size_of(nr, largest);
        let mut list: Vec<Page> = Vec::new();
        let mut addr = 0;
        let mut leaked = 0;

        for op in ops {
            match op {
                Op::Push(times, nr, dirty) => {
                    for i in 0..times {
                        let dirty = dirty && i % 3 != 0;
                        let page = {
                            addr += 64;
                            PagePtr::new(addr as *mut _).expect("not null")
                        };
                        // Where nobody heeds that it is full, nothing is queued.
                        if slots_of(&list) + 2 <= size {
                            list.push(Page { addr, nr, dirty });
                        } else {
                            leaked += 1;
                        }
                        // SAFETY: There is no reference.
                        let due = unsafe { queue.push(page, nr, dirty) };

                        prop_assert_eq!(due, slots_of(&list) + 2 > size);
                        if leaked > 3 {
                            break;
                        }
                    }
                }
                Op::Settle => settle(&mut queue, &mut list)?,
                Op::MarkSettled => {
                    if list.iter().all(|page| !page.dirty) {
                        queue.mark_settled();
                    }
                }
                Op::Release => {
                    settle(&mut queue, &mut list)?;
                    release(&mut queue, &mut list)?;
                    leaked = 0;
                }
            }
            prop_assert_eq!(queue.is_empty(), list.is_empty());
            prop_assert_eq!(queue.has_room_for_table(), slots_of(&list) + TABLE <= size);
        }
        settle(&mut queue, &mut list)?;
        release(&mut queue, &mut list)
    });
}

/// Each page that owes a mark is told once, in order.
fn settle(queue: &mut Queue, list: &mut [Page]) -> Result<(), TestCaseError> {
    let mut told = Vec::new();
    let owed: Vec<_> = list
        .iter()
        .filter(|page| page.dirty)
        .map(|page| (page.addr, page.nr))
        .collect();

    queue.settle(|page, nr| told.push((page.as_ptr() as usize, nr)));
    prop_assert_eq!(told, owed);
    for page in list {
        page.dirty = false;
    }
    Ok(())
}

/// Each page is let go once, none is parted from its number, and others get to run in between.
fn release(queue: &mut Queue, list: &mut Vec<Page>) -> Result<(), TestCaseError> {
    CALLS.with_borrow_mut(Vec::clear);
    // SAFETY: There are no entries and no references, and nothing is owed.
    unsafe { queue.release() };

    let mut freed = Vec::new();
    let mut may_run = true;
    for call in CALLS.take() {
        match call {
            Call::Free(slots) => {
                prop_assert!(may_run);
                prop_assert!(!slots.is_empty() && slots.len() <= STEP + 1);
                prop_assert_eq!(slots.last().expect("not empty") & 2, 0);
                freed.extend(slots);
                may_run = false;
            }
            Call::Resched => may_run = true,
        }
    }
    prop_assert!(may_run);
    prop_assert_eq!(freed, words_of(list));
    prop_assert!(queue.is_empty());
    list.clear();
    Ok(())
}

/// All sizes, with all that memory may be had for near the steps.
#[test]
fn queue_has_the_room_that_was_asked_for() {
    for nr in (0..40).chain(500..520).chain(4085..4105) {
        for largest in [0, 16, 17, nr, nr + 2, TABLE - 1, TABLE, FULL - 1, FULL] {
            set_largest(largest);
            let mut queue = Queue::new(nr);
            let mut pushed = 1;

            // SAFETY: There is no reference.
            while !unsafe { queue.push(PagePtr::new(64 as *mut _).expect("not null"), 1, false) } {
                pushed += 1;
            }
            assert_eq!(pushed + 1, size_of(nr, largest), "of {nr} with {largest}");
        }
    }
}
