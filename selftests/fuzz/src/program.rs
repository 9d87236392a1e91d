// SPDX-License-Identifier: GPL-2.0

//! A program: what is mapped at first, and calls with their arguments, as bytes.
//!
//! Any bytes are a program. Behind a header there is a record of the same length for each call, so
//! that a change of a byte changes one call, and records can be taken out, doubled and put
//! elsewhere.

use arbitrary::Unstructured;
use mmops_raw::sandbox::*;
use mmops_raw::sys::*;
use rand::{Rng, RngExt};

use crate::request::{File, Request};
use crate::world::fds;

/// Number of threads, and what is in each quarter of the sandbox.
const HEADER: usize = 5;
/// A call: which thread makes it, which it is, and its arguments.
const RECORD: usize = 16;
/// Most calls of a program.
const MOST_CALLS: usize = 24;
/// Most threads of a program.
pub const MOST_THREADS: usize = 4;
/// Bytes of a program at most.
pub const MOST_BYTES: usize = HEADER + RECORD * MOST_CALLS;

const PAGES: u64 = LEN / PAGE;
const PMD_PAGES: u64 = 512;
const QUARTER: u64 = PAGES / 4;

const PROT_READ: i32 = 1;
const PROT_WRITE: i32 = 2;
const PROT_EXEC: i32 = 4;

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Vec<u8>);

/// What is mapped, of files by their number in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Private memory of no file.
    Anonymous,
    /// Shared memory of no file.
    SharedAnonymous,
    /// A file from this page on, shared.
    Shared(usize, u64),
    /// A file from this page on, private.
    Private(usize, u64),
}

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A call of a device; `spoilt`, if a field is not zero that has to be.
    Ioctl {
        /// The open file.
        file: File,
        /// The call.
        request: Request,
        /// Where its argument is.
        place: Place,
        /// Whether it has to fail for a reserved field.
        spoilt: bool,
    },
    /// `mmap(2)`: where, what, the protection, and whether it is populated.
    Map(Span, What, i32, bool),
    /// `munmap(2)`
    Unmap(Span),
    /// `mprotect(2)`
    Protect(Span, i32),
    /// `mremap(2)`
    Remap(Span, Span),
    /// `madvise(2)`
    Advise(Span, i32),
    /// `mlock(2)` or `munlock(2)`
    Lock(Span, bool),
    /// `msync(2)`
    Sync(Span),
    /// A store to each page.
    Store(Span),
    /// A load from each page.
    Load(Span),
    /// A store by `/proc/self/mem`, which no entry of the process tells of.
    StoreByForce(u64),
    /// `fork(2)`
    Fork(Span, Life),
    /// The child of this number is killed.
    Kill(usize),
    /// `ftruncate(2)` of a file, to so many pages.
    Truncate(usize, u64),
    /// `fallocate(2)`: a hole of so many pages.
    Punch(usize, u64, u64),
    /// `write(2)` to a page of a file.
    Write(usize, u64),
    /// A userfaultfd is made and a range registered: asynchronous, missing, protected.
    Register(Span, bool, bool, bool),
    /// A range of the last userfaultfd is unregistered.
    Unregister(Span),
    /// A range is protected, or not.
    WriteProtect(Span, bool),
    /// Zeros are mapped.
    Zero(Span),
    /// Copies of other pages are mapped.
    Copy(Span, Span),
}

/// A call of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The thread.
    pub thread: usize,
    /// What it does.
    pub action: Action,
}

type Bytes<'a> = Unstructured<'a>;

fn byte(u: &mut Bytes<'_>) -> u8 {
    u.arbitrary().unwrap_or(0)
}

fn below(u: &mut Bytes<'_>, end: u64) -> u64 {
    u64::from(u.arbitrary::<u16>().unwrap_or(0)) % end
}

fn pick<T: Copy>(u: &mut Bytes<'_>, from: &[T]) -> T {
    from[usize::from(byte(u)) % from.len()]
}

