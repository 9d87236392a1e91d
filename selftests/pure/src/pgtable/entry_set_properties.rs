// SPDX-License-Identifier: GPL-2.0

//! Sets of entries, by a set.

use super::entry_set::EntrySet;
use crate::given::check;
use proptest::prelude::*;
use std::collections::BTreeSet;

const ENTRIES: usize = 512;

#[derive(Clone, Debug)]
enum Op {
    Insert(usize),
    Remove(usize),
    /// All of so many from there on.
    Fill(usize, usize),
    /// Those whose index has a bit of that mask stay.
    Retain(usize),
    /// The runs whose number has its bit there go.
    RemoveRuns(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        (0..ENTRIES).prop_map(Op::Insert),
        (0..ENTRIES).prop_map(Op::Remove),
        (0..ENTRIES, 0..200usize).prop_map(|(first, nr)| Op::Fill(first, nr)),
        (0..ENTRIES).prop_map(Op::Retain),
        (0..256usize).prop_map(Op::RemoveRuns),
    ];

    prop::collection::vec(op, 1..40)
}

#[test]
fn entry_set_is_a_set() {
    check(5_000, ops(), |ops| {
        let mut set = EntrySet::EMPTY;
        let mut model = BTreeSet::new();

        for op in ops {
            match op {
                Op::Insert(i) => {
                    set.insert(i);
                    model.insert(i);
                }
                Op::Remove(i) => prop_assert_eq!(set.remove(i), model.remove(&i)),
                Op::Fill(first, nr) => {
                    for i in first..(first + nr).min(ENTRIES) {
                        set.insert(i);
                        model.insert(i);
                    }
                }
                Op::Retain(mask) => {
                    let mut asked = Vec::new();

                    set.retain(|i| {
                        asked.push(i);
                        i & mask != 0
                    });
                    prop_assert!(asked.iter().eq(&model));
                    model.retain(|i| i & mask != 0);
                }
                Op::RemoveRuns(runs) => {
                    let whole = |first: usize| first..first + EntrySet::RUN;
                    let mut asked = Vec::new();

                    set.remove_runs(|first| {
                        asked.push(first);
                        runs >> (first / EntrySet::RUN) & 1 != 0
                    });
                    let expected: Vec<_> = (0..ENTRIES)
                        .step_by(EntrySet::RUN)
                        .filter(|&first| whole(first).all(|i| model.contains(&i)))
                        .collect();
                    prop_assert_eq!(&asked, &expected);
                    for first in expected {
                        if runs >> (first / EntrySet::RUN) & 1 != 0 {
                            model.retain(|i| !whole(first).contains(i));
                        }
                    }
                }
            }
            let mut each = Vec::new();

            set.for_each(|i| each.push(i));
            prop_assert!(each.iter().eq(&model));
            for (n, word) in set.words().iter().enumerate() {
                for bit in 0..64 {
                    prop_assert_eq!(word >> bit & 1 != 0, model.contains(&(n * 64 + bit)));
                }
            }
        }
        Ok(())
    });
}

/// An index that no table has is taken for one that it has.
#[test]
fn no_index_is_outside() {
    check(5_000, any::<usize>(), |i| {
        let mut set = EntrySet::EMPTY;
        let mut each = Vec::new();

        set.insert(i);
        set.for_each(|i| each.push(i));
        prop_assert_eq!(each, [i % ENTRIES]);
        prop_assert!(set.remove(i) && !set.remove(i));
        Ok(())
    });
}
