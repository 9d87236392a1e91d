// SPDX-License-Identifier: GPL-2.0
/*
 * Protection of leaves against what changes them meanwhile on other CPUs.
 *
 * Each observation is exact, so that correct code never fails it:
 *
 * unmap: all leaves are unmapped while they are protected, and nobody accesses
 *	them. When both calls have returned, there are no leaves. A leaf that is
 *	cleared while it changes is passed over by the unmapping and comes back.
 *
 * split: one call protects a page of a leaf, and splits it; another one all of
 *	it. When both have returned, and nobody stores, nothing is writable. A
 *	walk that passes over what has changed under it leaves the rest writable.
 *
 * dirty: a clean, writable leaf is stored to once while it is protected. When
 *	both are done, the leaf is dirty. A new value that is made of one that was
 *	read before loses the bit that the CPU sets in between.
 *
 * stale: when the call has returned and the leaf is still not writable, the value
 *	in memory does not change. Without the flush a CPU goes on to store.
 *
 * The same functions are the negative controls, with the step left out.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "faults.h"
#include "leafmap.h"
#include "kselftest_harness.h"

#define ROUNDS		80U
/* How long the fault build holds the windows open. */
#define WINDOW_US	20000

#define DAX_PUD		"/dev/dax0.0"
#define DAX_PMD		"/dev/dax1.0"

enum { CPU_MAIN, CPU_A, CPU_B, NR_TEST_CPUS };

/* A thread that does its part in each round, at a moment chosen by chance. */
struct partner {
	pthread_t thread;
	int cpu;
	void (*act)(void *arg);
	void *arg;
	_Atomic unsigned int wanted, done;
	_Atomic unsigned int delay_us;
	/* Of a leaf to be waited for instead, until this says that it is over. */
	atomic_bool *over;
	atomic_bool stop;
};

static void *partner_loop(void *arg)
{
	struct partner *p = arg;
	unsigned int round = 0;

	pin_to_cpu(p->cpu);
	while (true) {
		while (atomic_load(&p->wanted) == round) {
			if (atomic_load(&p->stop))
				return NULL;
			sched_yield();
		}
		round++;
		if (p->over)
			wait_for_windows(1, p->over);
		else
			spin_us(atomic_load(&p->delay_us));
		p->act(p->arg);
		atomic_store(&p->done, round);
	}
}

static int partner_start(struct partner *p, int cpu, void (*act)(void *arg), void *arg)
{
	*p = (struct partner){ .cpu = cpu, .act = act, .arg = arg };
	return pthread_create(&p->thread, NULL, partner_loop, p);
}

static void partner_go(struct partner *p, unsigned int delay_us)
{
	atomic_store(&p->delay_us, delay_us);
	atomic_fetch_add(&p->wanted, 1);
}

static void partner_wait(struct partner *p)
{
	while (atomic_load(&p->done) != atomic_load(&p->wanted))
		sched_yield();
}

static void partner_stop(struct partner *p)
{
	atomic_store(&p->stop, true);
	pthread_join(p->thread, NULL);
}

FIXTURE(protect_pud_race)
{
	int dev, fd;
	char *map;
	size_t unit, len;	/* pages of a leaf; bytes of two */
	bool control, nothing_to_lose;
	bool in_window;		/* of the change of a leaf, which the fault build holds open */
	atomic_bool protected;	/* by the last call */
	unsigned int call_us;	/* that the last call took */
	struct rng rng;
	struct leaves leaves;
	_Atomic unsigned int errors;
	/* What a partner does. */
	size_t page, end;
	uint64_t value;
};

FIXTURE_VARIANT(protect_pud_race)
{
	uint32_t order;
};

FIXTURE_VARIANT_ADD(protect_pud_race, pte) { .order = MMOPS_LEAFMAP_PTE };
FIXTURE_VARIANT_ADD(protect_pud_race, pmd) { .order = MMOPS_LEAFMAP_PMD };
FIXTURE_VARIANT_ADD(protect_pud_race, pud) { .order = MMOPS_LEAFMAP_PUD };

