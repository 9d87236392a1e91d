// SPDX-License-Identifier: GPL-2.0
/*
 * MMOPS_IOC_TRACK_*: each way in which a page of a process changes, or its dirty bit
 * goes, is reported. The oracle is the memory itself: see track.h.
 */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include <linux/userfaultfd.h>

#include "kselftest_harness.h"
#include "ksm.h"
#include "leaves.h"
#include "pins.h"
#include "swap.h"
#include "track.h"

#define PAGES		(2 * PMD_PAGES)
#define ROUNDS		40

FIXTURE(track)
{
	struct tracker t;
	char *map;
	struct rng rng;
};

FIXTURE_VARIANT(track)
{
	bool shared, full;
};

FIXTURE_VARIANT_ADD(track, anonymous) {
};

FIXTURE_VARIANT_ADD(track, memfd) {
	.shared = true,
};

FIXTURE_VARIANT_ADD(track, anonymous_full) {
	.full = true,
};

FIXTURE_VARIANT_ADD(track, memfd_full) {
	.shared = true, .full = true,
};

/* Base pages, all stored to, and tracked with nothing to report. */
FIXTURE_SETUP(track)
{
	int dev, fd = -1;

	OPEN_DEV(dev, MMOPS_DEV);
	close(dev);
	self->rng.state = test_seed();
	self->map = reserve(PAGES, 0);
	ASSERT_NE(self->map, NULL);
	if (variant->shared) {
		fd = new_memfd(PAGES);
		ASSERT_GE(fd, 0);
	}
	self->map = map_at(self->map, fd, 0, PAGES, PROT_READ | PROT_WRITE,
			   variant->shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
	ASSERT_NE(self->map, NULL);
	ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_NOHUGEPAGE));
	store_range(self->map, 0, PAGES, 1);
	if (fd >= 0)
		close(fd);
	track_mode = variant->full ? MMOPS_TRACK_FULL : MMOPS_TRACK_FAST;
	ASSERT_EQ(0, track_open(&self->t, self->map, PAGES));
	/* The first epoch has all. */
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(PAGES, track_reported(&self->t));
	track_copy(&self->t);
	ASSERT_EQ(0, track_end(&self->t, 0));
	ASSERT_EQ(0, track_missed(&self->t));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, track_reported(&self->t));
}

FIXTURE_TEARDOWN(track)
{
	track_close(&self->t);
}

/*
 * Nothing is reported any more. A page of a file that is read in anew has a dirty entry
 * if the folio is dirty and stores are permitted, and is reported once more; in mode full
 * whatever is mapped writable by a read.
 */
#define ASSERT_QUIET()								\
do {										\
	if (variant->shared || variant->full) {					\
		ASSERT_EPOCH(&self->t);						\
	}									\
	ASSERT_EPOCH(&self->t);							\
	ASSERT_EQ(0, track_reported(&self->t));					\
} while (0)

static char *page(FIXTURE_DATA(track) *self, size_t n)
{
	return self->map + n * page_size();
}

/*
 * Exactly what was stored to, with soft-dirty as it was. In mode fast without a fault, and
 * in mode full with one for each page.
 */
TEST_F_TIMEOUT(track, stores, TEST_SECONDS)
{
	static uint64_t before[PAGES];
	static uint8_t stored[PAGES];
	unsigned int round;
	size_t i, n;
	long faults;

	for (round = 0; round < ROUNDS; round++) {
		memset(stored, 0, sizeof(stored));
		n = rng_below(&self->rng, PAGES);
		faults = minor_faults();
		while (n--) {
			i = rng_below(&self->rng, PAGES);
			store(self->map, i, rng_next(&self->rng));
			faults += variant->full && !stored[i];
			stored[i] = MMOPS_TRACK_WRITTEN;
		}
		ASSERT_EQ(faults, minor_faults());
		for (i = round; i < PAGES; i += ROUNDS)
			before[i] = pagemap_entry(page(self, i));
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(0, memcmp(stored, self->t.kinds, PAGES));
		for (i = round; i < PAGES; i += ROUNDS) {
			ASSERT_EQ(before[i], pagemap_entry(page(self, i)));
		}
		ASSERT_EPOCH(&self->t);
		ASSERT_EQ(0, track_reported(&self->t));
	}
}

TEST_F_TIMEOUT(track, abort, TEST_SECONDS)
{
	store(self->map, 5, 50);
	store(self->map, 700, 70);
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(2, track_reported(&self->t));
	ASSERT_EQ(-EBUSY, track_begin(&self->t));
	ASSERT_EQ(0, track_end(&self->t, MMOPS_TRACK_ABORT));
	store(self->map, 6, 60);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(3, self->t.begun.written);
	ASSERT_EQ(0, self->t.begun.changed);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, track_reported(&self->t));
}

