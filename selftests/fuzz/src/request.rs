// SPDX-License-Identifier: GPL-2.0

//! The calls of the devices, and which errors `Documentation/uapi.rst` has for each.

use mmops_raw::sandbox::{
    hmm_dmirror_cmd, mmops_leafmap_serve, mmops_leafmap_unmap, mmops_walk, Call, Place, Sandbox,
};
use mmops_raw::sys::*;
use nix::errno::Errno::{self, *};

use crate::world::World;

/// Which open file of the device a call is issued to.
pub type File = usize;

macro_rules! requests {
    ($($device:ident { $($variant:ident($type:ty), $name:literal, [$($errno:ident)*];)+ })+) => {
        /// A call of a device, with its argument.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Request {
            $($(
                #[doc = concat!("`", $name, "`")]
                $variant($type),
            )+)+
        }

        impl Request {
            /// The name of the call's number; of other devices than `/dev/mmops`, in C.
            pub fn name(&self) -> &'static str {
                match self { $($(Self::$variant(_) => $name,)+)+ }
            }

            /// Its device, by the name of a variable in C.
            pub fn device(&self) -> &'static str {
                match self { $($(Self::$variant(_) => stringify!($device),)+)+ }
            }

            /// The errors that are documented. What a fatal signal alone ends does not fail with
            /// `EINTR` here. None, if there is no list of them.
            pub fn documented(&self) -> &'static [Errno] {
                match self { $($(Self::$variant(_) => &[$($errno),*],)+)+ }
            }

            /// Issues it. The error is none if there is no such device.
            pub fn issue(
                &mut self,
                sandbox: &Sandbox,
                world: &World,
                file: File,
                place: Place,
            ) -> Option<nix::Result<i32>> {
                match self { $($(
                    Self::$variant(arg) => Some(sandbox.ioctl(world.$device(file)?, arg, place)),
                )+)+ }
            }

            /// The argument, as Rust prints it.
            pub fn argument(&self) -> String {
                match self { $($(Self::$variant(arg) => format!("{arg:?}"),)+)+ }
            }

            /// The number of the call.
            pub fn number(&self) -> u32 {
                fn number<C: Call>(_: &C) -> u32 {
                    C::NUMBER
                }
                match self { $($(Self::$variant(arg) => number(arg),)+)+ }
            }
        }

        #[cfg(test)]
        const DOCUMENTED: &[(&str, &[Errno])] = &[$($(($name, &[$($errno),*]),)+)+];
    };
}

