// SPDX-License-Identifier: GPL-2.0

//! What a program finds: open devices and files, always with the same numbers, and what it makes.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{ensure, Context, Result};
use mmops_raw::sandbox::*;
use mmops_raw::Mmops;
use nix::errno::Errno;
use nix::fcntl::{fallocate, FallocateFlags};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::{memfd_create, MemfdFlags};
use rustix::process::{getpid, pidfd_open, pidfd_send_signal, PidfdFlags, Signal};

use crate::action::{Action, What};

/// Numbers of descriptors.
pub mod fds {
    /// A memfd, a file on a disk, a device with page frames, `/dev/zero`.
    pub const FILES: i32 = 110;
    /// The memfd, open to be read alone.
    pub const READ_ONLY: i32 = 114;
    /// A device that cannot be mapped.
    pub const NULL: i32 = 115;
    /// A device with page frames in leaves of PUD size, once it was mapped.
    pub const BIG: i32 = 116;
    /// This process.
    pub const OWN: i32 = 120;
    /// Its two children.
    pub const CHILDREN: i32 = 121;
}

const MMOPS: &str = "/dev/mmops";
const MIRROR: &str = "/dev/hmm_dmirror0";
const WALK: &str = "/dev/mmops_walk";
const LEAFMAP: &str = "/dev/mmops_leafmap";

/// The part of the sandbox for leaves of PUD size.
pub const BIG_SPAN: Span = Span {
    addr: BIG,
    len: BIG_LEN,
};

/// What is there, and stays from program to program.
#[derive(Debug)]
pub struct Machine {
    mmops: Mmops,
    walk: Option<Walk>,
    leafmap: Option<Leafmap>,
    /// A file on a disk, if there is one.
    disk: Option<OwnedFd>,
    zero: OwnedFd,
    _others: [OwnedFd; 2],
    /// The memory of this process, for stores by force.
    memory: File,
}

/// The state of a program, from its begin to its end.
#[derive(Debug)]
pub struct World {
    machine: Arc<Machine>,
    mmops: [Mmops; 2],
    mirror: Option<Mirror>,
    walk: Option<Walk>,
    leafmap: Option<Leafmap>,
    memfd: OwnedFd,
    /// Where there is no disk, another memfd.
    no_disk: Option<OwnedFd>,
    frames: OwnedFd,
    big: Mutex<Option<OwnedFd>>,
    _read_only: OwnedFd,
    children: Mutex<Vec<OwnedFd>>,
    userfaults: Mutex<Vec<Arc<Userfault>>>,
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

fn memfd() -> Result<OwnedFd> {
    let file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC)?);
    file.set_len(LEN)?;
    Ok(file.into())
}

