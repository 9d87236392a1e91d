// SPDX-License-Identifier: GPL-2.0
/*
 * MMOPS_IOC_PROTECT against everything else that changes or uses the same
 * entries, on three CPUs.
 *
 * dontneed:	A leaf that is cleared while it changes is passed over by
 *		MADV_DONTNEED, which looks without the lock: what was to be
 *		zapped is still there. Memory has to be zero afterwards.
 * dirty, young: Each page of a range that is clean (old) gets one store (load)
 *		while the range is protected. Each has to be dirty (young) at
 *		the end: in its entry, or because the access faulted and made it
 *		so. A value that was made before the CPU set the bit loses it.
 * split:	Huge leaves are split while they are protected. No entry of the
 *		range may be writable afterwards.
 * flush:	A CPU stores all the time through its TLB. When the call has
 *		returned, a page whose value changes must be writable again.
 * mixed:	Everything at once, with munmap and truncation.
 *
 * The controls take the property away. In them the call stands at a gate while the
 * other does its step, so that each round meets the race. With the gate, and nothing
 * left out, nothing is lost.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>

#include "faults.h"
#include "kselftest_harness.h"
#include "leaves.h"

#define RW		(PROT_READ | PROT_WRITE)
#define ROUNDS		20U
#define GATE_ROUNDS	3U
#define HOT		64UL
#define LEAVES		8UL
#define PAGES		(LEAVES * PMD_PAGES)

enum { CPU_MAIN, CPU_A, CPU_B, NR_TEST_CPUS };

FIXTURE(race)
{
	int dev, fd;
	char *map;
	size_t size;
	struct rng rng;
	pthread_t thread;
	/* Rounds that the thread may begin, and has done. */
	_Atomic uint64_t begun, done;
	atomic_bool stop;
	uint64_t spread_us;
	uint64_t errors;
};

typedef FIXTURE_DATA(race) race_t;

FIXTURE_SETUP(race)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	if (nr_cpus() < NR_TEST_CPUS)
		SKIP(return, "needs %d CPUs, has %d", NR_TEST_CPUS, nr_cpus());
	self->fd = -1;
	self->rng.state = test_seed();
	self->size = PAGES * page_size();
	self->map = reserve(PAGES, 0);
	ASSERT_NE(self->map, NULL);
	pin_to_cpu(CPU_MAIN);
}

FIXTURE_TEARDOWN(race)
{
	if (faults_built_in())
		clear_faults();
	write_file(SHMEM_ENABLED, "never");
}

FIXTURE_FAULTS(race);

static bool wait_for(_Atomic uint64_t *what, uint64_t value)
{
	uint64_t end = now_ns() + 120000000000ULL;

	while (atomic_load(what) < value)
		if (now_ns() > end)
			return false;
	return true;
}

/* Anonymous memory in huge leaves, all of it stored to. */
static bool map_anon_huge(race_t *self)
{
	struct leaf_counts counts;

	if (!map_at(self->map, -1, 0, PAGES, RW, MAP_PRIVATE | MAP_ANONYMOUS))
		return false;
	madvise(self->map, self->size, MADV_HUGEPAGE);
	store_range(self->map, 0, PAGES, 1);
	return !count_leaves(self->dev, self->map, self->size, &counts) &&
	       counts.pmd.nr == LEAVES;
}

static bool map_shmem(race_t *self, size_t pages)
{
	self->fd = new_memfd(pages);
	return self->fd >= 0 && map_at(self->map, self->fd, 0, pages, RW, MAP_SHARED);
}

/* Protects and gives back, all the time. */
static void *protect_loop(void *arg)
{
	race_t *self = arg;

	pin_to_cpu(CPU_A);
	while (!atomic_load(&self->stop)) {
		if (protect(self->dev, self->map, self->size, PROT_READ) ||
		    protect(self->dev, self->map, self->size, RW))
			self->errors++;
		atomic_fetch_add(&self->done, 1);
	}
	return NULL;
}

