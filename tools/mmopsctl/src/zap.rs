// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl zap`

use std::ops::Range;
use std::os::fd::AsFd;
use std::process::{Child, ExitStatus};
use std::time::Instant;

use anyhow::{bail, Context, Result};
use mmops_uapi::{other_process, pidfd_open, wait_for_end, Device, Error};
use nix::errno::Errno;
use procfs::process::{MMPermissions, MemoryMap};
use serde::Serialize;

use crate::cli::Zap;
use crate::process::Memory;
use crate::program;
use crate::stop::Stop;
use crate::units;

/// What one turn took away.
#[derive(Debug, Serialize)]
struct Turn {
    /// Seconds since the begin.
    time: f64,
    ranges: usize,
    zapped_pages: u64,
    /// Seconds that the calls took.
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    pid: u32,
    page_size: u64,
    turns: Vec<Turn>,
    /// Of the program, if one was run and ended by itself.
    exit_status: Option<i32>,
}

pub fn run(args: &Zap) -> Result<()> {
    let device = Device::open()?;
    let page_size = u64::from(device.info()?.page_size);
    let stop = Stop::install("what was done is complete")?;
    let mut child = match args.program.as_slice() {
        [] => None,
        program => Some(program::start(program::command(program, args.json)?)?),
    };
    let pid = match (&child, args.pid) {
        (Some(child), _) => child.id(),
        (None, Some(pid)) => pid,
        (None, None) => bail!("name a process with --pid, or a program to run"),
    };
    let mut report = Report {
        pid,
        page_size,
        turns: Vec::new(),
        exit_status: None,
    };
    let result = turns(args, &device, &stop, child.as_mut(), &mut report);
    if let Some(child) = &mut child {
        // Whatever went wrong here is no reason to leave the program alone.
        let status = child.wait().context("cannot wait for the program")?;
        report.exit_status = status.code();
        result?;
        finish(args, &report)?;
        return check(status);
    }
    result?;
    finish(args, &report)
}

/// Takes pages away turn after turn, until a signal comes, the process has ended, or there were as
/// many turns as asked for.
fn turns(
    args: &Zap,
    device: &Device,
    stop: &Stop,
    mut child: Option<&mut Child>,
    report: &mut Report,
) -> Result<()> {
    let begin = Instant::now();
    let pidfd = pidfd_open(report.pid)
        .with_context(|| format!("cannot open the process {}", report.pid))?;
    let process = other_process(pidfd.as_fd())?;
    let rounds = args
        .rounds
        .unwrap_or(if child.is_some() { u64::MAX } else { 1 });

    for round in 0..rounds {
        if round > 0 || child.is_some() {
            match &mut child {
                Some(child) => {
                    if stop.wait_for_end(child, args.interval)? {
                        break;
                    }
                }
                None => stop.wait(args.interval),
            }
        }
        if stop.requested() {
            break;
        }
        let ranges = match ranges(args, report.pid) {
            Ok(ranges) => ranges,
            // It has ended meanwhile.
            Err(_) if round > 0 || child.is_some() => break,
            Err(error) => return Err(error),
        };
        let start = Instant::now();
        let mut turn = Turn {
            time: begin.elapsed().as_secs_f64(),
            ranges: ranges.len(),
            zapped_pages: 0,
            seconds: 0.0,
        };
        for range in ranges {
            match device.zap(&process, range) {
                Ok(done) => turn.zapped_pages += done.zapped,
                Err(error @ Error::NoMemory { .. }) => {
                    // That is so for a moment at the end of any process.
                    if !wait_for_end(pidfd.as_fd(), program::last_words(report.pid))? {
                        return Err(error.into());
                    }
                }
                Err(error) if is_gone(&error, args) => {}
                Err(error) => return Err(error.into()),
            }
        }
        turn.seconds = start.elapsed().as_secs_f64();
        if !args.json {
            say!(
                "{:8.2} s: {} in {}, {}",
                turn.time,
                units::pages(turn.zapped_pages, report.page_size),
                units::count(turn.ranges as u64, "range"),
                units::seconds(turn.seconds)
            )?;
        }
        report.turns.push(turn);
    }
    Ok(())
}

/// The process has ended, or a mapping that was found is gone, locked or no memory.
fn is_gone(error: &Error, args: &Zap) -> bool {
    match error.errno() {
        Some(Errno::ESRCH) => true,
        Some(Errno::ENOMEM | Errno::EINVAL) => args.range.is_empty(),
        _ => false,
    }
}

/// What is to be taken away: the ranges named, or all shared mappings of files.
fn ranges(args: &Zap, pid: u32) -> Result<Vec<Range<u64>>> {
    if !args.range.is_empty() {
        return Ok(args.range.clone());
    }
    let maps = Memory::of(pid as i32)
        .and_then(|memory| memory.maps())
        .with_context(|| format!("cannot read the mappings of process {pid}"))?;
    Ok(maps.into_iter().filter_map(shared).collect())
}

fn shared(map: MemoryMap) -> Option<Range<u64>> {
    let (start, end) = map.address;
    map.perms
        .contains(MMPermissions::SHARED)
        .then_some(start..end)
}

fn finish(args: &Zap, report: &Report) -> Result<()> {
    if args.json {
        say!("{}", serde_json::to_string_pretty(report)?)?;
    }
    Ok(())
}

fn check(status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("the program ended with {status}");
    }
    Ok(())
}
