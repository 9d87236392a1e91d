// SPDX-License-Identifier: GPL-2.0
/*
 * MMOPS_TRACK_FILE: each way in which the contents of a file change is reported, by
 * whomever, in all processes that map it. The oracle is the file itself, through a
 * mapping that is not tracked any different from those of others: see track.h.
 *
 * The controls leave out one rule each; then a change has to be missed.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include <linux/falloc.h>
#include <linux/fs.h>

#include "faults.h"
#include "flushes.h"
#include "kselftest_harness.h"
#include "leaves.h"
#include "loop_disk.h"
#include "pins.h"
#include "swap.h"
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

/* What both fixtures have, in this order. */
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
	const char *type, *mkfs;	/* of a disk file system; else a memfd */
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
		why = make_loop_disk(&self->disk, DISK_BYTES, variant->type, variant->mkfs);
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

FIXTURE_FAULTS(file);

/* What only memory does. */
FIXTURE(memory)
{
	SUBJECT;
};

FIXTURE_VARIANT(memory)
{
	bool full;
};

FIXTURE_VARIANT_ADD(memory, fast) {
};

FIXTURE_VARIANT_ADD(memory, full) {
	.full = true,
};

FIXTURE_SETUP(memory)
{
	const FIXTURE_VARIANT(file) memfd = { .full = variant->full };

	OPEN_DEV(self->dev, MMOPS_DEV);
	ASSERT_EQ(NULL, track_part(_metadata, (FIXTURE_DATA(file) *)self, &memfd));
}

FIXTURE_TEARDOWN(memory)
{
	end((FIXTURE_DATA(file) *)self);
}

static int write_to(FIXTURE_DATA(file) *self, size_t n, uint64_t value)
{
	return pwrite(self->fd, &value, sizeof(value), n * page_size() + 8) == sizeof(value) ?
	       0 : -errno;
}

/* Exactly what was stored to. */
TEST_F_TIMEOUT(file, stores, TEST_SECONDS)
{
	static uint8_t stored[PAGES];
	unsigned int round;
	size_t i, n;

	for (round = 0; round < rounds(20); round++) {
		memset(stored, 0, sizeof(stored));
		n = rng_below(&self->rng, PAGES);
		while (n--) {
			i = rng_below(&self->rng, PAGES);
			store(self->map, i, rng_next(&self->rng));
			stored[i] = MMOPS_TRACK_WRITTEN;
		}
		ASSERT_EPOCH(&self->t);
		/* The folios of XFS, and of ext4, may be of several pages: their marks are exact. */
		ASSERT_EQ(0, memcmp(stored + FIRST, self->t.kinds, PAGES - FIRST));
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(0, track_reported(&self->t));
	}
}

/* In mode fast, a store to memory costs no fault; in mode full one in each epoch. */
TEST_F_TIMEOUT(memory, faults, TEST_SECONDS)
{
	unsigned int round;
	long faults;

	store_range(self->map, FIRST, 100, 1);
	ASSERT_EPOCH(&self->t);
	for (round = 0; round < 3; round++) {
		faults = minor_faults();
		store_range(self->map, FIRST, 100, round);
		store_range(self->map, FIRST, 100, round + 1);
		ASSERT_EQ(variant->full ? 100 : 0, minor_faults() - faults);
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(100, self->t.begun.written);
		ASSERT_EQ(0, self->t.begun.changed);
	}
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

TEST_F_TIMEOUT(file, process_that_goes, TEST_SECONDS)
{
	store_elsewhere(_metadata, self, 100, true);
	store_elsewhere(_metadata, self, 200, false);
	ASSERT_SEEN(100, 1);
	/* To folios that are dirty already. */
	store_elsewhere(_metadata, self, 100, true);
	store_elsewhere(_metadata, self, 200, false);
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, IS_REPORTED(100));
	ASSERT_NE(0, IS_REPORTED(200));
}

