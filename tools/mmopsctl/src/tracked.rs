// SPDX-License-Identifier: GPL-2.0

//! A file whose mappings are tracked.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use mmops_uapi::{retry_on_eintr, Flags};
use nix::sys::statfs::{fstatfs, FsType};

use crate::cli::{Huge, Pages};
use crate::process::Memory;

/// File systems by their magic number: name, whether the kernel writes them back, and whether
/// their holes can be trusted (see [`FileSystem::has_true_holes`]).
const FILE_SYSTEMS: &[(u64, &str, bool, bool)] = &[
    (0x0102_1994, "tmpfs", false, true),
    (0x8584_58f6, "ramfs", false, false),
    (0x9584_58f6, "hugetlbfs", false, false),
    (0xef53, "ext4", true, true),
    (0x5846_5342, "xfs", true, true),
    (0x9123_683e, "btrfs", true, true),
    (0xf2f5_2010, "f2fs", true, false),
    (0x794c_7630, "overlayfs", true, false),
    (0x0102_1997, "9p", true, false),
    (0x6969, "nfs", true, false),
    (0x6573_5546, "fuse", true, false),
];

/// What a file lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its name, or its magic number in hexadecimal.
    pub name: String,
    /// Whether the kernel writes dirty pages to a device, and takes their dirty bits for that.
    pub writes_back: bool,
    /// Whether `SEEK_DATA` finds each page that is dirty in memory. On a file system whose server
    /// answers it, and does not know yet of what was stored, it would not.
    pub has_true_holes: bool,
}

impl FileSystem {
    /// What an open file lies on.
    pub fn of(file: &File) -> nix::Result<Self> {
        let FsType(magic) = retry_on_eintr(|| fstatfs(file))?.filesystem_type();
        // Magic numbers are 32 bits, whatever the width and sign of the C type.
        Ok(Self::from_magic(u64::from(magic as u32)))
    }

    fn from_magic(magic: u64) -> Self {
        match FILE_SYSTEMS.iter().find(|(known, ..)| *known == magic) {
            Some(&(_, name, writes_back, has_true_holes)) => Self {
                name: name.to_owned(),
                writes_back,
                has_true_holes,
            },
            None => Self {
                name: format!("file system {magic:#x}"),
                writes_back: true,
                has_true_holes: false,
            },
        }
    }
}

/// A process that maps the file shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapper {
    /// Process ID.
    pub pid: i32,
    /// Name of the program.
    pub name: String,
}

/// A file, open for reading and writing, whose mappings are tracked.
#[derive(Debug)]
pub struct Tracked {
    path: PathBuf,
    file: File,
}

