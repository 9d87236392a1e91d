/* SPDX-License-Identifier: GPL-2.0 */
/* A swap file, made without mkswap(8). */
#ifndef SWAP_H
#define SWAP_H

#include <sys/swap.h>

#include "mmops_selftest.h"

#define SWAP_BYTES	(16UL << 20)

/* Makes a file at @path, which is on a disk file system, and swaps to it. 0 or -errno. */
static inline int make_swap(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint32_t page[1024] = {};
	size_t i;

	if (fd < 0)
		return -errno;
	/* Without holes, which a swap file must not have. */
	for (i = 0; i < SWAP_BYTES; i += sizeof(page))
		if (pwrite(fd, page, sizeof(page), i) != sizeof(page))
			goto failed;
	page[256] = 1;					/* version, behind the boot sector */
	page[257] = SWAP_BYTES / sizeof(page) - 1;	/* last page */
	memcpy((char *)(page + 1024) - 10, "SWAPSPACE2", 10);
	if (pwrite(fd, page, sizeof(page), 0) != sizeof(page) || fsync(fd))
		goto failed;
	close(fd);
	return swapon(path, 0) ? -errno : 0;
failed:
	close(fd);
	return -EIO;
}

#endif /* SWAP_H */
