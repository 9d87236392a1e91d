// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl replicate`

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mmops_uapi::Device;
use serde::Serialize;

use crate::changes::{Changes, FileTrackers};
use crate::cli::Replicate;
use crate::digests::Digests;
use crate::harvest::Harvester;
use crate::log::{self, ChangesBy, End, FullCopy, Round, Start, Step, Verify};
use crate::output::output;
use crate::replicator::Replicator;
use crate::sparse::Source;
use crate::stop::Stop;
use crate::stream::{self, Stream};
use crate::target::Target;
use crate::tracked::{FileSystem, Tracked};
use crate::units;

/// Time between two lines of progress where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    start: &'a Start,
    full_copy: FullCopy,
    #[serde(flatten)]
    end: End,
    verify: Option<Verify>,
    per_round: Vec<Round>,
}

pub fn run(args: &Replicate) -> Result<()> {
    let device = Device::open()?;
    let page_size = u64::from(device.info()?.page_size);
    let tracked = Tracked::open(&args.file)?;
    if !tracked.metadata()?.is_file() {
        bail!("{} is not a regular file or a memfd", args.file.display());
    }
    let file_system = tracked.file_system()?;
    let trackers = if args.harvest {
        None
    } else {
        FileTrackers::new(&device, tracked.file(), page_size)?
    };
    ensure!(
        trackers.is_none() || !args.huge.split,
        "--split is for harvests: give --harvest as well, or leave it out"
    );
    let verify = args.verify || trackers.is_none() && !args.no_verify;
    let is_stream = stream::is_standard(&args.replica);
    ensure!(
        is_stream || args.resume.is_none(),
        "--resume is for a stream: name - as the replica"
    );
    ensure!(
        !is_stream || !verify,
        "a stream has its replica elsewhere, so both files cannot be compared at the end{}",
        if args.verify {
            ": leave --verify out"
        } else {
            ", which has to be without a tracker: --no-verify sends what harvests alone tell"
        }
    );
    let mut digests = match &args.resume {
        Some(path) => Some(open_state(path)?),
        None => None,
    };
    let size = tracked.metadata()?.len();
    let log = match &args.log {
        Some(path) => Some(create_log(&tracked, &args.replica, path)?),
        None => None,
    };
    let replica;
    let target: Box<dyn Target + '_> = if is_stream {
        let base = digests.as_ref().map(|digests| digests.point);
        Box::new(Stream::new(stream::output()?, page_size, size, base)?)
    } else {
        replica = create_replica(&tracked, &args.replica)?;
        Box::new(&replica)
    };
    let write_log = |step: Step| log.as_ref().map_or(Ok(()), |log| log::write(log, &step));
    let mut progress = Progress::new(args.quiet);
    if trackers.is_none() {
        note_harvests(args, &tracked, &file_system, verify, &progress);
    }

    let stop = Stop::install(if is_stream {
        "the stream ends within a round, and the replica has the round before that"
    } else {
        "the replica is not complete"
    })?;
    let begin = Instant::now();
    let start = Start {
        file: args.file.to_string_lossy().into_owned(),
        replica: args.replica.to_string_lossy().into_owned(),
        file_system: file_system.name.clone(),
        page_size,
        size,
        interval: args.interval.as_secs_f64(),
        changes_by: match trackers {
            Some(_) => ChangesBy::Tracker,
            None => ChangesBy::Harvests,
        },
    };
    write_log(Step::Start(start.clone()))?;

    let flags = args.huge.into();
    let has_tracker = trackers.is_some();
    let changes: Box<dyn Changes> = match trackers {
        Some(trackers) => Box::new(trackers),
        None => Box::new(Harvester::new(&device, &tracked, page_size, flags)?),
    };
    let source = Source {
        file: tracked.file(),
        // A tracker is given where the kernel knows of each store, and so of what is no hole.
        has_true_holes: has_tracker || file_system.has_true_holes,
    };
    let mut replicator = Replicator::new(source, target, page_size, changes);
    let full_copy = match &mut digests {
        Some(digests) => {
            progress.phase("compare", start.size);
            replicator.resume(digests, |position| progress.position(position))?
        }
        None => {
            progress.phase("full copy", start.size);
            replicator.full_copy(|position| progress.position(position))?
        }
    };
    write_log(Step::FullCopy(full_copy))?;
    progress.full_copy(&full_copy, page_size);

    let mut end = End {
        rounds: 0,
        pages: 0,
        bytes: 0,
        harvest_seconds: 0.0,
        full_copies_pages: 0,
        seconds: 0.0,
        by_signal: false,
    };
    let mut per_round = Vec::new();
    let mut next_start = begin.elapsed() + args.interval;
    loop {
        stop.wait(next_start.saturating_sub(begin.elapsed()));
        // Asked before the round begins: the last round begins after the signal.
        let by_signal = stop.requested();
        let at = begin.elapsed();
        next_start = at + args.interval;
        let round = replicator.round(at.as_secs_f64())?;
        write_log(Step::Round(round))?;
        end.rounds = round.round;
        end.pages += round.pages;
        end.bytes += round.bytes;
        end.harvest_seconds += round.harvest_seconds;
        end.full_copies_pages += round.data_pages;
        end.by_signal = by_signal;
        progress.round(&round, &end, page_size);
        if args.json {
            per_round.push(round);
        }
        if by_signal || args.rounds == Some(round.round) {
            break;
        }
    }

    let verify = if !verify {
        None
    } else {
        progress.phase("compare", tracked.metadata()?.len());
        let verify = replicator.verify(|position| progress.position(position))?;
        write_log(Step::Verify(verify))?;
        Some(verify)
    };
    replicator.finish()?;
    end.seconds = begin.elapsed().as_secs_f64();
    write_log(Step::End(end))?;
    progress.finish();

    let report = if args.json {
        let report = Report {
            start: &start,
            full_copy,
            end,
            verify,
            per_round,
        };
        serde_json::to_string(&report)? + "\n"
    } else {
        in_words(&start, &full_copy, &end, verify.as_ref(), is_stream)
    };
    // Standard output has the stream, and nothing else.
    let mut output: Box<dyn Write> = match is_stream {
        true => Box::new(io::stderr()),
        false => Box::new(output()),
    };
    Ok(output.write_all(report.as_bytes())?)
}

