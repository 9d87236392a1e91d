// SPDX-License-Identifier: GPL-2.0

//! Many of everything: a thousand processes that map one file, and ten thousand trackers of them
//! and as many subscriptions, each an open file of the device.
//!
//! Words are stored to the file through the memory of one process after the other. Each has to be
//! in the memory of another process, and its page has to be told by each tracker of the process and
//! by one of the file. Subscriptions have to hear of a write-protection of the page.

#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use clap::Parser;
use mmops_raw::sandbox::{end_child, Child, Life, Mapped, Sandbox, ALL, LEN, PAGE, START};
use mmops_uapi::sys::mmops_notifier_event;
use mmops_uapi::{Device, Flags, Mode, Prot, Tracker};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rustix::process::{pidfd_send_signal, setrlimit, Resource, Rlimit, Signal};

const PAGES: u64 = LEN / PAGE;
/// Events that a subscription keeps.
const EVENTS: u32 = 8;
/// Once in so many turns a pair of files is opened anew.
const TURNS_OF_A_PAIR: u64 = 8;

/// Have many processes that map one file, and many open files of the device
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The file, which is made
    file: PathBuf,
    /// Processes that map it
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    processes: u64,
    /// Trackers, and subscriptions, of each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    files: u64,
    /// Seconds after which it ends, once all are there
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Two open files of the device, on one process.
struct Pair {
    tracker: Tracker,
    subscription: Device,
}

impl Pair {
    fn new(process: &Child) -> Result<Self> {
        let pidfd = Some(process.as_fd());
        // The other mode does not see what comes by /proc/PID/mem.
        let tracker = Tracker::new(pidfd, START..START + LEN, Mode::Full)?;
        let subscription = Device::open()?;
        subscription.notifier_subscribe(process.as_fd(), EVENTS)?;
        Ok(Self {
            tracker,
            subscription,
        })
    }
}

/// One process that maps the file.
struct Member {
    process: Child,
    memory: File,
    pairs: Vec<Pair>,
}

impl Member {
    fn new(sandbox: &Sandbox) -> Result<Self> {
        let process = sandbox.fork(ALL, Life::Stays)?;
        let path = format!("/proc/{}/mem", process.pid());
        let memory = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self {
            process,
            memory,
            pairs: Vec::new(),
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        end_child(&self.process);
    }
}

/// Where the word of a page is that is stored to. The first of some pages is what each process
/// has stored when it was made.
fn word(page: u64) -> u64 {
    page * PAGE + 8
}

/// Whether the next epoch of a tracker has a page that begins here. It is committed.
fn tells(tracker: &mut Tracker, page: u64) -> Result<bool> {
    let epoch = tracker.begin()?;
    let pages = epoch.pages()?;
    epoch.commit()?;
    Ok(pages.iter().any(|changed| changed.range.contains(&page)))
}

/// All there is.
struct Crowd {
    file: File,
    device: Device,
    tracker: Tracker,
    members: Vec<Member>,
    /// What was stored last to each page.
    known: Vec<u64>,
    /// How often something was.
    stores: u64,
    rng: ChaCha8Rng,
}

impl Crowd {
    fn new(options: &Options) -> Result<Self> {
        // A tracker and a subscription each, and the memory and the pidfd of a process.
        let files = options.processes * (2 * options.files + 2) + 100;
        let limit = Rlimit {
            current: Some(files),
            maximum: Some(files),
        };
        setrlimit(Resource::Nofile, limit).with_context(|| format!("cannot have {files} files"))?;
        let mut make = OpenOptions::new();
        make.read(true).write(true).create(true).truncate(true);
        let file = make.open(&options.file).context("cannot make the file")?;
        file.set_len(LEN)?;
        let sandbox = Sandbox::new()?;
        let prot = (Prot::READ | Prot::WRITE).bits() as i32;
        sandbox.map(ALL, Mapped::Shared(file.as_fd(), 0), prot, false)?;
        // Before files are opened: each process has those that there are when it is made.
        let members = (0..options.processes).map(|_| Member::new(&sandbox));
        let mut members = members.collect::<Result<Vec<_>>>()?;
        for member in &mut members {
            let pairs = (0..options.files).map(|_| Pair::new(&member.process));
            member.pairs = pairs.collect::<Result<_>>()?;
        }
        Ok(Self {
            device: Device::open()?,
            tracker: Tracker::of_file(&file, 0..LEN, Mode::Fast)?,
            members,
            known: vec![0; PAGES as usize],
            stores: 0,
            rng: ChaCha8Rng::seed_from_u64(1),
            file,
        })
    }

