/* SPDX-License-Identifier: GPL-2.0 */
/* Pages that a device has, made by the kernel's test_hmm module. */
#ifndef DMIRROR_H
#define DMIRROR_H

#include "mmops_selftest.h"
#include "test_hmm_uapi.h"

#define DMIRROR_DEV	"/dev/hmm_dmirror0"

/* One of the module's calls on @pages at @map. The number of pages that it reached, or -errno. */
static inline int dmirror(int fd, unsigned long call, const char *map, void *to, size_t pages)
{
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)map,
		.ptr = (uintptr_t)to,
		.npages = pages,
	};

	if (ioctl(fd, call, &cmd))
		return -errno;
	return cmd.cpages;
}

#define OPEN_DMIRROR(fd) do {							\
	(fd) = open(DMIRROR_DEV, O_RDWR | O_CLOEXEC);				\
	if ((fd) < 0)								\
		SKIP(return, "no " DMIRROR_DEV ": test_hmm.ko is not loaded");	\
} while (0)

#endif /* DMIRROR_H */
