// SPDX-License-Identifier: GPL-2.0
/*
 * A fatal signal in the middle of a long range: the process dies soon, and
 * what its call did is complete and reported.
 *
 * The argument and the bitmap lie in memory that the parent shares, so it can
 * read how far the call of a killed child got.
 *
 * And a fatal signal for the process that is called upon, by another one.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "exclusive.h"
#include "faults.h"
#include "flushes.h"
#include "leaves.h"
#include "kselftest_harness.h"

#define PAGES	8192UL
/* Mappings of the whole file, so that a call takes long with little memory. */
#define COPIES	8
#define BYTES	(COPIES * PAGES * page_size())
#define TRIES	40

/* Pages that EXCLUSIVE takes at a time. */
#define STEP	512UL
#define STEPS	4

enum op {
	CLEAN_RECORD, WRITE_PROTECT, ZAP, SOFT_DIRTY_CLEAR, AGE, PROTECT, TRACK_BEGIN, EXCLUSIVE,
};

struct shared {
	volatile bool calling;
	volatile int error;	/* errno of a call that failed; 0 if it returned nothing */
	volatile bool returned;
	struct mmops_clean_record clean;
	struct mmops_write_protect protect;
	struct mmops_zap zap;
	struct mmops_soft_dirty_clear soft_dirty;
	struct mmops_age age;
	struct mmops_protect protect_leaves;
	struct mmops_track_begin track;
	struct mmops_exclusive exclusive;
	uint64_t bitmap[PAGES / BITS_PER_WORD];
	uint8_t results[STEPS * STEP];
};

FIXTURE(fatal)
{
	int dev, fd, pidfd;
	char *maps[COPIES];	/* one behind the other */
	struct shared *s;
	uint64_t call_ns;
};

FIXTURE_SETUP(fatal)
{
	char *base = reserve(COPIES * PAGES, 0);
	int i;

	OPEN_DEV(self->dev, MMOPS_DEV);
	self->fd = new_memfd(PAGES);
	ASSERT_GE(self->fd, 0);
	self->pidfd = syscall(__NR_pidfd_open, getpid(), 0);
	ASSERT_GE(self->pidfd, 0);
	ASSERT_NE(base, NULL);
	for (i = 0; i < COPIES; i++) {
		self->maps[i] = map_at(base + i * PAGES * page_size(), self->fd, 0, PAGES,
				       PROT_READ | PROT_WRITE, MAP_SHARED);
		ASSERT_NE(self->maps[i], NULL);
	}
	self->s = mmap(NULL, sizeof(*self->s), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(self->s, MAP_FAILED);
}

FIXTURE_TEARDOWN(fatal)
{
}

FIXTURE_FAULTS(fatal);

static void dirty_all(FIXTURE_DATA(fatal) *self)
{
	int i;

	for (i = 0; i < COPIES; i++)
		store_range(self->maps[i], 0, PAGES, 1);
}

/* In the child: one call, whose argument and result the parent sees. */
static void call(FIXTURE_DATA(fatal) *self, enum op op)
{
	struct shared *s = self->s;
	int ret = -1;

	s->calling = true;
	switch (op) {
	case CLEAN_RECORD:
		ret = ioctl(self->dev, MMOPS_IOC_CLEAN_RECORD, &s->clean);
		break;
	case WRITE_PROTECT:
		ret = ioctl(self->dev, MMOPS_IOC_WRITE_PROTECT, &s->protect);
		break;
	case ZAP:
		ret = ioctl(self->dev, MMOPS_IOC_ZAP, &s->zap);
		break;
	case SOFT_DIRTY_CLEAR:
		ret = ioctl(self->dev, MMOPS_IOC_SOFT_DIRTY_CLEAR, &s->soft_dirty);
		break;
	case AGE:
		ret = ioctl(self->dev, MMOPS_IOC_AGE, &s->age);
		break;
	case PROTECT:
		ret = ioctl(self->dev, MMOPS_IOC_PROTECT, &s->protect_leaves);
		break;
	case TRACK_BEGIN:
		ret = ioctl(self->dev, MMOPS_IOC_TRACK_BEGIN, &s->track);
		break;
	case EXCLUSIVE:
		ret = ioctl(self->dev, MMOPS_IOC_EXCLUSIVE, &s->exclusive);
		break;
	}
	s->error = ret ? errno : 0;
	s->returned = true;
}

static void prepare(FIXTURE_DATA(fatal) *self)
{
	struct shared *s = self->s;

	dirty_all(self);
	memset(s, 0, sizeof(*s));
	s->clean = (struct mmops_clean_record){
		.fd = self->fd, .nr = PAGES, .bitmap = (uintptr_t)s->bitmap,
		.bitmap_bits = PAGES, .cleaned = ~0ULL, .done = ~0ULL,
	};
	s->protect = (struct mmops_write_protect){
		.fd = self->fd, .nr = PAGES, .write_protected = ~0ULL, .done = ~0ULL,
	};
	/* Of the parent's memory, so that it can look at what was done. */
	s->zap = (struct mmops_zap){
		.pidfd = self->pidfd, .addr = (uintptr_t)self->maps[0], .len = BYTES,
		.zapped = ~0ULL, .done = ~0ULL,
	};
	s->soft_dirty = (struct mmops_soft_dirty_clear){
		.pidfd = self->pidfd, .addr = (uintptr_t)self->maps[0], .len = BYTES,
		.cleared = ~0ULL, .kept = ~0ULL, .done = ~0ULL,
	};
	s->age = (struct mmops_age){
		.pidfd = self->pidfd, .addr = (uintptr_t)self->maps[0], .len = BYTES,
		.aged = ~0ULL, .kept = ~0ULL, .done = ~0ULL,
	};
	s->protect_leaves = (struct mmops_protect){
		.pidfd = self->pidfd, .addr = (uintptr_t)self->maps[0], .len = BYTES,
		.prot = PROT_READ, .ptes = ~0ULL, .done = ~0ULL,
	};
	s->track = (struct mmops_track_begin){ .written = ~0ULL, .changed = ~0ULL };
}

/* Start a child that calls, and kill it @us microseconds into the call. */
static int kill_within(FIXTURE_DATA(fatal) *self, enum op op, uint64_t us)
{
	struct shared *s = self->s;
	uint64_t end;
	int status;
	pid_t pid;

	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		call(self, op);
		while (true)
			pause();
	}
	while (!s->calling)
		sched_yield();
	for (end = now_ns() + us * 1000; now_ns() < end;)
		;
	kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) != pid)
		return -errno;
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 0 : -EPROTO;
}