/// A file in a directory that has no name there.
fn nameless(directory: &Path) -> Result<File> {
    let path = directory.join(format!("mmops-fuzz-{}", getpid()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    let file = options.open(&path);
    let file = file.with_context(|| format!("cannot make {}", path.display()))?;
    fs::remove_file(&path)?;
    Ok(file)
}

impl Machine {
    /// With a file in a directory on a disk.
    pub fn new(disk: Option<&Path>) -> Result<Self> {
        let disk = disk.map(|directory| number(nameless(directory)?, fds::FILES + 1));
        Ok(Self {
            mmops: Mmops::open(Path::new(MMOPS)).context("cannot open /dev/mmops")?,
            walk: optional(Walk::open(Path::new(WALK)))?,
            leafmap: optional(Leafmap::open(Path::new(LEAFMAP)))?,
            disk: disk.transpose()?,
            zero: number(open("/dev/zero")?, fds::FILES + 3)?,
            _others: [
                number(open("/dev/null")?, fds::NULL)?,
                number(pidfd_open(getpid(), PidfdFlags::empty())?, fds::OWN)?,
            ],
            memory: open("/proc/self/mem")?,
        })
    }
}

impl World {
    /// All is as if no program had been before.
    pub fn new(machine: Arc<Machine>) -> Result<Self> {
        let mmops = || machine.mmops.open_again(Path::new(MMOPS));
        let walk = machine.walk.as_ref();
        let leafmap = machine.leafmap.as_ref();
        let leafmap = leafmap.map(|device| device.open_again(Path::new(LEAFMAP)));
        let leafmap = leafmap.transpose()?;
        let frames = match &leafmap {
            Some(device) => device.as_fd().try_clone_to_owned()?,
            None => machine.zero.try_clone()?,
        };
        let memfd = number(memfd()?, fds::FILES)?;
        let no_disk = match &machine.disk {
            Some(disk) => {
                let disk = File::from(disk.try_clone()?);
                disk.set_len(0)?;
                disk.set_len(LEN)?;
                None
            }
            None => Some(number(self::memfd()?, fds::FILES + 1)?),
        };
        let read_only = File::open(format!("/proc/self/fd/{}", fds::FILES))?;
        Ok(Self {
            mmops: [mmops()?, mmops()?],
            // While it is open, it mirrors this process: so it is not from program to program.
            mirror: optional(Mirror::open(Path::new(MIRROR)))?,
            walk: walk
                .map(|device| device.open_again(Path::new(WALK)))
                .transpose()?,
            leafmap,
            memfd,
            no_disk,
            frames: number(frames, fds::FILES + 2)?,
            big: Mutex::default(),
            _read_only: number(read_only, fds::READ_ONLY)?,
            children: Mutex::default(),
            userfaults: Mutex::default(),
            machine,
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

    /// The file of this number from [`fds::FILES`] on.
    fn fd(&self, file: usize) -> BorrowedFd<'_> {
        let disk = || self.no_disk.as_ref().or(self.machine.disk.as_ref());
        match file {
            0 => self.memfd.as_fd(),
            1 => disk().expect("one of both").as_fd(),
            2 => self.frames.as_fd(),
            _ => self.machine.zero.as_fd(),
        }
    }

    fn file(&self, file: usize) -> File {
        // A descriptor more, so that a close is nobody else's.
        let fd = self.fd(file).try_clone_to_owned();
        File::from(fd.expect("a descriptor"))
    }

    fn map(&self, sandbox: &Sandbox, action: (Span, What, i32, bool)) -> nix::Result<()> {
        let (span, what, prot, populate) = action;
        let what = match what {
            What::Anonymous => Mapped::Anonymous,
            What::SharedAnonymous => Mapped::SharedAnonymous,
            What::Shared(file, page) => Mapped::Shared(self.fd(file), page),
            What::Private(file, page) => Mapped::Private(self.fd(file), page),
        };
        sandbox.map(span, what, prot, populate)
    }

    /// The device with page frames, which serves leaves of PUD size from the first time on.
    fn map_big(&self, sandbox: &Sandbox, prot: i32) -> Result<()> {
        let Some(device) = &self.machine.leafmap else {
            return Ok(());
        };
        let mut big = self.big.lock().unwrap();
        if big.is_none() {
            let device = device.open_again(Path::new(LEAFMAP))?;
            let mut serve = mmops_leafmap_serve {
                order: (BIG_LEN / PAGE).ilog2(),
                ..Default::default()
            };
            sandbox.ioctl(&device, &mut serve, Place::Memory)?;
            *big = Some(number(&device, fds::BIG)?);
        }
        if let Some(device) = &*big {
            let what = Mapped::Shared(device.as_fd(), 0);
            sandbox.map(BIG_SPAN, what, prot, false)?;
        }
        Ok(())
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
            // Where that fails, there are no such leaves.
            Action::MapBig(prot) => self.map_big(sandbox, prot).map_err(|_| Errno::ENODEV),
            Action::Unmap(span) => sandbox.unmap(span),
            Action::Protect(span, prot) => sandbox.protect(span, prot),
            Action::Remap(from, to) => sandbox.remap(from, to),
            Action::Advise(span, advice) => sandbox.advise(span, advice),
            Action::Lock(span, lock) => sandbox.lock(span, lock),
            Action::Sync(span) => sandbox.sync(span),
            Action::Store(span) => sandbox.store(span).map(drop),
            Action::Load(span) => sandbox.load(span).map(drop),
            Action::StoreByForce(addr) => io(self.machine.memory.write_all_at(&[0xa5; 8], addr)),
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
                fallocate(self.fd(file), mode, first as i64, nr as i64)
            }
            Action::Write(file, page) => io(self.file(file).write_all_at(&[1; 64], page * PAGE)),
            Action::Poll(file) => {
                let events = PollFlags::IN | PollFlags::OUT;
                let mut fds = [PollFd::new(&self.mmops[file], events)];
                let timeout = Timespec {
                    tv_sec: 0,
                    tv_nsec: 1_000_000,
                };
                // Nothing may have happened, or a signal may have come.
                let _ = poll(&mut fds, Some(&timeout));
                Ok(())
            }
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
            end_child(child);
        }
    }
}
