// SPDX-License-Identifier: GPL-2.0

//! The library `core`, but that its atomics are those of `shuttle`, which tries all orders of what
//! threads do with them.

pub use ::core::*;

/// Synchronization.
pub mod sync {
    pub use ::core::sync::*;

    /// Atomics.
    pub mod atomic {
        pub use shuttle::sync::atomic::*;
    }
}
