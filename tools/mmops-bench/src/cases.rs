// SPDX-License-Identifier: GPL-2.0

//! The table of cases: what is measured, against what, and which ratio is wanted.
//!
//! Another operation adds its rows here, a variant of [`Work`] and a module
//! that implements [`Bench`](crate::bench::Bench).

use anyhow::Result;
use mmops_uapi::Mode;

use crate::age::AgeBench;
use crate::bench::Bench;
use crate::dirty::{DirtyBench, Op};
use crate::exclusive::{self, ExclusiveBench};
use crate::layout::Density;
use crate::protect::{Leaves, ProtectBench};
use crate::redis::{self, RedisBench};
use crate::scan::ScanBench;
use crate::soft_dirty::SoftDirtyBench;
use crate::track::{self, TrackBench};
use crate::track_cost::{RemapBench, StoreBench};
use crate::watch::Way;
use crate::zap::{Kind, ZapBench};

const PAGES_64: u32 = 64;
const PAGES_512M: u32 = 512 << 8;
const PAGES_1G: u32 = 1 << 18;
const PAGES_4G: u32 = 4 << 18;

const C_CLEAN: &str = "clean_record_shared_mapping_range";
const C_PROTECT: &str = "wp_shared_mapping_range";
const SCAN: &str = "PAGEMAP_SCAN";
const MPROTECT: &str = "mprotect(2)";
const MAKE_EXCLUSIVE: &str = "make_device_exclusive";
const FAULTS: &str = "a fault per page";
const DONTNEED: &str = "madvise(MADV_DONTNEED)";
const CLEAR_REFS: &str = "/proc/self/clear_refs";
const CLEAR_REFS_OF: &str = "/proc/PID/clear_refs";
const UFFD: &str = "userfaultfd";
const ONE_TRACKER: &str = "one tracker";
const UNTRACKED: &str = "the same, not tracked";
const BARE_READ: &str = "a loop that reads";
const BARE_EXCHANGE: &str = "a loop that exchanges";
const CLEAR_YOUNG: &str = "/proc/self/clear_refs (1)";

/// Calls whose times are added up where a single one is too short for the clock.
const SMALL_CALLS: u32 = 200;

/// What one sample of a case consists of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// `calls` calls over the whole range, timed inside the kernel.
    Dirty { op: Op, calls: u32 },
    /// The same against a bare loop that reads each entry, or replaces it by itself.
    Limit { op: Op, exchange: bool },
    /// One harvest of what was stored to before, timed in userspace.
    Harvest,
    /// The stores and the harvest after them, timed in userspace.
    Round,
    /// Taking all pages away that were stored to before, timed in userspace.
    Zap(Kind),
    /// Making pages exclusive, timed inside the kernel, or giving them back, timed in userspace.
    Exclusive(exclusive::Op),
    /// Taking the write permission and giving it back, timed in userspace.
    Protect(Leaves),
    /// One clearing of soft-dirty bits, of the whole process or of a hundredth of the range in its
    /// middle, timed in userspace.
    SoftDirty { part: bool },
    /// One clearing of accessed bits, timed in userspace.
    Age,
    /// What a tracker does, timed in userspace.
    Track(track::Op),
    /// The stores of so many threads after an epoch has begun.
    TrackedStore { threads: u32 },
    /// A loop that maps, stores and unmaps.
    TrackedRemap,
    /// Requests to redis, which is watched in this way by the reference.
    Redis(Way),
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// `operation/variant/size`.
    pub name: &'static str,
    /// What the kernel offers for the same work.
    pub reference: &'static str,
    /// The wanted ratio of medians, reference / mmops.
    pub wanted: f64,
    /// Size of the range in base pages.
    pub pages: u32,
    /// Which of the pages are dirty or writable before each call.
    pub density: Density,
    /// What is timed.
    pub work: Work,
}