requests! {
    mmops {
        Info(mmops_info), "MMOPS_IOC_INFO", [EFAULT EINVAL];
        WriteProtect(mmops_write_protect), "MMOPS_IOC_WRITE_PROTECT",
            [EFAULT EINVAL EBADF EACCES ENODEV EOPNOTSUPP ENOMEM];
        CleanRecord(mmops_clean_record), "MMOPS_IOC_CLEAN_RECORD",
            [EFAULT EINVAL EBADF EACCES ENODEV EOPNOTSUPP ENOMEM];
        Zap(mmops_zap), "MMOPS_IOC_ZAP", [EFAULT EINVAL EBADF ESRCH EACCES ENOMEM EPERM];
        SoftDirtyClear(mmops_soft_dirty_clear), "MMOPS_IOC_SOFT_DIRTY_CLEAR",
            [EFAULT EINVAL EBADF ESRCH EACCES EOPNOTSUPP ENOMEM];
        Exclusive(mmops_exclusive), "MMOPS_IOC_EXCLUSIVE",
            [EFAULT EINVAL EBADF ESRCH EACCES EOPNOTSUPP ENOMEM];
        Revoke(mmops_revoke), "MMOPS_IOC_REVOKE", [EFAULT EINVAL EBADF ESRCH EACCES ENOMEM];
        AtomicAdd(mmops_atomic_add), "MMOPS_IOC_ATOMIC_ADD",
            [EFAULT EINVAL EBADF ESRCH EACCES EINTR EOPNOTSUPP ENOMEM];
        NotifierLog(mmops_notifier_log), "MMOPS_IOC_NOTIFIER_LOG",
            [EFAULT EINVAL ENOENT ENOMEM EINTR];
        Protect(mmops_protect), "MMOPS_IOC_PROTECT",
            [EFAULT EINVAL EBADF ESRCH EACCES ENOMEM EOPNOTSUPP];
        Leaves(mmops_leaves), "MMOPS_IOC_LEAVES", [EFAULT EINVAL EBADF ESRCH EACCES ENOMEM];
        NotifierSubscribe(mmops_notifier_subscribe), "MMOPS_IOC_NOTIFIER_SUBSCRIBE",
            [EFAULT EINVAL EBUSY EBADF ESRCH EACCES ENOMEM EINTR];
        NotifierProbe(mmops_notifier_probe), "MMOPS_IOC_NOTIFIER_PROBE", [EFAULT EINVAL ENOENT];
        Age(mmops_age), "MMOPS_IOC_AGE", [EFAULT EINVAL EBADF ESRCH EACCES];
        TrackOpen(mmops_track_open), "MMOPS_IOC_TRACK_OPEN",
            [EFAULT EINVAL EBUSY EBADF ESRCH EACCES ENODEV EOPNOTSUPP ENOMEM EINTR];
        TrackBegin(mmops_track_begin), "MMOPS_IOC_TRACK_BEGIN", [EFAULT EINVAL ENODEV EBUSY ENOMEM];
        TrackRead(mmops_track_read), "MMOPS_IOC_TRACK_READ",
            [EFAULT EINVAL ENOMEM ENODEV ENOENT ESTALE];
        TrackEnd(mmops_track_end), "MMOPS_IOC_TRACK_END", [EFAULT EINVAL ENODEV ENOENT];
        TrackBitmap(mmops_track_bitmap), "MMOPS_IOC_TRACK_BITMAP",
            [EFAULT EINVAL ENOMEM ENODEV ENOENT ESTALE];
    }
    mirror {
        MirrorRead(hmm_dmirror_cmd<0>), "HMM_DMIRROR_READ", [];
        MirrorWrite(hmm_dmirror_cmd<1>), "HMM_DMIRROR_WRITE", [];
        MirrorMigrate(hmm_dmirror_cmd<2>), "HMM_DMIRROR_MIGRATE_TO_DEV", [];
        MirrorSnapshot(hmm_dmirror_cmd<4>), "HMM_DMIRROR_SNAPSHOT", [];
        MirrorExclusive(hmm_dmirror_cmd<5>), "HMM_DMIRROR_EXCLUSIVE", [];
        MirrorCheck(hmm_dmirror_cmd<6>), "HMM_DMIRROR_CHECK_EXCLUSIVE", [];
        MirrorUnlocked(hmm_dmirror_cmd<9>), "HMM_DMIRROR_READ without its lock", [];
    }
    walk {
        Walk(mmops_walk), "MMOPS_WALK_IOC", [];
    }
    leafmap {
        LeafmapServe(mmops_leafmap_serve), "MMOPS_LEAFMAP_IOC_SERVE", [];
        LeafmapUnmap(mmops_leafmap_unmap), "MMOPS_LEAFMAP_IOC_UNMAP", [];
    }
}

impl Request {
    /// Whether a call that succeeded says that it did all that was asked for.
    pub fn is_complete(&self) -> bool {
        match self {
            Self::WriteProtect(arg) => arg.done.0 == arg.nr,
            Self::CleanRecord(arg) => arg.done.0 == arg.nr,
            Self::Zap(arg) => arg.done.0 == arg.len,
            Self::SoftDirtyClear(arg) => {
                arg.flags & MMOPS_SOFT_DIRTY_ALL != 0 || arg.done.0 == arg.len
            }
            Self::Exclusive(arg) => arg.done.0 == arg.len,
            Self::Revoke(arg) => arg.done.0 == arg.len,
            Self::AtomicAdd(arg) => arg.added == arg.nr.wrapping_mul(arg.rounds),
            Self::Protect(arg) => arg.done.0 == arg.len,
            Self::Age(arg) => arg.done.0 == arg.len,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Of `Documentation/uapi.rst`, what is between the heading of a call and the next heading.
    fn section<'a>(text: &'a str, name: &str) -> &'a str {
        let heading = format!("\n{name}\n{}\n", "=".repeat(name.len()));
        let start = text.find(&heading).expect(name) + heading.len();
        let end = text[start..]
            .find("\n===")
            .map_or(text.len(), |end| start + end);
        // The next table may end it as well; the next heading does.
        let next = text[start..]
            .find("\nMMOPS_IOC_")
            .map_or(text.len(), |end| start + end);
        &text[start..end.max(next)]
    }

    #[test]
    fn errors_are_documented() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Documentation/uapi.rst");
        let text = std::fs::read_to_string(path).unwrap();
        let mut calls = 0;
        for (name, documented) in DOCUMENTED {
            if !name.starts_with("MMOPS_IOC_") {
                continue;
            }
            calls += 1;
            for errno in *documented {
                let errno = format!("``{errno:?}``");
                assert!(section(&text, name).contains(&errno), "{name} {errno}");
            }
        }
        assert_eq!(calls, 19);
    }
}
