// SPDX-License-Identifier: GPL-2.0

//! A process, seen through a thread that lives.
//!
//! A process lives on when its main thread has ended, but `/proc/PID` shows the main thread: no
//! mappings then, and no pages. `/proc/PID/task/TID` of another thread shows them.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;

use procfs::process::{MMPermissions, MemoryMap, Process};
use procfs::ProcResult;

use crate::sparse::read_up_to;

/// Bits of an entry of `/proc/PID/pagemap`.
pub const SOFT_DIRTY: u64 = 1 << 55;
const SWAPPED: u64 = 1 << 62;
const PRESENT: u64 = 1 << 63;

/// Entries that are read at once.
const CHUNK: u64 = 1 << 16;

/// Whether an entry of `/proc/PID/pagemap` is of a page that is there, in memory or in swap.
pub fn is_there(entry: u64) -> bool {
    entry & (PRESENT | SWAPPED) != 0
}

/// Whether `state`, of `/proc/PID/stat`, is that of a thread that has ended.
pub fn is_end(state: char) -> bool {
    matches!(state, 'Z' | 'X' | 'x')
}

/// The memory of a process.
#[derive(Debug)]
pub struct Memory {
    process: Process,
    root: PathBuf,
}

impl Memory {
    /// Memory of the process `pid`; when all of its threads have ended, it has no mappings.
    pub fn of(pid: i32) -> ProcResult<Self> {
        let root = PathBuf::from(format!("/proc/{pid}"));
        let process = Process::new(pid)?;
        if !is_end(process.stat()?.state) {
            return Ok(Self { process, root });
        }
        for task in process.tasks()? {
            // Each of them can end meanwhile.
            let Some(task) = task
                .ok()
                .filter(|task| task.stat().is_ok_and(|stat| !is_end(stat.state)))
            else {
                continue;
            };
            let root = root.join("task").join(task.tid.to_string());
            if let Ok(process) = Process::new_with_root(root.clone()) {
                return Ok(Self { process, root });
            }
        }
        Ok(Self { process, root })
    }

    /// The mappings.
    pub fn maps(&self) -> ProcResult<Vec<MemoryMap>> {
        Ok(self.process.maps()?.into_iter().collect())
    }

    /// The mappings that can be accessed: reserved address space can be large, and nobody stores to
    /// it.
    pub fn accessible_maps(&self) -> ProcResult<Vec<MemoryMap>> {
        let any = MMPermissions::READ | MMPermissions::WRITE | MMPermissions::EXECUTE;
        let maps = self.maps()?.into_iter();
        Ok(maps.filter(|map| map.perms.intersects(any)).collect())
    }

    /// The file `pagemap`, of the memory that the process has now.
    pub fn pagemap(&self) -> std::io::Result<Pagemap> {
        Ok(Pagemap(File::open(self.root.join("pagemap"))?))
    }
}

/// `/proc/PID/pagemap`.
#[derive(Debug)]
pub struct Pagemap(File);

impl Pagemap {
    /// The number of pages whose entry `f` is for.
    pub fn count(&self, pages: Range<u64>, f: impl Fn(u64) -> bool) -> std::io::Result<u64> {
        let (mut page, mut nr) = (pages.start, 0);
        let mut bytes = Vec::new();
        while page < pages.end {
            let chunk = CHUNK.min(pages.end - page);
            bytes.resize(chunk as usize * size_of::<u64>(), 0);
            let read = read_up_to(&self.0, &mut bytes, page * 8)?;
            if read == 0 {
                break;
            }
            nr += count(&bytes[..read], &f);
            page += (read / size_of::<u64>()) as u64;
        }
        Ok(nr)
    }
}

/// The number of entries that `f` is for.
fn count(entries: &[u8], f: impl Fn(u64) -> bool) -> u64 {
    let (entries, _) = entries.as_chunks();
    let entries = entries.iter().map(|entry| u64::from_ne_bytes(*entry));
    entries.filter(|entry| f(*entry)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_not_there_do_not_count() {
        let entries = [
            SOFT_DIRTY | PRESENT,
            SOFT_DIRTY,
            PRESENT,
            SOFT_DIRTY | SWAPPED,
            0,
        ];
        let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_ne_bytes()).collect();
        assert_eq!(count(&bytes, is_there), 3);
        assert_eq!(count(&bytes, |e| e & SOFT_DIRTY != 0 && is_there(e)), 2);
    }

    #[test]
    fn own_memory() {
        let memory = Memory::of(std::process::id() as i32).unwrap();
        let here = own_memory as fn() as usize as u64;
        let maps = memory.maps().unwrap();
        assert!(maps
            .iter()
            .any(|map| (map.address.0..map.address.1).contains(&here)));
        let page = here / 4096..here / 4096 + 1;
        assert_eq!(memory.pagemap().unwrap().count(page, is_there).unwrap(), 1);
        assert!(Memory::of(i32::MAX).is_err());
    }
}
