// SPDX-License-Identifier: GPL-2.0
/*
 * Trackers, with a change at the one moment at which it could be missed, and the
 * negative controls: each rule of Documentation/track.rst left out. A test does the
 * same with the rule and without; without it, a page has to be missed.
 *
 * What is tracked is a shared mapping of a memfd: what was stored to it is there when
 * its entry is gone.
 */
#include <sys/syscall.h>

#include <linux/userfaultfd.h>

#include "faults.h"
#include "kselftest_harness.h"
#include "swap.h"
#include "track.h"
#include "tracer.h"

#define PAGES		16UL
#define ROUNDS		200

/* An epoch at the end: what is missed is missed for good. */
#define END_RULE(missed)							\
do {										\
	ASSERT_EQ(0, track_epoch(&self->t));					\
	END_FAULTS();								\
	ASSERT_EQ(variant->left_out ? (missed) : 0, track_missed(&self->t));	\
} while (0)

/* A shared mapping of a memfd, tracked in this mode, with nothing to report. */
static void track_memfd(struct __test_metadata *_metadata, struct tracker *t, char **map, int *fd,
			uint32_t mode)
{
	*fd = new_memfd(PAGES);
	ASSERT_GE(*fd, 0);
	*map = map_shared(*fd, 0, PAGES);
	ASSERT_NE(*map, NULL);
	store_range(*map, 0, PAGES, 1);
	track_mode = mode;
	ASSERT_EQ(0, track_open(t, *map, PAGES));
	ASSERT_EPOCH(t);
	ASSERT_EPOCH(t);
	ASSERT_EQ(0, track_reported(t));
}

/* Rules of mode full; those of both modes follow, in mode fast. */
FIXTURE(full)
{
	struct tracker t;
	char *map;
	int fd;
};

FIXTURE_VARIANT(full)
{
	bool left_out;
};

FIXTURE_VARIANT_ADD(full, kept) {
};

FIXTURE_VARIANT_ADD(full, left_out) {
	.left_out = true,
};

FIXTURE_SETUP(full)
{
	int dev;

	OPEN_DEV(dev, MMOPS_DEV);
	close(dev);
	track_memfd(_metadata, &self->t, &self->map, &self->fd, MMOPS_TRACK_FULL);
}

FIXTURE_TEARDOWN(full)
{
	track_close(&self->t);
	close(self->fd);
}

FIXTURE_FAULTS(full);

FIXTURE(rule)
{
	struct tracker t;
	char *map;
	int fd;
	atomic_bool go, over;
	atomic_int ret;
	/* For the writer */
	_Atomic uint64_t wanted, stored;
	atomic_bool stop;
};

FIXTURE_VARIANT(rule)
{
	bool left_out;
};

FIXTURE_VARIANT_ADD(rule, kept) {
};

FIXTURE_VARIANT_ADD(rule, left_out) {
	.left_out = true,
};

FIXTURE_SETUP(rule)
{
	int dev;

	OPEN_DEV(dev, MMOPS_DEV);
	close(dev);
	track_memfd(_metadata, &self->t, &self->map, &self->fd, MMOPS_TRACK_FAST);
}

FIXTURE_TEARDOWN(rule)
{
	track_close(&self->t);
	close(self->fd);
}

FIXTURE_FAULTS(rule);

/* What a harvest holds on to is no matter to the process. */
FIXTURE(held)
{
	struct tracker t;
	atomic_int ret;
};

FIXTURE_SETUP(held)
{
	int dev;

	OPEN_DEV(dev, MMOPS_DEV);
	close(dev);
	track_mode = MMOPS_TRACK_FAST;
}

FIXTURE_TEARDOWN(held)
{
	if (self->t.map)
		track_close(&self->t);
}

FIXTURE_FAULTS(held);

static void *held_epoch(void *arg)
{
	FIXTURE_DATA(held) *self = arg;

	atomic_store(&self->ret, track_epoch(&self->t));
	return NULL;
}

