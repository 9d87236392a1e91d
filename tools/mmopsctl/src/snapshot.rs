// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl snapshot`
//!
//! What is copied is told apart by its address: a tracker reports each page whose contents at its
//! address may have changed since the round before, whatever became of the mapping. A mapping that
//! was not there in the round before, and the new end of one that has grown, are copied whole, and
//! so is what is not tracked. So after a round that begins when nothing changes any more, the files
//! have what the memory has.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mmops_uapi::{has_ended, pidfd_open, Device, Epoch, Mode};
use procfs::process::MemoryMap;
use serde::Serialize;

use crate::cli;
use crate::hold::{Holder, Outcome};
use crate::process::Memory;
use crate::snapshot_dir::{clear, data_in, write_pages, Directory, Entry, Index, LeftOut};
use crate::snapshot_memory::{Backing, Contents, Read};
use crate::snapshot_plan::{choose, clip, is_time_to_stop, name_of, pieces, rest, union, Choice};
use crate::stop::Stop;
use crate::trackers::Trackers;
use crate::units;

/// Bytes that are read and written at once.
const CHUNK: u64 = 1 << 20;

/// How often it is tried to hold the process, each time after another round.
const ATTEMPTS: u32 = 5;

/// A mapping, and its contents up to the last round.
#[derive(Debug)]
struct Area {
    map: MemoryMap,
    /// Address up to which there are contents in its file.
    stored_to: u64,
    /// In order and apart.
    unreadable: Vec<Range<u64>>,
}

impl Area {
    fn range(&self) -> Range<u64> {
        self.map.address.0..self.map.address.1
    }

    /// The same addresses as places in the file with the contents.
    fn in_file(&self, range: &Range<u64>) -> Range<u64> {
        let start = self.map.address.0;
        range.start - start..range.end - start
    }
}

/// A round.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    pages: u64,
    bytes: u64,
    seconds: f64,
    is_last: bool,
    reread: u64,
}

/// What a compare has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Compared {
    pages: u64,
    differed: u64,
    /// Address of the first page that differed.
    first: Option<u64>,
}

impl Compared {
    fn add(&mut self, address: u64, differs: bool) {
        self.pages += 1;
        if differs {
            self.differed += 1;
            self.first = self.first.or(Some(address));
        }
    }

    fn join(&mut self, other: Self) {
        self.pages += other.pages;
        self.differed += other.differed;
        self.first = self.first.or(other.first);
    }
}

/// A compare as it is told.
#[derive(Clone, Debug, Serialize)]
struct Verify {
    pages: u64,
    differed: u64,
    first: Option<String>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    pid: u32,
    dir: String,
    page_size: u64,
    mode: &'static str,
    mappings: usize,
    left_out: usize,
    unreadable: u64,
    pages: u64,
    bytes: u64,
    rounds: usize,
    pause_seconds: f64,
    seconds: f64,
    verify: Option<Verify>,
    per_round: Vec<Round>,
}

/// How a round is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The process runs.
    Running,
    /// Nothing changes any more.
    Last { trust_files: bool, lose_pages: bool },
}

/// The process, and what was copied of it.
#[derive(Debug)]
struct Copier<'a> {
    pid: u32,
    pidfd: OwnedFd,
    page_size: u64,
    directory: Directory,
    /// In ascending order.
    areas: Vec<Area>,
    left_out: Vec<LeftOut>,
    stop: &'a Stop,
    buffer: Vec<u8>,
    compared: Vec<u8>,
}

impl<'a> Copier<'a> {
    fn new(args: &cli::Snapshot, page_size: u64, stop: &'a Stop) -> Result<Self> {
        let pid = args.pid;
        if pid == std::process::id() {
            bail!("process {pid} is mmopsctl itself");
        }
        Ok(Self {
            pid,
            pidfd: pidfd_open(pid).with_context(|| format!("process {pid}"))?,
            page_size,
            directory: Directory::new(&args.dir)?,
            areas: Vec::new(),
            left_out: Vec::new(),
            stop,
            buffer: vec![0; CHUNK as usize],
            compared: vec![0; CHUNK as usize],
        })
    }

