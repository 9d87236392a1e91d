/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Mappings with leaves of a chosen size, served by mmops_leafmap.ko.
 */
#ifndef LEAFMAP_H
#define LEAFMAP_H

#include "mmops_selftest.h"
#include "mmops_leafmap.h"

#define LEAFMAP_DEV	"/dev/mmops_leafmap"

#define PUD_PAGES	(PMD_PAGES * PMD_PAGES)

static inline size_t pud_size(void)
{
	return PUD_PAGES * page_size();
}

/* Reserve @bytes of address space from a multiple of 1 GiB on. */
static inline char *reserve_gib(size_t bytes)
{
	char *p = mmap(NULL, bytes + pud_size(), PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	return (char *)(((uintptr_t)p + pud_size() - 1) & ~(pud_size() - 1));
}

/* Map @bytes of a file at a multiple of 1 GiB. NULL and errno on failure. */
static inline char *map_gib(int fd, size_t offset, size_t bytes, int prot)
{
	char *p = reserve_gib(bytes);

	if (!p)
		return NULL;
	p = mmap(p, bytes, prot, MAP_SHARED | MAP_FIXED, fd, offset);
	return p == MAP_FAILED ? NULL : p;
}

/* Forget what was served, and serve with leaves of at most @order from now on. 0 or -errno. */
static inline int leafmap_serve(int fd, uint32_t order, uint32_t flags)
{
	struct mmops_leafmap_serve arg = { .order = order, .flags = flags };

	return ioctl(fd, MMOPS_LEAFMAP_IOC_SERVE, &arg) ? -errno : 0;
}

static inline struct mmops_leafmap_info leafmap_info(int fd)
{
	struct mmops_leafmap_info info = {};

	if (ioctl(fd, MMOPS_LEAFMAP_IOC_INFO, &info))
		memset(&info, 0xff, sizeof(info));
	return info;
}

/* Unmap a range of the device in all processes, as truncate does. 0 or -errno. */
static inline int leafmap_unmap(int fd, uint64_t offset, uint64_t len)
{
	struct mmops_leafmap_unmap arg = { .offset = offset, .len = len };

	return ioctl(fd, MMOPS_LEAFMAP_IOC_UNMAP, &arg) ? -errno : 0;
}

#define OPEN_LEAFMAP(fd) do {							\
	(fd) = open(LEAFMAP_DEV, O_RDWR | O_CLOEXEC);				\
	if ((fd) < 0)								\
		SKIP(return, "no " LEAFMAP_DEV " (%s): it takes a guest with reserved memory", \
		     strerror(errno));						\
} while (0)

#endif /* LEAFMAP_H */
