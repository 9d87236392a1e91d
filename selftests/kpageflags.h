/* SPDX-License-Identifier: GPL-2.0 */
/* What /proc/kpageflags says of the pages that a test maps. */
#ifndef KPAGEFLAGS_H
#define KPAGEFLAGS_H

#include "mmops_selftest.h"

#define KPF_DIRTY	4

/* Whether the folio behind @addr is marked dirty. -1 if that cannot be told. */
static inline int folio_dirty(const void *addr)
{
	uint64_t entry = pagemap_entry(addr), flags;
	int fd, ret = -1;

	if (!(entry & PAGEMAP_PRESENT))
		return -1;
	fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && pread(fd, &flags, sizeof(flags),
			     (entry & PAGEMAP_PFN) * sizeof(flags)) == sizeof(flags))
		ret = flags >> KPF_DIRTY & 1;
	close(fd);
	return ret;
}

#endif /* KPAGEFLAGS_H */
