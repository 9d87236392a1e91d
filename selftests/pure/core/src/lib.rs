// SPDX-License-Identifier: GPL-2.0

//! The library `core`, but that its atomics are those of `shuttle`, which tries all orders of what
//! threads do with them, and that a store can be late, as it is where a CPU has a store buffer.

pub mod store_buffer;

pub use ::core::*;

/// Synchronization.
pub mod sync {
    pub use ::core::sync::*;

    /// Atomics.
    pub mod atomic {
        pub use crate::store_buffer::fence;
        pub use shuttle::sync::atomic::*;
    }
}