fn at(page: u64) -> u64 {
    START + page * PAGE
}

fn pages(first: u64, nr: u64) -> Span {
    let len = nr.min(PAGES - first) * PAGE;
    Span {
        addr: at(first),
        len,
    }
}

/// Whole pages of the sandbox.
fn inside(u: &mut Bytes<'_>) -> Span {
    let first = below(u, PAGES);
    match byte(u) {
        kind @ 0..=139 => pages(first, 1 + u64::from(kind % 32)),
        kind @ 140..=209 => pages(
            first & !(PMD_PAGES - 1),
            PMD_PAGES * (1 + u64::from(kind % 3)),
        ),
        kind @ 210..=249 => pages(first, 1 + u64::from(kind) * 7 % PMD_PAGES),
        _ => pages(0, PAGES),
    }
}

/// A range that a call is asked for: mostly a good one.
fn range(u: &mut Bytes<'_>) -> Span {
    let good = inside(u);
    let Span { addr, len } = good;
    let (addr, len) = match byte(u) {
        0 => (addr + 8, len),
        1 => (addr, 0),
        2 => (addr, len - 1),
        3 => (addr, addr.wrapping_neg()),
        4 => (addr, u64::MAX - PAGE + 1),
        5 => (1 << 63, len),
        6 => (0, PAGE),
        7 => (u64::MAX - PAGE + 1, PAGE),
        _ => (addr, len),
    };
    Span { addr, len }
}

/// The process that a call is asked for: mostly this one.
fn process(u: &mut Bytes<'_>) -> i32 {
    match byte(u) % 32 {
        0..=19 => -1,
        20..=22 => fds::OWN,
        23..=27 => fds::CHILDREN,
        28..=29 => fds::CHILDREN + 1,
        30 => fds::FILES,
        _ => -2,
    }
}

/// The file that a call is asked for.
fn file(u: &mut Bytes<'_>) -> i32 {
    match byte(u) % 32 {
        0..=11 => fds::FILES,
        12..=20 => fds::FILES + 1,
        21..=26 => fds::FILES + 2,
        27 => fds::FILES + 3,
        28 => fds::READ_ONLY,
        29 => fds::NULL,
        30 => fds::OWN,
        _ => -1,
    }
}

/// Pages of a file.
fn file_range(u: &mut Bytes<'_>) -> (u64, u64) {
    let Span { addr, len } = inside(u);
    let (first, nr) = ((addr - START) / PAGE, len / PAGE);
    match byte(u) {
        0 => (first, 0),
        1 => (u64::MAX - 3, nr),
        2 => (first, 1 << 40),
        3 => (1 << 30, nr),
        _ => (first, nr),
    }
}

/// Zeros for reserved fields, or something else for one of them, and whether.
fn reserved<const N: usize>(u: &mut Bytes<'_>) -> ([u64; N], bool) {
    let mut words = [0; N];
    let spoil = byte(u);
    if spoil < 8 {
        words[usize::from(spoil) % N] = 1 << (spoil * 9 % 64);
    }
    (words, spoil < 8)
}

/// One of those flags, or none, and seldom one that is unknown.
fn flags(u: &mut Bytes<'_>, known: u32) -> u32 {
    match byte(u) {
        255 => 1 << 31,
        some => u32::from(some) & known,
    }
}