/* One that was there before the tracker, and stays. */
TEST_F_TIMEOUT(file, process_that_stays, TEST_SECONDS)
{
	int go[2], done[2];
	unsigned int i;
	char byte = 0;
	pid_t pid;

	ASSERT_EQ(0, pipe(go));
	ASSERT_EQ(0, pipe(done));
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		close(go[1]);
		while (read(go[0], &byte, 1) == 1) {
			store(self->map, byte, 1000 + byte);
			if (write(done[1], &byte, 1) != 1)
				break;
		}
		_exit(0);
	}
	for (i = 0; i < 10; i++) {
		byte = FIRST + i;
		ASSERT_EQ(1, write(go[1], &byte, 1));
		ASSERT_EQ(1, read(done[0], &byte, 1));
		ASSERT_EPOCH(&self->t);
		ASSERT_NE(0, IS_REPORTED(FIRST + i));
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(0, track_reported(&self->t));
	}
	close(go[1]);
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
}

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

/* Of the kernel, through a reference and no entry. */
TEST_F_TIMEOUT(file, look_up, TEST_SECONDS)
{
	uint64_t value = 99;
	unsigned int round;
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);

	ASSERT_GE(mem, 0);
	for (round = 0; round < 3; round++) {
		ASSERT_TRUE(store_remotely(self->map, 100, 11 + round));
		value++;
		ASSERT_EQ(8, pwrite(mem, &value, sizeof(value), (off_t)page(self, 102)));
		ASSERT_EPOCH(&self->t);
		ASSERT_NE(0, IS_REPORTED(100));
		ASSERT_NE(0, IS_REPORTED(102));
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(0, track_reported(&self->t));
	}
	close(mem);
}

/* Another file is read past the page cache, into this one. */
TEST_F_TIMEOUT(file, direct_read, TEST_SECONDS)
{
	const char *dir = getenv("MMOPS_DISK");
	unsigned int round;
	char path[256];
	uint64_t *from;
	int fd;

	if (!dir)
		SKIP(return, "MMOPS_DISK is not set");
	snprintf(path, sizeof(path), "%s/track.XXXXXX", dir);
	fd = mkostemp(path, O_DIRECT | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	unlink(path);
	ASSERT_EQ(0, posix_memalign((void **)&from, page_size(), page_size()));
	for (round = 0; round < 3; round++) {
		memset(from, 0x10 + round, page_size());
		ASSERT_EQ((ssize_t)page_size(), pwrite(fd, from, page_size(), 0));
		ASSERT_EQ((ssize_t)page_size(), pread(fd, page(self, 110), page_size(), 0));
		ASSERT_EQ(*from, load(self->map, 110));
		ASSERT_SEEN(110, 1);
	}
	close(fd);
}

/* Of a folio of many pages, exactly those that were stored to. */
TEST_F_TIMEOUT(file, writeback, TEST_SECONDS)
{
	unsigned int round;

	store_range(self->map, FIRST, 200, 1);
	ASSERT_EPOCH(&self->t);
	for (round = 0; round < 3; round++) {
		store(self->map, 120, 1000 + round);
		ASSERT_EQ(0, msync(page(self, 120), page_size(), MS_SYNC));
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(MMOPS_TRACK_WRITTEN, IS_REPORTED(120));
		ASSERT_EQ(1, track_reported(&self->t));
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(0, track_reported(&self->t));
		/* The bit is taken by an epoch, and the page is written back after it. */
		store(self->map, 121, 1000 + round);
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(0, fsync(self->fd));
		ASSERT_QUIET();
	}
}

/* Reclaim, swap and back; of a disk file system, clean pages go and are read again. */
TEST_F_TIMEOUT(file, reclaim, TEST_SECONDS)
{
	struct swap_file swap;
	const char *why = add_swap(&swap);
	unsigned int round;

	if (why)
		SKIP(return, "%s", why);
	for (round = 0; round < 3; round++) {
		store_range(self->map, FIRST, 64, 1000 * round);
		ASSERT_EQ(0, page_out(page(self, FIRST), 64 * page_size()));
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(MMOPS_TRACK_WRITTEN, IS_REPORTED(FIRST + 63));
		store_range(self->map, FIRST, 32, 2000 * round + 7);
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(0, page_out(page(self, FIRST), 64 * page_size()));
		ASSERT_EQ(0, track_missed(&self->t));
		ASSERT_EPOCH(&self->t);
	}
	ASSERT_EQ(0, remove_swap(&swap));
	ASSERT_EPOCH(&self->t);
	store(self->map, FIRST, 1);
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, IS_REPORTED(FIRST));
}