FIXTURE_SETUP(protect_pud_race)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	OPEN_LEAFMAP(self->fd);
	if (nr_cpus() < NR_TEST_CPUS)
		SKIP(return, "needs %d CPUs, has %d", NR_TEST_CPUS, nr_cpus());
	ASSERT_EQ(0, leafmap_serve(self->fd, variant->order, MMOPS_LEAFMAP_MAY_SPLIT));
	self->unit = max(1UL << variant->order, 16UL);
	self->len = 2 * self->unit * page_size();
	self->map = map_gib(self->fd, 0, self->len, PROT_READ | PROT_WRITE);
	ASSERT_NE(NULL, self->map);
	self->rng.state = test_seed();
	pin_to_cpu(CPU_MAIN);
}

FIXTURE_TEARDOWN(protect_pud_race)
{
	if (faults_built_in())
		clear_faults();
}

/* What follows is a control. */
#define CONTROL() do {								\
	SKIP_WITHOUT_FAULTS();							\
	self->control = true;							\
} while (0)

/* A control ends with the first loss. */
static uint64_t end_of_rounds(const FIXTURE_DATA(protect_pud_race) *self)
{
	return self->control && !self->nothing_to_lose ? control_end() : 0;
}

/* PTEs have a window each. */
static unsigned int window_us(uint32_t order)
{
	return order == MMOPS_LEAFMAP_PTE ? WINDOW_US / 32 : WINDOW_US;
}

/*
 * A delay that meets a window now and then: within as long as the last call took,
 * where windows are held open. How long these really are depends on the clocks
 * of the machine.
 */
static unsigned int some_us(FIXTURE_DATA(protect_pud_race) *self)
{
	return rng_below(&self->rng, self->control ? self->call_us + 100 : 150);
}

/* Protect both leaves. */
static void protect_both(FIXTURE_DATA(protect_pud_race) *self)
{
	uint64_t start = now_ns();

	if (protect_result(self->dev, self->map, self->len, PROT_READ, NULL))
		self->errors++;
	atomic_store(&self->protected, true);
	self->call_us = (now_ns() - start) / 1000;
}

/* Page tables as at first: nothing, and leaves of the full size to come. */
static bool map_afresh(FIXTURE_DATA(protect_pud_race) *self)
{
	return mmap(self->map, self->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, self->fd,
		    0) == self->map;
}

static void populate(FIXTURE_DATA(protect_pud_race) *self)
{
	size_t step = self->unit <= 16 ? 1 : self->unit, page;

	for (page = 0; page < 2 * self->unit; page += step)
		load(self->map, page);
}

static void protect_part(void *arg)
{
	FIXTURE_DATA(protect_pud_race) *self = arg;

	if (protect_result(self->dev, self->map + self->page * page_size(),
			   (self->end - self->page) * page_size(), PROT_READ, NULL))
		self->errors++;
}

/*
 * Split leaves while another CPU is in its window before the lock; without one of
 * its own, nor for the many smaller leaves that there are afterwards.
 */
static void protect_part_in_window(void *arg)
{
	FIXTURE_DATA(protect_pud_race) *self = arg;

	if (self->control && set_fault("window_us", 0))
		self->errors++;
	protect_part(self);
}

static void unmap_all(void *arg)
{
	FIXTURE_DATA(protect_pud_race) *self = arg;

	if (leafmap_unmap(self->fd, 0, self->len))
		self->errors++;
}

/* Leaves that are there after @take_all took all of them away, in all rounds. */
static size_t race_take_all(FIXTURE_DATA(protect_pud_race) *self,
			    struct __test_metadata *_metadata, void (*take_all)(void *))
{
	struct partner a, b;
	unsigned int round;
	uint64_t until = end_of_rounds(self);
	size_t lost = 0;

	/* The two calls of protect are over leaves of their own and over all. */
	self->page = 0;
	self->end = self->unit;
	if (partner_start(&a, CPU_A, take_all, self) ||
	    partner_start(&b, CPU_B, protect_part, self))
		return SIZE_MAX;
	a.over = self->in_window ? &self->protected : NULL;
	for (round = 0; more_rounds(round, rounds(ROUNDS), lost ? 0 : until); round++) {
		populate(self);
		atomic_store(&self->protected, false);
		partner_go(&a, some_us(self));
		if (!self->control)
			partner_go(&b, some_us(self));
		protect_both(self);
		partner_wait(&a);
		partner_wait(&b);
		if (list_leaves(self->dev, self->map, self->len, &self->leaves))
			self->errors++;
		lost += self->leaves.nr;
		if (self->leaves.nr)
			take_all(self);
		if (self->control && lost)
			break;
	}
	partner_stop(&a);
	partner_stop(&b);
	TH_LOG("%zu leaves left in %u rounds", lost, round);
	return lost;
}