/// Says that dirty bits are harvested, and what that does not see.
fn note_harvests(
    args: &Replicate,
    tracked: &Tracked,
    file_system: &FileSystem,
    verify: bool,
    progress: &Progress,
) {
    let file = args.file.display();
    let system = &file_system.name;
    if !args.harvest {
        progress.note(&format!(
            "no tracker for {file} on {system}: its dirty bits are harvested instead, {}",
            if verify {
                "and it is compared at the end"
            } else {
                "which do not tell everything"
            }
        ));
    }
    if !verify && file_system.writes_back {
        progress.note(&format!(
            "{file} is on {system}, whose writeback takes dirty bits too: \
             without a compare at the end the replica can lack stores"
        ));
    }
    if tracked.mappers().is_empty() {
        progress.note(&format!(
            "no process that can be seen here maps {file} shared yet: \
             stores are seen from the moment that one does"
        ));
    }
}

/// Whether both are of the same file.
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Opens `path` for a log, as an empty file if it is a file. It is neither `tracked` nor the
/// replica, which need not be there yet.
fn create_log(tracked: &Tracked, replica: &Path, path: &Path) -> Result<File> {
    let context = || format!("cannot write {}", path.display());
    let open = || {
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
    };
    let log = open().with_context(context)?;
    let metadata = log.metadata().with_context(context)?;
    let is_replica = replica
        .metadata()
        .is_ok_and(|replica| is_same(&metadata, &replica));
    if is_replica || is_same(&metadata, &tracked.metadata()?) {
        bail!(
            "the log {} is the file itself, or its replica",
            path.display()
        );
    }
    if metadata.is_file() {
        log.set_len(0).with_context(context)?;
    }
    Ok(log)
}

/// Opens `path` as an empty file that is not `tracked` itself.
fn create_replica(tracked: &Tracked, path: &Path) -> Result<File> {
    let context = || format!("cannot write the replica {}", path.display());
    // Not truncated before it is known not to be the file itself.
    let replica = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(context)?;
    let (ours, theirs) = (tracked.metadata()?, replica.metadata()?);
    if !theirs.is_file() {
        let kind = if theirs.file_type().is_block_device() {
            "a block device"
        } else {
            "special"
        };
        bail!(
            "the replica {} is {kind}: name a regular file",
            path.display()
        );
    }
    if is_same(&ours, &theirs) {
        bail!(
            "{} and {} are the same file",
            tracked.path().display(),
            path.display()
        );
    }
    replica.set_len(0).with_context(context)?;
    Ok(replica)
}

/// Opens the state that a stream goes on from.
fn open_state(path: &Path) -> Result<Digests<Box<dyn Read>>> {
    let file: Box<dyn Read> = if stream::is_standard(path) {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(path);
        Box::new(file.with_context(|| format!("cannot open the state {}", path.display()))?)
    };
    Digests::new(file)
}

fn in_words(
    start: &Start,
    full_copy: &FullCopy,
    end: &End,
    verify: Option<&Verify>,
    is_stream: bool,
) -> String {
    let pages = |n| units::pages(n, start.page_size);
    let signal = if end.by_signal {
        "; the last began after the signal"
    } else {
        ""
    };
    let by = match start.changes_by {
        ChangesBy::Tracker => "tracker",
        ChangesBy::Harvests => "harvest",
    };
    let compare = match verify {
        Some(verify) => format!(
            "{} of {} differed{}, in {}",
            if verify.differed == 0 {
                "none".into()
            } else {
                verify.differed.to_string()
            },
            units::count(verify.pages, "page"),
            if verify.differed == 0 {
                ""
            } else {
                ", and now hold what the file holds"
            },
            units::seconds(verify.seconds)
        ),
        None if start.changes_by == ChangesBy::Tracker => {
            "not needed: a tracker told what changed".into()
        }
        None => "left out".into(),
    };
    [
        format!(
            "{} -> {}",
            start.file,
            if is_stream {
                "a stream"
            } else {
                &start.replica
            }
        ),
        format!(
            "  file       {} on {}",
            units::bytes(start.size),
            start.file_system
        ),
        format!(
            "  full copy  {} in {}",
            pages(full_copy.pages),
            units::seconds(full_copy.seconds)
        ),
        format!(
            "  rounds     {} in {}{signal}",
            end.rounds,
            units::seconds(end.seconds)
        ),
        format!(
            "  copied     {}; a full copy each round would be {}",
            pages(end.pages),
            pages(end.full_copies_pages)
        ),
        format!(
            "  {by:<9}  {} in all rounds",
            units::seconds(end.harvest_seconds)
        ),
        format!("  compare    {compare}\n"),
    ]
    .join("\n")
}

