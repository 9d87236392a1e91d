/* SPDX-License-Identifier: GPL-2.0 */
/* What the tests of device-exclusive pages share. */
#ifndef EXCLUSIVE_H
#define EXCLUSIVE_H

#include "mmops_selftest.h"
#include "zap.h"


/* Make @pages exclusive; @results has a byte for each, or is NULL. How many are, or -errno. */
static inline int64_t exclusive_of(int dev, int pidfd, const void *addr, size_t pages,
				   uint8_t *results)
{
	struct mmops_exclusive arg = {
		.pidfd = pidfd,
		.addr = (uintptr_t)addr,
		.len = pages * page_size(),
		.results = (uintptr_t)results,
		.exclusive = ~0ULL,
		.done = ~0ULL,
	};

	if (ioctl(dev, MMOPS_IOC_EXCLUSIVE, &arg))
		return -errno;
	if (arg.done != arg.len)
		return -EPROTO;
	return arg.exclusive;
}

static inline int64_t exclusive(int dev, const void *addr, size_t pages)
{
	return exclusive_of(dev, -1, addr, pages, NULL);
}

/* What became of one page. */
static inline int exclusive_result(int dev, const void *addr)
{
	uint8_t result = 0xff;
	int64_t ret = exclusive_of(dev, -1, addr, 1, &result);

	if (ret < 0)
		return ret;
	return ret == (result == MMOPS_PAGE_EXCLUSIVE) ? result : -EPROTO;
}

static inline int64_t revoke_of(int dev, int pidfd, const void *addr, size_t pages)
{
	struct mmops_revoke arg = {
		.pidfd = pidfd,
		.addr = (uintptr_t)addr,
		.len = pages * page_size(),
		.revoked = ~0ULL,
		.done = ~0ULL,
	};

	if (ioctl(dev, MMOPS_IOC_REVOKE, &arg))
		return -errno;
	if (arg.done != arg.len)
		return -EPROTO;
	return arg.revoked;
}

static inline int64_t give_back(int dev, const void *addr, size_t pages)
{
	return revoke_of(dev, -1, addr, pages);
}

/*
 * The device adds @value to @nr words, the first at @addr, @rounds times. The
 * number of additions, or -errno. @taken gets the pages that it took for that.
 */
static inline int64_t atomic_add(int dev, void *addr, size_t stride, size_t nr, uint64_t value,
				 uint64_t rounds, uint64_t *taken)
{
	struct mmops_atomic_add arg = {
		.pidfd = -1,
		.addr = (uintptr_t)addr,
		.stride = stride,
		.nr = nr,
		.value = value,
		.rounds = rounds,
	};

	if (ioctl(dev, MMOPS_IOC_ATOMIC_ADD, &arg))
		return -errno;
	if (taken)
		*taken = arg.taken;
	return arg.added == nr * rounds ? (int64_t)arg.added : -EPROTO;
}

/* Whether the entry of @addr is a present one; an exclusive page is not, nor is it in swap. */
static inline bool is_present(const void *addr)
{
	return pagemap_entry(addr) & PAGEMAP_PRESENT;
}

/* The entry of an exclusive page reads as one of swap that names no swap file. */
static inline bool is_exclusive(const void *addr)
{
	uint64_t entry = pagemap_entry(addr);

	return !(entry & PAGEMAP_PRESENT) && entry & PAGEMAP_SWAP;
}

static inline size_t count_exclusive(const char *map, size_t pages)
{
	size_t i, n = 0;

	for (i = 0; i < pages; i++)
		n += is_exclusive(map + i * page_size());
	return n;
}

/* As map_anon(), of base pages, stored to. */
static inline char *map_stored(size_t pages)
{
	char *map = map_anon(pages);

	if (map) {
		madvise(map, pages * page_size(), MADV_NOHUGEPAGE);
		store_range(map, 0, pages, 1);
	}
	return map;
}

#endif /* EXCLUSIVE_H */
