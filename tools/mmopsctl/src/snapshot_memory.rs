// SPDX-License-Identifier: GPL-2.0

//! The memory of a process, read from outside, and without making more of it: a page that nobody
//! has used is zero, and would be there after it was read.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use crate::process::{gone, is_there, Memory, Pagemap};
use crate::snapshot_plan::union;
use crate::sparse::data_in;
use crate::tracked::FileSystem;

/// What is behind a mapping.
#[derive(Debug)]
pub enum Backing {
    /// Nothing: only the process itself changes it, and what is not there is zero.
    Nothing,
    /// A file, open if its holes tell what is zero.
    File(Option<File>),
    /// A device.
    Device,
}

impl Backing {
    /// What is behind `map`.
    pub fn of(memory: &Memory, map: &MemoryMap) -> Self {
        let path = match &map.pathname {
            MMapPath::Path(path) => path.as_path(),
            _ => Path::new(""),
        };
        let is_private = !map.perms.contains(MMPermissions::SHARED);
        // Shared memory of System V can have the inode 0, on a device that is not.
        let has_no_file = map.inode == 0 && map.dev == (0, 0);
        if has_no_file || is_private && is_anonymous(path) {
            return Self::Nothing;
        }
        // A look at what the link is of, so that no device is opened.
        let link = memory.map_file(map);
        let Ok(metadata) = link.metadata() else {
            // It went meanwhile, or the main thread has ended.
            return match is_of_device(path) || is_of_kernel(path) {
                true => Self::Device,
                false => Self::File(None),
            };
        };
        let kind = metadata.file_type();
        if kind.is_char_device() || kind.is_block_device() || is_of_kernel(path) {
            return Self::Device;
        }
        let file = match metadata.is_file() {
            true => File::open(&link).ok(),
            false => None,
        };
        Self::File(file.filter(|file| FileSystem::of(file).is_ok_and(|on| on.has_true_holes)))
    }

    /// Whether others may change it.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

/// Whether a private mapping of this name has no file behind it.
fn is_anonymous(path: &Path) -> bool {
    path == Path::new("/dev/zero") || path.to_string_lossy().starts_with("/anon_hugepage")
}

/// Whether this looks like a device.
fn is_of_device(path: &Path) -> bool {
    // Shared anonymous memory has a name that does.
    path.starts_with("/dev")
        && !path.starts_with("/dev/shm")
        && !path.to_string_lossy().starts_with("/dev/zero")
}

/// Whether this is a file that the kernel makes up, and that can be memory of a device.
fn is_of_kernel(path: &Path) -> bool {
    path.starts_with("/sys") || path.starts_with("/proc")
}

/// The memory that a process has now.
#[derive(Debug)]
pub struct Contents {
    mem: File,
    pagemap: Pagemap,
    page_size: u64,
}

/// What was read from an address on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes, whole pages.
    Bytes(usize),
    /// The first page cannot be read.
    Unreadable,
}

impl Contents {
    /// That of `memory`.
    pub fn of(memory: &Memory, page_size: u64) -> io::Result<Self> {
        Ok(Self {
            mem: memory.contents()?,
            pagemap: memory.pagemap()?,
            page_size,
        })
    }

    /// Reads pages from `address` on.
    pub fn read(&self, buffer: &mut [u8], address: u64) -> io::Result<Read> {
        let mut done = 0;
        while done < buffer.len() {
            match self.mem.read_at(&mut buffer[done..], address + done as u64) {
                Ok(0) => return Err(gone()),
                Ok(n) => done += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        Ok(match done - done % self.page_size as usize {
            0 => Read::Unreadable,
            whole => Read::Bytes(whole),
        })
    }

    /// The parts of `range`, of the mapping `map`, that can have anything but zeros.
    pub fn used(
        &self,
        map: &MemoryMap,
        backing: &Backing,
        range: &Range<u64>,
    ) -> io::Result<Vec<Range<u64>>> {
        let size = self.page_size;
        let there = || -> io::Result<Vec<Range<u64>>> {
            let pages = range.start / size..range.end / size;
            let found = self.pagemap.find(pages, is_there)?.into_iter();
            Ok(found.map(|run| run.start * size..run.end * size).collect())
        };
        match backing {
            Backing::Nothing => there(),
            Backing::File(None) => Ok(vec![range.clone()]),
            Backing::File(Some(file)) => {
                let mut used = there()?;
                // An address is so far behind its place in the file.
                let in_file = |address| address - map.address.0 + map.offset;
                for data in data_in(file, in_file(range.start)..in_file(range.end)) {
                    let data = data?;
                    let first = data.start / size * size;
                    let end = data.end.next_multiple_of(size);
                    let at = |offset: u64| offset - map.offset + map.address.0;
                    used.push(at(first).max(range.start)..at(end).min(range.end));
                }
                Ok(union(used))
            }
            Backing::Device => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> (Memory, Vec<MemoryMap>) {
        let memory = Memory::of(std::process::id() as i32).unwrap();
        let maps = memory.maps().unwrap();
        (memory, maps)
    }

    fn map_at(maps: &[MemoryMap], address: u64) -> &MemoryMap {
        let mut maps = maps.iter();
        maps.find(|map| (map.address.0..map.address.1).contains(&address))
            .unwrap()
    }

    #[test]
    fn own_memory() {
        let (memory, maps) = own();
        let contents = Contents::of(&memory, 4096).unwrap();
        let value = Box::new(*b"something to be found");
        let address = value.as_ptr() as u64;
        let page = address / 4096 * 4096;
        let map = map_at(&maps, address);
        assert!(matches!(Backing::of(&memory, map), Backing::Nothing));
        let range = page..page + 4096;
        let used = contents.used(map, &Backing::Nothing, &range).unwrap();
        assert_eq!(used, [range]);
        let mut buffer = vec![0; 4096];
        let read = contents.read(&mut buffer, page).unwrap();
        assert_eq!(read, Read::Bytes(4096));
        assert!(buffer[(address - page) as usize..].starts_with(&value[..]));
        assert_eq!(contents.read(&mut buffer, 0).unwrap(), Read::Unreadable);
    }

    #[test]
    fn what_is_behind() {
        let (memory, maps) = own();
        let here = what_is_behind as fn() as usize as u64;
        let code = map_at(&maps, here);
        assert!(Backing::of(&memory, code).is_file());
        assert!(is_of_device(Path::new("/dev/card")) && !is_of_device(Path::new("/dev/shm/a")));
        assert!(!is_of_device(Path::new("/dev/zero (deleted)")));
        assert!(is_anonymous(Path::new("/anon_hugepage (deleted)")));
        assert!(is_anonymous(Path::new("/dev/zero")) && !is_anonymous(Path::new("/zero")));
        assert!(is_of_kernel(Path::new("/sys/devices/x/resource0")));
        assert!(!is_of_kernel(Path::new("/system")));
    }
}