/* One on the same range, and one on a part that begins and ends within words. */
TEST_F_TIMEOUT(track, several, TEST_SECONDS)
{
	struct tracker same, part;

	ASSERT_EQ(0, track_open(&same, self->map, PAGES));
	ASSERT_EQ(0, track_open(&part, page(self, 70), 777));
	ASSERT_EPOCH(&same);
	ASSERT_EPOCH(&part);
	store(self->map, 69, 1069);
	store(self->map, 70, 1070);
	store(self->map, 846, 1846);
	store(self->map, 847, 1847);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(4, self->t.begun.written);
	store(self->map, 71, 1071);
	ASSERT_EPOCH(&part);
	ASSERT_EQ(3, part.begun.written);
	ASSERT_EQ(0, part.begun.changed);
	ASSERT_EPOCH(&same);
	ASSERT_EQ(5, same.begun.written);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(1, self->t.begun.written);
	track_close(&same);
	store(self->map, 72, 1072);
	ASSERT_EPOCH(&part);
	ASSERT_EQ(1, track_reported(&part));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(1, track_reported(&self->t));
	track_close(&part);
}

/* A store, and then what takes the entry away; or a change without a store. */
TEST_F_TIMEOUT(track, dontneed, TEST_SECONDS)
{
	store(self->map, 10, 100);
	ASSERT_EQ(0, madvise(page(self, 8), 4 * page_size(), MADV_DONTNEED));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(4, self->t.begun.changed);
	ASSERT_QUIET();
	/* What was read in is as it was; a store is seen. */
	store(self->map, 9, 90);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(1, self->t.begun.written);
}

TEST_F_TIMEOUT(track, lazyfree, TEST_SECONDS)
{
	if (variant->shared)
		SKIP(return, "of anonymous memory");
	ASSERT_EQ(0, madvise(page(self, 8), 4 * page_size(), MADV_FREE));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(4, self->t.begun.changed);
	/* One of them is stored to, and must not be discarded. */
	store(self->map, 9, 90);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, page_out(page(self, 8), 4 * page_size()));
	ASSERT_EQ(90, load(self->map, 9));
	ASSERT_EPOCH(&self->t);
}

TEST_F_TIMEOUT(track, map_anew, TEST_SECONDS)
{
	size_t i;

	ASSERT_EQ(0, munmap(page(self, 20), 3 * page_size()));
	ASSERT_NE(NULL, map_at(page(self, 20), -1, 0, 3, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS));
	/* Over what is there */
	ASSERT_NE(NULL, map_at(page(self, 30), -1, 0, 2, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS));
	ASSERT_EPOCH(&self->t);
	/* Where a mapping is cut the kernel tells of the 2 MiB around. */
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(MMOPS_TRACK_CHANGED, self->t.kinds[20 + i]);
		ASSERT_EQ(MMOPS_TRACK_CHANGED, self->t.kinds[30 + i / 2]);
	}
	ASSERT_LE(track_reported(&self->t), PMD_PAGES);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, track_reported(&self->t));
}

