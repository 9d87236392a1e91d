// SPDX-License-Identifier: GPL-2.0

//! What a program finds: open devices and files, always with the same numbers, and what it makes.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{ensure, Context, Result};
use mmops_raw::sandbox::*;
use mmops_raw::Mmops;
use nix::errno::Errno;
use nix::fcntl::{fallocate, FallocateFlags};
use rustix::fs::{memfd_create, MemfdFlags};
use rustix::process::{
    getpid, pidfd_open, pidfd_send_signal, waitid, PidfdFlags, Signal, WaitId, WaitIdOptions,
};

use crate::action::{Action, What};

/// Numbers of descriptors.
pub mod fds {
    /// A memfd, a file on a disk, a device with page frames, `/dev/zero`.
    pub const FILES: i32 = 110;
    /// The memfd, open to be read alone.
    pub const READ_ONLY: i32 = 114;
    /// A device that cannot be mapped.
    pub const NULL: i32 = 115;
    /// This process.
    pub const OWN: i32 = 120;
    /// Its two children.
    pub const CHILDREN: i32 = 121;
}

/// What is there.
#[derive(Clone, Debug)]
pub struct Machine {
    /// A directory on a disk.
    pub disk: Option<PathBuf>,
}

/// The state of a program, from its begin to its end.
#[derive(Debug)]
pub struct World {
    mmops: [Mmops; 2],
    mirror: Option<Mirror>,
    walk: Option<Walk>,
    leafmap: Option<Leafmap>,
    files: [OwnedFd; 4],
    _others: [OwnedFd; 3],
    children: Mutex<Vec<OwnedFd>>,
    userfaults: Mutex<Vec<Arc<Userfault>>>,
    /// The memory of this process, for stores by force.
    memory: File,
}

/// A descriptor at a number of its own.
fn number(fd: impl AsFd, number: i32) -> Result<OwnedFd> {
    let fd = rustix::io::fcntl_dupfd_cloexec(fd, number)?;
    ensure!(fd.as_raw_fd() == number, "descriptor {number} is in use");
    Ok(fd)
}

