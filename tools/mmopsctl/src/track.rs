// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl track`

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use mmops_uapi::{pidfd_open, wait_for_end, Changed, Device, Kind, Mode};
use procfs::process::MemoryMap;
use serde::Serialize;

use crate::cli::Track;
use crate::intervals::{Interval, Report, Touched};
use crate::process::{is_there, Memory, Pagemap};
use crate::program;
use crate::stop::Stop;
use crate::trackers::{is_of_kernel, is_too_large, Trackers};

/// What is told of an interval besides the pages.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq)]
struct Kinds {
    written: u64,
    /// Of those, the ones that are pinned for DMA.
    pinned: u64,
    changed: u64,
    /// Of those, the ones that were not there before.
    new: u64,
    /// Besides, those that are not there any more.
    gone: u64,
    kept: u64,
}

impl std::ops::AddAssign for Kinds {
    fn add_assign(&mut self, other: Self) {
        self.written += other.written;
        self.pinned += other.pinned;
        self.changed += other.changed;
        self.new += other.new;
        self.gone += other.gone;
        self.kept += other.kept;
    }
}

/// How a wait ended.
enum Wait {
    TimeIsOver,
    Stopped,
    Ended,
}

/// A process, and what tracks its memory.
struct Subject {
    pid: u32,
    pidfd: OwnedFd,
    /// If it is a program that was started.
    child: Option<Child>,
    /// If it is not.
    stop: Option<Stop>,
    page_size: u64,
    trackers: Trackers,
}

impl Subject {
    fn new(args: &Track) -> Result<Self> {
        let page_size = u64::from(Device::open()?.info()?.page_size);
        let (pid, child, stop) = match args.pid {
            Some(pid) => {
                let stop = Stop::install("the last interval is not told")?;
                (pid, None, Some(stop))
            }
            None => {
                let child = program::start(program::command(&args.program, args.json)?)?;
                (child.id(), Some(child), None)
            }
        };
        Ok(Self {
            pid,
            pidfd: pidfd_open(pid).with_context(|| format!("process {pid}"))?,
            child,
            stop,
            page_size,
            trackers: Trackers::new(if args.full { Mode::Full } else { Mode::Fast }),
        })
    }

    /// Sleeps for `time`, or until there is a reason not to.
    fn wait(&self, time: Duration) -> Result<Wait> {
        const STEP: Duration = Duration::from_millis(50);
        let begin = Instant::now();
        loop {
            let left = time.saturating_sub(begin.elapsed());
            let step = self.stop.as_ref().map_or(left, |_| left.min(STEP));
            if wait_for_end(self.pidfd.as_fd(), step)? {
                return Ok(Wait::Ended);
            }
            if self.stop.as_ref().is_some_and(Stop::requested) {
                return Ok(Wait::Stopped);
            }
            if left.is_zero() {
                return Ok(Wait::TimeIsOver);
            }
        }
    }

    /// The exit status, if the process has ended and is one that was started.
    fn status(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.wait().context("cannot wait for the program")?;
        Ok(Some(status))
    }

    /// The pages that changed since the last look. The process goes on meanwhile.
    fn look(&mut self) -> Result<(Kinds, Vec<Touched>)> {
        loop {
            self.track_mappings()?;
            let Some(epochs) = self.trackers.begin()? else {
                continue;
            };
            // What was mapped meanwhile may have been stored to before its epoch began.
            let memory = Memory::of(self.pid as i32)?;
            let seen = attribute(
                &mappings(&memory)?,
                &epochs.pages,
                &memory.pagemap()?,
                self.page_size,
            )?;
            epochs.commit()?;
            return Ok(seen);
        }
    }

    /// Sees to it that all mappings are tracked.
    fn track_mappings(&mut self) -> Result<()> {
        let memory = Memory::of(self.pid as i32)?;
        self.trackers
            .follow(self.pidfd.as_fd(), &mappings(&memory)?)?;
        Ok(())
    }
}

/// The mappings of a process that are its own.
fn mappings(memory: &Memory) -> Result<Vec<MemoryMap>> {
    let maps = memory.accessible_maps()?.into_iter();
    Ok(maps.filter(|map| !is_of_kernel(map)).collect())
}

