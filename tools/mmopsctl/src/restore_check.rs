// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl restore-check`

use std::path::Path;

use anyhow::{bail, Context, Result};
use serde::Serialize;

use crate::cli;
use crate::core_file::CoreFile;
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
    /// The core file.
    pub core: Option<String>,
}

impl Report {
    fn print(&self) -> Result<()> {
        let pages = |n| units::pages(n, self.page_size);
        say!(
            "{}: the snapshot of process {} is whole",
            self.dir,
            self.pid
        )?;
        say!("  mappings   {}", self.mappings)?;
        if self.left_out != 0 {
            say!(
                "  left out   {}",
                units::count(self.left_out as u64, "mapping")
            )?;
        }
        if self.unreadable != 0 {
            say!("  unreadable {}", pages(self.unreadable))?;
        }
        say!(
            "  data       {} of {}",
            pages(self.pages),
            units::bytes(self.size)
        )?;
        if let Some(core) = &self.core {
            say!("  core file  {core}")?;
        }
        Ok(())
    }
}

/// Fails if `path` would be a file of the snapshot in `dir`.
fn check_is_elsewhere(path: &Path, dir: &Path) -> Result<()> {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let context = || format!("cannot write {}", path.display());
    if parent.canonicalize().with_context(context)? == dir.canonicalize().with_context(context)? {
        bail!("{} would be in the snapshot", path.display());
    }
    Ok(())
}

/// The core file that is asked for, without contents.
fn core_file(args: &cli::RestoreCheck, saved: &Saved) -> Result<Option<CoreFile>> {
    let Some(path) = &args.core else {
        return Ok(None);
    };
    check_is_elsewhere(path, &args.dir)?;
    CoreFile::create(path, &saved.mappings, saved.page_size).map(Some)
}

/// Checks a snapshot, and makes a core file of it if one is asked for.
pub fn check(args: &cli::RestoreCheck, stop: &Stop) -> Result<Report> {
    let saved = Saved::open(&args.dir)?;
    let core = core_file(args, &saved)?;
    let mut pages = 0;
    for (number, mapping) in saved.mappings.iter().enumerate() {
        pages += saved.read(mapping, |offset, bytes| {
            if stop.requested() {
                bail!("interrupted: the snapshot was not checked");
            }
            match &core {
                Some(core) => core.write(number, offset, bytes),
                None => Ok(()),
            }
        })?;
    }
    if let Some(core) = core {
        core.finish()?;
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
        core: args.core.as_ref().map(|path| path.display().to_string()),
    })
}

pub fn run(args: &cli::RestoreCheck) -> Result<()> {
    let stop = Stop::install("the snapshot was not checked")?;
    let report = check(args, &stop)?;
    if args.json {
        say!("{}", serde_json::to_string(&report)?)?;
    } else {
        report.print()?;
    }
    Ok(())
}