static uint64_t pages_left(race_t *self, size_t pages)
{
	uint64_t left = 0;
	size_t i;

	for (i = 0; i < pages; i += 16)
		left += load(self->map, i) != 0;
	return left;
}

/* Pages that are still there after MADV_DONTNEED, in all rounds. */
static uint64_t dontneed(race_t *self, unsigned int n)
{
	unsigned int round;
	uint64_t left = 0;

	if (pthread_create(&self->thread, NULL, protect_loop, self))
		return ~0ULL;
	wait_for(&self->done, 1);
	for (round = 0; round < n; round++) {
		/* Anew: what is loaded below are parts of a zero page. */
		map_anon_huge(self);
		spin_us(rng_below(&self->rng, 2000));
		if (madvise(self->map, self->size, MADV_DONTNEED))
			self->errors++;
		left += pages_left(self, PAGES);
	}
	atomic_store(&self->stop, true);
	pthread_join(self->thread, NULL);
	return left;
}

TEST_F_TIMEOUT(race, dontneed, TEST_SECONDS)
{
	if (!map_anon_huge(self))
		SKIP(return, "no huge pages");
	ASSERT_EQ(0, dontneed(self, rounds(ROUNDS)));
	ASSERT_EQ(0, self->errors);
}

/*
 * A call that stands at a gate, and another one meanwhile: each in a thread on a CPU
 * of its own, since both may hold or want a spinlock. They are there before the gate
 * is closed, as their start wants locks as well.
 */
struct step {
	pthread_t thread;
	race_t *race;
	int cpu;
	int (*act)(race_t *self);
	atomic_bool go, done;
};

static void *step_thread(void *arg)
{
	struct step *step = arg;

	pin_to_cpu(step->cpu);
	while (!atomic_load(&step->go))
		;
	if (step->act(step->race))
		step->race->errors++;
	atomic_store(&step->done, true);
	return NULL;
}

/*
 * Do @call up to a @gate, then @other until that is done, or waits for the lock that
 * @call holds if it @may_spin, then the rest.
 */
static void steps_at_gate(race_t *self, enum fault gate, int (*call)(race_t *self),
			  int (*other)(race_t *self), bool may_spin)
{
	struct step a = { .race = self, .cpu = CPU_A, .act = call };
	struct step b = { .race = self, .cpu = CPU_B, .act = other };

	if (pthread_create(&a.thread, NULL, step_thread, &a) ||
	    pthread_create(&b.thread, NULL, step_thread, &b) || close_gate(gate, 1)) {
		self->errors++;
		return;
	}
	atomic_store(&a.go, true);
	if (!wait_at_gate(gate, 1, &a.done))
		self->errors++;
	atomic_store(&b.go, true);
	if (!wait_for_step(b.thread, &b.done, may_spin ? STEP_CPU_NS : 0) || open_gate(gate))
		self->errors++;
	pthread_join(a.thread, NULL);
	pthread_join(b.thread, NULL);
}

static int protect_all(race_t *self)
{
	return protect(self->dev, self->map, self->size, PROT_READ);
}

/* The first leaf alone: others have the same lock. */
static int take_first(race_t *self)
{
	return madvise(self->map, pmd_size(), MADV_DONTNEED);
}

static uint64_t dontneed_at_gate(race_t *self, bool in_order)
{
	unsigned int round;
	uint64_t left = 0;

	for (round = 0; round < GATE_ROUNDS; round++) {
		if (!map_anon_huge(self))
			self->errors++;
		steps_at_gate(self, ENTRY_CHANGES_NOW, protect_all, take_first, in_order);
		left += pages_left(self, PMD_PAGES);
	}
	return left;
}

TEST_FAULTS(race, control_clear_first)
{
	uint64_t left;

	if (!map_anon_huge(self))
		SKIP(return, "no huge pages");
	ASSERT_EQ(0, dontneed_at_gate(self, true));
	ASSERT_EQ(0, set_fault(PROTECT_CLEAR_FIRST, 1));
	left = dontneed_at_gate(self, false);
	ASSERT_EQ(0, self->errors);
	ASSERT_EQ(GATE_ROUNDS * PMD_PAGES / 16, left);
}

