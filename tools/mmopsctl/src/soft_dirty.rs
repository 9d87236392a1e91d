// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl soft-dirty`

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context, Result};
use mmops_uapi::{pidfd_open, wait_for_end, Device};
use plotters::prelude::*;
use procfs::process::MMPermissions;
use serde::Serialize;
use serde_json::json;

use crate::cli::{SoftDirty, SoftDirtyClear, SoftDirtyRun};
use crate::hold::{Holder, Outcome};
use crate::process::Memory;
use crate::program;
use crate::sparse::read_up_to;
use crate::units;

/// Bits of an entry of `/proc/PID/pagemap`.
const SOFT_DIRTY: u64 = 1 << 55;
const SWAPPED: u64 = 1 << 62;
const PRESENT: u64 = 1 << 63;

/// Entries that are read at once.
const CHUNK: u64 = 1 << 16;
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
    println!("{} cleared", units::pages(result.cleared, page_size));
    if result.kept != 0 {
        let kept = units::pages(result.kept, page_size);
        println!("{kept} cannot be tracked");
    }
    Ok(())
}

/// A mapping that was stored to.
#[derive(Clone, Debug, Serialize, PartialEq)]
struct Touched {
    start: String,
    end: String,
    name: String,
    pages: u64,
}

/// What was seen at the end of an interval.
#[derive(Clone, Debug, Serialize, PartialEq)]
struct Interval {
    interval: u64,
    seconds: f64,
    pages: u64,
    bytes: u64,
    kept: u64,
    mappings: Vec<Touched>,
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
    ) -> Result<Outcome<Interval>> {
        let pid = self.child.id() as i32;
        let (pidfd, begin) = (self.pidfd.as_fd(), self.begin);
        self.holder.hold(|| {
            let seconds = begin.elapsed().as_secs_f64();
            let mappings = touched(pid, page_size)?;
            let cleared = device.clear_soft_dirty(Some(pidfd), None)?;
            let pages = mappings.iter().map(|mapping| mapping.pages).sum();
            Ok(Interval {
                interval,
                seconds,
                pages,
                bytes: pages * page_size,
                kept: cleared.kept,
                mappings,
            })
        })
    }
}

/// The mappings of a process with pages that were stored to.
fn touched(pid: i32, page_size: u64) -> Result<Vec<Touched>> {
    let accessible = MMPermissions::READ | MMPermissions::WRITE | MMPermissions::EXECUTE;
    // Anew each time: the process may have executed another program.
    let memory = Memory::of(pid)?;
    let pagemap = memory.pagemap()?;
    let mut mappings = Vec::new();
    let mut bytes = Vec::new();
    for map in memory.maps()? {
        // Reserved address space can be large, and nobody stores to it.
        if !map.perms.intersects(accessible) {
            continue;
        }
        let (mut page, end) = (map.address.0 / page_size, map.address.1 / page_size);
        let mut pages = 0;
        while page < end {
            let nr = CHUNK.min(end - page);
            bytes.resize(nr as usize * size_of::<u64>(), 0);
            let read = read_up_to(&pagemap, &mut bytes, page * 8)?;
            if read == 0 {
                break;
            }
            pages += count(&bytes[..read]);
            page += (read / size_of::<u64>()) as u64;
        }
        if pages != 0 {
            mappings.push(Touched {
                start: format!("{:x}", map.address.0),
                end: format!("{:x}", map.address.1),
                name: name_of(&map.pathname),
                pages,
            });
        }
    }
    Ok(mappings)
}

/// The number of entries whose page is there and was stored to.
fn count(entries: &[u8]) -> u64 {
    let touched = |entry: &[u8; 8]| {
        let entry = u64::from_ne_bytes(*entry);
        entry & SOFT_DIRTY != 0 && entry & (PRESENT | SWAPPED) != 0
    };
    let (entries, _) = entries.as_chunks();
    entries.iter().filter(|entry| touched(entry)).count() as u64
}

