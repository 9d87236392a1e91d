// SPDX-License-Identifier: GPL-2.0

//! Errors of the device that say what to do.

use std::path::PathBuf;

use nix::errno::Errno;

use crate::Done;

/// Why a call on the device failed. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device could not be opened.
    #[error("cannot open {path}: {}{}", .errno.desc(), open_help(*.errno))]
    Open {
        /// Path that was tried.
        path: PathBuf,
        /// Error of `open(2)`.
        errno: Errno,
    },
    /// The driver speaks another version of the interface.
    #[error(
        "the driver has version {}.{} of its interface, this program needs {}.x: \
         take both from one build",
        .driver >> 16, .driver & 0xffff, .program >> 16
    )]
    Version {
        /// Version of the driver.
        driver: u32,
        /// Version of this library.
        program: u32,
    },
    /// A call on the device failed; nothing was changed.
    #[error("{call}: {}{}", .errno.desc(), call_help(call, *.errno))]
    Call {
        /// Name of the call.
        call: &'static str,
        /// Error of `ioctl(2)`.
        errno: Errno,
    },
    /// A call on a process failed; nothing was changed.
    #[error("{call}: {}{}", .errno.desc(), process_help(call, *.errno))]
    Process {
        /// Name of the call.
        call: &'static str,
        /// Error of `ioctl(2)`.
        errno: Errno,
    },
    /// The process shares its memory with the caller; nothing was changed.
    #[error("zap: the process has the memory of this program")]
    OwnMemory,
    /// `ESRCH` for a process that has not ended.
    #[error(
        "{call}: the process has no memory that the driver finds: it is about to end, it is a \
         kernel thread, or its main thread has ended and the driver is an old one"
    )]
    NoMemory {
        /// Name of the call.
        call: &'static str,
    },
    /// A call ended half-way; what was done up to there is complete.
    #[error("{call}: {}{done}", stopped(*.errno))]
    Partial {
        /// Name of the call.
        call: &'static str,
        /// Error of `ioctl(2)`: `EINTR` after a fatal signal.
        errno: Errno,
        /// What is completely processed, from the first page or address on.
        done: Done,
    },
}

impl Error {
    /// Error number of the system call; none if there was none.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Open { errno, .. }
            | Error::Call { errno, .. }
            | Error::Process { errno, .. }
            | Error::Partial { errno, .. } => Some(*errno),
            Error::NoMemory { .. } => Some(Errno::ESRCH),
            Error::Version { .. } | Error::OwnMemory => None,
        }
    }
}

fn open_help(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT | Errno::ENXIO | Errno::ENODEV => {
            "; the driver is not loaded: run `modprobe mmops_test` as root \
             (from a build tree: `insmod mmops.ko`, then `insmod mmops_test.ko`)"
        }
        Errno::ENOTTY => "; this is not the device of mmops",
        Errno::EACCES | Errno::EPERM => "; the device is for root alone: run this with sudo",
        _ => "",
    }
}

fn stopped(errno: Errno) -> &'static str {
    match errno {
        Errno::EINTR => "ended by a signal",
        errno => errno.desc(),
    }
}

fn call_help(call: &str, errno: Errno) -> &'static str {
    match errno {
        Errno::EOPNOTSUPP if call == "track a file" => {
            "; the kernel does not tell what changes in a file of this kind: use tmpfs, a memfd, \
             ramfs, ext4 or XFS without DAX, or harvest its dirty bits"
        }
        Errno::EINVAL if call == "track a file" => {
            "; the range is empty or not of whole pages, or the driver is an old one"
        }
        Errno::ENOTTY => {
            "; the driver does not know the call: load the mmops_test.ko of the same build"
        }
        Errno::EBADF => "; the file descriptor is not open",
        Errno::EACCES => "; open the file for reading and writing",
        Errno::ENODEV => {
            "; a file of this kind cannot be mapped shared, so nothing in it can be tracked: \
             name a regular file, a memfd or a device that can be mapped"
        }
        Errno::EOPNOTSUPP => {
            "; files on hugetlbfs are not supported, nor those that are mapped by another file \
             (FUSE with passthrough, /dev/zero, devices of DRM): use tmpfs, a memfd without \
             MFD_HUGETLB, a disk file system, or /proc/PID/map_files"
        }
        Errno::EINVAL => "; the range is empty or too large, or a flag is not known to the driver",
        Errno::EFAULT => "; the bitmap is not in memory that can be written to",
        Errno::ENOMEM => "; not enough memory: try again, or in smaller ranges",
        _ => "",
    }
}

fn process_help(call: &str, errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES if call == "protect" => {
            "; a mapping allows less, or you may not trace the process: run it as root"
        }
        Errno::EOPNOTSUPP if call == "protect" => {
            "; ask for what the mappings allow, with or without w; hugetlbfs has no such protection"
        }
        Errno::EOPNOTSUPP if call == "clear soft-dirty" => {
            "; the kernel was built without soft-dirty bits"
        }
        Errno::EINVAL if call == "zap" => {
            "; the range of addresses is empty or not of whole pages, or has memory that is \
             locked, that a device maps without pages, or part of a page of hugetlbfs"
        }
        Errno::EINVAL if call == "protect" => {
            "; the range of addresses is empty or not of whole pages, or ends inside of a leaf \
             that its mapping cannot serve smaller (device-DAX)"
        }
        Errno::ENOSYS if call == "zap" => {
            "; the kernel has no kcmp(2), which tells whose memory it is (CONFIG_KCMP)"
        }
        Errno::EPERM if call == "zap" => "; a part of the range is sealed (mseal) against this",
        Errno::ENOTTY => call_help(call, errno),
        Errno::EBADF => "; the process file descriptor is not one",
        Errno::ESRCH => "; the process has ended",
        Errno::EACCES => "; only who may trace the process may do this: run it as root",
        Errno::EINVAL => "; the range of addresses is empty, or not of whole pages",
        Errno::ENOMEM => "; a part of the range is not mapped, or there is not enough memory",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_says_what_to_do() {
        let open = |errno| {
            Error::Open {
                path: "/dev/mmops".into(),
                errno,
            }
            .to_string()
        };
        assert!(open(Errno::ENOENT).contains("modprobe mmops_test"));
        assert!(open(Errno::EACCES).contains("root"));
        let call = |errno| {
            Error::Call {
                call: "harvest",
                errno,
            }
            .to_string()
        };
        assert!(call(Errno::ENODEV).contains("cannot be mapped shared"));
        assert!(call(Errno::EOPNOTSUPP).contains("hugetlbfs"));
        let track = Error::Call {
            call: "track a file",
            errno: Errno::EOPNOTSUPP,
        };
        assert!(track.to_string().contains("harvest its dirty bits"));
        let process = |call, errno| Error::Process { call, errno }.to_string();
        assert!(process("age", Errno::EINVAL).ends_with("or not of whole pages"));
        assert!(process("zap", Errno::EINVAL).contains("locked"));
        assert!(process("zap", Errno::EPERM).contains("sealed"));
        assert!(process("protect", Errno::EINVAL).contains("device-DAX"));
        assert!(process("protect", Errno::EOPNOTSUPP).contains("what the mappings allow"));
        assert!(process("clear soft-dirty", Errno::EOPNOTSUPP).contains("soft-dirty bits"));
        // Of a call that has no such error, nothing is made up.
        assert!(!process("age", Errno::EOPNOTSUPP).contains(';'));
        let version = Error::Version {
            driver: 0x0002_0003,
            program: 0x0001_0001,
        }
        .to_string();
        assert!(version.contains("2.3") && version.contains("1.x"));
    }
}
