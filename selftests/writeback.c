// SPDX-License-Identifier: GPL-2.0
/*
 * What becomes of dirty state that was taken: writeback and reclaim still see
 * every store, unless the caller took that on itself.
 *
 * The disk file system is the one of the directory MMOPS_DISK, or an ext4 on a
 * loop device in memory that the test makes.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "faults.h"
#include "kpageflags.h"
#include "kselftest_harness.h"
#include "loop_disk.h"

#define PAGES		300UL

FIXTURE(shmem)
{
	int dev, fd;
	char *map;
	struct harvest h;
};

FIXTURE_SETUP(shmem)
{
	SETUP_MEMFD(self, PAGES, 0);
	/*
	 * A page that is read first is mapped writable with a clean folio: the
	 * store then leaves its mark in the entry alone.
	 */
	load_range(self->map, 0, PAGES);
	if (folio_dirty(self->map) < 0)
		SKIP(return, "no /proc/kpageflags");
	ASSERT_EQ(0, folio_dirty(self->map));
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(0, folio_dirty(self->map));
}

FIXTURE_TEARDOWN(shmem)
{
}

TEST_F_TIMEOUT(shmem, transferred_to_folio, TEST_SECONDS)
{
	size_t i;

	ASSERT_EQ(100, clean_record(self->dev, self->fd, 50, 100, &self->h));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(i >= 50 && i < 150, folio_dirty(self->map + i * page_size()));
	}
}

/* write_protect takes no dirty state and has none to transfer. */
TEST_F_TIMEOUT(shmem, protect_transfers_nothing, TEST_SECONDS)
{
	size_t i;

	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(0, folio_dirty(self->map + i * page_size()));
	}
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(1, folio_dirty(self->map + i * page_size()));
	}
}

/* Reclaim drops clean pages of shmem: what was stored must survive it. */
TEST_F_TIMEOUT(shmem, survives_reclaim, TEST_SECONDS)
{
	size_t i;

	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(0, page_out(self->map, PAGES * page_size()));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(1 + i, load(self->map, i));
	}
}

/*
 * A disk file system
 */
struct writer_control {
	_Atomic uint64_t passes;
	atomic_bool stop;
};

FIXTURE(disk)
{
	int dev, fd, direct;
	struct loop_disk disk;	/* where MMOPS_DISK is not set */
	char path[128];
	char *map;
	size_t pages;
	void *buffer;
	struct harvest h;
	struct writer_control control;
	/* Walks that run beside the test. */
	atomic_int started;
	int64_t clean_ret, protect_ret;
};

