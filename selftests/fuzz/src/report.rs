// SPDX-License-Identifier: GPL-2.0

//! What is left when something goes wrong: the last programs, on a disk before each is run, and
//! what the kernel says.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::OFlags;

use crate::program::{Program, MOST_BYTES};

/// How many programs are kept.
const KEPT: u64 = 32;
/// Bytes for each, with its number and its length in front.
const SLOT: usize = 16 + MOST_BYTES;

/// The last programs, in a file.
#[derive(Debug)]
pub struct Last {
    file: File,
    number: u64,
}

impl Last {
    /// Makes the file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { file, number: 0 })
    }

    /// A program is about to be run.
    pub fn add(&mut self, program: &Program) -> Result<()> {
        self.number += 1;
        let mut slot = [0; SLOT];
        let bytes = program.bytes();
        slot[..8].copy_from_slice(&self.number.to_le_bytes());
        slot[8..16].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        slot[16..16 + bytes.len()].copy_from_slice(bytes);
        let at = self.number % KEPT * SLOT as u64;
        self.file
            .write_all_at(&slot, at)
            .context("cannot write down the program")
    }

    /// What such a file has, the oldest first, with the numbers of the programs.
    pub fn read(path: &Path) -> Result<Vec<(u64, Program)>> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let word = |slot: &[u8], at: usize| {
            u64::from_le_bytes(slot[at..at + 8].try_into().expect("eight bytes"))
        };
        let mut programs: Vec<_> = bytes
            .chunks_exact(SLOT)
            .filter(|slot| word(slot, 0) != 0)
            .map(|slot| {
                let len = (word(slot, 8) as usize).min(MOST_BYTES);
                (word(slot, 0), Program::new(slot[16..16 + len].to_vec()))
            })
            .collect();
        programs.sort_by_key(|(number, _)| *number);
        Ok(programs)
    }
}

/// With which words reports begin: those of `scripts/kernel-reports` that are plain text. It looks
/// for all of them when the guest has ended.
fn words() -> Vec<&'static str> {
    let script = include_str!("../../../scripts/kernel-reports");
    let lines = script.lines().filter_map(|line| {
        let line = line
            .strip_prefix("report='")
            .or(line.strip_prefix("report+='"))?;
        line.strip_suffix('\'')
    });
    let words = lines.flat_map(|line| line.split('|'));
    let plain = |word: &&str| !word.is_empty() && !word.contains(['(', ')', '[', '*', '?', '+']);
    words.filter(plain).collect()
}

/// The kernel's log from now on.
#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    words: Vec<&'static str>,
}

impl Log {
    /// Where it cannot be read, nothing is ever reported.
    pub fn from_now_on() -> Self {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32);
        let file = options.open("/dev/kmsg").ok();
        let file = file.filter(|mut file| file.seek(SeekFrom::End(0)).is_ok());
        let words = words();
        Self { file, words }
    }

    /// A report that came since.
    pub fn report(&mut self) -> Option<String> {
        let mut record = [0; 8192];
        loop {
            match self.file.as_mut()?.read(&mut record) {
                Ok(len) => {
                    let line = String::from_utf8_lossy(&record[..len]);
                    let (_, line) = line.split_once(';').unwrap_or(("", &line));
                    if self.words.iter().any(|word| line.contains(word)) {
                        return Some(line.lines().next().unwrap_or("").to_owned());
                    }
                }
                // Records were overwritten before they were read.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn words_are_found() {
        let words = words();
        for word in ["BUG:", "WARNING: ", "KASAN:", "soft lockup"] {
            assert!(words.contains(&word), "{word}");
        }
        assert!(words.len() > 20);
    }

    #[test]
    fn last_programs_are_kept() {
        let path = std::env::temp_dir().join(format!("mmops-fuzz-{}", std::process::id()));
        let mut last = Last::create(&path).unwrap();
        let program =
            |number: u64| Program::new(vec![number as u8; 5 + 16 * (number as usize % 9)]);
        for number in 1..=100 {
            last.add(&program(number)).unwrap();
        }
        let read = Last::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let numbers: Vec<_> = read.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (69..=100).collect::<Vec<_>>());
        assert!(read.iter().all(|(number, read)| *read == program(*number)));
    }
}
