/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Mappings with leaves of a chosen size, served by mmops_leafmap.ko.
 */
#ifndef LEAFMAP_H
#define LEAFMAP_H

#include "leaves.h"
#include "mmops_selftest.h"
#include "mmops_leafmap.h"

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#endif

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

/* A list of leaves to look into and to compare, with the number of each size. */
struct leaves {
	struct mmops_leaf leaf[8 * PMD_PAGES];
	size_t nr;
	size_t ptes, pmds, puds;
};

static inline void append_leaf(const struct mmops_leaf *leaf, void *data)
{
	struct leaves *leaves = data;

	if (leaves->nr < ARRAY_SIZE(leaves->leaf))
		leaves->leaf[leaves->nr] = *leaf;
	leaves->nr++;
	leaves->ptes += leaf->shift != PMD_SHIFT && leaf->shift != PUD_SHIFT;
	leaves->pmds += leaf->shift == PMD_SHIFT;
	leaves->puds += leaf->shift == PUD_SHIFT;
}

/* List the caller's leaves anew. 0 or -errno. */
static inline int list_leaves(int dev, const char *addr, size_t len, struct leaves *leaves)
{
	int ret;

	leaves->nr = leaves->ptes = leaves->pmds = leaves->puds = 0;
	ret = for_each_leaf(dev, addr, len, append_leaf, leaves);
	return ret || leaves->nr <= ARRAY_SIZE(leaves->leaf) ? ret : -E2BIG;
}

/* Same leaves in the same state; accessed bits may differ. */
static inline bool same_leaves(const struct leaves *a, const struct leaves *b)
{
	size_t i;

	if (a->nr != b->nr)
		return false;
	for (i = 0; i < a->nr; i++)
		if (a->leaf[i].addr != b->leaf[i].addr || a->leaf[i].shift != b->leaf[i].shift ||
		    ((a->leaf[i].state ^ b->leaf[i].state) & ~MMOPS_LEAF_YOUNG))
			return false;
	return true;
}

/* How many leaves have all of @state. */
static inline size_t leaves_with(const struct leaves *leaves, uint32_t state)
{
	size_t i, n = 0;

	for (i = 0; i < leaves->nr; i++)
		n += (leaves->leaf[i].state & state) == state;
	return n;
}

#endif /* LEAFMAP_H */