impl Case {
    /// Makes the memory and the descriptors that the case needs.
    pub fn setup(&self) -> Result<Box<dyn Bench>> {
        Ok(match self.work {
            Work::Dirty { op, calls } => {
                Box::new(DirtyBench::new(op, self.pages, self.density, calls)?)
            }
            Work::Limit { op, exchange } => Box::new(DirtyBench::with_limit(
                op,
                self.pages,
                self.density,
                exchange,
            )?),
            Work::Harvest => Box::new(ScanBench::new(self.pages, self.density, false)?),
            Work::Round => Box::new(ScanBench::new(self.pages, self.density, true)?),
            Work::Zap(memory) => Box::new(ZapBench::new(memory, self.pages)?),
            Work::Exclusive(op) => Box::new(ExclusiveBench::new(op, self.pages)?),
            Work::Protect(leaves) => Box::new(ProtectBench::new(leaves, self.pages)?),
            Work::SoftDirty { part } => {
                let middle = self.pages / 2;
                let range = middle..middle + self.pages / 100;
                Box::new(SoftDirtyBench::new(self.pages, part.then_some(range))?)
            }
            Work::Age => Box::new(AgeBench::new(self.pages)?),
            Work::Track(op) => Box::new(TrackBench::new(op, self.pages, self.density)?),
            Work::TrackedStore { threads } => Box::new(StoreBench::new(self.pages, threads)?),
            Work::TrackedRemap => Box::new(RemapBench::new(self.pages)?),
            Work::Redis(reference) => Box::new(RedisBench::new(reference)?),
        })
    }

    /// Number of pairs, if so many are asked for, or none in particular.
    pub fn runs(&self, asked: Option<u32>) -> u32 {
        asked.unwrap_or(match self.work {
            Work::Redis(_) => 5,
            _ => 21,
        })
    }

    /// Roughly what `runs` runs take, in stores to pages: for the time that is left.
    pub fn cost(&self, runs: u32) -> f64 {
        // A fault is some ten times as long as a store; a walk is a fraction of one.
        const FAULT: f64 = 10.0;
        const WALK: f64 = 0.3;
        let pages = f64::from(self.pages);
        let touched = f64::from(self.density.touched(self.pages));
        let sample = match self.work {
            Work::Dirty { calls, .. } => 3.0 * f64::from(calls) * (touched + WALK * pages),
            Work::Limit { .. } => 4.0 * (touched + WALK * pages),
            Work::Harvest | Work::Round => (FAULT + 1.0) * touched + 2.0 * WALK * pages,
            Work::Zap(_) => 2.0 * (FAULT + 1.0) * touched,
            Work::Exclusive(op) => {
                let calls = match op {
                    exclusive::Op::Make { calls, .. } => f64::from(calls),
                    exclusive::Op::Restore => 1.0,
                };
                2.0 * calls * (2.0 * FAULT + 1.0) * pages
            }
            Work::Protect(leaves) => match leaves {
                Leaves::Pte => 4.0 * pages,
                Leaves::Pmd | Leaves::Pud => 0.1 * pages,
            },
            Work::SoftDirty { .. } => 2.0 * (FAULT + WALK) * pages,
            Work::Age => 2.0 * (1.0 + 2.0 * WALK) * pages,
            Work::TrackedStore { .. } => 4.0 * FAULT * pages,
            Work::TrackedRemap => 400.0 * FAULT * pages,
            // Seconds, whatever the pages.
            Work::Redis(_) => 2e7,
            Work::Track(op) => match op {
                track::Op::Begin => 2.0 * (1.0 + 2.0 * WALK) * pages,
                track::Op::Trackers(n) => 2.0 * touched + f64::from(n) * WALK * pages,
                track::Op::Query | track::Op::Round(_) | track::Op::Store(_) => {
                    (FAULT + 1.0) * touched + 2.0 * WALK * pages
                }
            },
        };
        self.memory_pages() as f64 * FAULT + f64::from(runs + 1) * sample
    }

    /// Pages of memory that the case occupies.
    pub fn memory_pages(&self) -> u64 {
        let mappings = match self.work {
            // The memory of a device-DAX is its own.
            Work::Protect(Leaves::Pud) => 0,
            Work::Dirty { .. }
            | Work::Limit { .. }
            | Work::Zap(_)
            | Work::Exclusive(_)
            | Work::Protect(_)
            | Work::SoftDirty { .. }
            | Work::TrackedStore { .. }
            | Work::TrackedRemap
            | Work::Age => 1,
            Work::Track(track::Op::Begin | track::Op::Trackers(_)) => 1,
            Work::Harvest | Work::Round | Work::Track(_) => 2,
            // Two servers, each with twice what the values have.
            Work::Redis(_) => 4,
        };
        u64::from(self.pages) * mappings
    }
}

const fn case(
    name: &'static str,
    reference: &'static str,
    wanted: f64,
    pages: u32,
    density: Density,
    work: Work,
) -> Case {
    Case {
        name,
        reference,
        wanted,
        pages,
        density,
        work,
    }
}

const fn dirty(op: Op) -> Work {
    Work::Dirty { op, calls: 1 }
}