    /// The memory that the process has now, and the mappings that are to be copied.
    fn look(&mut self) -> Result<(Memory, Vec<MemoryMap>)> {
        let memory = Memory::of(self.pid as i32)?;
        let mut wanted = Vec::new();
        self.left_out.clear();
        for map in memory.maps()? {
            let choice = match choose(&map, false) {
                // Only then does it matter what is behind it.
                Choice::Copied => {
                    let backing = Backing::of(&memory, &map);
                    choose(&map, matches!(backing, Backing::Device))
                }
                choice => choice,
            };
            match choice {
                Choice::Copied => wanted.push(map),
                Choice::Passed => {}
                Choice::LeftOut(reason) => self.left_out.push(LeftOut {
                    addresses: (&(map.address.0..map.address.1)).into(),
                    path: name_of(&map.pathname),
                    reason: reason.into(),
                }),
            }
        }
        if wanted.is_empty() {
            bail!(
                "process {} has no memory to copy: it is about to end, or is one of the kernel",
                self.pid
            );
        }
        Ok((memory, wanted))
    }

    /// The contents of `memory`, which is that of the process and not of one that came after it.
    fn contents(&self, memory: &Memory) -> Result<Contents> {
        let contents = Contents::of(memory, self.page_size)
            .with_context(|| format!("cannot read the memory of process {}", self.pid))?;
        if has_ended(self.pidfd.as_fd())? {
            bail!("process {} has ended", self.pid);
        }
        Ok(contents)
    }

    /// Takes the mappings that are there now; what was copied of those that are still there stays.
    fn follow(&mut self, wanted: Vec<MemoryMap>) -> Result<()> {
        let mut old = std::mem::take(&mut self.areas).into_iter().peekable();
        for map in wanted {
            let (start, end) = map.address;
            while old.next_if(|area| area.map.address.0 < start).is_some() {}
            let before = old.next_if(|area| area.map.address.0 == start);
            let (stored_to, unreadable) = match before {
                Some(area) => (area.stored_to.min(end), area.unreadable),
                None => (start, Vec::new()),
            };
            self.areas.push(Area {
                map,
                stored_to,
                unreadable: clip(&unreadable, &(start..end)),
            });
        }
        let starts: Vec<u64> = self.areas.iter().map(|area| area.map.address.0).collect();
        self.directory
            .keep(|start| starts.binary_search(&start).is_ok())
    }

    /// Copies what has changed: the addresses `changed`, and what is not `tracked` or was not
    /// copied before. The pages, and those of them that nobody has told of.
    fn copy(
        &mut self,
        changed: &[Range<u64>],
        tracked: &[Range<u64>],
        kind: Kind,
    ) -> Result<(u64, u64)> {
        // Anew: what came after the epochs began is in the next ones.
        let (memory, wanted) = self.look()?;
        let contents = self.contents(&memory)?;
        self.follow(wanted)?;
        let (mut pages, mut reread) = (0, 0);
        for nr in 0..self.areas.len() {
            let area = &mut self.areas[nr];
            let (start, end) = (area.map.address.0, area.map.address.1);
            let size = end - start;
            let known = start..area.stored_to;
            let mut again = clip(changed, &known);
            again.extend(rest(tracked, &known));
            // They may be readable by now.
            again.append(&mut area.unreadable);
            let again = clip(&union(again), &known);
            let fresh = area.stored_to..end;
            let backing = Backing::of(&memory, &area.map);
            let rereads = match kind {
                Kind::Last { trust_files, .. } => backing.is_file() && !trust_files,
                Kind::Running => false,
            };
            if again.is_empty() && fresh.is_empty() && !rereads {
                continue;
            }
            let file = self.directory.contents(start, size)?;
            if matches!(
                kind,
                Kind::Last {
                    lose_pages: true,
                    ..
                }
            ) {
                continue;
            }
            for range in &again {
                pages += self.copy_range(&contents, &file, nr, &backing, range, false)?;
            }
            pages += self.copy_range(&contents, &file, nr, &backing, &fresh, true)?;
            self.areas[nr].stored_to = end;
            if rereads {
                for range in rest(&again, &known) {
                    reread += self
                        .compare(&contents, &file, nr, &backing, &range, true)?
                        .differed;
                }
            }
        }
        Ok((pages + reread, reread))
    }

