// SPDX-License-Identifier: GPL-2.0

//! Ways to learn again and again which pages another process has stored to: a tracker, soft-dirty
//! bits, `PAGEMAP_SCAN`.
//!
//! All are about its private anonymous memory as it is mapped when a watch begins.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use anyhow::{ensure, Context, Result};
use mmops_raw::write_tracking::{page_region, Pagemap, ProcessUffd};
use mmops_uapi::{pidfd_open, Kind, Mode, Tracker};
use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};

use crate::pagemap::{room, scan};
use crate::region::PAGE_SIZE;
use crate::soft_dirty::SOFT_DIRTY;

/// Mappings that are no further apart are watched as one range.
const NEAR: u64 = 64 << 20;

/// How pages are learned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Not at all.
    Untracked,
    /// By a tracker of mmops, in mode fast.
    Tracker,
    /// By soft-dirty bits, which are read and then cleared.
    SoftDirty,
    /// By `PAGEMAP_SCAN` with asynchronous write protection.
    Scan,
}

/// A process that is watched.
pub enum Watch<'a> {
    Untracked,
    Trackers(Vec<Tracker>),
    SoftDirty {
        mappings: Vec<Range<u64>>,
        pagemap: File,
        clear_refs: File,
    },
    Scan {
        ranges: Vec<Range<u64>>,
        pagemap: Pagemap,
        room: Vec<page_region>,
        _uffd: &'a ProcessUffd,
    },
}

/// What was stored to since it was asked last.
#[derive(Debug, Default)]
pub struct Told {
    /// The pages, as addresses, in ascending order.
    pub ranges: Vec<Range<u64>>,
    /// How many of them were seen to be stored to.
    pub stored: u64,
}

impl Told {
    fn push(&mut self, range: Range<u64>) {
        self.stored += pages_in(&range);
        self.ranges.push(range);
    }

    /// Whether the page at this address is among them.
    pub fn has(&self, address: u64) -> bool {
        let next = self.ranges.partition_point(|range| range.end <= address);
        self.ranges
            .get(next)
            .is_some_and(|range| range.contains(&address))
    }
}

impl<'a> Watch<'a> {
    /// Begins to watch; what comes first has all pages. `uffd` is for [`Way::Scan`].
    pub fn new(way: Way, pid: u32, uffd: Option<&'a ProcessUffd>) -> Result<Self> {
        let mappings = mappings(pid)?;
        Ok(match way {
            Way::Untracked => Watch::Untracked,
            Way::Tracker => {
                let pidfd = pidfd_open(pid).context("pidfd_open")?;
                let track = |range| Tracker::new(Some(pidfd.as_fd()), range, Mode::Fast);
                let trackers = merge(&mappings, NEAR).into_iter().map(track);
                Watch::Trackers(trackers.collect::<Result<_, _>>()?)
            }
            Way::SoftDirty => {
                let path = format!("/proc/{pid}/clear_refs");
                Watch::SoftDirty {
                    mappings,
                    pagemap: File::open(format!("/proc/{pid}/pagemap")).context("pagemap")?,
                    clear_refs: OpenOptions::new()
                        .write(true)
                        .open(path)
                        .context("clear_refs")?,
                }
            }
            Way::Scan => {
                let uffd = uffd.context("no userfaultfd")?;
                for range in &mappings {
                    uffd.register(range.clone()).context("UFFDIO_REGISTER")?;
                }
                let ranges = merge(&mappings, NEAR);
                let most = ranges.iter().map(pages_in).max().unwrap_or(0);
                Watch::Scan {
                    ranges,
                    pagemap: Pagemap::of_process(pid).context("pagemap")?,
                    room: room(most as usize),
                    _uffd: uffd,
                }
            }
        })
    }

    /// Whether there is something to be told.
    pub fn tells(&self) -> bool {
        !matches!(self, Watch::Untracked)
    }

