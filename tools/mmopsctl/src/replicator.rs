// SPDX-License-Identifier: GPL-2.0

//! The steps of a replication.
//!
//! In a round, an epoch of the trackers is begun first, or the dirty bits of a window are taken,
//! and the pages are read after that. A store before it was found; a store after it is for the next
//! round, even if the copy under way has seen it. So no store is lost, and a round that begins
//! after the last store leaves nothing to do.
//!
//! The size is read when the epochs have begun. A truncation of before that is followed then; one
//! that comes later is in the next epoch, even if the file has grown again until then.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::changes::{Changes, Copier};
use crate::digests::Digests;
use crate::log::{FullCopy, Round, Verify};
use crate::sparse::{next_data, next_hole, read_up_to};
use crate::target::Target;
use crate::verify::verify;

/// Bytes that are read and written at once.
const CHUNK: usize = 1 << 20;

/// Unit of `st_blocks`.
const BLOCK: u64 = 512;

/// A file, what its copy is written to, and what tells which pages changed.
#[derive(Debug)]
pub struct Replicator<'a, C, T> {
    files: Files<'a, T>,
    changes: C,
    rounds: u64,
}

#[derive(Debug)]
struct Files<'a, T> {
    file: &'a File,
    target: T,
    page_size: u64,
    /// Size of the replica.
    size: u64,
    buffer: Vec<u8>,
}

impl<'a, C: Changes, T: Target> Replicator<'a, C, T> {
    /// The replica of `target` is empty.
    pub fn new(file: &'a File, target: T, page_size: u64, changes: C) -> Self {
        Self {
            files: Files {
                file,
                target,
                page_size,
                size: 0,
                buffer: vec![0; CHUNK],
            },
            changes,
            rounds: 0,
        }
    }

    /// Takes the changes from before, then copies all data; calls `progress` with how many bytes of
    /// the file are done.
    pub fn full_copy(&mut self, progress: impl FnMut(u64)) -> Result<FullCopy> {
        self.first_copy(None::<&mut Digests<File>>, progress)
    }

    /// As [`Self::full_copy`], to a replica that has these digests: copies what differs.
    pub fn resume(
        &mut self,
        digests: &mut Digests<impl Read>,
        progress: impl FnMut(u64),
    ) -> Result<FullCopy> {
        self.first_copy(Some(digests), progress)
    }

