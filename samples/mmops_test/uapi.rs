// SPDX-License-Identifier: GPL-2.0

//! `include/uapi/linux/mmops.h` in Rust, and how an argument gets in and out.

use kernel::{
    ioctl::_IOWR,
    prelude::*,
    uaccess::UserSlice, //
};
use zerocopy::Immutable;
use zerocopy_derive::Immutable;

pub(crate) const VERSION: u32 = 0x0001_0006;

pub(crate) const FEATURE_WRITE_PROTECT: u64 = 1 << 0;
pub(crate) const FEATURE_CLEAN_RECORD: u64 = 1 << 1;
pub(crate) const FEATURE_HUGE_LEAVES: u64 = 1 << 2;
pub(crate) const FEATURE_ZAP: u64 = 1 << 3;
pub(crate) const FEATURE_SOFT_DIRTY: u64 = 1 << 4;
pub(crate) const FEATURE_EXCLUSIVE: u64 = 1 << 5;
pub(crate) const FEATURE_NOTIFIER: u64 = 1 << 6;
pub(crate) const FEATURE_PROTECT: u64 = 1 << 7;
pub(crate) const FEATURE_LEAVES: u64 = 1 << 8;
pub(crate) const FEATURE_AGE: u64 = 1 << 9;
pub(crate) const FEATURE_TRACK: u64 = 1 << 10;
pub(crate) const FEATURE_TRACK_FULL: u64 = 1 << 11;
pub(crate) const FEATURE_TRACK_FILE: u64 = 1 << 12;
pub(crate) const FEATURE_TRACK_KINDS: u64 = 1 << 13;
pub(crate) const FEATURE_TRACK_BITMAP: u64 = 1 << 14;
pub(crate) const FEATURE_FAULTS: u64 = 1 << 63;

pub(crate) const SPLIT: u32 = 1 << 0;
pub(crate) const NO_TRANSFER: u32 = 1 << 1;

pub(crate) const SOFT_DIRTY_ALL: u32 = 1 << 0;
pub(crate) const SOFT_DIRTY_FORGET: u32 = 1 << 1;

pub(crate) const ATOMIC_ADD_MAX_PAGES: usize = 4096;

pub(crate) const PROTECT_LARGE: u32 = 1 << 0;

pub(crate) const NOTIFIER_MM: u32 = 1 << 0;
pub(crate) const NOTIFIER_FILTER: u32 = 1 << 1;
pub(crate) const NOTIFIER_WAIT: u32 = 1 << 0;
pub(crate) const NOTIFIER_BLOCKABLE: u32 = 1 << 0;
pub(crate) const NOTIFIER_OWN: u32 = 1 << 1;
pub(crate) const NOTIFIER_END: u32 = 1 << 2;
pub(crate) const NOTIFIER_MAX_EVENTS: u32 = 1 << 16;
pub(crate) const NOTIFIER_MAX_DELAY_MS: u32 = 1000;

pub(crate) const TRACK_FAST: u32 = 1 << 0;
pub(crate) const TRACK_FULL: u32 = 1 << 1;
pub(crate) const TRACK_FILE: u32 = 1 << 2;
pub(crate) const TRACK_KINDS: u32 = 1 << 3;
pub(crate) const TRACK_OVERFLOW: u32 = 1 << 0;
pub(crate) const TRACK_ENDED: u32 = 1 << 1;
pub(crate) const TRACK_WRITTEN: u32 = 1;
pub(crate) const TRACK_CHANGED: u32 = 2;
pub(crate) const TRACK_PINNED: u32 = 3;
pub(crate) const TRACK_NEW: u32 = 4;
pub(crate) const TRACK_GONE: u32 = 5;
pub(crate) const TRACK_ABORT: u32 = 1 << 0;

const MAGIC: u32 = 0xBD;

/// The argument of an ioctl.
pub(crate) trait Arg: FromBytes + IntoBytes + Immutable {
    /// Number of the ioctl; it holds the size of the argument.
    const IOCTL: u32;

    /// Whether all reserved fields are zero and all flags are known.
    fn is_valid(&self) -> bool;
}

/// `struct mmops_info`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Info {
    pub(crate) version: u32,
    pub(crate) page_size: u32,
    pub(crate) features: u64,
    reserved: [u64; 4],
}

impl Arg for Info {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x00);

    fn is_valid(&self) -> bool {
        self.reserved == [0; 4]
    }
}

/// `struct mmops_write_protect`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct WriteProtect {
    pub(crate) fd: i32,
    pub(crate) flags: u32,
    pub(crate) first: u64,
    pub(crate) nr: u64,
    pub(crate) write_protected: u64,
    pub(crate) done: u64,
    reserved: [u64; 2],
}

impl Arg for WriteProtect {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x01);

    fn is_valid(&self) -> bool {
        self.reserved == [0; 2] && self.flags & !SPLIT == 0
    }
}