/// A call of `/dev/mmops`. The out fields are zero, so that one that fails may zero them.
#[rustfmt::skip]
fn mmops(u: &mut Bytes<'_>) -> Action {
    // By the ioctl's number; what takes several calls to get anywhere comes more often.
    const CALLS: &[u8] = &[
        0x00, 0x01, 0x01, 0x02, 0x02, 0x02, 0x03, 0x03, 0x04, 0x04, 0x05, 0x05, 0x06, 0x07, 0x07,
        0x08, 0x08, 0x09, 0x09, 0x0a, 0x0b, 0x0b, 0x0c, 0x0d, 0x0e, 0x0e, 0x0f, 0x0f, 0x0f, 0x10,
        0x10, 0x11,
    ];
    let call = pick(u, CALLS);
    let mode = byte(u);
    let place = if mode >= 250 { Place::Nowhere } else { Place::Memory };
    // A tracker and its epochs are of one open file.
    let file_of_device = usize::from(mode % 4 == 3);
    let (request, spoilt) = match call {
        0x00 => {
            let (reserved, spoilt) = reserved(u);
            (Request::Info(mmops_info { reserved, ..Default::default() }), spoilt)
        }
        0x01 => {
            let (reserved, spoilt) = reserved(u);
            let (fd, flags, (first, nr)) = (file(u), flags(u, MMOPS_SPLIT), file_range(u));
            let arg = mmops_write_protect { fd, flags, first, nr, reserved, ..Default::default() };
            (Request::WriteProtect(arg), spoilt)
        }
        0x02 => {
            let (reserved, spoilt) = reserved(u);
            let (fd, (first, nr)) = (file(u), file_range(u));
            let flags = flags(u, MMOPS_SPLIT | MMOPS_NO_TRANSFER);
            // All that a range inside has room in a page or two.
            let kind = byte(u);
            let bitmap = at(below(u, PAGES)) + if kind == 0 { 4 } else { 0 };
            let bitmap_bits = if kind == 1 { 63 } else { PAGES.div_ceil(64) * 64 };
            let bitmap_pgoff = if kind < 64 { first } else { 0 };
            let (start, end) = if kind & 1 == 0 { (0, 0) } else { (7, 9) };
            let arg = mmops_clean_record {
                fd, flags, first, nr, bitmap_pgoff, bitmap, bitmap_bits, start, end, reserved,
                ..Default::default()
            };
            (Request::CleanRecord(arg), spoilt)
        }
        0x03 => {
            let (reserved, spoilt) = reserved(u);
            let (pidfd, Span { addr, len }, flags) = (process(u), range(u), flags(u, 0));
            let arg = mmops_zap { pidfd, flags, addr, len, reserved, ..Default::default() };
            (Request::Zap(arg), spoilt)
        }
        0x04 => {
            let (reserved, spoilt) = reserved(u);
            let (pidfd, Span { addr, len }) = (process(u), range(u));
            let flags = flags(u, MMOPS_SOFT_DIRTY_ALL | MMOPS_SOFT_DIRTY_FORGET);
            let all = flags & MMOPS_SOFT_DIRTY_ALL != 0 && addr & PAGE == 0;
            let (addr, len) = if all { (0, 0) } else { (addr, len) };
            let arg = mmops_soft_dirty_clear {
                pidfd, flags, addr, len, reserved, ..Default::default()
            };
            (Request::SoftDirtyClear(arg), spoilt)
        }
        0x05 => {
            let (reserved, spoilt) = reserved(u);
            let (pidfd, Span { addr, len }, flags) = (process(u), range(u), flags(u, 0));
            let results = if byte(u) < 128 { 0 } else { at(below(u, PAGES)) };
            let arg = mmops_exclusive {
                pidfd, flags, addr, len, results, reserved, ..Default::default()
            };
            (Request::Exclusive(arg), spoilt)
        }
        0x06 => {
            let (reserved, spoilt) = reserved(u);
            let (pidfd, Span { addr, len }, flags) = (process(u), range(u), flags(u, 0));
            let arg = mmops_revoke { pidfd, flags, addr, len, reserved, ..Default::default() };
            (Request::Revoke(arg), spoilt)
        }
        0x07 => {
            let (reserved, spoilt) = reserved(u);
            let (pidfd, Span { addr, len }, flags) = (process(u), range(u), flags(u, 0));
            let stride = pick(u, &[8, 64, PAGE, 0, 12, 2 * PAGE]);
            let nr = len.min(64 * PAGE) / stride.max(8).max(PAGE);
            let (value, rounds) = (1, u64::from(byte(u) % 8));
            let arg = mmops_atomic_add {
                pidfd, flags, addr, stride, nr, value, rounds, reserved, ..Default::default()
            };
            (Request::AtomicAdd(arg), spoilt)
        }
        0x08 => {
            let (reserved, spoilt) = reserved(u);
            let flags = flags(u, MMOPS_NOTIFIER_WAIT);
            let (events, nr) = (at(below(u, PAGES)), pick(u, &[1, 16, 128, 0, 65536, 65537]));
            let reserved0 = 0;
            let arg = mmops_notifier_log {
                events, nr, flags, reserved0, reserved, ..Default::default()
            };
            (Request::NotifierLog(arg), spoilt)
        }
        0x09 => {
            let (reserved, spoilt) = reserved(u);
            let (pidfd, Span { addr, len }) = (process(u), range(u));
            let flags = flags(u, MMOPS_PROTECT_LARGE);
            let prot = pick(u, &[0, 1, 1, 1, 3, 5, 2, 8]);
            let arg = mmops_protect {
                pidfd, flags, addr, len, prot, reserved, ..Default::default()
            };
            (Request::Protect(arg), spoilt)
        }
        0x0a => {
            let (reserved, spoilt) = reserved(u);
            let (pidfd, Span { addr, len }, flags) = (process(u), range(u), flags(u, 0));
            let vec = at(below(u, PAGES));
            let vec_len = pick(u, &[512, 512, 1000, 2048, 511, u64::MAX / 16]);
            let arg = mmops_leaves {
                pidfd, flags, addr, len, vec, vec_len, reserved, ..Default::default()
            };
            (Request::Leaves(arg), spoilt)
        }
        0x0b => {
            let (reserved, spoilt) = reserved(u);
            let (pidfd, Span { addr, len }) = (process(u), range(u));
            let flags = flags(u, MMOPS_NOTIFIER_MM | MMOPS_NOTIFIER_FILTER);
            let all = flags & MMOPS_NOTIFIER_MM != 0 && addr & PAGE == 0;
            let (addr, len) = if all { (0, 0) } else { (addr, len) };
            let capacity = pick(u, &[1, 8, 64, 1024, 0, 65537]);
            let arg = mmops_notifier_subscribe {
                pidfd, flags, addr, len, capacity, reserved, ..Default::default()
            };
            (Request::NotifierSubscribe(arg), spoilt)
        }
        0x0c => {
            let (reserved, spoilt) = reserved(u);
            let delay_ms = pick(u, &[0, 0, 1, 2, 1001]);
            let arg = mmops_notifier_probe { delay_ms, reserved, ..Default::default() };
            (Request::NotifierProbe(arg), spoilt)
        }
        0x0d => {
            let (reserved, spoilt) = reserved(u);
            let (pidfd, Span { addr, len }, flags) = (process(u), range(u), flags(u, 0));
            let arg = mmops_age { pidfd, flags, addr, len, reserved, ..Default::default() };
            (Request::Age(arg), spoilt)
        }
        0x0e => {
            let (reserved, spoilt) = reserved(u);
            let mode = pick(u, &[MMOPS_TRACK_FAST, MMOPS_TRACK_FULL, MMOPS_TRACK_FULL, 0, 3]);
            let mode = mode | pick(u, &[0, MMOPS_TRACK_KINDS]);
            let (flags, pidfd, (addr, len)) = if byte(u) < 128 {
                let (first, nr) = file_range(u);
                let bytes = (first.wrapping_mul(PAGE), nr.wrapping_mul(PAGE));
                (mode | MMOPS_TRACK_FILE, file(u), bytes)
            } else {
                let Span { addr, len } = range(u);
                (mode, process(u), (addr, len))
            };
            // More than a tracker keeps account of.
            let len = if byte(u) == 0 { ((1 << 24) + 1) * PAGE } else { len };
            let arg = mmops_track_open { pidfd, flags, addr, len, reserved };
            (Request::TrackOpen(arg), spoilt)
        }
        0x0f => {
            let (reserved, spoilt) = reserved(u);
            let flags = flags(u, 0);
            let arg = mmops_track_begin { flags, reserved, ..Default::default() };
            (Request::TrackBegin(arg), spoilt)
        }
        0x10 => {
            let (reserved, spoilt) = reserved(u);
            let (addr, vec) = (range(u).addr, at(below(u, PAGES)));
            let addr = if byte(u) < 128 { 0 } else { addr };
            let vec_len = pick(u, &[0, 1, 16, 64, 512, u64::MAX]);
            let arg = mmops_track_read { addr, vec, vec_len, reserved, ..Default::default() };
            (Request::TrackRead(arg), spoilt)
        }
        _ => {
            let (reserved, spoilt) = reserved(u);
            let flags = flags(u, MMOPS_TRACK_ABORT);
            (Request::TrackEnd(mmops_track_end { flags, pad: 0, reserved }), spoilt)
        }
    };
    Action::Ioctl { file: file_of_device, request, place, spoilt }
}

