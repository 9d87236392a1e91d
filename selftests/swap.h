/* SPDX-License-Identifier: GPL-2.0 */
/* A swap file below MMOPS_DISK, made without mkswap(8). */
#ifndef SWAP_H
#define SWAP_H

#include <sys/swap.h>

#include "flushes.h"
#include "mmops_selftest.h"

#define SWAP_BYTES	(64UL << 20)

struct swap_file {
	char path[256];
};

/* 0 or -errno: the file goes in any case. */
static inline int remove_swap(struct swap_file *swap)
{
	int ret = swapoff(swap->path) ? -errno : 0;

	unlink(swap->path);
	return ret;
}

/* Makes a file of this process and swaps to it. NULL, or why there is none. */
static inline const char *add_swap(struct swap_file *swap)
{
	const char *disk = getenv("MMOPS_DISK");
	uint32_t header[1024] = {};
	bool made;
	int fd;

	if (!disk)
		return "no MMOPS_DISK, a directory on a disk file system, for a swap file";
	snprintf(swap->path, sizeof(swap->path), "%s/swap-%d", disk, getpid());
	fd = open(swap->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	header[256] = 1;				/* version, behind the boot sector */
	header[257] = SWAP_BYTES / sizeof(header) - 1;	/* last page */
	memcpy((char *)(header + 1024) - 10, "SWAPSPACE2", 10);
	/* Without holes, which a swap file must not have. */
	made = fd >= 0 && !posix_fallocate(fd, 0, SWAP_BYTES) &&
	       pwrite(fd, header, sizeof(header), 0) == sizeof(header) && !fsync(fd);
	if (fd >= 0)
		close(fd);
	if (made && !swapon(swap->path, 0))
		return NULL;
	unlink(swap->path);
	return "cannot make a swap file of 64 MiB below MMOPS_DISK, or swap to it";
}

/* What all swap files hold, in KiB. */
static inline long swap_used_kb(void)
{
	FILE *f = fopen("/proc/swaps", "r");
	char line[256];
	long used, sum = 0;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*s %*s %*d %ld", &used) == 1)
			sum += used;
	}
	if (f)
		fclose(f);
	return sum;
}

/* How many of @pages from @map on are in swap, after as many as can be were sent there. */
static inline size_t swap_out(char *map, size_t pages)
{
	size_t i, n = 0;

	if (page_out(map, pages * page_size()))
		return 0;
	for (i = 0; i < pages; i++)
		n += !!(pagemap_entry(map + i * page_size()) & PAGEMAP_SWAP);
	return n;
}

/* While a page is being written, its place in swap is not given back. */
static inline bool wait_for_swap_writes(void)
{
	int i;

	/* The figure is the sum of what each CPU tells now and then. */
	for (i = 0; i < 600; i++) {
		if (write_file("/proc/sys/vm/stat_refresh", "1"))
			return false;
		if (!vmstat("nr_writeback"))
			return true;
		usleep(100 * 1000);
	}
	return false;
}

#endif /* SWAP_H */
