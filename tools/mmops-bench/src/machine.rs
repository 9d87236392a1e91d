// SPDX-License-Identifier: GPL-2.0

//! The machine that is measured on.

use std::fs;

use anyhow::{bail, Context, Result};
use nix::sched::{sched_getcpu, sched_setaffinity, CpuSet};
use nix::unistd::Pid;

use crate::cases::Case;
use crate::region::PAGE_SIZE;

/// Memory that has to be left for the rest of the system and for page tables.
const RESERVE: u64 = 256 << 20;

/// Kernel release, and number and model of the CPUs; an emulated one says so.
pub fn describe() -> Result<String> {
    let path = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(path).context(path)?;
    let cpus = std::thread::available_parallelism().context("number of CPUs")?;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model(&cpuinfo).unwrap_or("CPUs");
    Ok(format!("Linux {}, {cpus} x {model}", release.trim()))
}

fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// Fails if a case does not fit into the memory that is available.
pub fn check_memory<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Result<()> {
    let path = "/proc/meminfo";
    let available = available(&fs::read_to_string(path).context(path)?)
        .with_context(|| format!("{path}: no MemAvailable"))?;
    for case in cases {
        let needed = case.memory_pages() * PAGE_SIZE as u64 + RESERVE;
        if needed > available {
            bail!(
                "{} needs {} MiB of free memory, and {} MiB are free: give the guest {} GiB, \
                 or choose smaller cases with --case",
                case.name,
                needed >> 20,
                available >> 20,
                (needed >> 30) + 2
            );
        }
    }
    Ok(())
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// Keeps the program on the CPU that it is on, so that no migration falls into a sample.
pub fn pin() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu().context("sched_getcpu")?)
        .context("CPU number")?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("sched_setaffinity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_in_kib() {
        let meminfo = "MemTotal:  8 kB\nMemAvailable:    4096 kB\n";
        assert_eq!(available(meminfo), Some(4 << 20));
        assert_eq!(available("MemTotal: 8 kB\n"), None);
    }

    #[test]
    fn model_of_the_first_cpu() {
        let cpuinfo = "cpu\t: 0\nmodel name\t: QEMU TCG CPU version 2.5+\nmodel name : other\n";
        assert_eq!(model(cpuinfo), Some("QEMU TCG CPU version 2.5+"));
        assert_eq!(model("processor : 0\n"), None);
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut case = crate::cases::CASES[0].clone();
        case.pages = u32::MAX;
        let error = check_memory([&case]).unwrap_err().to_string();
        assert!(error.contains("give the guest 16386 GiB"), "{error}");
    }
}