/// The mappings in which pages were found. Of those that may have changed, only what is there
/// counts: others are holes, or memory that nobody has used.
fn attribute(
    maps: &[MemoryMap],
    found: &[Changed],
    pagemap: &Pagemap,
    page_size: u64,
) -> Result<(Kinds, Vec<Touched>)> {
    let (mut kinds, mut mappings) = (Kinds::default(), Vec::new());
    for map in maps {
        let (start, end) = map.address;
        if is_too_large(map) {
            kinds.kept += (end - start) / page_size;
            continue;
        }
        let first = found.partition_point(|changed| changed.range.end <= start);
        let mut of_map = Kinds::default();
        for changed in found[first..]
            .iter()
            .take_while(|changed| changed.range.start < end)
        {
            let pages =
                changed.range.start.max(start) / page_size..changed.range.end.min(end) / page_size;
            let nr = pages.end - pages.start;
            match changed.kind {
                Kind::Written => of_map.written += nr,
                Kind::Pinned => {
                    of_map.written += nr;
                    of_map.pinned += nr;
                }
                Kind::New => {
                    let there = pagemap.count(pages, is_there)?;
                    of_map.changed += there;
                    of_map.new += there;
                }
                Kind::Gone => of_map.gone += nr,
                Kind::Changed => of_map.changed += pagemap.count(pages, is_there)?,
            }
        }
        mappings.extend(Touched::new(map, of_map.written + of_map.changed));
        kinds += of_map;
    }
    Ok((kinds, mappings))
}

pub fn run(args: &Track) -> Result<()> {
    let mut subject = Subject::new(args)?;
    let begin = Instant::now();
    let mut report = Report::new(args.json, args.output.as_deref(), subject.page_size)?;
    // Of a process that runs, what it has changed before is not asked for.
    if subject.child.is_none() {
        subject.look()?;
    }
    loop {
        match subject.wait(args.interval)? {
            Wait::TimeIsOver => {}
            Wait::Stopped | Wait::Ended => break,
        }
        let seconds = begin.elapsed().as_secs_f64();
        match subject.look() {
            Ok((kinds, mappings)) => {
                let (number, page_size) = (report.next_number(), subject.page_size);
                report.add(Interval::new(number, seconds, page_size, kinds, mappings))?;
                if args.rounds == Some(number) {
                    break;
                }
            }
            // Any step may find that the process has ended.
            Err(error) => match subject.wait(program::last_words(subject.pid))? {
                Wait::Ended => break,
                _ => return Err(error),
            },
        }
    }
    let name = match args.program.first() {
        Some(program) => Path::new(program).display().to_string(),
        None => format!("process {}", subject.pid),
    };
    let status = subject.status()?;
    report.end(&name, "that changed", status)?;
    match status {
        Some(status) if !status.success() => bail!("{name}: {status}"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_attributed_to_own_mappings() {
        let memory = Memory::of(std::process::id() as i32).unwrap();
        let maps = mappings(&memory).unwrap();
        let here = pages_are_attributed_to_own_mappings as fn() as usize as u64;
        let page = here / 4096 * 4096;
        let changed = |kind| Changed {
            range: page..page + 4096,
            kind,
        };
        let pagemap = memory.pagemap().unwrap();
        for (kind, expected) in [
            (Kind::Written, [1, 0, 0, 0, 0]),
            (Kind::Pinned, [1, 1, 0, 0, 0]),
            (Kind::Changed, [0, 0, 1, 0, 0]),
            (Kind::New, [0, 0, 1, 1, 0]),
            (Kind::Gone, [0, 0, 0, 0, 1]),
        ] {
            let (kinds, mappings) = attribute(&maps, &[changed(kind)], &pagemap, 4096).unwrap();
            let Kinds {
                written,
                pinned,
                changed,
                new,
                gone,
                ..
            } = kinds;
            assert_eq!([written, pinned, changed, new, gone], expected);
            assert_eq!(mappings.len() as u64, written + changed);
        }
        // All of the address space: what is there, and no more.
        let all = [Changed {
            range: 0..1 << 47,
            kind: Kind::Changed,
        }];
        let (kinds, _) = attribute(&maps, &all, &pagemap, 4096).unwrap();
        let size: u64 = maps.iter().map(|map| map.address.1 - map.address.0).sum();
        assert!((1..size / 4096).contains(&kinds.changed));
    }
}
