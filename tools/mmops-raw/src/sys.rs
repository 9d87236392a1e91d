// SPDX-License-Identifier: GPL-2.0

//! `include/uapi/linux/mmops.h` in Rust: the same names, sizes, offsets and numbers.
//!
//! `tests/header.rs` of mmops-uapi compiles the header and compares every item here with it.

use std::mem::{offset_of, size_of};

use crate::units::{Bytes, Pages};

/// Version of this interface: major in the upper 16 bits, minor in the lower.
pub const MMOPS_UAPI_VERSION: u32 = 0x0001_0006;

/// `mmops_info::features`: [`MMOPS_IOC_WRITE_PROTECT`] is there.
pub const MMOPS_FEATURE_WRITE_PROTECT: u64 = 1 << 0;
/// `mmops_info::features`: [`MMOPS_IOC_CLEAN_RECORD`] is there.
pub const MMOPS_FEATURE_CLEAN_RECORD: u64 = 1 << 1;
/// `mmops_info::features`: leaves of PMD and PUD size are handled, not skipped.
pub const MMOPS_FEATURE_HUGE_LEAVES: u64 = 1 << 2;
/// `mmops_info::features`: [`MMOPS_IOC_ZAP`] is there.
pub const MMOPS_FEATURE_ZAP: u64 = 1 << 3;
/// `mmops_info::features`: [`MMOPS_IOC_SOFT_DIRTY_CLEAR`].
pub const MMOPS_FEATURE_SOFT_DIRTY: u64 = 1 << 4;
/// `mmops_info::features`: [`MMOPS_IOC_EXCLUSIVE`] and what belongs to it.
pub const MMOPS_FEATURE_EXCLUSIVE: u64 = 1 << 5;
/// `mmops_info::features`: `MMOPS_IOC_NOTIFIER_*` are there.
pub const MMOPS_FEATURE_NOTIFIER: u64 = 1 << 6;
/// `mmops_info::features`: [`MMOPS_IOC_PROTECT`] is there.
pub const MMOPS_FEATURE_PROTECT: u64 = 1 << 7;
/// `mmops_info::features`: [`MMOPS_IOC_LEAVES`] is there.
pub const MMOPS_FEATURE_LEAVES: u64 = 1 << 8;
/// `mmops_info::features`: [`MMOPS_IOC_AGE`] is there.
pub const MMOPS_FEATURE_AGE: u64 = 1 << 9;
/// `mmops_info::features`: `MMOPS_IOC_TRACK_*` are there.
pub const MMOPS_FEATURE_TRACK: u64 = 1 << 10;
/// [`mmops_info::features`]: [`MMOPS_TRACK_FULL`].
pub const MMOPS_FEATURE_TRACK_FULL: u64 = 1 << 11;
/// [`mmops_info::features`]: [`MMOPS_TRACK_FILE`].
pub const MMOPS_FEATURE_TRACK_FILE: u64 = 1 << 12;
/// [`mmops_info::features`]: [`MMOPS_TRACK_KINDS`].
pub const MMOPS_FEATURE_TRACK_KINDS: u64 = 1 << 13;
/// [`mmops_info::features`]: [`MMOPS_IOC_TRACK_BITMAP`] is there.
pub const MMOPS_FEATURE_TRACK_BITMAP: u64 = 1 << 14;
/// `mmops_info::features`: `mmops.ko` was built with `MMOPS_FAULTS=1`.
pub const MMOPS_FEATURE_FAULTS: u64 = 1 << 63;

/// Replace a PMD leaf of the page cache by a PTE table before it is changed.
pub const MMOPS_SPLIT: u32 = 1 << 0;
/// Do not mark the folio dirty for a dirty bit that was taken.
pub const MMOPS_NO_TRANSFER: u32 = 1 << 1;

/// The whole address space.
pub const MMOPS_SOFT_DIRTY_ALL: u32 = 1 << 0;
/// Pages outside the range that are not mapped lose the mark of a new mapping.
pub const MMOPS_SOFT_DIRTY_FORGET: u32 = 1 << 1;

/// Argument of [`MMOPS_IOC_INFO`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_info {
    pub version: u32,
    pub page_size: u32,
    pub features: u64,
    pub reserved: [u64; 4],
}

