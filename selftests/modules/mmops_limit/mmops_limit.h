/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * mmops_limit - the least that work on page tables can cost: the interface of
 * /dev/mmops_limit. For benchmarks only.
 */
#ifndef _MMOPS_LIMIT_H
#define _MMOPS_LIMIT_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* mmops_limit_run::op */
#define MMOPS_LIMIT_READ	0	/* read each entry */
#define MMOPS_LIMIT_EXCHANGE	1	/* and replace it, locked, by the same value */

/**
 * struct mmops_limit_run - argument of MMOPS_LIMIT_IOC_RUN
 * @op: in: MMOPS_LIMIT_READ or MMOPS_LIMIT_EXCHANGE
 * @pad: must be zero
 * @addr: in: first address, in bytes
 * @len: in: length, in bytes
 * @present: out: entries that are present
 * @ns: out: nanoseconds that the loop took
 *
 * For memory of the caller in base pages; EFAULT if there is no table of entries
 * for some of it, and EAGAIN if a table went meanwhile.
 */
struct mmops_limit_run {
	__u32 op;
	__u32 pad;
	__u64 addr;
	__u64 len;
	__u64 present;
	__u64 ns;
};

#define MMOPS_LIMIT_IOC_RUN	_IOWR(0xBF, 0x10, struct mmops_limit_run)

#endif /* _MMOPS_LIMIT_H */
