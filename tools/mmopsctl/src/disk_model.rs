// SPDX-License-Identifier: GPL-2.0

//! A disk in memory, which can be stopped after each step, and lose what was not synced.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{bail, ensure, Context, Result};
use fastrand::Rng;

use crate::disk::{Disk, Name};

/// Bytes that a file can have.
const MOST: u64 = 1 << 20;

/// Which sync does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    Contents(Name),
    Names,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    SetSize(usize),
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => {
                let end = offset + bytes.len();
                contents.resize(contents.len().max(end), 0);
                contents[*offset..end].copy_from_slice(bytes);
            }
            Self::SetSize(size) => contents.resize(*size, 0),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum NameChange {
    Add(Name, usize),
    Rename(Name, Name),
    Remove(Name),
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<Name, usize>) {
        match self {
            Self::Add(name, file) => {
                names.insert(name, file);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(&from) {
                    names.insert(to, file);
                }
            }
            Self::Remove(name) => {
                names.remove(&name);
            }
        }
    }
}

/// What is there, what would be after a loss of power, and the changes from that to this.
#[derive(Clone, Debug)]
struct Synced<T, C> {
    now: T,
    lasting: T,
    changes: Vec<C>,
}

impl<T: Clone + Default, C> Default for Synced<T, C> {
    fn default() -> Self {
        Self {
            now: T::default(),
            lasting: T::default(),
            changes: Vec::new(),
        }
    }
}

impl<T: Clone, C> Synced<T, C> {
    fn sync(&mut self) {
        self.lasting = self.now.clone();
        self.changes.clear();
    }
}

#[derive(Clone, Debug, Default)]
struct Inner {
    files: Vec<Synced<Vec<u8>, Change>>,
    names: Synced<BTreeMap<Name, usize>, NameChange>,
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    inner: RefCell<Inner>,
    lie: Cell<Option<Lie>>,
    /// Steps made.
    pub steps: Cell<usize>,
    /// The step at which whoever uses it is killed.
    pub kill_at: Cell<Option<usize>>,
}

impl Model {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_lie(self, lie: Option<Lie>) -> Self {
        self.lie.set(lie);
        self
    }

    pub fn contents(&self, name: Name) -> Option<Vec<u8>> {
        let inner = self.inner.borrow();
        let file = inner.names.now.get(&name)?;
        Some(inner.files[*file].now.clone())
    }

    /// Starts again after a kill; or a loss of power, which each change survives by chance.
    pub fn restart(&self, power_loss: Option<&mut Rng>) {
        self.steps.set(0);
        self.kill_at.set(None);
        let Some(rng) = power_loss else { return };
        let mut inner = self.inner.borrow_mut();
        for file in &mut inner.files {
            let mut contents = file.lasting.clone();
            for change in &file.changes {
                if rng.bool() {
                    change.apply(&mut contents);
                }
            }
            file.now = contents;
            file.sync();
        }
        // File systems have a journal of these.
        let names = &mut inner.names;
        names.now = names.lasting.clone();
        let survive = rng.usize(..=names.changes.len());
        for change in &names.changes[..survive] {
            change.apply(&mut names.now);
        }
        names.sync();
    }

    /// A step that changes something; whether it is the last one, and is made in part alone.
    fn step(&self) -> Result<bool> {
        let step = self.steps.get();
        self.steps.set(step + 1);
        match self.kill_at.get() {
            Some(at) if step > at => bail!("killed"),
            at => Ok(at == Some(step)),
        }
    }

    fn change(&self, name: Name, change: Change) -> Result<()> {
        let is_last = self.step()?;
        let change = match change {
            Change::Write(offset, bytes) if is_last => {
                Change::Write(offset, bytes[..bytes.len() / 2].to_vec())
            }
            change => change,
        };
        let mut inner = self.inner.borrow_mut();
        let file = inner.names.now.get(&name).copied();
        let file = &mut inner.files[file.context("no such file")?];
        change.apply(&mut file.now);
        file.changes.push(change);
        ensure!(!is_last, "killed");
        Ok(())
    }

    fn change_name(&self, change: NameChange) -> Result<()> {
        let is_last = self.step()?;
        let names = &mut self.inner.borrow_mut().names;
        change.apply(&mut names.now);
        names.changes.push(change);
        ensure!(!is_last, "killed");
        Ok(())
    }

    fn has(&self, name: Name) -> Result<()> {
        ensure!(self.contents(name).is_some(), "no {name:?}");
        Ok(())
    }
}

impl Disk for &Model {
    fn size(&self, name: Name) -> Result<Option<u64>> {
        Ok(self.contents(name).map(|contents| contents.len() as u64))
    }

    fn read(&self, name: Name, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let contents = self.contents(name).context("no such file")?;
        let start = contents.len().min(offset as usize);
        let length = buffer.len().min(contents.len() - start);
        buffer[..length].copy_from_slice(&contents[start..start + length]);
        Ok(length)
    }

    fn create(&self, name: Name) -> Result<()> {
        if self.has(name).is_ok() {
            return self.change(name, Change::SetSize(0));
        }
        let mut inner = self.inner.borrow_mut();
        inner.files.push(Synced::default());
        let file = inner.files.len() - 1;
        drop(inner);
        self.change_name(NameChange::Add(name, file))
    }

    fn write(&self, name: Name, bytes: &[u8], offset: u64) -> Result<()> {
        self.change(name, Change::Write(offset as usize, bytes.to_vec()))
    }

    fn set_size(&self, name: Name, size: u64) -> Result<()> {
        ensure!(size <= MOST, "too large");
        self.change(name, Change::SetSize(size as usize))
    }

    fn make_hole(&self, name: Name, range: Range<u64>) -> Result<()> {
        let size = self.contents(name).context("no such file")?.len();
        let (start, end) = (range.start as usize, (range.end as usize).min(size));
        let zeroes = vec![0; end.saturating_sub(start)];
        self.change(name, Change::Write(start, zeroes))
    }

    fn sync(&self, name: Name) -> Result<()> {
        let is_last = self.step()?;
        self.has(name)?;
        ensure!(!is_last, "killed");
        if self.lie.get() != Some(Lie::Contents(name)) {
            let mut inner = self.inner.borrow_mut();
            let file = inner.names.now[&name];
            inner.files[file].sync();
        }
        Ok(())
    }

    fn rename(&self, from: Name, to: Name) -> Result<()> {
        self.has(from)?;
        self.change_name(NameChange::Rename(from, to))
    }

    fn remove(&self, name: Name) -> Result<()> {
        self.has(name)?;
        self.change_name(NameChange::Remove(name))
    }

    fn sync_names(&self) -> Result<()> {
        ensure!(!self.step()?, "killed");
        if self.lie.get() != Some(Lie::Names) {
            self.inner.borrow_mut().names.sync();
        }
        Ok(())
    }
}
