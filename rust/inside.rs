// SPDX-License-Identifier: GPL-2.0

//! What a task is inside of, so that it does not wait for itself.
//!
//! Whoever begins to look pages up, subscribes, ends a subscription, or waits for a thread that may
//! do so, waits for the end of invalidations or of callbacks, or for the mmap lock, and cannot be
//! killed meanwhile. So a task that is inside of one itself gets an error; a subscription that it
//! drops there stays, and a line in the log says so. Lockdep would not do:
//! between start and end of an invalidation no lock is held that it knows, and safe code must not
//! come to one of its reports.
//!
//! What a task is inside of stands on its stack, in one of a number of lists.

use core::{
    cell::UnsafeCell,
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    }, //
};
use kernel::{
    bindings,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        SpinLock, //
    },
    task::Task, //
};

/// Something that has a begin and an end, between which code of a driver is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A walk that changes nothing: the mmap lock is held.
    Walk,
    /// `i_mmap_rwsem` of a file is held, for a walk or for something else. Whoever invalidates may
    /// wait for it.
    IMmap,
    /// From `invalidate_range_start` to `invalidate_range_end`, and a little around it.
    Invalidation,
    /// A call of a subscriber.
    Callback,
    /// The function that programs a device for exclusive pages: their folios and the notifier are
    /// locked. A type cannot say so, since any code can take one more guard of the mmap lock.
    Programming,
}

/// A part that a task is inside of.
struct Node {
    task: *mut bindings::task_struct,
    part: Part,
    next: Option<NonNull<Node>>,
}

/// The first of a list.
///
/// # Invariants
///
/// The nodes that follow each other from here on are valid.
struct Head(Option<NonNull<Node>>);

impl Head {
    /// Whether the task is inside of a part that is `wanted`.
    #[inline(always)]
    fn has(&self, task: *mut bindings::task_struct, wanted: impl Fn(Part) -> bool) -> bool {
        let mut next = self.0;

        while let Some(node) = next {
            // SAFETY: By the type invariants; whoever has the head has the lock of the list.
            let node = unsafe { node.as_ref() };

            if ptr::eq(node.task, task) && wanted(node.part) {
                return true;
            }
            next = node.next;
        }
        false
    }
}

// SAFETY: The nodes are followed under the lock of the list alone. Each is unlinked under it before
// it goes.
unsafe impl Send for Head {}

const LISTS: usize = 64;

/// A list.
///
/// # Invariants
///
/// Each node in it is valid, and is changed under the lock alone, as is `nr`, their number.
#[pin_data]
struct List {
    #[pin]
    head: SpinLock<Head>,
    nr: Atomic<usize>,
}

impl List {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            head <- new_spinlock!(Head(None)),
            nr: Atomic::new(0),
        })
    }
}

/// The lists; a task is found in the one that its address says.
#[pin_data]
struct Lists {
    #[pin]
    lists: [List; LISTS],
}

impl Lists {
    fn of(&self, task: *mut bindings::task_struct) -> &List {
        // The lowest bits of an address say nothing.
        let index = (task.addr() / size_of::<bindings::task_struct>().next_power_of_two()) % LISTS;

        &self.lists[index]
    }
}

/// The lists of the module that is loaded; null before and after.
static LISTS_OF_MODULE: AtomicPtr<Lists> = AtomicPtr::new(ptr::null_mut());

/// What is needed of this while the module is loaded: the lists.
pub(crate) struct Global {
    _lists: Pin<KBox<Lists>>,
}

impl Global {
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// There is one value, for the module; no task is inside of anything when it is made, or when
    /// it is dropped.
    pub(crate) unsafe fn new() -> Result<Self> {
        let lists = KBox::pin_init(
            pin_init!(Lists {
                lists <- pin_init::pin_init_array_from_fn(|_| List::new()),
            }),
            GFP_KERNEL,
        )?;

        LISTS_OF_MODULE.store(ptr::from_ref(&*lists).cast_mut(), Ordering::Release);
        Ok(Self { _lists: lists })
    }
}

impl Drop for Global {
    fn drop(&mut self) {
        LISTS_OF_MODULE.store(ptr::null_mut(), Ordering::Release);
    }
}

/// The list in which the current task is found, and the task.
fn list_of_current<'a>() -> Option<(&'a List, *mut bindings::task_struct)> {
    let task = Task::current_raw();
    // SAFETY: By the safety requirements of `Global::new` nobody has the lists when they go.
    let lists = unsafe { LISTS_OF_MODULE.load(Ordering::Acquire).as_ref() }?;

    Some((lists.of(task), task))
}

/// Links the node, unless the task is inside of a part that is `refused`. Says whether it has.
///
/// # Safety
///
/// The node stays where it is, and is used by nobody else, until [`leave`] is called with it by the
/// same task.
#[inline(always)]
unsafe fn enter_unless(node: NonNull<Node>, refused: impl Fn(Part) -> bool) -> bool {
    if let Some((list, task)) = list_of_current() {
        let mut head = list.head.lock();

        if head.has(task, refused) {
            return false;
        }
        list.nr.store(list.nr.load(Relaxed) + 1, Relaxed);
        // INVARIANT: The node is valid until it is unlinked, and the lock is held.
        // SAFETY: Nobody else uses the node yet.
        unsafe {
            (*node.as_ptr()).task = task;
            (*node.as_ptr()).next = head.0;
        }
        head.0 = Some(node);
    }
    true
}