/* Where nothing is mapped something may come; as long as that is so, it is told. */
TEST_F_TIMEOUT(track, hole, TEST_SECONDS)
{
	unsigned int round;

	ASSERT_EQ(0, munmap(page(self, 20), 3 * page_size()));
	for (round = 0; round < 3; round++) {
		ASSERT_EQ(0, track_begin(&self->t));
		ASSERT_EQ(round ? 3 : PMD_PAGES, self->t.begun.changed);
		ASSERT_EQ(MMOPS_TRACK_CHANGED, self->t.kinds[21]);
		ASSERT_EQ(0, track_end(&self->t, 0));
	}
	ASSERT_NE(NULL, map_at(page(self, 20), -1, 0, 3, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(3, self->t.begun.changed);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, track_reported(&self->t));
}

/* Pages of another mapping, clean ones among them, come to where nothing was. */
TEST_F_TIMEOUT(track, mremap, TEST_SECONDS)
{
	size_t nr = 16, i;
	char *other = mmap(NULL, nr * page_size(), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct tracker from;

	ASSERT_NE(other, MAP_FAILED);
	store_range(other, 0, nr, 4711);
	/* Another tracker has taken their dirty bits. */
	ASSERT_EQ(0, track_open(&from, other, nr));
	ASSERT_EPOCH(&from);
	ASSERT_NE(MAP_FAILED, mremap(other, nr * page_size(), nr * page_size(),
				     MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
				     page(self, 40)));
	ASSERT_EPOCH(&self->t);
	for (i = 0; i < nr; i++) {
		ASSERT_EQ(MMOPS_TRACK_CHANGED, self->t.kinds[40 + i]);
	}
	ASSERT_EPOCH(&from);
	ASSERT_EQ(nr, track_reported(&from));
	ASSERT_EPOCH(&from);
	ASSERT_EQ(0, track_reported(&from));
	track_close(&from);
	/* And within the range, to where nothing is mapped. */
	store(self->map, 40, 4040);
	ASSERT_EQ(0, munmap(page(self, 100), nr * page_size()));
	ASSERT_EQ(0, track_begin(&self->t));
	track_end(&self->t, MMOPS_TRACK_ABORT);
	ASSERT_NE(MAP_FAILED, mremap(page(self, 40), nr * page_size(), nr * page_size(),
				     MREMAP_MAYMOVE | MREMAP_FIXED, page(self, 100)));
	ASSERT_EQ(0, track_begin(&self->t));
	for (i = 0; i < nr; i++) {
		ASSERT_NE(0, self->t.kinds[40 + i]);
		ASSERT_NE(0, self->t.kinds[100 + i]);
	}
	ASSERT_EQ(0, track_end(&self->t, 0));
}

/* Mode full cannot know whether a permission that goes was used. */
TEST_F_TIMEOUT(track, mprotect, TEST_SECONDS)
{
	uint64_t others = variant->full ? PAGES - 1 : 0;

	store(self->map, 3, 30);
	ASSERT_EQ(0, mprotect(self->map, PAGES * page_size(), PROT_READ));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(1, self->t.begun.written);
	ASSERT_EQ(others, self->t.begun.changed);
	ASSERT_EQ(0, mprotect(self->map, PAGES * page_size(), PROT_READ | PROT_WRITE));
	store(self->map, 4, 40);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(1, self->t.begun.written);
	ASSERT_EQ(others, self->t.begun.changed);
	ASSERT_QUIET();
}

/* Protection below that of the mapping is told as any other change of entries. */
TEST_F_TIMEOUT(track, protect, TEST_SECONDS)
{
	size_t i;
	int dev;

	OPEN_DEV(dev, MMOPS_DEV);
	store(self->map, 3, 30);
	store(self->map, 5, 50);
	ASSERT_EQ(0, protect(dev, page(self, 4), 8 * page_size(), PROT_READ));
	ASSERT_EQ(0, track_begin(&self->t));
	track_copy(&self->t);
	ASSERT_EQ(2, self->t.begun.written);
	ASSERT_EQ(7, self->t.begun.changed);
	for (i = 3; i < 12; i++)
		ASSERT_EQ(i == 3 || i == 5 ? MMOPS_TRACK_WRITTEN : MMOPS_TRACK_CHANGED,
			  self->t.kinds[i]);
	ASSERT_EQ(0, track_end(&self->t, 0));
	ASSERT_EQ(0, track_missed(&self->t));
	/* The fault that gives the permission back tells nothing. */
	store(self->map, 6, 60);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(1, self->t.begun.written);
	ASSERT_EQ(0, self->t.begun.changed);
	close(dev);
}

/* The child stores to what is its own, and the parent to what it has to copy. */
TEST_F_TIMEOUT(track, fork, TEST_SECONDS)
{
	int done[2], status;
	char byte;
	pid_t pid;

	ASSERT_EQ(0, pipe(done));
	store(self->map, 11, 110);
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		close(done[1]);
		if (!variant->shared)
			store(self->map, 12, 999);
		_exit(read(done[0], &byte, 1) || load(self->map, 13) != 14);
	}
	close(done[0]);
	ASSERT_EPOCH(&self->t);
	store(self->map, 14, 140);
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, self->t.kinds[14]);
	ASSERT_EQ(1, track_reported(&self->t));
	close(done[1]);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	/* It is the parent's alone again, without a copy. */
	store(self->map, 15, 150);
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, self->t.kinds[15]);
	ASSERT_EQ(1, track_reported(&self->t));
}

TEST_F_TIMEOUT(track, collapse, TEST_SECONDS)
{
	int ret;

	write_file(THP_ENABLED, "madvise");
	ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_HUGEPAGE));
	store(self->map, 5, 55);
	ret = collapse_range(self->map, pmd_size());
	if (ret)
		SKIP(return, "MADV_COLLAPSE: %s", strerror(-ret));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(PMD_PAGES, track_reported(&self->t));
	ASSERT_QUIET();
	/* A store to a huge leaf is one to all of it. */
	store(self->map, 5, 56);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(PMD_PAGES, track_reported(&self->t));
	ASSERT_QUIET();
	/* And split again, by the kernel, after a store */
	store(self->map, 6, 66);
	ASSERT_EQ(0, mprotect(page(self, 100), page_size(), PROT_READ));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, mprotect(page(self, 100), page_size(), PROT_READ | PROT_WRITE));
	ASSERT_QUIET();
	store(self->map, 7, 77);
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, self->t.kinds[7]);
}