impl Tracked {
    /// Opens `path`; the error says what to do.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| {
                let help = match error.kind() {
                    ErrorKind::NotFound => "; name a file that a program has mapped",
                    ErrorKind::PermissionDenied => "; run this as root",
                    ErrorKind::IsADirectory => "; name the file in it that programs map",
                    ErrorKind::ExecutableFileBusy => {
                        "; it is a program that is running, which nobody can store to"
                    }
                    ErrorKind::ReadOnlyFilesystem => "; nobody can store to it",
                    _ => "",
                };
                anyhow::anyhow!(
                    "cannot open {} for reading and writing: {error}{help}",
                    path.display()
                )
            })?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Metadata of the open file.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Pages that `pages` stands for. It may reach past the end of the file.
    pub fn range(&self, pages: &Pages, page_size: u64) -> Result<Range<u64>> {
        let nr = match pages.nr {
            Some(nr) => nr,
            None => {
                let size = (&self.file)
                    .seek(SeekFrom::End(0))
                    .with_context(|| format!("cannot tell the size of {}", self.path.display()))?;
                let in_file = size.div_ceil(page_size);
                if in_file <= pages.first {
                    bail!(
                        "{} has {in_file} pages, and none from page {} on; \
                         --nr names a range beyond the end of the file",
                        self.path.display(),
                        pages.first
                    );
                }
                in_file - pages.first
            }
        };
        let end = pages.first.checked_add(nr);
        let end = end.context("--first and --nr together are more than a file can have")?;
        Ok(pages.first..end)
    }

    /// The part of `range` that can hold anything: nothing is mapped past the end of a regular
    /// file.
    pub fn inside(&self, range: Range<u64>, page_size: u64) -> Result<Range<u64>> {
        let metadata = self.metadata()?;
        Ok(if metadata.is_file() {
            let end = metadata.len().div_ceil(page_size);
            range.start.min(end)..range.end.min(end)
        } else {
            range
        })
    }

    /// What the file lies on.
    pub fn file_system(&self) -> Result<FileSystem> {
        FileSystem::of(&self.file)
            .with_context(|| format!("cannot tell the file system of {}", self.path.display()))
    }

    /// Processes that map the file shared, as far as we may see.
    pub fn mappers(&self) -> Vec<Mapper> {
        let Ok(metadata) = self.metadata() else {
            return Vec::new();
        };
        let device = metadata.dev();
        let device = (
            nix::libc::major(device) as i32,
            nix::libc::minor(device) as i32,
        );
        let Ok(processes) = procfs::process::all_processes() else {
            return Vec::new();
        };
        processes
            .filter_map(|process| {
                let process = process.ok()?;
                let maps = Memory::of(process.pid)
                    .and_then(|memory| memory.maps())
                    .ok()?;
                let found = maps.iter().any(|map| {
                    map.inode == metadata.ino()
                        && map.dev == device
                        && map.perms.contains(procfs::process::MMPermissions::SHARED)
                });
                found.then(|| Mapper {
                    pid: process.pid,
                    name: process
                        .stat()
                        .map_or_else(|_| String::new(), |stat| stat.comm),
                })
            })
            .collect()
    }

    /// What to tell when nothing was dirty: whether there is anything to track at all.
    pub fn hint_when_clean(&self) -> Option<String> {
        self.mappers().is_empty().then(|| {
            format!(
                "no process that can be seen here maps {} shared, so there is nothing to track; \
                 stores through write(2) and to private mappings are not seen",
                self.path.display()
            )
        })
    }
}

impl From<Huge> for Flags {
    fn from(huge: Huge) -> Self {
        if huge.split {
            Flags::SPLIT
        } else {
            Flags::empty()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mmops_uapi::Memory;

    fn temporary(name: &str, size: u64) -> PathBuf {
        let path = std::env::temp_dir().join(format!("mmopsctl-{}-{name}", std::process::id()));
        File::create(&path).unwrap().set_len(size).unwrap();
        path
    }

    #[test]
    fn range() {
        let path = temporary("range", 10 * 4096 + 1);
        let tracked = Tracked::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let range = |first, nr| tracked.range(&Pages { first, nr }, 4096).ok();
        assert_eq!(range(0, None), Some(0..11));
        assert_eq!(range(10, None), Some(10..11));
        assert_eq!(range(11, None), None);
        assert_eq!(range(11, Some(5)), Some(11..16));
        assert_eq!(range(u64::MAX, Some(1)), None);
        let inside = |range| tracked.inside(range, 4096).unwrap();
        assert_eq!(inside(3..5), 3..5);
        assert_eq!(inside(3..u64::MAX), 3..11);
        assert_eq!(inside(12..20), 11..11);
    }

    #[test]
    fn mappers() {
        let path = temporary("mappers", 4096);
        let tracked = Tracked::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(tracked.hint_when_clean().unwrap().contains("no process"));
        let _map = Memory::shared(tracked.file(), 4096).unwrap();
        let pids: Vec<i32> = tracked.mappers().iter().map(|mapper| mapper.pid).collect();
        assert_eq!(pids, [std::process::id() as i32]);
        assert_eq!(tracked.hint_when_clean(), None);
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = |path: &str| Tracked::open(Path::new(path)).unwrap_err().to_string();
        assert!(error("/nonexistent/file").contains("name a file"));
        assert!(error("/tmp").contains("the file in it"));
    }

    #[test]
    fn file_systems() {
        assert!(!FileSystem::from_magic(0x0102_1994).writes_back);
        assert!(FileSystem::from_magic(0xef53).writes_back);
        let unknown = FileSystem::from_magic(0x1234);
        assert_eq!(
            (
                unknown.name.as_str(),
                unknown.writes_back,
                unknown.has_true_holes
            ),
            ("file system 0x1234", true, false)
        );
    }
}
