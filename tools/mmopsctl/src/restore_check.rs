// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl restore-check`

use anyhow::{bail, Result};
use serde::Serialize;

use crate::cli;
use crate::snapshot_mappings::Mapping;
use crate::snapshot_saved::Saved;
use crate::stop::Stop;
use crate::units;

/// What `--json` prints.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub dir: String,
    pub pid: u32,
    pub page_size: u64,
    pub mappings: usize,
    pub left_out: usize,
    pub unreadable: u64,
    /// Bytes of all mappings.
    pub size: u64,
    /// Pages that are not of zeros alone.
    pub pages: u64,
    pub bytes: u64,
}

impl Report {
    fn print(&self) {
        let pages = |n| units::pages(n, self.page_size);
        println!(
            "{}: the snapshot of process {} is whole",
            self.dir, self.pid
        );
        println!("  mappings   {}", self.mappings);
        if self.left_out != 0 {
            println!(
                "  left out   {}",
                units::count(self.left_out as u64, "mapping")
            );
        }
        if self.unreadable != 0 {
            println!("  unreadable {}", pages(self.unreadable));
        }
        println!(
            "  data       {} of {}",
            pages(self.pages),
            units::bytes(self.size)
        );
    }
}

/// Checks a snapshot.
pub fn check(args: &cli::RestoreCheck, stop: &Stop) -> Result<Report> {
    let saved = Saved::open(&args.dir)?;
    let mut pages = 0;
    for mapping in &saved.mappings {
        pages += saved.read(mapping, |_, _| {
            if stop.requested() {
                bail!("interrupted: the snapshot was not checked");
            }
            Ok(())
        })?;
    }
    let unreadable = saved
        .mappings
        .iter()
        .flat_map(|mapping| &mapping.unreadable);
    Ok(Report {
        dir: args.dir.display().to_string(),
        pid: saved.pid,
        page_size: saved.page_size,
        mappings: saved.mappings.len(),
        left_out: saved.left_out,
        unreadable: unreadable
            .map(|range| (range.end - range.start) / saved.page_size)
            .sum(),
        size: saved.mappings.iter().map(Mapping::size).sum(),
        pages,
        bytes: pages * saved.page_size,
    })
}

pub fn run(args: &cli::RestoreCheck) -> Result<()> {
    let stop = Stop::install("the snapshot was not checked")?;
    let report = check(args, &stop)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        report.print();
    }
    Ok(())
}
