// SPDX-License-Identifier: GPL-2.0

//! Which places of the modules were reached, of those that the compiler has marked.

use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};

/// A module whose places count: its name, and how many there are, as far as that is known.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// As `/proc/modules` has it.
    pub name: String,
    /// Calls of `__sanitizer_cov_trace_pc` in it.
    pub places: Option<usize>,
    /// Of these, those that no call of a program comes to: `scripts/edges` says which.
    pub never: usize,
}

impl std::str::FromStr for Wanted {
    type Err = std::num::ParseIntError;

    /// `NAME`, `NAME=PLACES` or `NAME=PLACES,NEVER`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, places) = text.split_once('=').unzip();
        let name = name.unwrap_or(text).to_owned();
        let (places, never) = match places.and_then(|places| places.split_once(',')) {
            Some((places, never)) => (Some(places.parse()?), never.parse()?),
            None => (places.map(str::parse).transpose()?, 0),
        };
        Ok(Self {
            name,
            places,
            never,
        })
    }
}

/// Where the code of the modules is.
#[derive(Clone, Debug)]
pub struct Modules {
    /// In ascending order; with the number of the module among those wanted.
    code: Vec<(Range<u64>, Option<usize>)>,
    /// What all of those wanted are in. A kernel with `KCOV_INSTRUMENT_ALL` notes a thousand places
    /// for each that is in it.
    all: Range<u64>,
}

impl Modules {
    /// Those that are loaded.
    pub fn loaded(wanted: &[Wanted]) -> Result<Self> {
        let text = fs::read_to_string("/proc/modules").context("cannot read /proc/modules")?;
        Self::parse(&text, wanted).context("/proc/modules is not as it was")
    }

    fn parse(text: &str, wanted: &[Wanted]) -> Option<Self> {
        let mut code = Vec::new();
        for line in text.lines() {
            let fields: Vec<_> = line.split_whitespace().collect();
            let start = fields.get(5)?.strip_prefix("0x")?;
            let start = u64::from_str_radix(start, 16).ok()?;
            let size: u64 = fields[1].parse().ok()?;
            let number = wanted.iter().position(|module| module.name == fields[0]);
            // Without the right to know, all are at 0.
            if start != 0 {
                code.push((start..start + size, number));
            }
        }
        code.sort_by_key(|(code, _)| code.start);
        let wanted = || code.iter().filter(|(_, number)| number.is_some());
        let start = wanted().map(|(code, _)| code.start).min();
        let end = wanted().map(|(code, _)| code.end).max();
        let all = start.unwrap_or(0)..end.unwrap_or(0);
        Some(Self { code, all })
    }

    /// The module that an address is of. The size of a module is that of its data as well, which
    /// is elsewhere: where the next module begins, the one before has ended.
    pub fn of(&self, addr: u64) -> Option<usize> {
        if !self.all.contains(&addr) {
            return None;
        }
        let next = self.code.partition_point(|(code, _)| code.start <= addr);
        let (code, number) = &self.code[next.checked_sub(1)?];
        number.filter(|_| code.contains(&addr))
    }
}

/// Addresses that came lately: most of those that a loop comes to have been there before.
#[derive(Debug)]
pub struct Recent(Vec<u64>);

impl Recent {
    const SLOTS: usize = 1 << 12;

    /// None has come.
    pub fn new() -> Self {
        Self(vec![0; Self::SLOTS])
    }

    /// Whether this one is not known to have come since the last [`Self::forget`].
    pub fn is_new(&mut self, addr: u64) -> bool {
        let slot = &mut self.0[addr as usize % Self::SLOTS];
        std::mem::replace(slot, addr) != addr
    }

    /// As if none had come.
    pub fn forget(&mut self) {
        self.0.fill(0);
    }
}

/// Places that were reached.
#[derive(Debug, Default)]
pub struct Coverage(HashSet<u64>);