    fn first_copy(
        &mut self,
        digests: Option<&mut Digests<impl Read>>,
        mut progress: impl FnMut(u64),
    ) -> Result<FullCopy> {
        let begin = Instant::now();
        self.changes.take(&mut Forget(&mut self.files))?;
        let size = self.files.size;
        let bytes = match digests {
            Some(digests) => {
                let Files { file, target, .. } = &mut self.files;
                digests.copy(file, size, target, &mut progress)?
            }
            None => self.files.copy_data(0..size, &mut progress)?,
        };
        self.files.target.end()?;
        Ok(FullCopy {
            pages: self.files.pages(bytes),
            bytes,
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// One round; `at` is reported as its start.
    pub fn round(&mut self, at: f64) -> Result<Round> {
        let begin = Instant::now();
        let finds_holes = self.changes.finds_holes();
        let known = self.files.size;
        let mut copy = Copy {
            files: &mut self.files,
            finds_holes,
            known,
            copied: 0,
            pages: 0,
            holes: 0,
        };
        let taken = self.changes.take(&mut copy)?;
        let (known, holes) = (copy.known, copy.holes);
        let (mut bytes, mut pages) = (copy.copied, copy.pages);
        let files = &mut self.files;
        let dirty_pages = if finds_holes {
            pages + holes
        } else {
            taken.pages
        };
        // All of what the file grew by is copied. Through write(2), it can have changed before the
        // size did: then it was found already, when it lay beyond the end.
        let size = files.size;
        let grown = files.copy_data(known..size, &mut |_| {})?;
        bytes += grown;
        pages += files.pages(grown);
        files.target.end()?;
        let data_pages = files
            .pages(files.file.metadata()?.blocks() * BLOCK)
            .min(files.pages(size));
        self.rounds += 1;
        Ok(Round {
            round: self.rounds,
            at,
            size,
            data_pages,
            dirty_pages,
            pages,
            bytes,
            harvest_calls: taken.calls,
            harvest_seconds: taken.time.as_secs_f64(),
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// Compares all data of both files, and copies the pages that differ; calls `progress` as
    /// [`Self::full_copy`] does.
    pub fn verify(&mut self, mut progress: impl FnMut(u64)) -> Result<Verify> {
        let files = &mut self.files;
        let size = files.follow_size()?;
        let replica = files.target.replica();
        let replica = replica.context("the replica cannot be read here")?;
        verify(files.file, replica, size, files.page_size, &mut progress)
    }

    /// Ends the replication, after its last round.
    pub fn finish(&mut self) -> Result<()> {
        self.files.target.finish()
    }
}

impl<T: Target> Files<'_, T> {
    /// Pages in `bytes` bytes.
    fn pages(&self, bytes: u64) -> u64 {
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
        self.target.begin(size)?;
        self.size = size;
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
                let (target, buffer) = (&mut self.target, &mut self.buffer);
                copied += copy(self.file, target, position..end, buffer)?;
                position = end;
                progress(position);
            }
        }
        Ok(copied)
    }
}

/// The changes of before the full copy.
struct Forget<'f, 'a, T>(&'f mut Files<'a, T>);

impl<T: Target> Copier for Forget<'_, '_, T> {
    fn begun(&mut self) -> Result<Range<u64>> {
        let size = self.0.follow_size()?;
        Ok(0..self.0.pages(size))
    }

    fn found(&mut self, _pages: Range<u64>) -> Result<()> {
        Ok(())
    }
}

/// What a round copies.
struct Copy<'f, 'a, T> {
    files: &'f mut Files<'a, T>,
    finds_holes: bool,
    /// Bytes that are in the file and were in the replica when the round began.
    known: u64,
    /// Bytes copied.
    copied: u64,
    /// Pages copied.
    pages: u64,
    /// Pages that became a hole in the replica.
    holes: u64,
}

impl<T: Target> Copier for Copy<'_, '_, T> {
    fn begun(&mut self) -> Result<Range<u64>> {
        let size = self.files.follow_size()?;
        self.known = self.known.min(size);
        Ok(0..self.files.pages(size))
    }

    fn found(&mut self, pages: Range<u64>) -> Result<()> {
        let page_size = self.files.page_size;
        let range = pages.start * page_size..(pages.end * page_size).min(self.known);
        if self.finds_holes {
            return self.copy_or_punch(range);
        }
        let copied = copy(
            self.files.file,
            &mut self.files.target,
            range,
            &mut self.files.buffer,
        )?;
        self.copied += copied;
        self.pages += self.files.pages(copied);
        Ok(())
    }
}

impl<T: Target> Copy<'_, '_, T> {
    /// Copies what is data in `range`, and makes a hole of what is none.
    ///
    /// What is read decides first: to ask where the data ends would cost as much as there is data,
    /// for each page that changed.
    fn copy_or_punch(&mut self, range: Range<u64>) -> Result<()> {
        let (file, page_size) = (self.files.file, self.files.page_size);
        let mut position = range.start;
        while position < range.end {
            let data = next_data(file, position)?.map_or(range.end, |data| data.min(range.end));
            if position < data {
                // Of a page that the file ends in, all. If it has grown since, that comes later.
                let end = if data == range.end {
                    data.next_multiple_of(page_size)
                } else {
                    data
                };
                let made = self.files.target.make_hole(position..end)?;
                self.holes += made.div_ceil(page_size);
                position = data;
                continue;
            }
            let length = self.files.buffer.len().min((range.end - position) as usize);
            let bytes = &mut self.files.buffer[..length];
            let read = read_up_to(file, bytes, position).context("cannot read the file")?;
            let bytes = &bytes[..read];
            let mut end = 0;
            let mut is_hole = false;
            while end < read && !is_hole {
                let at = position + end as u64;
                let next = read.min(end + (page_size - at % page_size) as usize);
                // The first is data, as was just asked.
                is_hole = end != 0
                    && bytes[end..next].iter().all(|&byte| byte == 0)
                    && next_data(file, at)? != Some(at);
                if !is_hole {
                    end = next;
                }
            }
            self.files.target.write(&bytes[..end], position)?;
            position += end as u64;
            self.copied += end as u64;
            self.pages += (end as u64).div_ceil(page_size);
            // Shrunk meanwhile: that is in the next epoch.
            if read < length && !is_hole {
                break;
            }
        }
        Ok(())
    }
}

/// Copies the bytes of `range` that `file` has, and returns how many those are.
fn copy(
    file: &File,
    target: &mut impl Target,
    range: Range<u64>,
    buffer: &mut [u8],
) -> Result<u64> {
    let mut position = range.start;
    while position < range.end {
        let length = buffer.len().min((range.end - position) as usize);
        let read =
            read_up_to(file, &mut buffer[..length], position).context("cannot read the file")?;
        target.write(&buffer[..read], position)?;
        position += read as u64;
        if read < length {
            break;
        }
    }
    Ok(position - range.start)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::FileExt;

    use fastrand::Rng;

    use super::*;
    use crate::digests;
    use crate::disk;
    use crate::harvest::{DirtyPages, Harvested};
    use crate::receiver::receive;
    use crate::sparse::make_hole;
    use crate::store::Store;
    use crate::stream::tests::to_vec;
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

    /// A tracker of a file that changes at any time.
    struct Busy<'a> {
        file: &'a File,
        random: u64,
        /// Pages that were told of since the last begin.
        told: BTreeSet<u64>,
        /// A page beyond the end that was told of, but is not in the file yet.
        late: Option<u64>,
        is_quiet: bool,
    }

    impl Busy<'_> {
        fn random(&mut self, below: u64) -> u64 {
            // xorshift64
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random % below
        }

        fn size(&self) -> u64 {
            self.file.metadata().unwrap().len()
        }

        fn change(&mut self) {
            if let Some(page) = self.late.take() {
                if page < self.size().div_ceil(PAGE) {
                    self.told.insert(page);
                }
                fill(self.file, page, 1 + self.random(255) as u8);
            }
            if self.is_quiet {
                return;
            }
            let pages = self.size().div_ceil(PAGE);
            for _ in 0..self.random(3) {
                match self.random(8) {
                    0 => {
                        let size = self.random(700 * PAGE);
                        // Of a page that is cut, too.
                        self.told.extend(size / PAGE..self.size().div_ceil(PAGE));
                        self.file.set_len(size).unwrap();
                    }
                    1 => self.late = Some(pages + self.random(20)),
                    2 => {
                        let first = self.random(700);
                        let last = first + self.random(40);
                        let end = (last * PAGE).min(self.size() / PAGE * PAGE);
                        if first * PAGE < end {
                            make_hole(self.file, first * PAGE..end).unwrap();
                            self.told.extend(first..last);
                        }
                    }
                    3 => {
                        let page = self.random(pages.max(1));
                        self.told.insert(page);
                        fill(self.file, page, 0);
                    }
                    _ => {
                        let page = self.random(pages.max(1));
                        self.told.insert(page);
                        let byte = 1 + self.random(255) as u8;
                        fill(self.file, page, byte);
                    }
                }
            }
        }
    }

    impl Changes for Busy<'_> {
        fn take(&mut self, copier: &mut dyn Copier) -> Result<Harvested> {
            self.change();
            let epoch = std::mem::take(&mut self.told);
            self.change();
            let wanted = copier.begun()?;
            self.change();
            let mut pages: Vec<u64> = epoch.into_iter().filter(|p| wanted.contains(p)).collect();
            while let Some(&first) = pages.first() {
                let run = pages.iter().zip(first..).take_while(|(&a, b)| a == *b);
                let end = first + run.count() as u64;
                pages.retain(|&page| page >= end);
                copier.found(first..end)?;
                self.change();
            }
            Ok(Harvested::default())
        }

        fn finds_holes(&self) -> bool {
            true
        }
    }

