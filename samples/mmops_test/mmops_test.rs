// SPDX-License-Identifier: GPL-2.0

//! The test driver: each operation of the crate `mmops` as an ioctl of `/dev/mmops`.
//!
//! The interface is [`include/uapi/linux/mmops.h`](srctree/include/uapi/linux/mmops.h), described
//! in Documentation/uapi.rst. The driver holds no `unsafe`: it is written against the public API
//! of the crate alone, as any other driver would be.

mod age;
mod exclusive;
mod harvest;
mod leaves;
mod notifier_log;
mod protect;
mod soft_dirty;
mod track;
mod uapi;
mod zap;

use core::pin::Pin;
use kernel::{
    fs::File,
    ioctl::_IOC_SIZE,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    mm::MmWithUser,
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        poll::PollTable,
        Mutex, //
    },
    uaccess::UserSlice, //
};
use mmops::{
    dirty::{
        self,
        Huge, //
    },
    mapping::Mapping,
    mm,
    notifier::Owner,
    range::{
        AddrRange,
        PageRange, //
    },
    track::End, //
};
use uapi::Arg;

module! {
    type: MmopsTest,
    name: "mmops_test",
    authors: ["The mmops authors"],
    description: "Test driver of mmops",
    license: "GPL",
    imports_ns: ["MMOPS"],
}

#[pin_data]
struct MmopsTest {
    #[pin]
    _misc: MiscDeviceRegistration<Device>,
}

impl kernel::InPlaceModule for MmopsTest {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // Of mode 0600, as every misc device that asks for no other.
            _misc <- MiscDeviceRegistration::register(MiscDeviceOptions { name: c"mmops" }),
        })
    }
}

/// Calls the function of the argument that `cmd` stands for.
macro_rules! ioctls {
    ($cmd:ident, $user:ident, { $($arg:ident => $call:expr,)* }) => {
        match $cmd {
            $(uapi::$arg::IOCTL => uapi::with_arg($user, $call),)*
            _ => Err(ENOTTY),
        }
    };
}

/// An open `/dev/mmops`.
#[pin_data]
struct Device {
    /// What the file is subscribed to; see [`notifier_log`].
    #[pin]
    subscription: Mutex<notifier_log::Slot>,
    /// What the file tracks; see [`track`].
    #[pin]
    tracker: Mutex<track::Slot>,
    /// The end of that.
    #[pin]
    tracker_end: Mutex<Option<End>>,
    /// Who makes pages exclusive through the file.
    owner: Owner,
}

#[vtable]
impl MiscDevice for Device {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        KBox::try_pin_init(
            try_pin_init!(Self {
                subscription <- new_mutex!(None),
                tracker <- new_mutex!(None),
                tracker_end <- new_mutex!(None),
                owner: Owner::new()?,
            }),
            GFP_KERNEL,
        )
    }

    fn poll(me: Pin<&Self>, file: &File, table: PollTable<'_>) -> u32 {
        track::poll(me, file, table)
    }

    fn ioctl(me: Pin<&Self>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let user = || UserSlice::new(UserPtr::from_addr(arg), _IOC_SIZE(cmd));

        ioctls!(cmd, user, {
            Info => info,
            WriteProtect => write_protect,
            CleanRecord => harvest::clean_record,
            Zap => zap::zap,
            SoftDirtyClear => soft_dirty::clear,
            Exclusive => |arg| exclusive::exclusive(me, arg),
            Revoke => exclusive::revoke,
            AtomicAdd => exclusive::atomic_add,
            NotifierLog => |arg| notifier_log::log(me, arg),
            NotifierSubscribe => |arg| notifier_log::subscribe(me, arg),
            NotifierProbe => |arg| notifier_log::probe(me, arg),
            Protect => protect::protect,
            Leaves => leaves::leaves,
            Age => age::age,
            TrackOpen => |arg| track::open(me, arg),
            TrackBegin => |arg| track::begin(me, arg),
            TrackRead => |arg| track::read(me, arg),
            TrackEnd => |arg| track::end(me, arg),
            TrackBitmap => |arg| track::bitmap(me, arg),
        })
    }
}

fn info(arg: &mut uapi::Info) -> Result {
    arg.version = uapi::VERSION;
    arg.page_size = PAGE_SIZE as u32;
    arg.features = uapi::FEATURE_WRITE_PROTECT
        | uapi::FEATURE_CLEAN_RECORD
        | uapi::FEATURE_HUGE_LEAVES
        | uapi::FEATURE_ZAP
        | uapi::FEATURE_SOFT_DIRTY
        | uapi::FEATURE_EXCLUSIVE
        | uapi::FEATURE_NOTIFIER
        | uapi::FEATURE_PROTECT
        | uapi::FEATURE_LEAVES
        | uapi::FEATURE_AGE
        | uapi::FEATURE_TRACK
        | uapi::FEATURE_TRACK_FULL
        | uapi::FEATURE_TRACK_FILE
        | uapi::FEATURE_TRACK_KINDS
        | uapi::FEATURE_TRACK_BITMAP
        | if mmops::HAS_FAULTS {
            uapi::FEATURE_FAULTS
        } else {
            0
        };
    Ok(())
}

fn write_protect(arg: &mut uapi::WriteProtect) -> Result {
    let range = PageRange::new(arg.first as usize, arg.nr as usize)?;
    let mut mapping = Mapping::fget(arg.fd)?;
    let protected = dirty::write_protect(&mut mapping, &range, huge(arg.flags))?;

    arg.write_protected = protected.did.pages as u64;
    arg.done = protected.done.0 as u64;
    protected.check()
}

fn huge(flags: u32) -> Huge {
    if flags & uapi::SPLIT != 0 {
        Huge::Split
    } else {
        Huge::Keep
    }
}

/// The address space of the process behind `pidfd`; -1 is the caller itself.
fn address_space(pidfd: i32) -> Result<ARef<MmWithUser>> {
    if pidfd == -1 {
        mm::current()
    } else {
        mm::of_pidfd(pidfd)
    }
}

/// `len` bytes from `addr` on.
fn addr_range(addr: u64, len: u64) -> Result<AddrRange> {
    let end = addr.checked_add(len).ok_or(EINVAL)?;

    AddrRange::new(addr as usize, end as usize)
}
