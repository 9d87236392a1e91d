// SPDX-License-Identifier: GPL-2.0

//! Kinds of lines of the table in the build with faults, and their files.

mod gate;

pub(crate) use gate::{
    Gate,
    SpinGate, //
};

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
    }, //
};

/// On while its file holds another number than 0.
pub(crate) struct Fault(Atomic<u32>);

impl Fault {
    pub(super) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    pub(super) fn make_file(&'static self, dir: &ScopedDir<'static, '_>, name: &CStr) {
        dir.read_write_file(name, &self.0);
    }

    pub(super) fn is_on(&self) -> bool {
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

    pub(super) fn reached(&self) {
        self.0.add(1, Relaxed);
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

#[pin_data]
struct Directory {
    dir: Dir,
    #[pin]
    files: Scope<()>,
}

/// The files of the table, which vanish with the value.
pub(crate) struct Files {
    _directory: Pin<KBox<Directory>>,
}

impl Files {
    pub(crate) fn new() -> Result<Self> {
        let dir = Dir::new(c_str!("mmops"));

        let directory = KBox::try_pin_init(
            try_pin_init!(Directory {
                files <- dir.scope((), c_str!("faults"), |(), dir| super::make_files(dir)),
                dir: dir.clone(),
            }? Error),
            GFP_KERNEL,
        )?;

        Ok(Self {
            _directory: directory,
        })
    }
}
