/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * mmops_ref - run and time the kernel's own C functions, or mmops's, on one
 * range: the interface of /dev/mmops_ref. For tests and benchmarks only.
 */
#ifndef _MMOPS_REF_H
#define _MMOPS_REF_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* mmops_ref_dirty::op */
#define MMOPS_REF_WRITE_PROTECT		0
#define MMOPS_REF_CLEAN_RECORD		1

/* mmops_ref_dirty::side */
#define MMOPS_REF_KERNEL		0	/* mm/mapping_dirty_helpers.c */
#define MMOPS_REF_MMOPS			1	/* the crate mmops */

/**
 * struct mmops_ref_dirty - argument of MMOPS_REF_IOC_DIRTY
 * @fd: in: descriptor as for MMOPS_IOC_CLEAN_RECORD
 * @op: in: MMOPS_REF_WRITE_PROTECT or MMOPS_REF_CLEAN_RECORD
 * @side: in: MMOPS_REF_KERNEL or MMOPS_REF_MMOPS
 * @flags: in: MMOPS_* flags of linux/mmops.h for the side of mmops, else 0
 * @first: in: first page offset
 * @nr: in: number of pages
 * @bitmap_pgoff: in: page offset of bit 0 (clean_record)
 * @bitmap: in: address of an array of __u64 (clean_record)
 * @bitmap_bits: in: number of bits in @bitmap, a multiple of 64
 * @start: in, out: as the C function's *start
 * @end: in, out: as the C function's *end
 * @count: out: what the function returned
 * @ns: out: nanoseconds that the function alone took
 * @reserved: must be zero
 */
struct mmops_ref_dirty {
	__s32 fd;
	__u32 op;
	__u32 side;
	__u32 flags;
	__u64 first;
	__u64 nr;
	__u64 bitmap_pgoff;
	__u64 bitmap;
	__u64 bitmap_bits;
	__u64 start;
	__u64 end;
	__u64 count;
	__u64 ns;
	__u64 reserved[2];
};

/**
 * struct mmops_ref_exclusive - argument of MMOPS_REF_IOC_EXCLUSIVE
 * @side: in: MMOPS_REF_KERNEL: make_device_exclusive() for each page;
 *	MMOPS_REF_MMOPS: one call
 * @pad: must be zero
 * @addr: in: first address, in bytes
 * @len: in: length, in bytes
 * @count: out: pages that were made device-exclusive
 * @ns: out: nanoseconds that this alone took
 * @reserved: must be zero
 *
 * For base pages of anonymous memory of the caller.
 */
struct mmops_ref_exclusive {
	__u32 side;
	__u32 pad;
	__u64 addr;
	__u64 len;
	__u64 count;
	__u64 ns;
	__u64 reserved[2];
};

/**
 * struct mmops_ref_program - argument of MMOPS_REF_IOC_PROGRAM
 * @addr: in: first address, in bytes
 * @len: in: length, in bytes
 * @results: in: address of an array of one byte for each page, which gets
 *	MMOPS_PAGE_* of linux/mmops.h
 * @value: in: what the device stores to the first word of each page that it has
 * @count: out: pages that were made device-exclusive, by one call
 * @programmed: out: pages that the device had afterwards
 * @batches: out: how often it was programmed
 * @reserved: must be zero
 *
 * For memory of the caller. The pages stay exclusive, but the device goes.
 */
struct mmops_ref_program {
	__u64 addr;
	__u64 len;
	__u64 results;
	__u64 value;
	__u64 count;
	__u64 programmed;
	__u64 batches;
	__u64 reserved[2];
};

/**
 * struct mmops_ref_nonblock - argument of MMOPS_REF_IOC_NONBLOCK
 * @addr: in: first address, in bytes
 * @len: in: length, in bytes
 * @locked: in: 1 if the lock of a subscriber is held meanwhile, or 0
 * @refused: out: 1 if a subscriber would have had to sleep
 * @ran: out: how often what was to be done within the invalidation was done
 * @told: out: how often the subscriber was told of one that must not sleep
 * @reserved: must be zero
 *
 * An invalidation of memory of the caller that must not block, and a subscriber
 * of its own, which lives as long as the call.
 */
struct mmops_ref_nonblock {
	__u64 addr;
	__u64 len;
	__u32 locked;
	__u32 refused;
	__u32 ran;
	__u32 told;
	__u64 reserved[2];
};

/**
 * struct mmops_ref_nested - argument of MMOPS_REF_IOC_NESTED
 * @addr: in: first address, in bytes
 * @len: in: length, in bytes
 * @make: out: what make_exclusive() of the same notifier said, 0 or -errno
 * @take: out: likewise, take_from_cpu()
 * @revoke: out: likewise, revoke()
 * @fault: out: likewise, hmm::range_fault() to store
 * @programmed: out: how often the device was programmed
 * @reserved32: must be zero
 * @reserved: must be zero
 *
 * For memory of the caller. The pages become exclusive; the function that
 * programs the device then tries to make them so once more, with another guard
 * of the mmap lock, of which lockdep tells.
 */
struct mmops_ref_nested {
	__u64 addr;
	__u64 len;
	__s32 make;
	__s32 take;
	__s32 revoke;
	__s32 fault;
	__u32 programmed;
	__u32 reserved32;
	__u64 reserved;
};

#define MMOPS_REF_IOC_DIRTY	_IOWR(0xBE, 0x00, struct mmops_ref_dirty)
#define MMOPS_REF_IOC_EXCLUSIVE	_IOWR(0xBE, 0x01, struct mmops_ref_exclusive)
#define MMOPS_REF_IOC_PROGRAM	_IOWR(0xBE, 0x02, struct mmops_ref_program)
#define MMOPS_REF_IOC_NONBLOCK	_IOWR(0xBE, 0x03, struct mmops_ref_nonblock)
#define MMOPS_REF_IOC_NESTED	_IOWR(0xBE, 0x08, struct mmops_ref_nested)

#endif /* _MMOPS_REF_H */
