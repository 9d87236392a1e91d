// SPDX-License-Identifier: GPL-2.0

//! What a tracker collects until its next epoch begins, and what it is told of invalidations.

use super::{
    bits::{
        Bits,
        Pages, //
    },
    Mode, //
};
use crate::{
    faults,
    module_ref::ModuleRef,
    notifier::{
        Event,
        Invalidated,
        MmOps, //
    }, //
};
use kernel::{
    c_str,
    fs::File,
    new_spinlock,
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        poll::{
            PollCondVarBox,
            PollTable, //
        },
        Arc,
        SpinLock, //
    }, //
};

/// Invalidations of one range that are under way at the same time and told apart.
const IN_FLIGHT: usize = 64;

/// Invalidations that have begun and not ended.
struct InFlight {
    /// What they change.
    ranges: [Pages; IN_FLIGHT],
    /// Entries of `ranges` that are in use: the first.
    nr: usize,
    /// Those that found no room. All of the range may change.
    more: usize,
}

impl InFlight {
    const UNUSED: Pages = Pages { first: 0, end: 1 };

    fn begin(&mut self, pages: Pages) {
        match self.ranges.get_mut(self.nr) {
            Some(range) => {
                *range = pages;
                self.nr += 1;
            }
            None => self.more += 1,
        }
    }

    /// One with the same pages as another may be taken for it: the number is right, and so are the
    /// pages of those that are left.
    fn end(&mut self, pages: Pages) {
        let Some(used) = self.ranges.get_mut(..self.nr) else {
            return;
        };

        match used.iter().position(|range| *range == pages) {
            Some(i) => {
                let last = self.nr - 1;

                used.swap(i, last);
                self.nr = last;
            }
            None => self.more = self.more.saturating_sub(1),
        }
    }
}

/// What a tracker collects.
#[pin_data]
pub(super) struct Marks {
    /// What is tracked.
    pub(super) pages: Pages,
    /// How stores are noticed.
    pub(super) mode: Mode,
    /// Pages whose dirty bit was taken.
    pub(super) written: Bits,
    /// Pages whose entry went, or that cannot be tracked.
    pub(super) changed: Bits,
    /// The bits above are missing: all of the range counts as changed.
    pub(super) is_overflow: bool,
    #[pin]
    in_flight: SpinLock<InFlight>,
    has_ended: Atomic<bool>,
    /// Who waits for the end of the address space.
    waiters: PollCondVarBox,
}

impl Marks {
    /// All pages are marked as changed: the first epoch reports them.
    pub(super) fn new(pages: Pages, mode: Mode, bits: Option<(Bits, Bits)>) -> Result<Arc<Self>> {
        let is_overflow = bits.is_none();
        let waiters = PollCondVarBox::new(c_str!("mmops_track_end"), static_lock_class!())?;
        let (written, changed) = bits.unwrap_or((Bits::none(), Bits::none()));

        Arc::pin_init(
            pin_init!(Self {
                pages,
                mode,
                written,
                changed,
                is_overflow,
                in_flight <- new_spinlock!(InFlight {
                    ranges: [InFlight::UNUSED; IN_FLIGHT],
                    nr: 0,
                    more: 0,
                }),
                has_ended: Atomic::new(false),
                waiters,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Whether the address space has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Acquire)
    }

    /// Has whoever polls `file` woken up when the address space ends.
    pub(super) fn register_wait(&self, file: &File, table: &PollTable<'_>) {
        table.register_wait(file, &self.waiters);
    }

    /// Marks what is being invalidated just now: what is there may be stored to until the entries
    /// go, though a harvest has been there.
    pub(super) fn mark_in_flight(&self) {
        if faults::track_skip_in_flight() {
            return;
        }

        let in_flight = self.in_flight.lock();

        for pages in in_flight.ranges.iter().take(in_flight.nr) {
            self.changed.set(pages);
        }
        if in_flight.more != 0 {
            self.changed.set(&self.pages);
        }
    }

    /// The pages of which an invalidation may take what a store leaves behind, or give them new
    /// contents.
    fn affected(&self, what: &Invalidated) -> Option<Pages> {
        match what.event() {
            // Entries stay where they are, and dirty if they were. But who has looked up one that
            // was writable may have stored without making it dirty.
            Event::ProtectionVma | Event::SoftDirty
                if self.mode == Mode::Fast || faults::track_skip_lowered() =>
            {
                None
            }
            // Who harvests tells what was found: see `harvest`.
            Event::ProtectionPage if what.is_harvest() => None,
            _ => Pages::of(what.range()).within(&self.pages),
        }
    }
}

/// The subscription of a tracker. Its callbacks are in `mmops.ko`, which it keeps.
pub(super) struct Watch {
    marks: Arc<Marks>,
    _module: ModuleRef,
}

impl Watch {
    /// # Errors
    ///
    /// `ENODEV` if `mmops.ko` is being unloaded.
    pub(super) fn new(marks: Arc<Marks>) -> Result<Self> {
        Ok(Self {
            marks,
            _module: ModuleRef::get()?,
        })
    }
}

impl MmOps for Watch {
    fn invalidate_range_start(&self, what: &Invalidated) {
        let Some(pages) = self.marks.affected(what) else {
            return;
        };

        // In this order: whoever takes the marks looks for what is under way after that.
        self.marks.in_flight.lock().begin(pages);
        if !faults::track_skip_mark() {
            self.marks.changed.set(&pages);
        }
    }

    fn invalidate_range_end(&self, what: &Invalidated) {
        if let Some(pages) = self.marks.affected(what) {
            self.marks.in_flight.lock().end(pages);
        }
    }

    fn release(&self) {
        self.marks.has_ended.store(true, Release);
        self.marks.waiters.notify_all();
    }
}

#[kunit_tests(mmops_track_marks)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_flight_is_counted() {
        let mut in_flight = InFlight {
            ranges: [InFlight::UNUSED; IN_FLIGHT],
            nr: 0,
            more: 0,
        };
        let pages = |n: usize| Pages {
            first: n,
            end: n + 1,
        };

        for n in 0..IN_FLIGHT + 10 {
            in_flight.begin(pages(n / 2));
        }
        assert_eq!((in_flight.nr, in_flight.more), (IN_FLIGHT, 10));
        // Those that found no room end first, in the place of others where they are the same.
        for n in (0..IN_FLIGHT + 10).rev() {
            in_flight.end(pages(n / 2));
            assert_eq!(in_flight.nr + in_flight.more, n);
        }
        assert_eq!((in_flight.nr, in_flight.more), (0, 0));
    }

    #[test]
    fn too_many_in_flight_mark_all() -> Result {
        let all = Pages {
            first: 100,
            end: 300,
        };
        let one = Pages {
            first: 150,
            end: 151,
        };
        let bits = (Bits::new(&all, false)?, Bits::new(&all, false)?);
        let marks = Marks::new(all, Mode::Fast, Some(bits))?;
        let marked = || -> u32 {
            let mut words = [0u64; 4];

            marks.mark_in_flight();
            marks.changed.take(&mut words);
            words.iter().map(|word| word.count_ones()).sum()
        };

        for _ in 0..IN_FLIGHT {
            marks.in_flight.lock().begin(one);
        }
        assert_eq!(marked(), 1);
        marks.in_flight.lock().begin(one);
        assert_eq!(marked(), 200);
        for _ in 0..=IN_FLIGHT {
            marks.in_flight.lock().end(one);
        }
        assert_eq!(marked(), 0);
        Ok(())
    }
}
