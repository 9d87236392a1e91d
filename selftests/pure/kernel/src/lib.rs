// SPDX-License-Identifier: GPL-2.0

//! What the pure parts of mmops name of the kernel's crate: types and constants, and no behaviour
//! beyond that of a vector whose memory can be refused.

/// C's types, as the kernel has them in Rust.
pub mod ffi {
    pub use core::ffi::{
        c_int,
        c_uint, //
    };

    /// As long as a pointer.
    #[allow(non_camel_case_types)]
    pub type c_ulong = usize;
}

/// Sizes of a page.
pub mod page {
    /// Bits of an address in a page.
    pub const PAGE_SHIFT: usize = 12;
    /// Bytes of a page.
    pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
    /// The bits of an address that name its page.
    pub const PAGE_MASK: usize = !(PAGE_SIZE - 1);
}

/// Errors.
pub mod error {
    /// An error number.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Error(i32);

    impl Error {
        pub(crate) const fn new(errno: i32) -> Self {
            Self(errno)
        }

        /// The number, which is negative.
        pub const fn to_errno(self) -> i32 {
            -self.0
        }
    }

    /// The result of what can fail with one.
    pub type Result<T = (), E = Error> = core::result::Result<T, E>;
}

/// Memory.
pub mod alloc {
    use core::ops::{
        Deref,
        DerefMut, //
    };
    use std::cell::Cell;

    /// What an allocation may do.
    #[derive(Clone, Copy)]
    pub struct Flags;

    impl core::ops::BitOr for Flags {
        type Output = Self;

        fn bitor(self, _other: Self) -> Self {
            self
        }
    }

    /// The flags that are used.
    pub mod flags {
        use super::Flags;

        /// May sleep.
        pub const GFP_KERNEL: Flags = Flags;
        /// As [`GFP_KERNEL`], charged to a memory cgroup.
        pub const GFP_KERNEL_ACCOUNT: Flags = Flags;
        /// Failure is not told.
        pub const __GFP_NOWARN: Flags = Flags;
    }

    /// There is no memory.
    #[derive(Clone, Copy, Debug)]
    pub struct AllocError;

    impl From<AllocError> for crate::error::Error {
        fn from(_error: AllocError) -> Self {
            crate::prelude::ENOMEM
        }
    }

    std::thread_local! {
        static LARGEST: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// From now on this thread gets no vector with more elements than that.
    pub fn set_largest(elements: usize) {
        LARGEST.set(elements);
    }

    /// A vector.
    pub struct KVec<T>(Vec<T>);

    impl<T> KVec<T> {
        /// An empty one.
        pub const fn new() -> Self {
            Self(Vec::new())
        }

        /// One of `nr` equal elements.
        pub fn from_elem(element: T, nr: usize, _flags: Flags) -> Result<Self, AllocError>
        where
            T: Clone,
        {
            if nr > LARGEST.get() {
                return Err(AllocError);
            }
            Ok(Self(vec![element; nr]))
        }

        /// One with room for `nr` elements.
        pub fn with_capacity(nr: usize, _flags: Flags) -> Result<Self, AllocError> {
            if nr > LARGEST.get() {
                return Err(AllocError);
            }
            Ok(Self(Vec::with_capacity(nr)))
        }

        /// Adds an element, or gives it back if there is no room.
        pub fn push_within_capacity(&mut self, element: T) -> Result<(), T> {
            if self.0.len() == self.0.capacity() {
                return Err(element);
            }
            self.0.push(element);
            Ok(())
        }
    }

    /// A vector of any size.
    pub type KVVec<T> = KVec<T>;

    impl<T> Default for KVec<T> {
        fn default() -> Self {
            Self::new()
        }
    }

    impl<T> Deref for KVec<T> {
        type Target = [T];

        fn deref(&self) -> &[T] {
            &self.0
        }
    }

    impl<T> DerefMut for KVec<T> {
        fn deref_mut(&mut self) -> &mut [T] {
            &mut self.0
        }
    }
}

/// What every file uses.
pub mod prelude {
    pub use crate::{
        alloc::{
            flags::{
                GFP_KERNEL,
                GFP_KERNEL_ACCOUNT, //
            },
            KVVec,
            KVec, //
        },
        error::{
            Error,
            Result, //
        },
        ffi::c_int, //
    };
    pub use kunit::kunit_tests;

    /// Out of memory.
    pub const ENOMEM: Error = Error::new(12);
    /// An argument that cannot be.
    pub const EINVAL: Error = Error::new(22);
    /// A signal came.
    pub const EINTR: Error = Error::new(4);
}