TEST_F_TIMEOUT(track, migration, TEST_SECONDS)
{
	store(self->map, 5, 55);
	if (madvise(page(self, 5), page_size(), MADV_SOFT_OFFLINE))
		SKIP(return, "MADV_SOFT_OFFLINE: %s", strerror(errno));
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, self->t.kinds[5]);
	store(self->map, 5, 56);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(1, track_reported(&self->t));
}

/*
 * The dirty bit is taken, and the page goes to swap: what was stored is there. It is
 * read in again with the place in swap kept, which would be taken for its contents.
 */
TEST_F_TIMEOUT(track, swap, TEST_SECONDS)
{
	struct swap_file swap;
	const char *why = add_swap(&swap);
	unsigned int round;
	size_t n = 0;

	if (why)
		SKIP(return, "%s", why);
	for (round = 0; round < 4; round++) {
		store_range(self->map, 0, 64, 1000 * round);
		n += swap_out(self->map, 64);
		ASSERT_EPOCH(&self->t);
		/* The copy has read them. */
		ASSERT_EQ(64, track_reported(&self->t));
		store_range(self->map, 0, 32, 2000 * round + 7);
		ASSERT_EPOCH(&self->t);
		n += swap_out(self->map, 64);
		ASSERT_EQ(0, track_missed(&self->t));
		ASSERT_EPOCH(&self->t);
	}
	/* Of shared memory the entries do not say. */
	ASSERT_TRUE(variant->shared || n);
	ASSERT_EQ(0, remove_swap(&swap));
	ASSERT_EPOCH(&self->t);
	store(self->map, 1, 1);
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, self->t.kinds[1]);
}

TEST_F_TIMEOUT(track, ksm, TEST_SECONDS)
{
	size_t i;

	if (variant->shared)
		SKIP(return, "KSM is for anonymous memory");
	for (i = 0; i < 32; i++)
		memset(page(self, i), 0x5a, page_size());
	ASSERT_EQ(0, madvise(self->map, 32 * page_size(), MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_merge(page(self, 31)));
	/* The stores were before the merge. */
	ASSERT_EPOCH(&self->t);
	for (i = 0; i < 32; i++) {
		ASSERT_NE(0, self->t.kinds[i]);
	}
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, track_reported(&self->t));
	store(self->map, 7, 77);
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, self->t.kinds[7]);
	ASSERT_EQ(1, track_reported(&self->t));
	ASSERT_EQ(0, madvise(self->map, 32 * page_size(), MADV_UNMERGEABLE));
	ASSERT_EPOCH(&self->t);
}

/* Pinned at the begin of an epoch: in this one, and in the next. */
TEST_F_TIMEOUT(track, pins, TEST_SECONDS)
{
	unsigned int round;
	int fd;

	OPEN_PINS(fd);
	ASSERT_EQ(0, pin(fd, page(self, 50), 2, false));
	for (round = 0; round < 3; round++) {
		ASSERT_EPOCH(&self->t);
		ASSERT_NE(0, self->t.kinds[50]);
		ASSERT_NE(0, self->t.kinds[51]);
		ASSERT_EQ(2, track_reported(&self->t));
	}
	ASSERT_EQ(0, unpin(fd));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(2, track_reported(&self->t));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, track_reported(&self->t));
	close(fd);
}

/* A page with neither a dirty bit nor an event at the place that it comes to. */
TEST_F_TIMEOUT(track, uffd_move, TEST_SECONDS)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MOVE };
	struct uffdio_register reg = {
		.range = { (uintptr_t)page(self, 60), page_size() },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_move move = {
		.dst = (uintptr_t)page(self, 60),
		.src = (uintptr_t)page(self, 61),
		.len = page_size(),
	};
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC);

	if (variant->shared)
		SKIP(return, "UFFDIO_MOVE is for anonymous memory");
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd with UFFDIO_MOVE: %s", strerror(errno));
	ASSERT_EQ(0, madvise(page(self, 60), page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, track_epoch(&self->t));
	/* The copy has read the page: there is none again. */
	ASSERT_EQ(0, madvise(page(self, 60), page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(0, track_end(&self->t, 0));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_MOVE, &move));
	ASSERT_EQ(62, load(self->map, 60));
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_NE(0, self->t.kinds[60]);
	ASSERT_NE(0, self->t.kinds[61]);
	ASSERT_EQ(0, track_end(&self->t, 0));
	close(uffd);
}

