// SPDX-License-Identifier: GPL-2.0

//! Going on after a signal.

use nix::errno::Errno;

/// Makes a system call again for as long as a signal interrupts it.
///
/// For calls that wait, and have changed nothing when they return `EINTR`. A stop (SIGSTOP, or
/// Ctrl-Z) and a debugger that attaches interrupt some calls without a handler being run.
pub fn retry_on_eintr<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_signal_is_passed_over() {
        let mut results = [Err(Errno::EINTR), Err(Errno::EINTR), Ok(7), Ok(8)].into_iter();
        assert_eq!(retry_on_eintr(|| results.next().unwrap()), Ok(7));
        let mut results = [Err(Errno::EINTR), Err(Errno::EAGAIN), Ok(7)].into_iter();
        assert_eq!(
            retry_on_eintr(|| results.next().unwrap()),
            Err(Errno::EAGAIN)
        );
    }
}
