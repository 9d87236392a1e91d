/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * mmops - operations on live user page tables: the interface of /dev/mmops.
 *
 * The device is a test driver for the mmops library module; see
 * Documentation/uapi.rst for what each call does and each errno.
 *
 * Rules for every call:
 *
 * - the size of the argument is part of the ioctl number: a structure of
 *   another size is another call, and gets ENOTTY;
 * - reserved fields must be zero and unknown flags must not be set, else EINVAL;
 * - page offsets and counts are in units of the page size that
 *   MMOPS_IOC_INFO reports;
 * - on an error other than EINTR nothing has been changed, unless the call's
 *   description in Documentation/uapi.rst says otherwise.
 */
#ifndef _UAPI_LINUX_MMOPS_H
#define _UAPI_LINUX_MMOPS_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Version of this interface: major in the upper 16 bits, minor in the lower. */
#define MMOPS_UAPI_VERSION		0x00010006

/* mmops_info::features */
#define MMOPS_FEATURE_WRITE_PROTECT	(1ULL << 0)
#define MMOPS_FEATURE_CLEAN_RECORD	(1ULL << 1)
/* Leaves of PMD and PUD size are handled, not skipped. */
#define MMOPS_FEATURE_HUGE_LEAVES	(1ULL << 2)
/* MMOPS_IOC_ZAP */
#define MMOPS_FEATURE_ZAP		(1ULL << 3)
/* MMOPS_IOC_SOFT_DIRTY_CLEAR */
#define MMOPS_FEATURE_SOFT_DIRTY	(1ULL << 4)
/* MMOPS_IOC_EXCLUSIVE, MMOPS_IOC_REVOKE, MMOPS_IOC_ATOMIC_ADD */
#define MMOPS_FEATURE_EXCLUSIVE		(1ULL << 5)
/* MMOPS_IOC_NOTIFIER_* */
#define MMOPS_FEATURE_NOTIFIER		(1ULL << 6)
/* MMOPS_IOC_PROTECT */
#define MMOPS_FEATURE_PROTECT		(1ULL << 7)
/* MMOPS_IOC_LEAVES */
#define MMOPS_FEATURE_LEAVES		(1ULL << 8)
/* MMOPS_IOC_AGE */
#define MMOPS_FEATURE_AGE		(1ULL << 9)
/* MMOPS_IOC_TRACK_* */
#define MMOPS_FEATURE_TRACK		(1ULL << 10)
/* MMOPS_TRACK_FULL */
#define MMOPS_FEATURE_TRACK_FULL	(1ULL << 11)
/* MMOPS_TRACK_FILE */
#define MMOPS_FEATURE_TRACK_FILE	(1ULL << 12)
/* MMOPS_TRACK_KINDS */
#define MMOPS_FEATURE_TRACK_KINDS	(1ULL << 13)
/* MMOPS_IOC_TRACK_BITMAP */
#define MMOPS_FEATURE_TRACK_BITMAP	(1ULL << 14)
/* mmops.ko was built with MMOPS_FAULTS=1: never on a production machine. */
#define MMOPS_FEATURE_FAULTS		(1ULL << 63)

/**
 * struct mmops_info - argument of MMOPS_IOC_INFO
 * @version: out: MMOPS_UAPI_VERSION of the driver
 * @page_size: out: bytes in a base page
 * @features: out: MMOPS_FEATURE_*
 * @reserved: must be zero
 */
struct mmops_info {
	__u32 version;
	__u32 page_size;
	__u64 features;
	__u64 reserved[4];
};

/*
 * Flags of MMOPS_IOC_WRITE_PROTECT and MMOPS_IOC_CLEAN_RECORD.
 *
 * MMOPS_SPLIT: replace a PMD leaf of the page cache by a PTE table before it is
 * changed, so that what is stored afterwards is tracked in base pages. Leaves of
 * DAX, and of PUD size, stay. Those of PFN maps are split without being asked
 * for, where that is needed; see Documentation/uapi.rst.
 */