/*
 * Everything at once: two threads store, one does to the range what a process can do,
 * and the copies are what the memory is in the end.
 */
struct busy {
	char *map;
	bool shared, full;
	int seed;
	atomic_bool stop;
};

static void *store_all_the_time(void *arg)
{
	struct busy *busy = arg;
	struct rng rng = { .state = test_seed() + busy->seed };
	uint64_t value = 0;

	while (!atomic_load(&busy->stop)) {
		store(busy->map, rng_below(&rng, PAGES), ++value);
		/* Not through the entry */
		if (busy->full)
			store_remotely(busy->map, rng_below(&rng, PAGES), ++value);
	}
	return NULL;
}

static void *change_all_the_time(void *arg)
{
	struct busy *busy = arg;
	struct rng rng = { .state = test_seed() };
	struct mmops_zap zap = { .pidfd = -1 };
	size_t nr, bytes;
	char *at;
	pid_t pid;
	int dev = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);

	while (!atomic_load(&busy->stop)) {
		nr = 1 + rng_below(&rng, 40);
		at = busy->map + rng_below(&rng, PAGES - nr) * page_size();
		bytes = nr * page_size();
		switch (rng_below(&rng, 8)) {
		case 0:
			madvise(at, bytes, MADV_DONTNEED);
			break;
		case 1:
			madvise(at, bytes, MADV_PAGEOUT);
			break;
		case 2:
			madvise(at, bytes, MADV_FREE);
			break;
		case 3:
			madvise(busy->map, pmd_size(), MADV_HUGEPAGE);
			madvise(busy->map, pmd_size(), MADV_COLLAPSE);
			break;
		case 4:
			if (!busy->shared)
				map_at(at, -1, 0, nr, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS);
			break;
		case 5:
			pid = fork();
			if (!pid)
				_exit(0);
			waitpid(pid, NULL, 0);
			break;
		case 6:
			zap.addr = (uintptr_t)at;
			zap.len = bytes;
			ioctl(dev, MMOPS_IOC_ZAP, &zap);
			break;
		case 7:
			madvise(at, bytes, MADV_COLD);
			break;
		}
	}
	close(dev);
	return NULL;
}

TEST_F_TIMEOUT(track, everything, TEST_SECONDS)
{
	struct busy busy = {
		.map = self->map, .shared = variant->shared, .full = variant->full,
	};
	struct busy other = busy;
	struct swap_file swap;
	bool has_swap = !add_swap(&swap);
	struct tracker second;
	pthread_t threads[3];
	unsigned int round;

	busy.seed = 1;
	other.seed = 2;
	write_file(THP_ENABLED, "madvise");
	ASSERT_EQ(0, track_open(&second, self->map, PAGES));
	ASSERT_EQ(0, pthread_create(&threads[0], NULL, store_all_the_time, &busy));
	ASSERT_EQ(0, pthread_create(&threads[1], NULL, store_all_the_time, &other));
	ASSERT_EQ(0, pthread_create(&threads[2], NULL, change_all_the_time, &busy));
	for (round = 0; round < rounds(60); round++) {
		ASSERT_EQ(0, track_epoch(&self->t));
		ASSERT_EQ(0, track_begin(&second));
		if (rng_below(&self->rng, 3)) {
			track_copy(&second);
			ASSERT_EQ(0, track_end(&second, 0));
		} else {
			ASSERT_EQ(0, track_end(&second, MMOPS_TRACK_ABORT));
		}
	}
	atomic_store(&busy.stop, true);
	atomic_store(&other.stop, true);
	for (round = 0; round < 3; round++)
		pthread_join(threads[round], NULL);
	ASSERT_EPOCH(&self->t);
	ASSERT_EPOCH(&second);
	ASSERT_QUIET();
	track_close(&second);
	if (has_swap) {
		ASSERT_EQ(0, remove_swap(&swap));
	}
}

/*
 * Where huge leaves cross the ends of a range they stay dirty, or nobody would be told of the
 * rest: a tracker of both leaves is told of a store there, whatever the other one has done.
 */