/// # Safety
///
/// As [`enter_unless`].
#[inline(never)]
#[link_section = ".text.hot"]
unsafe fn enter(node: NonNull<Node>) {
    // SAFETY: By this function's safety requirements.
    unsafe { enter_unless(node, |_| false) };
}

/// As [`enter`], unless the task may not lock folios.
///
/// # Safety
///
/// As [`enter_unless`].
#[inline(never)]
#[link_section = ".text.hot"]
unsafe fn enter_if_may_lock_folios(node: NonNull<Node>) -> bool {
    // SAFETY: By this function's safety requirements.
    unsafe { enter_unless(node, keeps_from_folios) }
}

/// # Safety
///
/// The node was entered, by the same task.
#[inline(never)]
#[link_section = ".text.hot"]
unsafe fn leave(node: NonNull<Node>) {
    if let Some((list, _)) = list_of_current() {
        let mut head = list.head.lock();
        let mut place: *mut Option<NonNull<Node>> = &mut head.0;

        // SAFETY: `place` is in the head or in a node of the list, which are valid and whose lock
        // is held.
        while let Some(other) = unsafe { *place } {
            // SAFETY: As above.
            let next = unsafe { &raw mut (*other.as_ptr()).next };

            if other == node {
                // SAFETY: As above.
                unsafe { *place = *next };
                list.nr.store(list.nr.load(Relaxed) - 1, Relaxed);
                break;
            }
            place = next;
        }
    }
}

impl Node {
    /// Of no task yet.
    #[inline(always)]
    fn new(part: Part) -> UnsafeCell<Self> {
        UnsafeCell::new(Self {
            task: ptr::null_mut(),
            part,
            next: None,
        })
    }
}

#[inline(always)]
fn inside<R>(part: Part, f: impl FnOnce() -> R) -> R {
    let node = Node::new(part);
    // It is not null.
    let node = NonNull::from(&node).cast::<Node>();

    // SAFETY: The node stays on the stack until `leave` below, and only the two functions use it.
    // Nothing unwinds in the kernel.
    unsafe { enter(node) };

    let ret = f();

    // SAFETY: It was entered above, by the same task.
    unsafe { leave(node) };
    ret
}

/// Runs `f` while the current task counts as one that invalidates.
#[inline(always)]
pub(crate) fn invalidating<R>(f: impl FnOnce() -> R) -> R {
    inside(Part::Invalidation, f)
}

/// As [`invalidating`], around a walk; `changes` says whether it invalidates what it visits.
#[inline(always)]
pub(crate) fn walking<R>(changes: bool, f: impl FnOnce() -> R) -> R {
    if changes {
        inside(Part::Invalidation, f)
    } else {
        inside(Part::Walk, f)
    }
}

/// Runs `f` while the current task counts as one that holds `i_mmap_rwsem`.
///
/// # Errors
///
/// As [`may_lock_folios`]; else what `f` returns.
#[inline(always)]
pub(crate) fn below_i_mmap<R>(f: impl FnOnce() -> Result<R>) -> Result<R> {
    let node = Node::new(Part::IMmap);
    // It is not null.
    let node = NonNull::from(&node).cast::<Node>();

    // SAFETY: As in `inside`.
    if !unsafe { enter_if_may_lock_folios(node) } {
        return Err(EDEADLK);
    }

    let ret = f();

    // SAFETY: It was entered above, by the same task.
    unsafe { leave(node) };
    ret
}

/// Runs `f` while the current task counts as one that runs a callback of a subscriber.
#[inline(always)]
pub(crate) fn called_back<R>(f: impl FnOnce() -> R) -> R {
    inside(Part::Callback, f)
}

/// Runs `f` while the current task counts as one that programs a device for exclusive pages.
#[inline(always)]
pub(crate) fn programming<R>(f: impl FnOnce() -> R) -> R {
    inside(Part::Programming, f)
}

#[inline(never)]
#[link_section = ".text.hot"]
fn is_inside(wanted: impl Fn(Part) -> bool) -> bool {
    let Some((list, task)) = list_of_current() else {
        return false;
    };

    // What this task has entered it has counted itself, so without the lock it sees that.
    if list.nr.load(Relaxed) == 0 {
        return false;
    }

    list.head.lock().has(task, wanted)
}

/// Whether the current task may wait for the end of invalidations, and for the mmap lock.
///
/// # Errors
///
/// `EDEADLK` if it is inside of an invalidation or of a walk, below `i_mmap_rwsem`, in the callback
/// of a subscriber, which is called from within an invalidation, or in the function that programs a
/// device.
#[inline(never)]
pub(crate) fn may_wait() -> Result {
    if is_inside(|_| true) {
        Err(EDEADLK)
    } else {
        Ok(())
    }
}

/// Whether the end of invalidations, for which the current task would wait, is its own, or that of
/// who may wait for `i_mmap_rwsem`, which it holds.
#[inline(never)]
pub(crate) fn in_invalidation() -> bool {
    is_inside(|part| part != Part::Walk)
}

fn keeps_from_folios(part: Part) -> bool {
    !matches!(part, Part::Walk | Part::Invalidation)
}

/// Whether the current task may lock folios, or take them from a device, or take `i_mmap_rwsem`.
///
/// # Errors
///
/// `EDEADLK` if it is in the function that programs a device, with such folios locked, below
/// `i_mmap_rwsem`, or in the callback of a subscriber, which may be called with any of these locks
/// held.
#[inline(never)]
#[link_section = ".text.hot"]
pub(crate) fn may_lock_folios() -> Result {
    if is_inside(keeps_from_folios) {
        Err(EDEADLK)
    } else {
        Ok(())
    }
}
