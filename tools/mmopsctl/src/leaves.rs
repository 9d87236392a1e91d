// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl leaves` and `mmopsctl protect`

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;

use anyhow::{anyhow, bail, Context, Result};
use mmops_uapi::{pidfd_open, sys, Device, Prot};
use plotters::prelude::*;
use serde::Serialize;

use crate::cli::{Leaves, Protect};
use crate::units;

/// Leaves of one size in one mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Count {
    leaves: u64,
    writable: u64,
    dirty: u64,
    young: u64,
    soft_dirty: u64,
    userfaultfd: u64,
    special: u64,
}

impl Count {
    fn add(&mut self, state: u32) {
        let has = |bit| u64::from(state & bit != 0);
        self.leaves += 1;
        self.writable += has(sys::MMOPS_LEAF_WRITE);
        self.dirty += has(sys::MMOPS_LEAF_DIRTY);
        self.young += has(sys::MMOPS_LEAF_YOUNG);
        self.soft_dirty += has(sys::MMOPS_LEAF_SOFT_DIRTY);
        self.userfaultfd += has(sys::MMOPS_LEAF_UFFD);
        self.special += has(sys::MMOPS_LEAF_SPECIAL);
    }
}

/// What maps one mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Mapping {
    start: u64,
    end: u64,
    protection: String,
    name: String,
    pte: Count,
    pmd: Count,
    pud: Count,
    /// Entries that are not present: swap, migration, memory of a device, markers.
    absent: u64,
}

/// The sizes, the largest first.
const SIZES: [(&str, u64); 3] = [("1G", 1 << 30), ("2M", 1 << 21), ("4K", 1 << 12)];

impl Mapping {
    fn counts(&self) -> [&Count; 3] {
        [&self.pud, &self.pmd, &self.pte]
    }

    fn add(&mut self, leaf: &sys::mmops_leaf) {
        if leaf.kind != sys::MMOPS_LEAF_PRESENT {
            self.absent += 1;
            return;
        }
        match leaf.shift {
            30 => self.pud.add(leaf.state),
            21 => self.pmd.add(leaf.state),
            _ => self.pte.add(leaf.state),
        }
    }

    fn is_empty(&self) -> bool {
        self.counts().iter().all(|count| count.leaves == 0) && self.absent == 0
    }

    fn line(&self) -> String {
        let sizes = self.counts().into_iter().zip(SIZES);
        let leaves: String = sizes
            .map(|(count, _)| format!("{:>9}", count.leaves))
            .collect();
        let sum = |value: fn(&Count) -> u64| self.counts().into_iter().map(value).sum::<u64>();
        format!(
            "{:>12x}-{:<12x} {} {leaves}{:>9}{:>9}{:>9}{:>9}{:>9}  {}",
            self.start,
            self.end,
            self.protection,
            sum(|c| c.writable),
            sum(|c| c.dirty),
            sum(|c| c.young),
            sum(|c| c.soft_dirty),
            self.absent,
            self.name
        )
    }
}

/// The mappings in the text of `/proc/PID/maps`.
fn parse_maps(maps: &str) -> Vec<Mapping> {
    let parse = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        Some(Mapping {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            protection: fields.next()?.to_owned(),
            name: fields.skip(3).collect::<Vec<_>>().join(" "),
            ..Default::default()
        })
    };
    let user = |mapping: &Mapping| mapping.end < 1 << 63;
    maps.lines().filter_map(parse).filter(user).collect()
}

fn look(device: &Device, pid: u32, pidfd: &OwnedFd) -> Result<Vec<Mapping>> {
    let path = format!("/proc/{pid}/maps");
    let maps = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let mut mappings = parse_maps(&maps);
    for mapping in &mut mappings {
        for leaf in device.leaves(Some(pidfd.as_fd()), mapping.start..mapping.end)? {
            mapping.add(&leaf);
        }
    }
    mappings.retain(|mapping| !mapping.is_empty());
    Ok(mappings)
}

/// A program that runs until we have looked.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn run(args: &Leaves) -> Result<()> {
    let device = Device::open()?;
    let mut program = None;
    let pid = match (args.pid, args.command.split_first()) {
        (Some(pid), _) => pid,
        (None, Some((name, arguments))) => {
            let child = Command::new(name)
                .args(arguments)
                .spawn()
                .with_context(|| format!("cannot start {name}"))?;
            let child = program.insert(Program(child));
            thread::sleep(args.after);
            if let Some(status) = child.0.try_wait()? {
                bail!("{name} has ended before it was looked at ({status}): see --after");
            }
            child.0.id()
        }
        (None, None) => bail!("which process?"),
    };
    let pidfd = pidfd_open(pid).with_context(|| format!("process {pid}"))?;
    let mappings = look(&device, pid, &pidfd)?;
    drop(program);

    if args.json {
        println!("{}", serde_json::to_string_pretty(&mappings)?);
    } else {
        println!(
            "{:^25} prot {:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}  name",
            "addresses",
            SIZES[0].0,
            SIZES[1].0,
            SIZES[2].0,
            "writable",
            "dirty",
            "young",
            "softdirt",
            "absent"
        );
        for mapping in &mappings {
            println!("{}", mapping.line());
        }
    }
    if let Some(path) = &args.output {
        draw(&mappings, path)
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("cannot draw {}", path.display()))?;
        eprintln!("{}", path.display());
    }
    Ok(())
}