static void stores_around_part(struct __test_metadata *_metadata, uint32_t mode)
{
	struct tracker part, whole;
	char *map;
	int dev;

	OPEN_DEV(dev, MMOPS_DEV);
	close(dev);
	map = map_thp(2);
	if (!map)
		SKIP(return, "no huge pages");
	track_mode = mode;
	ASSERT_EQ(0, track_open(&part, map + 100 * page_size(), PMD_PAGES));
	ASSERT_EQ(0, track_open(&whole, map, 2 * PMD_PAGES));
	ASSERT_EPOCH(&part);
	ASSERT_EPOCH(&whole);
	/* That of both leaves has left nothing in them. */
	ASSERT_EPOCH(&part);
	ASSERT_EPOCH(&part);
	ASSERT_EQ(0, track_reported(&part));
	ASSERT_EPOCH(&whole);
	ASSERT_EPOCH(&whole);
	ASSERT_EQ(0, track_reported(&whole));

	/* Before the part. It is told of what it has of the leaf. */
	store(map, 5, 50);
	ASSERT_EPOCH(&part);
	ASSERT_NE(0, part.kinds[0]);
	ASSERT_EPOCH(&whole);
	ASSERT_NE(0, whole.kinds[5]);
	/* In it. */
	store(map, 205, 60);
	ASSERT_EPOCH(&part);
	ASSERT_NE(0, part.kinds[105]);
	ASSERT_EPOCH(&whole);
	ASSERT_NE(0, whole.kinds[205]);
	/* Behind it. */
	store(map, PMD_PAGES + 300, 70);
	ASSERT_EPOCH(&part);
	ASSERT_NE(0, part.kinds[PMD_PAGES - 1]);
	ASSERT_EPOCH(&whole);
	ASSERT_NE(0, whole.kinds[PMD_PAGES + 300]);
	ASSERT_EQ((long)(2 * pmd_size() / 1024), smaps_kb(map, "AnonHugePages"));
	track_close(&part);
	track_close(&whole);
}

TEST(huge_leaf_in_part)
{
	stores_around_part(_metadata, MMOPS_TRACK_FAST);
}

TEST(huge_leaf_in_part_full)
{
	stores_around_part(_metadata, MMOPS_TRACK_FULL);
}

/* A process that ends, by exec and by exit, and the caller's own end. */
static pid_t child_with_memory(char *map, int *go)
{
	int pipes[2];
	pid_t pid;
	char byte;

	if (pipe(pipes))
		return -1;
	pid = fork();
	if (!pid) {
		close(pipes[1]);
		store(map, 1, 11);
		if (read(pipes[0], &byte, 1) == 1 && byte == 'x')
			execl("/bin/sleep", "sleep", "1000", NULL);
		_exit(0);
	}
	close(pipes[0]);
	*go = pipes[1];
	return pid;
}

/* The events that have come, after so many milliseconds at the most. */
static int poll_hup(int dev, int timeout)
{
	struct pollfd pollfd = { .fd = dev };

	return poll(&pollfd, 1, timeout) < 0 ? -errno : pollfd.revents;
}

TEST(end_of_process)
{
	char *map = mmap(NULL, 16 * page_size(), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct epoll_event event = {};
	struct tracker t;
	int dev, go, pidfd, epoll, i;
	pid_t pid;

	OPEN_DEV(dev, MMOPS_DEV);
	ASSERT_EQ(POLLERR, poll_hup(dev, -1));
	close(dev);
	ASSERT_NE(map, MAP_FAILED);
	for (i = 0; i < 2; i++) {
		pid = child_with_memory(map, &go);
		ASSERT_GT(pid, 0);
		pidfd = syscall(__NR_pidfd_open, pid, 0);
		ASSERT_GE(pidfd, 0);
		ASSERT_EQ(0, track_open_of(&t, pidfd, map, 16));
		ASSERT_EQ(0, track_begin(&t));
		ASSERT_EQ(0, t.begun.state);
		ASSERT_EQ(16, track_reported(&t));
		ASSERT_EQ(0, track_end(&t, 0));
		/* Who waits for the end, from before it on, is woken up by it. */
		ASSERT_EQ(0, poll_hup(t.dev, 0));
		epoll = epoll_create1(EPOLL_CLOEXEC);
		ASSERT_EQ(0, epoll_ctl(epoll, EPOLL_CTL_ADD, t.dev, &event));
		if (i) {
			ASSERT_EQ(1, write(go, "x", 1));
		}
		close(go);
		ASSERT_EQ(1, epoll_wait(epoll, &event, 1, -1));
		ASSERT_EQ(EPOLLHUP, event.events);
		ASSERT_EQ(POLLHUP, poll_hup(t.dev, -1));
		if (!i) {
			ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		}
		ASSERT_EQ(0, track_begin(&t));
		ASSERT_EQ(0, track_end(&t, 0));
		ASSERT_EQ(MMOPS_TRACK_ENDED, t.begun.state);
		ASSERT_EQ(16, t.begun.changed);
		ASSERT_EQ(0, track_begin(&t));
		ASSERT_EQ(16, t.begun.changed);
		ASSERT_EQ(MMOPS_TRACK_CHANGED, t.kinds[15]);
		track_close(&t);
		if (i) {
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
		}
		close(epoll);
		close(pidfd);
	}
}

/* More than is told apart: all of it, in one record. */
TEST(overflow)
{
	struct mmops_track_range ranges[2];
	struct mmops_track_read arg = { .vec = (uintptr_t)ranges, .vec_len = 2 };
	struct mmops_track_read behind = arg;
	struct mmops_track_open open_arg = {
		.pidfd = -1, .flags = MMOPS_TRACK_FAST, .addr = 1UL << 40,
		.len = ((1UL << 24) + 1) * page_size(),
	};
	struct mmops_track_begin begin = {};
	struct mmops_track_end end = {};
	int dev, i;

	OPEN_DEV(dev, MMOPS_DEV);
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_OPEN, &open_arg));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_BEGIN, &begin));
		ASSERT_EQ(MMOPS_TRACK_OVERFLOW, begin.state);
		ASSERT_EQ((1UL << 24) + 1, begin.changed);
		arg.addr = 0;
		ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_READ, &arg));
		ASSERT_EQ(1, arg.nr);
		ASSERT_EQ(1, arg.needed);
		ASSERT_EQ(open_arg.addr, ranges[0].addr);
		ASSERT_EQ(open_arg.len, ranges[0].len);
		ASSERT_EQ(MMOPS_TRACK_CHANGED, ranges[0].kind);
		/* Behind it, and at the end of all addresses, there is nothing. */
		ASSERT_EQ(open_arg.addr + open_arg.len, arg.addr);
		ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_READ, &arg));
		ASSERT_EQ(0, arg.nr + arg.needed);
		behind.addr = ~0ULL;
		ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_READ, &behind));
		ASSERT_EQ(0, behind.nr + behind.needed);
		ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_END, &end));
	}
	close(dev);
}