fn mirror<const NR: u8>(u: &mut Bytes<'_>) -> hmm_dmirror_cmd<NR> {
    let Span { addr, len } = range(u);
    hmm_dmirror_cmd {
        addr,
        ptr: at(below(u, PAGES)),
        npages: len.div_ceil(PAGE),
        ..Default::default()
    }
}

/// A call of another device.
fn other_device(u: &mut Bytes<'_>) -> Action {
    let request = match byte(u) % 16 {
        0..=1 => Request::MirrorRead(mirror(u)),
        2..=3 => Request::MirrorWrite(mirror(u)),
        4 => Request::MirrorMigrate(mirror(u)),
        5 => Request::MirrorSnapshot(mirror(u)),
        6 => Request::MirrorExclusive(mirror(u)),
        7 => Request::MirrorCheck(mirror(u)),
        8 => Request::MirrorUnlocked(mirror(u)),
        9 => Request::LeafmapServe(mmops_leafmap_serve {
            // Not PUD leaves: the sandbox has no room for one.
            order: pick(u, &[0, 9, 9]),
            // Not MAY_SPLIT, which the kernel does not survive.
            flags: pick(u, &[0, 1, 4, 8]),
            skew: 0,
        }),
        10 => {
            let (first, nr) = file_range(u);
            let (offset, len) = ((first % PAGES) * PAGE, (nr % PAGES) * PAGE);
            Request::LeafmapUnmap(mmops_leafmap_unmap { offset, len })
        }
        _ => {
            let op = pick(u, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 10]);
            let (fd, (of_file, _)) = (file(u), file_range(u));
            let Span { addr, len } = inside(u);
            let of_mapping = op == 0 || op == 3;
            Request::Walk(mmops_walk {
                op,
                flags: pick(u, &[0, 0, 1, 9]),
                fd,
                first: if of_mapping { of_file } else { addr },
                nr: len / PAGE,
                gather: len / PAGE,
                ..Default::default()
            })
        }
    };
    Action::Ioctl {
        file: 0,
        request,
        place: Place::Memory,
        spoilt: false,
    }
}