TEST_F_TIMEOUT(protect_pud_race, unmap, TEST_SECONDS)
{
	ASSERT_EQ(0, race_take_all(self, _metadata, unmap_all));
	ASSERT_EQ(0, self->errors);
}

TEST_F_TIMEOUT(protect_pud_race, control_clear_first, TEST_SECONDS)
{
	CONTROL();
	ASSERT_EQ(0, set_fault("window_us", window_us(variant->order)));
	ASSERT_EQ(0, set_fault("protect_clear_first", 1));
	self->in_window = true;
	/* An unmap takes the lock of a PTE table before it looks. */
	self->nothing_to_lose = variant->order == MMOPS_LEAFMAP_PTE;
	if (self->nothing_to_lose) {
		ASSERT_EQ(0, race_take_all(self, _metadata, unmap_all));
	} else {
		ASSERT_LT(0, race_take_all(self, _metadata, unmap_all));
	}
	clear_faults();
	ASSERT_EQ(0, self->errors);
}

/* With the windows open and nothing left out, nothing is lost. */
TEST_F_TIMEOUT(protect_pud_race, control_window_alone, TEST_SECONDS)
{
	CONTROL();
	self->nothing_to_lose = true;
	ASSERT_EQ(0, set_fault("window_us", window_us(variant->order)));
	ASSERT_EQ(0, race_take_all(self, _metadata, unmap_all));
	clear_faults();
	ASSERT_EQ(0, self->errors);
}

/* Leaves that are writable when all of them were protected, in all rounds. */
static size_t race_split(FIXTURE_DATA(protect_pud_race) *self, struct __test_metadata *_metadata)
{
	unsigned int round, before, overlapped = 0;
	struct partner a, b;
	uint64_t until = end_of_rounds(self);
	size_t lost = 0;

	if (partner_start(&a, CPU_A, protect_part_in_window, self) ||
	    partner_start(&b, CPU_B, protect_part, self))
		return SIZE_MAX;
	for (round = 0; more_rounds(round, rounds(ROUNDS), lost ? 0 : until); round++) {
		if (!map_afresh(self))
			self->errors++;
		populate(self);
		/* A part across both leaves. */
		self->page = self->unit - 1 - rng_below(&self->rng, self->unit / 2);
		self->end = self->unit + 1 + rng_below(&self->rng, self->unit / 2);
		if (self->control) {
			if (set_fault("window_us", WINDOW_US))
				self->errors++;
			partner_go(&a, WINDOW_US / 4);
		} else {
			partner_go(&a, some_us(self));
			partner_go(&b, some_us(self));
			spin_us(some_us(self));
		}
		before = atomic_load(&a.done);
		protect_both(self);
		overlapped += before != atomic_load(&a.done);
		partner_wait(&a);
		partner_wait(&b);
		if (list_leaves(self->dev, self->map, self->len, &self->leaves))
			self->errors++;
		lost += leaves_with(&self->leaves, MMOPS_LEAF_WRITE);
		if (self->control && lost)
			break;
	}
	partner_stop(&a);
	partner_stop(&b);
	TH_LOG("%zu leaves writable in %u rounds, %u met", lost, round, overlapped);
	return lost;
}

TEST_F_TIMEOUT(protect_pud_race, split, TEST_SECONDS)
{
	ASSERT_EQ(0, race_split(self, _metadata));
	ASSERT_EQ(0, self->errors);
}

TEST_F_TIMEOUT(protect_pud_race, control_skip_retry, TEST_SECONDS)
{
	CONTROL();
	ASSERT_EQ(0, set_fault("skip_retry", 1));
	/* A PTE is not split, and its table is locked before it is looked at. */
	self->nothing_to_lose = variant->order == MMOPS_LEAFMAP_PTE;
	if (self->nothing_to_lose) {
		ASSERT_EQ(0, race_split(self, _metadata));
	} else {
		ASSERT_LT(0, race_split(self, _metadata));
	}
	clear_faults();
	ASSERT_EQ(0, self->errors);
}

static void store_once(void *arg)
{
	FIXTURE_DATA(protect_pud_race) *self = arg;

	store(self->map, self->page, self->value);
}