/* How long an undisturbed call takes. */
static void measure(struct __test_metadata *_metadata, FIXTURE_DATA(fatal) *self, enum op op)
{
	prepare(self);
	self->call_ns = now_ns();
	call(self, op);
	self->call_ns = now_ns() - self->call_ns;
	ASSERT_EQ(0, self->s->error);
}

/*
 * Whether no call has left tlb_flush_pending of the parent's mm raised: a call
 * that finds nothing to change would then take itself for one of two at a time,
 * and flush, each time.
 */
static bool nothing_pending(FIXTURE_DATA(fatal) *self, unsigned int rounds)
{
	unsigned int round;
	uint64_t flushes;

	write_protect(self->dev, self->fd, 0, 1);
	for (round = 0; round < rounds; round++) {
		flushes = local_flushes();
		if (write_protect(self->dev, self->fd, 0, 1))
			return false;
		if (local_flushes() == flushes)
			return true;
	}
	return false;
}

TEST_F_TIMEOUT(fatal, clean_record, TEST_SECONDS)
{
	struct mmops_clean_record *arg = &self->s->clean;
	unsigned int try, n = rounds(TRIES), interrupted = 0;
	struct harvest rest = new_harvest(PAGES);
	struct rng rng = { test_seed() };

	measure(_metadata, self, CLEAN_RECORD);
	ASSERT_EQ(PAGES * COPIES, arg->cleaned);
	for (try = 0; try < n; try++) {
		uint64_t page;
		int64_t left;

		prepare(self);
		ASSERT_EQ(0, kill_within(self, CLEAN_RECORD,
					 rng_below(&rng, self->call_ns / 1000 + 1)));
		reset_harvest(&rest);
		left = clean_record(self->dev, self->fd, 0, PAGES, &rest);
		ASSERT_GE(left, 0);
		if (arg->done == ~0ULL) {
			/* Died before the call began its work, or after it without a report. */
			ASSERT_EQ(PAGES * COPIES, left);
			continue;
		}
		ASSERT_LE(arg->done, PAGES);
		ASSERT_EQ(PAGES * COPIES, arg->cleaned + left);
		for (page = 0; page < PAGES; page++) {
			/* Each page is in the report of the one, of the other, or of both. */
			ASSERT_TRUE(test_bit(self->s->bitmap, page) || test_bit(rest.bitmap, page));
			if (page < arg->done) {
				ASSERT_TRUE(test_bit(self->s->bitmap, page));
				ASSERT_FALSE(test_bit(rest.bitmap, page));
			}
		}
		if (arg->done < PAGES)
			interrupted++;
	}
	ASSERT_TRUE(nothing_pending(self, FLUSH_ROUNDS));
	TH_LOG("%u of %u calls were interrupted", interrupted, n);
	if (!interrupted)
		SKIP(return, "no signal met the call, which takes %llu us",
		     (unsigned long long)self->call_ns / 1000);
}

