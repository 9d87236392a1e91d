// SPDX-License-Identifier: GPL-2.0

//! Devices that are known to be what they are taken for: the number of an ioctl may mean something
//! else to another one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{major, minor};

/// Major number of misc devices.
const MISC_MAJOR: u32 = 10;

/// The device of mmops, open.
#[derive(Debug)]
pub struct Mmops(File);

impl Mmops {
    /// Opens the device at `path`.
    ///
    /// # Errors
    ///
    /// `ENOTTY` if it is another one.
    pub fn open(path: &Path) -> io::Result<Self> {
        misc(path, "mmops").map(Self)
    }

    /// Opens the device once more: `path` is where this one was opened.
    ///
    /// # Errors
    ///
    /// `ENOTTY` if it is another one now.
    #[cfg(feature = "fuzz")]
    pub fn open_again(&self, path: &Path) -> io::Result<Self> {
        again(path, &self.0).map(Self)
    }
}

impl AsFd for Mmops {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Opens a misc device that its driver has given this name.
pub(crate) fn misc(path: &Path, name: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let metadata = file.metadata()?;
    let device = metadata.rdev();
    if metadata.file_type().is_char_device() && major(device) == MISC_MAJOR {
        // While it is open, nobody else can be given its number.
        let wanted = format!("{} {name}", minor(device));
        let names = fs::read_to_string("/proc/misc")?;
        if names.lines().any(|line| line.trim_start() == wanted) {
            return Ok(file);
        }
    }
    Err(Errno::ENOTTY.into())
}

/// Opens the device that a file is of once more. That it is open keeps its number, so its name need
/// not be looked for again.
#[cfg(feature = "fuzz")]
pub(crate) fn again(path: &Path, known: &File) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let (metadata, known) = (file.metadata()?, known.metadata()?);
    if metadata.file_type().is_char_device() && metadata.rdev() == known.rdev() {
        return Ok(file);
    }
    Err(Errno::ENOTTY.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_device_is_refused() {
        let error = |path: &str| Mmops::open(Path::new(path)).unwrap_err();
        let enotty = Some(Errno::ENOTTY as i32);
        assert_eq!(error("/dev/null").raw_os_error(), enotty);
        assert_eq!(error("/proc/self/comm").raw_os_error(), enotty);
        assert_eq!(error("/nonexistent").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    #[cfg(feature = "fuzz")]
    fn only_the_same_device_is_opened_again() {
        let null = File::open("/dev/null").unwrap();
        assert!(again(Path::new("/dev/null"), &null).is_ok());
        let error = |path: &str| again(Path::new(path), &null).unwrap_err();
        let enotty = Some(Errno::ENOTTY as i32);
        assert_eq!(error("/dev/zero").raw_os_error(), enotty);
        assert_eq!(error("/proc/self/comm").raw_os_error(), enotty);
    }

    /// With a misc device that any machine has; this is for one that may be opened.
    #[test]
    fn a_device_is_found_by_its_name() {
        let path = Path::new("/dev/fuse");
        if let Err(error) = OpenOptions::new().read(true).write(true).open(path) {
            eprintln!("skipped: /dev/fuse: {error}");
            return;
        }
        assert!(misc(path, "fuse").is_ok());
        let error = misc(path, "mmops").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ENOTTY as i32));
    }
}
