/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Random arguments for the calls of /dev/mmops, and what the tests know of the
 * answer without asking it.
 *
 * A wrong argument may be found before another, so any errno that some argument
 * calls for is right; without any, the call has to succeed.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <sys/syscall.h>

#include "mmops_selftest.h"

/* A set of errno values. There are a few more than bits, none of which meet here. */
#define MAY(e)	(1ULL << ((e) % 64))

static inline uint64_t random_word(struct rng *rng)
{
	switch (rng_below(rng, 6)) {
	case 0:
		return 0;
	case 1:
		return rng_below(rng, 128);
	case 2:
		return ~0ULL - rng_below(rng, 3);
	case 3:
		return 1ULL << rng_below(rng, 64);
	default:
		return rng_next(rng);
	}
}

/* Most arguments are good ones, so that each errno has its turn. */
static inline bool mostly(struct rng *rng)
{
	return rng_below(rng, 8);
}

/* Reserved fields, which mostly are the zeroes that they have to be. */
static inline void random_reserved(struct rng *rng, __u64 *reserved, size_t nr)
{
	while (nr--)
		*reserved++ = mostly(rng) ? 0 : random_word(rng);
}

static inline uint64_t reserved_errors(const __u64 *reserved, size_t nr)
{
	uint64_t any = 0;

	while (nr--)
		any |= *reserved++;
	return any ? MAY(EINVAL) : 0;
}

/*
 * An area of mappings for the calls on ranges of addresses. It begins and ends
 * with a hole. No test that uses it may map anything, which could fill one.
 */
enum area_kind { AREA_HOLE, AREA_ANON, AREA_SHARED, AREA_LOCKED, AREA_READONLY };

static const struct {
	enum area_kind kind;
	size_t pages;
} area_layout[] = {
	{ AREA_HOLE, 4 }, { AREA_ANON, 40 }, { AREA_SHARED, 24 }, { AREA_ANON, 8 },
	{ AREA_LOCKED, 8 }, { AREA_READONLY, 8 }, { AREA_ANON, 8 }, { AREA_HOLE, 2 },
	{ AREA_ANON, 18 }, { AREA_HOLE, 8 },
};

#define AREA_PAGES	128UL
#define AREA_BAD_PIDS	5

struct area {
	char *map;
	enum area_kind kind[AREA_PAGES];
	int pagemap;
	int pidfd;			/* of this process */
	struct {
		int fd, error;
	} bad_pids[AREA_BAD_PIDS];
};

static inline char *area_addr(const struct area *area, size_t page)
{
	return area->map + page * page_size();
}

static inline bool area_is_writable(const struct area *area, size_t page)
{
	return area->kind[page] != AREA_HOLE && area->kind[page] != AREA_READONLY;
}

/* A store to each page that allows it, of its number and 1; a load from the others. */
static inline void area_touch(struct area *area)
{
	size_t page;

	for (page = 0; page < AREA_PAGES; page++) {
		if (area_is_writable(area, page))
			store(area->map, page, 1 + page);
		else if (area->kind[page] != AREA_HOLE)
			load(area->map, page);
	}
}

/* Map all, and touch it. 0 or -errno. */
static inline int area_new(struct area *area)
{
	int fd = new_memfd(AREA_PAGES), null = open("/dev/null", O_RDWR | O_CLOEXEC);
	size_t i, page = 0, n;
	pid_t dead = fork();

	if (!dead)
		_exit(0);
	area->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	area->pidfd = syscall(__NR_pidfd_open, getpid(), 0);
	area->map = reserve(AREA_PAGES, 0);
	area->bad_pids[0].fd = syscall(__NR_pidfd_open, dead, 0);
	area->bad_pids[0].error = ESRCH;
	area->bad_pids[1].fd = -2;
	area->bad_pids[2].fd = 1000;
	area->bad_pids[3].fd = null;
	area->bad_pids[4].fd = fd;
	for (i = 1; i < AREA_BAD_PIDS; i++)
		area->bad_pids[i].error = EBADF;
	if (waitpid(dead, NULL, 0) != dead || fd < 0 || null < 0 || area->pagemap < 0 ||
	    area->pidfd < 0 || area->bad_pids[0].fd < 0 || !area->map)
		return -errno;

	for (i = 0; i < sizeof(area_layout) / sizeof(area_layout[0]); i++) {
		enum area_kind kind = area_layout[i].kind;
		size_t pages = area_layout[i].pages;
		char *at = area_addr(area, page);

		for (n = 0; n < pages; n++)
			area->kind[page + n] = kind;
		if (kind == AREA_HOLE ? munmap(at, pages * page_size()) :
		    !map_at(at, kind == AREA_SHARED ? fd : -1, 0, pages,
			    kind == AREA_READONLY ? PROT_READ : PROT_READ | PROT_WRITE,
			    kind == AREA_SHARED ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS))
			return -errno;
		if (kind == AREA_LOCKED && mlock(at, pages * page_size()))
			return -errno;
		page += pages;
	}
	if (page != AREA_PAGES)
		return -EPROTO;
	area_touch(area);
	return 0;
}