/* Stores to leaves that are clean afterwards. */
static size_t race_dirty(FIXTURE_DATA(protect_pud_race) *self, struct __test_metadata *_metadata)
{
	unsigned int round, faulted = 0;
	struct partner a, b;
	uint64_t until = end_of_rounds(self);
	size_t lost = 0;

	self->end = 2 * self->unit;
	if (partner_start(&a, CPU_A, store_once, self) || partner_start(&b, CPU_B, store_once, self))
		return SIZE_MAX;
	a.over = self->in_window ? &self->protected : NULL;
	for (round = 0; more_rounds(round, rounds(ROUNDS), lost ? 0 : until); round++) {
		uint64_t writes;

		unmap_all(self);
		self->page = rng_below(&self->rng, 2 * self->unit);
		self->value = round;
		load(self->map, self->page);
		if (list_leaves(self->dev, self->map, self->len, &self->leaves) ||
		    leaves_with(&self->leaves, MMOPS_LEAF_WRITE) != 1 ||
		    leaves_with(&self->leaves, MMOPS_LEAF_DIRTY))
			self->errors++;
		writes = leafmap_info(self->fd).writes;
		atomic_store(&self->protected, false);
		partner_go(&a, some_us(self));
		if (!self->control) {
			partner_go(&b, some_us(self));
			spin_us(some_us(self));
		}
		protect_both(self);
		partner_wait(&a);
		partner_wait(&b);
		faulted += leafmap_info(self->fd).writes != writes;
		if (list_leaves(self->dev, self->map, self->len, &self->leaves) ||
		    self->leaves.nr != 1)
			self->errors++;
		lost += !leaves_with(&self->leaves, MMOPS_LEAF_DIRTY);
		if (load(self->map, self->page) != self->value)
			self->errors++;
		if (self->control && lost)
			break;
	}
	partner_stop(&a);
	partner_stop(&b);
	TH_LOG("%zu stores lost in %u rounds, %u met the protection%s", lost, round, faulted,
	       self->unit <= 16 ? " (not counted for PTEs)" : "");
	return lost;
}

TEST_F_TIMEOUT(protect_pud_race, dirty, TEST_SECONDS)
{
	ASSERT_EQ(0, race_dirty(self, _metadata));
	ASSERT_EQ(0, self->errors);
}

TEST_F_TIMEOUT(protect_pud_race, control_stale_value, TEST_SECONDS)
{
	CONTROL();
	ASSERT_EQ(0, set_fault("window_us", WINDOW_US));
	ASSERT_EQ(0, set_fault("protect_stale_value", 1));
	self->in_window = true;
	ASSERT_LT(0, race_dirty(self, _metadata));
	clear_faults();
	ASSERT_EQ(0, self->errors);
}

/* A thread that stores to one page all the time. */
struct writer {
	pthread_t thread;
	char *map;
	size_t page;
	atomic_bool stop;
	_Atomic uint64_t stores;
};

static void *writer_loop(void *arg)
{
	struct writer *w = arg;
	uint64_t value = 0;

	pin_to_cpu(CPU_A);
	while (!atomic_load(&w->stop)) {
		store(w->map, w->page, ++value);
		atomic_store(&w->stores, value);
	}
	return NULL;
}

/* Values that changed through a leaf that was not writable any more. */
static size_t race_stale(FIXTURE_DATA(protect_pud_race) *self, struct __test_metadata *_metadata)
{
	struct writer w = { .map = self->map, .page = self->unit + 1 };
	unsigned int round, observed = 0;
	char *other;
	uint64_t until = end_of_rounds(self);
	size_t lost = 0;

	/* Another mapping, since a look at the value must not touch the leaf. */
	other = map_gib(self->fd, 0, self->len, PROT_READ);
	if (!other || pthread_create(&w.thread, NULL, writer_loop, &w))
		return SIZE_MAX;
	for (round = 0; more_rounds(round, rounds(ROUNDS), lost ? 0 : until); round++) {
		uint64_t stores = atomic_load(&w.stores), before, after, end;

		/* The writer's leaf is writable, and in its TLB. */
		while (atomic_load(&w.stores) < stores + 2)
			sched_yield();
		protect_both(self);
		before = load(other, w.page);
		/* Longer than a time slice of a host that has fewer CPUs. */
		end = now_ns() + 5000000;
		do
			after = load(other, w.page);
		while (after == before && now_ns() < end);
		if (list_leaves(self->dev, self->map + w.page * page_size(), page_size(),
				&self->leaves))
			self->errors++;
		if (self->leaves.nr == 1 && !leaves_with(&self->leaves, MMOPS_LEAF_WRITE)) {
			observed++;
			lost += after != before;
		}
		if (self->control && lost)
			break;
	}
	atomic_store(&w.stop, true);
	pthread_join(w.thread, NULL);
	munmap(other, self->len);
	TH_LOG("%zu stores past the protection in %u rounds, %u with the leaf read-only", lost, round,
	       observed);
	return lost;
}

