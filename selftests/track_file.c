// SPDX-License-Identifier: GPL-2.0
/*
 * MMOPS_TRACK_FILE: stores to a file are reported, by whomever, in all processes that map it,
 * and whatever becomes of the page or of the entry after the store. track_file_calls.c has
 * what changes a file without a store, track_file_race.c all of it at once.
 */

#include <linux/falloc.h>

#include "faults.h"
#include "pins.h"
#include "swap.h"
#include "track_file.h"

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

FIXTURE_FAULTS(memory);

/* Other file systems that are told of, in brief. */
FIXTURE(others)
{
	SUBJECT;
};

FIXTURE_VARIANT(others)
{
	const char *type, *mkfs;
};

/* By the driver of ext4 as well, but without extents and without delayed allocation. */
FIXTURE_VARIANT_ADD(others, ext2) {
	.type = "ext2", .mkfs = "mkfs.ext2 -q -F",
};

FIXTURE_VARIANT_ADD(others, ext3) {
	.type = "ext3", .mkfs = "mkfs.ext3 -q -F",
};

FIXTURE_VARIANT_ADD(others, ramfs) {
	.type = "ramfs",
};

FIXTURE_SETUP(others)
{
	const FIXTURE_VARIANT(file) file = { .type = variant->type, .mkfs = variant->mkfs };
	const char *why;

	OPEN_DEV(self->dev, MMOPS_DEV);
	why = track_part(_metadata, (FIXTURE_DATA(file) *)self, &file);
	if (why)
		SKIP(return, "%s: %s", variant->type, why);
}

FIXTURE_TEARDOWN(others)
{
	end((FIXTURE_DATA(file) *)self);
}

/* A store, one that is written back before the epoch, and write(2). */
TEST_F_TIMEOUT(others, changes, TEST_SECONDS)
{
	store_range(self->map, 300, 3, 4711);
	ASSERT_SEEN(300, 3);
	store_range(self->map, 400, 3, 4711);
	ASSERT_EQ(0, msync(self->map, PAGES * page_size(), MS_SYNC));
	ASSERT_SEEN(400, 3);
	ASSERT_EQ(0, write_to((FIXTURE_DATA(file) *)self, 500, 4711));
	ASSERT_SEEN(500, 1);
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
		/* Folios of XFS, and of ext4, may be of several pages: their marks are exact. */
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
		ASSERT_TRUE(wait_for_unpin());
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

/*
 * The same of a page of a huge leaf that the range covers in part: it stays writable, since
 * nobody would be told of the rest.
 */
static void huge_leaf_in_part(struct __test_metadata *_metadata, FIXTURE_DATA(memory) *self,
			      bool reported)
{
	unsigned int round;
	int fd, ret;

	OPEN_PINS(fd);
	write_file(THP_ENABLED, "madvise");
	ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_HUGEPAGE));
	ret = collapse_range(self->map, pmd_size());
	if (ret)
		SKIP(return, "MADV_COLLAPSE: %s", strerror(-ret));
	ASSERT_EQ((long)(pmd_size() / 1024), smaps_kb(self->map, "ShmemPmdMapped"));
	for (round = 0; round < 3; round++) {
		/* Its entry is clean. */
		ASSERT_GE(clean_only(self->dev, self->fd, 0, PMD_PAGES), 0);
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(0, pin(fd, page(self, 150), 1, true));
		ASSERT_EQ(0, unpin(fd));
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(reported ? MMOPS_TRACK_WRITTEN : 0, IS_REPORTED(150));
		store(self->map, 160, round);
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(MMOPS_TRACK_WRITTEN, IS_REPORTED(160));
	}
	close(fd);
}

TEST_F_TIMEOUT(memory, huge_leaf_in_part, TEST_SECONDS)
{
	huge_leaf_in_part(_metadata, self, variant->full);
}

TEST_FAULTS(memory, control_skip_partial)
{
	ASSERT_EQ(0, set_fault(TRACK_SKIP_PARTIAL, 1));
	huge_leaf_in_part(_metadata, self, false);
}

/* All is one huge leaf, in memory. */
TEST_F_TIMEOUT(memory, collapse, TEST_SECONDS)
{
	int ret;

	write_file(THP_ENABLED, "madvise");
	ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_HUGEPAGE));
	store(self->map, 600, 55);
	ret = collapse_range(page(self, PMD_PAGES), pmd_size());
	if (ret)
		SKIP(return, "MADV_COLLAPSE: %s", strerror(-ret));
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