/// Argument of [`MMOPS_IOC_WRITE_PROTECT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_write_protect {
    pub fd: i32,
    pub flags: u32,
    pub first: u64,
    pub nr: u64,
    pub write_protected: u64,
    pub done: Pages,
    pub reserved: [u64; 2],
}

/// Argument of [`MMOPS_IOC_CLEAN_RECORD`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_clean_record {
    pub fd: i32,
    pub flags: u32,
    pub first: u64,
    pub nr: u64,
    pub bitmap_pgoff: u64,
    pub bitmap: u64,
    pub bitmap_bits: u64,
    pub start: u64,
    pub end: u64,
    pub cleaned: u64,
    pub done: Pages,
    pub reserved: [u64; 2],
}

/// Argument of [`MMOPS_IOC_ZAP`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_zap {
    pub pidfd: i32,
    pub flags: u32,
    pub addr: u64,
    pub len: u64,
    pub zapped: u64,
    pub done: Bytes,
    pub reserved: [u64; 2],
}

/// Argument of [`MMOPS_IOC_SOFT_DIRTY_CLEAR`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_soft_dirty_clear {
    pub pidfd: i32,
    pub flags: u32,
    pub addr: u64,
    pub len: u64,
    pub cleared: u64,
    pub kept: u64,
    pub done: Bytes,
    pub reserved: [u64; 2],
}

/// [`mmops_exclusive::results`]: the call ended before it came to the page.
pub const MMOPS_PAGE_UNTOUCHED: u8 = 0;
/// [`mmops_exclusive::results`]: the page is exclusive.
pub const MMOPS_PAGE_EXCLUSIVE: u8 = 1;
/// [`mmops_exclusive::results`]: the page changed too often; try again.
pub const MMOPS_PAGE_BUSY: u8 = 2;
/// [`mmops_exclusive::results`]: nothing is mapped.
pub const MMOPS_PAGE_UNMAPPED: u8 = 3;
/// [`mmops_exclusive::results`]: the mapping is shared or special.
pub const MMOPS_PAGE_NOT_ANONYMOUS: u8 = 4;
/// [`mmops_exclusive::results`]: the mapping permits no stores.
pub const MMOPS_PAGE_READ_ONLY: u8 = 5;
/// [`mmops_exclusive::results`]: the mapping is of hugetlbfs.
pub const MMOPS_PAGE_HUGETLB: u8 = 6;
/// [`mmops_exclusive::results`]: somebody has pinned the page.
pub const MMOPS_PAGE_PINNED: u8 = 7;
/// [`mmops_exclusive::results`]: the page is merged with others.
pub const MMOPS_PAGE_KSM: u8 = 8;
/// [`mmops_exclusive::results`]: userspace would have to be asked.
pub const MMOPS_PAGE_USERFAULTFD: u8 = 9;
/// [`mmops_exclusive::results`]: the memory is broken.
pub const MMOPS_PAGE_POISONED: u8 = 10;
/// [`mmops_exclusive::results`]: there is no memory for the page.
pub const MMOPS_PAGE_NO_MEMORY: u8 = 11;
/// [`mmops_exclusive::results`]: the page cannot be faulted in.
pub const MMOPS_PAGE_FAULT: u8 = 12;
/// The most pages that [`mmops_atomic_add`] may span.
pub const MMOPS_ATOMIC_ADD_MAX_PAGES: u32 = 4096;

/// Argument of [`MMOPS_IOC_EXCLUSIVE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_exclusive {
    pub pidfd: i32,
    pub flags: u32,
    pub addr: u64,
    pub len: u64,
    pub results: u64,
    pub exclusive: u64,
    pub done: Bytes,
    pub reserved: [u64; 2],
}

/// Argument of [`MMOPS_IOC_REVOKE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_revoke {
    pub pidfd: i32,
    pub flags: u32,
    pub addr: u64,
    pub len: u64,
    pub revoked: u64,
    pub done: Bytes,
    pub reserved: [u64; 2],
}

/// Argument of [`MMOPS_IOC_ATOMIC_ADD`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_atomic_add {
    pub pidfd: i32,
    pub flags: u32,
    pub addr: u64,
    pub stride: u64,
    pub nr: u64,
    pub value: u64,
    pub rounds: u64,
    pub added: u64,
    pub taken: u64,
    pub reserved: [u64; 2],
}