fn name_of(path: &procfs::process::MMapPath) -> String {
    use procfs::process::MMapPath;
    match path {
        MMapPath::Path(path) => path.display().to_string(),
        MMapPath::Heap => "[heap]".into(),
        MMapPath::Stack => "[stack]".into(),
        MMapPath::Anonymous => String::new(),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn run_program(args: &SoftDirtyRun) -> Result<()> {
    let device = Device::open()?;
    let page_size = u64::from(device.info()?.page_size);
    let mut program = Program::start(args)?;
    let mut out = io::stdout().lock();
    let mut intervals: Vec<Interval> = Vec::new();
    if !args.json && args.output.is_none() {
        writeln!(
            out,
            "{:>10}  {:>12}  {:>12}  most in",
            "seconds", "pages", "bytes"
        )?;
    }
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
        let number = intervals.len() as u64 + 1;
        let seen = match program.look(&device, number, page_size) {
            Ok(Outcome::Seen(seen)) => seen,
            Ok(Outcome::SeenInPart(seen)) => {
                eprintln!(
                    "mmopsctl: the program was let go while it was looked at: interval {number} \
                     can lack stores"
                );
                seen
            }
            // The next look has these stores.
            Ok(Outcome::Runs(why)) => {
                if said.as_ref() != Some(&why) {
                    eprintln!("mmopsctl: the interval goes on: {why}");
                    said = Some(why);
                }
                continue;
            }
            Ok(Outcome::Ended) => continue,
            // Any step may find that the program has ended.
            Err(error) => match program.wait(program::LAST_WORDS)? {
                Some(status) => break status,
                None => {
                    // No reason to leave the program alone.
                    eprintln!("mmopsctl: waiting for the end of the program: {error:#}");
                    failed = Some(error);
                    break program
                        .child
                        .wait()
                        .context("cannot wait for the program")?;
                }
            },
        };
        said = None;
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&seen)?)?;
        } else if args.output.is_none() {
            writeln!(out, "{}", row(&seen))?;
        }
        intervals.push(seen);
    };
    if let Some(error) = failed {
        return Err(error);
    }
    let pages: u64 = intervals.iter().map(|seen| seen.pages).sum();
    if args.json {
        let object = json!({
            "intervals": intervals.len(),
            "pages": pages,
            "bytes": pages * page_size,
            "status": status.code(),
        });
        writeln!(out, "{object}")?;
    } else if args.output.is_none() {
        let n = units::count(intervals.len() as u64, "interval");
        writeln!(out, "{} in {n}", units::pages(pages, page_size))?;
    }
    if let Some(path) = &args.output {
        draw(
            &intervals,
            &Path::new(&args.program[0]).display().to_string(),
            path,
        )
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("cannot draw {}", path.display()))?;
        if !args.json {
            writeln!(out, "{}", path.display())?;
        }
    }
    if !status.success() {
        bail!("{}: {status}", Path::new(&args.program[0]).display());
    }
    Ok(())
}

/// A line of the table.
fn row(seen: &Interval) -> String {
    let most = seen.mappings.iter().max_by_key(|mapping| mapping.pages);
    let most = most.map_or(String::new(), |most| {
        let name = if most.name.is_empty() {
            "anonymous"
        } else {
            &most.name
        };
        format!("{}-{} {name}", most.start, most.end)
    });
    let line = format!(
        "{:>10.2}  {:>12}  {:>12}  {most}",
        seen.seconds,
        seen.pages,
        units::bytes(seen.bytes),
    );
    line.trim_end().to_owned()
}

fn draw(
    intervals: &[Interval],
    program: &str,
    path: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    const BAR: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
    let root = SVGBackend::new(path, (1000, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    let last = intervals.last().map_or(1.0, |seen| seen.seconds);
    let most = intervals.iter().map(|seen| seen.pages).max();
    let most = most.unwrap_or(0).max(1) as f64;
    let mut chart = ChartBuilder::on(&root)
        .margin(15)
        .caption(
            format!("{program}: pages stored to in each interval"),
            ("sans-serif", 20),
        )
        .x_label_area_size(45)
        .y_label_area_size(85)
        .build_cartesian_2d(0.0..last, 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_desc("seconds")
        .y_desc("pages")
        .draw()?;
    let starts = std::iter::once(0.0).chain(intervals.iter().map(|seen| seen.seconds));
    chart.draw_series(intervals.iter().zip(starts).map(|(seen, start)| {
        Rectangle::new(
            [(start, 0.0), (seen.seconds, seen.pages as f64)],
            BAR.filled(),
        )
    }))?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(pages: u64) -> Interval {
        Interval {
            interval: 1,
            seconds: 0.5,
            pages,
            bytes: pages * 4096,
            kept: 0,
            mappings: vec![Touched {
                start: "1000".into(),
                end: "9000".into(),
                name: "[heap]".into(),
                pages,
            }],
        }
    }

    #[test]
    fn pages_that_are_not_there_do_not_count() {
        let entries = [
            SOFT_DIRTY | PRESENT,
            SOFT_DIRTY,
            PRESENT,
            SOFT_DIRTY | SWAPPED,
            0,
        ];
        let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_ne_bytes()).collect();
        assert_eq!(count(&bytes), 2);
    }

    #[test]
    fn table_and_json() {
        let row = row(&interval(3));
        assert!(row.contains("12.00 KiB") && row.ends_with("1000-9000 [heap]"));
        let json = serde_json::to_value(interval(3)).unwrap();
        assert_eq!(json["mappings"][0]["pages"], 3);
    }

    #[test]
    fn picture() {
        let path = std::env::temp_dir().join(format!("mmopsctl-{}-sd.svg", std::process::id()));
        draw(&[interval(3), interval(0)], "sleep", &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(svg.contains("sleep: pages stored to in each interval"));
    }
}
