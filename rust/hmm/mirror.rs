// SPDX-License-Identifier: GPL-2.0

//! A mirror of an address space: a page table for a device, in which nothing is ever stale.
//!
//! # Why an entry can be used without a reference to its page
//!
//! An entry is entered under the lock of the mirror, and only if nothing was invalidated since the
//! page was looked up. Whoever is about to take the page out of the CPU's page table tells so
//! first, and the entry is removed under the same lock before he goes on. So while the lock is
//! held, an entry that is there means that the CPU maps the page, and the mapping keeps the page.
//!
//! An event is left out only where the mirror itself takes the page from the CPU
//! ([`Mirror::make_exclusive`]): the page stays.

use super::{
    range_fault,
    range_fault_unlocked,
    table::{
        self,
        Access,
        PageTable,
        TABLE_PAGES, //
    },
    HmmPfn,
    Request, //
};
use crate::{
    inside::may_wait,
    mm::MmapRead,
    notifier::{
        IntervalGuard,
        IntervalNotifier,
        IntervalOps,
        Invalidated, //
    },
    range::AddrRange,
    signal, //
};
use core::cmp;
use kernel::{
    mm::{
        Mm,
        MmWithUser, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        lock::{
            mutex::MutexBackend,
            spinlock::SpinLockBackend,
            Backend, //
        },
        Arc,
        LockClassKey, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// Milliseconds for which a lookup is begun anew when something is invalidated.
///
/// Source: `HMM_RANGE_DEFAULT_TIMEOUT`.
pub(super) const RETRY_MS: i64 = 1000;

/// The device behind a mirror.
pub trait Device: Send + Unpin + 'static {
    /// The device must not use what it knows of `what.range()` when this returns: its TLB entries,
    /// and operations under way.
    ///
    /// The entries of the mirror are gone already. Called with the lock of the mirror held; the
    /// rules of [`IntervalOps::invalidate`] apply.
    fn invalidate(&mut self, what: &Invalidated);
}

/// A lock that a mirror can have: a mutex, or a spinlock that no interrupt handler takes.
///
/// Interrupts find the lock of the mirror's page table held, which is a plain spinlock inside.
pub trait MirrorLock: Backend + sealed::Sealed {}

impl MirrorLock for MutexBackend {}
impl MirrorLock for SpinLockBackend {}

mod sealed {
    use super::{
        MutexBackend,
        SpinLockBackend, //
    };

    pub trait Sealed {}

    impl Sealed for MutexBackend {}
    impl Sealed for SpinLockBackend {}
}

/// What the lock of a mirror protects.
pub(super) struct Mirrored<D> {
    table: Arc<PageTable>,
    device: D,
}

impl<D: Device> IntervalOps for Mirrored<D> {
    fn invalidate(self: Pin<&mut Self>, what: &Invalidated) {
        let this = self.get_mut();

        this.table.clear(what.range());
        this.device.invalidate(what);
    }
}

/// A mirror of a range of an address space.
///
/// The address space may end while the mirror lives; then it is empty, and stays so.
///
/// The memory of its table is charged to the caller's memory cgroup, and kept until the mirror
/// goes.
///
/// # Invariants
///
/// Entries of `table` are entered under the lock of `notifier`, and only in the critical section of
/// the token that they were looked up with. `table` is the one that the notifier's data clears.
#[pin_data]
pub struct Mirror<D: Device, B: MirrorLock = MutexBackend> {
    #[pin]
    pub(super) notifier: IntervalNotifier<Mirrored<D>, B>,
    pub(super) table: Arc<PageTable>,
}

impl<D: Device, B: MirrorLock> Mirror<D, B> {
    /// Mirrors `range` of `mm` for `device`. Nothing is entered yet.
    ///
    /// Use the macro [`new_mirror!`](crate::new_mirror) for the name and the class of the lock.
    /// Sleeps; the mmap lock must not be held.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINTR` if a signal came; `EDEADLK` as [`Self::fault`].
    pub fn new<'a>(
        mm: &'a MmWithUser,
        range: AddrRange,
        device: D,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> Result<impl PinInit<Self, Error> + 'a>
    where
        B: 'a,
    {
        let table = Arc::pin_init(PageTable::new(), GFP_KERNEL)?;
        let data = Mirrored {
            table: table.clone(),
            device,
        };

        // INVARIANT: The table is empty, and the notifier's data has the same.
        Ok(try_pin_init!(Self {
            notifier <- IntervalNotifier::new(mm, range, data, name, key),
            table,
        }))
    }

    /// The address space, which may have ended.
    pub fn mm(&self) -> &Mm {
        self.notifier.mm()
    }

    /// The range that is mirrored.
    pub fn range(&self) -> &AddrRange {
        self.notifier.range()
    }

    /// Takes the lock: until the guard is dropped, entries do not go.
    pub fn lock(&self) -> Pages<'_, D, B> {
        Pages {
            table: &self.table,
            guard: self.notifier.lock(),
        }
    }

    /// Enters all pages of `range`, faulting in those that are not there, or that have to be made
    /// writable for `Access::Write`. [`Access::Exclusive`] counts as `Access::Write` here.
    ///
    /// When it returns, entries may be gone again: whoever uses them takes the lock, and faults
    /// again what is not there. Sleeps.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the range is not inside the mirror's;
    /// - `ESRCH` if the address space has ended;
    /// - `EFAULT`, `EPERM`, `ENOMEM`, `EHWPOISON` as [`range_fault`]; pages of tables before are
    ///   entered;
    /// - `EBUSY` if something is invalidated again and again;
    /// - `EDEADLK` if the current task is inside of a walk or an invalidation, below
    ///   `i_mmap_rwsem`, or in a callback of a subscriber: it would wait for itself;
    /// - `EINTR` if a fatal signal came.
    pub fn fault(&self, range: &AddrRange, access: Access) -> Result {
        self.parts(range, |part, mm, pfns| {
            self.look_up(part, mm, request(access), pfns, |pfns| {
                // SAFETY: `look_up()` calls this in the critical section of the lookup, as the
                // invariants of `Mirror` ask.
                unsafe { self.table.enter(part.start(), pfns) };
            })
        })
    }

    /// As [`Self::fault`], for memory whose faults a userspace handles (`userfaultfd`): the mmap
    /// lock is given up while it does. Waits for it without end.
    pub fn fault_unlocked(&self, range: &AddrRange, access: Access) -> Result {
        self.parts(range, |part, mm, pfns| loop {
            let token = range_fault_unlocked(&self.notifier, mm, part, request(access), 0, pfns)?;

            self.table.prepare(part.start())?;
            if let Some(_section) = self.notifier.lock_if_current(token) {
                // SAFETY: This is the critical section of the lookup, as the invariants of `Mirror`
                // ask.
                unsafe { self.table.enter(part.start(), pfns) };
                return Ok(());
            }
            signal::pending()?;
        })
    }

    /// Tells `f` what is mapped, page by page and in parts: the first address of each part, and
    /// what was found for its base pages. Nothing is faulted in or entered. `f` is called without
    /// the lock, as what it is told may be old by then.
    ///
    /// # Errors
    ///
    /// As [`Self::fault`], and what `f` returned.
    pub fn snapshot(
        &self,
        range: &AddrRange,
        mut f: impl FnMut(usize, &[HmmPfn]) -> Result,
    ) -> Result {
        self.parts(range, |part, mm, pfns| {
            self.look_up(part, mm, Request::Snapshot, pfns, |_| ())?;
            f(part.start(), pfns)
        })
    }

    /// One lookup, begun anew until nothing is invalidated meanwhile; then `f` in its critical
    /// section.
    fn look_up(
        &self,
        part: &AddrRange,
        mm: &MmWithUser,
        request: Request,
        pfns: &mut [HmmPfn],
        f: impl FnOnce(&[HmmPfn]),
    ) -> Result {
        let started = Instant::<Monotonic>::now();

        loop {
            let token = self.notifier.read_begin()?;
            let mut mmap = MmapRead::lock(mm);
            let result = range_fault(&self.notifier, &mut mmap, &token, part, request, pfns);

            drop(mmap);
            match result {
                Err(error) if error == EBUSY => (),
                Err(error) => return Err(error),
                Ok(()) => {
                    if request != Request::Snapshot {
                        self.table.prepare(part.start())?;
                    }
                    if let Some(_section) = self.notifier.lock_if_current(token) {
                        f(pfns);
                        return Ok(());
                    }
                }
            }
            signal::pending()?;
            if started.elapsed().as_millis() > RETRY_MS {
                return Err(EBUSY);
            }
        }
    }

    /// Calls `f` for the parts of `range` that lie in one table each, with an element for each
    /// page.
    fn parts(
        &self,
        range: &AddrRange,
        mut f: impl FnMut(&AddrRange, &MmWithUser, &mut [HmmPfn]) -> Result,
    ) -> Result {
        may_wait()?;

        let mut pfns = KVec::new();

        pfns.resize(
            cmp::min(range.nr_pages(), TABLE_PAGES),
            HmmPfn::default(),
            GFP_KERNEL,
        )?;
        self.for_each_table(range, |part, mm| {
            f(part, mm, pfns.get_mut(..part.nr_pages()).ok_or(EINVAL)?)
        })
    }

    /// Calls `f` for the parts of `range` that lie in one table each.
    pub(super) fn for_each_table(
        &self,
        range: &AddrRange,
        mut f: impl FnMut(&AddrRange, &MmWithUser) -> Result,
    ) -> Result {
        let whole = self.range();

        if range.start() < whole.start() || range.end() > whole.end() {
            return Err(EINVAL);
        }

        let mm: ARef<MmWithUser> = self.mm().mmget_not_zero().ok_or(ESRCH)?;
        let mut addr = range.start();

        while addr < range.end() {
            // In pages: a table can end where no address is any more.
            let rest = TABLE_PAGES - (addr >> PAGE_SHIFT) % TABLE_PAGES;
            let left = (range.end() - addr) >> PAGE_SHIFT;
            let end = addr + cmp::min(rest, left) * PAGE_SIZE;

            signal::pending()?;
            f(&AddrRange::new(addr, end)?, &mm)?;
            addr = end;
        }
        Ok(())
    }
}

