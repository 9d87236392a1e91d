// SPDX-License-Identifier: GPL-2.0

//! Harvesting of dirty pages, window by window, and `mmopsctl harvest`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mmops_uapi::{Bitmap, Device, Flags};
use serde_json::json;

use crate::cli;
use crate::tracked::Tracked;
use crate::units;

/// Pages that are harvested at once: a bitmap of 128 KiB, for 4 GiB of a file.
const WINDOW_PAGES: u64 = 1 << 20;

/// What a harvest of a range came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harvested {
    /// Pages that were dirty.
    pub pages: u64,
    /// Entries that lost their dirty bit, over all mappings.
    pub cleaned: u64,
    /// Time spent in the driver.
    pub time: Duration,
}

/// Something that tells which pages were stored to since it was asked last.
pub trait DirtyPages {
    /// Takes the dirty bits of `pages` in windows of bounded size, and calls `found` with each
    /// window that holds any, after the bits of that window were taken.
    fn harvest(
        &mut self,
        pages: Range<u64>,
        found: &mut dyn FnMut(&Bitmap) -> Result<()>,
    ) -> Result<Harvested>;
}

/// [`DirtyPages`] of a file from the driver.
#[derive(Debug)]
pub struct Harvester<'a> {
    device: &'a Device,
    file: &'a File,
    flags: Flags,
    bitmap: Bitmap,
}

impl<'a> Harvester<'a> {
    /// Harvests `file` through `device`.
    pub fn new(device: &'a Device, file: &'a File, flags: Flags) -> Self {
        Self {
            device,
            file,
            flags,
            bitmap: Bitmap::new(0, WINDOW_PAGES),
        }
    }
}

impl DirtyPages for Harvester<'_> {
    fn harvest(
        &mut self,
        pages: Range<u64>,
        found: &mut dyn FnMut(&Bitmap) -> Result<()>,
    ) -> Result<Harvested> {
        let mut total = Harvested::default();
        let mut first = pages.start;
        while first < pages.end {
            let nr = WINDOW_PAGES.min(pages.end - first);
            self.bitmap.reset(first);
            let begin = Instant::now();
            let result =
                self.device
                    .clean_record(self.file, first, nr, &mut self.bitmap, self.flags)?;
            total.time += begin.elapsed();
            total.cleaned += result.cleaned;
            if result.cleaned != 0 {
                total.pages += self.bitmap.count();
                found(&self.bitmap)?;
            }
            first += nr;
        }
        Ok(total)
    }
}

/// Appends `run` to `runs`, as a part of the last one if it goes on where that ends.
fn append(runs: &mut Vec<Range<u64>>, run: Range<u64>) {
    match runs.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ => runs.push(run),
    }
}

pub fn run(args: &cli::Harvest) -> Result<()> {
    let device = Device::open()?;
    let page_size = u64::from(device.info()?.page_size);
    let tracked = Tracked::open(&args.file)?;
    let range = tracked.range(&args.pages, page_size)?;
    let mut runs = Vec::new();
    let mut harvester = Harvester::new(&device, tracked.file(), args.huge.into());
    let harvested = harvester
        .harvest(tracked.inside(range.clone(), page_size)?, &mut |bitmap| {
            bitmap.runs().for_each(|run| append(&mut runs, run));
            Ok(())
        })
        .with_context(|| args.file.display().to_string())?;

    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        let ranges: Vec<[u64; 2]> = runs.iter().map(|r| [r.start, r.end - r.start]).collect();
        let object = json!({
            "file": args.file.to_string_lossy(),
            "page_size": page_size,
            "first": range.start,
            "nr": range.end - range.start,
            "dirty_pages": harvested.pages,
            "dirty_bytes": harvested.pages * page_size,
            "cleaned": harvested.cleaned,
            "ranges": ranges,
        });
        writeln!(out, "{object}")?;
    } else {
        if !runs.is_empty() {
            writeln!(out, "{:>14} {:>12} {:>14}", "first page", "pages", "bytes")?;
        }
        for run in &runs {
            let pages = run.end - run.start;
            writeln!(
                out,
                "{:>14} {pages:>12} {:>14}",
                run.start,
                pages * page_size
            )?;
        }
        writeln!(
            out,
            "{} dirty in {}; harvest of {} took {}",
            units::pages(harvested.pages, page_size),
            units::count(runs.len() as u64, "range"),
            units::count(range.end - range.start, "page"),
            units::seconds(harvested.time.as_secs_f64()),
        )?;
    }
    out.flush()?;
    if harvested.pages == 0 {
        if let Some(hint) = tracked.hint_when_clean() {
            eprintln!("mmopsctl: {hint}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_across_windows() {
        let mut runs = Vec::new();
        for run in [0..3, 7..8, 8..20, 21..22] {
            append(&mut runs, run);
        }
        assert_eq!(runs, [0..3, 7..20, 21..22]);
    }
}
