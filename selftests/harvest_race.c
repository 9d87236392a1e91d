// SPDX-License-Identifier: GPL-2.0
/*
 * Writeback and reclaim between the change of an entry and the TLB flush, on disk
 * file systems. writeback.c has the common case; here are blocks that are smaller
 * than a folio, and a caller that writes back itself.
 *
 * In all of them one walk write-protects a page, another takes its dirty bit, and
 * both stand before their flush, while a writer goes on through what its TLB has.
 * Writeback then finds an entry that needs no cleaning, and flushes nothing.
 */
#include <pthread.h>

#include "faults.h"
#include "kselftest_harness.h"
#include "loop_disk.h"

#define PAGES		16UL
#define DISK_BYTES	(320UL << 20)	/* the least that XFS takes */
#define ROUNDS		8	/* with all rules */

enum { CPU_MAIN, CPU_CLEAN, CPU_PROTECT, CPU_WRITER, NR_TEST_CPUS };

FIXTURE(disk)
{
	int dev, fd, direct;
	struct loop_disk disk;
	char *map;
	void *buffer;
	/* Where the writer stores, and where the file is written to with write(2). */
	size_t stored, written;
	uint32_t flags;		/* of the harvest */
	int64_t clean_ret, protect_ret;
	_Atomic uint64_t passes, older;
	atomic_bool stop;
};

FIXTURE_VARIANT(disk)
{
	const char *type;
	const char *mkfs;
	size_t stored;		/* in another block than the start of the file */
};

/* Four blocks in a page, each with a buffer of its own. */
FIXTURE_VARIANT_ADD(disk, ext4_blocks) {
	.type = "ext4", .mkfs = "mkfs.ext4 -q -F -b 1024", .stored = 3 * 1024,
};

FIXTURE_VARIANT_ADD(disk, xfs_blocks) {
	.type = "xfs", .mkfs = "mkfs.xfs -q -f -b size=1024", .stored = 3 * 1024,
};

/* One block in a page, and several pages in a folio. */
FIXTURE_VARIANT_ADD(disk, xfs_large_folios) {
	.type = "xfs", .mkfs = "mkfs.xfs -q -f", .stored = 3 * 4096,
};

FIXTURE_SETUP(disk)
{
	size_t bytes = PAGES * page_size();
	const char *why;
	char path[96];

	OPEN_DEV(self->dev, MMOPS_DEV);
	if (nr_cpus() < NR_TEST_CPUS)
		SKIP(return, "needs %d CPUs, has %d", NR_TEST_CPUS, nr_cpus());
	why = make_loop_disk(&self->disk, DISK_BYTES, variant->type, variant->mkfs);
	if (why)
		SKIP(return, "%s: %s", variant->type, why);
	snprintf(path, sizeof(path), "%s/file", self->disk.dir);
	self->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_GE(self->fd, 0);
	self->direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	ASSERT_GE(self->direct, 0);
	ASSERT_EQ(0, posix_memalign(&self->buffer, page_size(), bytes));
	memset(self->buffer, 0, bytes);
	/* One write of all, for which the page cache gets a large folio where it can. */
	ASSERT_EQ((ssize_t)bytes, pwrite(self->fd, self->buffer, bytes, 0));
	ASSERT_EQ(0, fsync(self->fd));
	self->map = map_shared(self->fd, 0, PAGES);
	ASSERT_NE(self->map, NULL);
	self->stored = variant->stored;
	self->written = 0;
}

FIXTURE_TEARDOWN(disk)
{
	if (self->map)
		munmap(self->map, PAGES * page_size());
	if (self->direct > 0)
		close(self->direct);
	if (self->fd > 0)
		close(self->fd);
	remove_loop_disk(&self->disk);
}

FIXTURE_FAULTS(disk);

/* Stores rising numbers to one word, and looks whether it is what was stored last. */
static void *writer(void *arg)
{
	FIXTURE_DATA(disk) *self = arg;
	volatile uint64_t *word = (uint64_t *)(self->map + self->stored);
	uint64_t value = *word;

	pin_to_cpu(CPU_WRITER);
	while (!atomic_load_explicit(&self->stop, memory_order_acquire)) {
		if (*word != value)
			atomic_fetch_add(&self->older, 1);
		*word = ++value;
		atomic_fetch_add(&self->passes, 1);
	}
	return NULL;
}

