// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl soft-dirty`

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use mmops_uapi::{pidfd_open, wait_for_end, Device};
use serde::Serialize;

use crate::cli::{SoftDirty, SoftDirtyClear, SoftDirtyRun};
use crate::hold::{Holder, Outcome};
use crate::intervals::{Interval, Report, Touched};
use crate::process::{is_there, Memory, SOFT_DIRTY};
use crate::program;
use crate::units;

/// Time that a program is left alone after it could not be held: much more than the attempt takes.
const REST: Duration = Duration::from_secs(3);

pub fn run(args: &SoftDirty) -> Result<()> {
    match args {
        SoftDirty::Run(args) => run_program(args),
        SoftDirty::Clear(args) => clear(args),
    }
}

fn clear(args: &SoftDirtyClear) -> Result<()> {
    let device = Device::open()?;
    let page_size = u64::from(device.info()?.page_size);
    let pidfd = pidfd_open(args.pid).with_context(|| format!("process {}", args.pid))?;
    let result = device.clear_soft_dirty(
        Some(pidfd.as_fd()),
        args.range.map(|(start, end)| start..end),
    )?;
    say!("{} cleared", units::pages(result.cleared, page_size))?;
    if result.kept != 0 {
        let kept = units::pages(result.kept, page_size);
        say!("{kept} cannot be tracked")?;
    }
    Ok(())
}

/// What is told of an interval besides the pages.
#[derive(Clone, Debug, Serialize, PartialEq)]
struct Kept {
    kept: u64,
}

/// A program that was started, and the means to look at it.
struct Program {
    child: Child,
    pidfd: OwnedFd,
    holder: Holder,
    begin: Instant,
}

impl Program {
    fn start(args: &SoftDirtyRun) -> Result<Self> {
        let child = program::start(program::command(&args.program, args.json)?)?;
        Ok(Self {
            pidfd: pidfd_open(child.id()).context("pidfd_open")?,
            holder: Holder::new(child.id() as i32),
            child,
            begin: Instant::now(),
        })
    }

    /// Sleeps for `time`. The exit status, if the program ends meanwhile.
    fn wait(&mut self, time: Duration) -> Result<Option<ExitStatus>> {
        // Not by waitpid(2), which would tell of threads that are held, too.
        if !wait_for_end(self.pidfd.as_fd(), time)? {
            return Ok(None);
        }
        let status = self.child.wait().context("cannot wait for the program")?;
        Ok(Some(status))
    }

    /// Reads and clears the bits; the program does nothing meanwhile.
    fn look(
        &mut self,
        device: &Device,
        interval: u64,
        page_size: u64,
    ) -> Result<Outcome<Interval<Kept>>> {
        let pid = self.child.id() as i32;
        let (pidfd, begin) = (self.pidfd.as_fd(), self.begin);
        self.holder.hold(|| {
            let seconds = begin.elapsed().as_secs_f64();
            let mappings = touched(pid, page_size)?;
            let cleared = device.clear_soft_dirty(Some(pidfd), None)?;
            let kept = Kept { kept: cleared.kept };
            Ok(Interval::new(interval, seconds, page_size, kept, mappings))
        })
    }
}

/// The mappings of a process with pages that were stored to.
fn touched(pid: i32, page_size: u64) -> Result<Vec<Touched>> {
    // Anew each time: the process may have executed another program.
    let memory = Memory::of(pid)?;
    let pagemap = memory.pagemap()?;
    let mut mappings = Vec::new();
    for map in memory.accessible_maps()? {
        let pages = map.address.0 / page_size..map.address.1 / page_size;
        let pages = pagemap.count(pages, |entry| entry & SOFT_DIRTY != 0 && is_there(entry))?;
        mappings.extend(Touched::new(&map, pages));
    }
    Ok(mappings)
}

fn run_program(args: &SoftDirtyRun) -> Result<()> {
    let device = Device::open()?;
    let page_size = u64::from(device.info()?.page_size);
    let mut program = Program::start(args)?;
    let name = Path::new(&args.program[0]).display().to_string();
    let mut report = Report::new(args.json, args.output.as_deref(), page_size)?;
    // Why the program could not be held the last time.
    let mut said = None;
    let mut failed = None;
    let status = loop {
        let time = match said {
            None => args.interval,
            Some(_) => args.interval.max(REST),
        };
        if let Some(status) = program.wait(time)? {
            break status;
        }
        let number = report.next_number();
        let seen = match program.look(&device, number, page_size) {
            // What a killed program has left is what there is.
            Ok(Outcome::Seen(seen) | Outcome::Killed(seen)) => seen,
            Ok(Outcome::SeenInPart(seen)) => {
                note!(
                    "mmopsctl: the program was let go while it was looked at: interval {number} \
                     can lack stores"
                );
                seen
            }
            // The next look has these stores.
            Ok(Outcome::Runs(why)) => {
                if said.as_ref() != Some(&why) {
                    note!("mmopsctl: the interval goes on: {why}");
                    said = Some(why);
                }
                continue;
            }
            Ok(Outcome::Ended) => continue,
            // Any step may find that the program has ended.
            Err(error) => match program.wait(program::last_words(program.child.id()))? {
                Some(status) => break status,
                None => {
                    // No reason to leave the program alone.
                    note!("mmopsctl: waiting for the end of the program: {error:#}");
                    failed = Some(error);
                    break program
                        .child
                        .wait()
                        .context("cannot wait for the program")?;
                }
            },
        };
        said = None;
        report.add(seen)?;
    };
    if let Some(error) = failed {
        return Err(error);
    }
    report.end(&name, "stored to", Some(status))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}