/// [`mmops_notifier_event::event`]: `munmap` or `mremap`.
pub const MMOPS_EVENT_UNMAP: u32 = 0;
/// [`mmops_notifier_event::event`]: entries are cleared.
pub const MMOPS_EVENT_CLEAR: u32 = 1;
/// [`mmops_notifier_event::event`]: the protection of a mapping changes.
pub const MMOPS_EVENT_PROTECTION_VMA: u32 = 2;
/// [`mmops_notifier_event::event`]: the permissions of single pages change.
pub const MMOPS_EVENT_PROTECTION_PAGE: u32 = 3;
/// [`mmops_notifier_event::event`]: soft-dirty bits are cleared.
pub const MMOPS_EVENT_SOFT_DIRTY: u32 = 4;
/// [`mmops_notifier_event::event`]: the address space ends.
pub const MMOPS_EVENT_RELEASE: u32 = 5;
/// [`mmops_notifier_event::event`]: pages migrate to or from a device.
pub const MMOPS_EVENT_MIGRATE: u32 = 6;
/// [`mmops_notifier_event::event`]: pages become a device's own.
pub const MMOPS_EVENT_EXCLUSIVE: u32 = 7;

/// [`mmops_notifier_event::flags`]: the subscriber was allowed to sleep.
pub const MMOPS_NOTIFIER_BLOCKABLE: u32 = 1 << 0;
/// [`mmops_notifier_event::flags`]: caused through the open file that is subscribed.
pub const MMOPS_NOTIFIER_OWN: u32 = 1 << 1;
/// [`mmops_notifier_event::flags`]: the end of an invalidation.
pub const MMOPS_NOTIFIER_END: u32 = 1 << 2;
/// [`mmops_notifier_log::flags`]: wait until there is something to report.
pub const MMOPS_NOTIFIER_WAIT: u32 = 1 << 0;
/// [`mmops_notifier_subscribe::flags`]: subscribe to the whole address space.
pub const MMOPS_NOTIFIER_MM: u32 = 1 << 0;
/// [`mmops_notifier_subscribe::flags`]: leave out what the same open file makes exclusive.
pub const MMOPS_NOTIFIER_FILTER: u32 = 1 << 1;
/// Most events that a subscription keeps, and that a call reports.
pub const MMOPS_NOTIFIER_MAX_EVENTS: u32 = 65536;
/// Longest [`mmops_notifier_probe::delay_ms`].
pub const MMOPS_NOTIFIER_MAX_DELAY_MS: u32 = 1000;

/// An invalidation, as a driver is told of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_notifier_event {
    pub time: u64,
    pub start: u64,
    pub end: u64,
    pub event: u32,
    pub flags: u32,
}

/// Argument of [`MMOPS_IOC_NOTIFIER_LOG`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_notifier_log {
    pub events: u64,
    pub nr: u32,
    pub flags: u32,
    pub lost: u64,
    pub released: u32,
    pub reserved0: u32,
    pub reserved: [u64; 2],
}

/// Argument of [`MMOPS_IOC_NOTIFIER_SUBSCRIBE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_notifier_subscribe {
    pub pidfd: i32,
    pub flags: u32,
    pub addr: u64,
    pub len: u64,
    pub capacity: u32,
    pub reserved0: u32,
    pub reserved: [u64; 2],
}

/// Argument of [`MMOPS_IOC_NOTIFIER_PROBE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_notifier_probe {
    pub delay_ms: u32,
    pub collided: u32,
    pub hint: u32,
    pub reserved0: u32,
    pub reserved: [u64; 2],
}