/// `struct mmops_clean_record`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct CleanRecord {
    pub(crate) fd: i32,
    pub(crate) flags: u32,
    pub(crate) first: u64,
    pub(crate) nr: u64,
    pub(crate) bitmap_pgoff: u64,
    pub(crate) bitmap: u64,
    pub(crate) bitmap_bits: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) cleaned: u64,
    pub(crate) done: u64,
    reserved: [u64; 2],
}

impl Arg for CleanRecord {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x02);

    fn is_valid(&self) -> bool {
        self.reserved == [0; 2] && self.flags & !(SPLIT | NO_TRANSFER) == 0
    }
}

/// `struct mmops_zap`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Zap {
    pub(crate) pidfd: i32,
    pub(crate) flags: u32,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) zapped: u64,
    pub(crate) done: u64,
    reserved: [u64; 2],
}

impl Arg for Zap {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x03);

    fn is_valid(&self) -> bool {
        self.reserved == [0; 2] && self.flags == 0
    }
}

/// `struct mmops_soft_dirty_clear`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct SoftDirtyClear {
    pub(crate) pidfd: i32,
    pub(crate) flags: u32,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) cleared: u64,
    pub(crate) kept: u64,
    pub(crate) done: u64,
    reserved: [u64; 2],
}

impl Arg for SoftDirtyClear {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x04);

    fn is_valid(&self) -> bool {
        let is_all = self.flags & SOFT_DIRTY_ALL != 0;

        self.reserved == [0; 2]
            && self.flags & !(SOFT_DIRTY_ALL | SOFT_DIRTY_FORGET) == 0
            && !(is_all && (self.flags != SOFT_DIRTY_ALL || self.addr != 0 || self.len != 0))
    }
}

/// `struct mmops_exclusive`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Exclusive {
    pub(crate) pidfd: i32,
    pub(crate) flags: u32,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) results: u64,
    pub(crate) exclusive: u64,
    pub(crate) done: u64,
    reserved: [u64; 2],
}

impl Arg for Exclusive {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x05);

    fn is_valid(&self) -> bool {
        self.reserved == [0; 2] && self.flags == 0
    }
}

/// `struct mmops_revoke`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Revoke {
    pub(crate) pidfd: i32,
    pub(crate) flags: u32,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) revoked: u64,
    pub(crate) done: u64,
    reserved: [u64; 2],
}

impl Arg for Revoke {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x06);

    fn is_valid(&self) -> bool {
        self.reserved == [0; 2] && self.flags == 0
    }
}

/// `struct mmops_atomic_add`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct AtomicAdd {
    pub(crate) pidfd: i32,
    pub(crate) flags: u32,
    pub(crate) addr: u64,
    pub(crate) stride: u64,
    pub(crate) nr: u64,
    pub(crate) value: u64,
    pub(crate) rounds: u64,
    pub(crate) added: u64,
    pub(crate) taken: u64,
    reserved: [u64; 2],
}

impl Arg for AtomicAdd {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x07);

    fn is_valid(&self) -> bool {
        self.reserved == [0; 2] && self.flags == 0
    }
}

/// `struct mmops_notifier_event`
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct NotifierEvent {
    pub(crate) time: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) event: u32,
    pub(crate) flags: u32,
}

/// `struct mmops_notifier_log`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct NotifierLog {
    pub(crate) events: u64,
    pub(crate) nr: u32,
    pub(crate) flags: u32,
    pub(crate) lost: u64,
    pub(crate) released: u32,
    reserved0: u32,
    reserved: [u64; 2],
}

impl Arg for NotifierLog {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x08);

    fn is_valid(&self) -> bool {
        self.reserved0 == 0 && self.reserved == [0; 2] && self.flags & !NOTIFIER_WAIT == 0
    }
}

/// `struct mmops_notifier_subscribe`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct NotifierSubscribe {
    pub(crate) pidfd: i32,
    pub(crate) flags: u32,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) capacity: u32,
    reserved0: u32,
    reserved: [u64; 2],
}

impl Arg for NotifierSubscribe {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x0b);

    fn is_valid(&self) -> bool {
        self.reserved0 == 0
            && self.reserved == [0; 2]
            && self.flags & !(NOTIFIER_MM | NOTIFIER_FILTER) == 0
    }
}

/// `struct mmops_notifier_probe`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct NotifierProbe {
    pub(crate) delay_ms: u32,
    pub(crate) collided: u32,
    pub(crate) hint: u32,
    reserved0: u32,
    reserved: [u64; 2],
}

impl Arg for NotifierProbe {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x0c);

    fn is_valid(&self) -> bool {
        self.reserved0 == 0 && self.reserved == [0; 2]
    }
}