#define MMOPS_SPLIT			(1U << 0)
/*
 * MMOPS_NO_TRANSFER (MMOPS_IOC_CLEAN_RECORD only): do not mark the folio dirty
 * for a dirty bit that was taken. For a caller that writes the data back itself;
 * EOPNOTSUPP where the file is not written back.
 */
#define MMOPS_NO_TRANSFER		(1U << 1)

/**
 * struct mmops_write_protect - argument of MMOPS_IOC_WRITE_PROTECT
 * @fd: in: descriptor of a file that can be mapped shared, open for reading and
 *	writing
 * @flags: in: MMOPS_SPLIT or 0
 * @first: in: first page offset
 * @nr: in: number of pages
 * @write_protected: out: base pages whose leaf lost its write permission,
 *	summed over all mappings of the range
 * @done: out: pages from @first on that are completely processed; less than
 *	@nr only with EINTR and ENOMEM
 * @reserved: must be zero
 */
struct mmops_write_protect {
	__s32 fd;
	__u32 flags;
	__u64 first;
	__u64 nr;
	__u64 write_protected;
	__u64 done;
	__u64 reserved[2];
};

/**
 * struct mmops_clean_record - argument of MMOPS_IOC_CLEAN_RECORD
 * @fd: in: descriptor of a file that can be mapped shared, open for reading and
 *	writing
 * @flags: in: MMOPS_SPLIT, MMOPS_NO_TRANSFER or 0
 * @first: in: first page offset
 * @nr: in: number of pages
 * @bitmap_pgoff: in: page offset of bit 0 of @bitmap; not above @first
 * @bitmap: in: address of an array of __u64, aligned to 8 bytes; bit n of the
 *	bitmap is bit n % 64 of word n / 64. Bits are set for pages whose dirty
 *	bit was taken, and never cleared.
 * @bitmap_bits: in: number of bits in @bitmap, a multiple of 64; must cover
 *	@first + @nr
 * @start: in, out: first set bit of @bitmap that is known. Only ever lowered,
 *	if @start < @end on entry; else set anew
 * @end: in, out: last such bit plus one. Only ever raised, likewise. A call
 *	that takes nothing leaves both as they were.
 * @cleaned: out: base pages whose leaf lost its dirty bit, or keeps it since
 *	the range covers the leaf in part, summed over all mappings of the range
 * @done: out: pages from @first on that are completely processed; less than
 *	@nr only with an error that comes late: EINTR, ENOMEM, or EFAULT for
 *	@bitmap
 * @reserved: must be zero
 */
struct mmops_clean_record {
	__s32 fd;
	__u32 flags;
	__u64 first;
	__u64 nr;
	__u64 bitmap_pgoff;
	__u64 bitmap;
	__u64 bitmap_bits;
	__u64 start;
	__u64 end;
	__u64 cleaned;
	__u64 done;
	__u64 reserved[2];
};

/**
 * struct mmops_zap - argument of MMOPS_IOC_ZAP
 * @pidfd: in: the process, or -1 for the caller
 * @flags: in: must be zero
 * @addr: in: first address, in bytes
 * @len: in: length, in bytes
 * @zapped: out: base pages whose entry was taken, of whatever kind; those of
 *	hugetlbfs are not counted, nor is what a leaf of a file maps that the
 *	range covers only in part
 * @done: out: bytes from @addr on that are completely processed; less than @len
 *	only with EINTR
 * @reserved: must be zero
 */
struct mmops_zap {
	__s32 pidfd;
	__u32 flags;
	__u64 addr;
	__u64 len;
	__u64 zapped;
	__u64 done;
	__u64 reserved[2];
};

/*
 * Flags of MMOPS_IOC_SOFT_DIRTY_CLEAR.
 *
 * MMOPS_SOFT_DIRTY_ALL: the whole address space; @addr and @len must be zero.
 */
