// SPDX-License-Identifier: GPL-2.0

//! The directory that a snapshot is written to: a file for the contents of each mapping, and an
//! index, which is there only when all of the others are whole.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use crate::snapshot_index::Index;

/// Name of the index.
pub const INDEX: &str = "index.json";
/// Its name while it is written.
const INDEX_PART: &str = "index.json.part";

/// The directory. What was written to it is removed again unless it is finished.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    is_ours: bool,
    is_finished: bool,
    contents: BTreeSet<u64>,
}

impl Directory {
    /// Creates it, or takes one that is empty.
    pub fn new(path: &Path) -> Result<Self> {
        let context = || format!("cannot write to the directory {}", path.display());
        let is_ours = match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error).with_context(context),
        };
        if path.read_dir().with_context(context)?.next().is_some() {
            bail!(
                "{} is not empty: name a new directory, or an empty one",
                path.display()
            );
        }
        Ok(Self {
            path: path.to_owned(),
            is_ours,
            is_finished: false,
            contents: BTreeSet::new(),
        })
    }

    /// Name of the file with the contents of the mapping at `start`.
    pub fn name(start: u64) -> String {
        format!("{start:016x}")
    }

    fn open(&self, name: &str) -> Result<File> {
        let path = self.path.join(name);
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The file with the contents of the mapping at `start`, with a length of `size` bytes.
    pub fn contents(&mut self, start: u64, size: u64) -> Result<File> {
        let name = Self::name(start);
        let file = self.open(&name)?;
        self.contents.insert(start);
        file.set_len(size)
            .with_context(|| format!("cannot set the length of {name}"))?;
        Ok(file)
    }

    /// Removes the contents of the mappings for which `is_wanted` does not hold.
    pub fn keep(&mut self, is_wanted: impl Fn(u64) -> bool) -> Result<()> {
        let path = &self.path;
        let gone = self.contents.iter().copied();
        let gone: Vec<u64> = gone.filter(|start| !is_wanted(*start)).collect();
        for start in gone {
            let name = path.join(Self::name(start));
            std::fs::remove_file(&name)
                .with_context(|| format!("cannot remove {}", name.display()))?;
            self.contents.remove(&start);
        }
        Ok(())
    }

    /// Brings all to the disk, and the index last.
    pub fn finish(mut self, index: &Index) -> Result<()> {
        for &start in &self.contents {
            let name = Self::name(start);
            self.open(&name)?
                .sync_all()
                .with_context(|| format!("cannot write {name} to its disk"))?;
        }
        let context = || format!("cannot write the index in {}", self.path.display());
        let part = self.open(INDEX_PART)?;
        serde_json::to_writer(&part, index).with_context(context)?;
        part.sync_all().with_context(context)?;
        let directory = File::open(&self.path).with_context(context)?;
        directory.sync_all().with_context(context)?;
        std::fs::rename(self.path.join(INDEX_PART), self.path.join(INDEX)).with_context(context)?;
        self.is_finished = true;
        directory
            .sync_all()
            .with_context(|| format!("cannot write {} to its disk", self.path.display()))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        // What cannot be removed stays, without an index.
        for &start in &self.contents {
            let _ = std::fs::remove_file(self.path.join(Self::name(start)));
        }
        let _ = std::fs::remove_file(self.path.join(INDEX_PART));
        if self.is_ours {
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot_index::tests::sample;

    fn temporary(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("mmopsctl-{}-snapshot-{name}", std::process::id()))
    }

    #[test]
    fn without_an_end_nothing_is_left() {
        let path = temporary("drop");
        let mut directory = Directory::new(&path).unwrap();
        directory.contents(0x1000, 8192).unwrap();
        assert_eq!(path.read_dir().unwrap().count(), 1);
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn finished_directory() {
        let path = temporary("finish");
        let mut directory = Directory::new(&path).unwrap();
        directory.contents(0x1000, 8192).unwrap();
        directory.contents(0x8000, 4096).unwrap();
        // It has grown, and the other one went.
        directory.contents(0x1000, 12288).unwrap();
        directory.keep(|start| start == 0x1000).unwrap();
        directory.finish(&sample()).unwrap();
        let mut names: Vec<_> = path
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0000000000001000", "index.json"]);
        let contents = path.join(&names[0]).metadata().unwrap();
        assert_eq!(contents.len(), 12288);
        let text = std::fs::read_to_string(path.join("index.json")).unwrap();
        assert_eq!(serde_json::from_str::<Index>(&text).unwrap(), sample());
        // It is somebody's snapshot.
        let error = Directory::new(&path).unwrap_err().to_string();
        std::fs::remove_dir_all(&path).unwrap();
        assert!(error.contains("is not empty"), "{error}");
    }
}