/* A page whose dirty bit was taken, and which is not marked dirty yet, can be moved. */
TEST_FAULTS(held, uffd_move)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MOVE };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_move move = { .len = page_size() };
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC);
	pthread_t thread;
	bool met;
	char *map;
	int ret;

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd with UFFDIO_MOVE: %s", strerror(errno));
	map = mmap(NULL, PAGES * page_size(), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, madvise(map, PAGES * page_size(), MADV_NOHUGEPAGE));
	store_range(map, 0, 8, 1);
	move.src = (uintptr_t)(map + 3 * page_size());
	move.dst = (uintptr_t)(map + 12 * page_size());
	reg.range.start = move.dst;
	reg.range.len = page_size();
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	ASSERT_EQ(0, track_open(&self->t, map, 8));
	ASSERT_EQ(0, close_gate(BEFORE_FLUSH, 1));
	ASSERT_EQ(0, pthread_create(&thread, NULL, held_epoch, self));
	met = wait_at_gate(BEFORE_FLUSH, 1, NULL);
	ret = ioctl(uffd, UFFDIO_MOVE, &move) ? -errno : 0;
	open_gate(BEFORE_FLUSH);
	pthread_join(thread, NULL);
	END_FAULTS();
	ASSERT_TRUE(met);
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, atomic_load(&self->ret));
	ASSERT_EQ(4, load(map, 12));
	close(uffd);
}

static char *page(FIXTURE_DATA(rule) *self, size_t n)
{
	return self->map + n * page_size();
}

/* The entry goes, and its dirty bit with it. */
TEST_FAULTS(rule, mark)
{
	ASSERT_EQ(0, set_fault(TRACK_SKIP_MARK, variant->left_out));
	store_range(self->map, 3, 2, 1000);
	ASSERT_EQ(0, madvise(page(self, 3), 2 * page_size(), MADV_DONTNEED));
	END_RULE(2);
}

static void *dontneed(void *arg)
{
	FIXTURE_DATA(rule) *self = arg;

	while (!atomic_load(&self->go))
		;
	atomic_store(&self->ret, madvise(page(self, 3), page_size(), MADV_DONTNEED));
	atomic_store(&self->over, true);
	return NULL;
}

/* Have a thread come to where its invalidation has begun, and wait there. */
static bool begin_dontneed(FIXTURE_DATA(rule) *self, pthread_t *thread)
{
	/* Before the gate is closed: a thread that is made gets a stack with a guard page. */
	if (pthread_create(thread, NULL, dontneed, self) || close_gate(INVALIDATION_BEGUN, 1))
		return false;
	atomic_store(&self->go, true);
	return wait_at_gate(INVALIDATION_BEGUN, 1, &self->over);
}

/*
 * An invalidation has begun, and has not changed the entry yet. An epoch begins and
 * ends meanwhile, and then the page is stored to.
 */
TEST_FAULTS(rule, in_flight)
{
	pthread_t thread;

	ASSERT_EQ(0, set_fault(TRACK_SKIP_IN_FLIGHT, variant->left_out));
	ASSERT_TRUE(begin_dontneed(self, &thread));
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, self->t.kinds[3]);
	store(self->map, 3, 1003);
	ASSERT_EQ(0, open_gate(INVALIDATION_BEGUN));
	pthread_join(thread, NULL);
	ASSERT_EQ(0, self->ret);
	END_RULE(1);
}

/* As above, over two epochs: the second takes the mark that the first has left. */
TEST_FAULTS(rule, in_flight_for_long)
{
	pthread_t thread;

	ASSERT_EQ(0, set_fault(TRACK_SKIP_IN_FLIGHT, variant->left_out));
	ASSERT_TRUE(begin_dontneed(self, &thread));
	ASSERT_EPOCH(&self->t);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(!variant->left_out, !!self->t.kinds[3]);
	store(self->map, 3, 1003);
	ASSERT_EQ(0, open_gate(INVALIDATION_BEGUN));
	pthread_join(thread, NULL);
	END_RULE(1);
}