TEST_F_TIMEOUT(protect_pud_race, stale, TEST_SECONDS)
{
	ASSERT_EQ(0, race_stale(self, _metadata));
	ASSERT_EQ(0, self->errors);
}

TEST_F_TIMEOUT(protect_pud_race, control_no_flush, TEST_SECONDS)
{
	CONTROL();
	ASSERT_EQ(0, set_fault("skip_flush", 1));
	ASSERT_LT(0, race_stale(self, _metadata));
	clear_faults();
	ASSERT_EQ(0, self->errors);
}

/*
 * Faults, stores and loads on all pages while two CPUs protect them whole and in
 * parts: nothing is lost, and when all have stopped the last word holds.
 */
struct walker {
	pthread_t thread;
	FIXTURE_DATA(protect_pud_race) *self;
	int cpu;
	size_t first, step;
	atomic_bool stop;
	_Atomic uint64_t passes;
	_Atomic unsigned int wrong;
};

#define WALKED	16

static void *walker_loop(void *arg)
{
	struct walker *w = arg;
	size_t i;

	pin_to_cpu(w->cpu);
	while (!atomic_load(&w->stop)) {
		for (i = 0; i < WALKED; i++) {
			size_t page = w->first + i * w->step;

			if (load(w->self->map, page) != w->passes)
				w->wrong++;
			store(w->self->map, page, w->passes + 1);
		}
		w->passes++;
	}
	return NULL;
}

TEST_F_TIMEOUT(protect_pud_race, fault, TEST_SECONDS)
{
	struct walker w = { .self = self, .cpu = CPU_A, .first = 0, .step = self->unit / 8 };
	struct partner b;
	unsigned int round;
	uint64_t passes;
	size_t i;

	for (i = 0; i < WALKED; i++)
		store(self->map, w.first + i * w.step, 0);
	ASSERT_EQ(0, partner_start(&b, CPU_B, protect_part, self));
	ASSERT_EQ(0, pthread_create(&w.thread, NULL, walker_loop, &w));
	for (round = 0; round < rounds(ROUNDS); round++) {
		self->page = rng_below(&self->rng, self->unit);
		self->end = self->unit + 1 + rng_below(&self->rng, self->unit);
		partner_go(&b, some_us(self));
		if (protect_result(self->dev, self->map, self->len,
				   round % 2 ? PROT_READ | PROT_WRITE : PROT_READ, NULL))
			self->errors++;
		/* Large leaves again, and all to be faulted in. */
		if (round % 16 == 15)
			unmap_all(self);
		partner_wait(&b);
	}
	/* The last round may have unmapped all: let a whole pass fault it in again. */
	passes = atomic_load(&w.passes);
	while (atomic_load(&w.passes) < passes + 2)
		sched_yield();
	atomic_store(&w.stop, true);
	pthread_join(w.thread, NULL);
	partner_stop(&b);
	ASSERT_EQ(0, protect_result(self->dev, self->map, self->len, PROT_READ, NULL));
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_LT(0, self->leaves.nr);
	ASSERT_EQ(0, leaves_with(&self->leaves, MMOPS_LEAF_WRITE));
	ASSERT_EQ(0, w.wrong);
	ASSERT_EQ(0, self->errors);
	for (i = 0; i < WALKED; i++) {
		ASSERT_EQ(w.passes, load(self->map, w.first + i * w.step));
	}
	TH_LOG("%llu passes", (unsigned long long)w.passes);
}