TEST_F_TIMEOUT(file, migration, TEST_SECONDS)
{
	store(self->map, 105, 55);
	if (madvise(page(self, 105), page_size(), MADV_SOFT_OFFLINE))
		SKIP(return, "MADV_SOFT_OFFLINE: %s", strerror(errno));
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, IS_REPORTED(105));
	ASSERT_QUIET();
	store(self->map, 105, 56);
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, IS_REPORTED(105));
}

/* A store, and then the entry goes: by whatever a process does to its mapping. */
TEST_F_TIMEOUT(file, entry_goes, TEST_SECONDS)
{
	char *other = reserve(16, 0);

	ASSERT_NE(NULL, other);
	store(self->map, 130, 1);
	ASSERT_EQ(0, madvise(page(self, 130), page_size(), MADV_DONTNEED));
	ASSERT_SEEN(130, 1);
	store(self->map, 131, 2);
	ASSERT_NE(MAP_FAILED, mremap(page(self, 128), 16 * page_size(), 16 * page_size(),
				     MREMAP_MAYMOVE | MREMAP_FIXED, other));
	ASSERT_NE(NULL, map_at(page(self, 128), self->fd, 128, 16, PROT_READ | PROT_WRITE,
			       MAP_SHARED));
	ASSERT_SEEN(131, 1);
	store(other, 4, 3);
	ASSERT_SEEN(132, 1);
	store(self->map, 133, 4);
	ASSERT_EQ(0, mprotect(page(self, 133), page_size(), PROT_NONE));
	ASSERT_EQ(0, mprotect(page(self, 133), page_size(), PROT_READ | PROT_WRITE));
	ASSERT_SEEN(133, 1);
	store(other, 6, 5);
	ASSERT_EQ(0, munmap(other, 16 * page_size()));
	ASSERT_SEEN(134, 1);
}

/* A harvest, a zap, and trackers of the file and of the process take the dirty bit. */
TEST_F_TIMEOUT(file, others, TEST_SECONDS)
{
	struct harvest h = new_harvest(PAGES);
	struct mmops_zap zap = { .pidfd = -1, .addr = (uintptr_t)page(self, 142),
				 .len = page_size() };
	struct tracker file, process;

	ASSERT_NE(NULL, h.bitmap);
	ASSERT_EQ(0, track_open_file(&file, self->fd, FIRST, page(self, FIRST), PAGES - FIRST));
	ASSERT_EQ(0, track_open(&process, page(self, FIRST), PAGES - FIRST));
	ASSERT_EPOCH(&file);
	ASSERT_EPOCH(&process);
	ASSERT_QUIET();

	store(self->map, 140, 1);
	store(self->map, 141, 2);
	ASSERT_EQ(2, clean_record(self->dev, self->fd, FIRST, PAGES - FIRST, &h));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(MMOPS_TRACK_WRITTEN, IS_REPORTED(140));
	ASSERT_EQ(2, track_reported(&self->t));
	ASSERT_EPOCH(&file);
	ASSERT_EQ(2, track_reported(&file));
	/* Whose folio is dirty, now. */
	store(self->map, 140, 3);
	reset_harvest(&h);
	ASSERT_EQ(1, clean_record(self->dev, self->fd, FIRST, PAGES - FIRST, &h));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(MMOPS_TRACK_WRITTEN, IS_REPORTED(140));
	ASSERT_EQ(1, track_reported(&self->t));
	ASSERT_EPOCH(&process);
	ASSERT_QUIET();
	ASSERT_EPOCH(&file);

	store(self->map, 142, 4);
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_ZAP, &zap));
	ASSERT_SEEN(142, 1);
	ASSERT_EPOCH(&file);
	ASSERT_NE(0, file.kinds[142 - FIRST]);

	store(self->map, 143, 5);
	ASSERT_EPOCH(&file);
	ASSERT_EPOCH(&process);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(MMOPS_TRACK_WRITTEN, IS_REPORTED(143));
	ASSERT_NE(0, process.kinds[143 - FIRST]);
	store(self->map, 144, 6);
	ASSERT_EPOCH(&process);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(MMOPS_TRACK_WRITTEN, IS_REPORTED(144));
	ASSERT_EPOCH(&file);
	ASSERT_EQ(MMOPS_TRACK_WRITTEN, file.kinds[144 - FIRST]);
	track_close(&process);
	track_close(&file);
	store(self->map, 145, 7);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(1, track_reported(&self->t));
	free(h.bitmap);
}