const fn make(calls: u32, second: bool) -> Work {
    Work::Exclusive(exclusive::Op::Make { calls, second })
}

const CLEAN: Op = Op::Clean { transfer: false };
const CLEAN_TRANSFER: Op = Op::Clean { transfer: true };

/// Every case, in the order of the report.
#[rustfmt::skip]
pub const CASES: &[Case] = {
    use Density::{Dense, Sparse};
    &[
        case("dirty/clean/sparse/4GiB", C_CLEAN, 2.5, PAGES_4G, Sparse, dirty(CLEAN)),
        case("dirty/clean/dense/4GiB", C_CLEAN, 1.7, PAGES_4G, Dense, dirty(CLEAN)),
        case("dirty/protect/sparse/4GiB", C_PROTECT, 2.5, PAGES_4G, Sparse, dirty(Op::Protect)),
        case("dirty/protect/dense/4GiB", C_PROTECT, 1.3, PAGES_4G, Dense, dirty(Op::Protect)),
        case("dirty/clean/64p", C_CLEAN, 1.0, PAGES_64, Dense,
             Work::Dirty { op: CLEAN, calls: SMALL_CALLS }),
        case("dirty/protect/64p", C_PROTECT, 1.0, PAGES_64, Dense,
             Work::Dirty { op: Op::Protect, calls: SMALL_CALLS }),
        case("dirty/clean/sparse/4GiB+transfer", C_CLEAN, 2.2, PAGES_4G, Sparse,
             dirty(CLEAN_TRANSFER)),
        case("dirty/clean/dense/4GiB+transfer", C_CLEAN, 1.2, PAGES_4G, Dense,
             dirty(CLEAN_TRANSFER)),
        case("dirty/clean/sparse/512MiB", C_CLEAN, 2.5, PAGES_512M, Sparse, dirty(CLEAN)),
        case("dirty/clean/dense/512MiB", C_CLEAN, 1.7, PAGES_512M, Dense, dirty(CLEAN)),
        case("limit/clean/sparse/4GiB", BARE_READ, 0.85, PAGES_4G, Sparse,
             Work::Limit { op: CLEAN, exchange: false }),
        case("limit/clean/dense/4GiB", BARE_EXCHANGE, 0.85, PAGES_4G, Dense,
             Work::Limit { op: CLEAN, exchange: true }),
        case("limit/protect/sparse/4GiB", BARE_READ, 0.85, PAGES_4G, Sparse,
             Work::Limit { op: Op::Protect, exchange: false }),
        case("dirty/harvest-vs-pagemap-scan/sparse/1GiB", SCAN, 2.5, PAGES_1G, Sparse,
             Work::Harvest),
        case("dirty/harvest-vs-pagemap-scan/dense/1GiB", SCAN, 1.6, PAGES_1G, Dense,
             Work::Harvest),
        case("dirty/round-vs-pagemap-scan/sparse/1GiB", SCAN, 3.0, PAGES_1G, Sparse,
             Work::Round),
        case("zap/dirty-shared/1GiB", DONTNEED, 1.0, PAGES_1G, Dense,
             Work::Zap(Kind::DirtyShared)),
        case("zap/anon/1GiB", DONTNEED, 1.0, PAGES_1G, Dense, Work::Zap(Kind::Anonymous)),
        case("exclusive/512p/1thread", MAKE_EXCLUSIVE, 10.0, 512, Dense, make(1, false)),
        case("exclusive/4096p/2threads", MAKE_EXCLUSIVE, 10.0, 4096, Dense, make(1, true)),
        case("exclusive/1p/1thread", MAKE_EXCLUSIVE, 1.0, 1, Dense, make(SMALL_CALLS, false)),
        case("exclusive/restore-by-revoke/512p", FAULTS, 10.0, 512, Dense,
             Work::Exclusive(exclusive::Op::Restore)),
        case("protect/pud/1GiB", MPROTECT, 1.5, PAGES_1G, Dense, Work::Protect(Leaves::Pud)),
        case("protect/pmd/1GiB", MPROTECT, 1.2, PAGES_1G, Dense, Work::Protect(Leaves::Pmd)),
        case("protect/pte/1GiB", MPROTECT, 1.0, PAGES_1G, Dense, Work::Protect(Leaves::Pte)),
        case("soft-dirty/whole/1GiB", CLEAR_REFS, 1.0, PAGES_1G, Dense,
             Work::SoftDirty { part: false }),
        case("soft-dirty/1percent/1GiB", CLEAR_REFS, 50.0, PAGES_1G, Dense,
             Work::SoftDirty { part: true }),
        case("age/1GiB", CLEAR_YOUNG, 1.0, PAGES_1G, Dense, Work::Age),
        case("track/store/8192p/8threads", SCAN, 5.0, 8192, Dense,
             Work::Track(track::Op::Store(8))),
        case("track/store-vs-soft-dirty/8192p/8threads", CLEAR_REFS, 5.0, 8192, Dense,
             Work::TrackedStore { threads: 8 }),
        case("track/remap/64p", UNTRACKED, 0.8, PAGES_64, Dense, Work::TrackedRemap),
        case("track/query/8192p", SCAN, 2.0, 8192, Dense, Work::Track(track::Op::Query)),
        case("track/query/sparse/8192p", SCAN, 2.0, 8192, Sparse, Work::Track(track::Op::Query)),
        case("track/round/anon/sparse/1GiB", SCAN, 3.0, PAGES_1G, Sparse,
             Work::Track(track::Op::Round(Mode::Fast))),
        case("track/round/anon/dense/1GiB", SCAN, 3.0, PAGES_1G, Dense,
             Work::Track(track::Op::Round(Mode::Fast))),
        case("track/round-full/anon/sparse/1GiB", SCAN, 1.0, PAGES_1G, Sparse,
             Work::Track(track::Op::Round(Mode::Full))),
        case("track/round-full/anon/dense/1GiB", SCAN, 1.0, PAGES_1G, Dense,
             Work::Track(track::Op::Round(Mode::Full))),
        case("track/begin/4GiB", UFFD, 20.0, PAGES_4G, Dense, Work::Track(track::Op::Begin)),
        case("track/round/sparse/1GiB/10trackers", ONE_TRACKER, 0.67, PAGES_1G, Sparse,
             Work::Track(track::Op::Trackers(10))),
        case("track/redis/100ms", CLEAR_REFS_OF, 1.3, redis::PAGES, Dense,
             Work::Redis(Way::SoftDirty)),
        case("track/redis-vs-pagemap-scan/100ms", SCAN, 1.2, redis::PAGES, Dense,
             Work::Redis(Way::Scan)),
        case("track/redis-vs-untracked/100ms", UNTRACKED, 0.9, redis::PAGES, Dense,
             Work::Redis(Way::Untracked)),
    ]
};

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_is_in_the_documentation() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../Documentation/benchmarks.rst"
        );
        let text = std::fs::read_to_string(path).unwrap();
        let (_, table) = text.split_once("\nCases\n=====\n").unwrap();
        let (table, _) = table.split_once("\nProfile\n").unwrap();
        for case in CASES {
            let row = table
                .split("   * - ")
                .find(|row| row.starts_with(&format!("``{}``\n", case.name)));
            let wanted = row.and_then(|row| row.trim().rsplit(' ').next()?.parse::<f64>().ok());
            assert_eq!(wanted, Some(case.wanted), "{}", case.name);
        }
    }

    #[test]
    fn names_are_unique_and_say_the_size() {
        let names: HashSet<_> = CASES.iter().map(|c| c.name).collect();
        assert_eq!(names.len(), CASES.len());
        for case in CASES {
            let mut parts = case.name.rsplit('/');
            let size = parts
                .find(|part| {
                    !["thread", "threads", "trackers"]
                        .iter()
                        .any(|s| part.ends_with(s))
                })
                .unwrap();
            let pages = match size.split('+').next().unwrap() {
                "1p" => 1,
                "64p" => 64,
                "512p" => 512,
                "4096p" => 4096,
                "8192p" => 8192,
                "512MiB" => 131_072,
                "1GiB" => 262_144,
                "4GiB" => 1_048_576,
                "100ms" => 25_600,
                other => panic!("unknown size {other} in {}", case.name),
            };
            assert_eq!(case.pages, pages, "{}", case.name);
            assert_eq!(
                case.name.contains("sparse"),
                case.density == Density::Sparse
            );
            assert_eq!(
                case.name.ends_with("+transfer"),
                matches!(
                    case.work,
                    Work::Dirty {
                        op: Op::Clean { transfer: true },
                        ..
                    }
                )
            );
        }
    }

    #[test]
    fn scan_cases_need_two_mappings() {
        let case = CASES.iter().find(|c| c.work == Work::Round).unwrap();
        assert_eq!(case.memory_pages(), 2 * 262_144);
    }
}
