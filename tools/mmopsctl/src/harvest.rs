// SPDX-License-Identifier: GPL-2.0

//! Harvesting of dirty pages, window by window, and `mmopsctl harvest`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mmops_uapi::{Bitmap, Device, Flags};
use serde_json::json;

use crate::cli;
use crate::output::output;
use crate::sparse::next_data;
use crate::tracked::Tracked;
use crate::units;

/// Pages that are harvested at once: a bitmap of 128 KiB, for 4 GiB of a file.
const WINDOW_PAGES: u64 = 1 << 20;
/// What a window's ends are multiples of, in pages: the largest leaf, which a window must not cut.
const ALIGN_PAGES: u64 = 1 << 18;

/// What a harvest of a range came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harvested {
    /// Pages that were dirty.
    pub pages: u64,
    /// Entries that lost their dirty bit, over all mappings.
    pub cleaned: u64,
    /// Windows that the driver was asked about.
    pub calls: u64,
    /// Time spent in the driver, and on the search for holes.
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

/// The parts of a file that the driver is asked about.
#[derive(Debug)]
struct Windows<'a> {
    file: &'a File,
    page_size: u64,
    /// Whether holes are passed over.
    pass_holes: bool,
}

impl Windows<'_> {
    /// The first window of `pages` that can hold dirty pages.
    ///
    /// A page that a program stored to is data, not hole, from before the store on. So one that
    /// was a hole when it was passed over is stored to later, and is for the next harvest.
    fn first(&self, pages: &Range<u64>) -> Result<Option<Range<u64>>> {
        let mut first = pages.start;
        if first < pages.end && self.pass_holes {
            let data = next_data(self.file, first * self.page_size)
                .context("cannot tell what is a hole in the file")?;
            let Some(data) = data else { return Ok(None) };
            first = first.max(data / self.page_size / ALIGN_PAGES * ALIGN_PAGES);
        }
        let end = (first / ALIGN_PAGES * ALIGN_PAGES).saturating_add(WINDOW_PAGES);
        Ok((first < pages.end).then_some(first..end.min(pages.end)))
    }
}

/// [`DirtyPages`] of a file from the driver.
#[derive(Debug)]
pub struct Harvester<'a> {
    device: &'a Device,
    windows: Windows<'a>,
    flags: Flags,
    bitmap: Bitmap,
}

impl<'a> Harvester<'a> {
    /// Harvests `tracked` through `device`.
    pub fn new(
        device: &'a Device,
        tracked: &'a Tracked,
        page_size: u64,
        flags: Flags,
    ) -> Result<Self> {
        Ok(Self {
            device,
            windows: Windows {
                file: tracked.file(),
                page_size,
                // A device lies on the file system of its node, which knows nothing of it.
                pass_holes: tracked.metadata()?.is_file() && tracked.file_system()?.has_true_holes,
            },
            flags,
            bitmap: Bitmap::new(0, WINDOW_PAGES),
        })
    }
}

impl DirtyPages for Harvester<'_> {
    fn harvest(
        &mut self,
        pages: Range<u64>,
        found: &mut dyn FnMut(&Bitmap) -> Result<()>,
    ) -> Result<Harvested> {
        let mut total = Harvested::default();
        let mut left = pages;
        loop {
            let begin = Instant::now();
            let Some(window) = self.windows.first(&left)? else {
                return Ok(total);
            };
            left.start = window.end;
            let nr = window.end - window.start;
            self.bitmap.reset(window.start);
            let result = self.device.clean_record(
                self.windows.file,
                window.start,
                nr,
                &mut self.bitmap,
                self.flags,
            )?;
            total.time += begin.elapsed();
            total.calls += 1;
            total.cleaned += result.cleaned;
            // Pages that are pinned are recorded, and not counted as cleaned.
            let pages = self.bitmap.count();
            if pages != 0 {
                total.pages += pages;
                found(&self.bitmap)?;
            }
        }
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
    let mut harvester = Harvester::new(&device, &tracked, page_size, args.huge.into())?;
    let harvested = harvester
        .harvest(tracked.inside(range.clone(), page_size)?, &mut |bitmap| {
            bitmap.runs().for_each(|run| append(&mut runs, run));
            Ok(())
        })
        .with_context(|| args.file.display().to_string())?;

    let mut out = BufWriter::new(output());
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
            "calls": harvested.calls,
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
            note!("mmopsctl: {hint}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn runs_join_across_windows() {
        let mut runs = Vec::new();
        for run in [0..3, 7..8, 8..20, 21..22] {
            append(&mut runs, run);
        }
        assert_eq!(runs, [0..3, 7..20, 21..22]);
    }

    #[test]
    fn windows_pass_over_holes_and_cut_no_leaf() {
        const PAGE: u64 = 4096;
        let path = std::env::temp_dir().join(format!("mmopsctl-{}-windows", std::process::id()));
        let file = File::create_new(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        // Whatever the file system makes of the size of a hole, it is less than a window.
        let data = [3 * ALIGN_PAGES + 7, 3 * ALIGN_PAGES + WINDOW_PAGES, 1 << 30];
        file.set_len((1 << 30) * PAGE + 1).unwrap();
        for page in data {
            file.write_all_at(b"x", page * PAGE).unwrap();
        }
        let windows = |pages: Range<u64>, pass_holes| {
            let windows = Windows {
                file: &file,
                page_size: PAGE,
                pass_holes,
            };
            let mut left = pages;
            std::iter::from_fn(|| {
                let window = windows.first(&left).unwrap()?;
                left.start = window.end;
                Some(window)
            })
            .collect::<Vec<_>>()
        };
        let end = (1 << 30) + 1;
        assert_eq!(
            windows(0..end, true),
            [
                3 * ALIGN_PAGES..3 * ALIGN_PAGES + WINDOW_PAGES,
                3 * ALIGN_PAGES + WINDOW_PAGES..3 * ALIGN_PAGES + 2 * WINDOW_PAGES,
                1 << 30..end
            ]
        );
        assert_eq!(windows(3 * ALIGN_PAGES + 9..3 * ALIGN_PAGES + 99, true), []);
        assert_eq!(windows(0..0, true), []);
        assert_eq!(windows(0..0, false), []);
        // A range that begins inside a large leaf: only the first window does.
        assert_eq!(
            windows(5..WINDOW_PAGES + 5, false),
            [5..WINDOW_PAGES, WINDOW_PAGES..WINDOW_PAGES + 5]
        );
        assert_eq!(windows(0..end, false).len(), 1025);
    }
}