static void *walk_clean(void *arg)
{
	FIXTURE_DATA(disk) *self = arg;
	struct harvest h = new_harvest(PAGES);

	pin_to_cpu(CPU_CLEAN);
	self->clean_ret = clean_record_flags(self->dev, self->fd, 0, PAGES, &h, self->flags);
	free(h.bitmap);
	return NULL;
}

static void *walk_protect(void *arg)
{
	FIXTURE_DATA(disk) *self = arg;

	pin_to_cpu(CPU_PROTECT);
	self->protect_ret = write_protect(self->dev, self->fd, 0, PAGES);
	return NULL;
}

static void wait_for_passes(FIXTURE_DATA(disk) *self, unsigned int n)
{
	uint64_t until = atomic_load(&self->passes) + n;

	while (atomic_load(&self->passes) < until)
		sched_yield();
}

/* One round, with @middle between writeback and the flush. False if it did not get so far. */
static bool race(FIXTURE_DATA(disk) *self, int (*middle)(FIXTURE_DATA(disk) *self))
{
	pthread_t threads[3];
	bool met = true;

	pin_to_cpu(CPU_MAIN);
	atomic_store(&self->stop, false);
	pthread_create(&threads[0], NULL, writer, self);
	wait_for_passes(self, 2);
	/* What is mapped stays, but moves from where CPUs keep it for the LRU lists. */
	met = met && !posix_fadvise(self->fd, 0, 0, POSIX_FADV_DONTNEED);
	wait_for_passes(self, 2);
	met = met && !close_gate(BEFORE_FLUSH, 2);
	pthread_create(&threads[1], NULL, walk_protect, self);
	met = met && wait_at_gate(BEFORE_FLUSH, 1, NULL);
	pthread_create(&threads[2], NULL, walk_clean, self);
	met = met && wait_at_gate(BEFORE_FLUSH, 2, NULL);
	met = met && !sync_file_range(self->fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE |
				      SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
	wait_for_passes(self, 2);
	met = met && !middle(self);
	wait_for_passes(self, 2);
	atomic_store(&self->stop, true);
	pthread_join(threads[0], NULL);
	open_gate(BEFORE_FLUSH);
	pthread_join(threads[1], NULL);
	pthread_join(threads[2], NULL);
	return met && self->clean_ret >= 0 && self->protect_ret >= 0;
}

/* Another block of the folio becomes dirty, and the folio with it. */
static int write_elsewhere(FIXTURE_DATA(disk) *self)
{
	uint64_t value = 1;

	return pwrite(self->fd, &value, sizeof(value), self->written) != sizeof(value);
}

/* Rounds in which the last store did not reach the disk, up to the first; -1 on an error. */
static int rounds_that_lose(FIXTURE_DATA(disk) *self, unsigned int n)
{
	ssize_t bytes = PAGES * page_size();

	while (n--) {
		if (!race(self, write_elsewhere) || fsync(self->fd) ||
		    pread(self->direct, self->buffer, bytes, 0) != bytes)
			return -1;
		if (*(uint64_t *)(self->buffer + self->stored) !=
		    *(volatile uint64_t *)(self->map + self->stored))
			return 1;
	}
	return 0;
}

/*
 * A folio that is dirty in part when it gets its mark: all blocks become dirty. In
 * the control it is taken for dirty as a whole.
 */
TEST_FAULTS(disk, control_part_is_all)
{
	ASSERT_EQ(0, rounds_that_lose(self, ROUNDS));
	ASSERT_EQ(0, set_fault(PART_IS_ALL, 1));
	ASSERT_EQ(1, rounds_that_lose(self, TLB_ROUNDS));
}

static int reclaim(FIXTURE_DATA(disk) *self)
{
	return page_out(self->map, PAGES * page_size());
}

/* Rounds in which the writer found an older value in its page, up to the first. */
static int rounds_with_older_values(FIXTURE_DATA(disk) *self, unsigned int n)
{
	self->flags = MMOPS_NO_TRANSFER;
	atomic_store(&self->older, 0);
	while (n--) {
		if (!race(self, reclaim))
			return -1;
		if (atomic_load(&self->older))
			return 1;
	}
	return 0;
}

/*
 * A caller that writes back itself. In the control the flush waits for the end of
 * the walk: the page is written and reclaimed before, and comes back from the disk
 * without the stores in between.
 */
TEST_FAULTS(disk, control_flush_late)
{
	ASSERT_EQ(0, rounds_with_older_values(self, ROUNDS));
	ASSERT_EQ(0, set_fault(FLUSH_LATE, 1));
	ASSERT_EQ(1, rounds_with_older_values(self, TLB_ROUNDS));
}

TEST_HARNESS_MAIN
