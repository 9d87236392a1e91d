/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * mmops_notify - a driver that does with its subscriptions what it should not:
 * the interface of /dev/mmops_notify. For tests only.
 */
#ifndef _MMOPS_NOTIFY_H
#define _MMOPS_NOTIFY_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* mmops_notify::what: what is done inside */
#define MMOPS_NOTIFY_READ_BEGIN	0	/* IntervalNotifier::read_begin() */
#define MMOPS_NOTIFY_FAULT	1	/* Mirror::fault() */
#define MMOPS_NOTIFY_FAULT_UNLOCKED 2	/* Mirror::fault_unlocked() */
#define MMOPS_NOTIFY_EXCLUSIVE	3	/* Mirror::make_exclusive() */
#define MMOPS_NOTIFY_NEW	4	/* a new IntervalNotifier */
#define MMOPS_NOTIFY_NEW_MM	5	/* a new MmNotifier */
#define MMOPS_NOTIFY_DROP	6	/* the drop of an IntervalNotifier */
#define MMOPS_NOTIFY_DROP_MM	7	/* the drop of an MmNotifier */
#define MMOPS_NOTIFY_KEEP	8	/* a value in a static, of each kind */
#define MMOPS_NOTIFY_DEBUG	9	/* {:?} of what a driver gets */
#define MMOPS_NOTIFY_THREAD	10	/* kthread::run() */
#define MMOPS_NOTIFY_DROP_TRACKER 11	/* the drop of a Tracker of the range */
#define MMOPS_NOTIFY_WRITE_PROTECT 12	/* dirty::write_protect() of the file */
#define MMOPS_NOTIFY_LOCK	13	/* Mapping::i_mmap_lock_read() of it */

/* mmops_notify::where: inside of what */
#define MMOPS_NOTIFY_OUTSIDE	0
#define MMOPS_NOTIFY_WITH	1	/* with_invalidation() */
#define MMOPS_NOTIFY_GATHER	2	/* with_gather() */
#define MMOPS_NOTIFY_WALK	3	/* checkpoint() of a walk that changes entries */
#define MMOPS_NOTIFY_LOOK	4	/* checkpoint() of a walk that does not */
#define MMOPS_NOTIFY_CALLBACK	5	/* a callback of the IntervalNotifier */
#define MMOPS_NOTIFY_CALLBACK_MM 6	/* a callback of the MmNotifier */
#define MMOPS_NOTIFY_LOOK_FILE	7	/* checkpoint() of one over the file that does not */
#define MMOPS_NOTIFY_I_MMAP	8	/* i_mmap_lock_read() of the file */

/**
 * struct mmops_notify - argument of MMOPS_NOTIFY_IOC
 * @what: in: what is done
 * @where: in: inside of what
 * @addr: in: first address, in bytes
 * @len: in: length of the range, in bytes
 * @told: out: how often IntervalNotifiers of the module had been told before
 * @error: out: the errno that it ended with, or 0
 * @fd: in: the file, of which as many pages are looked at
 * @text: out: what DEBUG prints, a string
 */
struct mmops_notify {
	__u32 what;
	__u32 where;
	__u64 addr;
	__u64 len;
	__u64 told;
	__s32 error;
	__s32 fd;
	char text[256];
};

#define MMOPS_NOTIFY_IOC	_IOWR(0xBB, 0x00, struct mmops_notify)

#endif /* _MMOPS_NOTIFY_H */