#define MMOPS_SOFT_DIRTY_ALL		(1U << 0)
/*
 * MMOPS_SOFT_DIRTY_FORGET: pages outside the range that are not mapped, and
 * read as soft-dirty only because their mapping is new, read as clean from now
 * on. Without it, anonymous ones are mapped to keep their mark if they are few,
 * and else a mapping that has such pages is not cleared.
 */
#define MMOPS_SOFT_DIRTY_FORGET		(1U << 1)

/**
 * struct mmops_soft_dirty_clear - argument of MMOPS_IOC_SOFT_DIRTY_CLEAR
 * @pidfd: in: the process, or -1 for the caller
 * @flags: in: MMOPS_SOFT_DIRTY_*
 * @addr: in: first address, in bytes
 * @len: in: length, in bytes
 * @cleared: out: base pages whose entry was soft-dirty and is not any more
 * @kept: out: base pages that are not tracked from now on, and read as soft-dirty
 *	(of hugetlbfs and PFN maps, as they did)
 * @done: out: bytes from @addr on that are completely processed; less than @len
 *	only with EINTR
 * @reserved: must be zero
 */
struct mmops_soft_dirty_clear {
	__s32 pidfd;
	__u32 flags;
	__u64 addr;
	__u64 len;
	__u64 cleared;
	__u64 kept;
	__u64 done;
	__u64 reserved[2];
};

/*
 * What became of a page, in mmops_exclusive::results.
 */
#define MMOPS_PAGE_UNTOUCHED		0	/* the call ended before it came to it */
#define MMOPS_PAGE_EXCLUSIVE		1
#define MMOPS_PAGE_BUSY			2	/* changed too often; try again */
#define MMOPS_PAGE_UNMAPPED		3
#define MMOPS_PAGE_NOT_ANONYMOUS	4
#define MMOPS_PAGE_READ_ONLY		5
#define MMOPS_PAGE_HUGETLB		6
#define MMOPS_PAGE_PINNED		7
#define MMOPS_PAGE_KSM			8
#define MMOPS_PAGE_USERFAULTFD		9	/* userspace would have to be asked */
#define MMOPS_PAGE_POISONED		10
#define MMOPS_PAGE_NO_MEMORY		11
#define MMOPS_PAGE_FAULT		12	/* cannot be faulted in */

/**
 * struct mmops_exclusive - argument of MMOPS_IOC_EXCLUSIVE
 * @pidfd: in: the process, or -1 for the caller
 * @flags: in: must be zero
 * @addr: in: first address, in bytes
 * @len: in: length, in bytes
 * @results: in: address of an array of one byte for each page, which gets
 *	MMOPS_PAGE_*, or 0
 * @exclusive: out: base pages that were made device-exclusive
 * @done: out: bytes from @addr on that were processed; less than @len only with
 *	EINTR, with EFAULT for @results, or with ENOMEM for a later batch
 * @reserved: must be zero
 */
struct mmops_exclusive {
	__s32 pidfd;
	__u32 flags;
	__u64 addr;
	__u64 len;
	__u64 results;
	__u64 exclusive;
	__u64 done;
	__u64 reserved[2];
};

/**
 * struct mmops_revoke - argument of MMOPS_IOC_REVOKE
 * @pidfd: in: the process, or -1 for the caller
 * @flags: in: must be zero
 * @addr: in: first address, in bytes
 * @len: in: length, in bytes
 * @revoked: out: base pages that were device-exclusive and are not any more
 * @done: out: bytes from @addr on that were processed; less than @len only with
 *	EINTR
 * @reserved: must be zero
 */
struct mmops_revoke {
	__s32 pidfd;
	__u32 flags;
	__u64 addr;
	__u64 len;
	__u64 revoked;
	__u64 done;
	__u64 reserved[2];
};

#define MMOPS_ATOMIC_ADD_MAX_PAGES	4096