/// `mmops_leaf::state`: loads are permitted.
pub const MMOPS_LEAF_READ: u32 = 1 << 0;
/// `mmops_leaf::state`: stores are permitted.
pub const MMOPS_LEAF_WRITE: u32 = 1 << 1;
/// `mmops_leaf::state`: fetches of instructions are permitted.
pub const MMOPS_LEAF_EXEC: u32 = 1 << 2;
/// `mmops_leaf::state`: a store was made.
pub const MMOPS_LEAF_DIRTY: u32 = 1 << 3;
/// `mmops_leaf::state`: the memory was accessed.
pub const MMOPS_LEAF_YOUNG: u32 = 1 << 4;
/// `mmops_leaf::state`: a store was made since soft-dirty was cleared.
pub const MMOPS_LEAF_SOFT_DIRTY: u32 = 1 << 5;
/// `mmops_leaf::state`: userfaultfd protects the page.
pub const MMOPS_LEAF_UFFD: u32 = 1 << 6;
/// `mmops_leaf::state`: no folio that mm manages.
pub const MMOPS_LEAF_SPECIAL: u32 = 1 << 7;
/// `mmops_leaf::kind`: it maps memory.
pub const MMOPS_LEAF_PRESENT: u8 = 0;
/// `mmops_leaf::kind`: a page in swap.
pub const MMOPS_LEAF_SWAP: u8 = 1;
/// `mmops_leaf::kind`: a page that is being migrated.
pub const MMOPS_LEAF_MIGRATION: u8 = 2;
/// `mmops_leaf::kind`: memory of a device that the CPU cannot access.
pub const MMOPS_LEAF_DEVICE_PRIVATE: u8 = 3;
/// `mmops_leaf::kind`: memory that a device has for itself.
pub const MMOPS_LEAF_DEVICE_EXCLUSIVE: u8 = 4;
/// `mmops_leaf::kind`: memory that is broken.
pub const MMOPS_LEAF_HWPOISON: u8 = 5;
/// `mmops_leaf::kind`: no page.
pub const MMOPS_LEAF_MARKER: u8 = 6;
/// The least number of records that [`MMOPS_IOC_LEAVES`] takes room for.
pub const MMOPS_LEAVES_MIN: u64 = 512;

/// [`mmops_protect::flags`]: leaves of page frames stay as large as they are.
pub const MMOPS_PROTECT_LARGE: u32 = 1 << 0;

/// Argument of [`MMOPS_IOC_PROTECT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_protect {
    pub pidfd: i32,
    pub flags: u32,
    pub addr: u64,
    pub len: u64,
    pub prot: u32,
    pub pad: u32,
    pub ptes: u64,
    pub pmds: u64,
    pub puds: u64,
    pub split_pmds: u64,
    pub split_puds: u64,
    pub done: Bytes,
    pub reserved: [u64; 2],
}

/// What [`MMOPS_IOC_LEAVES`] tells of a leaf.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_leaf {
    pub addr: u64,
    pub state: u32,
    pub shift: u8,
    pub kind: u8,
    pub reserved: u16,
}

/// Argument of [`MMOPS_IOC_LEAVES`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_leaves {
    pub pidfd: i32,
    pub flags: u32,
    pub addr: u64,
    pub len: u64,
    pub vec: u64,
    pub vec_len: u64,
    pub nr: u64,
    pub next: u64,
    pub reserved: [u64; 2],
}

/// Argument of [`MMOPS_IOC_AGE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_age {
    pub pidfd: i32,
    pub flags: u32,
    pub addr: u64,
    pub len: u64,
    pub aged: u64,
    pub kept: u64,
    pub done: Bytes,
    pub reserved: [u64; 2],
}

/// [`mmops_track_open::flags`]: take dirty bits, and leave entries writable.
pub const MMOPS_TRACK_FAST: u32 = 1 << 0;
/// [`mmops_track_open::flags`]: take write permissions as well, so that a store faults.
pub const MMOPS_TRACK_FULL: u32 = 1 << 1;
/// [`mmops_track_open::flags`]: with a mode: of a file, and not of a process.
pub const MMOPS_TRACK_FILE: u32 = 1 << 2;
/// [`mmops_track_open::flags`]: with a mode: records are of five kinds, and not of two.
pub const MMOPS_TRACK_KINDS: u32 = 1 << 3;
/// [`mmops_track_begin::state`]: all of the range is reported, always.
pub const MMOPS_TRACK_OVERFLOW: u32 = 1 << 0;
/// [`mmops_track_begin::state`]: the address space has ended.
pub const MMOPS_TRACK_ENDED: u32 = 1 << 1;
/// [`mmops_track_range::kind`]: a store was seen.
pub const MMOPS_TRACK_WRITTEN: u32 = 1;
/// [`mmops_track_range::kind`]: the pages may have changed, or may yet.
pub const MMOPS_TRACK_CHANGED: u32 = 2;
/// [`mmops_track_range::kind`]: the pages are pinned for DMA.
pub const MMOPS_TRACK_PINNED: u32 = 3;
/// [`mmops_track_range::kind`]: there was nothing at the last begin.
pub const MMOPS_TRACK_NEW: u32 = 4;
/// [`mmops_track_range::kind`]: there is nothing any more.
pub const MMOPS_TRACK_GONE: u32 = 5;
/// [`mmops_track_end::flags`]: the pages are in the next epoch again.
pub const MMOPS_TRACK_ABORT: u32 = 1 << 0;

