/* SPDX-License-Identifier: GPL-2.0 */
/* What /proc/kpageflags says of the pages that a test maps. */
#ifndef KPAGEFLAGS_H
#define KPAGEFLAGS_H

#include "mmops_selftest.h"

#define KPF_DIRTY	4
#define KPF_KSM		21
#define KPF_ZERO_PAGE	24

/* The flag of the page behind @addr, 0 or 1. -1 if that cannot be told. */
static inline int page_flag(const void *addr, int flag)
{
	uint64_t entry = pagemap_entry(addr), flags;
	int fd, ret = -1;

	if (!(entry & PAGEMAP_PRESENT))
		return -1;
	fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && pread(fd, &flags, sizeof(flags),
			     (entry & PAGEMAP_PFN) * sizeof(flags)) == sizeof(flags))
		ret = flags >> flag & 1;
	close(fd);
	return ret;
}

/* Whether the folio behind @addr is marked dirty. -1 if that cannot be told. */
static inline int folio_dirty(const void *addr)
{
	return page_flag(addr, KPF_DIRTY);
}

#endif /* KPAGEFLAGS_H */
