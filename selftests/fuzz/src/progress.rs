// SPDX-License-Identifier: GPL-2.0

//! Progress: a bar on a terminal, elsewhere a line now and then.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines.
const EVERY: Duration = Duration::from_secs(10);

/// Progress in ioctls.
pub struct Progress {
    bar: Option<ProgressBar>,
    begin: Instant,
    last: Instant,
}

impl Progress {
    /// Begins.
    pub fn new(ioctls: u64) -> Self {
        let style = "{elapsed_precise} [{bar:30}] {pos}/{len} ioctls, {msg}";
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(style).expect("a constant template");
            ProgressBar::new(ioctls).with_style(style.progress_chars("=> "))
        });
        let begin = Instant::now();
        let last = begin;
        Self { bar, begin, last }
    }

    /// Since the begin.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// So many are done; `text` says more.
    pub fn at(&mut self, ioctls: u64, text: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(ioctls);
            bar.set_message(text());
        } else if self.last.elapsed() >= EVERY {
            self.last = Instant::now();
            let seconds = self.begin.elapsed().as_secs();
            eprintln!("  [{seconds:4} s] {ioctls} ioctls, {}", text());
        }
    }

    /// It is over.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