/// Argument of [`MMOPS_IOC_TRACK_OPEN`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_track_open {
    pub pidfd: i32,
    pub flags: u32,
    pub addr: u64,
    pub len: u64,
    pub reserved: [u64; 2],
}

/// Argument of [`MMOPS_IOC_TRACK_BEGIN`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_track_begin {
    pub flags: u32,
    pub state: u32,
    pub written: u64,
    pub changed: u64,
    pub reserved: [u64; 2],
}

/// Pages that [`MMOPS_IOC_TRACK_READ`] reports for the same reason.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_track_range {
    pub addr: u64,
    pub len: u64,
    pub kind: u32,
    pub reserved: u32,
}

/// Argument of [`MMOPS_IOC_TRACK_READ`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_track_read {
    pub addr: u64,
    pub vec: u64,
    pub vec_len: u64,
    pub nr: u64,
    pub needed: u64,
    pub reserved: [u64; 2],
}

/// Argument of [`MMOPS_IOC_TRACK_END`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_track_end {
    pub flags: u32,
    pub pad: u32,
    pub reserved: [u64; 2],
}

/// Argument of [`MMOPS_IOC_TRACK_BITMAP`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // described in the header
pub struct mmops_track_bitmap {
    pub addr: u64,
    pub bitmap: u64,
    pub words: u64,
    pub kinds: u32,
    pub flags: u32,
    pub nr: u64,
    pub reserved: [u64; 2],
}

const _: () = {
    assert!(size_of::<mmops_info>() == 48);
    assert!(offset_of!(mmops_info, features) == 8);
    assert!(size_of::<mmops_write_protect>() == 56);
    assert!(offset_of!(mmops_write_protect, first) == 8);
    assert!(offset_of!(mmops_write_protect, reserved) == 40);
    assert!(size_of::<mmops_clean_record>() == 96);
    assert!(offset_of!(mmops_clean_record, first) == 8);
    assert!(offset_of!(mmops_clean_record, reserved) == 80);
    assert!(size_of::<mmops_zap>() == 56);
    assert!(offset_of!(mmops_zap, addr) == 8);
    assert!(offset_of!(mmops_zap, reserved) == 40);
    assert!(size_of::<mmops_soft_dirty_clear>() == 64);
    assert!(offset_of!(mmops_soft_dirty_clear, addr) == 8);
    assert!(offset_of!(mmops_soft_dirty_clear, reserved) == 48);
};

/// Type byte of every ioctl number of the device.
pub const MMOPS_IOC_MAGIC: u8 = 0xBD;
const INFO_NR: u8 = 0x00;
const WRITE_PROTECT_NR: u8 = 0x01;
const CLEAN_RECORD_NR: u8 = 0x02;
const ZAP_NR: u8 = 0x03;
const SOFT_DIRTY_CLEAR_NR: u8 = 0x04;
const EXCLUSIVE_NR: u8 = 0x05;
const REVOKE_NR: u8 = 0x06;
const ATOMIC_ADD_NR: u8 = 0x07;
const NOTIFIER_LOG_NR: u8 = 0x08;
const NOTIFIER_SUBSCRIBE_NR: u8 = 0x0b;
const NOTIFIER_PROBE_NR: u8 = 0x0c;
const PROTECT_NR: u8 = 0x09;
const LEAVES_NR: u8 = 0x0a;
const AGE_NR: u8 = 0x0d;
const TRACK_OPEN_NR: u8 = 0x0e;
const TRACK_BEGIN_NR: u8 = 0x0f;
const TRACK_READ_NR: u8 = 0x10;
const TRACK_END_NR: u8 = 0x11;
const TRACK_BITMAP_NR: u8 = 0x12;

