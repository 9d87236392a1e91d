// SPDX-License-Identifier: GPL-2.0

//! Processes that map one file and store to it, and to memory of their own, while everything is
//! done to them that mmops can do; each looks whether what it stored is still there.
//!
//! - Each process has words of its own in each page of the file, and knows their values.
//! - A tracker in each tells which pages of private memory may have changed, and they are copied:
//!   in the end the copy is what was stored.

#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use clap::Parser;
use mmops_uapi::sys::mmops_notifier_event;
use mmops_uapi::{pidfd_open, Bitmap, Device, Flags, Memory, Mode, Prot, Tracker};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;
/// Pages of the file: eight leaves of PMD size.
const FILE_PAGES: usize = 8 * 512;
/// Pages of the memory that is tracked.
const OWN_PAGES: usize = 2 * 512;
/// Open files of the device for each process, with a tracker each.
const FILES: usize = 25;

/// Store to one file from many processes, and look what is lost
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The file, which is made
    file: PathBuf,
    /// Processes
    #[arg(long, default_value_t = 4)]
    processes: usize,
    /// Seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Be this one of them
    #[arg(long, hide = true)]
    process: Option<usize>,
}

/// Ends all threads at once, also where one fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    match options.process {
        Some(number) => process(&options, number)?,
        None => all(&options)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Stores to the file, in the words that are this process's, and looks at each before.
fn store(file: &Memory, number: usize, stop: &AtomicBool) -> Result<u64> {
    let _stop = Stop(stop);
    let rng = &mut ChaCha8Rng::seed_from_u64(number as u64);
    let mut known = vec![0; FILE_PAGES];
    let mut stores = 0;
    let word = |page: usize| &file.words()[page * WORDS + number];
    let look = |page: usize, known: &[u64]| {
        let found = word(page).load(Relaxed);
        let wanted = known[page];
        ensure!(
            found == wanted,
            "page {page} of the file has {found}, and {wanted} was stored"
        );
        Ok(())
    };
    while !stop.load(Relaxed) {
        let page = rng.random_range(0..FILE_PAGES);
        look(page, &known)?;
        known[page] += 1;
        word(page).store(known[page], Relaxed);
        stores += 1;
    }
    (0..FILE_PAGES).try_for_each(|page| look(page, &known))?;
    Ok(stores)
}

/// Stores to private memory, while a tracker tells which pages to copy.
fn track(memory: &Memory, number: usize, stop: &AtomicBool) -> Result<u64> {
    let _stop = Stop(stop);
    let mode = [Mode::Fast, Mode::Full][number % 2];
    let mut tracker = Tracker::new(None, memory.range(), mode)?;
    let mut copy = vec![0; OWN_PAGES * WORDS];
    let mut epochs = 0;
    let mut take = || -> Result<()> {
        let epoch = tracker.begin()?;
        for changed in epoch.pages()? {
            let first = (changed.range.start - memory.range().start) as usize / 8;
            let last = (changed.range.end - memory.range().start) as usize / 8;
            let words = memory.words()[first..last].iter();
            for (copy, word) in copy[first..last].iter_mut().zip(words) {
                *copy = word.load(Relaxed);
            }
        }
        epoch.commit()?;
        Ok(())
    };
    let stored = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            let _stop = Stop(&stored);
            let rng = &mut ChaCha8Rng::seed_from_u64(100 + number as u64);
            while !stop.load(Relaxed) {
                let word = rng.random_range(0..OWN_PAGES * WORDS);
                memory.words()[word].fetch_add(1, Relaxed);
                thread::sleep(Duration::from_micros(rng.random_range(0..200)));
            }
        });
        while !stored.load(Relaxed) {
            let result = take();
            if result.is_err() {
                stop.store(true, Relaxed);
            }
            result?;
            epochs += 1;
        }
        Ok(())
    })?;
    take()?;
    for (word, copy) in copy.iter().enumerate() {
        let found = memory.words()[word].load(Relaxed);
        ensure!(
            *copy == found,
            "{mode:?}: word {word} is {found}, and {copy} in the copy"
        );
    }
    Ok(epochs)
}

