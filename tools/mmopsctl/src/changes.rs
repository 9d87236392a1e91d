// SPDX-License-Identifier: GPL-2.0

//! What tells which pages of a file have changed: trackers of the file, or harvests of its dirty
//! bits.

use std::collections::BTreeSet;
use std::fs::File;
use std::iter;
use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, Result};
use mmops_uapi::{Device, Features, Mode, Tracker};
use nix::errno::Errno;

use crate::harvest::{DirtyPages, Harvested};
use crate::sparse::next_data;

/// The first tracker has as many pages at least: a file that grows has to open few.
const LEAST_PAGES: u64 = 1 << 18;
/// The most that a tracker tells apart.
const MOST_PAGES: u64 = 1 << 24;

/// Who copies the pages that changed.
pub trait Copier {
    /// What changed before the call will be found. Returns which pages are of interest.
    fn begun(&mut self) -> Result<Range<u64>>;
    /// These pages may have changed, and are to be copied.
    fn found(&mut self, pages: Range<u64>) -> Result<()>;
}

/// Something that tells which pages changed since it was asked last.
pub trait Changes {
    /// Calls [`Copier::begun`] once, and then [`Copier::found`] for all pages that changed before
    /// that. When it fails, they are told again; if it can.
    fn take(&mut self, copier: &mut dyn Copier) -> Result<Harvested>;

    /// Whether pages that became a hole are found as well, and `SEEK_DATA` tells what is one.
    fn finds_holes(&self) -> bool;

    /// These bytes of the file were found to be data and are in the copy, and nobody has told of
    /// them: what becomes of them is to be found from the next [`Self::take`] on.
    fn copied(&mut self, bytes: Range<u64>) {
        let _ = bytes;
    }
}

impl<D: DirtyPages> Changes for D {
    fn take(&mut self, copier: &mut dyn Copier) -> Result<Harvested> {
        let pages = copier.begun()?;
        self.harvest(pages, &mut |bitmap| {
            bitmap.runs().try_for_each(|run| copier.found(run))
        })
    }

    fn finds_holes(&self) -> bool {
        false
    }
}

impl Changes for Box<dyn Changes + '_> {
    fn take(&mut self, copier: &mut dyn Copier) -> Result<Harvested> {
        (**self).take(copier)
    }

    fn finds_holes(&self) -> bool {
        (**self).finds_holes()
    }

    fn copied(&mut self, bytes: Range<u64>) {
        (**self).copied(bytes);
    }
}

/// The pages that the trackers of a file have: each as many as all before it, up to the most.
#[derive(Clone, Copy, Debug)]
struct Slots {
    /// Pages of the first.
    first: u64,
}

impl Slots {
    /// For a file of so many pages, which may grow.
    fn new(pages: u64) -> Self {
        let first = pages.saturating_mul(2).clamp(LEAST_PAGES, MOST_PAGES);
        Self {
            first: first.next_power_of_two(),
        }
    }

    /// The one with `page`.
    fn of(self, page: u64) -> Range<u64> {
        if page < self.first {
            return 0..self.first;
        }
        if page >= MOST_PAGES {
            let start = page / MOST_PAGES * MOST_PAGES;
            return start..start + MOST_PAGES;
        }
        let start = 1 << page.ilog2();
        start..2 * start
    }

    /// Those that the pages of `pages` are in, in ascending order.
    fn with(self, pages: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut page = pages.start;
        iter::from_fn(move || {
            let slot = (page < pages.end).then(|| self.of(page))?;
            page = slot.end;
            Some(slot)
        })
    }
}

/// Trackers of a file, one for each part of it that has data.
///
/// A part that is all hole needs none: the first epoch of a tracker has all pages, so what was
/// stored there before it was opened is found. One that was copied needs one even if it is all hole
/// by now: the copy has to become a hole as well.
#[derive(Debug)]
pub struct FileTrackers<'a> {
    file: &'a File,
    page_size: u64,
    slots: Slots,
    trackers: Vec<Tracker>,
    /// First pages of slots of which data was copied.
    copied: BTreeSet<u64>,
}

