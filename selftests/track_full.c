// SPDX-License-Identifier: GPL-2.0
/*
 * Stores that no dirty bit tells of: by whoever has looked a page up in order to store to
 * it. A tracker in mode full sees each, and one in mode fast none, which shows that the
 * store was of that kind.
 *
 * MMOPS_DISK is a directory on a disk file system, for direct reads.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "kselftest_harness.h"
#include "pins.h"
#include "track.h"
#include "tracer.h"

#define PAGES	64UL
#define PAGE	37UL		/* what is stored to */
#define RW	(PROT_READ | PROT_WRITE)

FIXTURE(look_up)
{
	struct tracker t;
	char *map;
	int mem;
	struct tracer tracer;
};

FIXTURE_VARIANT(look_up)
{
	bool shared, full;
};

FIXTURE_VARIANT_ADD(look_up, anonymous_fast) {
};

FIXTURE_VARIANT_ADD(look_up, memfd_fast) {
	.shared = true,
};

FIXTURE_VARIANT_ADD(look_up, anonymous_full) {
	.full = true,
};

FIXTURE_VARIANT_ADD(look_up, memfd_full) {
	.shared = true, .full = true,
};

/* All pages are mapped, and nothing is to be reported. */
FIXTURE_SETUP(look_up)
{
	int dev, fd = -1;

	OPEN_DEV(dev, MMOPS_DEV);
	close(dev);
	ASSERT_EQ(0, start_tracer(&self->tracer));
	if (variant->shared) {
		fd = new_memfd(PAGES);
		ASSERT_GE(fd, 0);
	}
	self->map = mmap(NULL, PAGES * page_size(), RW,
			 variant->shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
	ASSERT_NE(MAP_FAILED, self->map);
	madvise(self->map, PAGES * page_size(), MADV_NOHUGEPAGE);
	store_range(self->map, 0, PAGES, 1);
	self->mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	ASSERT_GE(self->mem, 0);
	track_mode = variant->full ? MMOPS_TRACK_FULL : MMOPS_TRACK_FAST;
	ASSERT_EQ(0, track_open(&self->t, self->map, PAGES));
	ASSERT_EPOCH(&self->t);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, track_reported(&self->t));
}

FIXTURE_TEARDOWN(look_up)
{
	track_close(&self->t);
	close(self->mem);
	end_tracer(&self->tracer);
}

static int poke(FIXTURE_DATA(look_up) *self, uint64_t value)
{
	return trace_store(&self->tracer, self->map + PAGE * page_size(), value);
}

static char *page(FIXTURE_DATA(look_up) *self, size_t n)
{
	return self->map + n * page_size();
}

/* Exactly the page is in the epoch, or missed. Then nothing is, until the next store. */
#define ASSERT_SEEN()								\
do {										\
	ASSERT_EQ(0, track_epoch(&self->t));					\
	ASSERT_EQ(variant->full, track_reported(&self->t));			\
	ASSERT_EQ(variant->full, !!self->t.kinds[PAGE]);			\
	ASSERT_EQ(!variant->full, track_missed(&self->t));			\
	ASSERT_EQ(0, track_epoch(&self->t));					\
	ASSERT_EQ(0, track_reported(&self->t));					\
} while (0)

/* Twice: the second one follows an epoch that has seen one. */
TEST_F_TIMEOUT(look_up, process_vm_writev, TEST_SECONDS)
{
	ASSERT_TRUE(store_remotely(self->map, PAGE, 22));
	ASSERT_SEEN();
	ASSERT_TRUE(store_remotely(self->map, PAGE, 33));
	ASSERT_SEEN();
	ASSERT_EQ(33, load(self->map, PAGE));
}

static ssize_t write_mem(FIXTURE_DATA(look_up) *self, uint64_t value)
{
	return pwrite(self->mem, &value, sizeof(value), (off_t)page(self, PAGE));
}

TEST_F_TIMEOUT(look_up, proc_mem, TEST_SECONDS)
{
	ASSERT_EQ(8, write_mem(self, 22));
	ASSERT_SEEN();
	ASSERT_EQ(8, write_mem(self, 33));
	ASSERT_SEEN();
	ASSERT_EQ(33, load(self->map, PAGE));
}

/* A tracer of the test, in a process that was there before what is tracked. */
TEST_F_TIMEOUT(look_up, ptrace, TEST_SECONDS)
{
	ASSERT_EQ(0, poke(self, 22));
	ASSERT_SEEN();
	ASSERT_EQ(0, poke(self, 33));
	ASSERT_SEEN();
	ASSERT_EQ(33, load(self->map, PAGE));
}

