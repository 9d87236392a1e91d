// SPDX-License-Identifier: GPL-2.0

//! A file that has its name only when it is whole.

use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

/// A file that is being written, under a name beside that which it gets. It is removed unless it is
/// finished.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    part: PathBuf,
    pub file: File,
}

impl NewFile {
    /// One that becomes `path`, for its owner alone. Nothing may be there.
    pub fn create(path: &Path) -> Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        let mut part = OsString::from(path);
        part.push(".part");
        let part = PathBuf::from(part);
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        match options.open(&part) {
            Ok(file) => Ok(Self {
                path: path.to_owned(),
                part,
                file,
            }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
                "{} is being written, or was left behind: remove it then",
                part.display()
            ),
            Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
        }
    }

    /// The name that it gets.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Brings it to the disk, then gives it its name.
    pub fn finish(self) -> Result<()> {
        let context = || format!("cannot write {} to its disk", self.path.display());
        self.file.sync_all().with_context(context)?;
        // Unlike a rename, a link replaces nothing that came meanwhile.
        match std::fs::hard_link(&self.part, &self.path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(exists(&self.path))
            }
            result => result.with_context(|| format!("cannot make {}", self.path.display()))?,
        }
        let path = self.path.clone();
        drop(self);
        let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let directory = File::open(parent.unwrap_or(Path::new(".")));
        directory
            .and_then(|directory| directory.sync_all())
            .with_context(|| format!("cannot write {} to its disk", path.display()))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.part);
    }
}

fn exists(path: &Path) -> anyhow::Error {
    anyhow::anyhow!("{} is there already: name a new file", path.display())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::tempdir;

    use super::*;

    fn names_in(dir: &Path) -> Vec<String> {
        let entries = dir.read_dir().unwrap();
        let name = |entry: std::fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_there_when_it_is_whole() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("file");
        let mut new = NewFile::create(&path).unwrap();
        new.file.write_all(b"data").unwrap();
        assert_eq!(names_in(dir.path()), ["file.part"]);
        let error = NewFile::create(&path).unwrap_err().to_string();
        assert!(error.contains("file.part is being written"), "{error}");
        new.finish().unwrap();
        assert_eq!(names_in(dir.path()), ["file"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn without_an_end_nothing_is_left() {
        let dir = tempdir().unwrap();
        drop(NewFile::create(&dir.path().join("file")).unwrap());
        assert!(names_in(dir.path()).is_empty());
    }

    #[test]
    fn nothing_is_replaced() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("file");
        let is_refused = |result: Result<()>| {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("file is there already"), "{error}");
            assert_eq!(names_in(dir.path()), ["file"]);
        };
        let new = NewFile::create(&path).unwrap();
        // It comes meanwhile.
        std::fs::write(&path, "mine").unwrap();
        is_refused(new.finish());
        is_refused(NewFile::create(&path).map(drop));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        is_refused(NewFile::create(&path).map(drop));
    }
}