static void *begin(void *arg)
{
	FIXTURE_DATA(rule) *self = arg;

	atomic_store(&self->ret, track_begin(&self->t));
	atomic_store(&self->over, true);
	return NULL;
}

/* The entry goes when the marks were taken, and before the walk has come to it. */
TEST_FAULTS(rule, late)
{
	pthread_t thread;

	ASSERT_EQ(0, set_fault(TRACK_SKIP_LATE, variant->left_out));
	ASSERT_EQ(0, close_gate(TRACK_MARKS_TAKEN, 1));
	store(self->map, 3, 1003);
	ASSERT_EQ(0, pthread_create(&thread, NULL, begin, self));
	ASSERT_TRUE(wait_at_gate(TRACK_MARKS_TAKEN, 1, &self->over));
	ASSERT_EQ(0, madvise(page(self, 3), page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, open_gate(TRACK_MARKS_TAKEN));
	pthread_join(thread, NULL);
	ASSERT_EQ(0, self->ret);
	/* It was stored to before the epoch began, so it belongs to this one. */
	ASSERT_EQ(!variant->left_out, !!self->t.kinds[3]);
	track_copy(&self->t);
	ASSERT_EQ(variant->left_out, track_missed(&self->t));
	ASSERT_EQ(0, track_end(&self->t, 0));
	END_FAULTS();
}

/* Another tracker takes the dirty bit. */
TEST_FAULTS(rule, others)
{
	struct tracker other;

	ASSERT_EQ(0, track_open(&other, self->map, PAGES));
	ASSERT_EPOCH(&other);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, set_fault(TRACK_SKIP_OTHERS, variant->left_out));
	store(self->map, 3, 1003);
	ASSERT_EPOCH(&other);
	END_RULE(1);
	track_close(&other);
}

/* Stores what it is told to, with its TLB as warm as it can be. */
static void *writer(void *arg)
{
	FIXTURE_DATA(rule) *self = arg;
	uint64_t wanted, last = 0;

	pin_to_cpu(1);
	while (!atomic_load(&self->stop)) {
		wanted = atomic_load(&self->wanted);
		if (wanted != last) {
			store(self->map, 3, wanted);
			last = wanted;
			atomic_store(&self->stored, last);
		}
	}
	return NULL;
}

static void write_on_other_cpu(FIXTURE_DATA(rule) *self, uint64_t value)
{
	atomic_store(&self->wanted, value);
	while (atomic_load(&self->stored) != value)
		;
}

/*
 * A CPU stores through a translation that it knows as dirty. Whoever interrupts that
 * CPU may have its TLB flushed, so it takes some rounds.
 */
TEST_FAULTS(rule, flush)
{
	unsigned int round, missed = 0;
	uint64_t value = 1000;
	pthread_t thread;

	if (nr_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	pin_to_cpu(0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, writer, self));
	ASSERT_EQ(0, set_fault(SKIP_FLUSH, variant->left_out));
	for (round = 0; round < ROUNDS && !missed; round++) {
		write_on_other_cpu(self, ++value);
		ASSERT_EQ(0, track_epoch(&self->t));
		write_on_other_cpu(self, ++value);
		ASSERT_EQ(0, track_epoch(&self->t));
		missed = track_missed(&self->t);
	}
	atomic_store(&self->stop, true);
	pthread_join(thread, NULL);
	END_FAULTS();
	ASSERT_EQ(variant->left_out, missed);
}

/*
 * A page of anonymous memory is read in from swap, and its place there is kept. It is
 * stored to, the dirty bit is taken, and it goes to swap again.
 */
