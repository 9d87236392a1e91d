// SPDX-License-Identifier: GPL-2.0

//! A snapshot that is opened again: its directory has what the index says, and nothing else.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use nix::fcntl::OFlag;

use crate::snapshot_digest::Digest;
use crate::snapshot_dir::INDEX;
use crate::snapshot_index::Index;
use crate::snapshot_mappings::{mappings_of, Mapping};
use crate::snapshot_plan::clip;
use crate::sparse::pages_with_data;

/// A snapshot. What its files contain is known only when it was read.
#[derive(Debug)]
pub struct Saved {
    dir: PathBuf,
    pub pid: u32,
    pub page_size: u64,
    pub mappings: Vec<Mapping>,
    /// Mappings that were not copied.
    pub left_out: usize,
}

impl Saved {
    /// That in a directory.
    pub fn open(dir: &Path) -> Result<Self> {
        let names = names_in(dir)?;
        let path = dir.join(INDEX);
        ensure!(
            names.contains(INDEX.as_ref() as &std::ffi::OsStr),
            "{} is no snapshot: it has no {INDEX}",
            dir.display()
        );
        let context = || format!("{} is no index of a snapshot", path.display());
        let mut text = Vec::new();
        open_file(&path)?
            .read_to_end(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let index = Index::read(&text).with_context(context)?;
        let saved = Self {
            dir: dir.to_owned(),
            pid: index.pid,
            page_size: index.page_size,
            mappings: mappings_of(&index).with_context(context)?,
            left_out: index.left_out.len(),
        };
        saved.check_names(names)?;
        for mapping in &saved.mappings {
            saved.contents(mapping)?;
        }
        Ok(saved)
    }

    /// Fails if there are files that the index does not name.
    fn check_names(&self, mut names: HashSet<OsString>) -> Result<()> {
        names.remove(INDEX.as_ref() as &std::ffi::OsStr);
        for mapping in &self.mappings {
            names.remove(mapping.name().as_ref() as &std::ffi::OsStr);
        }
        // The same one each time.
        if let Some(name) = names.iter().min() {
            let path = self.dir.join(name);
            bail!("{} is no part of the snapshot", path.display());
        }
        Ok(())
    }

    fn path(&self, mapping: &Mapping) -> PathBuf {
        self.dir.join(mapping.name())
    }

    /// The file with the contents of a mapping, which has its length.
    fn contents(&self, mapping: &Mapping) -> Result<File> {
        let path = self.path(mapping);
        let file = open_file(&path)?;
        let metadata = file.metadata();
        let len = metadata
            .with_context(|| format!("cannot read {}", path.display()))?
            .len();
        ensure!(
            len == mapping.size(),
            "{} has {len} bytes instead of {}",
            path.display(),
            mapping.size()
        );
        Ok(file)
    }

    /// Reads the contents of a mapping, and fails if they are not those that were copied. Calls
    /// `see` with all pages that are not of zeros, some at a time, with their offset in the
    /// mapping; returns how many these were.
    pub fn read(
        &self,
        mapping: &Mapping,
        mut see: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<u64> {
        let file = self.contents(mapping)?;
        let path = self.path(mapping);
        let mut digest = Digest::new(self.page_size);
        pages_with_data(
            &file,
            path.display(),
            mapping.size(),
            self.page_size,
            |offset, pages| {
                let start = mapping.range.start + offset;
                let there = start..start + pages.len() as u64;
                if let Some(bad) = clip(&mapping.unreadable, &there).first() {
                    bail!(
                        "{} has data at {:x}, which could not be read",
                        path.display(),
                        bad.start
                    );
                }
                digest.add(offset, pages);
                see(offset, pages)
            },
        )?;
        let Range { start, end } = &mapping.range;
        ensure!(
            digest.finish() == mapping.digest,
            "{} was changed: it has not the digest of {start:x}-{end:x}",
            path.display()
        );
        Ok(digest.pages)
    }
}

/// The names of all that is in a directory.
fn names_in(dir: &Path) -> Result<HashSet<OsString>> {
    let context = || format!("cannot read the directory {}", dir.display());
    let entries = dir.read_dir().with_context(context)?;
    entries
        .map(|entry| Ok(entry.with_context(context)?.file_name()))
        .collect()
}

/// A file of a snapshot, open. A link could lead out of the directory, and a pipe would be waited
/// for.
fn open_file(path: &Path) -> Result<File> {
    let context = || format!("cannot read {}", path.display());
    let kind = match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("{} is missing", path.display()),
        result => result.with_context(context)?.file_type(),
    };
    ensure!(kind.is_file(), "{} is no regular file", path.display());
    File::options()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)
        .with_context(context)
}
