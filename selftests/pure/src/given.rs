// SPDX-License-Identifier: GPL-2.0

//! Arguments at random.

use proptest::{
    prelude::*,
    test_runner::{
        Config,
        RngSeed,
        TestCaseResult,
        TestRunner, //
    }, //
};
use std::env;

/// Tries `property` with so many values. What fails is told with the smallest value found.
///
/// The values are the same in each run, but for another seed in `MMOPS_SEED`.
#[track_caller]
pub(crate) fn check<S: Strategy>(
    cases: u32,
    values: S,
    property: impl Fn(S::Value) -> TestCaseResult,
) {
    let seed = env::var("MMOPS_SEED").map_or(1, |seed| seed.parse().expect("MMOPS_SEED"));
    let config = Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    };

    if let Err(error) = TestRunner::new(config).run(&values, property) {
        panic!("seed {seed}: {error}");
    }
}

/// Numbers, those often where something ends: near 0, near powers of two and near the largest.
pub(crate) fn edgy() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..200usize,
        (0..usize::BITS, 0..3usize).prop_map(|(bit, more)| (1usize << bit).wrapping_add(more) - 1),
        (0..200usize).prop_map(|less| usize::MAX - less),
        any::<usize>(),
    ]
}
