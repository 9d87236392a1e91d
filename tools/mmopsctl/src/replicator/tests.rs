// SPDX-License-Identifier: GPL-2.0

//! A replication whose file is changed at any time by something that tells of it.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;

use fastrand::Rng;
use tempfile::tempfile;

use super::*;
use crate::digests;
use crate::disk;
use crate::harvest::{DirtyPages, Harvested};
use crate::receiver::receive;
use crate::record::Point;
use crate::sparse::make_hole;
use crate::store::{State, Store};
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
    let (file, replica) = (tempfile().unwrap(), tempfile().unwrap());
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
    let (file, replica) = (tempfile().unwrap(), tempfile().unwrap());
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
    let (file, replica) = (tempfile().unwrap(), tempfile().unwrap());
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
    let (file, replica) = (tempfile().unwrap(), tempfile().unwrap());
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
    let (file, replica) = (tempfile().unwrap(), tempfile().unwrap());
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

/// Where the holes cannot be trusted, all of the file is read.
#[test]
fn holes_that_can_be_data() {
    let (file, replica) = (tempfile().unwrap(), tempfile().unwrap());
    file.set_len(600 * PAGE).unwrap();
    fill(&file, 3, 1);
    let told = Told {
        next: Box::new(|_| vec![]),
        file: &file,
    };
    let source = Source {
        file: &file,
        has_true_holes: false,
    };
    let mut replicator = Replicator::new(source, &replica, PAGE, told);
    assert_eq!(replicator.full_copy(|_| {}).unwrap().pages, 600);
    let verify = replicator.verify(|_| {}).unwrap();
    assert_eq!((verify.pages, verify.differed), (600, 0));
    assert!(content(&replica) == content(&file));
    let state = State {
        point: Point {
            stream: 1,
            round: 0,
        },
        size: 600 * PAGE,
        is_pending: false,
    };
    let mut digests = Vec::new();
    digests::write(&mut digests, &replica, &state).unwrap();
    let mut seen = 0;
    let mut see = |bytes: Range<u64>| seen += bytes.end - bytes.start;
    let mut digests = Digests::new(&digests[..]).unwrap();
    let mut target = &replica;
    let copied = digests.copy(source, 600 * PAGE, &mut target, &mut see);
    assert_eq!((copied.unwrap(), seen), (0, 600 * PAGE));
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
    for seed in 1..40u64 {
        let (file, replica) = (tempfile().unwrap(), tempfile().unwrap());
        (0..300).for_each(|page| fill(&file, page, 1));
        let busy = Busy {
            file: &file,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
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
    for seed in 1..6u64 {
        let file = tempfile().unwrap();
        (0..300).for_each(|page| fill(&file, page, 1));
        let name = format!("mmopsctl-{}-stream-{seed}", std::process::id());
        let replica = std::env::temp_dir().join(&name);
        let beside = std::env::temp_dir().join(format!("{name}.mmops"));
        let mut random = Rng::with_seed(seed);
        let mut state = None;
        for id in 1..6 {
            let busy = Busy {
                file: &file,
                random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + id,
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
    let (file, replica) = (tempfile().unwrap(), tempfile().unwrap());
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
