// SPDX-License-Identifier: GPL-2.0

//! What `mmopsctl snapshot` tells: of each round while they are made, and of all of them at the
//! end.

use std::io;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::snapshot_compare::Compared;
use crate::units;

/// A round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Round {
    pub pages: u64,
    pub bytes: u64,
    pub seconds: f64,
    pub is_last: bool,
    pub reread: u64,
}

/// A compare as it is told.
#[derive(Clone, Debug, Serialize)]
pub struct Verify {
    pub pages: u64,
    pub differed: u64,
    pub first: Option<String>,
}

impl From<Compared> for Verify {
    fn from(compared: Compared) -> Self {
        Self {
            pages: compared.pages,
            differed: compared.differed,
            first: compared.first.map(|address| format!("{address:x}")),
        }
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    pub pid: u32,
    pub dir: String,
    pub page_size: u64,
    pub mode: &'static str,
    pub mappings: usize,
    pub left_out: usize,
    pub unreadable: u64,
    pub pages: u64,
    pub bytes: u64,
    pub rounds: usize,
    pub pause_seconds: f64,
    pub seconds: f64,
    pub verify: Option<Verify>,
    pub per_round: Vec<Round>,
}

impl Report {
    /// Prints it for people, with the mappings that were left out.
    pub fn print(&self, left_out: &[String]) -> io::Result<()> {
        let pages = |n| units::pages(n, self.page_size);
        say!("process {} -> {}", self.pid, self.dir)?;
        say!("  mappings   {}", self.mappings)?;
        for line in left_out {
            say!("  left out   {line}")?;
        }
        if self.unreadable != 0 {
            say!("  unreadable {}", pages(self.unreadable))?;
        }
        say!(
            "  copied     {} in {} and {}",
            pages(self.pages),
            units::count(self.rounds as u64, "round"),
            units::seconds(self.seconds)
        )?;
        if let Some(last) = self.per_round.last() {
            say!(
                "  pause      {}, for {}",
                units::seconds(self.pause_seconds),
                pages(last.pages)
            )?;
        }
        if let Some(verify) = &self.verify {
            let differed = match verify.differed {
                0 => "none".into(),
                differed => differed.to_string(),
            };
            let of = units::count(verify.pages, "page");
            say!("  compare    {differed} of {of} differed")?;
        }
        Ok(())
    }
}

/// Progress on standard error: one line that changes on a terminal, else one for each round.
pub struct Progress {
    bar: ProgressBar,
    /// Whether there is no terminal, and yet something is to be told.
    has_lines: bool,
    quiet: bool,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        let target = match quiet {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let has_lines = target.is_hidden() && !quiet;
        let bar = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("{spinner} {wide_msg}");
        bar.set_style(style.expect("a valid template"));
        bar.set_message("round 1");
        bar.enable_steady_tick(Duration::from_millis(250));
        Self {
            bar,
            has_lines,
            quiet,
        }
    }

    pub fn round(&self, number: usize, round: &Round, page_size: u64) {
        let text = format!(
            "round {number}: {} in {}{}",
            units::pages(round.pages, page_size),
            units::seconds(round.seconds),
            if round.is_last { ", held" } else { "" }
        );
        if self.has_lines {
            note!("{text}");
        }
        self.bar.set_message(text);
    }

    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| note!("mmopsctl: {text}"));
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