static inline void area_free(struct area *area)
{
	size_t i;

	for (i = 0; i < AREA_PAGES; i++)
		munmap(area_addr(area, i), page_size());
	for (i = 0; i < AREA_BAD_PIDS; i++)
		if (area->bad_pids[i].fd >= 0)
			close(area->bad_pids[i].fd);
	close(area->pagemap);
	close(area->pidfd);
}

/* The entries of /proc/self/pagemap for the area. 0 or -errno. */
static inline int area_pagemap(const struct area *area, uint64_t entries[AREA_PAGES])
{
	const size_t size = AREA_PAGES * sizeof(*entries);
	ssize_t ret = pread(area->pagemap, entries, size,
			    (uintptr_t)area->map / page_size() * sizeof(*entries));

	return ret == (ssize_t)size ? 0 : -EIO;
}

/* This process, mostly; or a descriptor that adds an errno to @may. */
static inline int area_random_pidfd(const struct area *area, struct rng *rng, uint64_t *may)
{
	size_t i;

	if (mostly(rng))
		return rng_below(rng, 2) ? -1 : area->pidfd;
	i = rng_below(rng, AREA_BAD_PIDS);
	*may |= MAY(area->bad_pids[i].error);
	return area->bad_pids[i].fd;
}

/*
 * Mostly pages of the area. An address that is not in it is one that no process
 * maps: nothing else of this process is ever in a range without a hole.
 */
static inline void area_random_range(const struct area *area, struct rng *rng, __u64 *addr,
				     __u64 *len)
{
	*addr = (uintptr_t)area_addr(area, rng_below(rng, AREA_PAGES));
	*len = (1 + rng_below(rng, AREA_PAGES / 2)) * page_size();
	switch (rng_below(rng, 16)) {
	case 0:
		*addr = random_word(rng);
		if (*addr >= 0x10000)
			*addr |= 1ULL << 63;
		break;
	case 1:
		*addr += rng_below(rng, page_size());
		break;
	case 2:
		*len += rng_below(rng, page_size());
		break;
	case 3:
		*len = random_word(rng);
		break;
	case 4:
		*len = -*addr + rng_below(rng, 3) * page_size();
	}
}

/* Whether a range may be asked for at all, whatever is mapped there. */
static inline bool is_addr_range(uint64_t addr, uint64_t len)
{
	return len && addr % page_size() == 0 && len % page_size() == 0 && addr + len > addr;
}

/* Whether a page of the area is in a range. */
static inline bool area_in_range(const struct area *area, size_t page, uint64_t addr, uint64_t len)
{
	uint64_t at = (uintptr_t)area_addr(area, page);

	return at >= addr && at - addr < len;
}

/* Whether pages of @kind are in a range; outside the area there are holes. */
static inline bool area_has(const struct area *area, uint64_t addr, uint64_t len,
			    enum area_kind kind)
{
	uint64_t start = (uintptr_t)area->map, size = AREA_PAGES * page_size();
	size_t page;

	if (kind == AREA_HOLE && (addr < start || addr - start >= size))
		return true;
	for (page = 0; page < AREA_PAGES; page++)
		if (area->kind[page] == kind && area_in_range(area, page, addr, len))
			return true;
	return false;
}

/* Of a range that has to be mapped without a hole. */
static inline uint64_t area_range_errors(const struct area *area, uint64_t addr, uint64_t len)
{
	if (!is_addr_range(addr, len))
		return MAY(EINVAL);
	return area_has(area, addr, len, AREA_HOLE) ? MAY(ENOMEM) : 0;
}

/*
 * What has to be so after a call that failed: one of the errno in @may, and the
 * argument as it was.
 */
#define ASSERT_FUZZ_ERROR(may, arg, before, call) do {				\
	int _errno = errno;							\
										\
	ASSERT_NE(0, (may) & MAY(_errno)) {					\
		TH_LOG("call %u: errno %d, wanted one of %#llx", call, _errno,	\
		       (unsigned long long)(may));				\
	}									\
	ASSERT_EQ(0, memcmp(arg, before, sizeof(*(arg))));			\
} while (0)

#define ASSERT_FUZZ_SUCCESS(may, call) do {					\
	ASSERT_EQ(0, may) {							\
		TH_LOG("call %u succeeded, wanted one of %#llx", call,		\
		       (unsigned long long)(may));				\
	}									\
} while (0)

#endif /* FUZZ_H */