impl Coverage {
    /// Adds places; whether there was a new one.
    pub fn add(&mut self, places: impl IntoIterator<Item = u64>) -> bool {
        let before = self.0.len();
        self.0.extend(places);
        self.0.len() > before
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A line for each module, and one for all.
    pub fn table(&self, modules: &Modules, wanted: &[Wanted]) -> Vec<String> {
        let mut reached = vec![0; wanted.len()];
        for addr in &self.0 {
            if let Some(module) = modules.of(*addr) {
                reached[module] += 1;
            }
        }
        let line = |name: &str, reached: usize, places: Option<usize>, never: usize| match places {
            Some(places @ 1..) => {
                let percent = |of: usize| 100 * reached / of.max(1);
                let mut line = format!(
                    "  {name:<16} {reached:>6} of {places:>6} edges, {} %",
                    percent(places)
                );
                if never > 0 {
                    let can = places.saturating_sub(never);
                    line += &format!("; {} % of {can} that calls can reach", percent(can));
                }
                line
            }
            _ => format!("  {name:<16} {reached:>6} edges"),
        };
        let modules = wanted.iter().zip(&reached);
        let mut lines: Vec<_> = modules
            .map(|(module, reached)| line(&module.name, *reached, module.places, module.never))
            .collect();
        let all = wanted.iter().map(|module| module.places).sum();
        let never = wanted.iter().map(|module| module.never).sum();
        lines.push(line("all", reached.iter().sum(), all, never));
        lines
    }

    /// What was reached of each module, by offsets in its section `.text`, which begins at `start`.
    pub fn offsets(&self, modules: &Modules, module: usize, start: u64) -> Vec<u64> {
        let of_module = |addr: &&u64| modules.of(**addr) == Some(module);
        let places = self.0.iter().filter(of_module);
        let mut offsets: Vec<_> = places.map(|addr| addr.wrapping_sub(start)).collect();
        offsets.sort_unstable();
        offsets
    }

    /// Writes these to a directory, one a line, each module's to a file of its name.
    pub fn write(&self, directory: &Path, modules: &Modules, wanted: &[Wanted]) -> Result<()> {
        fs::create_dir_all(directory)?;
        for (number, Wanted { name, .. }) in wanted.iter().enumerate() {
            let section = format!("/sys/module/{name}/sections/.text");
            let text = fs::read_to_string(&section);
            let text = text.with_context(|| format!("cannot read {section}"))?;
            let start = u64::from_str_radix(text.trim().trim_start_matches("0x"), 16)?;
            let lines = self.offsets(modules, number, start);
            let lines: String = lines.iter().map(|place| format!("{place:#x}\n")).collect();
            fs::write(directory.join(name), lines)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_the_module_before_it() {
        let wanted: Vec<Wanted> = ["mmops=10,2", "mmops_test"]
            .map(|module| module.parse().unwrap())
            .into();
        let text = "mmops_test 8192 0 - Live 0xffffffffc0003000 (O)\n\
                    xfs 65536 0 - Live 0xffffffffc0002000\n\
                    mmops 65536 1 mmops_test, Live 0xffffffffc0000000 (O)\n";
        let modules = Modules::parse(text, &wanted).unwrap();
        assert_eq!(modules.of(0xffff_ffff_c000_1fff), Some(0));
        assert_eq!(modules.of(0xffff_ffff_c000_2000), None);
        assert_eq!(modules.of(0xffff_ffff_c000_4fff), Some(1));
        assert_eq!(modules.of(0xffff_ffff_c000_5000), None);
        assert_eq!(modules.of(0xffff_ffff_8100_0000), None);
        assert_eq!(
            Modules::parse(text, &[]).unwrap().of(0xffff_ffff_c000_0000),
            None
        );
        let mut coverage = Coverage::default();
        assert!(coverage.add([0xffff_ffff_c000_0000]));
        assert!(!coverage.add([0xffff_ffff_c000_0000]));
        let table = coverage.table(&modules, &wanted);
        assert_eq!(
            table[0],
            "  mmops                 1 of     10 edges, 10 %; 12 % of 8 that calls can reach"
        );
        assert_eq!(table[1], "  mmops_test            0 edges");
        assert_eq!(table[2], "  all                   1 edges");
        let start = 0xffff_ffff_bfff_fff0;
        assert_eq!(coverage.offsets(&modules, 0, start), [0x10]);
        assert_eq!(coverage.offsets(&modules, 1, start), [0; 0]);
    }

    #[test]
    fn an_address_is_new_once() {
        let mut recent = Recent::new();
        assert!(recent.is_new(7));
        assert!(!recent.is_new(7));
        // Two that share a slot.
        assert!(recent.is_new(7 + Recent::SLOTS as u64));
        assert!(recent.is_new(7));
        recent.forget();
        assert!(recent.is_new(7));
    }
}
