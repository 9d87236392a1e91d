// SPDX-License-Identifier: GPL-2.0

//! A process, and the contents of its mappings in a directory.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{bail, Context, Result};
use mmops_uapi::{has_ended, pidfd_open};
use procfs::process::MemoryMap;

use crate::cli;
use crate::process::Memory;
use crate::snapshot_area::{Area, Buffers, OpenArea};
use crate::snapshot_compare::Compared;
use crate::snapshot_digest::digest_of;
use crate::snapshot_dir::Directory;
use crate::snapshot_index::{Entry, Index, LeftOut};
use crate::snapshot_memory::{Backing, Contents};
use crate::snapshot_plan::{choose, clip, name_of, rest, union, Choice};
use crate::stop::Stop;

/// How a round is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The process runs.
    Running,
    /// Nothing changes any more.
    Last { trust_files: bool, lose_pages: bool },
}

/// The process, and what was copied of it.
#[derive(Debug)]
pub struct Copier<'a> {
    pid: u32,
    pub pidfd: OwnedFd,
    pub page_size: u64,
    directory: Directory,
    /// In ascending order.
    pub areas: Vec<Area>,
    pub left_out: Vec<LeftOut>,
    pub stop: &'a Stop,
    buffers: Buffers,
}

impl<'a> Copier<'a> {
    /// Nothing copied yet.
    pub fn new(args: &cli::Snapshot, page_size: u64, stop: &'a Stop) -> Result<Self> {
        let pid = args.pid;
        if pid == std::process::id() {
            bail!("process {pid} is mmopsctl itself");
        }
        Ok(Self {
            pid,
            pidfd: pidfd_open(pid).with_context(|| format!("process {pid}"))?,
            page_size,
            directory: Directory::new(&args.dir)?,
            areas: Vec::new(),
            left_out: Vec::new(),
            stop,
            buffers: Buffers::new(),
        })
    }

    /// The memory that the process has now, and the mappings that are to be copied.
    pub fn look(&mut self) -> Result<(Memory, Vec<MemoryMap>)> {
        let memory = Memory::of(self.pid as i32)?;
        let mut wanted = Vec::new();
        self.left_out.clear();
        for map in memory.maps()? {
            let choice = match choose(&map, false) {
                // Only then does it matter what is behind it.
                Choice::Copied => {
                    let backing = Backing::of(&memory, &map);
                    choose(&map, matches!(backing, Backing::Device))
                }
                choice => choice,
            };
            match choice {
                Choice::Copied => wanted.push(map),
                Choice::Passed => {}
                Choice::LeftOut(reason) => self.left_out.push(LeftOut {
                    addresses: (&(map.address.0..map.address.1)).into(),
                    path: name_of(&map.pathname),
                    reason: reason.into(),
                }),
            }
        }
        if wanted.is_empty() {
            bail!(
                "process {} has no memory to copy: it is about to end, or is one of the kernel",
                self.pid
            );
        }
        Ok((memory, wanted))
    }

    /// The contents of `memory`, which is that of the process and not of one that came after it.
    fn contents(&self, memory: &Memory) -> Result<Contents> {
        let contents = Contents::of(memory, self.page_size)
            .with_context(|| format!("cannot read the memory of process {}", self.pid))?;
        if has_ended(self.pidfd.as_fd())? {
            bail!("process {} has ended", self.pid);
        }
        Ok(contents)
    }

    /// Takes the mappings that are there now; what was copied of those that are still there stays.
    fn follow(&mut self, wanted: Vec<MemoryMap>) -> Result<()> {
        let mut old = std::mem::take(&mut self.areas).into_iter().peekable();
        for map in wanted {
            let (start, end) = map.address;
            while old.next_if(|area| area.map.address.0 < start).is_some() {}
            let before = old.next_if(|area| area.map.address.0 == start);
            let (stored_to, unreadable) = match before {
                Some(area) => {
                    if area.stored_to > end {
                        // Were it to grow again, what was behind its end would be there again.
                        self.directory.contents(start, end - start)?;
                    }
                    (area.stored_to.min(end), area.unreadable)
                }
                None => (start, Vec::new()),
            };
            self.areas.push(Area {
                map,
                stored_to,
                unreadable: clip(&unreadable, &(start..end)),
            });
        }
        let starts: Vec<u64> = self.areas.iter().map(|area| area.map.address.0).collect();
        self.directory
            .keep(|start| starts.binary_search(&start).is_ok())
    }

