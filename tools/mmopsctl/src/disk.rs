// SPDX-License-Identifier: GPL-2.0

//! The files that [`Store`](crate::store::Store) keeps a replica in.
//!
//! Beside the replica is a directory, of its name and `.mmops`, with the others.

use std::cell::RefCell;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::sparse::{make_hole, read_up_to};

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    Replica,
    /// What becomes the replica when the first round of a stream is whole.
    New,
    Journal,
    State,
    /// What becomes the state.
    NewState,
}

/// What is done to the files. A power loss may undo what was not synced, each for itself.
pub trait Disk {
    /// Bytes in the file; none if it is not there.
    fn size(&self, name: Name) -> Result<Option<u64>>;
    /// Reads as much of `buffer` as the file has from `offset` on.
    fn read(&self, name: Name, buffer: &mut [u8], offset: u64) -> Result<usize>;
    /// Makes an empty file.
    fn create(&self, name: Name) -> Result<()>;
    fn write(&self, name: Name, bytes: &[u8], offset: u64) -> Result<()>;
    fn set_size(&self, name: Name, size: u64) -> Result<()>;
    /// Makes `range` zero, and a hole where it can be.
    fn make_hole(&self, name: Name, range: Range<u64>) -> Result<()>;
    /// The contents of the file last from here on.
    fn sync(&self, name: Name) -> Result<()>;
    fn rename(&self, from: Name, to: Name) -> Result<()>;
    fn remove(&self, name: Name) -> Result<()>;
    /// What was created, renamed and removed lasts from here on.
    fn sync_names(&self) -> Result<()>;
}

/// Files on a file system. Nobody else has them while this is there.
#[derive(Debug)]
pub struct Files {
    replica: PathBuf,
    directory: PathBuf,
    /// The one that was used last.
    open: RefCell<Option<(Name, File)>>,
    _lock: Flock<File>,
}

impl Files {
    /// Opens the files of `replica`; the directory has to be there unless it `may_create` it.
    pub fn open(replica: &Path, may_create: bool) -> Result<Self> {
        // A rename would take the place of a link.
        let replica = match std::fs::canonicalize(replica) {
            Ok(path) => path,
            Err(error) if error.kind() == ErrorKind::NotFound => replica.to_owned(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot open {}", replica.display()))
            }
        };
        if replica.exists() && !replica.is_file() {
            bail!(
                "the replica {} is not a regular file: name one, or a new one",
                replica.display()
            );
        }
        let mut directory = replica.clone().into_os_string();
        directory.push(".mmops");
        let directory = PathBuf::from(directory);
        if !may_create && !directory.is_dir() {
            bail!(
                "{} is no replica that mmopsctl apply has made: there is no {}",
                replica.display(),
                directory.display()
            );
        }
        let context = || format!("cannot create {}", directory.display());
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => {}
            result => result.with_context(context)?,
        }
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join("lock"))
            .with_context(context)?;
        let lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => bail!(
                "another mmopsctl apply has {}: wait until it has ended",
                replica.display()
            ),
            Err((_, errno)) => return Err(errno).with_context(context),
        };
        Ok(Self {
            replica,
            directory,
            open: RefCell::new(None),
            _lock: lock,
        })
    }

    /// Leaves nothing beside the replica, for one that has got no round.
    pub fn remove_all(&self) {
        // What is there by somebody else stays, and so does the directory then.
        for name in [self.path(Name::Journal), self.directory.join("lock")] {
            let _ = std::fs::remove_file(name);
        }
        let _ = std::fs::remove_dir(&self.directory);
    }

    pub fn path(&self, name: Name) -> PathBuf {
        match name {
            Name::Replica => self.replica.clone(),
            Name::New => self.directory.join("replica.new"),
            Name::Journal => self.directory.join("journal"),
            Name::State => self.directory.join("state.json"),
            Name::NewState => self.directory.join("state.json.new"),
        }
    }

    /// Calls `f` with the file, and says which one it was if that fails.
    fn with<T>(&self, name: Name, what: &str, f: impl FnOnce(&File) -> io::Result<T>) -> Result<T> {
        let path = self.path(name);
        let context = || format!("cannot {what} {}", path.display());
        let mut open = self.open.borrow_mut();
        let file = match open.take() {
            Some((is, file)) if is == name => file,
            _ => File::options()
                .read(true)
                .write(true)
                .open(&path)
                .with_context(context)?,
        };
        let (_, file) = open.insert((name, file));
        f(file).with_context(context)
    }
}