FIXTURE_SETUP(disk)
{
	const char *given = getenv("MMOPS_DISK"), *why;

	OPEN_DEV(self->dev, MMOPS_DEV);
	self->disk.loop = -1;
	if (!given) {
		why = make_loop_disk(&self->disk, 64 << 20, "ext4", "mkfs.ext4 -q -F");
		if (why)
			SKIP(return, "no MMOPS_DISK, and of ext4 on a loop device: %s", why);
		given = self->disk.dir;
	}
	snprintf(self->path, sizeof(self->path), "%s/mmops-writeback-%d", given, getpid());
	self->fd = open(self->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ASSERT_GE(self->fd, 0);
	ASSERT_EQ(0, posix_fallocate(self->fd, 0, PAGES * page_size()));
	self->direct = open(self->path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (self->direct < 0)
		SKIP(return, "%s has no O_DIRECT", given);
	self->map = map_shared(self->fd, 0, PAGES);
	ASSERT_NE(self->map, NULL);
	self->pages = PAGES;
	ASSERT_EQ(0, posix_memalign(&self->buffer, page_size(), PAGES * page_size()));
	self->h = new_harvest(PAGES);
	ASSERT_NE(self->h.bitmap, NULL);
}

FIXTURE_TEARDOWN(disk)
{
	if (faults_built_in())
		clear_faults();
	if (self->map)
		munmap(self->map, self->pages * page_size());
	if (self->direct > 0)
		close(self->direct);
	if (self->fd > 0)
		close(self->fd);
	unlink(self->path);
	remove_loop_disk(&self->disk);
}

FIXTURE_FAULTS(disk);

/* What the disk has: a direct read passes the page cache by. */
static const char *read_disk(FIXTURE_DATA(disk) *self)
{
	size_t bytes = PAGES * page_size();

	return pread(self->direct, self->buffer, bytes, 0) == (ssize_t)bytes ? self->buffer : NULL;
}

static void assert_on_disk(struct __test_metadata *_metadata, FIXTURE_DATA(disk) *self)
{
	const char *disk = read_disk(self);
	size_t i;

	ASSERT_NE(disk, NULL);
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(load(self->map, i), load(disk, i)) {
			TH_LOG("page %zu was not written back", i);
		}
	}
}

TEST_F_TIMEOUT(disk, msync_after_clean, TEST_SECONDS)
{
	unsigned int round, last = rounds(10);
	size_t i;

	for (round = 1; round <= last; round++) {
		size_t n = 0;

		for (i = 0; i < PAGES; i += round, n++)
			store(self->map, i, round * 10000 + i);
		reset_harvest(&self->h);
		ASSERT_EQ(n, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(i % round == 0, test_bit(self->h.bitmap, i));
		}
		ASSERT_EQ(0, msync(self->map, PAGES * page_size(), MS_SYNC));
		assert_on_disk(_metadata, self);
	}
}

TEST_F_TIMEOUT(disk, fsync_after_protect_and_clean, TEST_SECONDS)
{
	unsigned int round, last = rounds(10);

	for (round = 1; round <= last; round++) {
		store_range(self->map, 0, PAGES, round * 10000);
		reset_harvest(&self->h);
		ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
		ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
		store_range(self->map, 0, PAGES / 2, round * 20000);
		ASSERT_EQ(PAGES / 2, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
		ASSERT_EQ(0, fsync(self->fd));
		assert_on_disk(_metadata, self);
	}
}

/* Writeback that goes on meanwhile, and no call that waits for all but the last. */
TEST_F_TIMEOUT(disk, sync_file_range_between, TEST_SECONDS)
{
	struct rng rng = { test_seed() };
	unsigned int round, n = rounds(60);

	for (round = 1; round <= n; round++) {
		size_t first = rng_below(&rng, PAGES), nr = 1 + rng_below(&rng, PAGES - first);

		store_range(self->map, first, nr, (uint64_t)round << 32);
		switch (rng_below(&rng, 4)) {
		case 0:
			sync_file_range(self->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
			break;
		case 1:
			ASSERT_GE(write_protect(self->dev, self->fd, first, nr), 0);
			break;
		default:
			ASSERT_GE(clean_record(self->dev, self->fd, 0, PAGES, &self->h), 0);
		}
	}
	ASSERT_GE(clean_record(self->dev, self->fd, 0, PAGES, &self->h), 0);
	ASSERT_EQ(0, fsync(self->fd));
	assert_on_disk(_metadata, self);
}

/* After writeback a store faults, so that the file system has notice of it. */
TEST_F_TIMEOUT(disk, store_after_writeback, TEST_SECONDS)
{
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(0, fsync(self->fd));
	reset_harvest(&self->h);
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, PAGES));
	store_range(self->map, 0, PAGES, 2);
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(0, fsync(self->fd));
	assert_on_disk(_metadata, self);
}

/* A caller that writes the data back itself: pwrite() of what was reported. */
TEST_F_TIMEOUT(disk, no_transfer, TEST_SECONDS)
{
	size_t i;

	store_range(self->map, 0, PAGES, 77);
	ASSERT_EQ(PAGES, clean_record_flags(self->dev, self->fd, 0, PAGES, &self->h,
					    MMOPS_NO_TRANSFER));
	ASSERT_EQ(PAGES, count_bits(self->h.bitmap, self->h.bits));
	for (i = 0; i < PAGES; i++) {
		uint64_t value = load(self->map, i);

		ASSERT_EQ((ssize_t)sizeof(value),
			  pwrite(self->fd, &value, sizeof(value), i * page_size()));
	}
	ASSERT_EQ(0, fsync(self->fd));
	assert_on_disk(_metadata, self);
}

/*
 * Writeback in the window between the change of an entry and the flush.
 *
 * One walk cleans the entries, another write-protects them, both have their
 * flush to come. Writeback then finds entries that need no cleaning, writes
 * the pages and takes the folios for clean. A store that now goes through a
 * stale TLB entry is known to nobody, unless the folios are marked dirty after
 * the flush.
 */
enum { CPU_MAIN, CPU_CLEAN, CPU_PROTECT, CPU_WRITER, NR_TEST_CPUS };

/* A harvest marks folios dirty when so many wait, and at its end. This is more. */
#define MANY		(10 * PMD_PAGES)
#define HOT		32UL
#define ROUNDS		20

static void *writer(void *arg)
{
	FIXTURE_DATA(disk) *self = arg;
	uint64_t value = 1ULL << 40;

	pin_to_cpu(CPU_WRITER);
	while (!atomic_load_explicit(&self->control.stop, memory_order_acquire)) {
		store_range(self->map, 0, HOT, value += HOT);
		atomic_fetch_add(&self->control.passes, 1);
	}
	return NULL;
}

static void *walk_clean(void *arg)
{
	FIXTURE_DATA(disk) *self = arg;

	pin_to_cpu(CPU_CLEAN);
	atomic_fetch_add(&self->started, 1);
	self->clean_ret = clean_only(self->dev, self->fd, 0, self->pages);
	return NULL;
}

static void *walk_protect(void *arg)
{
	FIXTURE_DATA(disk) *self = arg;

	pin_to_cpu(CPU_PROTECT);
	atomic_fetch_add(&self->started, 1);
	self->protect_ret = write_protect(self->dev, self->fd, 0, self->pages);
	return NULL;
}

static void wait_for_passes(FIXTURE_DATA(disk) *self, unsigned int n)
{
	uint64_t until = atomic_load(&self->control.passes) + n;

	while (atomic_load(&self->control.passes) < until)
		sched_yield();
}

/*
 * @n rounds of the above; the number of pages whose last store did not reach the
 * disk, or ~0. With @gate both walks stand before their flush until the stores are
 * done, else they do what they do. With @loses it ends with the first round that
 * does.
 */
static uint64_t writeback_in_window(FIXTURE_DATA(disk) *self, unsigned int n, bool gate,
				    bool loses)
{
	size_t bytes = HOT * page_size();
	unsigned int round;
	uint64_t lost = 0;
	size_t i;

	pin_to_cpu(CPU_MAIN);
	for (round = 0; round < n && !(loses && lost); round++) {
		const char *disk = self->buffer;
		pthread_t threads[3];
		bool met = true;

		store_range(self->map, HOT, self->pages - HOT, round);
		atomic_store(&self->control.stop, false);
		atomic_store(&self->started, 0);
		pthread_create(&threads[0], NULL, writer, self);
		wait_for_passes(self, 2);
		if (gate && close_gate(BEFORE_FLUSH, 2))
			return ~0ULL;
		pthread_create(&threads[1], NULL, walk_protect, self);
		if (gate)
			met = wait_at_gate(BEFORE_FLUSH, 1, NULL);
		while (atomic_load(&self->started) < 1)
			sched_yield();
		pthread_create(&threads[2], NULL, walk_clean, self);
		if (gate)
			met = met && wait_at_gate(BEFORE_FLUSH, 2, NULL);
		while (atomic_load(&self->started) < 2)
			sched_yield();
		sync_file_range(self->fd, 0, bytes, SYNC_FILE_RANGE_WAIT_BEFORE |
				SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
		wait_for_passes(self, 2);
		atomic_store(&self->control.stop, true);
		pthread_join(threads[0], NULL);
		if (gate && open_gate(BEFORE_FLUSH))
			return ~0ULL;
		pthread_join(threads[1], NULL);
		pthread_join(threads[2], NULL);
		if (!met || self->clean_ret < 0 || self->protect_ret < 0 || fsync(self->fd) ||
		    pread(self->direct, self->buffer, bytes, 0) != (ssize_t)bytes)
			return ~0ULL;
		for (i = 0; i < HOT; i++)
			lost += load(self->map, i) != load(disk, i);
	}
	return lost;
}

/* A longer file, for the control. */
static void map_many(struct __test_metadata *_metadata, FIXTURE_DATA(disk) *self)
{
	munmap(self->map, PAGES * page_size());
	ASSERT_EQ(0, posix_fallocate(self->fd, 0, MANY * page_size()));
	self->map = map_shared(self->fd, 0, MANY);
	self->pages = MANY;
	ASSERT_NE(self->map, NULL);
	/* Without readahead each page is a folio of its own, so that as many wait. */
	ASSERT_EQ(0, madvise(self->map, MANY * page_size(), MADV_RANDOM));
}

TEST_F_TIMEOUT(disk, writeback_in_window, TEST_SECONDS)
{
	if (nr_cpus() < NR_TEST_CPUS)
		SKIP(return, "needs %d CPUs, has %d", NR_TEST_CPUS, nr_cpus());
	ASSERT_EQ(0, writeback_in_window(self, rounds(ROUNDS), false, false));
}

TEST_FAULTS(disk, control_transfer_before_flush)
{
	uint64_t lost;

	if (nr_cpus() < NR_TEST_CPUS)
		SKIP(return, "needs %d CPUs, has %d", NR_TEST_CPUS, nr_cpus());
	map_many(_metadata, self);
	/* The same steps, with nothing left out. */
	ASSERT_EQ(0, writeback_in_window(self, 2, true, false));
	ASSERT_EQ(0, set_fault(TRANSFER_BEFORE_FLUSH, 1));
	lost = writeback_in_window(self, TLB_ROUNDS, true, true);
	TH_LOG("%llu stores did not reach the disk", (unsigned long long)lost);
	ASSERT_NE(~0ULL, lost);
	ASSERT_GT(lost, 0);
}

TEST_HARNESS_MAIN