fn request(access: Access) -> Request {
    match access {
        Access::Read => Request::Read,
        Access::Write | Access::Exclusive => Request::Write,
    }
}

/// Creates an initializer of a [`Mirror`], whose lock gets the name and class of the place of the
/// call.
///
/// `new_mirror!(mm, range, device)`; see [`Mirror::new`].
#[macro_export]
macro_rules! new_mirror {
    ($mm:expr, $range:expr, $device:expr $(, $name:literal)? $(,)?) => {
        $crate::hmm::Mirror::new(
            $mm,
            $range,
            $device,
            ::kernel::optional_name!($($name)?),
            ::kernel::static_lock_class!(),
        )
    };
}

/// The pages of a mirror, with its lock held: what is entered stays, and is what the CPU maps.
///
/// User memory other than through this must not be touched meanwhile, nor may memory be allocated
/// in a way that enters reclaim.
#[must_use = "the lock is released when the guard is dropped"]
pub struct Pages<'a, D: Device, B: MirrorLock = MutexBackend> {
    table: &'a PageTable,
    guard: IntervalGuard<'a, Mirrored<D>, B>,
}

impl<D: Device, B: MirrorLock> Pages<'_, D, B> {
    /// What the device may do to the page at `addr`; `None` if it is not entered.
    pub fn access(&self, addr: usize) -> Option<Access> {
        Some(self.table.get(addr)?.1)
    }

    /// Reads the page at `addr`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it is not entered: release the lock, fault it in, begin anew. `EFAULT` if the
    /// kernel itself must not touch it (`memfd_secret(2)`).
    pub fn read(&self, addr: usize, to: &mut [u8; PAGE_SIZE]) -> Result {
        let (pfn, _) = self.table.get(addr).ok_or(ENOENT)?;

        // SAFETY: By the invariants of `Mirror`, the entry is not stale; the lock is held.
        unsafe { table::copy_from(pfn, to) }
    }

    /// Writes the page at `addr`. The kernel knows of it: the page will be written back.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it is not entered as writable: release the lock, fault it in for
    /// [`Access::Write`], begin anew. `EFAULT` as for [`Self::read`].
    pub fn write(&mut self, addr: usize, from: &[u8; PAGE_SIZE]) -> Result {
        match self.table.get(addr) {
            Some((pfn, Access::Write | Access::Exclusive)) => {
                // SAFETY: As above, and the entry says that it may be written.
                unsafe { table::copy_to(pfn, from) }
            }
            _ => Err(ENOENT),
        }
    }

    /// The device.
    pub fn device(&mut self) -> &mut D {
        &mut self.guard.as_mut().get_mut().device
    }
}
