// SPDX-License-Identifier: GPL-2.0

//! The steps of a replication.
//!
//! In a round, the dirty bits of a window are taken first, and its dirty pages are read after
//! that. A store before the harvest has set a dirty bit that the harvest found; a store after it
//! sets the bit anew, for the next round, even if the copy under way has seen it. So no store is
//! lost, and a round that begins after the last store leaves nothing to do.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::harvest::DirtyPages;
use crate::log::{FullCopy, Round, Verify};
use crate::sparse::{next_data, next_hole, read_up_to};

/// Bytes that are read and written at once.
const CHUNK: usize = 1 << 20;

/// Unit of `st_blocks`.
const BLOCK: u64 = 512;

/// A file, its copy, and what tells which pages were stored to.
#[derive(Debug)]
pub struct Replicator<'a, D> {
    file: &'a File,
    replica: &'a File,
    page_size: u64,
    dirty: D,
    /// Size of the replica.
    size: u64,
    rounds: u64,
    buffer: Vec<u8>,
    compared: Vec<u8>,
}

impl<'a, D: DirtyPages> Replicator<'a, D> {
    /// `replica` is empty.
    pub fn new(file: &'a File, replica: &'a File, page_size: u64, dirty: D) -> Self {
        Self {
            file,
            replica,
            page_size,
            dirty,
            size: 0,
            rounds: 0,
            buffer: vec![0; CHUNK],
            compared: vec![0; CHUNK],
        }
    }

