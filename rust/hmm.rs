// SPDX-License-Identifier: GPL-2.0

//! Mirrors of an address space: looking up what the CPU's page tables map, and a page table for a
//! device that is never stale.
//!
//! - [`range_fault`] and [`range_fault_unlocked`] are the kernel's functions, against a
//!   subscription to the range. What they find may only be used in the [`CriticalSection`] of their
//!   token.
//! - [`Mirror`] puts it all together: the subscription, the retries and the page table. Pages are
//!   read and written through it without `unsafe`.
//!
//! C header: [`include/linux/hmm.h`](srctree/include/linux/hmm.h)
//!
//! [`CriticalSection`]: crate::notifier::CriticalSection

mod exclusive;
mod mirror;
mod special;
mod table;

pub use self::{
    mirror::{
        Device,
        Mirror,
        MirrorLock,
        Pages, //
    },
    table::Access, //
};

use crate::{
    bindings,
    inside::{
        may_lock_folios,
        may_wait, //
    },
    mm::MmapRead,
    notifier::{
        IntervalNotifier,
        IntervalOps,
        Token, //
    },
    range::AddrRange, //
};
use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    error::to_result,
    mm::MmWithUser,
    prelude::*,
    sync::lock::Backend, //
};

/// What is wanted of the pages of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// To be told what is there; nothing is faulted in.
    Snapshot,
    /// To be able to read them.
    Read,
    /// To be able to write them.
    Write,
}

impl Request {
    fn flags(self) -> usize {
        match self {
            Request::Snapshot => 0,
            Request::Read => bindings::hmm_pfn_flags_HMM_PFN_REQ_FAULT,
            Request::Write => {
                bindings::hmm_pfn_flags_HMM_PFN_REQ_FAULT
                    | bindings::hmm_pfn_flags_HMM_PFN_REQ_WRITE
            }
        }
    }
}

/// What was found for one base page.
///
/// Plain information: the page itself may be another one by now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct HmmPfn(usize);

impl HmmPfn {
    /// Whether there is a page, which can be read at least.
    #[inline]
    pub fn is_valid(self) -> bool {
        self.0 & bindings::hmm_pfn_flags_HMM_PFN_VALID != 0
    }

    /// Whether the page can be written.
    #[inline]
    pub fn is_write(self) -> bool {
        self.is_valid() && self.0 & bindings::hmm_pfn_flags_HMM_PFN_WRITE != 0
    }

    /// Whether no device can ever use what is there: no mapping, a special page, a poisoned one.
    #[inline]
    pub fn is_error(self) -> bool {
        self.0 & bindings::hmm_pfn_flags_HMM_PFN_ERROR != 0
    }

    /// No device can ever use what is there.
    const ERROR: Self = Self(bindings::hmm_pfn_flags_HMM_PFN_ERROR);

    /// The page frame number, if there is a page. It has a `struct page`.
    #[inline]
    pub fn pfn(self) -> Option<usize> {
        self.is_valid()
            .then_some(self.0 & !bindings::hmm_pfn_flags_HMM_PFN_FLAGS)
    }

    /// The size of the leaf that maps the page, as an order: 0 for a base page, 9 for a PMD leaf.
    #[inline]
    pub fn map_order(self) -> u32 {
        ((self.0 >> bindings::hmm_pfn_flags_HMM_PFN_ORDER_SHIFT) & 0x1f) as u32
    }

    /// Whether it is the page of zeroes that all share.
    #[inline(never)]
    pub fn is_zero_page(self) -> bool {
        // SAFETY: The function only compares numbers.
        self.pfn()
            .is_some_and(|pfn| unsafe { bindings::mmops_is_zero_pfn(pfn) })
    }
}

/// Looks up the pages of `range`, and faults in those that `request` asks for.
///
/// `pfns` has one element for each base page of the range. What is in it may only be used if
/// `token` is still current under the lock of `notifier`. Sleeps; the lock of the notifier must not
/// be held.
///
/// # Errors
///
/// - `EINVAL` if `pfns` has another length, the range is not inside the notifier's, the mmap lock
///   held is of another address space, or the token is of another notifier;
/// - `EDEADLK` in the callback of a subscriber, below `i_mmap_rwsem`, and in the function that
///   programs a device for exclusive pages, whose folios are locked;
/// - `EBUSY` if something was invalidated meanwhile: begin anew, with a new token;
/// - `EFAULT` if something in the range is not mapped, may not be read, or has no ordinary page:
///   what is mapped as a page frame may have no `struct page`, whatever the size of its leaf;
/// - `EPERM` if something may not be written;
/// - `ENOMEM`; `EHWPOISON`.
///
/// With [`Request::Snapshot`], what is not mapped or has no ordinary page is no error but
/// [`HmmPfn::is_error`].
///
/// Source: `hmm_range_fault()`, which gives the numbers of page frames of PMD and PUD leaves even
/// where no page is behind them.
pub fn range_fault<T: IntervalOps, B: Backend>(
    notifier: &IntervalNotifier<T, B>,
    mmap: &mut MmapRead<'_>,
    token: &Token<'_>,
    range: &AddrRange,
    request: Request,
    pfns: &mut [HmmPfn],
) -> Result {
    may_lock_folios()?;
    if !ptr::eq(mmap.mm().as_raw(), notifier.mm().as_raw()) || !notifier.owns(token) {
        return Err(EINVAL);
    }

    let mut lookup = Lookup::new(
        notifier.as_raw(),
        notifier.range(),
        token.seq(),
        range,
        request,
        pfns,
    )?;

    // SAFETY: The reference keeps the notifier, and `mmap` holds the mmap lock of its mm.
    unsafe { lookup.fault_locked() }?;
    special::refuse(mmap, range, request, pfns)
}

