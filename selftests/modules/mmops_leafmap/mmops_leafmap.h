/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * mmops_leafmap - map reserved memory in leaves of a chosen size: the interface
 * of /dev/mmops_leafmap. For tests only.
 *
 * The device is mapped shared, from any page offset. All open files see the
 * same memory; how a mapping is served belongs to the open file that it is of,
 * and is PTE leaves before MMOPS_LEAFMAP_IOC_SERVE. From the moment that PUD
 * leaves are served, munmap(2), mprotect(2) etc. of a part of 1 GiB are refused
 * with EINVAL, without MMOPS_LEAFMAP_MAY_SPLIT.
 */
#ifndef _MMOPS_LEAFMAP_H
#define _MMOPS_LEAFMAP_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* mmops_leafmap_serve::order: the largest leaf that a fault is served with */
#define MMOPS_LEAFMAP_PTE	0	/* 4 KiB */
#define MMOPS_LEAFMAP_PMD	9	/* 2 MiB */
#define MMOPS_LEAFMAP_PUD	18	/* 1 GiB */

/*
 * mmops_leafmap_serve::flags
 *
 * SHRINK: a leaf that is gone is served in the next smaller size when it is
 *	faulted again. Without it, in the same size.
 * MAY_SPLIT: a mapping may be cut within a PUD leaf, says vm_ops->may_split.
 *	Only to ask for it: Linux 7.3 itself does not survive a cut within 2 MiB.
 * MIXED: what is mapped from now on is a mapping that may have pages beside page
 *	frames (VM_MIXEDMAP), and not one of page frames throughout (VM_PFNMAP).
 * LEAVE_ALONE: a write fault on a leaf that is there and read-only leaves it
 *	alone, as vfio-pci does. Whoever faults on and on gets SIGBUS after
 *	MMOPS_LEAFMAP_PATIENCE faults.
 */
#define MMOPS_LEAFMAP_SHRINK	(1U << 0)
#define MMOPS_LEAFMAP_MAY_SPLIT	(1U << 1)
#define MMOPS_LEAFMAP_MIXED	(1U << 2)
#define MMOPS_LEAFMAP_LEAVE_ALONE (1U << 3)

#define MMOPS_LEAFMAP_PATIENCE	1000

/**
 * struct mmops_leafmap_serve - argument of MMOPS_LEAFMAP_IOC_SERVE
 * @order: in: MMOPS_LEAFMAP_PTE, MMOPS_LEAFMAP_PMD or MMOPS_LEAFMAP_PUD
 * @flags: in: MMOPS_LEAFMAP_SHRINK, MMOPS_LEAFMAP_MAY_SPLIT, MMOPS_LEAFMAP_MIXED,
 *	MMOPS_LEAFMAP_LEAVE_ALONE, or 0
 * @skew: in: page offset at which the memory begins; less than 1 GiB. With one
 *	that is no multiple of a leaf, the page offset of each leaf is not either.
 *
 * Forgets which leaves were served and resets the counts. What is mapped stays,
 * so the skew is to be set before the file is mapped.
 */
struct mmops_leafmap_serve {
	__u32 order;
	__u32 flags;
	__u64 skew;
};

/**
 * struct mmops_leafmap_info - argument of MMOPS_LEAFMAP_IOC_INFO
 * @size: out: bytes that can be mapped, a multiple of 1 GiB
 * @pte: out: faults that were served with a PTE leaf
 * @pmd: out: the same, PMD leaf
 * @pud: out: the same, PUD leaf
 * @writes: out: how many of @pmd and @pud were writes to a leaf that was read-only;
 *	such a leaf is unmapped and served again, as large
 * @left: out: writes to such a leaf that was left alone
 */
struct mmops_leafmap_info {
	__u64 size;
	__u64 pte;
	__u64 pmd;
	__u64 pud;
	__u64 writes;
	__u64 left;
};

/**
 * struct mmops_leafmap_unmap - argument of MMOPS_LEAFMAP_IOC_UNMAP
 * @offset: in: bytes from the start of the device
 * @len: in: bytes; 0 is all from @offset on
 *
 * unmap_mapping_range(), as for a file that is truncated, in all mappings of the
 * device. Later accesses fault.
 */
struct mmops_leafmap_unmap {
	__u64 offset;
	__u64 len;
};

#define MMOPS_LEAFMAP_IOC_SERVE	_IOW(0xBF, 0x00, struct mmops_leafmap_serve)
#define MMOPS_LEAFMAP_IOC_INFO	_IOR(0xBF, 0x01, struct mmops_leafmap_info)
#define MMOPS_LEAFMAP_IOC_UNMAP	_IOW(0xBF, 0x02, struct mmops_leafmap_unmap)

#endif /* _MMOPS_LEAFMAP_H */
