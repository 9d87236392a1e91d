// SPDX-License-Identifier: GPL-2.0

//! Taking pages away from the CPU, so that a device can do atomic operations on them.
//!
//! The entry of a page is replaced by a device-exclusive one. The next access by the CPU faults;
//! the fault tells all subscribers ([`Event::Clear`]), upon which the device lets go, and then
//! restores the entry. The page itself stays where it is, charged and in rmap.
//!
//! # When a device may be programmed
//!
//! A device may use a page only until the next invalidation of its address. So a driver takes part
//! in the collision-retry scheme of an [`IntervalNotifier`]; [`make_exclusive`] carries it out:
//!
//! ```text
//! token = read_begin()
//!   pages are faulted in                         no folio is locked
//!   folios are locked, but those that are busy
//!     invalidate_range_start(Exclusive, owner)   other devices let go
//!       page-table lock: entries are replaced
//!       one TLB flush
//!     invalidate_range_end()
//!     lock_if_current(token)                     the driver's lock
//!       DevicePages gets the pages               the device may use them
//!       program(device, pages)
//!     the driver's lock is released
//!   folios are marked dirty and unlocked         faults and revoke() go on
//! ```
//!
//! All of the lower half happens once for a batch of up to [`BATCH`] pages, not once for each.
//!
//! Pages are given to a device while three things hold: their folios are locked and the entries in
//! place ([`ExclusivePages`]), the lock of the notifier is held, and nothing was invalidated since
//! the pages were looked up ([`CriticalSection`]). They are given to the [`DevicePages`] that this
//! lock protects and to nobody else. There a [`DevicePage`], through which the memory is reached,
//! cannot be reached without the lock, nor taken out, and it is gone after the next invalidation of
//! its address.
//!
//! # Why it cannot deadlock
//!
//! - Nothing is faulted in while a folio is locked.
//! - A folio lock is slept on only while no other folio is locked: those of a batch are only tried,
//!   and what was busy is done alone afterwards. So there is no order of folio locks to keep.
//! - The lock of the notifier is taken inside folio locks, as an invalidation by somebody else
//!   takes it (a fault on an exclusive page, migration); nothing is faulted in or allocated under
//!   it.
//! - No page-table lock is held while anything is slept on.
//! - The function that programs the device has no guard of the mmap lock to call any of this with:
//!   the one of the call is borrowed exclusively. With a second one, or through another notifier,
//!   the call inside fails with `EDEADLK` ([`make_exclusive`], [`take_from_cpu`], [`revoke`]).
//!
//! [`MmapRead`] is held throughout, as for `make_device_exclusive()`.
//!
//! # Differences from `make_device_exclusive()`
//!
//! - A page that is exclusive already is not given back to the CPU first. Subscribers but the owner
//!   are told of it as of the others, so that another device lets go of it.
//! - Pages that are pinned or of KSM are refused, not copied: somebody else reads or writes the
//!   one, and the other was merged on purpose.
//! - Where a fault would have to ask userspace (`userfaultfd(2)`), the page is refused.
//!
//! Source: `[PATCH v8 5/8] mm: Device exclusive memory access` (May 2021) and its review, and
//! `mm/rmap.c`.
//!
//! [`Event::Clear`]: crate::notifier::Event::Clear

mod batch;
mod device;
mod revoke;
mod scan;

pub use self::{
    device::{
        Device,
        DevicePage,
        DevicePages,
        ExclusivePage,
        ExclusivePages, //
    },
    revoke::{
        revoke,
        Revoked, //
    }, //
};

