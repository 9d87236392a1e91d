// SPDX-License-Identifier: GPL-2.0

//! Programs that reached something new.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use anyhow::{Context, Result};

use crate::program::Program;

/// The programs of a directory, in the order of their names.
pub fn read(directory: &Path) -> Result<Vec<Program>> {
    let what = || format!("cannot read {}", directory.display());
    let entries = fs::read_dir(directory).with_context(what)?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.with_context(what)?.path());
    }
    paths.sort();
    paths.into_iter().map(|path| read_one(&path)).collect()
}

/// The program in a file.
pub fn read_one(path: &Path) -> Result<Program> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Program::new(bytes))
}

/// Programs with the places that they reached.
#[derive(Debug, Default)]
pub struct Corpus(Vec<(Program, HashSet<u64>)>);

impl Corpus {
    /// Adds one.
    pub fn add(&mut self, program: Program, places: HashSet<u64>) {
        self.0.push((program, places));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// One of them.
    pub fn get(&self, number: usize) -> Option<&Program> {
        self.0.get(number).map(|(program, _)| program)
    }

    /// Few that reach what all do: at each time the one that adds most.
    pub fn smallest(&self) -> Vec<&Program> {
        let mut reached = HashSet::new();
        let mut chosen = Vec::new();
        loop {
            let new = |places: &HashSet<u64>| places.difference(&reached).count();
            let counts = self.0.iter().map(|(_, places)| new(places));
            // Of several, the first.
            let most = counts
                .enumerate()
                .max_by_key(|(i, count)| (*count, usize::MAX - i));
            match most {
                Some((i, 1..)) => {
                    reached.extend(&self.0[i].1);
                    chosen.push(&self.0[i].0);
                }
                _ => return chosen,
            }
        }
    }

    /// Writes these few to a directory, each in a file that is named by its contents.
    pub fn write(&self, directory: &Path) -> Result<usize> {
        fs::create_dir_all(directory)?;
        let programs = self.smallest();
        for program in &programs {
            let mut hasher = DefaultHasher::new();
            program.bytes().hash(&mut hasher);
            let path = directory.join(format!("{:016x}", hasher.finish()));
            fs::write(&path, program.bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(programs.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_adds_nothing_is_left_out() {
        let mut corpus = Corpus::default();
        let program = |byte: u8| Program::new(vec![byte; 5]);
        corpus.add(program(1), HashSet::from([1, 2]));
        corpus.add(program(2), HashSet::from([2, 3, 4]));
        corpus.add(program(3), HashSet::from([1]));
        assert_eq!(corpus.smallest(), [&program(2), &program(1)]);
    }

    /// Those of this tree are whole programs, and small together.
    #[test]
    fn own_corpus_is_small() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        let mut bytes = 0;
        for entry in fs::read_dir(&directory).unwrap() {
            let file = fs::read(entry.unwrap().path()).unwrap();
            assert_eq!(Program::new(file.clone()).bytes(), file);
            bytes += file.len();
        }
        assert!((1..1 << 17).contains(&bytes), "{bytes}");
    }
}
