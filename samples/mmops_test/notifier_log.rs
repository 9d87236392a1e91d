// SPDX-License-Identifier: GPL-2.0

//! `MMOPS_IOC_NOTIFIER_*`: what a driver is told about an address space, for programs to read.
//!
//! A subscription belongs to an open file. What it is told goes to a ring of fixed size: nothing is
//! allocated in a callback, and what does not fit is counted.

use crate::{
    addr_range,
    address_space,
    uapi,
    Device, //
};
use core::pin::Pin;
use kernel::{
    new_condvar,
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        CondVar,
        SpinLock, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    },
    uaccess::UserSlice, //
};
use mmops::{
    new_interval_notifier,
    notifier::{
        Event,
        IntervalNotifier,
        IntervalOps,
        Invalidated,
        MmNotifier,
        MmOps,
        Owner, //
    }, //
};

/// Events that one call copies at a time.
const CHUNK: usize = 64;

/// What [`Device`] holds for this file.
pub(crate) type Slot = Option<Arc<Subscription>>;

/// What a file is subscribed to.
pub(crate) struct Subscription {
    log: Arc<Log>,
    source: Source,
}

enum Source {
    Range(Pin<KBox<IntervalNotifier<RangeLog>>>),
    Mm(#[expect(dead_code)] Pin<KBox<MmNotifier<MmLog>>>),
}

/// Subscribes the file to a range, or to all of an address space.
pub(crate) fn subscribe(me: Pin<&Device>, arg: &mut uapi::NotifierSubscribe) -> Result {
    let whole = arg.flags & uapi::NOTIFIER_MM != 0;
    let filter = arg.flags & uapi::NOTIFIER_FILTER != 0;

    if !(1..=uapi::NOTIFIER_MAX_EVENTS).contains(&arg.capacity) || whole && filter {
        return Err(EINVAL);
    }

    let range = if whole {
        if arg.addr != 0 || arg.len != 0 {
            return Err(EINVAL);
        }
        None
    } else {
        Some(addr_range(arg.addr, arg.len)?)
    };
    let mut slot = me.subscription.lock();

    if slot.is_some() {
        return Err(EBUSY);
    }

    let mm = address_space(arg.pidfd)?;
    let log = Log::new(arg.capacity as usize, me.owner.clone())?;
    let source = match range {
        Some(range) => {
            let data = RangeLog {
                log: log.clone(),
                filter,
            };

            Source::Range(KBox::try_pin_init(
                new_interval_notifier!(&mm, range, data),
                GFP_KERNEL,
            )?)
        }
        None => Source::Mm(KBox::try_pin_init(
            MmNotifier::new(&mm, MmLog(log.clone())),
            GFP_KERNEL,
        )?),
    };

    *slot = Some(Arc::new(Subscription { log, source }, GFP_KERNEL)?);
    Ok(())
}

/// Copies what was heard of to the caller, and waits for the first of it if asked to.
pub(crate) fn log(me: Pin<&Device>, arg: &mut uapi::NotifierLog) -> Result {
    let room = arg.nr as usize;
    let subscription = subscription(me)?;
    let log = &subscription.log;
    let events = UserEvents::new(arg.events as usize, room)?;
    let mut chunk = KVec::with_capacity(CHUNK, GFP_KERNEL)?;

    // What is taken out of the ring is gone, so see first that it can be delivered.
    events.probe()?;

    if arg.flags & uapi::NOTIFIER_WAIT != 0 {
        let mut ring = log.ring.lock();

        while ring.len == 0 && !ring.released {
            if log.news.wait_interruptible(&mut ring) {
                // A call that is made again, after a stop for instance, finds its argument as it
                // was.
                return Err(ERESTARTSYS);
            }
        }
    }

    arg.nr = 0;
    arg.lost = 0;
    arg.released = 0;
    loop {
        let left = core::cmp::min(CHUNK, room - arg.nr as usize);
        let mut ring = log.ring.lock();

        chunk.clear();
        while chunk.len() < left {
            let Some(event) = ring.pop() else { break };

            chunk.push_within_capacity(event).map_err(|_| ENOMEM)?;
        }
        if chunk.is_empty() {
            arg.lost = core::mem::take(&mut ring.lost);
            arg.released = u32::from(ring.released && ring.len == 0);
            return Ok(());
        }
        drop(ring);
        events.store(arg.nr as usize, &chunk)?;
        arg.nr += chunk.len() as u32;
    }
}

/// Looks up nothing for a while, and says whether what was looked up would be void.
pub(crate) fn probe(me: Pin<&Device>, arg: &mut uapi::NotifierProbe) -> Result {
    let subscription = subscription(me)?;
    let Source::Range(notifier) = &subscription.source else {
        return Err(ENOENT);
    };

    if arg.delay_ms > uapi::NOTIFIER_MAX_DELAY_MS {
        return Err(EINVAL);
    }

    let token = notifier.read_begin()?;

    fsleep(Delta::from_millis(i64::from(arg.delay_ms)));

    let hint = notifier.has_collided(&token);

    arg.collided = u32::from(notifier.lock_if_current(token).is_none());
    arg.hint = u32::from(hint);
    Ok(())
}

fn subscription(me: Pin<&Device>) -> Result<Arc<Subscription>> {
    me.subscription.lock().clone().ok_or(ENOENT)
}

/// The log of a range.
struct RangeLog {
    log: Arc<Log>,
    /// Leave out what comes from the owner of the log.
    filter: bool,
}

impl IntervalOps for RangeLog {
    fn invalidate(self: Pin<&mut Self>, what: &Invalidated) {
        if !self.filter || !what.is_from(&self.log.owner) {
            self.log.record(what, false);
        }
    }
}

/// The log of an address space.
struct MmLog(Arc<Log>);

impl MmOps for MmLog {
    fn invalidate_range_start(&self, what: &Invalidated) {
        self.0.record(what, false);
    }