use crate::{
    bindings,
    inside::{
        may_lock_folios,
        may_wait,
        programming, //
    },
    mm::MmapRead,
    notifier::{
        CriticalSection,
        IntervalNotifier,
        IntervalOps,
        Owner,
        OwnerRef, //
    },
    partial::{
        Bytes,
        Partial, //
    },
    range::AddrRange,
    signal, //
};
use batch::{
    Batch,
    Slot, //
};
use core::{
    cmp,
    ptr, //
};
use kernel::{
    mm::virt::{
        flags,
        VmaRef, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::lock::Backend, //
};

/// The most pages that are locked at the same time.
pub const BATCH: usize = 512;

/// What became of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum PageResult {
    /// The call ended before it came to the page.
    #[default]
    Untouched = 0,
    /// The page is exclusive, and the device was programmed.
    Exclusive = 1,
    /// The page changed too often meanwhile; a later call may succeed.
    Busy = 2,
    /// Nothing is mapped there.
    Unmapped = 3,
    /// The mapping is shared, or of no memory that mm manages.
    NotAnonymous = 4,
    /// The mapping does not permit stores.
    ReadOnly = 5,
    /// The mapping is of hugetlbfs.
    Hugetlb = 6,
    /// Somebody has pinned the page, and may use it at any time.
    Pinned = 7,
    /// The page is merged with others that have the same content.
    Ksm = 8,
    /// A fault would have to ask userspace first.
    Userfaultfd = 9,
    /// The memory is broken.
    Poisoned = 10,
    /// There is no memory for the page.
    NoMemory = 11,
    /// The page cannot be faulted in: a guard page, or its content cannot be read.
    Fault = 12,
}

/// What [`make_exclusive`] did; of each page its [`PageResult`] says more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exclusive {
    /// Base pages that are exclusive now.
    pub pages: usize,
}