/// As [`range_fault`], but takes the mmap lock itself, and gives it up where a fault has to wait
/// for a userspace that handles it (`userfaultfd`). Begins anew by itself when something is
/// invalidated, for `timeout` jiffies; 0 is without end.
///
/// # Errors
///
/// As [`range_fault`], `EDEADLK` as [`IntervalNotifier::read_begin`], and `EINTR` if a fatal signal
/// came.
///
/// Source: `hmm_range_fault_unlocked_timeout()`.
///
/// # Examples
///
/// ```
/// use kernel::mm::MmWithUser;
/// use mmops::{
///     hmm::{range_fault_unlocked, HmmPfn, Request},
///     notifier::{IntervalNotifier, IntervalOps},
///     range::AddrRange,
/// };
///
/// pub fn map<T: IntervalOps>(
///     mm: &MmWithUser,
///     notifier: &IntervalNotifier<T>,
///     range: &AddrRange,
/// ) -> Result {
///     let mut pfns = KVec::from_elem(HmmPfn::default(), range.nr_pages(), GFP_KERNEL)?;
///
///     loop {
///         let token = range_fault_unlocked(notifier, mm, range, Request::Write, 0, &mut pfns)?;
///
///         // Something was invalidated meanwhile if there is none.
///         if let Some(_section) = notifier.lock_if_current(token) {
///             // Here a driver enters them into the page table of its device.
///             return Ok(());
///         }
///     }
/// }
/// # Ok(())
/// ```
pub fn range_fault_unlocked<'a, T: IntervalOps, B: Backend>(
    notifier: &'a IntervalNotifier<T, B>,
    mm: &MmWithUser,
    range: &AddrRange,
    request: Request,
    timeout: usize,
    pfns: &mut [HmmPfn],
) -> Result<Token<'a>> {
    if !ptr::eq(mm.as_raw(), notifier.mm().as_raw()) {
        return Err(EINVAL);
    }

    may_wait()?;

    let mut lookup = Lookup::new(notifier.as_raw(), notifier.range(), 0, range, request, pfns)?;

    // SAFETY: The reference keeps the notifier, and `mm` the users of its mm.
    let seq = unsafe { lookup.fault_unlocked(timeout) }?;

    // What changed since is void by the token.
    special::refuse(&mut MmapRead::lock(mm), range, request, pfns)?;
    // SAFETY: The lookup began with `mmu_interval_read_begin()` for the notifier and returns that.
    Ok(unsafe { notifier.token(seq) })
}

/// The argument of the kernel's functions.
///
/// # Invariants
///
/// `raw` has the element of an array for each page of its range, borrowed for `'p`.
struct Lookup<'p> {
    raw: bindings::hmm_range,
    _pfns: PhantomData<&'p mut [HmmPfn]>,
}

impl<'p> Lookup<'p> {
    #[inline(never)]
    fn new(
        notifier: *mut bindings::mmu_interval_notifier,
        within: &AddrRange,
        seq: usize,
        range: &AddrRange,
        request: Request,
        pfns: &'p mut [HmmPfn],
    ) -> Result<Self> {
        if pfns.len() != range.nr_pages() || !range.is_within(within) {
            return Err(EINVAL);
        }
        // Some flags of the input stay in the output.
        pfns.fill(HmmPfn::default());
        // INVARIANT: The length was just checked; `HmmPfn` is transparent.
        Ok(Self {
            raw: bindings::hmm_range {
                notifier,
                notifier_seq: seq,
                start: range.start(),
                end: range.end(),
                hmm_pfns: pfns.as_mut_ptr().cast(),
                default_flags: request.flags(),
                pfn_flags_mask: 0,
                // Device-private pages of whatever driver are faulted back: what is found is
                // memory.
                dev_private_owner: ptr::null_mut(),
            },
            _pfns: PhantomData,
        })
    }

    /// # Safety
    ///
    /// The notifier is inserted, and the caller holds the mmap lock of its mm.
    #[inline(never)]
    unsafe fn fault_locked(&mut self) -> Result {
        // SAFETY: By this function's safety requirements and the type invariants.
        to_result(unsafe { bindings::hmm_range_fault(&mut self.raw) })
    }

    /// Returns the sequence of the notifier under which the pages were looked up.
    ///
    /// # Safety
    ///
    /// The notifier is inserted, and the caller holds a reference to the users of its mm.
    #[inline(never)]
    unsafe fn fault_unlocked(&mut self, timeout: usize) -> Result<usize> {
        // SAFETY: By this function's safety requirements and the type invariants.
        to_result(unsafe { bindings::hmm_range_fault_unlocked_timeout(&mut self.raw, timeout) })?;
        Ok(self.raw.notifier_seq)
    }
}
