// SPDX-License-Identifier: GPL-2.0

//! A process, seen through a thread that lives.
//!
//! A process lives on when its main thread has ended, but `/proc/PID` shows the main thread: no
//! mappings then, and no pages. `/proc/PID/task/TID` of another thread shows them.

use std::fs::File;
use std::io::{self, ErrorKind};
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

/// The memory of a process has gone with it.
pub fn gone() -> io::Error {
    io::Error::new(ErrorKind::NotFound, "its memory is gone")
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
    pub fn pagemap(&self) -> io::Result<Pagemap> {
        Ok(Pagemap(File::open(self.root.join("pagemap"))?))
    }

    /// The file `mem`, of the memory that the process has now, for reading.
    pub fn contents(&self) -> io::Result<File> {
        File::open(self.root.join("mem"))
    }

    /// A path to what a mapping maps. A process whose main thread has ended has none.
    pub fn map_file(&self, map: &MemoryMap) -> PathBuf {
        let (start, end) = map.address;
        self.root.join(format!("map_files/{start:x}-{end:x}"))
    }
}

/// `/proc/PID/pagemap`.
#[derive(Debug)]
pub struct Pagemap(File);

impl Pagemap {
    /// Calls `f` with the number of a page and entries from that page on, until it has had all of
    /// `pages`, or there is no more: the address space is over, or the process has ended. Up to
    /// which page there was.
    fn read(&self, pages: Range<u64>, mut f: impl FnMut(u64, &[u8])) -> io::Result<u64> {
        let mut page = pages.start;
        let mut bytes = Vec::new();
        while page < pages.end {
            let chunk = CHUNK.min(pages.end - page);
            bytes.resize(chunk as usize * size_of::<u64>(), 0);
            let read = read_up_to(&self.0, &mut bytes, page * 8)?;
            if read == 0 {
                break;
            }
            f(page, &bytes[..read]);
            page += (read / size_of::<u64>()) as u64;
        }
        Ok(page)
    }

    /// The number of pages whose entry `f` is for.
    pub fn count(&self, pages: Range<u64>, f: impl Fn(u64) -> bool) -> io::Result<u64> {
        let mut nr = 0;
        self.read(pages, |_, entries| nr += count(entries, &f))?;
        Ok(nr)
    }

    /// The pages whose entry `f` is for, in ascending order. They are in a mapping.
    ///
    /// # Errors
    ///
    /// `NotFound` if the memory has gone with its process.
    pub fn find(&self, pages: Range<u64>, f: impl Fn(u64) -> bool) -> io::Result<Vec<Range<u64>>> {
        let mut found = Vec::new();
        let end = pages.end;
        let read = self.read(pages, |first, bytes| {
            find(first, entries(bytes), &f, &mut found)
        })?;
        if read < end {
            return Err(gone());
        }
        Ok(found)
    }
}

/// The entries that were read.
fn entries(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let (entries, _) = bytes.as_chunks();
    entries.iter().map(|entry| u64::from_ne_bytes(*entry))
}

/// The number of entries that `f` is for.
fn count(bytes: &[u8], f: impl Fn(u64) -> bool) -> u64 {
    entries(bytes).filter(|entry| f(*entry)).count() as u64
}

/// Adds the pages whose entry `f` is for to `found`; `entries` are those from page `first` on.
fn find(
    first: u64,
    entries: impl Iterator<Item = u64>,
    f: impl Fn(u64) -> bool,
    found: &mut Vec<Range<u64>>,
) {
    for (page, entry) in (first..).zip(entries) {
        if !f(entry) {
            continue;
        }
        match found.last_mut() {
            Some(last) if last.end == page => last.end = page + 1,
            _ => found.push(page..page + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

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
        let mut found = Vec::new();
        find(7, entries.into_iter(), is_there, &mut found);
        // The next ones that are read go on.
        find(12, entries.into_iter(), is_there, &mut found);
        assert_eq!(found, [7..8, 9..11, 12..13, 14..16]);
        find(16, [PRESENT].into_iter(), is_there, &mut found);
        assert_eq!(found.last(), Some(&(14..17)));
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
        let pagemap = memory.pagemap().unwrap();
        assert_eq!(pagemap.count(page.clone(), is_there).unwrap(), 1);
        let found = pagemap.find(page.clone(), is_there).unwrap();
        assert_eq!(found, [page]);
        assert!(Memory::of(i32::MAX).is_err());
    }

    #[test]
    fn no_entries_of_a_process_that_has_ended() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let memory = Memory::of(child.id() as i32).unwrap();
        let pagemap = memory.pagemap().unwrap();
        let maps = memory.maps().unwrap();
        let (start, end) = maps[0].address;
        let pages = start / 4096..end / 4096;
        assert!(pagemap.find(pages.clone(), is_there).is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
        let error = pagemap.find(pages, is_there).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
