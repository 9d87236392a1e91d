// SPDX-License-Identifier: GPL-2.0

//! Trackers: which pages of a process, or of a file, may have changed since one asked last.
//!
//! A [`Tracker`] takes the dirty bits of a range of addresses out of the page tables, and is told
//! by the notifiers of each entry that goes with its bit; or it does so in all processes that map a
//! file, and is told by the kernel of what else changes that. In mode [`Mode::Fast`] a store costs
//! nothing: no entry loses its write permission. In mode [`Mode::Full`] the first store to a page
//! in each epoch faults, and stores that no dirty bit tells of are seen as well. Nothing is placed
//! into the process, it is not stopped, and what its `/proc/PID/pagemap` tells stays the same.
//! Documentation/track.rst has the argument why no store is missed, and
//! Documentation/models/track.pml, track_full.pml and track_file.pml are models of it.
//!
//! # Epochs
//!
//! ```text
//! Tracker::begin()  what changed since the last begin is the epoch
//! Epoch::next()     tells its pages
//! Epoch::commit()   it is done with
//! Epoch::abort()    its pages are in the next epoch again
//! ```
//!
//! A page whose contents may have changed between the return of one [`Tracker::begin`] and the call
//! of the next is in the epoch that this one begins. What changes while the call runs is in it or
//! in the next; if it is in this one alone, it changed before the call returned. The first epoch
//! has all pages.
//!
//! # What is not seen
//!
//! Of a file ([`Tracker::of_file`]), all is seen that a `read()` would see, but for what
//! Documentation/track.rst names under Files. What follows is about a process.
//!
//! In mode fast, only what goes through the entries of the range is seen.
//!
//! - Stores by who has looked the page up and has not pinned it, or has let go by the time of the
//!   begin: `ptrace()`, `/proc/PID/mem`, `process_vm_writev()`, `O_DIRECT` and registered buffers
//!   of io_uring that end between two begins, RDMA, VFIO, and stores of a virtual machine, which go
//!   through the page tables of KVM. A page that is pinned and mapped at a begin is in this epoch
//!   and in the next.
//! - Changes of a file that is mapped, unless they are made through this mapping: by `write()`, by
//!   another process, or by this one where it maps the page at another place. Shared anonymous
//!   memory is a file in this sense.
//!
//! Mode full sees all of the first kind, since who looks a page up in order to store to it needs
//! an entry that permits it. Not seen is who keeps a page that it has looked up for a store by a
//! mere reference, without a pin and without the mmap lock (`get_user_pages_fast()` without
//! `FOLL_PIN`, as NFS does for direct reads); a device that has pinned a page of a file whose entry
//! reclaim has taken by the time of a begin; and, as before, changes of a file.
//!
//! # What is reported though it did not change
//!
//! - All pages of a huge leaf, if one was stored to.
//! - All of what an invalidation covers whose kind takes dirty bits along: `fork()` (all private
//!   mappings), reclaim, migration, collapse and the split of a huge page, writeback of a file, a
//!   harvest of [`crate::dirty`], a change by [`crate::protect`], `MADV_FREE`. In the next epoch as
//!   well, if it was under way at the begin.
//! - The 2 MiB around the place where a mapping is cut, as by `munmap()` of a part: the kernel
//!   tells of a huge page there, whether there is one or not.
//! - A page of a file that is mapped anew, if its folio is dirty and stores are permitted: the
//!   kernel makes such an entry dirty from the start.
//! - In each epoch: where nothing is mapped, and what cannot be tracked (hugetlbfs, page frames,
//!   DAX, shadow stacks, what a driver maps), entries of devices (device-private,
//!   device-exclusive), guard markers, the zero page in a private mapping of a file, and pages that
//!   are pinned.
//! - A page of a leaf of a file whose bit could not be given to the folio, and a huge leaf that the
//!   range covers in part: as long as they are dirty.
//! - In mode full: what `mprotect()` and a clear of soft-dirty cover; a page that is mapped
//!   writable without a store, as by a read fault of shared memory; and in each epoch anonymous
//!   pages of private mappings without write permission: a debugger stores there without a fault.
//!
//! # Locks
//!
//! ```text
//! the trackers of the address space (Mutex)
//!   mmap_lock (read)
//!     mmu_notifier_invalidate_range_start
//!       what is in flight (SpinLock)
//!     page-table lock
//! ```
//!
//! A callback takes the spinlock alone, and sets bits atomically. Of a file, a walk takes
//! `i_mmap_rwsem` for reading, and a callback sets bits alone.

