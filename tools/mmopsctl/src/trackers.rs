// SPDX-License-Identifier: GPL-2.0

//! The trackers of a process: enough of them for all of its mappings.

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use mmops_uapi::{Changed, Epoch, Error, Mode, Tracker};
use procfs::process::{MMapPath, MemoryMap};

/// Memory is tracked in multiples of this: a mapping that grows, or one beside another, needs no
/// tracker of its own.
const GRANULE: u64 = 64 << 20;
/// A mapping that is larger would need too much memory to be tracked.
const LARGEST: u64 = 64 << 30;

/// Whether a mapping is not the process's own.
pub fn is_of_kernel(map: &MemoryMap) -> bool {
    match &map.pathname {
        MMapPath::Vdso | MMapPath::Vvar | MMapPath::Vsyscall => true,
        MMapPath::Other(name) => name.starts_with("vvar"),
        _ => false,
    }
}

/// Whether a mapping is not tracked.
pub fn is_too_large(map: &MemoryMap) -> bool {
    map.address.1 - map.address.0 > LARGEST
}

/// Numbers of the granules in which something is mapped.
fn granules(maps: &[MemoryMap]) -> BTreeSet<u64> {
    let maps = maps.iter().filter(|map| !is_too_large(map));
    maps.flat_map(|map| map.address.0 / GRANULE..map.address.1.div_ceil(GRANULE))
        .collect()
}

/// The addresses of consecutive granules, none of them larger than can be told apart.
fn runs(granules: &BTreeSet<u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for granule in granules {
        let (start, end) = (granule * GRANULE, (granule + 1) * GRANULE);
        match runs.last_mut() {
            Some(run) if run.end == start && end - run.start <= LARGEST => run.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

/// The trackers of a process.
#[derive(Debug)]
pub struct Trackers {
    mode: Mode,
    /// In ascending order.
    trackers: Vec<Tracker>,
    /// Whether the memory of one of them is not that of the process any more.
    is_stale: bool,
}

impl Trackers {
    /// None yet.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            trackers: Vec::new(),
            is_stale: false,
        }
    }

    /// Sees to it that all of `maps` are tracked, but for those that are too large.
    pub fn follow(&mut self, pidfd: BorrowedFd<'_>, maps: &[MemoryMap]) -> Result<(), Error> {
        if std::mem::take(&mut self.is_stale) {
            self.trackers.clear();
        }
        let wanted = granules(maps);
        self.trackers.retain(|tracker| {
            let range = tracker.range();
            wanted
                .range(range.start / GRANULE..range.end / GRANULE)
                .next()
                .is_some()
        });
        let mut missing = wanted;
        for tracker in &self.trackers {
            let range = tracker.range();
            missing.retain(|granule| !range.contains(&(granule * GRANULE)));
        }
        for range in runs(&missing) {
            self.trackers
                .push(Tracker::new(Some(pidfd), range, self.mode)?);
        }
        self.trackers.sort_by_key(|tracker| tracker.range().start);
        Ok(())
    }

    /// The addresses that are tracked, in ascending order.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        self.trackers.iter().map(Tracker::range).collect()
    }

    /// Begins an epoch of each.
    ///
    /// None if the process has executed another program. Any of them may be the only one to tell,
    /// since others may be of the new program already. [`Trackers::follow`] makes new ones then,
    /// and all of the memory is new.
    pub fn begin(&mut self) -> Result<Option<Epochs<'_>>, Error> {
        let (mut epochs, mut pages) = (Vec::new(), Vec::new());
        for tracker in &mut self.trackers {
            let epoch = tracker.begin()?;
            if epoch.has_ended() {
                self.is_stale = true;
                return Ok(None);
            }
            pages.extend(epoch.pages()?);
            epochs.push(epoch);
        }
        Ok(Some(Epochs { epochs, pages }))
    }
}

/// An epoch of each tracker.
#[derive(Debug)]
pub struct Epochs<'t> {
    epochs: Vec<Epoch<'t>>,
    /// In ascending order.
    pub pages: Vec<Changed>,
}

impl Epochs<'_> {
    /// The pages are done with.
    pub fn commit(self) -> Result<(), Error> {
        self.epochs.into_iter().try_for_each(Epoch::commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Memory;

    #[test]
    fn consecutive_granules_are_one_range() {
        let of = |granules: &[u64]| runs(&granules.iter().copied().collect());
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[0, 1, 3]), [0..2 * GRANULE, 3 * GRANULE..4 * GRANULE]);
        let many: Vec<u64> = (5..5 + LARGEST / GRANULE + 2).collect();
        let end = 5 * GRANULE + LARGEST;
        assert_eq!(of(&many), [5 * GRANULE..end, end..end + 2 * GRANULE]);
    }

    #[test]
    fn own_mappings_are_covered() {
        let memory = Memory::of(std::process::id() as i32).unwrap();
        let mut maps = memory.accessible_maps().unwrap();
        maps.retain(|map| !is_of_kernel(map));
        let here = own_mappings_are_covered as fn() as usize as u64;
        let covered = runs(&granules(&maps));
        assert!(covered.iter().any(|range| range.contains(&here)));
        assert!(covered.iter().all(|range| range.end >> 63 == 0));
    }
}