    /// Takes the dirty bits from before, then copies all data; calls `progress` with how many
    /// bytes of the file are done.
    pub fn full_copy(&mut self, mut progress: impl FnMut(u64)) -> Result<FullCopy> {
        let begin = Instant::now();
        let size = self.file_size()?;
        self.dirty.harvest(0..self.pages(size), &mut |_| Ok(()))?;
        self.replica
            .set_len(size)
            .context("cannot set the size of the replica")?;
        self.size = size;
        let bytes = self.copy_data(0..size, &mut progress)?;
        Ok(FullCopy {
            pages: self.pages(bytes),
            bytes,
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// One round; `at` is reported as its start.
    pub fn round(&mut self, at: f64) -> Result<Round> {
        let begin = Instant::now();
        let before = self.size;
        let size = self.follow_size()?;
        let known = before.min(size);
        let (mut pages, mut bytes) = (0, 0);
        let (file, replica, page_size) = (self.file, self.replica, self.page_size);
        let buffer = &mut self.buffer;
        let harvested = self
            .dirty
            .harvest(0..size.div_ceil(page_size), &mut |bitmap| {
                for run in bitmap.runs() {
                    let range = run.start * page_size..(run.end * page_size).min(known);
                    let copied = copy(file, replica, range, buffer)?;
                    bytes += copied;
                    pages += copied.div_ceil(page_size);
                }
                Ok(())
            })?;
        // What the file grew by may have come through write(2), so all of it is copied.
        let grown = self.copy_data(known..size, &mut |_| {})?;
        bytes += grown;
        pages += self.pages(grown);
        let data_pages = self
            .pages(self.file.metadata()?.blocks() * BLOCK)
            .min(self.pages(size));
        self.rounds += 1;
        Ok(Round {
            round: self.rounds,
            at,
            size,
            data_pages,
            dirty_pages: harvested.pages,
            pages,
            bytes,
            harvest_calls: harvested.calls,
            harvest_seconds: harvested.time.as_secs_f64(),
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// Compares all data of both files, and copies the pages that differ.
    pub fn verify(&mut self, mut progress: impl FnMut(u64)) -> Result<Verify> {
        let begin = Instant::now();
        let size = self.follow_size()?;
        let (mut pages, mut differed) = (0, 0);
        let mut left = 0..size;
        while let Some(data) = self.next_data_of_both(&left)? {
            left.start = data.end;
            let mut start = data.start;
            while start < data.end {
                let end = (start + CHUNK as u64).min(data.end);
                let length = (end - start) as usize;
                let (ours, theirs) = (&mut self.buffer[..length], &mut self.compared[..length]);
                // Shrunk in between: the next step that follows the size will see it.
                let length = read_up_to(self.file, ours, start)?;
                let length_there = read_up_to(self.replica, theirs, start)?;
                theirs[length_there..].fill(0);
                for offset in (0..length).step_by(self.page_size as usize) {
                    let page = offset..length.min(offset + self.page_size as usize);
                    pages += 1;
                    if ours[page.clone()] != theirs[page.clone()] {
                        differed += 1;
                        write(self.replica, &ours[page], start + offset as u64)?;
                    }
                }
                start = end;
                progress(start);
            }
        }
        Ok(Verify {
            pages,
            differed,
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// The first bytes of `left` that are data in one of the files, as whole pages. `left` begins
    /// with a page.
    fn next_data_of_both(&self, left: &Range<u64>) -> Result<Option<Range<u64>>> {
        if left.is_empty() {
            return Ok(None);
        }
        let ours = next_data(self.file, left.start)?;
        let theirs = next_data(self.replica, left.start)?;
        let (file, data) = match (ours, theirs) {
            (Some(ours), Some(theirs)) if theirs < ours => (self.replica, theirs),
            (Some(ours), _) => (self.file, ours),
            (None, Some(theirs)) => (self.replica, theirs),
            (None, None) => return Ok(None),
        };
        if data >= left.end {
            return Ok(None);
        }
        // A hole that was filled or made meanwhile may begin where the data did.
        let end = next_hole(file, data, left.end)?.max(data + 1);
        let end = end.next_multiple_of(self.page_size).min(left.end);
        Ok(Some(data / self.page_size * self.page_size..end))
    }

    /// Pages in `bytes` bytes.
    pub fn pages(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.page_size)
    }

    fn file_size(&self) -> Result<u64> {
        Ok(self
            .file
            .metadata()
            .context("cannot tell the size of the file")?
            .len())
    }

    /// Gives the replica the size that the file has now.
    fn follow_size(&mut self) -> Result<u64> {
        let size = self.file_size()?;
        if size != self.size {
            self.replica
                .set_len(size)
                .context("cannot set the size of the replica")?;
            self.size = size;
        }
        Ok(size)
    }

    /// Copies what is no hole in `range`.
    fn copy_data(&mut self, range: Range<u64>, progress: &mut dyn FnMut(u64)) -> Result<u64> {
        let mut copied = 0;
        let mut position = range.start;
        while position < range.end {
            let Some(data) = next_data(self.file, position)?.filter(|&data| data < range.end)
            else {
                break;
            };
            let hole = next_hole(self.file, data, range.end)?;
            position = data;
            while position < hole {
                let end = (position + CHUNK as u64).min(hole);
                copied += copy(self.file, self.replica, position..end, &mut self.buffer)?;
                position = end;
                progress(position);
            }
        }
        Ok(copied)
    }
}

/// Copies the bytes of `range` that `file` has, and returns how many those are.
fn copy(file: &File, replica: &File, range: Range<u64>, buffer: &mut [u8]) -> Result<u64> {
    let mut position = range.start;
    while position < range.end {
        let length = buffer.len().min((range.end - position) as usize);
        let read =
            read_up_to(file, &mut buffer[..length], position).context("cannot read the file")?;
        write(replica, &buffer[..read], position)?;
        position += read as u64;
        if read < length {
            break;
        }
    }
    Ok(position - range.start)
}

fn write(replica: &File, bytes: &[u8], offset: u64) -> Result<()> {
    replica
        .write_all_at(bytes, offset)
        .context("cannot write the replica")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harvest::Harvested;
    use mmops_uapi::Bitmap;

    const PAGE: u64 = 4096;

    /// A tracker that is told what is dirty.
    struct Told<'a> {
        #[allow(clippy::type_complexity)]
        next: Box<dyn FnMut(&File) -> Vec<u64> + 'a>,
        file: &'a File,
    }

    impl DirtyPages for Told<'_> {
        fn harvest(
            &mut self,
            pages: Range<u64>,
            found: &mut dyn FnMut(&Bitmap) -> Result<()>,
        ) -> Result<Harvested> {
            let dirty = (self.next)(self.file);
            let mut bitmap = Bitmap::new(pages.start, pages.end - pages.start);
            for &page in dirty.iter().filter(|page| pages.contains(page)) {
                bitmap.set(page);
            }
            found(&bitmap)?;
            Ok(Harvested {
                pages: bitmap.count(),
                ..Default::default()
            })
        }
    }

    fn temporary(name: &str) -> File {
        let path = std::env::temp_dir().join(format!("mmopsctl-{}-{name}", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        file
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn fill(file: &File, page: u64, byte: u8) {
        file.write_all_at(&[byte; PAGE as usize], page * PAGE)
            .unwrap();
    }

    #[test]
    fn full_copy_keeps_holes() {
        let (file, replica) = (temporary("full-file"), temporary("full-replica"));
        file.set_len(1000 * PAGE + 5).unwrap();
        fill(&file, 3, 1);
        fill(&file, 999, 2);
        let told = Told {
            next: Box::new(|_| vec![]),
            file: &file,
        };
        let mut replicator = Replicator::new(&file, &replica, PAGE, told);
        let copied = replicator.full_copy(|_| {}).unwrap();
        assert!(content(&file) == content(&replica));
        // A file system without holes copies all of it.
        assert!(copied.pages >= 2 && copied.pages <= 1001, "{copied:?}");
    }

    #[test]
    fn round_copies_what_was_dirty_and_nothing_else() {
        let (file, replica) = (temporary("round-file"), temporary("round-replica"));
        (0..600).for_each(|page| fill(&file, page, 1));
        file.set_len(600 * PAGE + 100).unwrap();
        let mut harvests = vec![vec![0, 300, 301, 302, 600], vec![]];
        let told = Told {
            next: Box::new(move |_| harvests.pop().unwrap()),
            file: &file,
        };
        let mut replicator = Replicator::new(&file, &replica, PAGE, told);
        replicator.full_copy(|_| {}).unwrap();
        for page in [0, 300, 301, 302, 400] {
            fill(&file, page, 2);
        }
        file.write_all_at(b"tail", 600 * PAGE + 96).unwrap();
        let round = replicator.round(1.5).unwrap();
        assert_eq!(
            (round.round, round.at, round.dirty_pages, round.pages),
            (1, 1.5, 5, 5)
        );
        assert_eq!(round.bytes, 4 * PAGE + 100);
        let mut expected = content(&file);
        // Page 400 was not told of.
        expected[400 * PAGE as usize..401 * PAGE as usize].fill(1);
        assert!(content(&replica) == expected);
        let verify = replicator.verify(|_| {}).unwrap();
        assert_eq!((verify.pages, verify.differed), (601, 1));
        assert!(content(&replica) == content(&file));
        assert_eq!(replicator.verify(|_| {}).unwrap().differed, 0);
    }

    /// Stores between the harvest and the copy are dirty again, and the next round has them.
    #[test]
    fn store_during_a_round() {
        let (file, replica) = (temporary("during-file"), temporary("during-replica"));
        (0..8).for_each(|page| fill(&file, page, 1));
        let mut harvests = 0;
        let told = Told {
            next: Box::new(move |file| {
                harvests += 1;
                match harvests {
                    2 => {
                        fill(file, 5, 7);
                        vec![2]
                    }
                    3 => vec![5],
                    _ => vec![],
                }
            }),
            file: &file,
        };
        let mut replicator = Replicator::new(&file, &replica, PAGE, told);
        replicator.full_copy(|_| {}).unwrap();
        replicator.round(0.0).unwrap();
        assert!(content(&replica) != content(&file));
        replicator.round(0.0).unwrap();
        assert!(content(&replica) == content(&file));
    }

    #[test]
    fn size_is_followed() {
        let (file, replica) = (temporary("size-file"), temporary("size-replica"));
        (0..16).for_each(|page| fill(&file, page, 1));
        let told = Told {
            next: Box::new(|_| vec![]),
            file: &file,
        };
        let mut replicator = Replicator::new(&file, &replica, PAGE, told);
        replicator.full_copy(|_| {}).unwrap();
        for size in [16 * PAGE + 7, 5 * PAGE - 3, 0, 3 * PAGE, 40 * PAGE] {
            file.set_len(size).unwrap();
            if size > 4 * PAGE {
                fill(&file, size / PAGE - 1, 9);
                file.set_len(size).unwrap();
            }
            let round = replicator.round(0.0).unwrap();
            assert_eq!(round.size, size);
            assert_eq!(replica.metadata().unwrap().len(), size);
            let verify = replicator.verify(|_| {}).unwrap();
            // Writes below the old end come through write(2): the compare finds them.
            assert!(verify.differed <= 1, "{size}: {verify:?}");
            assert!(content(&replica) == content(&file), "{size}");
        }
    }

    /// A hole that was punched is not dirty; the compare sees it.
    #[test]
    fn verify_compares_holes_with_data() {
        let (file, replica) = (temporary("hole-file"), temporary("hole-replica"));
        (0..600).for_each(|page| fill(&file, page, 1));
        let told = Told {
            next: Box::new(|_| vec![]),
            file: &file,
        };
        let mut replicator = Replicator::new(&file, &replica, PAGE, told);
        replicator.full_copy(|_| {}).unwrap();
        file.set_len(10 * PAGE).unwrap();
        file.set_len(600 * PAGE).unwrap();
        replicator.round(0.0).unwrap();
        let verify = replicator.verify(|_| {}).unwrap();
        assert_eq!(verify.differed, 590);
        assert!(content(&replica) == content(&file));
    }
}