TEST_F_TIMEOUT(file, abort, TEST_SECONDS)
{
	store(self->map, 150, 1);
	ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       160 * page_size(), page_size()));
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_NE(0, IS_REPORTED(150));
	ASSERT_EQ(0, track_end(&self->t, MMOPS_TRACK_ABORT));
	store(self->map, 151, 2);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(MMOPS_TRACK_WRITTEN, IS_REPORTED(150));
	ASSERT_EQ(MMOPS_TRACK_WRITTEN, IS_REPORTED(151));
	ASSERT_NE(0, IS_REPORTED(160));
	ASSERT_QUIET();
}

/* No file system of a disk lets its pages be pinned for long. */
TEST_F_TIMEOUT(memory, pins, TEST_SECONDS)
{
	unsigned int round;
	int fd;

	OPEN_PINS(fd);
	ASSERT_EQ(0, pin(fd, page(self, 170), 2, false));
	for (round = 0; round < 3; round++) {
		ASSERT_EPOCH(&self->t);
		ASSERT_NE(0, IS_REPORTED(170));
		ASSERT_NE(0, IS_REPORTED(171));
	}
	ASSERT_EQ(0, unpin(fd));
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, IS_REPORTED(170));
	ASSERT_QUIET();
	close(fd);
}

/*
 * The permission comes back without a fault, and somebody looks the page up for a store
 * and lets go of it without a mark: mode full sees that it could be stored to.
 */
TEST_F_TIMEOUT(memory, permission_given_back, TEST_SECONDS)
{
	unsigned int round;
	int fd;

	OPEN_PINS(fd);
	for (round = 0; round < 3; round++) {
		ASSERT_EQ(0, mprotect(page(self, 170), page_size(), PROT_READ));
		ASSERT_EQ(0, mprotect(page(self, 170), page_size(), PROT_READ | PROT_WRITE));
		ASSERT_EQ(0, pin(fd, page(self, 170), 1, true));
		ASSERT_EQ(0, unpin(fd));
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(variant->full ? MMOPS_TRACK_WRITTEN : 0, IS_REPORTED(170));
		ASSERT_QUIET();
	}
	close(fd);
}

/* All is one huge leaf, in memory. */
TEST_F_TIMEOUT(memory, collapse, TEST_SECONDS)
{
	write_file(THP_ENABLED, "madvise");
	ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_HUGEPAGE));
	store(self->map, 600, 55);
	if (madvise(page(self, PMD_PAGES), pmd_size(), MADV_COLLAPSE))
		SKIP(return, "MADV_COLLAPSE: %s", strerror(errno));
	ASSERT_SEEN(600, 1);
	store(self->map, 601, 56);
	ASSERT_SEEN(601, 1);
	/* The kernel splits it, after a store. */
	store(self->map, 602, 57);
	ASSERT_EQ(0, mprotect(page(self, 700), page_size(), PROT_READ));
	ASSERT_SEEN(602, 1);
	ASSERT_EQ(0, mprotect(page(self, 700), page_size(), PROT_READ | PROT_WRITE));
	store(self->map, 603, 58);
	/* And makes entries that map a huge folio one again. */
	if (!madvise(page(self, PMD_PAGES), pmd_size(), MADV_COLLAPSE))
		ASSERT_SEEN(603, 1);
	store(self->map, 604, 59);
	ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       800 * page_size(), page_size()));
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, IS_REPORTED(604));
	ASSERT_NE(0, IS_REPORTED(800));
	ASSERT_QUIET();
}