TEST_F_TIMEOUT(fatal, write_protect, TEST_SECONDS)
{
	struct mmops_write_protect *arg = &self->s->protect;
	unsigned int try, n = rounds(TRIES), interrupted = 0;
	struct rng rng = { test_seed() };

	measure(_metadata, self, WRITE_PROTECT);
	ASSERT_EQ(PAGES * COPIES, arg->write_protected);
	for (try = 0; try < n; try++) {
		int64_t left;

		prepare(self);
		ASSERT_EQ(0, kill_within(self, WRITE_PROTECT,
					 rng_below(&rng, self->call_ns / 1000 + 1)));
		if (arg->done == ~0ULL) {
			ASSERT_EQ(PAGES * COPIES, write_protect(self->dev, self->fd, 0, PAGES));
			continue;
		}
		ASSERT_LE(arg->done, PAGES);
		if (arg->done) {
			ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, arg->done));
		}
		left = write_protect(self->dev, self->fd, 0, PAGES);
		ASSERT_EQ(PAGES * COPIES, arg->write_protected + left);
		if (arg->done < PAGES)
			interrupted++;
	}
	ASSERT_TRUE(nothing_pending(self, FLUSH_ROUNDS));
	TH_LOG("%u of %u calls were interrupted", interrupted, n);
	if (!interrupted)
		SKIP(return, "no signal met the call, which takes %llu us",
		     (unsigned long long)self->call_ns / 1000);
}

/*
 * The number of pages of the parent's mappings whose entry in pagemap has @bit;
 * -1 if one of the first @done bytes has it, or pagemap cannot be read.
 */
static int64_t pages_with(FIXTURE_DATA(fatal) *self, uint64_t bit, uint64_t done)
{
	const size_t nr = COPIES * PAGES;
	uint64_t *entries = calloc(nr, sizeof(*entries));
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int64_t n = 0;
	size_t i;

	if (!entries || pread(fd, entries, nr * sizeof(*entries),
			      (uintptr_t)self->maps[0] / page_size() * sizeof(*entries)) !=
			(ssize_t)(nr * sizeof(*entries)))
		n = -1;
	for (i = 0; i < nr && n >= 0; i++) {
		n += !!(entries[i] & bit);
		if (n && i < done / page_size())
			n = -1;
	}
	free(entries);
	close(fd);
	return n;
}

/* A zap of another process: that one lives on, and finds its pages again. */
TEST_F_TIMEOUT(fatal, zap, TEST_SECONDS)
{
	struct mmops_zap *arg = &self->s->zap;
	unsigned int try, n = rounds(TRIES), interrupted = 0;
	struct rng rng = { test_seed() };
	int64_t left;
	size_t i;

	measure(_metadata, self, ZAP);
	ASSERT_EQ(COPIES * PAGES, arg->zapped);
	for (try = 0; try < n; try++) {
		prepare(self);
		ASSERT_EQ(0, kill_within(self, ZAP, rng_below(&rng, self->call_ns / 1000 + 1)));
		if (arg->done == ~0ULL) {
			ASSERT_EQ(COPIES * PAGES, pages_with(self, PAGEMAP_PRESENT, 0));
			continue;
		}
		ASSERT_LE(arg->done, arg->len);
		left = pages_with(self, PAGEMAP_PRESENT, arg->done);
		ASSERT_GE(left, 0);
		/* What is reported, and nothing else, is gone. */
		ASSERT_EQ(COPIES * PAGES, arg->zapped + left);
		if (arg->done < arg->len)
			interrupted++;
		for (i = 0; i < PAGES; i += 7) {
			ASSERT_EQ(1 + i, load(self->maps[try % COPIES], i));
		}
	}
	ASSERT_TRUE(nothing_pending(self, FLUSH_ROUNDS));
	TH_LOG("%u of %u calls were interrupted", interrupted, n);
	if (!interrupted)
		SKIP(return, "no signal met the call, which takes %llu us",
		     (unsigned long long)self->call_ns / 1000);
}

