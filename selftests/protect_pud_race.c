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
 * The controls leave a step out. In them the call stands at a gate while the other
 * does its step, so that each round meets the race. With the gate, and nothing left
 * out, nothing is lost.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "faults.h"
#include "leafmap.h"
#include "kselftest_harness.h"

#define ROUNDS		80U
#define GATE_ROUNDS	3U

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
	/* Of what stands at a gate, and what is done meanwhile. */
	atomic_bool call_done, other_done;
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

FIXTURE_FAULTS(protect_pud_race);

/* A delay that meets a call now and then. */
static unsigned int some_us(FIXTURE_DATA(protect_pud_race) *self)
{
	return rng_below(&self->rng, 150);
}

/* Protect both leaves. */
static void protect_both(void *arg)
{
	FIXTURE_DATA(protect_pud_race) *self = arg;

	if (protect_result(self->dev, self->map, self->len, PROT_READ, NULL))
		self->errors++;
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
	size_t lost = 0;

	/* The two calls of protect are over leaves of their own and over all. */
	self->page = 0;
	self->end = self->unit;
	if (partner_start(&a, CPU_A, take_all, self) ||
	    partner_start(&b, CPU_B, protect_part, self))
		return SIZE_MAX;
	for (round = 0; round < rounds(ROUNDS); round++) {
		populate(self);
		partner_go(&a, some_us(self));
		partner_go(&b, some_us(self));
		protect_both(self);
		partner_wait(&a);
		partner_wait(&b);
		if (list_leaves(self->dev, self->map, self->len, &self->leaves))
			self->errors++;
		lost += self->leaves.nr;
		if (self->leaves.nr)
			take_all(self);
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

/*
 * A call that protects both leaves and stands at a gate, and another step meanwhile:
 * each in a thread on a CPU of its own, since both may hold or want a spinlock. The
 * threads are there before the gate is closed.
 */
struct steps {
	FIXTURE_DATA(protect_pud_race) *self;
	struct partner call, other;
	void (*act)(void *arg);
};

static void act_call(void *arg)
{
	struct steps *steps = arg;

	protect_both(steps->self);
	atomic_store(&steps->self->call_done, true);
}

static void act_other(void *arg)
{
	struct steps *steps = arg;

	steps->act(steps->self);
	atomic_store(&steps->self->other_done, true);
}

static int steps_start(struct steps *steps, FIXTURE_DATA(protect_pud_race) *self,
		       void (*act)(void *))
{
	steps->self = self;
	steps->act = act;
	return partner_start(&steps->call, CPU_A, act_call, steps) ||
	       partner_start(&steps->other, CPU_B, act_other, steps);
}

static void steps_stop(struct steps *steps)
{
	partner_stop(&steps->call);
	partner_stop(&steps->other);
}

/*
 * One round: the call up to @gate, then the other step until it is done, or waits for
 * the lock that is held there if it @may_spin, then @leave_out, then the rest. Whether the
 * call came to the gate.
 */
static bool steps_at_gate(struct steps *steps, enum fault gate, bool may_spin,
			  enum fault leave_out)
{
	FIXTURE_DATA(protect_pud_race) *self = steps->self;
	bool met;

	atomic_store(&self->call_done, false);
	atomic_store(&self->other_done, false);
	if (close_gate(gate, 1))
		self->errors++;
	partner_go(&steps->call, 0);
	met = wait_at_gate(gate, 1, &self->call_done);
	partner_go(&steps->other, 0);
	if (!wait_for_step(steps->other.thread, &self->other_done, may_spin ? STEP_CPU_NS : 0))
		self->errors++;
	if (leave_out != NO_FAULT && set_fault(leave_out, 1))
		self->errors++;
	if (open_gate(gate))
		self->errors++;
	partner_wait(&steps->call);
	partner_wait(&steps->other);
	if (leave_out != NO_FAULT && set_fault(leave_out, 0))
		self->errors++;
	return met;
}

static void unmap_first(void *arg)
{
	FIXTURE_DATA(protect_pud_race) *self = arg;

	if (leafmap_unmap(self->fd, 0, self->len / 2))
		self->errors++;
}

/*
 * As race_take_all(), with the first leaf taken away while it is changed; the second one
 * has the same lock.
 */
static size_t take_first_at_gate(FIXTURE_DATA(protect_pud_race) *self, void (*take_first)(void *),
				 bool may_spin)
{
	struct steps steps;
	unsigned int round;
	size_t lost = 0;

	if (steps_start(&steps, self, take_first))
		return SIZE_MAX;
	for (round = 0; round < GATE_ROUNDS; round++) {
		populate(self);
		if (!steps_at_gate(&steps, ENTRY_CHANGES_NOW, may_spin, NO_FAULT))
			self->errors++;
		if (list_leaves(self->dev, self->map, self->len / 2, &self->leaves))
			self->errors++;
		lost += self->leaves.nr;
		take_first(self);
	}
	steps_stop(&steps);
	return lost;
}

/* An unmap of PTEs takes the lock of their table before it looks. */
static size_t lost_when_cleared(uint32_t order)
{
	return order == MMOPS_LEAFMAP_PTE ? 0 : GATE_ROUNDS;
}

TEST_FAULTS(protect_pud_race, control_clear_first)
{
	ASSERT_EQ(0, take_first_at_gate(self, unmap_first, true));
	ASSERT_EQ(0, set_fault(PROTECT_CLEAR_FIRST, 1));
	ASSERT_EQ(lost_when_cleared(variant->order),
		  take_first_at_gate(self, unmap_first, !lost_when_cleared(variant->order)));
	ASSERT_EQ(0, self->errors);
}

/* A part across both leaves, which splits them. */
static void choose_part(FIXTURE_DATA(protect_pud_race) *self)
{
	self->page = self->unit - 1 - rng_below(&self->rng, self->unit / 2);
	self->end = self->unit + 1 + rng_below(&self->rng, self->unit / 2);
}

/* Leaves that are writable when all of them were protected, in all rounds. */
static size_t race_split(FIXTURE_DATA(protect_pud_race) *self, struct __test_metadata *_metadata)
{
	unsigned int round, before, overlapped = 0;
	struct partner a, b;
	size_t lost = 0;

	if (partner_start(&a, CPU_A, protect_part, self) ||
	    partner_start(&b, CPU_B, protect_part, self))
		return SIZE_MAX;
	for (round = 0; round < rounds(ROUNDS); round++) {
		if (!map_afresh(self))
			self->errors++;
		populate(self);
		choose_part(self);
		partner_go(&a, some_us(self));
		partner_go(&b, some_us(self));
		spin_us(some_us(self));
		before = atomic_load(&a.done);
		protect_both(self);
		overlapped += before != atomic_load(&a.done);
		partner_wait(&a);
		partner_wait(&b);
		if (list_leaves(self->dev, self->map, self->len, &self->leaves))
			self->errors++;
		lost += leaves_with(&self->leaves, MMOPS_LEAF_WRITE);
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

/*
 * As race_split(), with both leaves split before the first is locked. Rounds in which
 * one of them is writable afterwards.
 */
static size_t split_at_gate(FIXTURE_DATA(protect_pud_race) *self, enum fault leave_out)
{
	/* A PTE is not split, and its table is locked before it is looked at. */
	bool has_gate = self->unit > 16;
	struct steps steps;
	unsigned int round;
	size_t lost = 0;

	if (steps_start(&steps, self, protect_part))
		return SIZE_MAX;
	for (round = 0; round < GATE_ROUNDS; round++) {
		if (!map_afresh(self))
			self->errors++;
		populate(self);
		choose_part(self);
		if (steps_at_gate(&steps, BEFORE_LOCK, false, leave_out) != has_gate)
			self->errors++;
		if (list_leaves(self->dev, self->map, self->len, &self->leaves))
			self->errors++;
		lost += !!leaves_with(&self->leaves, MMOPS_LEAF_WRITE);
	}
	steps_stop(&steps);
	return lost;
}

TEST_FAULTS(protect_pud_race, control_skip_retry)
{
	ASSERT_EQ(0, split_at_gate(self, NO_FAULT));
	ASSERT_EQ(variant->order == MMOPS_LEAFMAP_PTE ? 0 : GATE_ROUNDS,
		  split_at_gate(self, SKIP_RETRY));
	ASSERT_EQ(0, self->errors);
}

static void store_once(void *arg)
{
	FIXTURE_DATA(protect_pud_race) *self = arg;

	store(self->map, self->page, self->value);
}

/* One page of a leaf that is writable and clean, for a store. */
static void choose_page(FIXTURE_DATA(protect_pud_race) *self)
{
	unmap_all(self);
	self->page = rng_below(&self->rng, 2 * self->unit);
	self->value++;
	load(self->map, self->page);
	if (list_leaves(self->dev, self->map, self->len, &self->leaves) ||
	    leaves_with(&self->leaves, MMOPS_LEAF_WRITE) != 1 ||
	    leaves_with(&self->leaves, MMOPS_LEAF_DIRTY))
		self->errors++;
}

/* Whether nothing says of the store that was made. */
static bool store_is_lost(FIXTURE_DATA(protect_pud_race) *self)
{
	if (list_leaves(self->dev, self->map, self->len, &self->leaves) || self->leaves.nr != 1)
		self->errors++;
	if (load(self->map, self->page) != self->value)
		self->errors++;
	return !leaves_with(&self->leaves, MMOPS_LEAF_DIRTY);
}

/* Stores to leaves that are clean afterwards. */
static size_t race_dirty(FIXTURE_DATA(protect_pud_race) *self, struct __test_metadata *_metadata)
{
	unsigned int round, faulted = 0;
	struct partner a, b;
	size_t lost = 0;

	self->end = 2 * self->unit;
	if (partner_start(&a, CPU_A, store_once, self) ||
	    partner_start(&b, CPU_B, store_once, self))
		return SIZE_MAX;
	for (round = 0; round < rounds(ROUNDS); round++) {
		uint64_t writes;

		choose_page(self);
		writes = leafmap_info(self->fd).writes;
		partner_go(&a, some_us(self));
		partner_go(&b, some_us(self));
		spin_us(some_us(self));
		protect_both(self);
		partner_wait(&a);
		partner_wait(&b);
		faulted += leafmap_info(self->fd).writes != writes;
		lost += store_is_lost(self);
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

/* The same, with the store made while the leaf is changed. */
static size_t dirty_at_gate(FIXTURE_DATA(protect_pud_race) *self)
{
	struct steps steps;
	unsigned int round;
	size_t lost = 0;

	if (steps_start(&steps, self, store_once))
		return SIZE_MAX;
	for (round = 0; round < GATE_ROUNDS; round++) {
		choose_page(self);
		if (!steps_at_gate(&steps, ENTRY_CHANGES_NOW, false, NO_FAULT))
			self->errors++;
		lost += store_is_lost(self);
	}
	steps_stop(&steps);
	return lost;
}

TEST_FAULTS(protect_pud_race, control_stale_value)
{
	ASSERT_EQ(0, dirty_at_gate(self));
	ASSERT_EQ(0, set_fault(PROTECT_STALE_VALUE, 1));
	ASSERT_EQ(GATE_ROUNDS, dirty_at_gate(self));
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

/* The writer has stored twice since. */
static void wait_for_stores(struct writer *w)
{
	uint64_t stores = atomic_load(&w->stores);

	while (atomic_load(&w->stores) < stores + 2)
		sched_yield();
}

/*
 * Rounds in which the value changed through a leaf that was not writable any more. A
 * store that came after the call has faulted, and has left the leaf writable. With
 * @loses it ends with the first such round.
 */
static size_t race_stale(FIXTURE_DATA(protect_pud_race) *self, struct __test_metadata *_metadata,
			 unsigned int n, bool loses)
{
	struct writer w = { .map = self->map, .page = self->unit + 1 };
	unsigned int round;
	size_t lost = 0;
	char *other;

	/* Another mapping, since a look at the value must not touch the leaf. */
	other = map_gib(self->fd, 0, self->len, PROT_READ);
	if (!other || pthread_create(&w.thread, NULL, writer_loop, &w))
		return SIZE_MAX;
	for (round = 0; round < n && !(loses && lost); round++) {
		uint64_t before;

		/* The writer's leaf is writable, and in its TLB. */
		wait_for_stores(&w);
		protect_both(self);
		before = load(other, w.page);
		wait_for_stores(&w);
		if (load(other, w.page) == before)
			self->errors++;
		if (list_leaves(self->dev, self->map + w.page * page_size(), page_size(),
				&self->leaves) || self->leaves.nr != 1)
			self->errors++;
		lost += !leaves_with(&self->leaves, MMOPS_LEAF_WRITE);
	}
	atomic_store(&w.stop, true);
	pthread_join(w.thread, NULL);
	munmap(other, self->len);
	TH_LOG("%zu stores past the protection in %u rounds", lost, round);
	return lost;
}

TEST_F_TIMEOUT(protect_pud_race, stale, TEST_SECONDS)
{
	ASSERT_EQ(0, race_stale(self, _metadata, rounds(ROUNDS), false));
	ASSERT_EQ(0, self->errors);
}

TEST_FAULTS(protect_pud_race, control_no_flush)
{
	ASSERT_EQ(0, set_fault(SKIP_FLUSH, 1));
	ASSERT_EQ(1, race_stale(self, _metadata, TLB_ROUNDS, true));
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

static void dontneed_first(void *arg)
{
	FIXTURE_DATA(protect_pud_race) *self = arg;

	if (madvise(self->map, self->len / 2, MADV_DONTNEED))
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

TEST_FAULTS(protect_pud_race, control_clear_first_dontneed)
{
	USE_DAX();
	ASSERT_EQ(0, take_first_at_gate(self, dontneed_first, true));
	ASSERT_EQ(0, set_fault(PROTECT_CLEAR_FIRST, 1));
	ASSERT_EQ(lost_when_cleared(variant->order),
		  take_first_at_gate(self, dontneed_first, !lost_when_cleared(variant->order)));
	ASSERT_EQ(0, self->errors);
}

TEST_HARNESS_MAIN
