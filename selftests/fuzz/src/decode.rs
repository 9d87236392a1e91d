// SPDX-License-Identifier: GPL-2.0

//! What a thread does, from the bytes of a call. They are read from the first to the last; where
//! none is left, they are zeros.

use arbitrary::Unstructured;
use mmops_raw::sandbox::*;
use mmops_raw::sys::*;

use crate::action::{Action, What};
use crate::request::Request;
use crate::world::{fds, BIG_SPAN};

/// Pages of the sandbox.
pub const PAGES: u64 = LEN / PAGE;
const PMD_PAGES: u64 = 512;

pub const PROT_READ: i32 = 1;
pub const PROT_WRITE: i32 = 2;
const PROT_EXEC: i32 = 4;

/// Bytes that have not been read.
pub type Bytes<'a> = Unstructured<'a>;

/// The next byte, or zero where there is none.
pub fn byte(u: &mut Bytes<'_>) -> u8 {
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

/// So many pages of the sandbox, of those that are there.
pub fn pages(first: u64, nr: u64) -> Span {
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

/// Whole pages of the part for leaves of PUD size.
fn big(u: &mut Bytes<'_>) -> Span {
    let pmd = below(u, PMD_PAGES);
    let pmd_len = PMD_PAGES * PAGE;
    match byte(u) {
        0..=127 => BIG_SPAN,
        kind @ 128..=191 => Span {
            addr: BIG + pmd * pmd_len,
            len: pmd_len * u64::from(kind & 7).clamp(1, PMD_PAGES - pmd),
        },
        kind => Span {
            addr: BIG + pmd * pmd_len + u64::from(kind & 15) * PAGE,
            len: u64::from(kind & 31).max(1) * PAGE,
        },
    }
}

/// Whole pages of any part, for what changes no protection.
fn anywhere(u: &mut Bytes<'_>) -> Span {
    match byte(u) {
        0..=15 => big(u),
        _ => inside(u),
    }
}

/// A range that a call is asked for: mostly a good one.
fn range(u: &mut Bytes<'_>) -> Span {
    let good = inside(u);
    let Span { addr, len } = good;
    let (addr, len) = match byte(u) {
        8..=19 => {
            let Span { addr, len } = big(u);
            (addr, len)
        }
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
        21..=25 => fds::FILES + 2,
        26 => fds::BIG,
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
        4..=15 => {
            let Span { addr, len } = big(u);
            ((addr - BIG) / PAGE, len / PAGE)
        }
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
        0x10, 0x11, 0x12,
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
            // All that a range has fits in a few pages.
            let kind = byte(u);
            let bitmap = at(below(u, PAGES)) + if kind == 0 { 4 } else { 0 };
            let pages = first.wrapping_add(nr).clamp(PAGES, 2 * BIG_LEN / PAGE);
            let bitmap_bits = if kind == 1 { 63 } else { pages.next_multiple_of(64) };
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
        0x12 => {
            let (reserved, spoilt) = reserved(u);
            let (addr, bitmap) = (range(u).addr, at(below(u, PAGES)));
            let words = pick(u, &[0, 1, 4, 64, 65, u64::MAX]);
            let kinds = pick(u, &[0, 0, 1 << MMOPS_TRACK_WRITTEN, 0x3e, 0x40]);
            let flags = flags(u, 0);
            let arg = mmops_track_bitmap {
                addr,
                bitmap,
                words,
                kinds,
                flags,
                reserved,
                ..Default::default()
            };
            (Request::TrackBitmap(arg), spoilt)
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
            // Leaves of PUD size are for a part of their own, see `MapBig`.
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
    if kind >= 248 {
        return Action::MapBig(if kind & 3 == 0 {
            PROT_READ
        } else {
            PROT_READ | PROT_WRITE
        });
    }
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
        5 => Action::Unmap(anywhere(u)),
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
        16..=20 => Action::Store(anywhere(u)),
        21..=22 => Action::Load(anywhere(u)),
        23 => Action::StoreByForce(at(below(u, PAGES))),
        24 => {
            let life = if byte(u) < 192 {
                Life::Stays
            } else {
                Life::Ends
            };
            Action::Fork(inside(u), life)
        }
        25 => match byte(u) % 4 {
            kind @ 0..=1 => Action::Kill(usize::from(kind)),
            kind => Action::Poll(usize::from(kind % 2)),
        },
        26 => Action::Truncate(usize::from(byte(u) % 2), below(u, PAGES + 1)),
        27 => {
            let (first, nr) = file_range(u);
            Action::Punch(usize::from(byte(u) % 2), first % PAGES, 1 + nr % PAGES)
        }
        28 => Action::Write(usize::from(byte(u) % 2), below(u, PAGES)),
        _ => userfault(u),
    }
}

/// What the bytes of a call say.
pub fn action(u: &mut Bytes<'_>) -> Action {
    match byte(u) % 16 {
        0..=8 => mmops(u),
        9..=10 => other_device(u),
        _ => memory(u),
    }
}