/* The same with the soft-dirty bits: what was cleared is tracked, as if the call had ended. */
TEST_F_TIMEOUT(fatal, soft_dirty_clear, TEST_SECONDS)
{
	struct mmops_soft_dirty_clear *arg = &self->s->soft_dirty;
	unsigned int try, n = rounds(TRIES), interrupted = 0;
	struct rng rng = { test_seed() };
	int64_t left;

	/* No mapping is new from here on. */
	ASSERT_GE(soft_dirty_clear_all(self->dev), 0);
	measure(_metadata, self, SOFT_DIRTY_CLEAR);
	ASSERT_EQ(COPIES * PAGES, arg->cleared);
	for (try = 0; try < n; try++) {
		prepare(self);
		ASSERT_EQ(0, kill_within(self, SOFT_DIRTY_CLEAR,
					 rng_below(&rng, self->call_ns / 1000 + 1)));
		if (arg->done == ~0ULL) {
			ASSERT_EQ(COPIES * PAGES, pages_with(self, PAGEMAP_SOFT_DIRTY, 0));
			continue;
		}
		ASSERT_LE(arg->done, arg->len);
		left = pages_with(self, PAGEMAP_SOFT_DIRTY, arg->done);
		ASSERT_GE(left, 0);
		ASSERT_EQ(COPIES * PAGES, arg->cleared + left);
		ASSERT_EQ(0, arg->kept);
		if (arg->done < arg->len)
			interrupted++;
		/* The flush is done: each store faults, and is seen. */
		dirty_all(self);
		ASSERT_EQ(COPIES * PAGES, pages_with(self, PAGEMAP_SOFT_DIRTY, 0));
	}
	ASSERT_TRUE(nothing_pending(self, FLUSH_ROUNDS));
	TH_LOG("%u of %u calls were interrupted", interrupted, n);
	if (!interrupted)
		SKIP(return, "no signal met the call, which takes %llu us",
		     (unsigned long long)self->call_ns / 1000);
}

/* The call once more, by the parent, for the first @len bytes: what it counts, or -errno. */
static int64_t age_again(FIXTURE_DATA(fatal) *self, uint64_t len)
{
	struct mmops_age arg = { .pidfd = -1, .addr = (uintptr_t)self->maps[0], .len = len };

	return ioctl(self->dev, MMOPS_IOC_AGE, &arg) ? -errno : (int64_t)arg.aged;
}

static int64_t protect_again(FIXTURE_DATA(fatal) *self, uint64_t len)
{
	struct mmops_protect arg = {
		.pidfd = -1, .addr = (uintptr_t)self->maps[0], .len = len, .prot = PROT_READ,
	};

	return ioctl(self->dev, MMOPS_IOC_PROTECT, &arg) ? -errno : (int64_t)arg.ptes;
}

/* A call that another one goes on with: together they count each page once. */
static void assert_goes_on(struct __test_metadata *_metadata, FIXTURE_DATA(fatal) *self,
			   enum op op, const __u64 *counted, const __u64 *done,
			   int64_t (*again)(FIXTURE_DATA(fatal) *self, uint64_t len))
{
	unsigned int try, n = rounds(TRIES / 2), interrupted = 0;
	struct rng rng = { test_seed() };

	measure(_metadata, self, op);
	ASSERT_EQ(COPIES * PAGES, *counted);
	ASSERT_EQ(BYTES, *done);
	for (try = 0; try < n; try++) {
		prepare(self);
		ASSERT_EQ(0, kill_within(self, op, rng_below(&rng, self->call_ns / 1000 + 1)));
		if (*done == ~0ULL) {
			ASSERT_EQ(COPIES * PAGES, again(self, BYTES));
			continue;
		}
		ASSERT_LE(*done, BYTES);
		if (*done) {
			ASSERT_EQ(0, again(self, *done));
		}
		ASSERT_EQ(COPIES * PAGES, *counted + again(self, BYTES));
		if (*done < BYTES)
			interrupted++;
	}
	ASSERT_TRUE(nothing_pending(self, FLUSH_ROUNDS));
	TH_LOG("%u of %u calls were interrupted", interrupted, n);
	if (!interrupted)
		SKIP(return, "no signal met the call, which takes %llu us",
		     (unsigned long long)self->call_ns / 1000);
}

