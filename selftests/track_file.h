/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A file of which a part is tracked, on memory and on file systems of disks: a fixture. The
 * oracle is the file itself, through a mapping that is not tracked any different from those
 * of others: see track.h.
 */
#ifndef TRACK_FILE_H
#define TRACK_FILE_H

#include <stdatomic.h>

#include "faults.h"
#include "kselftest_harness.h"
#include "loop_disk.h"
#include "track.h"

#define PAGES		(2 * PMD_PAGES)
#define FIRST		70UL	/* what is tracked begins within a word of bits */
#define DISK_BYTES	(320UL << 20)	/* the least that XFS takes */

#define page(self, n)		((self)->map + (n) * page_size())

/* Whether page @n of the file is in the epoch. */
#define IS_REPORTED(n)		(self->t.kinds[(n) - FIRST])

/* What is mapped anew may be dirty from the start, and is reported once more. */
#define ASSERT_QUIET()								\
do {										\
	ASSERT_EPOCH(&self->t);							\
	ASSERT_EPOCH(&self->t);							\
	ASSERT_EQ(0, track_reported(&self->t));					\
} while (0)

/* These pages are in an epoch, and after it all is known; and then nothing is reported. */
#define ASSERT_SEEN(first, nr)							\
do {										\
	size_t _i;								\
	ASSERT_EPOCH(&self->t);							\
	for (_i = 0; _i < (nr); _i++) {						\
		ASSERT_NE(0, IS_REPORTED((first) + _i));			\
	}									\
	ASSERT_QUIET();								\
} while (0)

/* What a fixture for files has, in this order. */
#define SUBJECT									\
	struct tracker t;							\
	struct loop_disk disk;							\
	char *map;								\
	int dev, fd;								\
	char path[96];								\
	struct rng rng;								\
	atomic_bool over;							\
	atomic_int ret

FIXTURE(file)
{
	SUBJECT;
};

FIXTURE_VARIANT(file)
{
	const char *type, *mkfs;	/* of a file system, and of one on a disk; else a memfd */
	bool full, has_reflink;
};

FIXTURE_VARIANT_ADD(file, memfd) {
};

FIXTURE_VARIANT_ADD(file, memfd_full) {
	.full = true,
};

FIXTURE_VARIANT_ADD(file, ext4) {
	.type = "ext4", .mkfs = "mkfs.ext4 -q -F",
};

FIXTURE_VARIANT_ADD(file, ext4_full) {
	.type = "ext4", .mkfs = "mkfs.ext4 -q -F -b 1024", .full = true,
};

FIXTURE_VARIANT_ADD(file, xfs) {
	.type = "xfs", .mkfs = "mkfs.xfs -q -f -m reflink=1", .has_reflink = true,
};

FIXTURE_VARIANT_ADD(file, xfs_full) {
	.type = "xfs", .mkfs = "mkfs.xfs -q -f -m reflink=1", .full = true,
	.has_reflink = true,
};

/* A file of which a part is tracked, with nothing to report. NULL, or why there is none. */
static const char *track_part(struct __test_metadata *_metadata, FIXTURE_DATA(file) *self,
			      const FIXTURE_VARIANT(file) *variant)
{
	const char *why;
	size_t i;

	self->rng.state = test_seed();
	if (variant->type) {
		why = variant->mkfs ?
		      make_loop_disk(&self->disk, DISK_BYTES, variant->type, variant->mkfs) :
		      make_memory_disk(&self->disk, variant->type);
		if (why)
			return why;
		snprintf(self->path, sizeof(self->path), "%s/file", self->disk.dir);
		self->fd = open(self->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	} else {
		self->fd = new_memfd(PAGES);
	}
	ASSERT_GE(self->fd, 0);
	ASSERT_EQ(0, ftruncate(self->fd, PAGES * page_size()));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(8, pwrite(self->fd, &i, sizeof(i), i * page_size()));
	}
	ASSERT_EQ(0, fsync(self->fd));
	self->map = reserve(PAGES, 0);
	ASSERT_NE(NULL, self->map);
	self->map = map_at(self->map, self->fd, 0, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(NULL, self->map);
	ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_NOHUGEPAGE));
	track_mode = variant->full ? MMOPS_TRACK_FULL : MMOPS_TRACK_FAST;
	ASSERT_EQ(0, track_open_file(&self->t, self->fd, FIRST, page(self, FIRST), PAGES - FIRST));
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(PAGES - FIRST, track_reported(&self->t));
	track_copy(&self->t);
	ASSERT_EQ(0, track_end(&self->t, 0));
	ASSERT_QUIET();
	return NULL;
}

static void end(FIXTURE_DATA(file) *self)
{
	if (faults_built_in())
		clear_faults();
	track_close(&self->t);
	munmap(self->map, PAGES * page_size());
	close(self->fd);
	remove_loop_disk(&self->disk);
}

FIXTURE_SETUP(file)
{
	const char *why;

	OPEN_DEV(self->dev, MMOPS_DEV);
	why = track_part(_metadata, self, variant);
	if (why)
		SKIP(return, "%s: %s", variant->type, why);
}

FIXTURE_TEARDOWN(file)
{
	end(self);
}

static int write_to(FIXTURE_DATA(file) *self, size_t n, uint64_t value)
{
	return pwrite(self->fd, &value, sizeof(value), n * page_size() + 8) == sizeof(value) ?
	       0 : -errno;
}

static int store_and_leave(FIXTURE_DATA(file) *self, size_t n, bool unmaps)
{
	char *map = map_shared(self->fd, 0, PAGES);

	store(map, n, 4711 + n);
	return unmaps ? munmap(map, PAGES * page_size()) : 0;
}

/* A process that maps, stores and goes between two epochs; with munmap(), and without. */
static void store_elsewhere(struct __test_metadata *_metadata, FIXTURE_DATA(file) *self,
			    size_t n, bool unmaps)
{
	int status;
	pid_t pid = fork();

	ASSERT_GE(pid, 0);
	if (!pid)
		_exit(!!store_and_leave(self, n, unmaps));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
}

#endif /* TRACK_FILE_H */
