// SPDX-License-Identifier: GPL-2.0

//! Sources of `rust/` that several threads are in at once: shuttle runs the tests in all orders of
//! their accesses to atomics.

#![cfg(test)]

// What the sources name `core` has the atomics of shuttle.
extern crate core_of_shuttle as core;

#[allow(dead_code, clippy::all)]
#[path = "../../../../rust/range.rs"]
mod range;

#[allow(dead_code, clippy::all)]
#[path = "../../../../rust/bitmap.rs"]
mod bitmap;

mod track {
    #[allow(dead_code, clippy::all)]
    #[path = "../../../../../rust/track/bits.rs"]
    mod bits;

    mod orders;
}