/* Everything at once; the copies are what the file is in the end. */
struct busy {
	int fd;
	char *map;
	int seed;
	bool forks;
	atomic_bool *stop;
};

static void *change_all_the_time(void *arg)
{
	struct busy *busy = arg;
	struct rng rng = { .state = test_seed() + busy->seed };
	struct mmops_zap zap = { .pidfd = -1 };
	struct harvest h = new_harvest(PAGES);
	int dev = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
	uint64_t value = 0;
	size_t nr, n;
	char *at;
	pid_t pid;

	while (!atomic_load(busy->stop)) {
		nr = 1 + rng_below(&rng, 40);
		n = rng_below(&rng, PAGES - nr);
		at = busy->map + n * page_size();
		value++;
		switch (rng_below(&rng, 14)) {
		case 0:
			madvise(at, nr * page_size(), MADV_DONTNEED);
			break;
		case 1:
			madvise(at, nr * page_size(), MADV_PAGEOUT);
			break;
		case 2:
			fallocate(busy->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  n * page_size() + 7, nr * page_size() - 7);
			break;
		case 3:
			madvise(busy->map, PAGES * page_size(), MADV_HUGEPAGE);
			madvise(busy->map, pmd_size(), MADV_COLLAPSE);
			break;
		case 4:
			zap.addr = (uintptr_t)at;
			zap.len = nr * page_size();
			ioctl(dev, MMOPS_IOC_ZAP, &zap);
			break;
		case 5:
			clean_record(dev, busy->fd, 0, PAGES, &h);
			break;
		case 6:
			sync_file_range(busy->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
			break;
		case 7:
			if (busy->forks) {
				pid = fork();
				if (!pid) {
					at = map_shared(busy->fd, 0, PAGES);
					if (at != NULL)
						store(at, n, value);
					_exit(0);
				}
				waitpid(pid, NULL, 0);
			}
			break;
		case 8:
			store_remotely(busy->map, n, value);
			break;
		case 9:
		case 10:
			if (pwrite(busy->fd, &value, sizeof(value), n * page_size() + 16) < 0)
				return NULL;
			break;
		default:
			store_range(busy->map, n, nr, value);
		}
	}
	close(dev);
	free(h.bitmap);
	return NULL;
}

TEST_F_TIMEOUT(file, everything, TEST_SECONDS)
{
	atomic_bool stop = false;
	struct busy busy[3];
	struct swap_file swap;
	bool has_swap = !add_swap(&swap);
	struct tracker second;
	pthread_t threads[3];
	unsigned int i;

	write_file(THP_ENABLED, "madvise");
	ASSERT_EQ(0, track_open_file(&second, self->fd, 0, self->map, PAGES));
	for (i = 0; i < 3; i++) {
		busy[i] = (struct busy){
			.fd = self->fd, .map = self->map, .seed = i, .forks = !i, .stop = &stop,
		};
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, change_all_the_time, &busy[i]));
	}
	for (i = 0; i < rounds(40); i++) {
		ASSERT_EQ(0, track_epoch(&self->t));
		ASSERT_EQ(0, track_begin(&second));
		if (rng_below(&self->rng, 3)) {
			track_copy(&second);
			ASSERT_EQ(0, track_end(&second, 0));
		} else {
			ASSERT_EQ(0, track_end(&second, MMOPS_TRACK_ABORT));
		}
	}
	atomic_store(&stop, true);
	for (i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	ASSERT_EPOCH(&self->t);
	ASSERT_EPOCH(&second);
	track_close(&second);
	if (has_swap) {
		ASSERT_EQ(0, remove_swap(&swap));
	}
	ASSERT_QUIET();
}