    fn check(&self) -> Result<()> {
        if self.stop.requested() {
            bail!("interrupted: there is no snapshot");
        }
        Ok(())
    }

    /// Copies addresses of one area; with `is_fresh` the file has a hole there. The pages that were
    /// read.
    fn copy_range(
        &mut self,
        contents: &Contents,
        file: &File,
        nr: usize,
        backing: &Backing,
        range: &Range<u64>,
        is_fresh: bool,
    ) -> Result<u64> {
        if range.is_empty() {
            return Ok(0);
        }
        let area = &self.areas[nr];
        let context = || format!("cannot write {}", Directory::name(area.map.address.0));
        let used = contents.used(&area.map, backing, range)?;
        let (mut pages, mut unreadable) = (0, Vec::new());
        for (piece, is_used) in pieces(&used, range) {
            let mut at = piece.start;
            if !is_used {
                if !is_fresh {
                    clear(file, area.in_file(&piece)).with_context(context)?;
                }
                continue;
            }
            while at < piece.end {
                self.check()?;
                let len = CHUNK.min(piece.end - at) as usize;
                match contents.read(&mut self.buffer[..len], at)? {
                    Read::Bytes(len) => {
                        let offset = area.in_file(&(at..at)).start;
                        write_pages(
                            file,
                            offset,
                            &self.buffer[..len],
                            self.page_size as usize,
                            is_fresh,
                        )
                        .with_context(context)?;
                        pages += len as u64 / self.page_size;
                        at += len as u64;
                    }
                    Read::Unreadable => {
                        let page = at..at + self.page_size;
                        if !is_fresh {
                            clear(file, area.in_file(&page)).with_context(context)?;
                        }
                        at = page.end;
                        unreadable.push(page);
                    }
                }
            }
        }
        if !unreadable.is_empty() {
            let area = &mut self.areas[nr];
            unreadable.append(&mut area.unreadable);
            area.unreadable = union(unreadable);
        }
        Ok(pages)
    }

    /// Compares addresses of one area with the file; with `mends`, pages that differ are written.
    fn compare(
        &mut self,
        contents: &Contents,
        file: &File,
        nr: usize,
        backing: &Backing,
        range: &Range<u64>,
        mends: bool,
    ) -> Result<Compared> {
        let area = &self.areas[nr];
        let page_size = self.page_size as usize;
        let mut result = Compared::default();
        let used = contents.used(&area.map, backing, range)?;
        for (piece, is_used) in pieces(&used, range) {
            let mut at = piece.start;
            while at < piece.end && is_used {
                self.check()?;
                let len = CHUNK.min(piece.end - at) as usize;
                let len = match contents.read(&mut self.buffer[..len], at)? {
                    Read::Bytes(len) => len,
                    Read::Unreadable => {
                        at += self.page_size;
                        continue;
                    }
                };
                let offset = area.in_file(&(at..at)).start;
                file.read_exact_at(&mut self.compared[..len], offset)?;
                let memory = self.buffer[..len].chunks(page_size);
                let stored = self.compared[..len].chunks(page_size);
                for (page, (memory, stored)) in memory.zip(stored).enumerate() {
                    let skip = (page * page_size) as u64;
                    let differs = memory != stored;
                    result.add(at + skip, differs);
                    if differs && mends {
                        write_pages(file, offset + skip, memory, page_size, false)?;
                    }
                }
                at += len as u64;
            }
            if is_used {
                continue;
            }
            // These are zeros.
            let in_file = area.in_file(&piece);
            let mut differed = 0;
            for data in data_in(file, in_file.clone()) {
                let mut data = data?;
                data.start = data.start / self.page_size * self.page_size;
                while data.start < data.end {
                    self.check()?;
                    let page = &mut self.compared[..page_size];
                    file.read_exact_at(page, data.start)?;
                    let differs = page.iter().any(|byte| *byte != 0);
                    result.add(area.map.address.0 + data.start, differs);
                    differed += u64::from(differs);
                    data.start += self.page_size;
                }
            }
            if differed != 0 && mends {
                clear(file, in_file)?;
            }
        }
        Ok(result)
    }

