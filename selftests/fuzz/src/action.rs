// SPDX-License-Identifier: GPL-2.0

//! What the threads of a program do.

use mmops_raw::sandbox::{Life, Place, Span};

use crate::request::{File, Request};

/// What is mapped, of files by their number in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Private memory of no file.
    Anonymous,
    /// Shared memory of no file.
    SharedAnonymous,
    /// A file from this page on, shared.
    Shared(usize, u64),
    /// A file from this page on, private.
    Private(usize, u64),
}

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A call of a device; `spoilt`, if a field is not zero that has to be.
    Ioctl {
        /// The open file.
        file: File,
        /// The call.
        request: Request,
        /// Where its argument is.
        place: Place,
        /// Whether it has to fail for a reserved field.
        spoilt: bool,
    },
    /// `mmap(2)`: where, what, the protection, and whether it is populated.
    Map(Span, What, i32, bool),
    /// `mmap(2)` of all of the part for leaves of PUD size, with this protection.
    MapBig(i32),
    /// `munmap(2)`
    Unmap(Span),
    /// `mprotect(2)`
    Protect(Span, i32),
    /// `mremap(2)`
    Remap(Span, Span),
    /// `madvise(2)`
    Advise(Span, i32),
    /// `mlock(2)` or `munlock(2)`
    Lock(Span, bool),
    /// `msync(2)`
    Sync(Span),
    /// A store to each page.
    Store(Span),
    /// A load from each page.
    Load(Span),
    /// A store by `/proc/self/mem`, which no entry of the process tells of.
    StoreByForce(u64),
    /// `fork(2)`
    Fork(Span, Life),
    /// The child of this number is killed.
    Kill(usize),
    /// `ftruncate(2)` of a file, to so many pages.
    Truncate(usize, u64),
    /// `fallocate(2)`: a hole of so many pages.
    Punch(usize, u64, u64),
    /// `write(2)` to a page of a file.
    Write(usize, u64),
    /// `poll(2)` of an open file of `/dev/mmops`, for a millisecond.
    Poll(usize),
    /// A userfaultfd is made and a range registered: asynchronous, missing, protected.
    Register(Span, bool, bool, bool),
    /// A range of the last userfaultfd is unregistered.
    Unregister(Span),
    /// A range is protected, or not.
    WriteProtect(Span, bool),
    /// Zeros are mapped.
    Zero(Span),
    /// Copies of other pages are mapped.
    Copy(Span, Span),
}

/// A call of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The thread.
    pub thread: usize,
    /// What it does.
    pub action: Action,
}
