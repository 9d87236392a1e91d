// SPDX-License-Identifier: GPL-2.0

//! Bits that are set and taken at the same time.

use super::bits::{
    Bits,
    Pages, //
};
use shuttle::{
    check_dfs,
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

/// What is set after a take began to be set is in that one or in the next, whoever finds the bit
/// there already.
#[test]
fn a_bit_that_is_there_counts_for_who_sets_it() {
    check_dfs(
        || {
            let bits = Arc::new(Bits::new(&ALL, true).expect("memory"));
            let other = bits.clone();
            let setter = thread::spawn(move || other.set_words(0, &[1 << 60, 0]));
            let early = words(&bits);
            // It was there, or is there now.
            assert_eq!(early, [0xf << 60, 0x3f]);

            setter.join().expect("no panic");
            let late = words(&bits);
            assert!(late == [0, 0] || late == [1 << 60, 0]);
        },
        None,
    );
}
