// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl leaves`

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Child;

use anyhow::{anyhow, bail, Context, Result};
use mmops_uapi::{pidfd_open, sys, Device};
use plotters::prelude::*;
use procfs::process::{MMapPath, MemoryMap};
use serde::Serialize;

use crate::cli::Leaves;
use crate::output::output;
use crate::process::Memory;
use crate::program;
use crate::stop::Stop;

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

impl From<MemoryMap> for Mapping {
    fn from(map: MemoryMap) -> Self {
        let name = match map.pathname {
            MMapPath::Path(path) => path.display().to_string(),
            MMapPath::Anonymous => String::new(),
            MMapPath::Heap => "[heap]".into(),
            MMapPath::Stack => "[stack]".into(),
            MMapPath::Vdso => "[vdso]".into(),
            MMapPath::Vvar => "[vvar]".into(),
            MMapPath::Other(name) => name,
            other => format!("{other:?}"),
        };
        Self {
            start: map.address.0,
            end: map.address.1,
            protection: map.perms.as_str(),
            name,
            ..Default::default()
        }
    }
}

/// The mappings of a process that are its own; `[vsyscall]` is the kernel's.
fn mappings_of(pid: u32) -> Result<Vec<Mapping>> {
    let maps = Memory::of(pid as i32)
        .and_then(|memory| memory.maps())
        .with_context(|| format!("cannot read the mappings of process {pid}"))?;
    let user = |map: &MemoryMap| map.address.1 < 1 << 63;
    Ok(maps.into_iter().filter(user).map(Mapping::from).collect())
}

fn look(device: &Device, pid: u32, pidfd: &OwnedFd) -> Result<Vec<Mapping>> {
    let mut mappings = mappings_of(pid)?;
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
    let pid = match (args.pid, args.command.first()) {
        (Some(pid), _) => pid,
        (None, Some(name)) => {
            // The program is not left behind, also if the signal came to us alone.
            let stop = Stop::install("the program was not looked at")?;
            let child = program::start(program::command(&args.command, args.json)?)?;
            let child = program.insert(Program(child));
            let ended = stop.wait_for_end(&mut child.0, args.after)?;
            if stop.requested() {
                bail!("interrupted before {name} was looked at");
            }
            if ended {
                let status = child.0.wait()?;
                bail!("{name} has ended before it was looked at ({status}): see --after");
            }
            child.0.id()
        }
        (None, None) => bail!("which process?"),
    };
    let pidfd = pidfd_open(pid).with_context(|| format!("process {pid}"))?;
    let mappings = look(&device, pid, &pidfd)?;
    drop(program);

    let mut out = output();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&mappings)?)?;
    } else {
        writeln!(
            out,
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
        )?;
        for mapping in &mappings {
            writeln!(out, "{}", mapping.line())?;
        }
    }
    if let Some(path) = &args.output {
        draw(&mappings, path)
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("cannot draw {}", path.display()))?;
        note!("{}", path.display());
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

#[cfg(test)]
mod tests {
    use procfs::process::MemoryMaps;
    use procfs::FromRead;

    use super::*;

    #[test]
    fn mappings_are_read() {
        let text = [
            "7f0000000000-7f0000200000 rw-s 00000000 00:01 5  /memfd:a b (deleted)\n",
            "7ffc00000000-7ffc00001000 r-xp 00000000 00:00 0  [vdso]\n",
        ]
        .concat();
        let maps = MemoryMaps::from_read(text.as_bytes()).unwrap();
        let mappings: Vec<_> = maps.into_iter().map(Mapping::from).collect();
        assert_eq!(mappings[0].start, 0x7f00_0000_0000);
        assert_eq!(mappings[0].end, 0x7f00_0020_0000);
        assert_eq!(mappings[0].protection, "rw-s");
        assert_eq!(mappings[0].name, "/memfd:a b (deleted)");
        assert_eq!(mappings[1].name, "[vdso]");
        assert!(mappings[1].is_empty());
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
}