/*
 * Controls: what the kernel tells, what others of the crate tell, what is looked for in
 * the entries, what comes late, and aborted epochs.
 */
#define END_RULE(n, fault)							\
do {										\
	ASSERT_EQ(0, track_epoch(&self->t));					\
	ASSERT_EQ(0, set_fault(fault, 0));					\
	ASSERT_EQ(n, track_missed(&self->t));					\
} while (0)

TEST_FAULTS(file, control_skip_stored)
{
	ASSERT_EQ(0, set_fault(TRACK_SKIP_STORED, 1));
	ASSERT_EQ(0, write_to(self, 300, 1));
	store_elsewhere(_metadata, self, 310, true);
	store(self->map, 320, 3);
	ASSERT_EQ(0, madvise(page(self, 320), page_size(), MADV_DONTNEED));
	END_RULE(3, TRACK_SKIP_STORED);
	END_FAULTS();
}

TEST_FAULTS(file, control_skip_replaced)
{
	ASSERT_EQ(0, set_fault(TRACK_SKIP_REPLACED, 1));
	/* The first page and the last are zeroed, in part, and marked dirty for that. */
	ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       400 * page_size(), 4 * page_size()));
	END_RULE(4, TRACK_SKIP_REPLACED);
	END_FAULTS();
}

TEST_FAULTS(file, control_skip_walk)
{
	ASSERT_EQ(0, set_fault(TRACK_SKIP_WALK, 1));
	store(self->map, 300, 1);
	END_RULE(1, TRACK_SKIP_WALK);
	END_FAULTS();
}

TEST_FAULTS(file, control_skip_tell)
{
	struct harvest h = new_harvest(PAGES);

	ASSERT_EQ(0, set_fault(FILEMAP_SKIP_TELL, 1));
	store(self->map, 300, 1);
	ASSERT_EQ(1, clean_record(self->dev, self->fd, FIRST, PAGES - FIRST, &h));
	/* The entry is writable still, which mode full takes for a store. */
	END_RULE(!variant->full, FILEMAP_SKIP_TELL);
	END_FAULTS();
	free(h.bitmap);
}

TEST_FAULTS(file, control_skip_abort)
{
	ASSERT_EQ(0, set_fault(TRACK_SKIP_ABORT, 1));
	store(self->map, 300, 1);
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(0, track_end(&self->t, MMOPS_TRACK_ABORT));
	END_RULE(1, TRACK_SKIP_ABORT);
	END_FAULTS();
}

static void *begin(void *arg)
{
	FIXTURE_DATA(file) *self = arg;

	atomic_store(&self->ret, track_begin(&self->t));
	atomic_store(&self->over, true);
	return NULL;
}

/* The entry goes when the marks were taken, and before the walk has come to it. */
static void begin_late(struct __test_metadata *_metadata, FIXTURE_DATA(file) *self, bool left_out)
{
	pthread_t thread;

	ASSERT_EQ(0, set_fault(TRACK_SKIP_LATE, left_out));
	ASSERT_EQ(0, close_gate(TRACK_MARKS_TAKEN, 1));
	store(self->map, 300, 1003 + left_out);
	atomic_store(&self->over, false);
	ASSERT_EQ(0, pthread_create(&thread, NULL, begin, self));
	ASSERT_TRUE(wait_at_gate(TRACK_MARKS_TAKEN, 1, &self->over));
	ASSERT_EQ(0, madvise(page(self, 300), page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, open_gate(TRACK_MARKS_TAKEN));
	pthread_join(thread, NULL);
	ASSERT_EQ(0, self->ret);
	ASSERT_EQ(!left_out, !!IS_REPORTED(300));
	track_copy(&self->t);
	ASSERT_EQ(left_out, track_missed(&self->t));
	ASSERT_EQ(0, track_end(&self->t, 0));
	ASSERT_EQ(0, set_fault(TRACK_SKIP_LATE, 0));
	ASSERT_EPOCH(&self->t);
}

TEST_FAULTS(file, control_skip_late)
{
	begin_late(_metadata, self, false);
	begin_late(_metadata, self, true);
	END_FAULTS();
}

#define ASSERT_ERROR(error, dev, call, arg) do {				\
	ASSERT_EQ(-1, ioctl(dev, call, arg));					\
	ASSERT_EQ(error, errno);						\
} while (0)

