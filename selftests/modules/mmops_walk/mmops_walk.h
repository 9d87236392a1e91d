/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * mmops_walk - walks, a gather and an invalidation of a driver's own: the
 * interface of /dev/mmops_walk. For tests only.
 */
#ifndef _MMOPS_WALK_H
#define _MMOPS_WALK_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* mmops_walk::op: the function of the crate mmops that is instantiated */
#define MMOPS_WALK_READ_MAPPING		0	/* walk_page_mapping */
#define MMOPS_WALK_READ_RANGE		1	/* walk_page_range */
#define MMOPS_WALK_READ_VMA		2	/* walk_page_range_vma */
#define MMOPS_WALK_PROTECT_MAPPING	3	/* walk_page_mapping, and changes */
#define MMOPS_WALK_PROTECT_RANGE	4	/* the same of walk_page_range */
#define MMOPS_WALK_PROTECT_ONE_SCOPE	5	/* walk_page_range_one_scope */
#define MMOPS_WALK_PROTECT_VMA		6	/* walk_page_range_vma */
#define MMOPS_WALK_ZAP			7	/* with_gather, zap_vma twice */
#define MMOPS_WALK_INVALIDATE		8	/* with_invalidation */
#define MMOPS_WALK_FOREIGN_TABLE	9	/* walk_page_range_vma */
#define MMOPS_WALK_TAKE_DIRTY		10	/* take_dirty, of a range */

/* mmops_walk::flags */
#define MMOPS_WALK_SPLIT	(1U << 0)	/* PMD leaves, as Action::Replace */
#define MMOPS_WALK_SPLIT_ALL	(1U << 1)	/* also those that cannot be split */
#define MMOPS_WALK_SPLIT_PUD	(1U << 2)	/* also PUD leaves */
#define MMOPS_WALK_AS_KERNEL	(1U << 3)	/* as Action::Split instead */

/**
 * struct mmops_walk - argument of MMOPS_WALK_IOC
 * @op: in: MMOPS_WALK_*
 * @flags: in: MMOPS_WALK_SPLIT, with or without the other flags, or 0
 * @fd: in: descriptor of the file (_MAPPING); FOREIGN_TABLE: a pidfd, of the
 *	process that the table for the first leaf is allocated for
 * @pad: must be zero
 * @first: in: first page offset (_MAPPING), else the first address, in bytes;
 *	_VMA, ZAP and INVALIDATE are of the VMA that it lies in
 * @nr: in: number of pages
 * @gather: in: number of pages from @first on that the gather is over (ZAP)
 * @vmas: out: VMAs that the walk came to
 * @tables: out: PTE tables, or parts of one, that it visited
 * @leaves: out: huge leaves that it visited
 * @present: out: present base pages that it found
 * @writable: out: those of them whose entry permitted stores
 * @changed: out: base pages that were write-protected or zapped, or whose dirty
 *	bit was taken
 * @split: out: leaves that were split as asked for
 * @reserved: must be zero
 */
struct mmops_walk {
	__u32 op;
	__u32 flags;
	__s32 fd;
	__u32 pad;
	__u64 first;
	__u64 nr;
	__u64 gather;
	__u64 vmas;
	__u64 tables;
	__u64 leaves;
	__u64 present;
	__u64 writable;
	__u64 changed;
	__u64 split;
	__u64 reserved;
};

#define MMOPS_WALK_IOC	_IOWR(0xBC, 0x00, struct mmops_walk)

#endif /* _MMOPS_WALK_H */
