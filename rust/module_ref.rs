// SPDX-License-Identifier: GPL-2.0

//! What keeps `mmops.ko` loaded.

use crate::bindings;
use kernel::prelude::*;

/// A reference to `mmops.ko`, for what calls into it and may be left behind by a driver: in a
/// `static`, or forgotten. As long as a driver is loaded, that keeps `mmops.ko` by itself.
///
/// # Invariants
///
/// The value owns a reference to the module.
pub(crate) struct ModuleRef(());

impl ModuleRef {
    /// # Errors
    ///
    /// `ENODEV` if `mmops.ko` is being unloaded.
    pub(crate) fn get() -> Result<Self> {
        // SAFETY: The function has no requirements.
        if unsafe { bindings::mmops_module_get() } {
            // INVARIANT: The reference was just taken.
            Ok(Self(()))
        } else {
            Err(ENODEV)
        }
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariants a reference is owned. What runs after this is called by a
        // module that keeps this one, or by the workqueue, for which the unload waits.
        unsafe { bindings::mmops_module_put() };
    }
}