/// Does to this process what takes nothing of what it stored.
fn disturb(file: &Memory, memory: &Memory, number: usize, stop: &AtomicBool) -> Result<u64> {
    let _stop = Stop(stop);
    let rng = &mut ChaCha8Rng::seed_from_u64(200 + number as u64);
    let device = Device::open()?;
    let own = pidfd_open(std::process::id())?;
    device.notifier_subscribe(own.as_fd(), 4096)?;
    let mut events = vec![mmops_notifier_event::default(); 4096];
    let mut disturbed = 0;
    while !stop.load(Relaxed) {
        let of = if rng.random() { file } else { memory };
        let pages = of.len() / PAGE;
        let first = rng.random_range(0..pages);
        let last = rng.random_range(first..pages) + 1;
        let start = of.range().start;
        let range = start + (first * PAGE) as u64..start + (last * PAGE) as u64;
        match rng.random_range(0..8) {
            // Private memory has nothing else that has its contents.
            0 => drop(device.zap_memory(file)?),
            1 => drop(device.age(None, range)?),
            2 => drop(device.protect(None, range, Prot::READ)?),
            3 => drop(device.protect(None, range, Prot::empty())?),
            4 => drop(device.clear_soft_dirty(None, Some(range))?),
            5 => drop(device.revoke(None, range)?),
            6 => drop(device.leaves(None, range)?),
            _ => drop(device.notifier_log(&mut events)?),
        }
        disturbed += 1;
        thread::sleep(Duration::from_millis(rng.random_range(0..5)));
    }
    Ok(disturbed)
}

/// One process.
fn process(options: &Options, number: usize) -> Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&options.file)?;
    let file = Memory::shared(&file, FILE_PAGES * PAGE)?;
    let memory = Memory::anonymous(OWN_PAGES * PAGE)?;
    let stop = AtomicBool::new(false);
    let counts = thread::scope(|scope| -> Result<_> {
        let stores = scope.spawn(|| store(&file, number, &stop));
        let epochs = scope.spawn(|| track(&memory, number, &stop));
        let disturbed = scope.spawn(|| disturb(&file, &memory, number, &stop));
        let end = Instant::now() + Duration::from_secs(options.seconds);
        while Instant::now() < end && !stop.load(Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Relaxed);
        let join = |result: thread::Result<Result<u64>>| result.expect("no thread panics");
        Ok([
            join(stores.join())?,
            join(epochs.join())?,
            join(disturbed.join())?,
        ])
    });
    let [stores, epochs, disturbed] = counts.with_context(|| format!("process {number}"))?;
    println!("process {number}: {stores} stores, {epochs} epochs, {disturbed} calls");
    // What it maps stays until all have looked.
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Where a process has mapped the file, when it has.
fn mapping(pid: u32, file: &Path) -> Result<Range<u64>> {
    let name = file.to_str().context("the name of the file")?;
    for _ in 0..1000 {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let line = maps.lines().find(|line| line.ends_with(name));
        let range = line.and_then(|line| {
            let (start, end) = line.split_whitespace().next()?.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            Some(number(start)?..number(end)?)
        });
        match range {
            Some(range) => return Ok(range),
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
    bail!("process {pid} has not mapped the file");
}

/// Takes dirty bits and write permissions of a part of the file, in all processes.
fn harvest(device: &Device, path: &Path, first: usize, nr: usize) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bitmap = Bitmap::new(first as u64, nr as u64);
    let flags = [Flags::empty(), Flags::SPLIT][first % 2];
    device.clean_record(&file, first as u64, nr as u64, &mut bitmap, flags)?;
    device.write_protect(&file, first as u64, nr as u64, flags)?;
    Ok(())
}

/// All of them, and what is done to them from outside.
fn all(options: &Options) -> Result<()> {
    let options_of_file = {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options
    };
    let file = options_of_file
        .open(&options.file)
        .context("cannot make the file")?;
    file.set_len((FILE_PAGES * PAGE) as u64)?;
    let mut children = Vec::new();
    for number in 0..options.processes {
        let child = Command::new(std::env::current_exe()?)
            .arg(&options.file)
            .args(["--seconds", &options.seconds.to_string()])
            .args(["--process", &number.to_string()])
            .stdin(Stdio::piped())
            .spawn()?;
        children.push(child);
    }
    let device = Device::open()?;
    let mut others = Vec::new();
    for child in &children {
        let pidfd = pidfd_open(child.id())?;
        let range = mapping(child.id(), &options.file)?;
        for _ in 0..FILES {
            others.push(Tracker::new(
                Some(pidfd.as_fd()),
                range.clone(),
                Mode::Fast,
            )?);
        }
    }
    let rng = &mut ChaCha8Rng::seed_from_u64(300);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut harvests = 0;
    while Instant::now() < end {
        let first = rng.random_range(0..FILE_PAGES);
        harvest(
            &device,
            &options.file,
            first,
            rng.random_range(first..FILE_PAGES) - first + 1,
        )?;
        harvests += 1;
        let tracker = rng.random_range(0..others.len());
        drop(others[tracker].begin()?);
        if let Some(child) = children
            .iter_mut()
            .find_map(|child| child.try_wait().transpose())
        {
            bail!("a process ended: {}", child?);
        }
    }
    println!(
        "{harvests} harvests, {} trackers from outside",
        others.len()
    );
    drop(others);
    let wait = |mut child: Child| -> Result<()> {
        drop(child.stdin.take());
        let status = child.wait()?;
        ensure!(status.success(), "a process failed: {status}");
        Ok(())
    };
    let results: Vec<_> = children.into_iter().map(wait).collect();
    results.into_iter().collect()
}