/* A file is read past the page cache, into a page that is tracked. */
TEST_F_TIMEOUT(look_up, direct_read, TEST_SECONDS)
{
	const char *dir = getenv("MMOPS_DISK");
	char path[256];
	int fd;

	if (!dir)
		SKIP(return, "MMOPS_DISK is not set");
	snprintf(path, sizeof(path), "%s/track.XXXXXX", dir);
	fd = mkostemp(path, O_DIRECT | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	unlink(path);
	ASSERT_EQ((ssize_t)page_size(), pwrite(fd, page(self, 5), page_size(), 0));
	ASSERT_EQ((ssize_t)page_size(), pread(fd, page(self, PAGE), page_size(), 0));
	ASSERT_TRUE(wait_for_unpin());
	ASSERT_EQ(load(self->map, 5), load(self->map, PAGE));
	ASSERT_SEEN();
	close(fd);
}

/*
 * A debugger stores to private memory that its owner may not store to, as for a
 * breakpoint. The first store breaks away from the file, the second needs nothing.
 */
TEST_F_TIMEOUT(look_up, forced, TEST_SECONDS)
{
	unsigned int i;

	if (variant->shared)
		SKIP(return, "of private memory");
	ASSERT_EQ(0, mprotect(self->map, PAGES * page_size(), PROT_READ));
	ASSERT_EQ(0, track_epoch(&self->t));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, poke(self, 22 + i));
		ASSERT_EQ(0, track_epoch(&self->t));
		/* Nobody knows, so it is all of it. */
		ASSERT_EQ(variant->full ? PAGES : 0, track_reported(&self->t));
		ASSERT_EQ(!variant->full, track_missed(&self->t));
	}
	ASSERT_EQ(24, load(self->map, PAGE));
}

/*
 * The permission comes back without a fault: what was private and mapped once is made
 * writable by mprotect(2) itself.
 */
TEST_F_TIMEOUT(look_up, permission_given_back, TEST_SECONDS)
{
	unsigned int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, mprotect(self->map, PAGES * page_size(), PROT_READ));
		ASSERT_EQ(0, mprotect(self->map, PAGES * page_size(), RW));
		ASSERT_EQ(0, track_epoch(&self->t));
		ASSERT_TRUE(store_remotely(self->map, PAGE, 22 + i));
		ASSERT_SEEN();
	}
}

/* Who is pinned when an epoch begins may store until the next, and after that faults. */
TEST_F_TIMEOUT(look_up, pinned, TEST_SECONDS)
{
	int fd;

	OPEN_PINS(fd);
	ASSERT_EQ(0, pin(fd, page(self, PAGE), 1, true));
	ASSERT_EQ(0, track_epoch(&self->t));
	ASSERT_EQ(1, track_reported(&self->t));
	ASSERT_EQ(0, unpin(fd));
	ASSERT_EQ(0, track_epoch(&self->t));
	ASSERT_EQ(1, track_reported(&self->t));
	ASSERT_EQ(0, track_epoch(&self->t));
	ASSERT_EQ(0, track_reported(&self->t));
	ASSERT_TRUE(store_remotely(self->map, PAGE, 22));
	ASSERT_SEEN();
	close(fd);
}

/* One in each mode on the same pages: neither hides anything from the other. */
TEST_F_TIMEOUT(look_up, beside_the_other_mode, TEST_SECONDS)
{
	struct tracker other;

	track_mode = variant->full ? MMOPS_TRACK_FAST : MMOPS_TRACK_FULL;
	ASSERT_EQ(0, track_open(&other, self->map, PAGES));
	ASSERT_EPOCH(&other);
	ASSERT_EPOCH(&self->t);
	/* Now the entries are read-only for both. A fault makes the page dirty. */
	ASSERT_TRUE(store_remotely(self->map, PAGE, 22));
	ASSERT_EPOCH(&other);
	ASSERT_EQ(1, track_reported(&other));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(1, track_reported(&self->t));
	ASSERT_TRUE(store_remotely(self->map, PAGE + 1, 23));
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, self->t.kinds[PAGE + 1]);
	ASSERT_EPOCH(&other);
	ASSERT_NE(0, other.kinds[PAGE + 1]);
	track_close(&other);
}

/* Another thread stores all the time, and none of its stores is lost. */
struct writer {
	char *map;
	atomic_bool stop;
	uint64_t stores;
};

static void *store_all_the_time(void *arg)
{
	struct writer *w = arg;
	struct rng rng = { .state = test_seed() };

	while (!atomic_load(&w->stop))
		w->stores += store_remotely(w->map, rng_below(&rng, PAGES), rng_next(&rng));
	return NULL;
}

TEST_F_TIMEOUT(look_up, all_the_time, TEST_SECONDS)
{
	struct writer w = { .map = self->map };
	pthread_t thread;
	unsigned int i;

	if (!variant->full)
		SKIP(return, "mode fast sees none");
	ASSERT_EQ(0, pthread_create(&thread, NULL, store_all_the_time, &w));
	for (i = 0; i < rounds(300); i++) {
		ASSERT_EQ(0, track_epoch(&self->t));
	}
	atomic_store(&w.stop, true);
	pthread_join(thread, NULL);
	ASSERT_EPOCH(&self->t);
	ASSERT_GT(w.stores, 0);
	ASSERT_EPOCH(&self->t);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, track_reported(&self->t));
}

TEST_HARNESS_MAIN
