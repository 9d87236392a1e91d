// SPDX-License-Identifier: GPL-2.0

//! Ending on a signal.

use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Exit status of a program that SIGINT ended, as shells report it.
const INTERRUPTED: i32 = 130;

/// Whether SIGINT, SIGTERM or SIGHUP came.
#[derive(Debug)]
pub struct Stop {
    requested: Arc<AtomicBool>,
    signals: Receiver<()>,
}

impl Stop {
    /// From now on, the first signal is a request, and the second ends the program at once after
    /// it printed `lost`.
    pub fn install(lost: &'static str) -> Result<Self> {
        let requested = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&requested);
        let (sender, signals) = mpsc::channel();
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                note!("\nmmopsctl: ended at once: {lost}");
                std::process::exit(INTERRUPTED);
            }
            // The receiver is gone only when the program is about to end anyway.
            let _ = sender.send(());
        })
        .context("cannot install a signal handler")?;
        Ok(Self { requested, signals })
    }

    /// Without signals: one came, or none ever will.
    #[cfg(test)]
    pub fn for_test(requested: bool) -> Self {
        Self {
            requested: Arc::new(AtomicBool::new(requested)),
            signals: mpsc::channel().1,
        }
    }

    /// Whether a signal came.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Sleeps for `time`, or until a signal comes.
    pub fn wait(&self, time: Duration) {
        if !self.requested() {
            let _ = self.signals.recv_timeout(time);
        }
    }

    /// Waits until the program ends, a signal comes, or `time` is over; whether the program has
    /// ended.
    pub fn wait_for_end(&self, child: &mut Child, time: Duration) -> Result<bool> {
        const STEP: Duration = Duration::from_millis(20);
        let begin = Instant::now();
        loop {
            if child
                .try_wait()
                .context("cannot wait for the program")?
                .is_some()
            {
                return Ok(true);
            }
            let left = time.saturating_sub(begin.elapsed());
            if left.is_zero() || self.requested() {
                return Ok(false);
            }
            self.wait(left.min(STEP));
        }
    }
}
