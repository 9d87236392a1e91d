// SPDX-License-Identifier: GPL-2.0

//! Progress: a bar on a terminal; elsewhere a line for each case, with a dot for each run.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// Progress over all runs of all cases.
///
/// Nothing is drawn from a thread of its own: with a second thread every TLB flush that is
/// measured could reach another CPU.
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    /// Expected cost of what is done so far, and of everything.
    done: f64,
    total: f64,
}

impl Progress {
    /// Starts; `total` is the expected cost of all cases in any unit.
    pub fn new(runs: u64, total: f64) -> Self {
        let style = "{elapsed_precise} [{bar:30}] {pos}/{len} runs  {msg}";
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(style).expect("a constant template");
            ProgressBar::new(runs).with_style(style.progress_chars("=> "))
        });
        Self {
            bar,
            started: Instant::now(),
            done: 0.0,
            total,
        }
    }

    /// A case begins.
    pub fn begin(&self, name: &str) {
        match (&self.bar, self.left()) {
            (None, _) => eprint!("{name} "),
            (Some(bar), None) => bar.set_message(name.to_owned()),
            (Some(bar), Some(left)) => bar.set_message(format!("{name}, about {left} left")),
        }
    }

    /// A run of the case is over.
    pub fn run_done(&self) {
        match &self.bar {
            None => eprint!("."),
            Some(bar) => bar.inc(1),
        }
    }

    /// A case is over; `cost` is what was expected of it, `result` what came out.
    pub fn end(&mut self, cost: f64, name: &str, result: &str) {
        self.done += cost;
        match (&self.bar, self.left()) {
            (Some(bar), _) => bar.suspend(|| eprintln!("{name}: {result}")),
            (None, Some(left)) => eprintln!(" {result}, about {left} left"),
            (None, None) => eprintln!(" {result}"),
        }
    }

    /// Everything is over.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("measured for {}", HumanDuration(self.started.elapsed()));
    }

    fn left(&self) -> Option<HumanDuration> {
        let left = remaining(self.started.elapsed(), self.done, self.total)?;
        Some(HumanDuration(Duration::from_secs(left.as_secs())))
    }
}

/// What is left when `done` of `total` took `elapsed`.
fn remaining(elapsed: Duration, done: f64, total: f64) -> Option<Duration> {
    let left = (total - done).max(0.0);
    (done > 0.0).then(|| elapsed.mul_f64(left / done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_follows_the_cost() {
        let minute = Duration::from_secs(60);
        assert_eq!(remaining(minute, 0.0, 10.0), None);
        assert_eq!(remaining(minute, 2.5, 10.0), Some(3 * minute));
        assert_eq!(remaining(minute, 10.0, 10.0), Some(Duration::ZERO));
    }
}