TEST_FAULTS(rule, transfer)
{
	char *map = mmap(NULL, PAGES * page_size(), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct swap_file swap;
	const char *why = add_swap(&swap);
	struct tracker t;

	if (why)
		SKIP(return, "%s", why);
	ASSERT_NE(map, MAP_FAILED);
	ASSERT_EQ(0, madvise(map, PAGES * page_size(), MADV_NOHUGEPAGE));
	store_range(map, 0, PAGES, 1000);
	ASSERT_EQ(0, track_open(&t, map, PAGES));
	ASSERT_EQ(PAGES, swap_out(map, PAGES));
	/* What is stored while the page is being written can get there all the same. */
	ASSERT_TRUE(wait_for_swap_writes());
	ASSERT_EPOCH(&t);
	ASSERT_EPOCH(&t);
	ASSERT_EQ(0, track_reported(&t));
	store_range(map, 0, PAGES, 2000);
	ASSERT_EQ(0, set_fault(TRACK_SKIP_TRANSFER, variant->left_out));
	ASSERT_EPOCH(&t);
	ASSERT_EQ(PAGES, t.begun.written);
	ASSERT_EQ(PAGES, swap_out(map, PAGES));
	ASSERT_EQ(variant->left_out ? PAGES : 0, track_missed(&t));
	END_FAULTS();
	track_close(&t);
	munmap(map, PAGES * page_size());
	ASSERT_EQ(0, remove_swap(&swap));
}

/* A file on a disk is written back: the kernel takes the dirty bit, and tells. */
TEST_FAULTS(rule, writeback)
{
	const char *disk = getenv("MMOPS_DISK");
	struct tracker t;
	char *map;
	int fd;

	if (!disk)
		SKIP(return, "no MMOPS_DISK, a directory on a disk file system");
	fd = open(disk, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, PAGES * page_size()));
	map = map_shared(fd, 0, PAGES);
	ASSERT_NE(map, NULL);
	store_range(map, 0, PAGES, 1);
	ASSERT_EQ(0, fsync(fd));
	ASSERT_EQ(0, track_open(&t, map, PAGES));
	ASSERT_EPOCH(&t);
	ASSERT_EPOCH(&t);
	ASSERT_EQ(0, set_fault(TRACK_SKIP_MARK, variant->left_out));
	store_range(map, 3, 2, 1000);
	ASSERT_EQ(0, fsync(fd));
	ASSERT_EQ(0, track_epoch(&t));
	END_FAULTS();
	ASSERT_EQ(variant->left_out ? 2 : 0, track_missed(&t));
	track_close(&t);
	munmap(map, PAGES * page_size());
	close(fd);
}

/* The epoch that has a hole ends, and only then something is mapped there, which is not used. */
TEST_FAULTS(rule, hole)
{
	char *map = mmap(NULL, PAGES * page_size(), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct tracker t;

	ASSERT_NE(map, MAP_FAILED);
	store_range(map, 0, PAGES, 1000);
	ASSERT_EQ(0, track_open(&t, map, PAGES));
	ASSERT_EPOCH(&t);
	ASSERT_EQ(0, set_fault(TRACK_SKIP_HOLE, variant->left_out));
	ASSERT_EQ(0, munmap(map + 3 * page_size(), page_size()));
	/* Nobody could copy it. */
	ASSERT_EQ(0, track_begin(&t));
	ASSERT_NE(0, t.kinds[3]);
	ASSERT_EQ(0, track_end(&t, 0));
	ASSERT_NE(NULL, map_at(map + 3 * page_size(), -1, 0, 1, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS));
	ASSERT_EQ(0, track_epoch(&t));
	END_FAULTS();
	ASSERT_EQ(variant->left_out, track_missed(&t));
	track_close(&t);
	munmap(map, PAGES * page_size());
}

/* An epoch that could not be used. */
TEST_FAULTS(rule, abort)
{
	ASSERT_EQ(0, set_fault(TRACK_SKIP_ABORT, variant->left_out));
	store(self->map, 3, 1003);
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(1, track_reported(&self->t));
	ASSERT_EQ(0, track_end(&self->t, MMOPS_TRACK_ABORT));
	END_RULE(1);
}

/* A page comes to where nothing was, by a move that is told at its old place alone. */
TEST_FAULTS(rule, new_page)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MOVE };
	char *map = mmap(NULL, PAGES * page_size(), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register reg = {
		.range = { (uintptr_t)map + 3 * page_size(), page_size() },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_move move = {
		.dst = (uintptr_t)map + 3 * page_size(),
		.src = (uintptr_t)map + 4 * page_size(),
		.len = page_size(),
	};
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC);
	struct tracker t;

	ASSERT_NE(map, MAP_FAILED);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd with UFFDIO_MOVE: %s", strerror(errno));
	ASSERT_EQ(0, madvise(map, PAGES * page_size(), MADV_NOHUGEPAGE));
	store(map, 4, 104);
	ASSERT_EQ(0, track_open(&t, map, PAGES));
	ASSERT_EQ(0, set_fault(TRACK_SKIP_NEW, variant->left_out));
	/* Without reading page 3, which would make it another one; page 4 is clean now. */
	ASSERT_EQ(0, track_begin(&t));
	ASSERT_EQ(0, track_end(&t, 0));
	ASSERT_EQ(0, track_begin(&t));
	ASSERT_EQ(0, track_reported(&t));
	ASSERT_EQ(0, track_end(&t, 0));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_MOVE, &move));
	ASSERT_EQ(104, load(map, 3));
	ASSERT_EQ(0, track_begin(&t));
	ASSERT_NE(0, t.kinds[4]);
	ASSERT_EQ(!variant->left_out, !!t.kinds[3]);
	END_FAULTS();
	track_close(&t);
	close(uffd);
}

