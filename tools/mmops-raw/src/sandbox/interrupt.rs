// SPDX-License-Identifier: GPL-2.0

//! An end to a call of a thread that waits.

use nix::libc;
use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
use rustix::thread::gettid;

use super::{syscall, wide};

/// Has the threads of this process wake from calls by [`interrupt`].
pub fn allow_interrupts() -> nix::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler = SigHandler::Handler(nothing);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: The handler does nothing, and nobody else has one for this signal.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.map(drop)
}

/// The number of this thread.
pub fn this_thread() -> i32 {
    gettid().as_raw_nonzero().get()
}

/// Ends the wait of a thread of this process in a system call, after [`allow_interrupts`].
pub fn interrupt(thread: i32) -> nix::Result<()> {
    let (pid, signal) = (std::process::id().into(), wide(libc::SIGUSR1));
    syscall(libc::SYS_tgkill, [pid, wide(thread), signal, 0, 0, 0]).map(drop)
}