TEST_F_TIMEOUT(fatal, age, TEST_SECONDS)
{
	assert_goes_on(_metadata, self, AGE, &self->s->age.aged, &self->s->age.done, age_again);
}

TEST_F_TIMEOUT(fatal, protect, TEST_SECONDS)
{
	assert_goes_on(_metadata, self, PROTECT, &self->s->protect_leaves.ptes,
		       &self->s->protect_leaves.done, protect_again);
}

/* An epoch that did not begin: all that it had taken is in the next one. */
TEST_F_TIMEOUT(fatal, track_begin, TEST_SECONDS)
{
	struct mmops_track_open open_all = {
		.pidfd = -1, .flags = MMOPS_TRACK_FAST,
		.addr = (uintptr_t)self->maps[0], .len = BYTES,
	};
	struct mmops_track_end end = {}, again = { .flags = MMOPS_TRACK_ABORT };
	unsigned int try, n = rounds(TRIES / 2), interrupted = 0;
	struct mmops_track_begin begin;
	struct rng rng = { test_seed() };
	struct leaf_counts counts;

	/* The first epoch has all. */
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_OPEN, &open_all));
	measure(_metadata, self, TRACK_BEGIN);
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_END, &end));
	measure(_metadata, self, TRACK_BEGIN);
	ASSERT_EQ(COPIES * PAGES, self->s->track.written);
	ASSERT_EQ(0, self->s->track.changed);
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_END, &end));
	for (try = 0; try < n; try++) {
		prepare(self);
		ASSERT_EQ(0, kill_within(self, TRACK_BEGIN,
					 rng_below(&rng, self->call_ns / 1000 + 1)));
		ASSERT_EQ(0, count_leaves(self->dev, self->maps[0], BYTES, &counts));
		begin = (struct mmops_track_begin){};
		if (ioctl(self->dev, MMOPS_IOC_TRACK_BEGIN, &begin)) {
			/* The child's has begun after all. */
			ASSERT_EQ(EBUSY, errno);
			ASSERT_EQ(0, counts.pte.dirty);
			ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_END, &again));
			ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_BEGIN, &begin));
		} else if (counts.pte.dirty < COPIES * PAGES) {
			interrupted++;
		}
		ASSERT_EQ(COPIES * PAGES, begin.written);
		ASSERT_EQ(0, begin.changed);
		ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_END, &end));
	}
	ASSERT_TRUE(nothing_pending(self, FLUSH_ROUNDS));
	TH_LOG("%u of %u calls were interrupted", interrupted, n);
	if (!interrupted)
		SKIP(return, "no signal met the call, which takes %llu us",
		     (unsigned long long)self->call_ns / 1000);
}

/* With the count left raised once, what the tests above look at is seen. */
TEST_FAULTS(fatal, control_leaked_pending)
{
	if (!local_flushes())
		SKIP(return, "the kernel does not count TLB flushes");
	prepare(self);
	ASSERT_TRUE(nothing_pending(self, FLUSH_ROUNDS));
	ASSERT_EQ(0, set_fault(LEAK_PENDING, 1));
	write_protect(self->dev, self->fd, 0, 1);
	clear_faults();
	ASSERT_FALSE(nothing_pending(self, 50));
}

static void on_signal(int sig)
{
}

/* A signal that is handled does not end the call. */
TEST_F_TIMEOUT(fatal, handled_signal, TEST_SECONDS)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct itimerval timer = { { 0, 200 }, { 0, 200 } };
	unsigned int i;

	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	for (i = 0; i < 5; i++) {
		prepare(self);
		ASSERT_EQ(0, setitimer(ITIMER_REAL, &timer, NULL));
		call(self, i % 2 ? CLEAN_RECORD : WRITE_PROTECT);
		setitimer(ITIMER_REAL, &(struct itimerval){}, NULL);
		ASSERT_EQ(0, self->s->error);
		ASSERT_EQ(PAGES * COPIES,
			  i % 2 ? self->s->clean.cleaned : self->s->protect.write_protected);
	}
}

/*
 * A process that dies while others change its page tables, by pidfd.
 */