fn map(u: &mut Bytes<'_>) -> Action {
    let span = inside(u);
    let kind = byte(u);
    let page = if kind < 32 {
        below(u, PAGES)
    } else {
        (span.addr - START) / PAGE
    };
    let what = match kind % 16 {
        0..=5 => What::Anonymous,
        6 => What::SharedAnonymous,
        7..=13 => What::Shared(usize::from(kind / 16) % 4, page),
        _ => What::Private(usize::from(kind / 16) % 4, page),
    };
    let prot = pick(u, &[3, 3, 3, 3, 1, 0, 7]);
    Action::Map(span, what, prot, byte(u) < 64)
}

fn userfault(u: &mut Bytes<'_>) -> Action {
    let (kind, span) = (byte(u), inside(u));
    match kind % 8 {
        0..=2 => Action::Register(span, kind & 8 != 0, kind & 16 != 0, kind & 48 != 16),
        3 => Action::Unregister(span),
        4..=5 => Action::WriteProtect(span, kind & 8 != 0),
        6 => Action::Zero(span),
        _ => Action::Copy(inside(u), span),
    }
}

/// Not what could not be undone for the next program, such as `MADV_HWPOISON`.
const ADVICE: &[i32] = &[
    3, 4, 4, 8, 9, 10, 11, 12, 13, 14, 14, 15, 18, 19, 20, 21, 21, 22, 23, 25, 25, 102, 103,
];