/**
 * struct mmops_atomic_add - argument of MMOPS_IOC_ATOMIC_ADD
 * @pidfd: in: the process, or -1 for the caller
 * @flags: in: must be zero
 * @addr: in: address of the first word, a multiple of 8
 * @stride: in: bytes from one word to the next, a multiple of 8
 * @nr: in: number of words
 * @value: in: what is added to each of them, modulo 2^64
 * @rounds: in: how often
 * @added: out: additions that were made; less than @nr * @rounds only if the
 *	call fails
 * @taken: out: pages that were made exclusive on the way
 * @reserved: must be zero
 */
struct mmops_atomic_add {
	__s32 pidfd;
	__u32 flags;
	__u64 addr;
	__u64 stride;
	__u64 nr;
	__u64 value;
	__u64 rounds;
	__u64 added;
	__u64 taken;
	__u64 reserved[2];
};

/* mmops_notifier_event::event: the numbers of enum mmu_notifier_event. */
#define MMOPS_EVENT_UNMAP		0
#define MMOPS_EVENT_CLEAR		1
#define MMOPS_EVENT_PROTECTION_VMA	2
#define MMOPS_EVENT_PROTECTION_PAGE	3
#define MMOPS_EVENT_SOFT_DIRTY		4
#define MMOPS_EVENT_RELEASE		5
#define MMOPS_EVENT_MIGRATE		6
#define MMOPS_EVENT_EXCLUSIVE		7

/* mmops_notifier_event::flags */
/* The subscriber was allowed to sleep. */
#define MMOPS_NOTIFIER_BLOCKABLE	(1U << 0)
/* The event was caused through the open file that is subscribed. */
#define MMOPS_NOTIFIER_OWN		(1U << 1)
/* The end of an invalidation; only where a whole address space is subscribed to. */
#define MMOPS_NOTIFIER_END		(1U << 2)

/**
 * struct mmops_notifier_event - an invalidation, as a driver is told of it
 * @time: nanoseconds since the subscription
 * @start: first address, at least that of the subscription
 * @end: first address behind, at most that behind the subscription
 * @event: MMOPS_EVENT_*
 * @flags: MMOPS_NOTIFIER_BLOCKABLE, MMOPS_NOTIFIER_OWN, MMOPS_NOTIFIER_END
 */
struct mmops_notifier_event {
	__u64 time;
	__u64 start;
	__u64 end;
	__u32 event;
	__u32 flags;
};

/* mmops_notifier_log::flags: wait until there is something to report. */
#define MMOPS_NOTIFIER_WAIT		(1U << 0)

/**
 * struct mmops_notifier_log - argument of MMOPS_IOC_NOTIFIER_LOG
 * @events: in: address of an array of struct mmops_notifier_event, aligned to
 *	8 bytes
 * @nr: in: length of the array, 1 to MMOPS_NOTIFIER_MAX_EVENTS; out: events
 *	stored in it, the oldest first. They are reported once.
 * @flags: in: MMOPS_NOTIFIER_WAIT or 0
 * @lost: out: events since the last call that found no room in the kernel
 * @released: out: 1 if the address space has ended and all was reported
 * @reserved0: must be zero
 * @reserved: must be zero
 */
struct mmops_notifier_log {
	__u64 events;
	__u32 nr;
	__u32 flags;
	__u64 lost;
	__u32 released;
	__u32 reserved0;
	__u64 reserved[2];
};

#define MMOPS_NOTIFIER_MAX_EVENTS	65536

/*
 * Flags of MMOPS_IOC_NOTIFIER_SUBSCRIBE.
 *
 * MMOPS_NOTIFIER_MM: subscribe to the whole address space, to the ends of
 * invalidations as well, and to its own end; mmops_notifier_subscribe::addr and
 * ::len must be zero.
 */
#define MMOPS_NOTIFIER_MM		(1U << 0)
/*
 * MMOPS_NOTIFIER_FILTER (of a range only): leave out MMOPS_EVENT_EXCLUSIVE that
 * was caused through the same open file, as a driver leaves out its own.
 */
