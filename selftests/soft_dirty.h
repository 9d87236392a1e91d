/* SPDX-License-Identifier: GPL-2.0 */
/* Soft-dirty bits of a process, as its pagemap has them. */
#ifndef SOFT_DIRTY_H
#define SOFT_DIRTY_H

#include "mmops_selftest.h"

static inline int open_pagemap(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* The number of soft-dirty pages, of @nr from page @first of @map on, or -1. */
static inline int64_t count_soft_dirty(int pagemap, const char *map, size_t first, size_t nr)
{
	static uint64_t entries[1 << 14];
	size_t i, n;
	int64_t found = 0;

	for (; nr; first += n, nr -= n) {
		off_t at = ((uintptr_t)map / page_size() + first) * sizeof(entries[0]);

		n = min(nr, sizeof(entries) / sizeof(entries[0]));
		if (pread(pagemap, entries, n * sizeof(entries[0]), at) !=
		    (ssize_t)(n * sizeof(entries[0])))
			return -1;
		for (i = 0; i < n; i++)
			found += !!(entries[i] & PAGEMAP_SOFT_DIRTY);
	}
	return found;
}

#endif /* SOFT_DIRTY_H */