    /// Stores a word by one process, which has to be in the memory of another, and told by the
    /// tracker of the file.
    fn store(&mut self, number: usize, page: u64) -> Result<()> {
        self.stores += 1;
        let (value, at) = (self.stores, START + word(page));
        let memory = &self.members[number].memory;
        memory.write_all_at(&value.to_ne_bytes(), at)?;
        self.known[page as usize] = value;

        let other = self.rng.random_range(0..self.members.len());
        let mut bytes = [0; 8];
        self.members[other].memory.read_exact_at(&mut bytes, at)?;
        let found = u64::from_ne_bytes(bytes);
        ensure!(found == value, "process {other} has {found} in page {page}");
        let told = tells(&mut self.tracker, page * PAGE)?;
        ensure!(told, "the tracker of the file does not tell page {page}");
        Ok(())
    }

    /// Stores to a page by one process, and looks who else knows of it.
    fn turn(&mut self) -> Result<()> {
        let number = self.rng.random_range(0..self.members.len());
        let page = self.rng.random_range(0..PAGES);
        self.store(number, page)?;
        // The entry is writable now, and was made clean.
        self.store(number, page)?;
        // What the first one takes from the entry is told by all.
        for pair in &mut self.members[number].pairs {
            let told = tells(&mut pair.tracker, START + page * PAGE)?;
            ensure!(
                told,
                "a tracker of process {number} does not tell page {page}"
            );
        }

        self.store(number, page)?;
        let first = self.rng.random_range(0..=page);
        let nr = self.rng.random_range(page - first..PAGES - first) + 1;
        self.device
            .write_protect(&self.file, first, nr, Flags::empty())?;
        let member = &mut self.members[number];
        let pair = self.rng.random_range(0..member.pairs.len());
        let Pair {
            tracker,
            subscription,
        } = &mut member.pairs[pair];
        let told = tells(tracker, START + page * PAGE)?;
        ensure!(told, "process {number}, protected: page {page} is not told");
        let mut events = [mmops_notifier_event::default(); EVENTS as usize];
        let heard = subscription.notifier_log(&mut events)?;
        ensure!(heard.events > 0, "process {number} has no event");
        if self.rng.random_range(0..TURNS_OF_A_PAIR) == 0 {
            member.pairs[pair] = Pair::new(&member.process)?;
        }
        Ok(())
    }

    /// Looks at all pages of the file.
    fn look(&self) -> Result<()> {
        for (page, known) in (0..).zip(&self.known) {
            let mut bytes = [0; 8];
            self.file.read_exact_at(&mut bytes, word(page))?;
            let found = u64::from_ne_bytes(bytes);
            ensure!(
                found == *known,
                "page {page} of the file has {found}, and {known} was stored"
            );
        }
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // The end of each waits for who may be in a callback: all of them at the same time.
        for member in &self.members {
            let _ = pidfd_send_signal(&member.process, Signal::KILL);
        }
    }
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let mut crowd = Crowd::new(&options)?;
    let end = Instant::now() + Duration::from_secs(options.seconds);
    println!(
        "{} processes that map one file; {} trackers, and as many subscriptions",
        options.processes,
        options.processes * options.files
    );
    while crowd.stores == 0 || Instant::now() < end {
        crowd.turn()?;
    }
    crowd.look()?;
    println!("{} stores, none of them lost", crowd.stores);
    Ok(ExitCode::SUCCESS)
}
