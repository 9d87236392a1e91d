// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl notifier-trace`

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::process::Child;

use anyhow::{bail, Context, Result};
use mmops_uapi::sys::*;
use mmops_uapi::{pidfd_open, retry_on_eintr, Device};
use nix::sys::ptrace;
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::Pid;
use serde::Serialize;

use crate::cli::NotifierTrace;
use crate::output::output;
use crate::program;

/// Events that the driver keeps, and that one call reads.
const CAPACITY: u32 = MMOPS_NOTIFIER_MAX_EVENTS;
const AT_A_TIME: usize = 4096;

/// Names of the events, by their number.
const NAMES: [&str; 8] = [
    "unmap",
    "clear",
    "protection-vma",
    "protection-page",
    "soft-dirty",
    "release",
    "migrate",
    "exclusive",
];

/// A line of output.
#[derive(Serialize)]
struct Line {
    time: f64,
    event: &'static str,
    start: u64,
    end: u64,
    pages: u64,
    is_end: bool,
    blockable: bool,
}

impl Line {
    fn new(event: &mmops_notifier_event, page_size: u64) -> Self {
        Self {
            time: event.time as f64 / 1e9,
            event: NAMES.get(event.event as usize).unwrap_or(&"unknown"),
            start: event.start,
            end: event.end,
            // The end of an address space is that of all addresses.
            pages: match event.event {
                MMOPS_EVENT_RELEASE => 0,
                _ => (event.end - event.start).div_ceil(page_size),
            },
            is_end: event.flags & MMOPS_NOTIFIER_END != 0,
            blockable: event.flags & MMOPS_NOTIFIER_BLOCKABLE != 0,
        }
    }

    fn write(&self, out: &mut impl Write, json: bool) -> Result<()> {
        if json {
            serde_json::to_writer(&mut *out, self)?;
            writeln!(out)?;
        } else {
            let kind = if self.is_end { "end" } else { "" };
            let sleep = if self.blockable { "" } else { " (atomic)" };
            writeln!(
                out,
                "{:>11.6}  {:<15}  {:>#14x}  {:>#14x}  {:>9}  {kind}{sleep}",
                self.time, self.event, self.start, self.end, self.pages
            )?;
        }
        Ok(())
    }
}

pub fn run(args: &NotifierTrace) -> Result<()> {
    let device = Device::open()?;
    let page_size = u64::from(device.info()?.page_size);
    let mut out: BufWriter<Box<dyn Write>> = BufWriter::new(match &args.output {
        Some(path) => Box::new(
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
        ),
        None => Box::new(output()),
    });
    let mut child = start_stopped(args)?;
    let pid = Pid::from_raw(child.id() as i32);
    // A program that cannot be subscribed to is not left behind, stopped.
    let subscribed = pidfd_open(child.id())
        .context("cannot get a descriptor of the program")
        .and_then(|pidfd| Ok(device.notifier_subscribe(pidfd.as_fd(), CAPACITY)?));
    if let Err(error) = subscribed {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    ptrace::detach(pid, None).context("cannot let the program go on")?;

    let result = trace(args, &device, page_size, &mut out);
    // The reader of our output may be gone; the program need not know.
    let status = child.wait()?;
    let (counts, lost) = result?;
    for (name, (times, pages)) in NAMES.iter().zip(counts) {
        if times != 0 {
            note!("mmopsctl: {name}: {times} times, {pages} pages");
        }
    }
    if lost != 0 {
        note!("mmopsctl: {lost} events came faster than they were read, and are missing");
    }
    if !status.success() {
        note!("mmopsctl: the program ended with {status}");
    }
    Ok(())
}

/// Runs the program up to its first instruction.
fn start_stopped(args: &NotifierTrace) -> Result<Child> {
    let mut command = program::command(&args.program, args.json && args.output.is_none())?;
    mmops_raw::process::trace(&mut command);
    let child = program::start(command)?;
    match retry_on_eintr(|| waitpid(Pid::from_raw(child.id() as i32), None))? {
        WaitStatus::Stopped(..) => Ok(child),
        status => bail!("{} did not start: {status:?}", args.program[0].display()),
    }
}

/// How often each event came, and over how many pages.
type Counts = [(u64, u64); NAMES.len()];

fn trace(
    args: &NotifierTrace,
    device: &Device,
    page_size: u64,
    out: &mut impl Write,
) -> Result<(Counts, u64)> {
    let mut events = vec![mmops_notifier_event::default(); AT_A_TIME];
    let mut counts = Counts::default();
    let mut lost = 0;
    if !args.json {
        writeln!(
            out,
            "{:>11}  {:<15}  {:>14}  {:>14}  {:>9}",
            "SECONDS", "EVENT", "START", "END", "PAGES"
        )?;
    }
    loop {
        let heard = device.notifier_log(&mut events)?;
        for event in &events[..heard.events] {
            let line = Line::new(event, page_size);
            if !line.is_end {
                if let Some(count) = counts.get_mut(event.event as usize) {
                    count.0 += 1;
                    count.1 += line.pages;
                }
            }
            if !line.is_end || args.ends {
                line.write(out, args.json)?;
            }
        }
        out.flush()?;
        lost += heard.lost;
        if heard.released {
            return Ok((counts, lost));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> mmops_notifier_event {
        mmops_notifier_event {
            time: 1_500_000_000,
            start: 0x7000_0000,
            end: 0x7000_3000,
            event: MMOPS_EVENT_CLEAR,
            flags: MMOPS_NOTIFIER_BLOCKABLE,
        }
    }

    #[test]
    fn table() {
        let mut out = Vec::new();
        Line::new(&event(), 4096).write(&mut out, false).unwrap();
        let text = String::from_utf8(out).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(
            words,
            ["1.500000", "clear", "0x70000000", "0x70003000", "3"]
        );
    }

    #[test]
    fn json() {
        let mut out = Vec::new();
        let end = mmops_notifier_event {
            flags: MMOPS_NOTIFIER_END,
            ..event()
        };
        Line::new(&end, 4096).write(&mut out, true).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["event"], "clear");
        assert_eq!(value["pages"], 3);
        assert_eq!(value["is_end"], true);
        assert_eq!(value["blockable"], false);
    }
}