mod bits;
mod epoch;
mod file;
mod harvest;
mod marks;
mod record;
mod subject;

pub use epoch::{
    Changed,
    Epoch,
    Kind,
    Kinds,
    Summary, //
};

pub(crate) use subject::Global;

use crate::{
    bindings,
    faults,
    mapping::Mapping,
    notifier::MmNotifier,
    range::{
        AddrRange,
        PageRange, //
    },
    workqueue, //
};
use bits::{
    Bits,
    Pages, //
};
use core::mem::{
    self,
    ManuallyDrop, //
};
use file::File;
use harvest::Words;
use kernel::{
    fs::File as OpenFile,
    impl_has_work,
    mm::MmWithUser,
    new_work,
    prelude::*,
    sync::{
        poll::PollTable,
        Arc, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};
use marks::{
    Marks,
    Watch, //
};
use record::{
    words,
    Of,
    Record, //
};
use subject::Member;

/// Base pages of a range that are told apart at the most: 64 GiB. A tracker of a larger range is in
/// the state [`Summary::is_overflow`].
pub const MAX_PAGES: usize = 1 << 24;

/// How a tracker notices stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By dirty bits. A store costs nothing.
    Fast,
    /// By dirty bits, and by the write permission: a begin takes it from each entry. The first
    /// store to a page in an epoch faults, whoever makes it.
    Full,
}

/// Whether memory of `mm` was ever pinned for DMA.
fn has_pins(mm: &MmWithUser) -> bool {
    // SAFETY: The reference keeps the address space.
    unsafe { bindings::mmops_mm_has_pins(mm.as_raw()) }
}

impl Member {
    /// Takes what is marked, and what the entries of the address space tell.
    ///
    /// # Errors
    ///
    /// As [`Tracker::begin`]; what was taken before is in the record.
    fn begin(&self, marks: &Arc<Marks>, record: &mut Record) -> Result {
        // Dropped after the lock, since the last one ends the address space.
        let mm = self.subject().mm().mmget_not_zero();
        let trackers = self.subject().trackers();

        if let Some(mm) = mm.as_ref().filter(|_| !marks.is_overflow) {
            if record.pinned.is_empty() && has_pins(mm) {
                // Without it pinned pages count as written.
                if let Ok(pinned) = words(record.written.len()) {
                    record.pinned = pinned;
                }
            }
            marks.written.take(&mut record.written);
            marks.changed.take(&mut record.changed);
            marks.mark_in_flight();
            faults::track_marks_taken();
            harvest::harvest(
                mm,
                marks,
                &trackers,
                Words {
                    written: &mut record.written,
                    changed: &mut record.changed,
                    pinned: &mut record.pinned,
                    there: &mut record.there_before,
                },
            )?;
            mem::swap(&mut record.there, &mut record.there_before);
            record.add_new();
            // An entry that went before the walk came to it had been stored to before the call.
            if !faults::track_skip_late() {
                marks.changed.copy(&mut record.changed);
            }
        }
        drop(trackers);

        // If it ends later, the next epoch tells.
        record.has_ended = mm.is_none() || marks.has_ended();
        Ok(())
    }
}