/// Makes the pages in `range` exclusive for a device, and gives them to it.
///
/// `program` is called for each batch when its pages are in the [`DevicePages`], with the lock of
/// the notifier held and the pages locked: with the data of the driver, and with the pages. It must
/// not take that lock, touch user memory, nor allocate in a way that enters reclaim. `results` gets
/// one entry for each page of the range.
///
/// Sleeps. The guard holds the mmap lock. Secondary MMUs see `Event::Exclusive`; `notifier`, which
/// is the owner of the event, does not.
///
/// # Errors
///
/// Only before anything is done; all else is told for each page:
///
/// - `EINVAL` if `results` has not one entry for each page, if `notifier` is of another address
///   space or does not cover the range, or if its [`DevicePages`] do not;
/// - `EDEADLK` if this is called by `program` of another call, in the callback of a subscriber or
///   below `i_mmap_rwsem`, and as [`IntervalNotifier::read_begin`];
/// - `EOPNOTSUPP` if the kernel knows no device-exclusive entries;
/// - `ENOMEM`.
///
/// Source: `make_device_exclusive()`.
///
/// # Examples
///
/// ```
/// use core::pin::Pin;
/// use mmops::{
///     exclusive::{make_exclusive, DevicePages, PageResult},
///     mm::{self, MmapRead},
///     new_interval_notifier,
///     notifier::IntervalNotifier,
///     range::AddrRange,
/// };
///
/// # let (start, end) = (0, 0);
/// let mm = mm::current()?;
/// let range = AddrRange::new(start, end)?;
/// let pages = DevicePages::new(&range)?;
/// let notifier: Pin<KBox<IntervalNotifier<DevicePages>>> =
///     KBox::try_pin_init(new_interval_notifier!(&mm, range, pages), GFP_KERNEL)?;
/// let mut results = KVec::from_elem(PageResult::Untouched, range.nr_pages(), GFP_KERNEL)?;
/// let guard = &mut MmapRead::lock(&mm);
///
/// // The closure is where a driver programs its device.
/// make_exclusive(guard, &range, &notifier, &mut results, |(), _pages| ())?.check()?;
/// // Until the CPU accesses it, or something else invalidates it.
/// if let Some(page) = notifier.lock().get(start) {
///     pr_info!("the first word is {}\n", page.read_u64(0)?);
/// }
/// Ok(())
/// ```
pub fn make_exclusive<T: Device, B: Backend>(
    guard: &mut MmapRead<'_>,
    range: &AddrRange,
    notifier: &IntervalNotifier<DevicePages<T>, B>,
    results: &mut [PageResult],
    mut program: impl FnMut(&mut T, &ExclusivePages<'_>),
) -> Result<Partial<Exclusive>> {
    may_wait()?;
    if !range.is_within(notifier.lock().range()) {
        return Err(EINVAL);
    }
    make_exclusive_with(guard, range, notifier, results, |section, pages| {
        // SAFETY: The section is of the notifier that the pages became exclusive for, and of the
        // token that they were looked up under.
        unsafe { section.as_mut().keep(pages) };
        program(section.as_mut().device_mut(), pages);
    })
}

/// As [`make_exclusive`], for a driver within the crate that keeps the pages otherwise: from the
/// critical section that `program` gets to the next invalidation of their address.
pub(crate) fn make_exclusive_with<T: IntervalOps, B: Backend>(
    guard: &mut MmapRead<'_>,
    range: &AddrRange,
    notifier: &IntervalNotifier<T, B>,
    results: &mut [PageResult],
    mut program: impl FnMut(&mut CriticalSection<'_, T, B>, &ExclusivePages<'_>),
) -> Result<Partial<Exclusive>> {
    if !ptr::eq(notifier.mm().as_raw(), guard.mm().as_raw()) || !range.is_within(notifier.range()) {
        return Err(EINVAL);
    }
    may_wait()?;

    run(
        guard,
        range,
        Some(notifier.as_owner()),
        results,
        &mut || notifier.read_begin(),
        &mut |token, pages| match notifier.lock_if_current(token) {
            Some(mut section) => {
                programming(|| program(&mut section, pages));
                true
            }
            None => false,
        },
    )
}

/// Makes the pages in `range` exclusive for nobody: the CPU faults at the next access.
///
/// No device may be programmed for them. Secondary MMUs see `Event::Exclusive` from `owner`
/// ([`Invalidated::is_from`](crate::notifier::Invalidated::is_from)); every one of them is told.
/// For everything else see [`make_exclusive`].
///
/// # Errors
///
/// As [`make_exclusive`].
pub fn take_from_cpu(
    guard: &mut MmapRead<'_>,
    range: &AddrRange,
    owner: Option<&Owner>,
    results: &mut [PageResult],
) -> Result<Partial<Exclusive>> {
    run(
        guard,
        range,
        owner.map(Owner::to_ref),
        results,
        &mut || Ok(()),
        &mut |(), _pages| true,
    )
}

/// So many pages need no allocation.
const FEW: usize = 4;

/// Room for a batch of `nr` pages at the most.
fn room<'r>(
    nr: usize,
    few: &'r mut [Slot; FEW],
    many: &'r mut Option<KVec<Slot>>,
) -> Result<&'r mut [Slot]> {
    if nr <= FEW {
        return Ok(few);
    }

    let many = many.insert(KVec::with_capacity(cmp::min(nr, BATCH), GFP_KERNEL)?);

    while many.len() < cmp::min(nr, BATCH) {
        many.push_within_capacity(Slot::EMPTY).map_err(|_| ENOMEM)?;
    }
    Ok(many)
}

/// How often a batch is tried before its pages are tried alone, and each of these.
const TRIES: usize = 4;