#define MMOPS_NOTIFIER_FILTER		(1U << 1)

/**
 * struct mmops_notifier_subscribe - argument of MMOPS_IOC_NOTIFIER_SUBSCRIBE
 * @pidfd: in: the process, as a pidfd; -1 is the caller itself
 * @flags: in: MMOPS_NOTIFIER_MM, MMOPS_NOTIFIER_FILTER or 0
 * @addr: in: first address, a multiple of the page size
 * @len: in: number of bytes, likewise
 * @capacity: in: events that are kept until they are read, 1 to
 *	MMOPS_NOTIFIER_MAX_EVENTS; further ones are counted
 * @reserved0: must be zero
 * @reserved: must be zero
 */
struct mmops_notifier_subscribe {
	__s32 pidfd;
	__u32 flags;
	__u64 addr;
	__u64 len;
	__u32 capacity;
	__u32 reserved0;
	__u64 reserved[2];
};

#define MMOPS_NOTIFIER_MAX_DELAY_MS	1000

/**
 * struct mmops_notifier_probe - argument of MMOPS_IOC_NOTIFIER_PROBE
 * @delay_ms: in: milliseconds to wait, at most MMOPS_NOTIFIER_MAX_DELAY_MS
 * @collided: out: 1 if the range was invalidated meanwhile: a driver that had
 *	looked pages up would have to begin anew
 * @hint: out: what the driver would have seen without its lock
 * @reserved0: must be zero
 * @reserved: must be zero
 */
struct mmops_notifier_probe {
	__u32 delay_ms;
	__u32 collided;
	__u32 hint;
	__u32 reserved0;
	__u64 reserved[2];
};

/*
 * MMOPS_PROTECT_LARGE (MMOPS_IOC_PROTECT): leaves of page frames stay as large as
 * they are, since the driver of the mapping resolves a write fault on one. Without
 * it they are split before they become read-only.
 */
#define MMOPS_PROTECT_LARGE		(1U << 0)

/**
 * struct mmops_protect - argument of MMOPS_IOC_PROTECT
 * @pidfd: in: the process, or -1 for the caller
 * @flags: in: MMOPS_PROTECT_LARGE or 0
 * @addr: in: first address, in bytes
 * @len: in: length, in bytes
 * @prot: in: PROT_READ, PROT_WRITE and PROT_EXEC as for mprotect(2): what the
 *	mappings allow, the same without PROT_WRITE, or PROT_NONE
 * @pad: must be zero
 * @ptes: out: leaves of base page size whose protection changed
 * @pmds: out: leaves of PMD size whose protection changed
 * @puds: out: leaves of PUD size whose protection changed
 * @split_pmds: out: leaves of PMD size that were split
 * @split_puds: out: leaves of PUD size that were split
 * @done: out: bytes from @addr on that are completely processed; less than @len
 *	only with EINTR, or ENOMEM for want of a page table
 * @reserved: must be zero
 */
struct mmops_protect {
	__s32 pidfd;
	__u32 flags;
	__u64 addr;
	__u64 len;
	__u32 prot;
	__u32 pad;
	__u64 ptes;
	__u64 pmds;
	__u64 puds;
	__u64 split_pmds;
	__u64 split_puds;
	__u64 done;
	__u64 reserved[2];
};

/* mmops_leaf::state; for an entry that is not present only the two marked * */
#define MMOPS_LEAF_READ			(1U << 0)
#define MMOPS_LEAF_WRITE		(1U << 1)
#define MMOPS_LEAF_EXEC			(1U << 2)
#define MMOPS_LEAF_DIRTY		(1U << 3)
#define MMOPS_LEAF_YOUNG		(1U << 4)
#define MMOPS_LEAF_SOFT_DIRTY		(1U << 5)	/* * */
/* userfaultfd protects the page, against stores or all accesses. */
#define MMOPS_LEAF_UFFD			(1U << 6)	/* * */
/* No folio that mm manages: a PFN map, or the shared zero page. */
#define MMOPS_LEAF_SPECIAL		(1U << 7)