fn memory(u: &mut Bytes<'_>) -> Action {
    match byte(u) % 32 {
        0..=4 => map(u),
        5 => Action::Unmap(inside(u)),
        6..=7 => Action::Protect(
            inside(u),
            pick(
                u,
                &[
                    0,
                    PROT_READ,
                    PROT_READ,
                    PROT_READ | PROT_WRITE,
                    PROT_READ | PROT_EXEC,
                ],
            ),
        ),
        8 => Action::Remap(inside(u), inside(u)),
        9..=13 => Action::Advise(inside(u), pick(u, ADVICE)),
        14 => Action::Lock(inside(u), byte(u) < 96),
        15 => Action::Sync(inside(u)),
        16..=20 => Action::Store(inside(u)),
        21..=22 => Action::Load(inside(u)),
        23 => Action::StoreByForce(at(below(u, PAGES))),
        24 => {
            let life = if byte(u) < 192 {
                Life::Stays
            } else {
                Life::Ends
            };
            Action::Fork(inside(u), life)
        }
        25 => Action::Kill(usize::from(byte(u) % 2)),
        26 => Action::Truncate(usize::from(byte(u) % 2), below(u, PAGES + 1)),
        27 => {
            let (first, nr) = file_range(u);
            Action::Punch(usize::from(byte(u) % 2), first % PAGES, 1 + nr % PAGES)
        }
        28 => Action::Write(usize::from(byte(u) % 2), below(u, PAGES)),
        _ => userfault(u),
    }
}