/* What may be stored to without a fault may be stored to without a dirty bit. */
TEST_FAULTS(full, wrprotect)
{
	ASSERT_EQ(0, set_fault(TRACK_SKIP_WRPROTECT, variant->left_out));
	store(self->map, 3, 1000);
	ASSERT_EPOCH(&self->t);
	ASSERT_TRUE(store_remotely(self->map, 3, 2000));
	END_RULE(1);
}

/*
 * A page that is not mapped when an epoch begins, and is then mapped writable by a read:
 * its folio is clean, so the entry is. It is stored to past the entry.
 */
static void store_to_clean(struct __test_metadata *_metadata, FIXTURE_DATA(full) *self)
{
	ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       3 * page_size(), page_size()));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, madvise(self->map + 3 * page_size(), page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_NE(0, self->t.kinds[3]);
	ASSERT_EQ(0, track_end(&self->t, 0));
	ASSERT_EQ(0, load(self->map, 3));
	ASSERT_TRUE(store_remotely(self->map, 3, 2000));
}

TEST_FAULTS(full, writable)
{
	ASSERT_EQ(0, set_fault(TRACK_SKIP_WRITABLE, variant->left_out));
	store_to_clean(_metadata, self);
	END_RULE(1);
}

/* The permission goes before the epoch begins, and with it all that tells of the store. */
TEST_FAULTS(full, lowered)
{
	ASSERT_EQ(0, set_fault(TRACK_SKIP_LOWERED, variant->left_out));
	store_to_clean(_metadata, self);
	ASSERT_EQ(0, mprotect(self->map, PAGES * page_size(), PROT_READ));
	END_RULE(1);
}

/* A debugger stores to private memory that its owner may not store to. */
TEST_FAULTS(full, forced)
{
	struct tracer tracer = {};
	struct tracker t;
	char *map;

	ASSERT_EQ(0, start_tracer(&tracer));
	map = mmap(NULL, 2 * page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		   -1, 0);
	ASSERT_NE(MAP_FAILED, map);
	store_range(map, 0, 2, 1);
	ASSERT_EQ(0, mprotect(map, 2 * page_size(), PROT_READ));
	ASSERT_EQ(0, set_fault(TRACK_SKIP_FORCED, variant->left_out));
	ASSERT_EQ(0, track_open(&t, map, 2));
	ASSERT_EPOCH(&t);
	ASSERT_EPOCH(&t);
	ASSERT_EQ(0, trace_store(&tracer, map, 2000));
	ASSERT_EQ(0, track_epoch(&t));
	END_FAULTS();
	ASSERT_EQ(variant->left_out, track_missed(&t));
	track_close(&t);
	end_tracer(&tracer);
}

TEST_HARNESS_MAIN