    /// Blocks that are data.
    fn data_of(file: &File) -> BTreeSet<u64> {
        let size = file.metadata().unwrap().len();
        (0..size.div_ceil(PAGE))
            .filter(|page| next_data(file, page * PAGE).unwrap() == Some(page * PAGE))
            .collect()
    }

    #[test]
    fn quiet_round_leaves_nothing_to_do() {
        for seed in 1..40 {
            let (file, replica) = (temporary("busy-file"), temporary("busy-replica"));
            (0..300).for_each(|page| fill(&file, page, 1));
            let busy = Busy {
                file: &file,
                random: seed * 0x9e37_79b9_7f4a_7c15,
                told: BTreeSet::new(),
                late: None,
                is_quiet: false,
            };
            let mut replicator = Replicator::new(&file, &replica, PAGE, busy);
            replicator.full_copy(|_| {}).unwrap();
            for _ in 0..30 {
                replicator.round(0.0).unwrap();
            }
            replicator.changes.is_quiet = true;
            replicator.changes.change();
            replicator.round(0.0).unwrap();
            assert!(content(&file) == content(&replica), "seed {seed}");
            let (ours, theirs) = (data_of(&file), data_of(&replica));
            assert!(theirs.is_subset(&ours), "seed {seed}");
            let verify = replicator.verify(|_| {}).unwrap();
            assert_eq!(verify.differed, 0, "seed {seed}");
        }
    }