    fn invalidate_range_end(&self, what: &Invalidated) {
        self.0.record(what, true);
    }

    fn release(&self) {
        self.0.release();
    }
}

/// What is heard of, until it is read.
#[pin_data]
struct Log {
    #[pin]
    ring: SpinLock<Ring>,
    #[pin]
    news: CondVar,
    since: Instant<Monotonic>,
    owner: Owner,
}

impl Log {
    fn new(capacity: usize, owner: Owner) -> Result<Arc<Self>> {
        let mut events = KVVec::new();

        events.resize(capacity, uapi::NotifierEvent::default(), GFP_KERNEL)?;

        let ring = Ring {
            events,
            first: 0,
            len: 0,
            lost: 0,
            released: false,
        };

        Arc::pin_init(
            pin_init!(Self {
                ring <- new_spinlock!(ring),
                news <- new_condvar!(),
                since: Instant::now(),
                owner,
            }),
            GFP_KERNEL,
        )
    }

    fn record(&self, what: &Invalidated, end: bool) {
        let mut flags = 0;

        if what.may_block() {
            flags |= uapi::NOTIFIER_BLOCKABLE;
        }
        if what.is_from(&self.owner) {
            flags |= uapi::NOTIFIER_OWN;
        }
        if end {
            flags |= uapi::NOTIFIER_END;
        }

        let mut ring = self.ring.lock();

        ring.released |= what.event() == Event::Release;
        ring.push(uapi::NotifierEvent {
            time: self.since.elapsed().as_nanos() as u64,
            start: what.range().start() as u64,
            end: what.range().end() as u64,
            event: number(what.event()),
            flags,
        });
        drop(ring);
        self.news.notify_all();
    }

    /// The address space of a whole-mm subscription ends.
    fn release(&self) {
        let mut ring = self.ring.lock();

        if !ring.released {
            ring.released = true;
            ring.push(uapi::NotifierEvent {
                time: self.since.elapsed().as_nanos() as u64,
                start: 0,
                end: u64::MAX,
                event: number(Event::Release),
                flags: uapi::NOTIFIER_BLOCKABLE,
            });
        }
        drop(ring);
        self.news.notify_all();
    }
}

/// The number of an event in the interface: that of C's `enum mmu_notifier_event`.
fn number(event: Event) -> u32 {
    match event {
        Event::Unmap => 0,
        Event::Clear => 1,
        Event::ProtectionVma => 2,
        Event::ProtectionPage => 3,
        Event::SoftDirty => 4,
        Event::Release => 5,
        Event::Migrate => 6,
        Event::Exclusive => 7,
    }
}

/// The events that nobody has read yet, of a number that is fixed when the file subscribes.
struct Ring {
    events: KVVec<uapi::NotifierEvent>,
    first: usize,
    len: usize,
    lost: u64,
    released: bool,
}

impl Ring {
    fn push(&mut self, event: uapi::NotifierEvent) {
        let capacity = self.events.len();
        let slot = (self.first + self.len) % capacity;

        match self.events.get_mut(slot) {
            Some(free) if self.len < capacity => {
                *free = event;
                self.len += 1;
            }
            _ => self.lost += 1,
        }
    }

    fn pop(&mut self) -> Option<uapi::NotifierEvent> {
        if self.len == 0 {
            return None;
        }

        let event = self.events.get(self.first).copied();

        self.first = (self.first + 1) % self.events.len();
        self.len -= 1;
        event
    }
}

/// An array of events in user memory.
struct UserEvents {
    addr: usize,
    room: usize,
}

impl UserEvents {
    fn new(addr: usize, room: usize) -> Result<Self> {
        if room == 0
            || room > uapi::NOTIFIER_MAX_EVENTS as usize
            || addr % align_of::<uapi::NotifierEvent>() != 0
        {
            return Err(EINVAL);
        }
        addr.checked_add(room * size_of::<uapi::NotifierEvent>())
            .ok_or(EFAULT)?;
        Ok(Self { addr, room })
    }

    fn store(&self, index: usize, events: &[uapi::NotifierEvent]) -> Result {
        let size = size_of::<uapi::NotifierEvent>();

        UserSlice::new(
            UserPtr::from_addr(self.addr + index * size),
            size_of_val(events),
        )
        .writer()
        .write_slice(events.as_bytes())
    }

    fn probe(&self) -> Result {
        let nothing = [uapi::NotifierEvent::default(); 16];
        let mut index = 0;

        while index < self.room {
            let nr = core::cmp::min(nothing.len(), self.room - index);

            self.store(index, nothing.get(..nr).unwrap_or(&[]))?;
            index += nr;
        }
        Ok(())
    }
}
