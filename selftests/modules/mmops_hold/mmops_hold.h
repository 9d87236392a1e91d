/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * mmops_hold - hold the lock of a folio: the interface of /dev/mmops_hold. For
 * tests only.
 */
#ifndef _MMOPS_HOLD_H
#define _MMOPS_HOLD_H

#include <linux/ioctl.h>
#include <linux/types.h>

/*
 * Lock the folio at an address of the caller, until the file is closed. One folio
 * for each open file, else EBUSY.
 */
#define MMOPS_HOLD_IOC_LOCK	_IOW(0xBF, 0x00, __u64)

#endif /* _MMOPS_HOLD_H */
