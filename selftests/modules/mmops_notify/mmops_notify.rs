// SPDX-License-Identifier: GPL-2.0

//! `/dev/mmops_notify`: a driver that uses its subscriptions where it would wait for itself, and
//! leaves them behind. For tests; the interface is `mmops_notify.h`.

#[macro_use]
#[path = "../misc_device.rs"]
mod misc_device;

use core::{
    fmt::Write,
    marker::PhantomData,
    pin::Pin, //
};
use kernel::{
    ioctl::_IOWR,
    mm::MmWithUser,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        SetOnce, //
    }, //
};
use mmops::{
    dirty::{
        self,
        Huge, //
    },
    gather::with_gather,
    hmm::{
        self,
        Access,
        Mirror, //
    },
    kthread,
    mapping::Mapping,
    mm::{
        self,
        MmapRead, //
    },
    new_interval_notifier,
    new_mirror,
    notifier::{
        with_invalidation,
        ChangeEvent,
        IntervalNotifier,
        IntervalOps,
        Invalidated,
        MmNotifier,
        MmOps, //
    },
    pgtable::PteTable,
    range::{
        AddrRange,
        PageRange, //
    },
    tlb::FlushScope,
    track::{
        Mode,
        Tracker, //
    },
    walk::{
        walk_page_mapping,
        walk_page_range,
        Action,
        Unlocked,
        Walk, //
    }, //
};
use zerocopy_derive::Immutable;

module! {
    type: MmopsNotify,
    name: "mmops_notify",
    authors: ["The mmops authors"],
    description: "Misused subscriptions, for tests of mmops",
    license: "GPL",
    imports_ns: ["MMOPS"],
}

const READ_BEGIN: u32 = 0;
const FAULT: u32 = 1;
const FAULT_UNLOCKED: u32 = 2;
const EXCLUSIVE: u32 = 3;
const NEW: u32 = 4;
const NEW_MM: u32 = 5;
const DROP: u32 = 6;
const DROP_MM: u32 = 7;
const KEEP: u32 = 8;
const DEBUG: u32 = 9;
const THREAD: u32 = 10;
const DROP_TRACKER: u32 = 11;
const WRITE_PROTECT: u32 = 12;
const LOCK: u32 = 13;

const OUTSIDE: u32 = 0;
const WITH: u32 = 1;
const GATHER: u32 = 2;
const WALK: u32 = 3;
const LOOK: u32 = 4;
const CALLBACK: u32 = 5;
const CALLBACK_MM: u32 = 6;
const LOOK_FILE: u32 = 7;
const I_MMAP: u32 = 8;

const IOC: u32 = _IOWR::<Arg>(0xBB, 0x00);

/// `struct mmops_notify`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Arg {
    what: u32,
    place: u32,
    addr: u64,
    len: u64,
    told: u64,
    error: i32,
    fd: i32,
    text: [u8; 256],
}

misc_device!(MmopsNotify, c"mmops_notify", {
    IOC => Arg::run,
});

/// How often all that is [`Told`] was told.
static TOLD: Atomic<u64> = Atomic::new(0);

/// What is never dropped.
static KEPT: SetOnce<Arc<Kept>> = SetOnce::new();

type Interval = Pin<KBox<IntervalNotifier<Told>>>;
type OfMm = Pin<KBox<MmNotifier<Told>>>;

/// Two subscriptions, each of which holds this: so all of it is found from what the kernel knows
/// of, and is no leak, when the module has gone.
#[pin_data]
struct Kept {
    #[pin]
    interval: Mutex<Option<Interval>>,
    #[pin]
    of_mm: Mutex<Option<OfMm>>,
}

impl Kept {
    fn new(range: AddrRange) -> Result<Arc<Self>> {
        let mm = mm::current()?;
        let kept = Arc::pin_init(
            pin_init!(Self {
                interval <- new_mutex!(None),
                of_mm <- new_mutex!(None),
            }),
            GFP_KERNEL,
        )?;
        let told = || Told {
            shared: None,
            _kept: Some(kept.clone()),
        };

        *kept.interval.lock() = Some(interval(&mm, range, told())?);
        *kept.of_mm.lock() = Some(of_mm(&mm, told())?);
        Ok(kept)
    }
}

/// What is to be done, and where; and what it is done with.
#[pin_data]
struct Shared {
    what: u32,
    place: u32,
    range: AddrRange,
    fd: i32,
    user: ARef<MmWithUser>,
    idle: Pin<KBox<IntervalNotifier<Idle>>>,
    mirror: Pin<KBox<Mirror<Idle>>>,
    #[pin]
    interval: Mutex<Option<Interval>>,
    #[pin]
    of_mm: Mutex<Option<OfMm>>,
    #[pin]
    tracker: Mutex<Option<Tracker>>,
    /// What it came to, and what a callback was told.
    #[pin]
    result: Mutex<Option<(Result, Text)>>,
}

