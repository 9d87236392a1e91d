/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Trackers, and the contents of memory as their oracle: a copy is made of each page
 * that is reported, and of no other, and has to be what the memory is.
 */
#ifndef TRACK_H
#define TRACK_H

#include <sys/uio.h>

#include <linux/userfaultfd.h>

#include "mmops_selftest.h"

#ifndef UFFDIO_MOVE
#define UFFDIO_MOVE		_IOWR(UFFDIO, 0x05, struct uffdio_move)
#define UFFD_FEATURE_MOVE	(1 << 16)
struct uffdio_move {
	__u64 dst;
	__u64 src;
	__u64 len;
	__u64 mode;
	__s64 move;
};
#endif

/* The mode of the trackers that are opened. Each test has a process of its own. */
static uint32_t track_mode = MMOPS_TRACK_FAST;

#define TRACK_ROOM	7UL	/* records of a call: most epochs take several calls */

struct tracker {
	int dev;
	uint32_t flags;
	char *map;		/* of a file, a mapping of it */
	size_t pages;
	uint64_t base;		/* what is reported of the first page */
	char *copy;		/* what the memory was when it was reported last */
	uint8_t *kinds;		/* of the open epoch: MMOPS_TRACK_*, or 0 */
	struct mmops_track_begin begun;
};

/* Room for what is reported. 0 or -errno. */
static inline int track_room(struct tracker *t)
{
	/* Not of the heap: it must not be in the range, nor share a page with it. */
	t->copy = mmap(NULL, t->pages * (page_size() + 1), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (t->copy == MAP_FAILED)
		return -errno;
	t->kinds = (uint8_t *)t->copy + t->pages * page_size();
	return 0;
}

static inline int track_open_as(struct tracker *t, int fd, uint32_t flags, uint64_t base,
				char *map, size_t pages)
{
	struct mmops_track_open arg = {
		.pidfd = fd,
		.flags = flags,
		.addr = base,
		.len = pages * page_size(),
	};

	*t = (struct tracker){ .flags = flags, .map = map, .pages = pages, .base = base };
	t->dev = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
	if (t->dev < 0)
		return -errno;
	if (ioctl(t->dev, MMOPS_IOC_TRACK_OPEN, &arg))
		return -errno;
	return track_room(t);
}

/* 0 or -errno. */
static inline int track_open_of(struct tracker *t, int pidfd, char *map, size_t pages)
{
	return track_open_as(t, pidfd, track_mode, (uintptr_t)map, map, pages);
}

/* The file behind @fd, of which @map maps the pages from @first on. 0 or -errno. */
static inline int track_open_file(struct tracker *t, int fd, size_t first, char *map, size_t pages)
{
	return track_open_as(t, fd, track_mode | MMOPS_TRACK_FILE, first * page_size(), map, pages);
}

static inline int track_open(struct tracker *t, char *map, size_t pages)
{
	return track_open_of(t, -1, map, pages);
}

static inline void track_close(struct tracker *t)
{
	close(t->dev);
	if (t->copy)
		munmap(t->copy, t->pages * (page_size() + 1));
}

/* Reads the records of an epoch, a few at a time, and whether they make sense. */
static inline int track_read(struct tracker *t)
{
	struct mmops_track_range ranges[TRACK_ROOM];
	struct mmops_track_read arg = { .vec = (uintptr_t)ranges };
	uint32_t kind_before = 0;
	uint32_t last_kind = t->flags & MMOPS_TRACK_KINDS ? MMOPS_TRACK_GONE : MMOPS_TRACK_CHANGED;
	uint64_t written = 0, changed = 0, left, behind = t->base, i, page, nr;

	/* Without room it tells how much is needed. */
	if (ioctl(t->dev, MMOPS_IOC_TRACK_READ, &arg))
		return -errno;
	if (arg.nr || arg.addr)
		return -EPROTO;
	memset(t->kinds, 0, t->pages);
	for (left = arg.needed; left; left -= arg.nr) {
		arg.vec_len = TRACK_ROOM;
		if (ioctl(t->dev, MMOPS_IOC_TRACK_READ, &arg))
			return -errno;
		if (arg.nr != min(left, TRACK_ROOM) || arg.needed != left)
			return -EPROTO;
		for (i = 0; i < arg.nr; i++) {
			const struct mmops_track_range *r = &ranges[i];

			page = (r->addr - t->base) / page_size();
			nr = r->len / page_size();
			if (r->addr < behind || !nr || r->addr % page_size() ||
			    r->len % page_size() || page >= t->pages || nr > t->pages - page ||
			    r->kind < MMOPS_TRACK_WRITTEN || r->kind > last_kind ||
			    (r->addr == behind && r->kind == kind_before) || r->reserved)
				return -EPROTO;
			behind = r->addr + r->len;
			kind_before = r->kind;
			memset(t->kinds + page, r->kind, nr);
			if (r->kind == MMOPS_TRACK_WRITTEN || r->kind == MMOPS_TRACK_PINNED)
				written += nr;
			else
				changed += nr;
		}
		if (arg.addr != behind)
			return -EPROTO;
	}
	return written == t->begun.written && changed == t->begun.changed ? 0 : -EPROTO;
}

/* Begins an epoch and reads it. 0 or -errno. */
static inline int track_begin(struct tracker *t)
{
	t->begun = (struct mmops_track_begin){};
	if (ioctl(t->dev, MMOPS_IOC_TRACK_BEGIN, &t->begun))
		return -errno;
	return track_read(t);
}

static inline int track_end(struct tracker *t, uint32_t flags)
{
	struct mmops_track_end arg = { .flags = flags };

	return ioctl(t->dev, MMOPS_IOC_TRACK_END, &arg) ? -errno : 0;
}

/* Copies what is reported. */
static inline void track_copy(struct tracker *t)
{
	size_t i;

	for (i = 0; i < t->pages; i++)
		if (t->kinds[i])
			memcpy(t->copy + i * page_size(), t->map + i * page_size(), page_size());
}

/* The number of pages that differ from their copies. All have to be readable. */
static inline size_t track_missed(const struct tracker *t)
{
	size_t i, n = 0;

	for (i = 0; i < t->pages; i++)
		n += !!memcmp(t->copy + i * page_size(), t->map + i * page_size(), page_size());
	return n;
}

static inline size_t track_reported(const struct tracker *t)
{
	return t->begun.written + t->begun.changed;
}

/* An epoch as a whole: what is reported is copied. 0 or -errno. */
static inline int track_epoch(struct tracker *t)
{
	int ret = track_begin(t);

	if (!ret) {
		track_copy(t);
		ret = track_end(t, 0);
	}
	return ret;
}

/* As store(), by process_vm_writev(2). Whether it got through: the page may be away just then. */
static inline bool store_remotely(char *map, size_t page, uint64_t value)
{
	struct iovec from = { &value, sizeof(value) };
	struct iovec to = { map + page * page_size(), sizeof(value) };

	return process_vm_writev(getpid(), &from, 1, &to, 1, 0) == sizeof(value);
}

/* An epoch after which no page differs from its copy. */
#define ASSERT_EPOCH(t)								\
do {										\
	ASSERT_EQ(0, track_epoch(t));						\
	ASSERT_EQ(0, track_missed(t));						\
} while (0)

#endif /* TRACK_H */
