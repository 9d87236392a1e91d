// SPDX-License-Identifier: GPL-2.0

//! The load: puts and deletes, most of them on a part of the keys that moves slowly, as databases
//! see it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use fastrand::Rng;
use serde::Serialize;

use crate::database::Database;
use crate::model::{hash, Content};

/// Bytes in a value.
const VALUE: std::ops::RangeInclusive<usize> = 100..=500;
/// Of this many operations, one is a delete.
const DELETE_EVERY: u32 = 4;
/// Of this many operations, all but one are on hot keys.
const COLD_EVERY: u32 = 10;
/// One of this many keys is hot at a time.
const HOT_SHARE: u32 = 50;
/// Entries that are filled in one transaction.
const FILL_BATCH: u32 = 10_000;

/// How the load is made.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Number of different keys.
    pub keys: u32,
    /// Operations in a transaction.
    pub batch: u64,
    /// Operations per second, at most.
    pub rate: Option<u64>,
}

/// What was done, and what the database must hold now.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Summary {
    #[serde(flatten)]
    pub content: Content,
    pub puts: u64,
    pub deletes: u64,
    pub transactions: u64,
    pub seconds: f64,
}

/// Load on a database, and a record of what it must hold.
pub struct Load<'a> {
    database: &'a Database,
    shape: Shape,
    random: Rng,
    /// Hash of each key's entry; none where there is no entry.
    hashes: Vec<Option<u64>>,
    summary: Summary,
    value: Vec<u8>,
}

impl<'a> Load<'a> {
    /// `database` is empty.
    pub fn new(database: &'a Database, shape: Shape, seed: u64) -> Self {
        Self {
            database,
            shape,
            random: Rng::with_seed(seed),
            hashes: vec![None; shape.keys as usize],
            summary: Summary {
                content: Content::default(),
                puts: 0,
                deletes: 0,
                transactions: 0,
                seconds: 0.0,
            },
            value: Vec::new(),
        }
    }

    /// What was done by [`Load::run`], and what the database must hold now.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// Puts the first `entries` keys in order.
    pub fn fill(&mut self, entries: u32) -> Result<()> {
        ensure!(
            entries <= self.shape.keys,
            "there are fewer keys than entries to fill"
        );
        let database = self.database;
        let mut first = 0;
        while first < entries {
            let end = entries.min(first + FILL_BATCH);
            database.change(|changes| {
                (first..end).try_for_each(|key| {
                    let name = self.new_value(key);
                    changes.put(&name, &self.value)
                })
            })?;
            first = end;
        }
        Ok(())
    }

    /// Makes `operations` puts and deletes.
    pub fn run(&mut self, operations: u64) -> Result<()> {
        ensure!(
            self.shape.keys >= HOT_SHARE,
            "at least {HOT_SHARE} keys are needed"
        );
        let database = self.database;
        let begin = Instant::now();
        let mut done = 0;
        while done < operations {
            if let Some(rate) = self.shape.rate {
                let due = Duration::from_secs_f64(done as f64 / rate as f64);
                thread::sleep(due.saturating_sub(begin.elapsed()));
            }
            let batch = self.shape.batch.clamp(1, operations - done);
            database.change(|changes| {
                for operation in done..done + batch {
                    let key = self.next_key(operation as f64 / operations as f64);
                    let old = self.hashes[key as usize];
                    if let (Some(old), 0) = (old, self.random.u32(..DELETE_EVERY)) {
                        changes.delete(&name(key))?;
                        self.hashes[key as usize] = None;
                        self.summary.content.remove_hash(old);
                        self.summary.deletes += 1;
                    } else {
                        let name = self.new_value(key);
                        changes.put(&name, &self.value)?;
                        self.summary.puts += 1;
                    }
                }
                Ok(())
            })?;
            self.summary.transactions += 1;
            done += batch;
        }
        self.summary.seconds = begin.elapsed().as_secs_f64();
        Ok(())
    }

    /// A key: mostly one of the hot ones, which move through all keys while `progress` goes from
    /// 0 to 1.
    fn next_key(&mut self, progress: f64) -> u32 {
        let keys = self.shape.keys;
        if self.random.u32(..COLD_EVERY) == 0 {
            return self.random.u32(..keys);
        }
        let first = (progress * f64::from(keys)) as u32;
        (first + self.random.u32(..keys / HOT_SHARE)) % keys
    }

    /// Makes a value for `key`, takes down that it is the one now, and returns the key's name.
    fn new_value(&mut self, key: u32) -> String {
        let name = name(key);
        self.value.resize(self.random.usize(VALUE), 0);
        self.random.fill(&mut self.value);
        let hash = hash(name.as_bytes(), &self.value);
        if let Some(old) = self.hashes[key as usize].replace(hash) {
            self.summary.content.remove_hash(old);
        }
        self.summary.content.add_hash(hash);
        name
    }
}

/// The name of key number `key`.
fn name(key: u32) -> String {
    format!("key:{key:08}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Mode;
    use std::path::PathBuf;

    struct Files(PathBuf);

    impl Files {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("lmdb-writer-{}-{name}", std::process::id())))
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
            let mut lock = self.0.clone().into_os_string();
            lock.push("-lock");
            let _ = std::fs::remove_file(lock);
        }
    }

    #[test]
    fn database_holds_what_was_put() {
        let files = Files::new("load.mdb");
        let database = Database::create(&files.0, 16 << 20, Mode::WriteMap).unwrap();
        let mut load = Load::new(
            &database,
            Shape {
                keys: 5000,
                batch: 100,
                rate: None,
            },
            7,
        );
        load.fill(1000).unwrap();
        assert_eq!(load.summary().content.entries, 1000);
        assert_eq!(database.content().unwrap(), load.summary().content);
        load.run(10_050).unwrap();
        let summary = load.summary();
        assert_eq!(database.content().unwrap(), summary.content);
        assert_eq!(summary.puts + summary.deletes, 10_050);
        assert!(
            summary.deletes > 1000 && summary.transactions == 101,
            "{summary:?}"
        );

        // A copy of the file is a database with the same content.
        let copy = Files::new("copy.mdb");
        std::fs::copy(&files.0, &copy.0).unwrap();
        assert_eq!(
            Database::open(&copy.0).unwrap().content().unwrap(),
            summary.content
        );
    }
}