/// A string in a place of its own: nothing may be allocated in a callback.
#[derive(Clone, Copy)]
struct Text {
    bytes: [u8; 256],
    len: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            bytes: [0; 256],
            len: 0,
        }
    }
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let end = self.len + s.len();

        // The last byte stays zero.
        if end >= self.bytes.len() {
            return Err(core::fmt::Error);
        }
        self.bytes
            .get_mut(self.len..end)
            .ok_or(core::fmt::Error)?
            .copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// A driver whose callbacks do what is to be done.
struct Told {
    shared: Option<Arc<Shared>>,
    _kept: Option<Arc<Kept>>,
}

impl Told {
    fn told(&self, place: u32, what: &Invalidated) {
        if let Some(shared) = self.shared.clone() {
            if shared.place == place && shared.result.lock().is_none() {
                let result = shared.act();
                let mut text = Text::default();
                // What has no room is left out.
                let _ = write!(text, "{what:?}");

                *shared.result.lock() = Some((result, text));
            }
        }
    }
}

impl IntervalOps for Told {
    fn invalidate(self: Pin<&mut Self>, what: &Invalidated) {
        TOLD.fetch_add(1, Relaxed);
        self.told(CALLBACK, what);
    }
}

impl MmOps for Told {
    fn invalidate_range_start(&self, what: &Invalidated) {
        self.told(CALLBACK_MM, what);
    }

    fn invalidate_range_end(&self, _what: &Invalidated) {}

    fn release(&self) {}
}

/// A driver, and a device, with nothing to do.
struct Idle;

impl IntervalOps for Idle {
    fn invalidate(self: Pin<&mut Self>, _what: &Invalidated) {}
}

impl MmOps for Idle {
    fn invalidate_range_start(&self, _what: &Invalidated) {}

    fn invalidate_range_end(&self, _what: &Invalidated) {}

    fn release(&self) {}
}

impl hmm::Device for Idle {
    fn invalidate(&mut self, _what: &Invalidated) {}
}

/// The two walks: what is to be done is done before the first table.
struct Walker<'s, H> {
    shared: &'s Shared,
    result: Option<Result>,
    hold: PhantomData<H>,
}

/// Of a walk that reads.
struct Reads;

/// Of a walk that changes entries.
struct Changes;

impl<'s, H> Walker<'s, H> {
    fn new(shared: &'s Shared) -> Self {
        Self {
            shared,
            result: None,
            hold: PhantomData,
        }
    }

    fn act(&mut self) {
        let shared = self.shared;

        self.result.get_or_insert_with(|| shared.act());
    }
}

impl Walk for Walker<'_, Reads> {
    type Hold<'s> = ();

    fn checkpoint(&mut self, _nr: usize, _hold: &mut Unlocked<'_, '_, Self>) -> Result {
        self.act();
        Ok(())
    }

    fn pte_table<'s>(&mut self, _table: &mut PteTable<'_, 's>, (): &mut ()) -> Result<Action> {
        Ok(Action::Done)
    }
}

impl Walk for Walker<'_, Changes> {
    type Hold<'s> = FlushScope<'s>;

    const EVENT: ChangeEvent = ChangeEvent::PROTECTION_PAGE;

    fn checkpoint(&mut self, _nr: usize, _hold: &mut Unlocked<'_, '_, Self>) -> Result {
        self.act();
        Ok(())
    }

    fn pte_table<'s>(
        &mut self,
        _table: &mut PteTable<'_, 's>,
        _scope: &mut FlushScope<'s>,
    ) -> Result<Action> {
        Ok(Action::Done)
    }
}

fn interval<T: IntervalOps>(
    mm: &MmWithUser,
    range: AddrRange,
    data: T,
) -> Result<Pin<KBox<IntervalNotifier<T>>>> {
    KBox::try_pin_init(new_interval_notifier!(mm, range, data), GFP_KERNEL)
}

fn of_mm<T: MmOps>(mm: &MmWithUser, data: T) -> Result<Pin<KBox<MmNotifier<T>>>> {
    KBox::try_pin_init(MmNotifier::new(mm, data), GFP_KERNEL)
}

impl Shared {
    fn new(what: u32, place: u32, range: AddrRange, fd: i32) -> Result<Arc<Self>> {
        let user = mm::current()?;
        let tracker = if what == DROP_TRACKER {
            Some(Tracker::new(&user, &range, Mode::Fast)?)
        } else {
            None
        };
        let idle = interval(&user, range, Idle)?;
        let mirror = KBox::try_pin_init(new_mirror!(&user, range, Idle)?, GFP_KERNEL)?;
        let shared = Arc::pin_init(
            pin_init!(Self {
                what,
                place,
                range,
                fd,
                user,
                idle,
                mirror,
                interval <- new_mutex!(None),
                of_mm <- new_mutex!(None),
                tracker <- new_mutex!(tracker),
                result <- new_mutex!(None),
            }),
            GFP_KERNEL,
        )?;
        let told = || Told {
            shared: Some(shared.clone()),
            _kept: None,
        };
        let of_range = interval(&shared.user, range, told())?;
        let of_mm = of_mm(&shared.user, told())?;

        *shared.interval.lock() = Some(of_range);
        *shared.of_mm.lock() = Some(of_mm);
        Ok(shared)
    }