/// A device that need not be there, or is one of the kernel's of this name.
fn optional<T>(device: std::io::Result<T>) -> Result<Option<T>> {
    match device {
        Ok(device) => Ok(Some(device)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ENOTTY as i32) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn open(path: impl AsRef<Path>) -> Result<File> {
    let path = path.as_ref();
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

impl World {
    /// All is as if no program had been before.
    pub fn new(machine: &Machine) -> Result<Self> {
        let device = || Mmops::open(Path::new("/dev/mmops")).context("cannot open /dev/mmops");
        let memfd = || -> Result<File> {
            let file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC)?);
            file.set_len(LEN)?;
            Ok(file)
        };
        let memory = memfd()?;
        let disk = match &machine.disk {
            Some(directory) => {
                let mut options = OpenOptions::new();
                options.read(true).write(true).create(true).truncate(true);
                let file = options.open(directory.join("mmops-fuzz"))?;
                file.set_len(LEN)?;
                file
            }
            None => memfd()?,
        };
        let leafmap = optional(Leafmap::open(Path::new("/dev/mmops_leafmap")))?;
        let frames = match &leafmap {
            Some(device) => device.as_fd().try_clone_to_owned()?,
            None => open("/dev/zero")?.into(),
        };
        let read_only = File::open(format!("/proc/self/fd/{}", memory.as_raw_fd()))?;
        Ok(Self {
            mmops: [device()?, device()?],
            mirror: optional(Mirror::open(Path::new("/dev/hmm_dmirror0")))?,
            walk: optional(Walk::open(Path::new("/dev/mmops_walk")))?,
            files: [
                number(memory, fds::FILES)?,
                number(disk, fds::FILES + 1)?,
                number(frames, fds::FILES + 2)?,
                number(open("/dev/zero")?, fds::FILES + 3)?,
            ],
            leafmap,
            _others: [
                number(read_only, fds::READ_ONLY)?,
                number(open("/dev/null")?, fds::NULL)?,
                number(pidfd_open(getpid(), PidfdFlags::empty())?, fds::OWN)?,
            ],
            children: Mutex::default(),
            userfaults: Mutex::default(),
            memory: open("/proc/self/mem")?,
        })
    }

    /// An open file of the device.
    pub fn mmops(&self, file: usize) -> Option<&Mmops> {
        self.mmops.get(file)
    }

    /// The mirror.
    pub fn mirror(&self, _: usize) -> Option<&Mirror> {
        self.mirror.as_ref()
    }

    /// The device that walks.
    pub fn walk(&self, _: usize) -> Option<&Walk> {
        self.walk.as_ref()
    }

    /// The device that maps page frames.
    pub fn leafmap(&self, _: usize) -> Option<&Leafmap> {
        self.leafmap.as_ref()
    }

    fn file(&self, file: usize) -> File {
        // A descriptor more, so that a close is nobody else's.
        File::from(self.files[file].try_clone().expect("a descriptor"))
    }

    fn map(&self, sandbox: &Sandbox, action: (Span, What, i32, bool)) -> nix::Result<()> {
        let (span, what, prot, populate) = action;
        let what = match what {
            What::Anonymous => Mapped::Anonymous,
            What::SharedAnonymous => Mapped::SharedAnonymous,
            What::Shared(file, page) => Mapped::Shared(self.files[file].as_fd(), page),
            What::Private(file, page) => Mapped::Private(self.files[file].as_fd(), page),
        };
        sandbox.map(span, what, prot, populate)
    }

    fn fork(&self, sandbox: &Sandbox, span: Span, life: Life) -> nix::Result<()> {
        let mut children = self.children.lock().unwrap();
        if children.len() < 2 {
            let child = sandbox.fork(span, life);
            let child = child.map_err(|_| Errno::EAGAIN)?;
            let number = fds::CHILDREN + children.len() as i32;
            let child = rustix::io::fcntl_dupfd_cloexec(&child, number);
            children.push(child.map_err(|error| Errno::from_raw(error.raw_os_error()))?);
        }
        Ok(())
    }

    fn userfault(&self, action: impl FnOnce(&Userfault) -> nix::Result<()>) -> nix::Result<()> {
        // Not under the lock: the calls of two threads are to meet.
        let last = self.userfaults.lock().unwrap().last().cloned();
        last.map_or(Err(Errno::ENODEV), |userfault| action(&userfault))
    }

    /// Does what is no call of a device. What it returns is the kernel's own matter.
    pub fn run(&self, sandbox: &Sandbox, action: Action) -> nix::Result<()> {
        let io = |result: std::io::Result<()>| {
            result.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
        };
        match action {
            Action::Ioctl { .. } => unreachable!("see run_ioctl"),
            Action::Map(span, what, prot, populate) => {
                self.map(sandbox, (span, what, prot, populate))
            }
            Action::Unmap(span) => sandbox.unmap(span),
            Action::Protect(span, prot) => sandbox.protect(span, prot),
            Action::Remap(from, to) => sandbox.remap(from, to),
            Action::Advise(span, advice) => sandbox.advise(span, advice),
            Action::Lock(span, lock) => sandbox.lock(span, lock),
            Action::Sync(span) => sandbox.sync(span),
            Action::Store(span) => sandbox.store(span).map(drop),
            Action::Load(span) => sandbox.load(span).map(drop),
            Action::StoreByForce(addr) => io(self.memory.write_all_at(&[0xa5; 8], addr)),
            Action::Fork(span, life) => self.fork(sandbox, span, life),
            Action::Kill(child) => {
                let children = self.children.lock().unwrap();
                children.get(child).map_or(Ok(()), |child| {
                    io(pidfd_send_signal(child, Signal::KILL).map_err(Into::into))
                })
            }
            Action::Truncate(file, pages) => io(self.file(file).set_len(pages * PAGE)),
            Action::Punch(file, first, nr) => {
                let mode =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                let (first, nr) = (first * PAGE, nr * PAGE);
                fallocate(&self.files[file], mode, first as i64, nr as i64)
            }
            Action::Write(file, page) => io(self.file(file).write_all_at(&[1; 64], page * PAGE)),
            Action::Register(span, wp_async, missing, wp) => {
                let userfault = Userfault::new(wp_async);
                let userfault = userfault
                    .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
                let userfault = Arc::new(userfault);
                self.userfaults.lock().unwrap().push(userfault.clone());
                userfault.register(span, missing, wp)
            }
            Action::Unregister(span) => self.userfault(|userfault| userfault.unregister(span)),
            Action::WriteProtect(span, protect) => {
                self.userfault(|userfault| userfault.write_protect(span, protect))
            }
            Action::Zero(span) => self.userfault(|userfault| userfault.zero(span)),
            Action::Copy(from, to) => self.userfault(|userfault| userfault.copy(from, to)),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in self.children.get_mut().unwrap().drain(..) {
            // It may have ended.
            let _ = pidfd_send_signal(&child, Signal::KILL);
            let _ = waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED);
        }
    }
}