#define TARGET_PAGES	(4 * PMD_PAGES)
#define TARGET_ROUNDS	20

FIXTURE(target)
{
	int dev;
	char *map;	/* stored to by the process alone; the first half in huge pages */
	atomic_bool *ready;
	struct mmops_leaf *vec;
};

FIXTURE_VARIANT(target)
{
	enum { CALL_EXCLUSIVE, CALL_ZAP, CALL_SOFT_DIRTY, CALL_PROTECT, CALL_LEAVES } call;
};

FIXTURE_VARIANT_ADD(target, exclusive) { .call = CALL_EXCLUSIVE };
FIXTURE_VARIANT_ADD(target, zap) { .call = CALL_ZAP };
FIXTURE_VARIANT_ADD(target, soft_dirty_clear) { .call = CALL_SOFT_DIRTY };
FIXTURE_VARIANT_ADD(target, protect) { .call = CALL_PROTECT };
FIXTURE_VARIANT_ADD(target, leaves) { .call = CALL_LEAVES };

FIXTURE_SETUP(target)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	self->map = reserve(TARGET_PAGES, 0);
	ASSERT_NE(self->map, NULL);
	self->map = map_at(self->map, -1, 0, TARGET_PAGES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS);
	ASSERT_NE(self->map, NULL);
	madvise(self->map, TARGET_PAGES / 2 * page_size(), MADV_HUGEPAGE);
	self->ready = mmap(NULL, page_size(), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(self->ready, MAP_FAILED);
	self->vec = calloc(TARGET_PAGES, sizeof(*self->vec));
	ASSERT_NE(self->vec, NULL);
}

FIXTURE_TEARDOWN(target)
{
}

/* The calls of a variant. 0 or -errno. */
static int call_target(FIXTURE_DATA(target) *self, int which, int pidfd)
{
	struct mmops_protect protect = {
		.pidfd = pidfd, .addr = (uintptr_t)self->map, .len = TARGET_PAGES * page_size(),
		.prot = PROT_READ,
	};
	struct mmops_leaves leaves = {
		.pidfd = pidfd, .addr = (uintptr_t)self->map, .len = TARGET_PAGES * page_size(),
		.vec = (uintptr_t)self->vec, .vec_len = TARGET_PAGES,
	};
	/* Within huge pages, too. */
	const char *part = self->map + 100 * page_size();
	int64_t ret = -EINVAL;

	switch (which) {
	case CALL_EXCLUSIVE:
		ret = exclusive_of(self->dev, pidfd, self->map, TARGET_PAGES, NULL);
		if (ret >= 0)
			ret = revoke_of(self->dev, pidfd, self->map, TARGET_PAGES);
		break;
	case CALL_ZAP:
		ret = zap_of(self->dev, pidfd, part, TARGET_PAGES - 200);
		break;
	case CALL_SOFT_DIRTY:
		ret = soft_dirty_clear_of(self->dev, pidfd, part, TARGET_PAGES - 200, 0, NULL);
		break;
	case CALL_PROTECT:
		ret = ioctl(self->dev, MMOPS_IOC_PROTECT, &protect) ? -errno : 0;
		protect.prot |= PROT_WRITE;
		if (!ret)
			ret = ioctl(self->dev, MMOPS_IOC_PROTECT, &protect) ? -errno : 0;
		break;
	case CALL_LEAVES:
		ret = ioctl(self->dev, MMOPS_IOC_LEAVES, &leaves) ? -errno : 0;
		break;
	}
	return min(ret, (int64_t)0);
}

struct killer {
	pthread_t thread;
	pid_t pid;
	uint64_t ns;
	atomic_bool killed;
};

static void *kill_later(void *arg)
{
	struct killer *killer = arg;
	uint64_t end = now_ns() + killer->ns;

	while (now_ns() < end)
		sched_yield();
	kill(killer->pid, SIGKILL);
	atomic_store(&killer->killed, true);
	return NULL;
}