    /// Copies what has changed: the addresses `changed`, and what is not `tracked` or was not
    /// copied before. The pages, and those of them that nobody has told of.
    pub fn copy(
        &mut self,
        changed: &[Range<u64>],
        tracked: &[Range<u64>],
        kind: Kind,
    ) -> Result<(u64, u64)> {
        // Anew: what came after the epochs began is in the next ones.
        let (memory, wanted) = self.look()?;
        let contents = self.contents(&memory)?;
        self.follow(wanted)?;
        let (mut pages, mut reread) = (0, 0);
        for area in &mut self.areas {
            let (start, end) = (area.map.address.0, area.map.address.1);
            let known = start..area.stored_to;
            let mut again = clip(changed, &known);
            again.extend(rest(tracked, &known));
            // They may be readable by now.
            again.append(&mut area.unreadable);
            let again = clip(&union(again), &known);
            let fresh = area.stored_to..end;
            let backing = Backing::of(&memory, &area.map);
            let rereads = match kind {
                Kind::Last { trust_files, .. } => backing.is_file() && !trust_files,
                Kind::Running => false,
            };
            if again.is_empty() && fresh.is_empty() && !rereads {
                continue;
            }
            let file = self.directory.contents(start, end - start)?;
            if matches!(
                kind,
                Kind::Last {
                    lose_pages: true,
                    ..
                }
            ) {
                continue;
            }
            let mut area = OpenArea {
                area,
                backing,
                contents: &contents,
                file: &file,
                page_size: self.page_size,
                buffers: &mut self.buffers,
                stop: self.stop,
            };
            for range in &again {
                pages += area.copy(range, false)?;
            }
            pages += area.copy(&fresh, true)?;
            area.area.stored_to = end;
            if rereads {
                for range in rest(&again, &known) {
                    reread += area.compare(&range, true)?.differed;
                }
            }
        }
        Ok((pages + reread, reread))
    }

    /// Compares all that was copied with the memory.
    pub fn verify(&mut self) -> Result<Compared> {
        let memory = Memory::of(self.pid as i32)?;
        let contents = self.contents(&memory)?;
        let mut result = Compared::default();
        for area in &mut self.areas {
            let range = area.range();
            let backing = Backing::of(&memory, &area.map);
            let file = self
                .directory
                .contents(range.start, range.end - range.start)?;
            let mut area = OpenArea {
                area,
                backing,
                contents: &contents,
                file: &file,
                page_size: self.page_size,
                buffers: &mut self.buffers,
                stop: self.stop,
            };
            result.join(area.compare(&range, false)?);
        }
        Ok(result)
    }

    /// Writes the index; from now on it is a snapshot.
    pub fn finish(mut self) -> Result<()> {
        let mut entries = Vec::with_capacity(self.areas.len());
        for area in &self.areas {
            let Range { start, end } = area.range();
            let contents = Directory::name(start);
            let file = self.directory.contents(start, end - start)?;
            let digest = digest_of(&file, &contents, end - start, self.page_size, self.stop)?;
            entries.push(Entry {
                addresses: (&(start..end)).into(),
                permissions: area.map.perms.as_str(),
                offset: area.map.offset,
                path: name_of(&area.map.pathname),
                contents,
                unreadable: area.unreadable.iter().map(Into::into).collect(),
                digest: Some(digest.to_hex().to_string()),
            });
        }
        let index = Index::new(self.pid, self.page_size, entries, self.left_out);
        self.directory.finish(&index)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use procfs::process::MemoryMaps;
    use procfs::FromRead;

    use super::*;

    fn maps(text: &str) -> Vec<MemoryMap> {
        MemoryMaps::from_read(text.as_bytes()).unwrap().0
    }

    #[test]
    fn what_a_mapping_has_lost_is_gone_from_its_file() {
        let path = std::env::temp_dir().join(format!("mmopsctl-{}-copier", std::process::id()));
        let stop = Stop::for_test(false);
        let mut copier = Copier {
            pid: 1,
            pidfd: pidfd_open(std::process::id()).unwrap(),
            page_size: 4096,
            directory: Directory::new(&path).unwrap(),
            areas: Vec::new(),
            left_out: Vec::new(),
            stop: &stop,
            buffers: Buffers::new(),
        };
        let large = maps("10000-20000 rw-p 00000000 00:00 0 \n");
        copier.follow(large.clone()).unwrap();
        let file = copier.directory.contents(0x10000, 0x10000).unwrap();
        file.write_all_at(&[7; 0x10000], 0).unwrap();
        copier.areas[0].stored_to = 0x20000;
        // It shrinks, and not one page that is left has changed.
        copier
            .follow(maps("10000-14000 rw-p 00000000 00:00 0 \n"))
            .unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0x4000);
        copier.follow(large).unwrap();
        let file = copier.directory.contents(0x10000, 0x10000).unwrap();
        let mut there = vec![0; 0x10000];
        file.read_exact_at(&mut there, 0).unwrap();
        assert_eq!(copier.areas[0].stored_to, 0x14000);
        assert!(there[..0x4000] == [7; 0x4000] && there[0x4000..] == [0; 0xc000]);
    }
}
