// SPDX-License-Identifier: GPL-2.0

//! A store buffer. `shuttle` puts all accesses into one order, and so no fence has an effect; on a
//! CPU, a store comes to memory after loads that follow it, unless there is a fence between them.

use shuttle::sync::atomic::Ordering;
use std::cell::RefCell;

/// When a store comes to memory, at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// At the next fence of its thread.
    Fence,
    /// When its thread drains its buffer, as if none had a fence.
    Drain,
}

type Store = Box<dyn FnOnce()>;

shuttle::thread_local! {
    static BUFFER: RefCell<Vec<(Until, Store)>> = RefCell::new(Vec::new());
}

/// Has a store of this thread come as late as it may.
pub fn store_late(until: Until, store: impl FnOnce() + 'static) {
    BUFFER.with(|buffer| buffer.borrow_mut().push((until, Box::new(store))));
}

fn drain_if(is_due: impl Fn(Until) -> bool) {
    let (due, left) = BUFFER.with(|buffer| {
        let all = buffer.take().into_iter();
        all.partition::<Vec<_>, _>(|(until, _)| is_due(*until))
    });
    BUFFER.with(|buffer| buffer.replace(left));
    for (_, store) in due {
        store();
    }
}

/// All stores of this thread come to memory.
pub fn drain() {
    drain_if(|_| true);
}

/// `core::sync::atomic::fence()`. Only that of [`Ordering::SeqCst`] orders loads behind stores.
pub fn fence(order: Ordering) {
    if order == Ordering::SeqCst {
        drain_if(|until| until == Until::Fence);
    }
}