/* The last page that a range can have, which no process can map. */
TEST(last_page)
{
	struct tracker t;
	int dev, i;

	OPEN_DEV(dev, MMOPS_DEV);
	close(dev);
	ASSERT_EQ(0, track_open(&t, (char *)(-2 * page_size()), 1));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, track_begin(&t));
		ASSERT_EQ(MMOPS_TRACK_CHANGED, t.kinds[0]);
		ASSERT_EQ(0, track_end(&t, 0));
	}
	track_close(&t);
}

/* Who serves the array that records go to, and ends the epoch before. */
struct server {
	int uffd, dev;
	bool begins;	/* another one */
	int error;
};

static void *end_and_serve(void *arg)
{
	struct server *server = arg;
	struct mmops_track_begin begin = {};
	struct mmops_track_end end = {};
	struct uffdio_zeropage zero = {};
	struct uffd_msg msg = {};

	if (read(server->uffd, &msg, sizeof(msg)) != sizeof(msg) ||
	    msg.event != UFFD_EVENT_PAGEFAULT)
		server->error = EPROTO;
	else if (ioctl(server->dev, MMOPS_IOC_TRACK_END, &end) ||
		 (server->begins && ioctl(server->dev, MMOPS_IOC_TRACK_BEGIN, &begin)))
		server->error = errno;
	zero.range.start = msg.arg.pagefault.address & -page_size();
	zero.range.len = page_size();
	if (ioctl(server->uffd, UFFDIO_ZEROPAGE, &zero) && !server->error)
		server->error = errno;
	return NULL;
}

/*
 * Another thread ends the epoch, and begins another one or not, while records are copied.
 * The call looks again when it has copied 64 of them: the rest is not those of the epoch.
 */
