// SPDX-License-Identifier: GPL-2.0

//! The address spaces that are tracked, each with all of its trackers.
//!
//! What a harvest takes out of an entry is gone for everybody else, so it is told to all trackers
//! of the address space. One harvest at a time: who begins an epoch has to hear first of what
//! another one has taken.

use super::marks::Marks;
use core::{
    ptr,
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    }, //
};
use kernel::{
    mm::{
        Mm,
        MmWithUser, //
    },
    new_mutex,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        aref::ARef,
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Arc,
        Mutex, //
    }, //
};

/// An address space that is tracked.
#[pin_data]
pub(super) struct Subject {
    mm: ARef<Mm>,
    #[pin]
    trackers: Mutex<KVec<Arc<Marks>>>,
}

impl Subject {
    fn new(mm: &MmWithUser) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                mm: ARef::<Mm>::from(&**mm),
                trackers <- new_mutex!(KVec::new()),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// What tells it from others: the reference keeps the address.
    fn key(&self) -> usize {
        self.mm.as_raw().addr()
    }

    /// The address space, which may have ended.
    pub(super) fn mm(&self) -> &Mm {
        &self.mm
    }

    /// Its trackers, for who harvests.
    pub(super) fn trackers(&self) -> Guard<'_, KVec<Arc<Marks>>, MutexBackend> {
        self.trackers.lock()
    }
}

/// A subject, and how many trackers it has or is about to have.
struct Known {
    subject: Arc<Subject>,
    users: usize,
}

#[pin_data]
struct Table {
    #[pin]
    subjects: Mutex<RBTree<usize, Known>>,
}

/// That of the module that is loaded; null before and after.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(ptr::null_mut());

fn table<'a>() -> Option<&'a Table> {
    // SAFETY: By the safety requirements of `Global::new` nobody has the table when it goes.
    unsafe { TABLE.load(Ordering::Acquire).as_ref() }
}

/// What trackers need while the module is loaded.
pub(crate) struct Global {
    _table: Pin<KBox<Table>>,
}

impl Global {
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// There is one value, for the module; there is no tracker any more when it is dropped.
    pub(crate) unsafe fn new() -> Result<Self> {
        let table = KBox::pin_init(
            pin_init!(Table {
                subjects <- new_mutex!(RBTree::new()),
            }),
            GFP_KERNEL,
        )?;

        TABLE.store(ptr::from_ref(&*table).cast_mut(), Ordering::Release);
        Ok(Self { _table: table })
    }
}

impl Drop for Global {
    fn drop(&mut self) {
        TABLE.store(ptr::null_mut(), Ordering::Release);
    }
}

/// A use of a subject.
struct Use(Arc<Subject>);

impl Use {
    fn new(mm: &MmWithUser) -> Result<Self> {
        let table = table().ok_or(ENODEV)?;
        // Nothing is allocated under the lock.
        let node = RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?;
        let new = Subject::new(mm)?;
        let mut subjects = table.subjects.lock();

        if let Some(known) = subjects.get_mut(&new.key()) {
            known.users += 1;
            return Ok(Self(known.subject.clone()));
        }

        let known = Known {
            subject: new.clone(),
            users: 1,
        };

        subjects.insert(node.into_node(new.key(), known));
        Ok(Self(new))
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let Some(table) = table() else {
            return;
        };
        let mut subjects = table.subjects.lock();
        let is_last = subjects.get_mut(&self.0.key()).is_some_and(|known| {
            known.users -= 1;
            known.users == 0
        });
        let last = if is_last {
            subjects.remove(&self.0.key())
        } else {
            None
        };

        drop(subjects);
        drop(last);
    }
}

/// A tracker as one of those of a subject, until it is dropped.
pub(super) struct Member {
    marks: Arc<Marks>,
    subject: Use,
    has_left: bool,
}

impl Member {
    /// Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(mm: &MmWithUser, marks: Arc<Marks>) -> Result<Self> {
        let subject = Use::new(mm)?;

        subject
            .0
            .trackers
            .lock()
            .push(marks.clone(), GFP_KERNEL_ACCOUNT)?;
        Ok(Self {
            marks,
            subject,
            has_left: false,
        })
    }

    /// Leaves the others, unless somebody harvests, who may wait for a lock that the caller holds.
    /// Whether it has. Does not sleep.
    pub(super) fn try_leave(&mut self) -> bool {
        if let Some(mut trackers) = self.subject.0.trackers.try_lock() {
            trackers.retain(|marks| !Arc::ptr_eq(marks, &self.marks));
            self.has_left = true;
        }
        self.has_left
    }

    pub(super) fn subject(&self) -> &Subject {
        &self.subject.0
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.has_left {
            return;
        }
        self.subject
            .0
            .trackers
            .lock()
            .retain(|marks| !Arc::ptr_eq(marks, &self.marks));
    }
}