/// A range of an address space, or of a file, of which is known what changes.
///
/// Any number of them may be on one address space or file, on the same pages or on others, and none
/// misses a page for the others: what a harvest of one takes is told to all.
///
/// It keeps the `mm_struct`, not the memory: after exit or exec of the process it reports that it
/// has ended. It keeps a file open. As long as there is a value, dropped or not, `mmops.ko` is not
/// unloaded.
///
/// Dropping it sleeps. One that is dropped while a harvest of the same address space is under way,
/// inside of a walk or an invalidation, below `i_mmap_rwsem`, or in the callback of a subscriber is
/// ended by a kernel thread, soon after. One of a file may let go of its inode, for which the mmap
/// lock must not be held.
pub struct Tracker {
    inner: ManuallyDrop<Pin<KBox<Inner>>>,
}

#[pin_data]
struct Inner {
    subject: Subject,
    marks: Arc<Marks>,
    record: Record,
    #[pin]
    work: Work<Self>,
}

impl_has_work! {
    impl HasWork<Self> for Inner { self.work }
}

impl WorkItem for Inner {
    type Pointer = Pin<KBox<Self>>;

    fn run(this: Pin<KBox<Self>>) {
        drop(this);
    }
}

/// What is tracked.
enum Subject {
    Process {
        // The first: nobody is to tell the others anything after the notifier is gone.
        member: Member,
        _notifier: Pin<KBox<MmNotifier<Watch>>>,
    },
    File(File),
}

impl Subject {
    /// Whether it can be dropped at once, by a caller that may hold the mmap lock.
    fn try_leave(&mut self) -> bool {
        match self {
            Self::Process { member, .. } => member.try_leave(),
            Self::File(_) => true,
        }
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        // SAFETY: It is not used again.
        let mut inner = unsafe { ManuallyDrop::take(&mut self.inner) };

        if crate::inside::may_wait().is_err() || !inner.as_mut().project().subject.try_leave() {
            workqueue::enqueue(inner);
        }
    }
}

impl Tracker {
    /// Begins to track `range` of `mm` in a mode. Pages of it need not be mapped.
    ///
    /// Sleeps, and takes the mmap lock for writing: it must not be held, nor any lock below it.
    /// Allocates 6 bits for each page, charged to the memory cgroup of the caller, if there are not
    /// more than [`MAX_PAGES`] and the memory is there, and one more at the first begin after the
    /// process has pinned memory.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is not even memory for what does not grow with the range; `EINTR` if a
    /// signal came; `EDEADLK` if the current task is inside of a walk or an invalidation, below
    /// `i_mmap_rwsem`, or in a callback of a subscriber; `ENODEV` if `mmops.ko` is being unloaded.
    pub fn new(mm: &MmWithUser, range: &AddrRange, mode: Mode) -> Result<Self> {
        let pages = Pages::of(range);
        let (marks, record) = Self::allocate(pages, mode, Of::Process)?;
        let notifier = KBox::try_pin_init(
            MmNotifier::new(mm, Watch::new(marks.clone())?),
            GFP_KERNEL_ACCOUNT,
        )?;
        let subject = Subject::Process {
            // From here on it is told what others find. Until its first epoch all is marked.
            member: Member::new(mm, marks.clone())?,
            _notifier: notifier,
        };

        Self::with(subject, marks, record)
    }