    /// Does what is to be done, wherever this is called.
    fn act(&self) -> Result {
        match self.what {
            READ_BEGIN => self.idle.read_begin().map(|_token| ()),
            FAULT => self.mirror.fault(&self.range, Access::Read),
            FAULT_UNLOCKED => self.mirror.fault_unlocked(&self.range, Access::Read),
            EXCLUSIVE => self.mirror.make_exclusive(&self.range),
            NEW => interval(&self.user, self.range, Idle).map(drop),
            NEW_MM => of_mm(&self.user, Idle).map(drop),
            DROP => {
                let notifier = self.interval.lock().take();

                drop(notifier);
                Ok(())
            }
            DROP_MM => {
                let notifier = self.of_mm.lock().take();

                drop(notifier);
                Ok(())
            }
            DROP_TRACKER => {
                let tracker = self.tracker.lock().take();

                drop(tracker);
                Ok(())
            }
            WRITE_PROTECT => {
                let range = PageRange::new(0, self.range.nr_pages())?;

                dirty::write_protect(&mut Mapping::fget(self.fd)?, &range, Huge::Keep)?.check()
            }
            LOCK => Mapping::fget(self.fd)?.i_mmap_lock_read(|_guard| Ok(())),
            DEBUG => Ok(()),
            // It could wait for whatever this is inside of.
            THREAD => kthread::run(c"mmops-notify", |_waiter| ()),
            _ => Err(EINVAL),
        }
    }

    /// Calls [`Self::act`] inside of what is asked for.
    fn act_inside(&self) -> Result {
        match self.place {
            OUTSIDE => return self.act(),
            I_MMAP => return Mapping::fget(self.fd)?.i_mmap_lock_read(|_guard| self.act()),
            LOOK_FILE => {
                let range = PageRange::new(0, self.range.nr_pages())?;
                let mut walker = Walker::<Reads>::new(self);

                Mapping::fget(self.fd)?
                    .i_mmap_lock_read(|guard| walk_page_mapping(guard, &range, &mut walker))?;
                return walker.result.unwrap_or(Err(ENOENT));
            }
            _ => {}
        }

        let mut guard = MmapRead::lock(&self.user);
        let result = match self.place {
            WITH => with_invalidation(&guard, &self.range, ChangeEvent::CLEAR, || self.act()),
            GATHER => with_gather(&mut guard, &self.range, |_gather| self.act()),
            WALK => {
                let mut walker = Walker::<Changes>::new(self);

                walk_page_range(&mut guard, &self.range, &mut walker)?;
                walker.result.unwrap_or(Err(ENOENT))
            }
            LOOK => {
                let mut walker = Walker::<Reads>::new(self);

                walk_page_range(&mut guard, &self.range, &mut walker)?;
                walker.result.unwrap_or(Err(ENOENT))
            }
            CALLBACK | CALLBACK_MM => {
                with_invalidation(&guard, &self.range, ChangeEvent::CLEAR, || ());
                match &*self.result.lock() {
                    Some((result, _)) => *result,
                    None => Err(ENOENT),
                }
            }
            _ => Err(EINVAL),
        };

        drop(guard);
        result
    }

    /// What a driver gets, printed for debugging.
    fn print(&self, to: &mut [u8]) -> Result {
        let token = self.idle.read_begin()?;
        let mut text = Text::default();

        if let Some((_, told)) = &*self.result.lock() {
            text = *told;
        }
        write!(text, " {token:?}").map_err(|_| ENOSPC)?;
        to.copy_from_slice(&text.bytes);
        Ok(())
    }
}

impl Arg {
    fn run(&mut self) -> Result {
        let end = self.addr.checked_add(self.len).ok_or(EINVAL)?;
        let range = AddrRange::new(self.addr as usize, end as usize)?;

        self.told = TOLD.load(Relaxed);
        if self.what == KEEP {
            KEPT.populate(Kept::new(range)?);
            return Ok(());
        }

        let shared = Shared::new(self.what, self.place, range, self.fd)?;

        self.error = shared.act_inside().err().map_or(0, Error::to_errno);
        if self.what == DEBUG {
            shared.print(&mut self.text)?;
        }

        // They hold what holds them.
        let interval = shared.interval.lock().take();
        let of_mm = shared.of_mm.lock().take();

        drop((interval, of_mm));
        Ok(())
    }
}