/* mmops_leaf::kind */
#define MMOPS_LEAF_PRESENT		0
#define MMOPS_LEAF_SWAP			1
#define MMOPS_LEAF_MIGRATION		2
#define MMOPS_LEAF_DEVICE_PRIVATE	3
#define MMOPS_LEAF_DEVICE_EXCLUSIVE	4
#define MMOPS_LEAF_HWPOISON		5
/* Of userfaultfd, a guard or an error: no page. */
#define MMOPS_LEAF_MARKER		6

/* The least number of records that MMOPS_IOC_LEAVES takes room for. */
#define MMOPS_LEAVES_MIN		512

/**
 * struct mmops_leaf - what MMOPS_IOC_LEAVES tells of a leaf
 * @addr: first address that it maps; may lie before the range that was asked for
 * @state: MMOPS_LEAF_READ ...
 * @shift: it maps 1 << @shift bytes
 * @kind: MMOPS_LEAF_PRESENT ...
 * @reserved: zero
 */
struct mmops_leaf {
	__u64 addr;
	__u32 state;
	__u8 shift;
	__u8 kind;
	__u16 reserved;
};

/**
 * struct mmops_leaves - argument of MMOPS_IOC_LEAVES
 * @pidfd: in: the process, or -1 for the caller
 * @flags: in: must be zero
 * @addr: in: first address, in bytes
 * @len: in: length, in bytes; holes are passed over
 * @vec: in: address of an array of struct mmops_leaf
 * @vec_len: in: number of records in it, at least MMOPS_LEAVES_MIN
 * @nr: out: number of records written
 * @next: out: all leaves before this address are listed; a next call goes on
 *	here, unless it is the end of the range
 * @reserved: must be zero
 */
struct mmops_leaves {
	__s32 pidfd;
	__u32 flags;
	__u64 addr;
	__u64 len;
	__u64 vec;
	__u64 vec_len;
	__u64 nr;
	__u64 next;
	__u64 reserved[2];
};

/**
 * struct mmops_age - argument of MMOPS_IOC_AGE
 * @pidfd: in: the process, or -1 for the caller
 * @flags: in: must be zero
 * @addr: in: first address, in bytes
 * @len: in: length, in bytes; holes are passed over
 * @aged: out: base pages whose leaf was young, and is old now
 * @kept: out: base pages of the range whose leaf is young still, since the range
 *	covers it in part
 * @done: out: bytes from @addr on that are completely processed; less than @len
 *	only with EINTR
 * @reserved: must be zero
 */
struct mmops_age {
	__s32 pidfd;
	__u32 flags;
	__u64 addr;
	__u64 len;
	__u64 aged;
	__u64 kept;
	__u64 done;
	__u64 reserved[2];
};

/*
 * Modes of MMOPS_IOC_TRACK_OPEN.
 *
 * MMOPS_TRACK_FAST: take dirty bits, and leave entries writable. A store costs no
 * fault. Not seen are changes that do not go through the entries of the range:
 * by ptrace(2), /proc/PID/mem, process_vm_writev(2), a virtual machine, a device
 * whose pin does not last to the begin of an epoch, and through a mapped file.
 *
 * MMOPS_TRACK_FULL: take write permissions as well. The first store to a page in an
 * epoch faults, and these are seen, but for changes of a mapped file by whatever else
 * (another mapping of the same process included), a page of a file that is pinned while
 * reclaim has taken its entry, and one that a driver keeps for a store without a pin.
 */
#define MMOPS_TRACK_FAST		(1U << 0)
#define MMOPS_TRACK_FULL		(1U << 1)
/*
 * With one of the modes: track a file, and not a process. All that changes its
 * contents is seen, whoever maps it, or nobody, but for what
 * Documentation/track.rst names.
 */
