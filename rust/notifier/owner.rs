// SPDX-License-Identifier: GPL-2.0

//! Whom an event comes from.

use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Somebody who takes pages from the CPU, and can tell his own events from those of others.
///
/// A clone is the same somebody. What makes him up lives as long as the last clone, so nobody else
/// can be taken for him later.
///
/// Pages that a device uses have another owner: the notifier that watches over them
/// ([`make_exclusive`](crate::exclusive::make_exclusive)). No two notifiers have the same, so each
/// is told when another takes its pages.
#[derive(Clone)]
pub struct Owner(Arc<Key>);

/// It has a size, and with it an address of its own.
struct Key {
    _byte: u8,
}

impl Owner {
    /// Somebody new.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Self> {
        Ok(Self(Arc::new(Key { _byte: 0 }, GFP_KERNEL)?))
    }

    pub(crate) fn to_ref(&self) -> OwnerRef<'_> {
        OwnerRef::of(&*self.0)
    }
}

/// The identity of an object that lives, which is its address. Nothing is read through it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnerRef<'a> {
    object: NonNull<c_void>,
    // It ends before the object does: another one at its address would be taken for it.
    _object: PhantomData<&'a ()>,
}

impl<'a> OwnerRef<'a> {
    pub(super) fn of<T>(object: &'a T) -> Self {
        const {
            assert!(
                size_of::<T>() != 0,
                "objects without a size share an address"
            )
        };
        Self {
            object: NonNull::from(object).cast(),
            _object: PhantomData,
        }
    }

    pub(super) fn as_ptr(self) -> *mut c_void {
        self.object.as_ptr()
    }

    /// Whether a pointer of the memory management is this owner's.
    pub(super) fn is(self, owner: *mut c_void) -> bool {
        ptr::eq(self.as_ptr(), owner)
    }
}