/// `begin` is called before pages are locked, `program` when they are exclusive; it returns whether
/// they still are.
fn run<K>(
    guard: &MmapRead<'_>,
    range: &AddrRange,
    owner: Option<OwnerRef<'_>>,
    results: &mut [PageResult],
    begin: &mut impl FnMut() -> Result<K>,
    program: &mut impl FnMut(K, &ExclusivePages<'_>) -> bool,
) -> Result<Partial<Exclusive>> {
    may_lock_folios()?;
    if !cfg!(CONFIG_DEVICE_PRIVATE) {
        return Err(EOPNOTSUPP);
    }
    if results.len() != range.nr_pages() {
        return Err(EINVAL);
    }

    // Of pages that the call does not come to the caller must not find what was there before.
    results.fill(PageResult::Untouched);

    let mut few = [Slot::EMPTY; FEW];
    let mut many = None;
    let mut batch = Batch::new(room(range.nr_pages(), &mut few, &mut many)?);
    let mut made = Exclusive::default();
    let mut left = results;
    let mut addr = range.start();

    let ret = loop {
        if addr == range.end() {
            break Ok(());
        }
        if let Err(e) = signal::interruption() {
            break Err(e);
        }

        let place = look_up(guard, addr, range.end());
        let nr = (place.end - addr) >> PAGE_SHIFT;
        let (now, later) = left.split_at_mut(nr);

        left = later;
        match place.vma {
            Err(refused) => now.fill(refused),
            Ok(vma) => {
                batch.start(addr, nr);

                let ret = run_batch(guard, vma, &mut batch, owner, begin, program);

                made.pages += batch.report(now);
                if ret.is_err() {
                    break ret;
                }
            }
        }
        addr = place.end;
    };

    Ok(Partial::new(made, Bytes(addr - range.start()), ret))
}

fn run_batch<K>(
    guard: &MmapRead<'_>,
    vma: &VmaRef,
    batch: &mut Batch<'_>,
    owner: Option<OwnerRef<'_>>,
    begin: &mut impl FnMut() -> Result<K>,
    program: &mut impl FnMut(K, &ExclusivePages<'_>) -> bool,
) -> Result {
    let mut attempt = |batch: &mut Batch<'_>, first: usize, nr: usize| -> Result {
        batch.collect(guard, vma, first, nr)?;
        if batch.is_settled(first, nr) {
            return Ok(());
        }

        // Before a folio is locked: whoever invalidates may wait for one.
        let token = begin()?;

        if let Some(pages) = batch.convert(guard, vma, owner, first, nr)? {
            let valid = program(token, &pages);

            pages.release(valid);
        }
        Ok(())
    };
    let nr = batch.nr();

    for _ in 0..TRIES {
        attempt(batch, 0, nr)?;
        if batch.is_settled(0, nr) {
            return Ok(());
        }
    }
    // Alone, a folio lock may be waited for.
    for i in 0..nr {
        for _ in 0..TRIES {
            if batch.is_settled(i, 1) {
                break;
            }
            attempt(batch, i, 1)?;
        }
        batch.give_up(i);
    }
    Ok(())
}

/// What is at an address, and up to where.
struct Place<'v> {
    vma: Result<&'v VmaRef, PageResult>,
    end: usize,
}

/// Looks at most a batch ahead, so that nothing but that is done at a time.
fn look_up<'g>(guard: &'g MmapRead<'_>, addr: usize, end: usize) -> Place<'g> {
    let limit = cmp::min(end, addr.saturating_add(BATCH * PAGE_SIZE));

    match guard.find_vma(addr) {
        Some(vma) if vma.start() <= addr => Place {
            vma: refusal(vma).map_or(Ok(vma), Err),
            end: cmp::min(limit, vma.end()),
        },
        next => Place {
            vma: Err(PageResult::Unmapped),
            end: next.map_or(limit, |vma| cmp::min(limit, vma.start())),
        },
    }
}

/// Why no page of a VMA can become exclusive.
#[inline(never)]
fn refusal(vma: &VmaRef) -> Option<PageResult> {
    let set = |flag| vma.flags() & flag != 0;

    if set(flags::HUGETLB) {
        Some(PageResult::Hugetlb)
    } else if set(flags::SHARED) || set(flags::IO) || set(flags::PFNMAP) {
        Some(PageResult::NotAnonymous)
    } else if !set(flags::WRITE)
        // SAFETY: The reference keeps the VMA.
        || unsafe { bindings::mmops_vma_is_shadow_stack(vma.as_ptr()) }
    {
        Some(PageResult::ReadOnly)
    } else {
        None
    }
}
