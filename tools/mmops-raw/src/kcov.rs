// SPDX-License-Identifier: GPL-2.0

//! Which places of the kernel a thread comes to, by KCOV.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::libc;

use crate::Memory;

const INIT_TRACE: u32 = nix::request_code_read!(b'c', 1, size_of::<libc::c_ulong>()) as u32;
const ENABLE: u32 = nix::request_code_none!(b'c', 100) as u32;
/// The addresses themselves, not what is compared.
const TRACE_PC: libc::c_ulong = 0;

/// What the kernel notes of the thread that has made it.
#[derive(Debug)]
pub struct Kcov {
    // Closing it ends the tracing.
    _file: File,
    memory: Memory,
}

impl Kcov {
    /// Traces this thread, until it ends; what comes after `words` - 1 addresses is lost.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the kernel has no KCOV, or debugfs is not mounted.
    pub fn this_thread(words: usize) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/sys/kernel/debug/kcov")?;
        let call = |number: u32, arg: libc::c_ulong| {
            // SAFETY: The file has these calls, whose argument is a number.
            Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), number as _, arg) })
        };
        call(INIT_TRACE, words as _)?;
        let memory = Memory::shared(&file, words * size_of::<u64>())?;
        call(ENABLE, TRACE_PC)?;
        let _file = file;
        Ok(Self { _file, memory })
    }

    /// Forgets what was noted.
    pub fn reset(&self) {
        self.memory.words()[0].store(0, Relaxed);
    }

    /// What was noted since then: an address for each time that the thread came there.
    pub fn addresses(&self) -> impl Iterator<Item = u64> + '_ {
        let (count, addresses) = self.memory.words().split_at(1);
        let count = count[0].load(Relaxed) as usize;
        addresses.iter().take(count).map(|word| word.load(Relaxed))
    }
}