/* One access to each hot page, in any order, spread over some time. */
static void access_pages(race_t *self, bool stores, uint64_t value)
{
	uint64_t start = now_ns();
	size_t order[HOT], i;

	for (i = 0; i < HOT; i++) {
		size_t j = rng_below(&self->rng, i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	for (i = 0; i < HOT; i++) {
		while (now_ns() < start + i * self->spread_us * 1000 / HOT)
			;
		if (stores)
			store(self->map, order[i], value);
		else
			load(self->map, order[i]);
	}
}

static void *store_rounds(void *arg)
{
	race_t *self = arg;
	uint64_t round;

	pin_to_cpu(CPU_B);
	for (round = 1; wait_for(&self->begun, round) && !atomic_load(&self->stop); round++) {
		access_pages(self, true, round);
		atomic_store(&self->done, round);
	}
	return NULL;
}

static void *load_rounds(void *arg)
{
	race_t *self = arg;
	uint64_t round;

	pin_to_cpu(CPU_B);
	for (round = 1; wait_for(&self->begun, round) && !atomic_load(&self->stop); round++) {
		access_pages(self, false, 0);
		atomic_store(&self->done, round);
	}
	return NULL;
}

static void end_rounds(race_t *self)
{
	atomic_store(&self->stop, true);
	atomic_fetch_add(&self->begun, 1);
	pthread_join(self->thread, NULL);
}

/* Pages that were stored to, and that nothing says it of. */
static uint64_t lost_dirty(race_t *self, unsigned int n, uint64_t spread_us)
{
	struct harvest h = new_harvest(HOT);
	uint64_t lost = 0, round;

	self->spread_us = spread_us;
	store_range(self->map, 0, HOT, 0);
	if (pthread_create(&self->thread, NULL, store_rounds, self))
		return ~0ULL;
	for (round = 1; round <= n; round++) {
		/* All are writable, clean, and in no TLB. */
		if (protect(self->dev, self->map, HOT * page_size(), RW) ||
		    clean_only(self->dev, self->fd, 0, HOT) < 0)
			self->errors++;
		atomic_store(&self->begun, round);
		if (protect(self->dev, self->map, HOT * page_size(), PROT_READ) ||
		    !wait_for(&self->done, round))
			self->errors++;
		reset_harvest(&h);
		if (clean_record(self->dev, self->fd, 0, HOT, &h) < 0)
			self->errors++;
		lost += HOT - count_bits(h.bitmap, h.bits);
	}
	end_rounds(self);
	free(h.bitmap);
	return lost;
}

TEST_F_TIMEOUT(race, dirty, TEST_SECONDS)
{
	ASSERT_TRUE(map_shmem(self, HOT));
	ASSERT_EQ(0, lost_dirty(self, rounds(10 * ROUNDS), 200));
	ASSERT_EQ(0, self->errors);
}

static int protect_page(race_t *self)
{
	return protect(self->dev, self->map, page_size(), PROT_READ);
}

static int unprotect_page(race_t *self)
{
	return protect(self->dev, self->map, page_size(), RW);
}

static int store_to_page(race_t *self)
{
	store(self->map, 0, 7);
	return 0;
}

static int load_from_page(race_t *self)
{
	load(self->map, 0);
	return 0;
}

/* Stores to a page while it is protected, after which it is clean. */
static uint64_t lost_dirty_at_gate(race_t *self)
{
	unsigned int round;
	uint64_t lost = 0;

	store(self->map, 0, 1);
	for (round = 0; round < GATE_ROUNDS; round++) {
		/* It is writable, clean, and in no TLB. */
		if (unprotect_page(self) || clean_only(self->dev, self->fd, 0, HOT) < 0)
			self->errors++;
		steps_at_gate(self, ENTRY_CHANGES_NOW, protect_page, store_to_page, false);
		lost += clean_only(self->dev, self->fd, 0, HOT) != 1;
	}
	return lost;
}

TEST_FAULTS(race, control_stale_dirty)
{
	ASSERT_TRUE(map_shmem(self, HOT));
	ASSERT_EQ(0, lost_dirty_at_gate(self));
	ASSERT_EQ(0, set_fault(PROTECT_STALE_VALUE, 1));
	ASSERT_EQ(GATE_ROUNDS, lost_dirty_at_gate(self));
	ASSERT_EQ(0, self->errors);
}

/* Pages that were loaded from, and whose entry does not say it. */
static uint64_t lost_young(race_t *self, unsigned int n, uint64_t spread_us)
{
	struct leaf_counts counts;
	uint64_t lost = 0, round;

	self->spread_us = spread_us;
	store_range(self->map, 0, HOT, 0);
	if (pthread_create(&self->thread, NULL, load_rounds, self))
		return ~0ULL;
	for (round = 1; round <= n; round++) {
		/* All are old and read-only, and in no TLB. */
		if (protect(self->dev, self->map, HOT * page_size(), RW) ||
		    write_file("/proc/self/clear_refs", "1") ||
		    protect(self->dev, self->map, HOT * page_size(), PROT_READ) ||
		    count_leaves(self->dev, self->map, HOT * page_size(), &counts) ||
		    counts.pte.young)
			self->errors++;
		atomic_store(&self->begun, round);
		if (protect(self->dev, self->map, HOT * page_size(), RW) ||
		    !wait_for(&self->done, round) ||
		    count_leaves(self->dev, self->map, HOT * page_size(), &counts))
			self->errors++;
		lost += HOT - counts.pte.young;
	}
	end_rounds(self);
	return lost;
}

TEST_F_TIMEOUT(race, young, TEST_SECONDS)
{
	ASSERT_TRUE(map_shmem(self, HOT));
	ASSERT_EQ(0, lost_young(self, rounds(10 * ROUNDS), 200));
	ASSERT_EQ(0, self->errors);
}

/* Loads from a page while it is made writable, after which it is old. */
static uint64_t lost_young_at_gate(race_t *self)
{
	struct leaf_counts counts;
	unsigned int round;
	uint64_t lost = 0;

	store(self->map, 0, 1);
	for (round = 0; round < GATE_ROUNDS; round++) {
		/* It is old and read-only, and in no TLB. */
		if (unprotect_page(self) || write_file("/proc/self/clear_refs", "1") ||
		    protect_page(self) ||
		    count_leaves(self->dev, self->map, page_size(), &counts) || counts.pte.young)
			self->errors++;
		steps_at_gate(self, ENTRY_CHANGES_NOW, unprotect_page, load_from_page,
			      false);
		if (count_leaves(self->dev, self->map, page_size(), &counts))
			self->errors++;
		lost += 1 - counts.pte.young;
	}
	return lost;
}

TEST_FAULTS(race, control_stale_young)
{
	ASSERT_TRUE(map_shmem(self, HOT));
	ASSERT_EQ(0, lost_young_at_gate(self));
	ASSERT_EQ(0, set_fault(PROTECT_STALE_VALUE, 1));
	ASSERT_EQ(GATE_ROUNDS, lost_young_at_gate(self));
	ASSERT_EQ(0, self->errors);
}

/* Splits one huge leaf after the other, by making a page of it go. */
static void *split_rounds(void *arg)
{
	race_t *self = arg;
	uint64_t round;
	size_t leaf;

	pin_to_cpu(CPU_A);
	for (round = 1; wait_for(&self->begun, round) && !atomic_load(&self->stop); round++) {
		for (leaf = 0; leaf < LEAVES; leaf++) {
			if (madvise(self->map + (leaf * PMD_PAGES + 7) * page_size(),
				    page_size(), MADV_DONTNEED))
				self->errors++;
			spin_us(self->spread_us / LEAVES);
		}
		atomic_store(&self->done, round);
	}
	return NULL;
}

/* Leaves that are writable after they were protected. */
static uint64_t missed(race_t *self, unsigned int n, uint64_t spread_us)
{
	struct leaf_counts counts;
	uint64_t left = 0, round;

	self->spread_us = spread_us;
	if (pthread_create(&self->thread, NULL, split_rounds, self))
		return ~0ULL;
	for (round = 1; round <= n; round++) {
		if (!map_anon_huge(self)) {
			self->errors++;
			break;
		}
		atomic_store(&self->begun, round);
		spin_us(rng_below(&self->rng, 200));
		if (protect(self->dev, self->map, self->size, PROT_READ) ||
		    !wait_for(&self->done, round) ||
		    count_leaves(self->dev, self->map, self->size, &counts))
			self->errors++;
		left += counts.pte.writable + counts.pmd.writable;
	}
	end_rounds(self);
	return left;
}

TEST_F_TIMEOUT(race, split, TEST_SECONDS)
{
	if (!map_anon_huge(self))
		SKIP(return, "no huge pages");
	ASSERT_EQ(0, missed(self, rounds(ROUNDS), 500));
	ASSERT_EQ(0, self->errors);
}

/* Splits the first leaf, by making a page of it go. */
static int split_first(race_t *self)
{
	return madvise(self->map + 7 * page_size(), page_size(), MADV_DONTNEED);
}

static uint64_t missed_at_gate(race_t *self)
{
	struct leaf_counts counts;
	unsigned int round;
	uint64_t left = 0;

	for (round = 0; round < GATE_ROUNDS; round++) {
		if (!map_anon_huge(self))
			self->errors++;
		steps_at_gate(self, BEFORE_LOCK, protect_all, split_first, false);
		if (count_leaves(self->dev, self->map, self->size, &counts) ||
		    counts.pte.nr != PMD_PAGES - 1)
			self->errors++;
		left += counts.pte.writable + counts.pmd.writable;
	}
	return left;
}

TEST_FAULTS(race, control_no_retry)
{
	uint64_t left;

	if (!map_anon_huge(self))
		SKIP(return, "no huge pages");
	ASSERT_EQ(0, missed_at_gate(self));
	ASSERT_EQ(0, set_fault(SKIP_RETRY, 1));
	left = missed_at_gate(self);
	ASSERT_EQ(0, self->errors);
	ASSERT_EQ(GATE_ROUNDS * (PMD_PAGES - 1), left);
}

/* Stores to all hot pages, over and over. */
static void *store_loop(void *arg)
{
	race_t *self = arg;
	uint64_t value = 0;
	size_t i;

	pin_to_cpu(CPU_B);
	while (!atomic_load(&self->stop)) {
		value++;
		for (i = 0; i < HOT; i++)
			store(self->map, i, value);
		atomic_store(&self->done, value);
	}
	return NULL;
}

static uint64_t value_in_file(race_t *self, size_t page)
{
	uint64_t value = 0;

	if (pread(self->fd, &value, sizeof(value), page * page_size()) != sizeof(value))
		self->errors++;
	return value;
}

static void writable_leaf(const struct mmops_leaf *leaf, void *data)
{
	if (leaf->state & MMOPS_LEAF_WRITE)
		*(uint64_t *)data += 1;
}

/* Pages that were stored to after the call, without a fault. A control @loses some. */
static uint64_t unseen(race_t *self, unsigned int n, bool loses)
{
	uint64_t values[HOT], lost = 0, changed, writable, passes;
	unsigned int round;
	size_t i;

	store_range(self->map, 0, HOT, 0);
	if (pthread_create(&self->thread, NULL, store_loop, self))
		return ~0ULL;
	for (round = 0; round < n && !(loses && lost); round++) {
		passes = atomic_load(&self->done);
		wait_for(&self->done, passes + 2);
		if (protect(self->dev, self->map, HOT * page_size(), PROT_READ))
			self->errors++;
		for (i = 0; i < HOT; i++)
			values[i] = value_in_file(self, i);
		passes = atomic_load(&self->done);
		wait_for(&self->done, passes + 2);
		for (changed = 0, i = 0; i < HOT; i++)
			changed += value_in_file(self, i) != values[i];
		writable = 0;
		for_each_leaf(self->dev, self->map, HOT * page_size(), writable_leaf, &writable);
		if (changed > writable)
			lost += changed - writable;
	}
	atomic_store(&self->stop, true);
	pthread_join(self->thread, NULL);
	return lost;
}

TEST_F_TIMEOUT(race, flush, TEST_SECONDS)
{
	ASSERT_TRUE(map_shmem(self, HOT));
	ASSERT_EQ(0, unseen(self, rounds(10 * ROUNDS), false));
	ASSERT_EQ(0, self->errors);
}

TEST_FAULTS(race, control_no_flush)
{
	uint64_t lost;

	ASSERT_TRUE(map_shmem(self, HOT));
	ASSERT_EQ(0, set_fault(SKIP_FLUSH, 1));
	lost = unseen(self, TLB_ROUNDS, true);
	ASSERT_EQ(0, self->errors);
	ASSERT_GT(lost, 0);
	TH_LOG("%llu stores were not seen", (unsigned long long)lost);
}

/* What may happen to a file in huge pages and its mapping. */
static void *mess_loop(void *arg)
{
	race_t *self = arg;
	struct rng rng = { test_seed() + 1 };
	size_t p = page_size();

	pin_to_cpu(CPU_B);
	while (!atomic_load(&self->stop)) {
		size_t first = rng_below(&rng, PAGES), nr = 1 + rng_below(&rng, PAGES - first);
		char *addr = self->map + first * p;

		switch (rng_below(&rng, 6)) {
		case 0:
			madvise(addr, nr * p, MADV_DONTNEED);
			break;
		case 1:
			/* Where nothing is mapped, another thread may map something. */
			if (mmap(addr, nr * p, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
				 MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED ||
			    !map_at(addr, self->fd, first, nr, RW, MAP_SHARED))
				self->errors++;
			break;
		case 2:
			if (ftruncate(self->fd, first * p) || ftruncate(self->fd, PAGES * p))
				self->errors++;
			break;
		case 3:
			mprotect(addr, nr * p, PROT_READ);
			mprotect(addr, nr * p, RW);
			break;
		default:
			/* By a system call: the page may not be there. */
			if (pwrite(self->fd, &first, sizeof(first), first * p) < 0)
				self->errors++;
			madvise(addr, nr * p, MADV_POPULATE_WRITE);
		}
	}
	return NULL;
}

static void *protect_parts(void *arg)
{
	race_t *self = arg;
	struct rng rng = { test_seed() + 2 };

	pin_to_cpu(CPU_A);
	while (!atomic_load(&self->stop)) {
		size_t first = rng_below(&rng, PAGES), nr = 1 + rng_below(&rng, PAGES - first);
		static const int prots[] = { PROT_READ, RW, PROT_NONE };
		int ret = protect(self->dev, self->map + first * page_size(), nr * page_size(),
				  prots[rng_below(&rng, 3)]);

		/* A hole, or a mapping that mprotect() has just made read-only. */
		if (ret && ret != -ENOMEM && ret != -EACCES)
			self->errors++;
		atomic_fetch_add(&self->done, 1);
	}
	return NULL;
}

TEST_F_TIMEOUT(race, mixed, TEST_SECONDS)
{
	struct leaf_counts counts;
	pthread_t second, mess;
	uint64_t end;

	ASSERT_EQ(0, write_file(SHMEM_ENABLED, "always"));
	ASSERT_TRUE(map_shmem(self, PAGES));
	ASSERT_EQ(0, pthread_create(&mess, NULL, mess_loop, self));
	ASSERT_EQ(0, pthread_create(&second, NULL, protect_parts, self));
	end = now_ns() + 8000000000ULL;
	while (now_ns() < end || !atomic_load(&self->done)) {
		int ret = protect(self->dev, self->map, self->size,
				  rng_below(&self->rng, 2) ? PROT_READ : RW);

		if (ret && ret != -ENOMEM && ret != -EACCES)
			self->errors++;
		if (count_leaves(self->dev, self->map, self->size, &counts))
			self->errors++;
	}
	atomic_store(&self->stop, true);
	pthread_join(mess, NULL);
	pthread_join(second, NULL);
	ASSERT_EQ(0, self->errors);
	ASSERT_GT(self->done, 0);
	ASSERT_EQ(0, protect(self->dev, self->map, self->size, PROT_READ));
	ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
	ASSERT_EQ(0, counts.pte.writable + counts.pmd.writable);
	store_range(self->map, 0, PAGES, 5);
}

/* A fatal signal in the middle: how far it got is told, and is true. */
struct call {
	int dev;
	struct mmops_protect arg;
	volatile int calling, error;
};

static int child_call(void *data)
{
	struct call *call = data;

	call->calling = 1;
	call->error = ioctl(call->dev, MMOPS_IOC_PROTECT, &call->arg) ? errno : 0;
	while (true)
		pause();
	return 0;
}

TEST_F_TIMEOUT(race, interrupted, TEST_SECONDS)
{
	size_t copies = 32, pages = copies * PAGES, p = page_size(), i;
	unsigned int try, hits = 0, n = rounds(60);
	struct leaf_counts counts;
	char *map, *stack;
	/* Far more than are needed where the call and the signal run side by side. */
	uint64_t took = 0, until = now_ns() + 240000000000ULL;
	static struct call call;

	map = reserve(pages, 0);
	ASSERT_NE(map, NULL);
	self->fd = new_memfd(PAGES);
	stack = mmap(NULL, 65536, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(stack, MAP_FAILED);
	for (i = 0; i < copies; i++) {
		ASSERT_NE(NULL, map_at(map + i * PAGES * p, self->fd, 0, PAGES, RW, MAP_SHARED));
		ASSERT_EQ(0, madvise(map + i * PAGES * p, PAGES * p, MADV_POPULATE_WRITE));
	}
	for (try = 0; hits < 5 && (try <= n || (!hits && now_ns() < until)); try++) {
		uint64_t before, done;
		int status;
		pid_t pid;

		ASSERT_EQ(0, protect(self->dev, map, pages * p, RW));
		call = (struct call){ .dev = self->dev, .arg = {
			.pidfd = -1, .addr = (uintptr_t)map, .len = pages * p,
			.prot = PROT_READ, .done = ~0ULL } };
		if (!try) {
			took = now_ns();
			ASSERT_EQ(0, protect(self->dev, map, pages * p, PROT_READ));
			took = now_ns() - took;
			continue;
		}
		/* The same memory, another process: only it is killed. */
		pid = clone(child_call, stack + 65536, CLONE_VM | SIGCHLD, &call);
		ASSERT_GT(pid, 0);
		while (!call.calling)
			sched_yield();
		before = now_ns();
		while (now_ns() < before + rng_below(&self->rng, took))
			;
		kill(pid, SIGKILL);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		done = call.arg.done;
		if (done == ~0ULL || done == 0 || done >= pages * p)
			continue;
		hits++;
		ASSERT_EQ(0, done % p);
		ASSERT_EQ(done / p, call.arg.ptes);
		ASSERT_EQ(0, count_leaves(self->dev, map, done, &counts));
		ASSERT_EQ(done / p, counts.pte.nr);
		ASSERT_EQ(0, counts.pte.writable);
		ASSERT_EQ(0, count_leaves(self->dev, map + done, pages * p - done, &counts));
		ASSERT_EQ(pages - done / p, counts.pte.writable);
	}
	TH_LOG("%u of %u calls were interrupted", hits, try);
	ASSERT_GT(hits, 0);
}

TEST_HARNESS_MAIN