/// One bar for each mapping: how many bytes its leaves of each size map, on a scale of powers.
fn draw(mappings: &[Mapping], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    const LEFT: i32 = 330;
    const WIDTH: i32 = 1000;
    const ROW: i32 = 20;
    const TOP: i32 = 50;
    let colors = [
        RGBColor(0xd6, 0x27, 0x28),
        RGBColor(0xff, 0x7f, 0x0e),
        RGBColor(0x1f, 0x77, 0xb4),
    ];
    let height = TOP + ROW * mappings.len() as i32 + 10;
    let root = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    for (i, ((name, _), color)) in SIZES.iter().zip(colors).enumerate() {
        let x = LEFT + 150 * i as i32;
        root.draw(&Rectangle::new([(x, 14), (x + 14, 28)], color.filled()))?;
        let text = format!("leaves of {name}");
        root.draw(&Text::new(text, (x + 20, 14), ("sans-serif", 14)))?;
    }
    let text = "pale: not writable";
    root.draw(&Text::new(text, (LEFT + 450, 14), ("sans-serif", 14)))?;
    // 4 KiB are one unit, each doubling one more.
    let units = |bytes: u64| (bytes as f64 / 2048.0).log2().max(0.0);
    let widest = mappings
        .iter()
        .map(|m| units(m.end - m.start))
        .fold(1.0, f64::max);
    for (row, mapping) in mappings.iter().enumerate() {
        let y = TOP + ROW * row as i32;
        let name = mapping.name.rsplit('/').next().unwrap_or_default();
        let label = format!("{:x} {} {name}", mapping.start, mapping.protection);
        root.draw(&Text::new(label, (8, y), ("monospace", 12)))?;
        let mut bytes = 0;
        for ((count, (_, size)), color) in mapping.counts().into_iter().zip(SIZES).zip(colors) {
            let parts = [
                (count.writable, color.mix(1.0)),
                (count.leaves - count.writable, color.mix(0.4)),
            ];
            for (leaves, color) in parts {
                let scale = f64::from(WIDTH - LEFT - 20) / widest;
                let from = LEFT + (units(bytes) * scale) as i32;
                bytes += leaves * size;
                let to = LEFT + (units(bytes) * scale) as i32;
                if leaves > 0 {
                    let bar = [(from, y + 2), (to.max(from + 1), y + ROW - 4)];
                    root.draw(&Rectangle::new(bar, color.filled()))?;
                }
            }
        }
    }
    root.present()?;
    Ok(())
}

/// `start-end` or `start+length`, in hexadecimal as in `/proc/PID/maps`.
pub fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let hex = |s: &str| {
        u64::from_str_radix(s.trim_start_matches("0x"), 16).map_err(|e| format!("{s}: {e}"))
    };
    if let Some((start, end)) = text.split_once('-') {
        return Ok((hex(start)?, hex(end)?));
    }
    let (start, len) = text
        .split_once('+')
        .ok_or("neither START-END nor START+LENGTH")?;
    let start = hex(start)?;
    let end = start.checked_add(hex(len)?).ok_or("the range wraps")?;
    Ok((start, end))
}

/// `r`, `w` and `x`, or `none`.
pub fn parse_access(text: &str) -> Result<u32, String> {
    if text == "none" {
        return Ok(0);
    }
    let bit = |c| match c {
        'r' => Ok(Prot::READ.bits()),
        'w' => Ok(Prot::WRITE.bits()),
        'x' => Ok(Prot::EXEC.bits()),
        other => Err(format!("{other} is none of r, w and x")),
    };
    text.chars().try_fold(0, |access, c| Ok(access | bit(c)?))
}

pub fn protect(args: &Protect) -> Result<()> {
    let device = Device::open()?;
    let pidfd = pidfd_open(args.pid).with_context(|| format!("process {}", args.pid))?;
    let (start, end) = args.range;
    let prot = Prot::from_bits_truncate(args.access);
    let done = device.protect(Some(pidfd.as_fd()), start..end, prot)?;
    println!(
        "changed {} of 4K, {} of 2M, {} of 1G; split {} of 2M, {} of 1G",
        units::count(done.ptes, "leaf").replace("leafs", "leaves"),
        done.pmds,
        done.puds,
        done.split_pmds,
        done.split_puds
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read() {
        let maps = "7f0000000000-7f0000200000 rw-s 00000000 00:01 5  /memfd:a b (deleted)\n\
                    ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n";
        let mappings = parse_maps(maps);
        assert_eq!(mappings.len(), 1);
        assert_eq!(mappings[0].start, 0x7f00_0000_0000);
        assert_eq!(mappings[0].name, "/memfd:a b (deleted)");
        assert!(mappings[0].is_empty());
    }

    #[test]
    fn leaves_are_counted_by_size() {
        let mut mapping = Mapping::default();
        for (shift, kind) in [(12, 0), (21, 0), (30, 0), (12, sys::MMOPS_LEAF_SWAP)] {
            mapping.add(&sys::mmops_leaf {
                shift,
                kind,
                state: sys::MMOPS_LEAF_READ | sys::MMOPS_LEAF_DIRTY,
                ..Default::default()
            });
        }
        assert_eq!(mapping.counts().map(|count| count.leaves), [1, 1, 1]);
        assert_eq!(mapping.counts().map(|count| count.dirty), [1, 1, 1]);
        assert_eq!(mapping.pte.writable, 0);
        assert_eq!(mapping.absent, 1);
    }

    #[test]
    fn ranges_and_accesses() {
        assert_eq!(parse_range("0x1000-3000"), Ok((0x1000, 0x3000)));
        assert_eq!(parse_range("1000+2000"), Ok((0x1000, 0x3000)));
        assert!(parse_range("1000").is_err());
        assert_eq!(parse_access("rw"), Ok(3));
        assert_eq!(parse_access("none"), Ok(0));
        assert!(parse_access("q").is_err());
    }
}