    /// The same by streams, of which each is cut somewhere, and gone on from.
    #[test]
    fn streams_leave_nothing_to_do() {
        for seed in 1..6 {
            let file = temporary("stream-file");
            (0..300).for_each(|page| fill(&file, page, 1));
            let name = format!("mmopsctl-{}-stream-{seed}", std::process::id());
            let replica = std::env::temp_dir().join(&name);
            let beside = std::env::temp_dir().join(format!("{name}.mmops"));
            let mut random = Rng::with_seed(seed);
            let mut state = None;
            for id in 1..6 {
                let busy = Busy {
                    file: &file,
                    random: seed * 0x9e37_79b9_7f4a_7c15 + id,
                    told: BTreeSet::new(),
                    late: None,
                    is_quiet: false,
                };
                let mut digests = state.as_deref().map(|state| Digests::new(state).unwrap());
                let base = digests
                    .as_ref()
                    .map(|digests: &Digests<&[u8]>| digests.point);
                let stream = to_vec(id.into(), 0, base);
                let mut replicator = Replicator::new(&file, stream, PAGE, busy);
                match &mut digests {
                    Some(digests) => replicator.resume(digests, |_| {}).unwrap(),
                    None => replicator.full_copy(|_| {}).unwrap(),
                };
                let first = replicator.files.target.written().len();
                for _ in 0..10 {
                    replicator.round(0.0).unwrap();
                }
                replicator.changes.is_quiet = true;
                replicator.changes.change();
                replicator.round(0.0).unwrap();
                replicator.finish().unwrap();
                let bytes = replicator.files.target.written();
                let is_last = id == 5;
                let length = if is_last {
                    bytes.len()
                } else {
                    random.usize(first..bytes.len())
                };
                let mut store = Store::open(disk::Files::open(&replica, true).unwrap()).unwrap();
                let result = receive(&bytes[..length], &mut store, |_| {});
                assert_eq!(result.is_ok(), is_last, "seed {seed}: {result:?}");
                let copy = File::open(&replica).unwrap();
                let mut out = Vec::new();
                digests::write(&mut out, &copy, &store.state().unwrap()).unwrap();
                state = Some(out);
                if is_last {
                    assert!(content(&file) == content(&copy), "seed {seed}");
                    let (ours, theirs) = (data_of(&file), data_of(&copy));
                    let extra = theirs.difference(&ours).count();
                    // A block that differs is sent as a whole.
                    assert!(extra <= 16 * ours.len(), "seed {seed}: {extra}");
                }
            }
            std::fs::remove_file(&replica).unwrap();
            std::fs::remove_dir_all(&beside).unwrap();
        }
    }

    #[test]
    fn pages_that_became_a_hole() {
        let (file, replica) = (temporary("punch-file"), temporary("punch-replica"));
        (0..600).for_each(|page| fill(&file, page, 1));
        let busy = Busy {
            file: &file,
            random: 1,
            told: BTreeSet::new(),
            late: None,
            is_quiet: true,
        };
        let mut replicator = Replicator::new(&file, &replica, PAGE, busy);
        replicator.full_copy(|_| {}).unwrap();
        make_hole(&file, 10 * PAGE..500 * PAGE).unwrap();
        fill(&file, 505, 0);
        replicator.changes.told = (5..510).collect();
        let round = replicator.round(0.0).unwrap();
        assert_eq!((round.pages, round.dirty_pages), (15, 505));
        assert!(content(&file) == content(&replica));
        assert_eq!(data_of(&replica), data_of(&file));
    }
}