#define MMOPS_TRACK_FILE		(1U << 2)
/*
 * With one of the modes: records are of one of five kinds, and not of
 * MMOPS_TRACK_WRITTEN and MMOPS_TRACK_CHANGED alone.
 */
#define MMOPS_TRACK_KINDS		(1U << 3)

/**
 * struct mmops_track_open - argument of MMOPS_IOC_TRACK_OPEN
 * @pidfd: in: the process, or -1 for the caller; with MMOPS_TRACK_FILE a
 *	descriptor of the file, open for reading and writing
 * @flags: in: the mode: MMOPS_TRACK_FAST or MMOPS_TRACK_FULL; with it any of
 *	MMOPS_TRACK_FILE and MMOPS_TRACK_KINDS
 * @addr: in: first address, or offset in the file, in bytes; a multiple of the
 *	page size
 * @len: in: length, in bytes; likewise. Need not be mapped, nor be there
 * @reserved: must be zero
 */
struct mmops_track_open {
	__s32 pidfd;
	__u32 flags;
	__u64 addr;
	__u64 len;
	__u64 reserved[2];
};

/* mmops_track_begin::state */
/* The range is too large, or memory is short: all of it is reported, always. */
#define MMOPS_TRACK_OVERFLOW		(1U << 0)
/* The address space has ended, by exit or exec: all of it is reported. */
#define MMOPS_TRACK_ENDED		(1U << 1)

/**
 * struct mmops_track_begin - argument of MMOPS_IOC_TRACK_BEGIN
 * @flags: in: must be zero
 * @state: out: MMOPS_TRACK_OVERFLOW, MMOPS_TRACK_ENDED
 * @written: out: pages of kind MMOPS_TRACK_WRITTEN or MMOPS_TRACK_PINNED
 * @changed: out: pages of all other kinds
 * @reserved: must be zero
 */
struct mmops_track_begin {
	__u32 flags;
	__u32 state;
	__u64 written;
	__u64 changed;
	__u64 reserved[2];
};

/* mmops_track_range::kind */
#define MMOPS_TRACK_WRITTEN		1	/* a store was seen */
#define MMOPS_TRACK_CHANGED		2	/* may have changed, or may yet: not known */
/* With MMOPS_TRACK_KINDS, else these are among the others. */
#define MMOPS_TRACK_PINNED		3	/* for DMA: in the next epoch as well */
#define MMOPS_TRACK_NEW			4	/* nothing was there at the last begin, if any */
#define MMOPS_TRACK_GONE		5	/* something was there, and nothing is */

/**
 * struct mmops_track_range - pages that are reported for the same reason
 * @addr: first address, or offset in the file
 * @len: length, in bytes
 * @kind: MMOPS_TRACK_WRITTEN or MMOPS_TRACK_CHANGED; with MMOPS_TRACK_KINDS also
 *	MMOPS_TRACK_PINNED, and of a process MMOPS_TRACK_NEW or MMOPS_TRACK_GONE
 * @reserved: zero
 */
struct mmops_track_range {
	__u64 addr;
	__u64 len;
	__u32 kind;
	__u32 reserved;
};

/**
 * struct mmops_track_read - argument of MMOPS_IOC_TRACK_READ
 * @addr: in: where to begin; out: where a next call goes on
 * @vec: in: address of an array of struct mmops_track_range
 * @vec_len: in: number of records in it
 * @nr: out: number of records written, in ascending order
 * @needed: out: number of records from @addr on, whether there was room or not
 * @reserved: must be zero
 */
struct mmops_track_read {
	__u64 addr;
	__u64 vec;
	__u64 vec_len;
	__u64 nr;
	__u64 needed;
	__u64 reserved[2];
};

/* mmops_track_end::flags: the pages are in the next epoch again. */
#define MMOPS_TRACK_ABORT		(1U << 0)

/**
 * struct mmops_track_end - argument of MMOPS_IOC_TRACK_END
 * @flags: in: MMOPS_TRACK_ABORT, or 0: the pages are done with
 * @pad: must be zero
 * @reserved: must be zero
 */