    fn with(subject: Subject, marks: Arc<Marks>, record: Record) -> Result<Self> {
        let inner = KBox::pin_init(
            pin_init!(Inner {
                subject,
                marks,
                record,
                work <- new_work!("mmops::track"),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;

        Ok(Self {
            inner: ManuallyDrop::new(inner),
        })
    }

    /// Forgets the pages of the open epoch.
    fn clear(&mut self) {
        self.inner.as_mut().project().record.clear();
    }

    /// Leaves them to the next epoch.
    fn abort(&mut self) {
        let InnerProjection { marks, record, .. } = self.inner.as_mut().project();

        record.abort(marks);
    }

    /// Begins to track `range` of a file in a mode: what all processes that map it store, those to
    /// come included, and whatever else changes it. Pages of it need not be there.
    ///
    /// Sleeps. Allocates 5 bits for each page, as [`Self::new`] does.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the file is not of tmpfs (a memfd is), ramfs, ext2 to ext4 or XFS, without
    /// DAX, nor a device of DAX: of others not all that changes them is told;
    /// `ENOMEM` as for [`Self::new`].
    pub fn of_file(mapping: Mapping, range: &PageRange, mode: Mode) -> Result<Self> {
        // INVARIANT: The range is not empty.
        let pages = Pages {
            first: range.first(),
            end: range.first() + range.nr(),
        };
        File::check(&mapping)?;

        let (marks, record) = Self::allocate(pages, mode, Of::File)?;
        let subject = Subject::File(File::new(mapping, marks.clone())?);

        Self::with(subject, marks, record)
    }

    /// Without bits if they are too many, or there is no memory for them.
    fn allocate(pages: Pages, mode: Mode, of: Of) -> Result<(Arc<Marks>, Record)> {
        let bits = || -> Result<_> {
            if pages.nr() > MAX_PAGES {
                return Err(E2BIG);
            }
            Ok((
                (Bits::new(&pages, false)?, Bits::new(&pages, true)?),
                Record::new(pages.words(), of)?,
            ))
        };
        let (bits, record) = bits().map_or_else(
            |_| Record::new(0, of).map(|record| (None, record)),
            |(bits, record)| Ok((Some(bits), record)),
        )?;

        Ok((Marks::new(pages, mode, bits)?, record))
    }

    /// Begins an epoch: what changed since the last one began is in it.
    ///
    /// Of a process, waits for the harvests of other trackers of the same address space. Sleeps,
    /// and takes folio locks, and the mmap lock for reading (in mode full once for writing as
    /// well), or `i_mmap_rwsem` of the file.
    ///
    /// # Errors
    ///
    /// - `EBUSY` if an epoch is open;
    /// - `EDEADLK` if the current task is inside of a walk or an invalidation, below
    ///   `i_mmap_rwsem`, or in a callback of a subscriber;
    /// - `EINTR` after a fatal signal, `ENOMEM`.
    ///
    /// No epoch is open then that was not before, and nothing is lost.
    pub fn begin(&mut self) -> Result<Epoch<'_>> {
        let InnerProjection {
            subject,
            marks,
            record,
            ..
        } = self.inner.as_mut().project();

        if record.is_open {
            return Err(EBUSY);
        }
        crate::inside::may_wait()?;

        if marks.is_overflow {
            record.is_all = true;
        }

        let ret = match subject {
            Subject::Process { member, .. } => member.begin(marks, record),
            Subject::File(_) if marks.is_overflow => Ok(()),
            Subject::File(file) => file.begin(record),
        };

        if let Err(e) = ret {
            record.give_back(marks);
            return Err(e);
        }
        record.is_all |= record.has_ended;
        record.is_open = true;
        record.number += 1;
        record.trim(&marks.pages);
        Ok(Epoch { tracker: self })
    }

    /// The end of what is tracked, to be waited for beside the use of the tracker.
    pub fn end(&self) -> End {
        End(self.inner.marks.clone())
    }

    /// The open epoch, if there is one.
    pub fn epoch(&mut self) -> Option<Epoch<'_>> {
        self.inner.record.is_open.then_some(Epoch { tracker: self })
    }
}

/// The end of an address space that is tracked, by exit or exec. Of a file there is none.
#[derive(Clone)]
pub struct End(Arc<Marks>);

impl End {
    /// Whether it has come. All epochs that begin after that tell it as well.
    pub fn has_come(&self) -> bool {
        self.0.has_ended()
    }

    /// Has whoever polls `file` woken up when it comes; to be called before [`Self::has_come`]. A
    /// value is to be kept for as long as the file is open.
    ///
    /// Source: `poll_wait()`.
    pub fn register_wait(&self, file: &OpenFile, table: &PollTable<'_>) {
        self.0.register_wait(file, table);
    }
}