    /// Compares all that was copied with the memory.
    fn verify(&mut self) -> Result<Compared> {
        let memory = Memory::of(self.pid as i32)?;
        let contents = self.contents(&memory)?;
        let mut result = Compared::default();
        for nr in 0..self.areas.len() {
            let range = self.areas[nr].range();
            let backing = Backing::of(&memory, &self.areas[nr].map);
            let file = self
                .directory
                .contents(range.start, range.end - range.start)?;
            result.join(self.compare(&contents, &file, nr, &backing, &range, false)?);
        }
        Ok(result)
    }

    /// Writes the index; from now on it is a snapshot.
    fn finish(self) -> Result<()> {
        let entries = self.areas.iter().map(|area| Entry {
            addresses: (&area.range()).into(),
            permissions: area.map.perms.as_str(),
            offset: area.map.offset,
            path: name_of(&area.map.pathname),
            contents: Directory::name(area.map.address.0),
            unreadable: area.unreadable.iter().map(Into::into).collect(),
        });
        let index = Index::new(self.pid, self.page_size, entries.collect(), self.left_out);
        self.directory.finish(&index)
    }
}

/// Copies what has changed since the last round.
fn round(trackers: &mut Trackers, copier: &mut Copier, kind: Kind) -> Result<Round> {
    let begin = Instant::now();
    loop {
        let (_, wanted) = copier.look()?;
        trackers.follow(copier.pidfd.as_fd(), &wanted)?;
        let tracked = trackers.ranges();
        let (epochs, found) = trackers.begin()?;
        if epochs.iter().any(Epoch::has_ended) {
            // The process has executed another program: all of that is new.
            drop(epochs);
            trackers.clear();
            continue;
        }
        let changed = union(found.into_iter().map(|changed| changed.range).collect());
        let (pages, reread) = copier.copy(&changed, &tracked, kind)?;
        for epoch in epochs {
            epoch.commit()?;
        }
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
        copier.check()?;
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
        copier.check()?;
        match outcome {
            Outcome::Seen((seen, compared)) => {
                rounds.push(seen);
                progress.round(rounds.len(), &seen, copier.page_size);
                return Ok((pause, compared));
            }
            Outcome::SeenInPart(_) => bail!("the process was let go before the end"),
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
        verify: compared.map(|compared| Verify {
            pages: compared.pages,
            differed: compared.differed,
            first: compared.first.map(|address| format!("{address:x}")),
        }),
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
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print_report(&report, &left_out);
    }
    result
}

fn print_report(report: &Report, left_out: &[String]) {
    let pages = |n| units::pages(n, report.page_size);
    println!("process {} -> {}", report.pid, report.dir);
    println!("  mappings   {}", report.mappings);
    for line in left_out {
        println!("  left out   {line}");
    }
    if report.unreadable != 0 {
        println!("  unreadable {}", pages(report.unreadable));
    }
    println!(
        "  copied     {} in {} and {}",
        pages(report.pages),
        units::count(report.rounds as u64, "round"),
        units::seconds(report.seconds)
    );
    if let Some(last) = report.per_round.last() {
        println!(
            "  pause      {}, for {}",
            units::seconds(report.pause_seconds),
            pages(last.pages)
        );
    }
    if let Some(verify) = &report.verify {
        let differed = match verify.differed {
            0 => "none".into(),
            differed => differed.to_string(),
        };
        let of = units::count(verify.pages, "page");
        println!("  compare    {differed} of {of} differed");
    }
}

/// Progress on standard error: one line that changes on a terminal, else one for each round.
struct Progress {
    bar: ProgressBar,
    /// Whether there is no terminal, and yet something is to be told.
    has_lines: bool,
    quiet: bool,
}

impl Progress {
    fn new(quiet: bool) -> Self {
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

    fn round(&self, number: usize, round: &Round, page_size: u64) {
        let text = format!(
            "round {number}: {} in {}{}",
            units::pages(round.pages, page_size),
            units::seconds(round.seconds),
            if round.is_last { ", held" } else { "" }
        );
        if self.has_lines {
            eprintln!("{text}");
        }
        self.bar.set_message(text);
    }

    fn note(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("mmopsctl: {text}"));
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