struct mmops_track_end {
	__u32 flags;
	__u32 pad;
	__u64 reserved[2];
};

/**
 * struct mmops_track_bitmap - argument of MMOPS_IOC_TRACK_BITMAP
 * @addr: in: address, or offset in the file, of the page of bit 0; a page of the
 *	range
 * @bitmap: in: address of an array of __u64, which is overwritten; bit n is bit
 *	n % 64 of word n / 64
 * @words: in: words of it; pages behind the range have no bit set
 * @kinds: in: bit k asks for pages of kind k; 0 for those of all kinds
 * @flags: in: must be zero
 * @nr: out: number of bits that are set
 * @reserved: must be zero
 */
struct mmops_track_bitmap {
	__u64 addr;
	__u64 bitmap;
	__u64 words;
	__u32 kinds;
	__u32 flags;
	__u64 nr;
	__u64 reserved[2];
};

#define MMOPS_IOC_MAGIC			0xBD
#define MMOPS_IOC_INFO			_IOWR(MMOPS_IOC_MAGIC, 0x00, struct mmops_info)
#define MMOPS_IOC_WRITE_PROTECT		_IOWR(MMOPS_IOC_MAGIC, 0x01, struct mmops_write_protect)
#define MMOPS_IOC_CLEAN_RECORD		_IOWR(MMOPS_IOC_MAGIC, 0x02, struct mmops_clean_record)
#define MMOPS_IOC_ZAP			_IOWR(MMOPS_IOC_MAGIC, 0x03, struct mmops_zap)
#define MMOPS_IOC_SOFT_DIRTY_CLEAR	_IOWR(MMOPS_IOC_MAGIC, 0x04, struct mmops_soft_dirty_clear)
#define MMOPS_IOC_EXCLUSIVE		_IOWR(MMOPS_IOC_MAGIC, 0x05, struct mmops_exclusive)
#define MMOPS_IOC_REVOKE		_IOWR(MMOPS_IOC_MAGIC, 0x06, struct mmops_revoke)
#define MMOPS_IOC_ATOMIC_ADD		_IOWR(MMOPS_IOC_MAGIC, 0x07, struct mmops_atomic_add)
#define MMOPS_IOC_NOTIFIER_LOG		_IOWR(MMOPS_IOC_MAGIC, 0x08, struct mmops_notifier_log)
#define MMOPS_IOC_PROTECT		_IOWR(MMOPS_IOC_MAGIC, 0x09, struct mmops_protect)
#define MMOPS_IOC_LEAVES		_IOWR(MMOPS_IOC_MAGIC, 0x0a, struct mmops_leaves)
#define MMOPS_IOC_NOTIFIER_SUBSCRIBE	\
	_IOWR(MMOPS_IOC_MAGIC, 0x0b, struct mmops_notifier_subscribe)
#define MMOPS_IOC_NOTIFIER_PROBE	_IOWR(MMOPS_IOC_MAGIC, 0x0c, struct mmops_notifier_probe)
#define MMOPS_IOC_AGE			_IOWR(MMOPS_IOC_MAGIC, 0x0d, struct mmops_age)
#define MMOPS_IOC_TRACK_OPEN		_IOWR(MMOPS_IOC_MAGIC, 0x0e, struct mmops_track_open)
#define MMOPS_IOC_TRACK_BEGIN		_IOWR(MMOPS_IOC_MAGIC, 0x0f, struct mmops_track_begin)
#define MMOPS_IOC_TRACK_READ		_IOWR(MMOPS_IOC_MAGIC, 0x10, struct mmops_track_read)
#define MMOPS_IOC_TRACK_END		_IOWR(MMOPS_IOC_MAGIC, 0x11, struct mmops_track_end)
#define MMOPS_IOC_TRACK_BITMAP		_IOWR(MMOPS_IOC_MAGIC, 0x12, struct mmops_track_bitmap)

#endif /* _UAPI_LINUX_MMOPS_H */