TEST(epoch_ends_while_it_is_read)
{
	enum { NR = 256, COPIED = 64 };
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct server server = { .uffd = syscall(__NR_userfaultfd, O_CLOEXEC) };
	struct mmops_track_range *vec;
	struct tracker t;
	pthread_t thread;
	size_t p = page_size(), i;
	char *map;
	int dev;

	OPEN_DEV(dev, MMOPS_DEV);
	close(dev);
	if (server.uffd < 0 || ioctl(server.uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd: %s", strerror(errno));
	map = mmap(NULL, NR * p, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, madvise(map, NR * p, MADV_NOHUGEPAGE));
	store_range(map, 0, NR, 1);
	vec = mmap(NULL, p, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)vec);
	reg.range.start = (uintptr_t)vec;
	reg.range.len = p;
	ASSERT_EQ(0, ioctl(server.uffd, UFFDIO_REGISTER, &reg));
	ASSERT_EQ(0, track_open(&t, map, NR));
	ASSERT_EPOCH(&t);
	server.dev = t.dev;
	for (server.begins = true;; server.begins = false) {
		struct mmops_track_read arg = {
			.vec = (uintptr_t)vec, .vec_len = NR / 2, .nr = ~0ULL, .needed = ~0ULL,
		};

		/* A record for each second page. */
		for (i = 0; i < NR; i += 2)
			store(map, i, 100 + i);
		ASSERT_EQ(0, track_begin(&t));
		ASSERT_EQ(NR / 2, t.begun.written);
		ASSERT_EQ(0, t.begun.changed);
		ASSERT_EQ(0, pthread_create(&thread, NULL, end_and_serve, &server));
		ASSERT_EQ(-1, ioctl(t.dev, MMOPS_IOC_TRACK_READ, &arg));
		ASSERT_EQ(server.begins ? ESTALE : ENOENT, errno);
		ASSERT_EQ(0, pthread_join(thread, NULL));
		ASSERT_EQ(0, server.error);
		ASSERT_EQ(COPIED, arg.nr);
		ASSERT_EQ(0, arg.needed);
		for (i = 0; i < COPIED; i++) {
			ASSERT_EQ((uintptr_t)map + 2 * i * p, vec[i].addr);
			ASSERT_EQ(p, vec[i].len);
			ASSERT_EQ(MMOPS_TRACK_WRITTEN, vec[i].kind);
		}
		ASSERT_EQ(0, vec[COPIED].len);
		/* Behind those, and not behind the begin of the next one. */
		ASSERT_LE(vec[COPIED - 1].addr + p, arg.addr);
		ASSERT_LE(arg.addr, (uintptr_t)map + 2 * COPIED * p);
		ASSERT_EQ(server.begins ? 0 : -ENOENT, track_end(&t, 0));
		if (!server.begins)
			break;
		ASSERT_EQ(0, madvise(vec, p, MADV_DONTNEED));
	}
	track_close(&t);
	close(server.uffd);
}

#define ASSERT_ERROR(error, dev, call, arg) do {				\
	ASSERT_EQ(-1, ioctl(dev, call, arg));					\
	ASSERT_EQ(error, errno);						\
} while (0)

TEST(bad_input)
{
	char *map = mmap(NULL, 16 * page_size(), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const struct mmops_track_open good = {
		.pidfd = -1, .flags = MMOPS_TRACK_FAST, .addr = (uintptr_t)map,
		.len = 16 * page_size(),
	};
	struct mmops_track_open arg = good;
	struct mmops_track_begin begin = {};
	struct mmops_track_read reading = { .vec_len = 1 };
	struct mmops_track_end end = {};
	int dev;

	ASSERT_NE(map, MAP_FAILED);
	OPEN_DEV(dev, MMOPS_DEV);
	ASSERT_ERROR(ENODEV, dev, MMOPS_IOC_TRACK_BEGIN, &begin);
	ASSERT_ERROR(ENODEV, dev, MMOPS_IOC_TRACK_READ, &reading);
	ASSERT_ERROR(ENODEV, dev, MMOPS_IOC_TRACK_END, &end);
	arg.flags = 0;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg.flags = MMOPS_TRACK_FAST | MMOPS_TRACK_FULL;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg.flags = 4;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg = good;
	arg.reserved[1] = 1;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg = good;
	arg.len = 0;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg.len = page_size() + 1;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg.len = -page_size();
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg = good;
	arg.pidfd = dev;
	ASSERT_ERROR(EBADF, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg.pidfd = -2;
	ASSERT_ERROR(EBADF, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	arg = good;
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_OPEN, &arg));
	ASSERT_ERROR(EBUSY, dev, MMOPS_IOC_TRACK_OPEN, &arg);
	ASSERT_ERROR(ENOENT, dev, MMOPS_IOC_TRACK_READ, &reading);
	ASSERT_ERROR(ENOENT, dev, MMOPS_IOC_TRACK_END, &end);
	begin.flags = 1;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_BEGIN, &begin);
	begin.flags = 0;
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_BEGIN, &begin));
	ASSERT_ERROR(EBUSY, dev, MMOPS_IOC_TRACK_BEGIN, &begin);
	/* No array, and one that wraps */
	ASSERT_ERROR(EFAULT, dev, MMOPS_IOC_TRACK_READ, &reading);
	reading.vec_len = ~0ULL / 8;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_READ, &reading);
	reading = (struct mmops_track_read){ .addr = ~0ULL };
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_READ, &reading));
	ASSERT_EQ(0, reading.needed);
	end.flags = 2;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_END, &end);
	end.flags = 0;
	end.pad = 1;
	ASSERT_ERROR(EINVAL, dev, MMOPS_IOC_TRACK_END, &end);
	end.pad = 0;
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_END, &end));
	close(dev);
}

TEST_HARNESS_MAIN