/// Number as the ioctl is issued with it; the C library's type for it differs between libraries.
const fn number(nr: u8, size: usize) -> u32 {
    nix::request_code_readwrite!(MMOPS_IOC_MAGIC, nr, size) as u32
}

/// What the driver is and can do.
pub const MMOPS_IOC_INFO: u32 = number(INFO_NR, size_of::<mmops_info>());
/// Write-protects a range of a file in all shared mappings of it.
pub const MMOPS_IOC_WRITE_PROTECT: u32 = number(WRITE_PROTECT_NR, size_of::<mmops_write_protect>());
/// Takes and records the dirty bits of a range of a file in all shared mappings of it.
pub const MMOPS_IOC_CLEAN_RECORD: u32 = number(CLEAN_RECORD_NR, size_of::<mmops_clean_record>());
/// Takes the pages of a range away from an address space.
pub const MMOPS_IOC_ZAP: u32 = number(ZAP_NR, size_of::<mmops_zap>());
/// Clears the soft-dirty bits of a process, all or of a range.
pub const MMOPS_IOC_SOFT_DIRTY_CLEAR: u32 =
    number(SOFT_DIRTY_CLEAR_NR, size_of::<mmops_soft_dirty_clear>());
/// Takes pages away from the CPU, for a device.
pub const MMOPS_IOC_EXCLUSIVE: u32 = number(EXCLUSIVE_NR, size_of::<mmops_exclusive>());
/// Gives exclusive pages back to the CPU.
pub const MMOPS_IOC_REVOKE: u32 = number(REVOKE_NR, size_of::<mmops_revoke>());
/// Has a simulated device add to words in memory.
pub const MMOPS_IOC_ATOMIC_ADD: u32 = number(ATOMIC_ADD_NR, size_of::<mmops_atomic_add>());
/// Reports invalidations that the open file is subscribed to.
pub const MMOPS_IOC_NOTIFIER_LOG: u32 = number(NOTIFIER_LOG_NR, size_of::<mmops_notifier_log>());
/// Subscribes the open file to the invalidations of a range or of an address space.
pub const MMOPS_IOC_NOTIFIER_SUBSCRIBE: u32 =
    number(NOTIFIER_SUBSCRIBE_NR, size_of::<mmops_notifier_subscribe>());
/// Says whether a lookup would collide with an invalidation.
pub const MMOPS_IOC_NOTIFIER_PROBE: u32 =
    number(NOTIFIER_PROBE_NR, size_of::<mmops_notifier_probe>());
/// Protects leaves of a process below what their mappings allow.
pub const MMOPS_IOC_PROTECT: u32 = number(PROTECT_NR, size_of::<mmops_protect>());
/// Lists the leaves of a process.
pub const MMOPS_IOC_LEAVES: u32 = number(LEAVES_NR, size_of::<mmops_leaves>());
/// Makes the leaves of a process old, and counts those that were young.
pub const MMOPS_IOC_AGE: u32 = number(AGE_NR, size_of::<mmops_age>());
/// Begins to track a range of a process.
pub const MMOPS_IOC_TRACK_OPEN: u32 = number(TRACK_OPEN_NR, size_of::<mmops_track_open>());
/// Begins an epoch: what changed since the last is in it.
pub const MMOPS_IOC_TRACK_BEGIN: u32 = number(TRACK_BEGIN_NR, size_of::<mmops_track_begin>());
/// Reports the pages of an epoch.
pub const MMOPS_IOC_TRACK_READ: u32 = number(TRACK_READ_NR, size_of::<mmops_track_read>());
/// Ends an epoch.
pub const MMOPS_IOC_TRACK_END: u32 = number(TRACK_END_NR, size_of::<mmops_track_end>());
/// Reports the pages of an epoch as a bitmap.
pub const MMOPS_IOC_TRACK_BITMAP: u32 = number(TRACK_BITMAP_NR, size_of::<mmops_track_bitmap>());