/* Half of the mapping goes and comes; a call meets a hole or not. */
static void remap_half(void *arg)
{
	FIXTURE_DATA(protect_pud_race) *self = arg;
	char *half = self->map + self->len / 2;

	if (munmap(half, self->len / 2))
		self->errors++;
	if (mmap(half, self->len / 2, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, self->fd,
		 self->len / 2) != half)
		self->errors++;
	load(half, 0);
	load(half, self->unit - 1);
}

TEST_F_TIMEOUT(protect_pud_race, munmap, TEST_SECONDS)
{
	unsigned int round, holes = 0;
	struct partner a, b;

	self->page = 0;
	self->end = self->unit / 2;
	ASSERT_EQ(0, partner_start(&a, CPU_A, remap_half, self));
	ASSERT_EQ(0, partner_start(&b, CPU_B, protect_part, self));
	for (round = 0; round < rounds(ROUNDS); round++) {
		bool hole = false;
		int ret;

		if (round % 8 == 0)
			unmap_all(self);
		populate(self);
		partner_go(&a, some_us(self));
		partner_go(&b, some_us(self));
		spin_us(some_us(self));
		ret = protect_result(self->dev, self->map, self->len, PROT_READ, NULL);
		hole = ret == -ENOMEM;
		holes += hole;
		if (ret && !hole)
			self->errors++;
		partner_wait(&a);
		partner_wait(&b);
		/* The first half was there all the time. */
		if (list_leaves(self->dev, self->map, self->len / 2, &self->leaves))
			self->errors++;
		if (!hole && leaves_with(&self->leaves, MMOPS_LEAF_WRITE))
			self->errors++;
	}
	partner_stop(&a);
	partner_stop(&b);
	ASSERT_EQ(0, self->errors);
	TH_LOG("%u of %u calls met a hole", holes, round);
}

/* Page frames have no MADV_DONTNEED; device-DAX below has. */
TEST_F_TIMEOUT(protect_pud_race, dontneed_refused, TEST_SECONDS)
{
	ASSERT_EQ(-1, madvise(self->map, self->len, MADV_DONTNEED));
	ASSERT_EQ(EINVAL, errno);
}

/*
 * Two leaves of device-DAX, or PTEs of a memfd.
 */
static void dontneed_all(void *arg)
{
	FIXTURE_DATA(protect_pud_race) *self = arg;

	if (madvise(self->map, self->len, MADV_DONTNEED))
		self->errors++;
}

static bool use_dax(FIXTURE_DATA(protect_pud_race) *self, uint32_t order)
{
	if (order == MMOPS_LEAFMAP_PTE)
		self->fd = new_memfd(2 * self->unit);
	else
		self->fd = open(order == MMOPS_LEAFMAP_PUD ? DAX_PUD : DAX_PMD, O_RDWR | O_CLOEXEC);
	if (self->fd < 0)
		return false;
	self->map = map_gib(self->fd, 0, self->len, PROT_READ | PROT_WRITE);
	if (!self->map)
		return false;
	populate(self);
	if (list_leaves(self->dev, self->map, self->len, &self->leaves))
		return false;
	return order == MMOPS_LEAFMAP_PTE ? self->leaves.ptes == 2 * self->unit :
	       self->leaves.nr == 2 && self->leaves.leaf[0].shift == 12 + order;
}

#define USE_DAX() do {								\
	if (!use_dax(self, variant->order))					\
		SKIP(return, "no device-DAX that gives two leaves of this size"); \
} while (0)

TEST_F_TIMEOUT(protect_pud_race, dontneed, TEST_SECONDS)
{
	USE_DAX();
	ASSERT_EQ(0, race_take_all(self, _metadata, dontneed_all));
	ASSERT_EQ(0, self->errors);
}

TEST_F_TIMEOUT(protect_pud_race, control_clear_first_dontneed, TEST_SECONDS)
{
	CONTROL();
	USE_DAX();
	ASSERT_EQ(0, set_fault("window_us", window_us(variant->order)));
	ASSERT_EQ(0, set_fault("protect_clear_first", 1));
	self->in_window = true;
	self->nothing_to_lose = variant->order == MMOPS_LEAFMAP_PTE;
	if (self->nothing_to_lose) {
		ASSERT_EQ(0, race_take_all(self, _metadata, dontneed_all));
	} else {
		ASSERT_LT(0, race_take_all(self, _metadata, dontneed_all));
	}
	clear_faults();
	ASSERT_EQ(0, self->errors);
}

TEST_HARNESS_MAIN
