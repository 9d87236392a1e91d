// SPDX-License-Identifier: GPL-2.0

//! All subscriptions, so that one whose module is unloaded ends.
//!
//! A value in a `static` is never dropped, and one may be kept for ever by a cycle of reference
//! counts: then a module is unloaded with subscriptions, whose callbacks are in its text. When it
//! goes, after its exit function, they are ended before the text is freed.
//!
//! The lock of the registry is not held while invalidations are waited for: whoever ends a
//! subscription takes it.

use crate::bindings;
use core::{
    pin::Pin,
    ptr,
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    }, //
};
use kernel::{
    bindings::{
        mmu_interval_notifier,
        mmu_notifier, //
    },
    error::to_result,
    new_condvar,
    new_mutex,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    str::CStr,
    sync::{
        CondVar,
        Mutex, //
    },
    types::Opaque, //
};

/// A subscription of one of the two kinds.
#[derive(Clone, Copy)]
pub(super) enum Subscription {
    Interval(*mut mmu_interval_notifier),
    Mm(*mut mmu_notifier),
}

impl Subscription {
    /// What tells it from others.
    fn id(self) -> usize {
        match self {
            Subscription::Interval(raw) => raw.addr(),
            Subscription::Mm(raw) => raw.addr(),
        }
    }

    /// Waits until no callback runs and none will.
    ///
    /// # Safety
    ///
    /// It is inserted or registered, and ends by this call alone.
    unsafe fn end(self) {
        match self {
            // SAFETY: By this function's safety requirements.
            Subscription::Interval(raw) => unsafe {
                kernel::bindings::mmu_interval_notifier_remove(raw)
            },
            // SAFETY: As above.
            Subscription::Mm(raw) => unsafe {
                kernel::bindings::mmu_notifier_unregister(raw, (*raw).mm)
            },
        }
    }
}

/// A subscription, and what is known of it.
#[derive(Clone, Copy)]
struct Known {
    subscription: Subscription,
    /// The allocation that it is in.
    object: *const c_void,
    /// The address of a callback.
    code: usize,
    /// It is being ended, as its module goes.
    ends: bool,
}

// SAFETY: The pointers are used by whoever ends the subscription, which any thread may do.
unsafe impl Send for Known {}

#[pin_data]
struct Tree {
    #[pin]
    known: Mutex<RBTree<usize, Known>>,
    #[pin]
    ended: CondVar,
}

/// That of the module that is loaded; null before and after.
static TREE: AtomicPtr<Tree> = AtomicPtr::new(ptr::null_mut());

fn tree<'a>() -> Option<&'a Tree> {
    // SAFETY: By the safety requirements of `Registry::new` nobody has the tree when it goes.
    unsafe { TREE.load(Ordering::Acquire).as_ref() }
}

/// Room for one more subscription.
pub(super) struct Place(RBTreeNodeReservation<usize, Known>);

impl Place {
    #[inline(never)]
    pub(super) fn new() -> Result<Self> {
        Ok(Self(RBTreeNodeReservation::new(GFP_KERNEL)?))
    }

    /// Notes a subscription in the allocation `object`, with a callback at `code`.
    ///
    /// # Safety
    ///
    /// It has just begun, and the allocation stays until [`take`] has been called for it. The
    /// memory of `object` is from kmalloc.
    #[inline(never)]
    pub(super) unsafe fn fill(
        self,
        subscription: Subscription,
        object: *const c_void,
        code: usize,
    ) {
        if let Some(tree) = tree() {
            let known = Known {
                subscription,
                object,
                code,
                ends: false,
            };

            tree.known
                .lock()
                .insert(self.0.into_node(subscription.id(), known));
        }
    }
}

/// Forgets a subscription, and says whether it is still to be ended: not if its module went before.
/// Sleeps; must not be called inside of an invalidation.
#[inline(never)]
pub(super) fn take(raw: *const c_void) -> bool {
    let Some(tree) = tree() else {
        return true;
    };
    let mut known = tree.known.lock();

    while known.get(&raw.addr()).is_some_and(|known| known.ends) {
        tree.ended.wait(&mut known);
    }
    known.remove(&raw.addr()).is_some()
}

impl Tree {
    /// The next subscription of a module that goes, which is to be ended.
    fn next_of(&self, module: *mut c_void) -> Option<Known> {
        let mut known = self.known.lock();
        let next = known.values_mut().find(|known| {
            // SAFETY: The module is valid while it goes.
            !known.ends && unsafe { bindings::mmops_within_module(known.code, module.cast()) }
        })?;

        next.ends = true;
        Some(*next)
    }

    fn end_all_of(&self, module: *mut c_void) {
        let mut nr = 0usize;

        while let Some(known) = self.next_of(module) {
            // SAFETY: It is in the tree, so it has not ended; whoever else would end it waits.
            unsafe { known.subscription.end() };
            // SAFETY: The allocation stays until `take` has been called for it, which waits.
            unsafe { bindings::mmops_not_a_leak(known.object) };
            self.known.lock().remove(&known.subscription.id());
            self.ended.notify_all();
            nr += 1;
        }
        if nr != 0 {
            let module = module.cast::<kernel::bindings::module>();
            // SAFETY: The module is valid while it goes, and its name is a string.
            let name = unsafe { CStr::from_char_ptr((*module).name.as_ptr().cast()) };

            pr_warn!("{name}: unloaded with {nr} notifiers, which are ended\n");
        }
    }
}

/// Keeps the registry while it lives.
pub(super) struct Registry {
    block: Pin<KBox<Block>>,
    _tree: Pin<KBox<Tree>>,
}

#[pin_data]
struct Block {
    #[pin]
    raw: Opaque<kernel::bindings::notifier_block>,
}

// SAFETY: It is used by the kernel's notifier chain alone, from any thread.
unsafe impl Send for Block {}

// SAFETY: As above.
unsafe impl Sync for Block {}

impl Registry {
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// There is one value, for the module; there is no subscription any more when it is dropped.
    pub(super) unsafe fn new() -> Result<Self> {
        let tree = KBox::pin_init(
            pin_init!(Tree {
                known <- new_mutex!(RBTree::new()),
                ended <- new_condvar!(),
            }),
            GFP_KERNEL,
        )?;
        let block = KBox::pin_init(
            pin_init!(Block {
                raw: Opaque::new(kernel::bindings::notifier_block {
                    notifier_call: Some(module_changes),
                    ..Default::default()
                }),
            }),
            GFP_KERNEL,
        )?;

        TREE.store(ptr::from_ref(&*tree).cast_mut(), Ordering::Release);
        // SAFETY: The block is pinned, and taken out of the chain before it goes.
        let ret = to_result(unsafe { kernel::bindings::register_module_notifier(block.raw.get()) });

        if let Err(e) = ret {
            TREE.store(ptr::null_mut(), Ordering::Release);
            return Err(e);
        }
        Ok(Self { block, _tree: tree })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // SAFETY: The block was registered. When the function returns, the chain does not call it.
        unsafe { kernel::bindings::unregister_module_notifier(self.block.raw.get()) };
        TREE.store(ptr::null_mut(), Ordering::Release);
    }
}

/// # Safety
///
/// Called by the chain of module notifiers alone: `module` is the module that changes.
unsafe extern "C" fn module_changes(
    _block: *mut kernel::bindings::notifier_block,
    state: usize,
    module: *mut c_void,
) -> c_int {
    if state == kernel::bindings::module_state_MODULE_STATE_GOING as usize {
        if let Some(tree) = tree() {
            tree.end_all_of(module);
        }
    }
    0
}