TEST_F_TIMEOUT(target, dies, TEST_SECONDS)
{
	struct rng rng = { test_seed() };
	unsigned int round, n = rounds(TARGET_ROUNDS), met = 0;
	uint64_t calls = 0, ns;
	size_t i;

	/* In memory that is not new, a range can be cleared without more. */
	if (variant->call == CALL_SOFT_DIRTY &&
	    soft_dirty_clear_all(self->dev) == -EOPNOTSUPP)
		SKIP(return, "the kernel has no soft-dirty bits");
	for (round = 0; round < n; round++) {
		struct killer killer = {};
		int pidfd, ret, status;

		atomic_store(self->ready, false);
		killer.pid = fork();
		ASSERT_GE(killer.pid, 0);
		if (!killer.pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;) {
				store_range(self->map, 0, TARGET_PAGES, 1);
				atomic_store(self->ready, true);
			}
		}
		pidfd = syscall(__NR_pidfd_open, killer.pid, 0);
		ASSERT_GE(pidfd, 0);
		while (!atomic_load(self->ready))
			sched_yield();
		ns = now_ns();
		ASSERT_EQ(0, call_target(self, variant->call, pidfd));
		killer.ns = rng_below(&rng, 2 * (now_ns() - ns));
		ASSERT_EQ(0, pthread_create(&killer.thread, NULL, kill_later, &killer));
		do {
			bool killed = atomic_load(&killer.killed);

			ret = call_target(self, variant->call, pidfd);
			met += !killed && atomic_load(&killer.killed);
			calls++;
		} while (!ret);
		/* All that a call can say of a process that dies is that it is gone. */
		ASSERT_EQ(-ESRCH, ret);
		pthread_join(killer.thread, NULL);
		ASSERT_EQ(killer.pid, waitpid(killer.pid, &status, 0));
		ASSERT_TRUE(WIFSIGNALED(status));
		ASSERT_EQ(SIGKILL, WTERMSIG(status));
		ASSERT_EQ(-ESRCH, call_target(self, variant->call, pidfd));
		close(pidfd);
	}
	TH_LOG("%llu calls in %u rounds, %u of them met by the signal",
	       (unsigned long long)calls, n, met);
	/* Nobody else has suffered. */
	store_range(self->map, 0, TARGET_PAGES, 1);
	ASSERT_EQ(0, call_target(self, variant->call, -1));
	for (i = 0; i < TARGET_PAGES; i++) {
		bool zapped = variant->call == CALL_ZAP && i >= 100 && i < TARGET_PAGES - 100;

		ASSERT_EQ(zapped ? 0 : 1 + i, load(self->map, i));
	}
}

/*
 * What is said of each page: those that the call had come to, those of the step at whose begin
 * the signal was seen, and those of the step behind.
 */
TEST_FAULTS(fatal, exclusive)
{
	struct mmops_exclusive *arg = &self->s->exclusive;
	const uint8_t *results = self->s->results;
	size_t i, nr[3] = {};
	int status;
	bool met;
	char *map;
	pid_t pid;

	map = mmap(NULL, STEPS * STEP * page_size(), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, madvise(map, STEPS * STEP * page_size(), MADV_NOHUGEPAGE));
	ASSERT_EQ(0, madvise(map, STEPS * STEP * page_size(), MADV_DONTFORK));
	store_range(map, 0, STEPS * STEP, 1);
	memset(self->s->results, 0xff, sizeof(self->s->results));
	*arg = (struct mmops_exclusive){
		.pidfd = self->pidfd, .addr = (uintptr_t)map, .len = STEPS * STEP * page_size(),
		.results = (uintptr_t)results,
	};
	/* The signal comes while the second step is under way, which is completed. */
	ASSERT_EQ(0, close_gate_after(BEFORE_FLUSH, 1, 1));
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		call(self, EXCLUSIVE);
		_exit(0);
	}
	met = wait_at_gate(BEFORE_FLUSH, 1, NULL);
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	END_FAULTS();
	ASSERT_TRUE(met);
	ASSERT_EQ(SIGKILL, WTERMSIG(status));
	ASSERT_EQ(2 * STEP * page_size(), arg->done);
	ASSERT_EQ(2 * STEP, arg->exclusive);
	for (i = 0; i < STEPS * STEP; i++) {
		nr[0] += i < 2 * STEP && results[i] == MMOPS_PAGE_EXCLUSIVE;
		nr[1] += i / STEP == 2 && results[i] == MMOPS_PAGE_UNTOUCHED;
		nr[2] += i / STEP == 3 && results[i] == 0xff;
	}
	ASSERT_EQ(2 * STEP, nr[0]);
	ASSERT_EQ(STEP, nr[1]);
	ASSERT_EQ(STEP, nr[2]);
	ASSERT_EQ(1, load(map, 0));
}

TEST_HARNESS_MAIN
