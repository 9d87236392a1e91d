// SPDX-License-Identifier: GPL-2.0

//! No fault is asked for.

pub(crate) fn gather_no_memory() -> bool {
    false
}
