/* SPDX-License-Identifier: GPL-2.0 */
/* What the tests of MMOPS_IOC_ZAP share. */
#ifndef ZAP_H
#define ZAP_H

#include "mmops_selftest.h"

/* Zap @pages of the process @pidfd. The base pages that were taken, or -errno. */
static inline int64_t zap_of(int dev, int pidfd, const void *addr, size_t pages)
{
	struct mmops_zap arg = {
		.pidfd = pidfd,
		.addr = (uintptr_t)addr,
		.len = pages * page_size(),
		.zapped = ~0ULL,
		.done = ~0ULL,
	};

	if (ioctl(dev, MMOPS_IOC_ZAP, &arg))
		return -errno;
	if (arg.done != arg.len)
		return -EPROTO;
	return arg.zapped;
}

static inline int64_t zap(int dev, const void *addr, size_t pages)
{
	return zap_of(dev, -1, addr, pages);
}

/* A figure in kB from /proc/self/status, or -1. */
static inline long status_kb(const char *field)
{
	FILE *f = fopen("/proc/self/status", "r");
	size_t len = strlen(field);
	char line[256];
	long kb = -1;

	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, field, len) && line[len] == ':')
			kb = strtol(line + len + 1, NULL, 10);
	}
	fclose(f);
	return kb;
}

static inline long pages_kb(size_t pages)
{
	return pages * page_size() / 1024;
}

static inline char *map_anon(size_t pages)
{
	char *p = mmap(NULL, pages * page_size(), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

#endif /* ZAP_H */