impl Program {
    /// What is in the bytes; of too many, the first.
    pub fn new(mut bytes: Vec<u8>) -> Self {
        if bytes.len() < HEADER {
            bytes.resize(HEADER, 0);
        }
        bytes.truncate(HEADER + (bytes.len() - HEADER) / RECORD * RECORD);
        bytes.truncate(MOST_BYTES);
        Self(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        [1, 1, 2, 3, 2, 4, 1, 2][usize::from(self.0[0] % 8)]
    }

    /// What is mapped before the threads begin, and whether some of it is stored to.
    pub fn layout(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (quarter, kind) in (0..4).zip(&self.0[1..HEADER]) {
            let span = pages(quarter * QUARTER, QUARTER);
            let page = quarter * QUARTER;
            let what = match kind % 8 {
                0..=2 => What::Anonymous,
                3..=4 => What::Shared(0, page),
                5 => What::Shared(1, page),
                6 => What::Shared(2, page),
                _ => continue,
            };
            actions.push(Action::Map(span, what, PROT_READ | PROT_WRITE, false));
            if kind & 16 != 0 {
                actions.push(Action::Advise(span, 14));
            }
            if kind & 8 != 0 {
                actions.push(Action::Store(span));
            }
            if kind & 32 != 0 {
                // One leaf, where the memory is there.
                actions.push(Action::Advise(span, 25));
            }
        }
        actions
    }

    /// The calls, in their order in each thread.
    pub fn steps(&self) -> Vec<Step> {
        let step = |record: &[u8]| {
            let mut u = Unstructured::new(record);
            let thread = usize::from(byte(&mut u)) % self.threads();
            let action = match byte(&mut u) % 16 {
                0..=8 => mmops(&mut u),
                9..=10 => other_device(&mut u),
                _ => memory(&mut u),
            };
            Step { thread, action }
        };
        self.0[HEADER..].chunks_exact(RECORD).map(step).collect()
    }

    /// A new one.
    pub fn random(rng: &mut impl Rng) -> Self {
        let mut bytes = vec![0; HEADER + RECORD * rng.random_range(4..=MOST_CALLS)];
        rng.fill_bytes(&mut bytes);
        Self::new(bytes)
    }

    /// The number of calls.
    pub fn calls(&self) -> usize {
        (self.0.len() - HEADER) / RECORD
    }

    /// Where the record of a call is.
    fn record(&self, rng: &mut impl Rng) -> usize {
        HEADER + RECORD * rng.random_range(0..self.calls())
    }

    /// One that is like this, with a part of another.
    pub fn mutated(&self, rng: &mut impl Rng, other: &Self) -> Self {
        let mut new = self.clone();
        for _ in 0..1 << rng.random_range(0..4) {
            if new.calls() == 0 {
                return Self::random(rng);
            }
            match rng.random_range(0..10) {
                0 => {
                    let byte = rng.random_range(0..HEADER);
                    new.0[byte] = rng.random();
                }
                1..=4 => {
                    let byte = rng.random_range(HEADER..new.0.len());
                    new.0[byte] = match rng.random_range(0..3) {
                        0 => new.0[byte] ^ 1 << rng.random_range(0..8),
                        1 => new.0[byte].wrapping_add(1),
                        _ => rng.random(),
                    };
                }
                5 => {
                    let at = new.record(rng);
                    rng.fill_bytes(&mut new.0[at..at + RECORD]);
                }
                6 => {
                    let at = new.record(rng);
                    new.0.drain(at..at + RECORD);
                }
                7 => {
                    let (from, to) = (new.record(rng), new.record(rng));
                    let record = new.0[from..from + RECORD].to_vec();
                    new.0.splice(to..to, record);
                }
                8 => {
                    let mut record = [0; RECORD];
                    rng.fill_bytes(&mut record);
                    let to = new.record(rng);
                    new.0.splice(to..to, record);
                }
                _ if other.calls() > 0 => {
                    let (from, to) = (other.record(rng), new.record(rng));
                    new.0.truncate(to);
                    new.0.extend_from_slice(&other.0[from..]);
                }
                _ => {}
            }
        }
        Self::new(new.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::ChaCha8Rng;
    use rand::SeedableRng;

    #[test]
    fn any_bytes_are_a_program() {
        assert_eq!(Program::new(Vec::new()).calls(), 0);
        assert_eq!(Program::new(vec![0xff; 10_000]).calls(), MOST_CALLS);
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let mut program = Program::random(rng);
        for _ in 0..10_000 {
            let other = Program::random(rng);
            program = program.mutated(rng, &other);
            let steps = program.steps();
            assert_eq!(steps.len(), program.calls());
            assert!(steps.len() <= MOST_CALLS);
            assert!(steps.iter().all(|step| step.thread < program.threads()));
        }
    }

    #[test]
    fn a_seed_gives_the_same_programs() {
        let program = || {
            let rng = &mut ChaCha8Rng::seed_from_u64(7);
            let (one, other) = (Program::random(rng), Program::random(rng));
            one.mutated(rng, &other)
        };
        assert_eq!(program(), program());
    }

    /// All calls of all devices come.
    #[test]
    fn all_calls_come() {
        let rng = &mut ChaCha8Rng::seed_from_u64(2);
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            for step in Program::random(rng).steps() {
                if let Action::Ioctl { request, .. } = step.action {
                    names.insert(request.name());
                }
            }
        }
        assert_eq!(names.len(), 18 + 7 + 1 + 2);
    }
}