/// `struct mmops_protect`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Protect {
    pub(crate) pidfd: i32,
    pub(crate) flags: u32,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) prot: u32,
    pad: u32,
    pub(crate) ptes: u64,
    pub(crate) pmds: u64,
    pub(crate) puds: u64,
    pub(crate) split_pmds: u64,
    pub(crate) split_puds: u64,
    pub(crate) done: u64,
    reserved: [u64; 2],
}

impl Arg for Protect {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x09);

    fn is_valid(&self) -> bool {
        self.reserved == [0; 2] && self.pad == 0 && self.flags & !PROTECT_LARGE == 0
    }
}

/// `struct mmops_leaf`
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Leaf {
    addr: u64,
    state: u32,
    shift: u8,
    kind: u8,
    reserved: u16,
}

impl Leaf {
    pub(crate) fn new(addr: u64, state: u32, shift: u8, kind: u8) -> Self {
        Self {
            addr,
            state,
            shift,
            kind,
            reserved: 0,
        }
    }
}

/// `struct mmops_leaves`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Leaves {
    pub(crate) pidfd: i32,
    pub(crate) flags: u32,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) vec: u64,
    pub(crate) vec_len: u64,
    pub(crate) nr: u64,
    pub(crate) next: u64,
    reserved: [u64; 2],
}

impl Arg for Leaves {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x0a);

    fn is_valid(&self) -> bool {
        self.reserved == [0; 2] && self.flags == 0
    }
}

/// `struct mmops_age`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Age {
    pub(crate) pidfd: i32,
    pub(crate) flags: u32,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) aged: u64,
    pub(crate) kept: u64,
    pub(crate) done: u64,
    reserved: [u64; 2],
}

impl Arg for Age {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x0d);

    fn is_valid(&self) -> bool {
        self.reserved == [0; 2] && self.flags == 0
    }
}

/// `struct mmops_track_open`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct TrackOpen {
    pub(crate) pidfd: i32,
    pub(crate) flags: u32,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    reserved: [u64; 2],
}

impl Arg for TrackOpen {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x0e);

    fn is_valid(&self) -> bool {
        let mode = self.flags & !(TRACK_FILE | TRACK_KINDS);

        self.reserved == [0; 2] && matches!(mode, TRACK_FAST | TRACK_FULL)
    }
}

/// `struct mmops_track_begin`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct TrackBegin {
    pub(crate) flags: u32,
    pub(crate) state: u32,
    pub(crate) written: u64,
    pub(crate) changed: u64,
    reserved: [u64; 2],
}

impl Arg for TrackBegin {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x0f);

    fn is_valid(&self) -> bool {
        self.reserved == [0; 2] && self.flags == 0
    }
}

/// `struct mmops_track_range`
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct TrackRange {
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) kind: u32,
    pub(crate) reserved: u32,
}

/// `struct mmops_track_read`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct TrackRead {
    pub(crate) addr: u64,
    pub(crate) vec: u64,
    pub(crate) vec_len: u64,
    pub(crate) nr: u64,
    pub(crate) needed: u64,
    reserved: [u64; 2],
}

impl Arg for TrackRead {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x10);

    fn is_valid(&self) -> bool {
        self.reserved == [0; 2]
    }
}

/// `struct mmops_track_bitmap`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct TrackBitmap {
    pub(crate) addr: u64,
    pub(crate) bitmap: u64,
    pub(crate) words: u64,
    pub(crate) kinds: u32,
    flags: u32,
    pub(crate) nr: u64,
    reserved: [u64; 2],
}

impl Arg for TrackBitmap {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x12);

    fn is_valid(&self) -> bool {
        self.reserved == [0; 2] && self.flags == 0
    }
}

/// `struct mmops_track_end`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct TrackEnd {
    pub(crate) flags: u32,
    pad: u32,
    reserved: [u64; 2],
}

impl Arg for TrackEnd {
    const IOCTL: u32 = _IOWR::<Self>(MAGIC, 0x11);

    fn is_valid(&self) -> bool {
        self.pad == 0 && self.reserved == [0; 2] && self.flags & !TRACK_ABORT == 0
    }
}

/// Reads an argument, calls `f`, and writes the argument back even if `f` fails: what was done
/// before a failure is told in it.
///
/// `f` is called only if the argument can be written back.
pub(crate) fn with_arg<A: Arg>(
    user: impl Fn() -> UserSlice,
    f: impl FnOnce(&mut A) -> Result,
) -> Result<isize> {
    let mut arg = A::new_zeroed();

    user().reader().read_slice(arg.as_mut_bytes())?;
    user().writer().write_slice(arg.as_bytes())?;
    if !arg.is_valid() {
        return Err(EINVAL);
    }

    let ret = f(&mut arg);

    user().writer().write_slice(arg.as_bytes())?;
    ret.map(|()| 0)
}
