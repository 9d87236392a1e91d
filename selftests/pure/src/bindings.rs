// SPDX-License-Identifier: GPL-2.0

//! What the sources use of the kernel: constants and functions from the headers, by `build.rs`, and
//! the two functions that are called with the slots of a queue, which note them.

#![allow(
    non_camel_case_types,
    non_upper_case_globals,
    clippy::missing_safety_doc
)]

use kernel::ffi;
use std::cell::RefCell;

mod generated {
    #![allow(dead_code, clippy::all, clippy::undocumented_unsafe_blocks)]

    use super::{
        bool_,
        ffi,
        mm_struct,
        pmd_t,
        pte_t,
        pud_t,
        softleaf_type,
        vm_area_struct, //
    };

    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub(crate) use generated::*;

type bool_ = bool;
type softleaf_type = ffi::c_uint;

/// A value of a page-table entry.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct pte_t {
    pub(crate) pte: usize,
}

/// A value of an entry of a PMD table.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct pmd_t {
    pub(crate) pmd: usize,
}

/// A value of an entry of a PUD table.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct pud_t {
    pub(crate) pud: usize,
}

/// An address space, of which there is none.
pub(crate) enum mm_struct {}

/// A VMA, of which there is none.
pub(crate) enum vm_area_struct {}

/// A page structure, with the least alignment that any kernel gives it.
#[repr(align(8))]
pub(crate) struct page {
    _bytes: [u8; 64],
}

/// What the functions on entries know of the CPU: whether it has page tables of five levels.
#[no_mangle]
static boot_cpu_data: [u8; 4096] = [if cfg!(feature = "five-levels") {
    0xff
} else {
    0
}; 4096];

/// Calls that release pages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Free(Vec<usize>),
    Resched,
}

std::thread_local! {
    pub(crate) static CALLS: RefCell<Vec<Call>> = const { RefCell::new(Vec::new()) };
}

/// # Safety
///
/// There are `nr` slots.
pub(crate) unsafe fn free_pages_and_swap_cache(slots: *mut usize, nr: ffi::c_int) {
    // SAFETY: By this function's safety requirements.
    let slots = unsafe { std::slice::from_raw_parts(slots, nr as usize) };

    CALLS.with_borrow_mut(|calls| calls.push(Call::Free(slots.to_vec())));
}

/// # Safety
///
/// None.
pub(crate) unsafe fn mmops_cond_resched() {
    CALLS.with_borrow_mut(|calls| calls.push(Call::Resched));
}
