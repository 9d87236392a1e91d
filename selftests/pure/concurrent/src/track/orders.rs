// SPDX-License-Identifier: GPL-2.0

//! Bits that are set and taken at the same time.

use super::bits::{
    Bits,
    Pages, //
};
use core::store_buffer::{
    drain,
    store_late,
    Until, //
};
use shuttle::{
    check_dfs,
    sync::atomic::{
        AtomicU64,
        Ordering, //
    },
    thread, //
};
use std::sync::Arc;

/// Pages of two words.
const ALL: Pages = Pages { first: 60, end: 70 };

fn words(bits: &Bits) -> [u64; 2] {
    let mut words = [0; 2];

    bits.take(&mut words);
    words
}

/// What two threads set is found by one of two takes, one of which runs meanwhile: all of it, and
/// nothing else.
#[test]
fn no_bit_is_lost() {
    check_dfs(
        || {
            let bits = Arc::new(Bits::new(&ALL, false).expect("memory"));
            let set = |first, end| {
                let bits = bits.clone();

                thread::spawn(move || bits.set(&Pages { first, end }))
            };
            let (one, other) = (set(62, 66), set(65, 66));
            let early = words(&bits);

            one.join().expect("no panic");
            other.join().expect("no panic");
            let late = words(&bits);

            assert_eq!(early[0] | late[0], 3 << 62);
            assert_eq!(early[1] | late[1], 3);
        },
        None,
    );
}

/// Whoever takes a bit while another sets it, and finds it there already, sees what that one has
/// stored before; or else the bit is in the next take. The store comes to memory as late as
/// `until` lets it.
fn what_was_stored_is_seen(until: Until, set: fn(&Bits)) {
    check_dfs(
        move || {
            let bits = Arc::new(Bits::new(&ALL, true).expect("memory"));
            let contents = Arc::new(AtomicU64::new(0));
            let (to, stored) = (bits.clone(), contents.clone());
            let setter = thread::spawn(move || {
                store_late(until, move || stored.store(1, Ordering::SeqCst));
                set(&to);
                drain();
            });
            let early = words(&bits);
            let seen = contents.load(Ordering::SeqCst);
            // It was there, or is there now.
            assert_eq!(early, [0xf << 60, 0x3f]);

            setter.join().expect("no panic");
            let late = words(&bits);
            assert!(late == [0, 0] || late == [1 << 60, 0]);
            assert!(seen == 1 || late != [0, 0], "a store is in no epoch");
        },
        None,
    );
}

fn set(bits: &Bits) {
    bits.set(&Pages { first: 60, end: 61 });
}

fn set_words(bits: &Bits) {
    bits.set_words(0, &[1 << 60, 0]);
}

/// Fails if the fence before the look at the bits is missing.
#[test]
fn a_bit_that_is_there_counts_for_who_sets_it() {
    what_was_stored_is_seen(Until::Fence, set);
    what_was_stored_is_seen(Until::Fence, set_words);
}

/// Without the fence.
#[test]
#[should_panic(expected = "a store is in no epoch")]
fn control_no_fence() {
    what_was_stored_is_seen(Until::Drain, set);
}

/// Likewise.
#[test]
#[should_panic(expected = "a store is in no epoch")]
fn control_no_fence_words() {
    what_was_stored_is_seen(Until::Drain, set_words);
}
