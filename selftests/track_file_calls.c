// SPDX-License-Identifier: GPL-2.0
/*
 * Trackers of files: contents that are written, replaced or taken away by a call on the file,
 * which no entry of a page table tells of.
 */
#include <linux/falloc.h>
#include <linux/fs.h>

#include "track_file.h"

/* Without a mapping, to clean pages and to pages that are dirty already. */
TEST_F_TIMEOUT(file, write, TEST_SECONDS)
{
	unsigned int round;

	for (round = 0; round < 3; round++) {
		ASSERT_EQ(0, write_to(self, 300, round + 1));
		ASSERT_EQ(0, write_to(self, 302, round + 1));
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(MMOPS_TRACK_WRITTEN, IS_REPORTED(300));
		ASSERT_EQ(MMOPS_TRACK_WRITTEN, IS_REPORTED(302));
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(0, track_reported(&self->t));
	}
}

/* The disk is written to, and the page cache is told. */
TEST_F_TIMEOUT(file, direct_write, TEST_SECONDS)
{
	char path[64];
	void *buffer;
	int direct;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_GE(direct, 0);
	ASSERT_EQ(0, posix_memalign(&buffer, page_size(), 2 * page_size()));
	memset(buffer, 0x5a, 2 * page_size());
	ASSERT_EQ((ssize_t)(2 * page_size()),
		  pwrite(direct, buffer, 2 * page_size(), 310 * page_size()));
	ASSERT_SEEN(310, 2);
	/* Not a page of it is in the page cache. */
	ASSERT_EQ(0, fsync(self->fd));
	ASSERT_EQ(0, munmap(self->map, PAGES * page_size()));
	ASSERT_EQ(0, posix_fadvise(self->fd, 0, 0, POSIX_FADV_DONTNEED));
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(0, track_end(&self->t, 0));
	memset(buffer, 0xa5, 2 * page_size());
	ASSERT_EQ((ssize_t)(2 * page_size()),
		  pwrite(direct, buffer, 2 * page_size(), 320 * page_size()));
	ASSERT_NE(NULL, map_at(self->map, self->fd, 0, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED));
	ASSERT_SEEN(320, 2);
	close(direct);
}

/* Pages go and come back as zeroes, whether they are there or not. */
TEST_F_TIMEOUT(file, punch, TEST_SECONDS)
{
	unsigned int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				       (400 + 8 * i) * page_size() + 100, 3 * page_size()));
		ASSERT_SEEN(400 + 8 * i, 4);
		ASSERT_EQ(0, fsync(self->fd));
		ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_DONTNEED));
		ASSERT_EQ(0, posix_fadvise(self->fd, 0, 0, POSIX_FADV_DONTNEED));
		ASSERT_EQ(0, track_begin(&self->t));
		ASSERT_EQ(0, track_end(&self->t, 0));
	}
}

TEST_F_TIMEOUT(file, zero_range, TEST_SECONDS)
{
	if (fallocate(self->fd, FALLOC_FL_ZERO_RANGE, 400 * page_size() + 100, 3 * page_size())) {
		ASSERT_EQ(EOPNOTSUPP, errno);
		ASSERT_EQ(NULL, variant->type);
		return;
	}
	ASSERT_SEEN(400, 4);
}

/* What lies behind comes to other places. */
TEST_F_TIMEOUT(file, collapse_range, TEST_SECONDS)
{
	if (fallocate(self->fd, FALLOC_FL_COLLAPSE_RANGE, 400 * page_size(), 8 * page_size())) {
		ASSERT_EQ(EOPNOTSUPP, errno);
		ASSERT_EQ(NULL, variant->type);
		return;
	}
	ASSERT_EQ(0, ftruncate(self->fd, PAGES * page_size()));
	ASSERT_SEEN(400, PAGES - 400);
}

TEST_F_TIMEOUT(file, truncate, TEST_SECONDS)
{
	ASSERT_EQ(0, ftruncate(self->fd, 500 * page_size() + 100));
	ASSERT_EQ(0, ftruncate(self->fd, PAGES * page_size()));
	ASSERT_SEEN(500, PAGES - 500);
}

/*
 * What a process has stored behind the end of the file, in its last page, is read when the
 * file has grown, or is zeroed then.
 */
TEST_F_TIMEOUT(file, extend, TEST_SECONDS)
{
	size_t n = PAGES - 1;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, ftruncate(self->fd, n * page_size() + 100));
		store(page(self, n) + 3000, 0, 4711 + i);
		ASSERT_SEEN(n, 1);
		switch (i) {
		case 0:
			ASSERT_EQ(0, ftruncate(self->fd, (n + 1) * page_size()));
			break;
		case 1:
			ASSERT_EQ(0, fallocate(self->fd, 0, n * page_size(), page_size()));
			break;
		case 2:
			ASSERT_EQ(1, pwrite(self->fd, "", 1, (n + 2) * page_size()));
			break;
		}
		ASSERT_SEEN(n, 1);
	}
}

/* A part of the file becomes another part. */
TEST_F_TIMEOUT(file, reflink, TEST_SECONDS)
{
	struct file_clone_range range = {
		.src_fd = self->fd,
		.src_offset = 600 * page_size(),
		.src_length = 16 * page_size(),
		.dest_offset = 700 * page_size(),
	};

	if (ioctl(self->fd, FICLONERANGE, &range)) {
		ASSERT_EQ(EOPNOTSUPP, errno);
		ASSERT_FALSE(variant->has_reflink);
		return;
	}
	ASSERT_SEEN(700, 16);
	ASSERT_EQ(load(self->map, 605), load(self->map, 705));
}

TEST_HARNESS_MAIN
