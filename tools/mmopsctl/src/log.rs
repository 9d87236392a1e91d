// SPDX-License-Identifier: GPL-2.0

//! What a replication reports of its steps: lines of its log, and members of its report.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What told which pages changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangesBy {
    /// A tracker of the file.
    Tracker,
    /// Harvests of the dirty bits in its mappings.
    #[default]
    Harvests,
}

/// The beginning of a replication.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// File that is replicated.
    pub file: String,
    /// Its copy.
    pub replica: String,
    /// File system of `file`.
    pub file_system: String,
    /// Bytes in a page.
    pub page_size: u64,
    /// Bytes in `file`.
    pub size: u64,
    /// Seconds from the start of one round to that of the next.
    pub interval: f64,
    /// What told which pages changed; a log of before there were trackers does not say.
    #[serde(default)]
    pub changes_by: ChangesBy,
}

/// The first copy of the whole file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FullCopy {
    /// Pages copied: all that are no hole.
    pub pages: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// One round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Number of the round, from 1 on.
    pub round: u64,
    /// Seconds from the start of the replication to that of the round.
    pub at: f64,
    /// Bytes in the file.
    pub size: u64,
    /// Pages of the file that are no hole: what a full copy would copy.
    pub data_pages: u64,
    /// Pages that were dirty; of a tracker, those that had changed: each was copied, or became a
    /// hole.
    pub dirty_pages: u64,
    /// Pages copied: those that had changed and are data, and those that the file grew by.
    pub pages: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// Windows of the file that the driver was asked about, or trackers: for the parts that are not
    /// all hole.
    #[serde(default)]
    pub harvest_calls: u64,
    /// Seconds spent in the driver, and on the search for holes.
    pub harvest_seconds: f64,
    /// Seconds of the whole round.
    pub seconds: f64,
}

/// The compare at the end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verify {
    /// Pages compared: all that are data in one of the files.
    pub pages: u64,
    /// Pages that differed, and were copied.
    pub differed: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// The end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Rounds made.
    pub rounds: u64,
    /// Pages copied in all rounds.
    pub pages: u64,
    /// Bytes copied in all rounds.
    pub bytes: u64,
    /// Seconds spent in the driver in all rounds.
    pub harvest_seconds: f64,
    /// Pages that a full copy in each round would have copied.
    pub full_copies_pages: u64,
    /// Seconds from the start.
    pub seconds: f64,
    /// Whether a signal ended it.
    pub by_signal: bool,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The first line.
    Start(Start),
    /// The second line.
    FullCopy(FullCopy),
    /// As many lines as there were rounds.
    Round(Round),
    /// The last line but one, if there was a compare.
    Verify(Verify),
    /// The last line.
    End(End),
}

/// Writes `step` as a line, so that a reader of the file sees it at once.
pub fn write(mut log: &File, step: &Step) -> Result<()> {
    let mut line = serde_json::to_vec(step)?;
    line.push(b'\n');
    log.write_all(&line).context("cannot write the log")
}

/// A log that was read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub start: Start,
    pub full_copy: FullCopy,
    pub rounds: Vec<Round>,
    pub verify: Option<Verify>,
}

impl Log {
    /// Reads a log that [`write`] wrote, also one whose end is missing.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
        let mut start = None;
        let mut full_copy = None;
        let mut rounds = Vec::new();
        let mut verify = None;
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let line = line.with_context(|| format!("cannot read {name}"))?;
            let step = serde_json::from_str(&line).with_context(|| {
                format!(
                    "{name}:{}: not a line that `replicate --log` writes",
                    number + 1
                )
            })?;
            match step {
                Step::Start(step) => start = Some(step),
                Step::FullCopy(step) => full_copy = Some(step),
                Step::Round(step) => rounds.push(step),
                Step::Verify(step) => verify = Some(step),
                Step::End(_) => {}
            }
        }
        Ok(Self {
            start: start.with_context(|| format!("{name} is no log of a replication"))?,
            full_copy: full_copy.with_context(|| format!("{name} ends before the full copy"))?,
            rounds,
            verify,
        })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A log with a round for each number of pages.
    pub fn sample(pages: &[u64]) -> Vec<Step> {
        let start = Start {
            file: "/mnt/db".into(),
            replica: "/mnt/replica".into(),
            file_system: "tmpfs".into(),
            page_size: 4096,
            size: 4096 * 32768,
            interval: 0.1,
            changes_by: ChangesBy::Tracker,
        };
        let full_copy = FullCopy {
            pages: 9000,
            bytes: 9000 * 4096,
            seconds: 0.3,
        };
        let round = |(index, &pages): (usize, &u64)| {
            Step::Round(Round {
                round: index as u64 + 1,
                at: 0.3 + index as f64 * 0.1,
                size: start.size,
                data_pages: 9000 + 50 * index as u64,
                dirty_pages: pages,
                pages,
                bytes: pages * 4096,
                harvest_calls: 1,
                harvest_seconds: 0.001,
                seconds: 0.02,
            })
        };
        let rounds: Vec<Step> = pages.iter().enumerate().map(round).collect();
        let mut steps = vec![Step::Start(start), Step::FullCopy(full_copy)];
        steps.extend(rounds);
        steps.push(Step::Verify(Verify {
            pages: 9000,
            differed: 17,
            seconds: 0.1,
        }));
        steps
    }

    #[test]
    fn round_trip() {
        let path = std::env::temp_dir().join(format!("mmopsctl-{}-log", std::process::id()));
        let file = File::create(&path).unwrap();
        let steps = sample(&[5, 0, 700]);
        for step in &steps {
            write(&file, step).unwrap();
        }
        let log = Log::read(&path).unwrap();
        assert_eq!(log.start.changes_by, ChangesBy::Tracker);
        let old = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, old.replace(",\"changes_by\":\"tracker\"", "")).unwrap();
        let old = Log::read(&path).unwrap();
        std::fs::write(&path, "{\"step\": \"dance\"}\n").unwrap();
        let error = Log::read(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            log.rounds.iter().map(|r| r.pages).collect::<Vec<_>>(),
            [5, 0, 700]
        );
        assert_eq!(steps[0], Step::Start(log.start));
        assert_eq!(old.start.changes_by, ChangesBy::Harvests);
        assert!(error.contains("log:1: not a line"), "{error}");
    }
}
