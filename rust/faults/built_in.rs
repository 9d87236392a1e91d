// SPDX-License-Identifier: GPL-2.0

//! Kinds of lines of the table in the build with faults.

use kernel::{
    c_str,
    debugfs::{
        Dir,
        Scope,
        ScopedDir, //
    },
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::{
        delay::udelay,
        Delta, //
    }, //
};

/// What the code asks a line of the table.
pub(crate) trait Kind {
    type Answer;

    fn reached(&self) -> Self::Answer;
}

/// On while its file holds another number than 0.
pub(crate) struct Fault(Atomic<u32>);

impl Fault {
    pub(super) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    pub(super) fn make_file(&'static self, dir: &ScopedDir<'static, '_>, name: &CStr) {
        dir.read_write_file(name, &self.0);
    }
}

impl Kind for Fault {
    type Answer = bool;

    fn reached(&self) -> bool {
        self.0.load(Relaxed) != 0
    }
}

/// How often the code came by.
pub(crate) struct Count(Atomic<u32>);

impl Count {
    pub(super) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    pub(super) fn make_file(&'static self, dir: &ScopedDir<'static, '_>, name: &CStr) {
        dir.read_write_file(name, &self.0);
    }
}

impl Kind for Count {
    type Answer = ();

    fn reached(&self) {
        self.0.add(1, Relaxed);
    }
}

/// The longest delay that a control can ask for, in microseconds.
const MAX_DELAY_US: u32 = 500_000;

static WINDOWS_OPEN: Atomic<u32> = Atomic::new(0);

/// A window that stays open for so many microseconds as its file says.
pub(crate) struct Delay(Atomic<u32>);

impl Delay {
    pub(super) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    pub(super) fn make_file(&'static self, dir: &ScopedDir<'static, '_>, name: &CStr) {
        dir.read_write_file(name, &self.0);
    }
}

impl Kind for Delay {
    type Answer = ();

    fn reached(&self) {
        let us = self.0.load(Relaxed).min(MAX_DELAY_US);

        if us != 0 {
            WINDOWS_OPEN.add(1, Relaxed);
            for _ in 0..us / 1000 {
                udelay(Delta::from_millis(1));
            }
            udelay(Delta::from_micros((us % 1000).into()));
            WINDOWS_OPEN.fetch_sub(1, Relaxed);
        }
    }
}

/// The answer of a fault, kept for later.
pub(crate) struct Kept(bool);

impl Kept {
    pub(crate) fn new(answer: bool) -> Self {
        Self(answer)
    }

    pub(crate) fn get(&self) -> bool {
        self.0
    }
}

/// The files of the table, which vanish with the value.
#[pin_data]
struct Directory {
    dir: Dir,
    #[pin]
    files: Scope<()>,
}

pub(crate) struct Files {
    _directory: Pin<KBox<Directory>>,
}

impl Files {
    pub(crate) fn new() -> Result<Self> {
        let dir = Dir::new(c_str!("mmops"));

        let directory = KBox::try_pin_init(
            try_pin_init!(Directory {
                files <- dir.scope((), c_str!("faults"), |(), dir| {
                    super::make_files(dir);
                    dir.read_only_file(c_str!("windows_open"), &WINDOWS_OPEN);
                }),
                dir: dir.clone(),
            }? Error),
            GFP_KERNEL,
        )?;

        Ok(Self {
            _directory: directory,
        })
    }
}