/// Progress on standard error: a bar on a terminal, else a line now and then.
struct Progress {
    bar: ProgressBar,
    quiet: bool,
    /// When the last line was printed; none on a terminal.
    last_line: Option<Instant>,
}

impl Progress {
    fn new(quiet: bool) -> Self {
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let lines = target.is_hidden() && !quiet;
        Self {
            bar: ProgressBar::with_draw_target(None, target),
            quiet,
            last_line: lines.then(Instant::now),
        }
    }

    /// Something that is to be known whatever the output is.
    fn note(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| note!("mmopsctl: {text}"));
        }
    }

    /// A phase that goes through `bytes` bytes begins.
    fn phase(&mut self, name: &'static str, bytes: u64) {
        let style = ProgressStyle::with_template(
            "{msg:10} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}",
        );
        self.bar.set_style(style.expect("a valid template"));
        self.bar.set_message(name);
        self.bar.set_length(bytes);
        self.bar.set_position(0);
        self.line(|| format!("{name} of {}", units::bytes(bytes)), true);
    }

    fn position(&mut self, position: u64) {
        self.bar.set_position(position);
        let length = self.bar.length().unwrap_or(0);
        self.line(
            || format!("{} of {}", units::bytes(position), units::bytes(length)),
            false,
        );
    }

    fn full_copy(&mut self, copy: &FullCopy, page_size: u64) {
        let style = ProgressStyle::with_template("{spinner} {wide_msg}");
        self.bar.set_style(style.expect("a valid template"));
        let text = format!(
            "copied {} in {}; following; Ctrl-C ends after a complete round",
            units::pages(copy.pages, page_size),
            units::seconds(copy.seconds)
        );
        self.bar.set_message(text.clone());
        self.bar.enable_steady_tick(Duration::from_millis(250));
        self.line(|| text, true);
    }

    fn round(&mut self, round: &Round, end: &End, page_size: u64) {
        let text = || {
            format!(
                "{:6.1} s  round {}: {} in {}; {} in all",
                round.at,
                round.round,
                units::pages(round.pages, page_size),
                units::seconds(round.seconds),
                units::bytes(end.bytes),
            )
        };
        self.bar.set_message(text());
        self.line(text, end.by_signal);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Prints a line where there is no terminal, if it is time or if it is `due` anyway.
    fn line(&mut self, text: impl FnOnce() -> String, due: bool) {
        if let Some(last) = &mut self.last_line {
            if due || last.elapsed() >= LINE_INTERVAL {
                *last = Instant::now();
                // In one piece, since others may write to the same place.
                let _ = io::stderr().write_all((text() + "\n").as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_is_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        let (file, replica, log) = (path("file"), path("replica"), path("log"));
        for path in [&file, &replica, &log] {
            std::fs::write(path, "content").unwrap();
        }
        let tracked = Tracked::open(&file).unwrap();
        for path in [&file, &replica] {
            let error = create_log(&tracked, &replica, path).unwrap_err();
            assert!(error.to_string().contains("is the file itself"), "{error}");
            assert_eq!(std::fs::read_to_string(path).unwrap(), "content");
        }
        create_log(&tracked, &replica, &log).unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "");
        // What is no file, and a replica that is not there yet.
        create_log(&tracked, Path::new("-"), Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn replica_is_another_regular_file() {
        let path =
            |name| std::env::temp_dir().join(format!("mmopsctl-{}-{name}", std::process::id()));
        let (file, link, other) = (path("self"), path("link"), path("other"));
        std::fs::write(&file, "content").unwrap();
        std::fs::hard_link(&file, &link).unwrap();
        std::fs::write(&other, "old content").unwrap();
        let tracked = Tracked::open(&file).unwrap();
        let error = create_replica(&tracked, &link).unwrap_err().to_string();
        let empty = create_replica(&tracked, &other)
            .unwrap()
            .metadata()
            .unwrap()
            .len();
        let device = create_replica(&tracked, Path::new("/dev/null"))
            .unwrap_err()
            .to_string();
        let content = std::fs::read_to_string(&file).unwrap();
        for path in [file, link, other] {
            std::fs::remove_file(path).unwrap();
        }
        assert!(error.contains("the same file"), "{error}");
        assert!(device.contains("name a regular file"), "{device}");
        assert_eq!((content.as_str(), empty), ("content", 0));
    }
}