    /// An epoch: what was stored to since the last one.
    pub fn epoch(&mut self) -> Result<Told> {
        let mut told = Told::default();
        match self {
            Watch::Untracked => {}
            Watch::Trackers(trackers) => {
                for tracker in trackers {
                    let epoch = tracker.begin()?;
                    let pages = epoch.pages()?;
                    epoch.commit()?;
                    let stored = pages.iter().filter(|found| found.kind == Kind::Written);
                    told.stored += stored.map(|found| pages_in(&found.range)).sum::<u64>();
                    told.ranges
                        .extend(pages.into_iter().map(|found| found.range));
                }
            }
            Watch::SoftDirty {
                mappings,
                pagemap,
                clear_refs,
            } => {
                for mapping in mappings {
                    read_soft_dirty(pagemap, mapping, &mut told)?;
                }
                clear_refs.write_all(b"4").context("clear_refs")?;
            }
            Watch::Scan {
                ranges,
                pagemap,
                room,
                ..
            } => {
                for range in ranges {
                    // What lies between the mappings is not registered, and passed over.
                    let found = scan(pagemap, range.clone(), 0, room)?;
                    let found = room[..found].iter();
                    found.for_each(|region| told.push(region.start..region.end));
                }
            }
        }
        Ok(told)
    }
}

fn pages_in(range: &Range<u64>) -> u64 {
    (range.end - range.start) / PAGE_SIZE as u64
}

fn read_soft_dirty(pagemap: &File, mapping: &Range<u64>, told: &mut Told) -> Result<()> {
    let mut bytes = vec![0; pages_in(mapping) as usize * size_of::<u64>()];
    let offset = mapping.start / PAGE_SIZE as u64 * size_of::<u64>() as u64;
    pagemap
        .read_exact_at(&mut bytes, offset)
        .context("pagemap")?;
    let (entries, _) = bytes.as_chunks();
    let is_set = |entry: &[u8; 8]| u64::from_ne_bytes(*entry) & SOFT_DIRTY != 0;
    let mut at = mapping.start;
    for run in entries.chunk_by(|a, b| is_set(a) == is_set(b)) {
        let end = at + (run.len() * PAGE_SIZE) as u64;
        if is_set(&run[0]) {
            told.push(at..end);
        }
        at = end;
    }
    Ok(())
}

/// Private anonymous memory that can be stored to.
fn mappings(pid: u32) -> Result<Vec<Range<u64>>> {
    let wanted = MMPermissions::WRITE | MMPermissions::PRIVATE;
    let is_wanted = |map: &MemoryMap| {
        let anonymous = [MMapPath::Anonymous, MMapPath::Heap, MMapPath::Stack];
        map.perms.contains(wanted) && anonymous.contains(&map.pathname)
    };
    let maps = Process::new(pid as i32)?.maps()?;
    let maps = maps.into_iter().filter(is_wanted);
    let ranges: Vec<_> = maps.map(|map| map.address.0..map.address.1).collect();
    ensure!(!ranges.is_empty(), "it has no memory");
    Ok(merge(&ranges, 0))
}

/// Joins ranges, which are in ascending order, that are no further apart than `gap`.
fn merge(ranges: &[Range<u64>], gap: u64) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start - last.end <= gap => last.end = range.end,
            _ => merged.push(range.clone()),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_one_range() {
        let ranges = [1..3, 3..4, 6..7, 10..11];
        assert_eq!(merge(&ranges, 0), [1..4, 6..7, 10..11]);
        assert_eq!(merge(&ranges, 2), [1..7, 10..11]);
    }

    #[test]
    fn pages_are_found_by_their_addresses() {
        let mut told = Told::default();
        told.push(0x1000..0x3000);
        told.push(0x5000..0x6000);
        assert_eq!(told.stored, 3);
        let found = [0xfff, 0x1000, 0x2fff, 0x3000, 0x5008, 0x6000].map(|at| told.has(at));
        assert_eq!(found, [false, true, true, false, true, false]);
    }

    #[test]
    fn own_memory_is_listed() {
        let words = vec![0u64; 1 << 20];
        let address = words.as_ptr() as u64;
        let mappings = mappings(std::process::id()).unwrap();
        assert!(mappings.iter().any(|range| range.contains(&address)));
    }
}