impl Disk for Files {
    fn size(&self, name: Name) -> Result<Option<u64>> {
        let path = self.path(name);
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
        }
    }

    fn read(&self, name: Name, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let path = self.path(name);
        File::open(&path)
            .and_then(|file| read_up_to(&file, buffer, offset))
            .with_context(|| format!("cannot read {}", path.display()))
    }

    fn create(&self, name: Name) -> Result<()> {
        let path = self.path(name);
        let context = || format!("cannot create {}", path.display());
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        if name != Name::New {
            options.mode(0o600);
        }
        let file = options.open(&path).with_context(context)?;
        if name == Name::New {
            match std::fs::metadata(&self.replica) {
                // It takes the place of the replica, for the same users.
                Ok(replica) => file
                    .set_permissions(replica.permissions())
                    .with_context(context)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(context),
            }
        }
        self.open.replace(Some((name, file)));
        Ok(())
    }

    fn write(&self, name: Name, bytes: &[u8], offset: u64) -> Result<()> {
        self.with(name, "write", |file| file.write_all_at(bytes, offset))
    }

    fn set_size(&self, name: Name, size: u64) -> Result<()> {
        self.with(name, "set the size of", |file| file.set_len(size))
    }

    fn make_hole(&self, name: Name, range: Range<u64>) -> Result<()> {
        self.with(name, "make a hole in", |file| make_hole(file, range))
            .map(drop)
    }

    fn sync(&self, name: Name) -> Result<()> {
        self.with(name, "write to its disk", File::sync_all)
    }

    fn rename(&self, from: Name, to: Name) -> Result<()> {
        self.open.take();
        let (from, to) = (self.path(from), self.path(to));
        std::fs::rename(&from, &to)
            .with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
    }

    fn remove(&self, name: Name) -> Result<()> {
        self.open.take();
        let path = self.path(name);
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    fn sync_names(&self) -> Result<()> {
        let parent = match self.replica.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        for directory in [&self.directory, parent] {
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .with_context(|| format!("cannot write {} to its disk", directory.display()))?;
        }
        Ok(())
    }
}

/// Reads a file from its begin on.
#[derive(Debug)]
pub struct Reader<'a, D> {
    disk: &'a D,
    name: Name,
    offset: u64,
}

impl<'a, D: Disk> Reader<'a, D> {
    pub fn new(disk: &'a D, name: Name) -> Self {
        Self {
            disk,
            name,
            offset: 0,
        }
    }
}

impl<D: Disk> io::Read for Reader<'_, D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.disk.read(self.name, buffer, self.offset);
        let read = read.map_err(io::Error::other)?;
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{symlink, PermissionsExt};

    use tempfile::tempdir;

    use super::*;
    use crate::receiver::receive;
    use crate::store::Store;
    use crate::stream::tests::to_vec;
    use crate::target::Target;

    /// A stream, where its rounds end, and the states after them.
    fn sample() -> (Vec<u8>, Vec<usize>, Vec<Vec<u8>>) {
        let mut stream = to_vec(1, 20000, None);
        let (mut ends, mut states) = (vec![0], vec![]);
        let mut state = vec![];
        for round in 0..4_u8 {
            let size = [20000, 30000, 9000, 20000][usize::from(round)];
            state.resize(size, 0);
            stream.begin(size as u64).unwrap();
            state[4096..8192].fill(round + 1);
            stream.write(&state[4096..8192], 4096).unwrap();
            state[5000..6000].fill(0);
            stream.make_hole(5000..6000).unwrap();
            stream.end().unwrap();
            ends.push(stream.written().len());
            states.push(state.clone());
        }
        stream.finish().unwrap();
        (stream.written().to_vec(), ends, states)
    }

    #[test]
    fn files_are_whole_after_a_cut() {
        let directory = tempdir().unwrap();
        let (bytes, ends, states) = sample();
        for at in ends
            .iter()
            .flat_map(|end| [end.saturating_sub(1), *end, end + 1])
        {
            let whole = ends[1..].iter().filter(|&&end| end <= at).count();
            let replica = directory.path().join(at.to_string());
            let mut store = Store::open(Files::open(&replica, true).unwrap()).unwrap();
            receive(&bytes[..at], &mut store, |_| {}).unwrap_err();
            // As if killed: nothing is dropped.
            drop(store);
            let store = Store::open(Files::open(&replica, false).unwrap()).unwrap();
            let state = whole.checked_sub(1).map(|round| states[round].clone());
            assert!(std::fs::read(&replica).ok() == state, "{at}");
            assert_eq!(
                store
                    .state()
                    .map(|state| state.point.round + 1)
                    .unwrap_or(0),
                whole as u64
            );
            assert!(!store.disk().path(Name::New).exists());
        }
    }

    #[test]
    fn replica_keeps_its_place() {
        let directory = tempdir().unwrap();
        let (bytes, _, states) = sample();
        let (replica, link) = (
            directory.path().join("replica"),
            directory.path().join("link"),
        );
        std::fs::write(&replica, "old").unwrap();
        std::fs::set_permissions(&replica, std::fs::Permissions::from_mode(0o640)).unwrap();
        symlink("replica", &link).unwrap();
        let mut store = Store::open(Files::open(&link, true).unwrap()).unwrap();
        receive(&bytes[..], &mut store, |_| {}).unwrap();
        assert!(std::fs::read(&replica).unwrap() == *states.last().unwrap());
        assert_eq!(
            replica.metadata().unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert!(link.symlink_metadata().unwrap().is_symlink());
        let beside = directory.path().join("replica.mmops").metadata().unwrap();
        assert_eq!(beside.permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn one_at_a_time_and_nothing_left_behind() {
        let directory = tempdir().unwrap();
        let replica = directory.path().join("replica");
        let error = |path: &Path| Files::open(path, false).unwrap_err().to_string();
        assert!(error(&replica).contains("is no replica that"));
        let files = Files::open(&replica, true).unwrap();
        assert!(error(&replica).contains("another mmopsctl apply"));
        files.remove_all();
        drop(files);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(error(Path::new("/dev/null")).contains("not a regular file"));
    }
}
