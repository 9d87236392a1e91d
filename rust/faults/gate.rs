// SPDX-License-Identifier: GPL-2.0

//! Points at which a thread stops until a test lets it go.

use crate::{
    faults::gates_given_up,
    signal, //
};
use core::{
    hint,
    marker::PhantomData, //
};
use kernel::{
    debugfs::ScopedDir,
    fmt,
    prelude::*,
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    },
    uaccess::UserSliceReader, //
};

/// What a gate is about to do.
#[derive(Clone, Copy)]
struct State {
    /// Changes with each write: who stands there goes on when it does.
    turn: u16,
    /// Threads that pass before any stops.
    pass: u16,
    /// Threads that stop after them.
    stop: u16,
    /// Threads that stand there.
    standing: u16,
}

impl State {
    fn from_raw(raw: u64) -> Self {
        Self {
            turn: raw as u16,
            pass: (raw >> 16) as u16,
            stop: (raw >> 32) as u16,
            standing: (raw >> 48) as u16,
        }
    }

    fn as_raw(self) -> u64 {
        u64::from(self.turn)
            | u64::from(self.pass) << 16
            | u64::from(self.stop) << 32
            | u64::from(self.standing) << 48
    }
}

/// What gates of both kinds have in common.
struct Place {
    state: Atomic<u64>,
}

impl Place {
    const fn new() -> Self {
        Self {
            state: Atomic::new(0),
        }
    }

    fn make_file(&'static self, dir: &ScopedDir<'static, '_>, name: &CStr) {
        dir.read_write_callback_file(name, self, &Self::show, &Self::write);
    }

    fn load(&self) -> State {
        State::from_raw(self.state.load(Relaxed))
    }

    /// Changes the state unless `f` says `None`; what it was before.
    fn update(&self, f: impl Fn(State) -> Option<State>) -> Option<State> {
        loop {
            let old = self.load();
            let new = f(old)?;

            if self.state.cmpxchg(old.as_raw(), new.as_raw(), Full).is_ok() {
                return Some(old);
            }
        }
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.load().standing)
    }

    /// Takes "N" or "N K": the next N threads stop, after K that pass.
    fn write(&self, reader: &mut UserSliceReader) -> Result {
        let mut text = [0u8; 16];
        let len = reader.len();

        reader.read_slice(text.get_mut(..len).ok_or(EINVAL)?)?;

        let text = core::str::from_utf8(text.get(..len).ok_or(EINVAL)?).map_err(|_| EINVAL)?;
        let mut numbers = text.split_ascii_whitespace().map(str::parse::<u16>);
        let stop = numbers.next().ok_or(EINVAL)?.map_err(|_| EINVAL)?;
        let pass = numbers.next().unwrap_or(Ok(0)).map_err(|_| EINVAL)?;

        if numbers.next().is_some() {
            return Err(EINVAL);
        }
        self.update(|old| {
            Some(State {
                turn: old.turn.wrapping_add(1),
                pass,
                stop,
                standing: 0,
            })
        });
        Ok(())
    }

    /// Somebody comes; the turn to wait out if it is to stop.
    #[inline(always)]
    fn come(&self) -> Option<u16> {
        if self.load().stop == 0 {
            return None;
        }
        self.stop()
    }

    #[cold]
    fn stop(&self) -> Option<u16> {
        let before = self.update(|old| match old {
            State { stop: 0, .. } => None,
            State { pass: 0, .. } => Some(State {
                stop: old.stop - 1,
                standing: old.standing.saturating_add(1),
                ..old
            }),
            _ => Some(State {
                pass: old.pass - 1,
                ..old
            }),
        })?;

        (before.pass == 0).then_some(before.turn)
    }

    /// Stands there until the turn is over, or `wait` says that it waits no longer.
    fn stand(&self, turn: u16, patience: Delta, wait: impl Fn() -> Result) {
        let start = Instant::<Monotonic>::now();

        while self.load().turn == turn {
            let is_late = start.elapsed().as_nanos() > patience.as_nanos();

            if is_late {
                gates_given_up();
            }
            if is_late || wait().is_err() {
                self.update(|old| {
                    (old.turn == turn).then_some(State {
                        standing: old.standing.saturating_sub(1),
                        ..old
                    })
                });
                return;
            }
        }
    }
}

/// How a thread waits that stands at a gate.
pub(crate) trait Wait {
    /// How long it does.
    const PATIENCE: Delta;

    /// Waits for a while; an error ends it.
    fn wait() -> Result;
}

/// It sleeps.
pub(crate) struct Sleep;

impl Wait for Sleep {
    const PATIENCE: Delta = Delta::from_secs(60);

    fn wait() -> Result {
        fsleep(Delta::from_micros(200));
        signal::pending()
    }
}

/// It spins, since it holds a spinlock.
pub(crate) struct Spin;

impl Wait for Spin {
    /// Less than what the kernel calls a lockup.
    const PATIENCE: Delta = Delta::from_secs(10);

    fn wait() -> Result {
        hint::spin_loop();
        Ok(())
    }
}

/// A gate.
pub(crate) struct GateFor<W> {
    place: Place,
    wait: PhantomData<W>,
}

/// Who stands there sleeps.
pub(crate) type Gate = GateFor<Sleep>;
/// Who stands there spins, since it holds a spinlock.
pub(crate) type SpinGate = GateFor<Spin>;

impl<W: Wait + Sync> GateFor<W> {
    pub(in crate::faults) const fn new() -> Self {
        Self {
            place: Place::new(),
            wait: PhantomData,
        }
    }

    pub(in crate::faults) fn make_file(&'static self, dir: &ScopedDir<'static, '_>, name: &CStr) {
        self.place.make_file(dir, name);
    }

    #[inline(always)]
    pub(in crate::faults) fn reached(&self) {
        if let Some(turn) = self.place.come() {
            self.stand(turn);
        }
    }

    #[cold]
    fn stand(&self, turn: u16) {
        self.place.stand(turn, W::PATIENCE, W::wait);
    }
}
