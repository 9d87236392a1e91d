// SPDX-License-Identifier: GPL-2.0

//! What is said on standard output and standard error.
//!
//! Either can be gone, or on a disk that is full. What goes to standard error is for whoever reads
//! it, and what a command does goes on without one. Standard output has the result: if that cannot
//! be written, the command fails; without a word if its reader went away.

use std::error::Error;
use std::fmt::{self, Arguments, Display, Formatter};
use std::io::{self, ErrorKind, Write};

/// Standard output cannot be written.
#[derive(Debug)]
struct Unwritten(io::Error);

impl Display for Unwritten {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write to standard output: {}", self.0)
    }
}

impl Error for Unwritten {}

/// Marks an error of standard output as one.
fn mark(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Unwritten(error))
}

/// Whether an error is that nobody reads standard output any more, as after `head`.
pub fn is_unread(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| {
            cause.kind() == ErrorKind::BrokenPipe
                && cause
                    .get_ref()
                    .is_some_and(|marked| marked.is::<Unwritten>())
        })
    })
}

/// Standard output.
#[derive(Debug)]
pub struct Output(io::Stdout);

/// Standard output, for the result.
pub fn output() -> Output {
    Output(io::stdout())
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(mark)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(mark)
    }
}

/// A line on standard output.
pub fn say(line: Arguments<'_>) -> io::Result<()> {
    writeln!(output(), "{line}")
}

/// A line on standard error, in one piece, since others may write there as well.
pub fn note(line: Arguments<'_>) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// A line of the result on standard output: fails if that cannot be written.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::say(format_args!($($text)*)) };
}

/// A line on standard error, if that can be written.
macro_rules! note {
    ($($text:tt)*) => { $crate::output::note(format_args!($($text)*)) };
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn only_standard_output_goes_unread() {
        let broken = || io::Error::from(ErrorKind::BrokenPipe);
        let error = |error: io::Error| Err::<(), _>(error).context("cannot say").unwrap_err();
        assert!(is_unread(&error(mark(broken()))));
        // That of a log, or of a stream.
        assert!(!is_unread(&error(broken())));
        assert!(!is_unread(&error(mark(ErrorKind::StorageFull.into()))));
    }
}