TEST(bad_input)
{
	struct mmops_track_open good = {
		.flags = MMOPS_TRACK_FAST | MMOPS_TRACK_FILE, .len = 4 * page_size(),
	};
	struct mmops_track_open arg;
	struct mmops_track_begin begin = {};
	int dev, fd = new_memfd(4), read_only, pipes[2], zero;
	char path[64];

	OPEN_DEV(dev, MMOPS_DEV);
	ASSERT_GE(fd, 0);
	good.pidfd = fd;
	arg = good;
	arg.flags = MMOPS_TRACK_FILE;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg.flags = MMOPS_TRACK_FILE | MMOPS_TRACK_FAST | MMOPS_TRACK_FULL;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg = good;
	arg.addr = 1;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg = good;
	arg.len = 0;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg.len = page_size() + 8;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	/* Behind the last byte that a file can have, and around it. */
	arg.len = page_size();
	arg.addr = 1ULL << 63;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg.addr = -page_size();
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg = good;
	arg.pidfd = -1;
	ASSERT_ERROR(EBADF, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	arg.pidfd = read_only;
	ASSERT_ERROR(EACCES, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	ASSERT_EQ(0, pipe(pipes));
	arg.pidfd = pipes[0];
	ASSERT_ERROR(EACCES, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	arg.pidfd = zero;
	ASSERT_ERROR(EOPNOTSUPP, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	/* Nothing is tracked by what has failed. */
	ASSERT_ERROR(ENODEV, dev, MMOPS_IOC_TRACK_BEGIN, &begin);
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_OPEN, &good));
	ASSERT_ERROR(EBUSY, dev, MMOPS_IOC_TRACK_OPEN, &good);
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_BEGIN, &begin));
	ASSERT_EQ(4, begin.changed);
	close(dev);
}

/* Pages that no file has yet, up to the last that one can have, and too many of them. */
TEST(ranges)
{
	struct mmops_track_open arg = {
		.flags = MMOPS_TRACK_FAST | MMOPS_TRACK_FILE,
		.addr = (1ULL << 63) - 4 * page_size(), .len = 3 * page_size(),
	};
	struct mmops_track_range range;
	struct mmops_track_read reading = { .vec = (uintptr_t)&range, .vec_len = 1 };
	struct mmops_track_begin begin = {};
	struct mmops_track_end end = {};
	int dev, fd = new_memfd(4);

	OPEN_DEV(dev, MMOPS_DEV);
	arg.pidfd = fd;
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_OPEN, &arg));
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_BEGIN, &begin));
	ASSERT_EQ(3, begin.changed);
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_READ, &reading));
	ASSERT_EQ(1, reading.nr);
	ASSERT_EQ(arg.addr, range.addr);
	ASSERT_EQ(arg.len, range.len);
	close(dev);

	dev = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
	arg.addr = 0;
	arg.len = ((1UL << 24) + 1) * page_size();
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_OPEN, &arg));
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_BEGIN, &begin));
	ASSERT_EQ(MMOPS_TRACK_OVERFLOW, begin.state);
	ASSERT_EQ((1UL << 24) + 1, begin.changed);
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_END, &end));
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_BEGIN, &begin));
	ASSERT_EQ((1UL << 24) + 1, begin.changed);
	close(dev);
	close(fd);
}

TEST_HARNESS_MAIN