impl<'a> FileTrackers<'a> {
    /// Begins to track `file`; none where the driver or the kernel cannot.
    pub fn new(device: &Device, file: &'a File, page_size: u64) -> Result<Option<Self>> {
        if !device.info()?.features.contains(Features::TRACK_FILE) {
            return Ok(None);
        }
        let pages = file.metadata()?.len().div_ceil(page_size);
        let mut this = Self {
            file,
            page_size,
            slots: Slots::new(pages),
            trackers: Vec::new(),
            copied: BTreeSet::new(),
        };
        match this.open(this.slots.of(0)) {
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => Ok(None),
            result => Ok(result.map(|()| Some(this))?),
        }
    }

    fn open(&mut self, pages: Range<u64>) -> Result<(), mmops_uapi::Error> {
        let range = pages.start * self.page_size..pages.end * self.page_size;
        let tracker = Tracker::of_file(self.file, range, Mode::Fast)?;
        self.trackers.push(tracker);
        Ok(())
    }

    /// Opens the tracker of a part, if there is none.
    fn open_once(&mut self, pages: Range<u64>) -> Result<()> {
        let end = pages.end * self.page_size;
        if !self
            .trackers
            .iter()
            .any(|tracker| tracker.range().end == end)
        {
            self.open(pages)?;
        }
        Ok(())
    }

    /// Opens the trackers of parts that have data, or had when they were copied, and none yet.
    fn follow(&mut self) -> Result<()> {
        while let Some(&page) = self.copied.first() {
            self.open_once(self.slots.of(page))?;
            self.copied.remove(&page);
        }
        let mut byte = 0;
        loop {
            let data = next_data(self.file, byte)
                .context("cannot tell what is a hole in the file")?
                // Where holes are not known, all is data, also what lies past the end.
                .filter(|&data| self.file.metadata().is_ok_and(|file| data < file.len()));
            let Some(data) = data else { return Ok(()) };
            let pages = self.slots.of(data / self.page_size);
            byte = pages.end * self.page_size;
            self.open_once(pages)?;
        }
    }
}

impl Changes for FileTrackers<'_> {
    fn take(&mut self, copier: &mut dyn Copier) -> Result<Harvested> {
        let begin = Instant::now();
        self.follow()?;
        let mut total = Harvested::default();
        // What is left of them when this fails is dropped, and so in the next ones again.
        let mut epochs = Vec::with_capacity(self.trackers.len());
        for tracker in &mut self.trackers {
            epochs.push(tracker.begin()?);
        }
        total.calls = epochs.len() as u64;
        total.time += begin.elapsed();
        let wanted = copier.begun()?;
        for epoch in epochs {
            let begin = Instant::now();
            let changed = epoch.pages()?;
            total.time += begin.elapsed();
            let mut run = 0..0;
            for found in changed {
                let start = (found.range.start / self.page_size).max(wanted.start);
                let end = (found.range.end / self.page_size).min(wanted.end);
                if start >= end {
                    continue;
                }
                total.pages += end - start;
                // Two records one after the other differ in their reason alone.
                if start == run.end {
                    run.end = end;
                    continue;
                }
                if !run.is_empty() {
                    copier.found(run)?;
                }
                run = start..end;
            }
            if !run.is_empty() {
                copier.found(run)?;
            }
            let begin = Instant::now();
            epoch.commit()?;
            total.time += begin.elapsed();
        }
        Ok(total)
    }

    fn finds_holes(&self) -> bool {
        true
    }

    fn copied(&mut self, bytes: Range<u64>) {
        let pages = bytes.start / self.page_size..bytes.end.div_ceil(self.page_size);
        let slots = self.slots.with(pages);
        self.copied.extend(slots.map(|slot| slot.start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_disjoint_and_cover_all() {
        for pages in [0, 1, LEAST_PAGES, LEAST_PAGES + 1, MOST_PAGES, 1 << 40] {
            let slots = Slots::new(pages);
            let mut page = 0;
            for _ in 0..20 {
                let slot = slots.of(page);
                assert_eq!(slot.start, page);
                assert!(slot.end - slot.start <= MOST_PAGES);
                for inside in [slot.start, (slot.start + slot.end) / 2, slot.end - 1] {
                    assert_eq!(slots.of(inside), slot);
                }
                let next = slots.of(slot.end);
                assert!(slots.with(slot.clone()).eq([slot.clone()]));
                assert!(slots
                    .with(slot.end - 1..slot.end + 1)
                    .eq([slot.clone(), next]));
                assert_eq!(slots.with(slot.end..slot.end).count(), 0);
                page = slot.end;
            }
            assert!(slots.of(0).end >= pages.min(MOST_PAGES));
        }
    }
}
