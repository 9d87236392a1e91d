// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl snapshot`
//!
//! What is copied is told apart by its address: a tracker reports each page whose contents at its
//! address may have changed since the round before, whatever became of the mapping. A mapping that
//! was not there in the round before, and the new end of one that has grown, are copied whole, and
//! so is what is not tracked. So after a round that begins when nothing changes any more, the files
//! have what the memory has.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use mmops_uapi::{has_ended, Device, Mode};

use crate::cli;
use crate::hold::{Holder, Outcome};
use crate::snapshot_area::check;
use crate::snapshot_compare::Compared;
use crate::snapshot_copier::{Copier, Kind};
use crate::snapshot_index::LeftOut;
use crate::snapshot_plan::{is_time_to_stop, union};
use crate::snapshot_report::{Progress, Report, Round};
use crate::stop::Stop;
use crate::trackers::Trackers;
use crate::units;

/// How often it is tried to hold the process, each time after another round.
const ATTEMPTS: u32 = 5;

/// Copies what has changed since the last round.
fn round(trackers: &mut Trackers, copier: &mut Copier, kind: Kind) -> Result<Round> {
    let begin = Instant::now();
    loop {
        let (_, wanted) = copier.look()?;
        trackers.follow(copier.pidfd.as_fd(), &wanted)?;
        let tracked = trackers.ranges();
        let Some(epochs) = trackers.begin()? else {
            continue;
        };
        let pages = epochs.pages.iter();
        let changed = union(pages.map(|changed| changed.range.clone()).collect());
        let (pages, reread) = copier.copy(&changed, &tracked, kind)?;
        epochs.commit()?;
        return Ok(Round {
            pages,
            bytes: pages * copier.page_size,
            seconds: begin.elapsed().as_secs_f64(),
            is_last: kind != Kind::Running,
            reread,
        });
    }
}

/// All rounds, and at last one while the process is held; they are added to `rounds`. The length of
/// the pause, and what a compare has found.
fn rounds(
    args: &cli::Snapshot,
    copier: &mut Copier,
    progress: &Progress,
    rounds: &mut Vec<Round>,
) -> Result<(Duration, Option<Compared>)> {
    let mut trackers = Trackers::new(if args.fast { Mode::Fast } else { Mode::Full });
    let mut holder = Holder::new(args.pid as i32);
    let last = Kind::Last {
        trust_files: args.trust_files,
        lose_pages: args.lose_last_round,
    };
    let mut attempts = 0;
    loop {
        let seen = round(&mut trackers, copier, Kind::Running)?;
        rounds.push(seen);
        progress.round(rounds.len(), &seen, copier.page_size);
        let pages: Vec<u64> = rounds.iter().map(|round| round.pages).collect();
        if !is_time_to_stop(&pages, args.pause_pages, args.rounds) {
            continue;
        }
        check(copier.stop)?;
        // So that it takes no time later.
        holder.prepare()?;
        let begin = Instant::now();
        let outcome = holder.hold(|| {
            let seen = round(&mut trackers, copier, last)?;
            let compared = match args.verify {
                true => Some(copier.verify()?),
                false => None,
            };
            Ok((seen, compared))
        })?;
        let pause = begin.elapsed();
        // A signal from the terminal ends what holds the process as well.
        check(copier.stop)?;
        match outcome {
            Outcome::Seen((seen, compared)) => {
                rounds.push(seen);
                progress.round(rounds.len(), &seen, copier.page_size);
                return Ok((pause, compared));
            }
            Outcome::SeenInPart(_) => bail!("the process was let go before the end"),
            // With each of its mappings, its memory goes. What is not there reads as zeros.
            Outcome::Killed(_) => bail!(
                "process {} was killed before its snapshot was made",
                args.pid
            ),
            Outcome::Ended => bail!("process {} has ended", args.pid),
            Outcome::Runs(why) => {
                attempts += 1;
                if attempts == ATTEMPTS {
                    bail!("process {} cannot be held: {why}", args.pid);
                }
                progress.note(&format!("another round, since {why}"));
            }
        }
    }
}

pub fn run(args: &cli::Snapshot) -> Result<()> {
    let page_size = u64::from(Device::open()?.info()?.page_size);
    let stop = Stop::install("there is no snapshot")?;
    let mut copier = Copier::new(args, page_size, &stop)?;
    let progress = Progress::new(args.quiet);
    let begin = Instant::now();
    let mut per_round = Vec::new();
    let result = rounds(args, &mut copier, &progress, &mut per_round);
    let (pause, compared) = match result {
        // Any step may find that, and say something else.
        Err(error) if has_ended(copier.pidfd.as_fd())? => {
            let pid = args.pid;
            return Err(error.context(format!(
                "process {pid} has ended before its snapshot was made"
            )));
        }
        result => result?,
    };
    let pages = per_round.iter().map(|round| round.pages).sum();
    let unreadable = copier.areas.iter().flat_map(|area| &area.unreadable);
    let mut report = Report {
        pid: args.pid,
        dir: args.dir.display().to_string(),
        page_size,
        mode: if args.fast { "fast" } else { "full" },
        mappings: copier.areas.len(),
        left_out: copier.left_out.len(),
        unreadable: unreadable
            .map(|range| (range.end - range.start) / page_size)
            .sum(),
        pages,
        bytes: pages * page_size,
        rounds: per_round.len(),
        pause_seconds: pause.as_secs_f64(),
        seconds: 0.0,
        verify: compared.map(Into::into),
        per_round,
    };
    let left_out: Vec<String> = copier.left_out.iter().map(LeftOut::to_string).collect();
    // Not a snapshot if it differs; the directory goes then.
    let result = match compared.filter(|compared| compared.differed != 0) {
        None => copier.finish(),
        Some(compared) => Err(anyhow::anyhow!(
            "{} of {} differ from the memory, the first at {:x}: there is no snapshot",
            compared.differed,
            units::count(compared.pages, "page"),
            compared.first.unwrap_or(0)
        )),
    };
    progress.finish();
    report.seconds = begin.elapsed().as_secs_f64();
    let told = match args.json {
        true => say!("{}", serde_json::to_string(&report)?),
        false => report.print(&left_out),
    };
    // Whether there is a snapshot comes first.
    result?;
    Ok(told?)
}
