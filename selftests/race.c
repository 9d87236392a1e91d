// SPDX-License-Identifier: GPL-2.0
/*
 * Two concurrent walks over one mapping and a writer on a third CPU, whose
 * stores are all counted: none may be lost.
 *
 * A store is lost when it goes through a stale TLB entry after the call that
 * changed the page-table entry has returned: then no fault and no dirty bit
 * tells of it. Two observations, each exact, so that correct code never fails:
 *
 * replicate: the pages that the walks report are copied to a shadow. When the
 *	writer has stopped and a last harvest is done, shadow and memory are
 *	equal. Without the flush they are not.
 *
 * second walk: walk A changes the entries of the writer's pages and goes on
 *	through a long range, its flush still to come. Walk B comes to the
 *	writer's pages, finds nothing to do and returns. From then on each store
 *	has to be visible: B looks at the values, lets the writer pass over all
 *	pages, looks again, and walks again. A page whose value has changed must
 *	be writable (write_protect) or dirty (clean_record) again. Nobody but B
 *	can have taken that: A has passed these pages, and it passes only once.
 *	Without the nested check B returns with stale entries in the writer's
 *	TLB, and the values change unnoticed.
 *
 * The same functions are the negative controls: walk A stands at a gate before its
 * flush until B is done, so that each round meets the race; with the step left out
 * stores are lost, and without that none is.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "agent.h"
#include "faults.h"
#include "kselftest_harness.h"

/* The writer's pages, at the start of the file. */
#define HOT	32UL
/* All pages: walk A goes on over the rest while its flush is pending. */
#define PAGES	(16 * PMD_PAGES)
#define ROUNDS	40U
#define GATE_ROUNDS	5U

/* The CPUs of the two walks and the writer; the main thread is walk B. */
enum { CPU_B, CPU_A, CPU_WRITER, NR_TEST_CPUS };

/* What the threads and the writer's process share. */
struct shared {
	_Atomic uint64_t passes;	/* the writer's passes over all hot pages */
	_Atomic uint64_t a_started, a_done;	/* rounds of walk A */
	_Atomic uint64_t a_wanted;	/* rounds that walk A is to do */
	atomic_bool stop;		/* ends walk A */
	atomic_bool writer_stop, writer_parked;
};

enum kind { PROTECT, CLEAN };

struct race {
	int dev, fd;
	enum kind kind;
	bool writer_process;
	struct shared *shared;
	char *map;
	pthread_t writer, a;
	pid_t writer_pid;
	unsigned int rounds;	/* of the second observation, */
	unsigned int observed;	/* those in which B came second, */
	unsigned int overlapped;	/* and A's call had not returned when B's did */
	uint64_t shadow[HOT];
	pthread_mutex_t shadow_lock;
	uint64_t errors;
};

static void *writer_loop(void *arg)
{
	struct race *race = arg;
	struct shared *s = race->shared;
	uint64_t value = 0;
	size_t i;

	pin_to_cpu(CPU_WRITER);
	while (!atomic_load_explicit(&s->writer_stop, memory_order_acquire)) {
		value++;
		for (i = 0; i < HOT; i++)
			store(race->map, i, value);
		atomic_fetch_add_explicit(&s->passes, 1, memory_order_release);
	}
	atomic_store(&s->writer_parked, true);
	return NULL;
}

/* Wait until *@what has reached @value. False after @ms milliseconds. */
static bool wait_for(_Atomic uint64_t *what, uint64_t value, unsigned int ms)
{
	uint64_t end = now_ns() + ms * 1000000ULL;

	while (atomic_load_explicit(what, memory_order_acquire) < value)
		if (now_ns() > end)
			return false;
	return true;
}

/* The value in a page, read in a way that leaves all page tables alone. */
static uint64_t value_of(struct race *race, size_t page)
{
	uint64_t value = 0;

	if (pread(race->fd, &value, sizeof(value), page * page_size()) != sizeof(value))
		race->errors++;
	return value;
}

/*
 * Let the writer store to each page at least once from now on: of the two
 * passes to wait for, the first may have begun before.
 */
static bool wait_for_pass(struct race *race, unsigned int ms)
{
	return wait_for(&race->shared->passes, atomic_load(&race->shared->passes) + 2, ms);
}

static int race_start(struct race *race)
{
	struct shared *s;

	s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (s == MAP_FAILED)
		return -errno;
	race->shared = s;
	memset(race->shadow, 0, sizeof(race->shadow));
	pthread_mutex_init(&race->shadow_lock, NULL);
	race->fd = new_memfd(PAGES);
	race->map = reserve(PAGES, 0);
	if (race->fd < 0 || !race->map ||
	    !map_at(race->map, race->fd, 0, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED))
		return -errno;
	store_range(race->map, 0, PAGES, 0);
	if (race->writer_process) {
		race->writer_pid = fork();
		if (race->writer_pid < 0)
			return -errno;
		if (race->writer_pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			store_range(race->map, 0, PAGES, 0);
			writer_loop(race);
			/* Exit only when told: the entries must stay. */
			while (true)
				pause();
		}
		/* Only the writer's process shall have entries that are stored through. */
		munmap(race->map, PAGES * page_size());
	} else if (pthread_create(&race->writer, NULL, writer_loop, race)) {
		return -EAGAIN;
	}
	pin_to_cpu(CPU_B);
	return wait_for_pass(race, 20000) ? 0 : -ETIMEDOUT;
}

static void race_stop_writer(struct race *race)
{
	atomic_store(&race->shared->writer_stop, true);
	while (!atomic_load(&race->shared->writer_parked))
		sched_yield();
}

static void race_end(struct race *race)
{
	race_stop_writer(race);
	if (race->writer_process) {
		kill(race->writer_pid, SIGKILL);
		waitpid(race->writer_pid, NULL, 0);
	} else {
		pthread_join(race->writer, NULL);
		munmap(race->map, PAGES * page_size());
	}
	munmap(race->shared, sizeof(*race->shared));
	close(race->fd);
}

/* Walk A: once over everything for each round that is wanted. */
static void *walk_a(void *arg)
{
	struct race *race = arg;
	struct shared *s = race->shared;
	uint64_t round = 0;

	pin_to_cpu(CPU_A);
	while (true) {
		while (atomic_load(&s->a_wanted) == round)
			if (atomic_load(&s->stop))
				return NULL;
		round++;
		atomic_store(&s->a_started, round);
		if (race->kind == PROTECT) {
			if (write_protect(race->dev, race->fd, 0, PAGES) < 0)
				race->errors++;
		} else if (clean_only(race->dev, race->fd, 0, PAGES) < 0) {
			race->errors++;
		}
		atomic_store(&s->a_done, round);
	}
}

/*
 * One walk of B over the hot pages. Sets a bit in @taken for each page whose
 * entry was changed by it; write_protect tells no pages, only how many.
 */
static int64_t walk_b(struct race *race, struct harvest *taken)
{
	int64_t ret;

	reset_harvest(taken);
	if (race->kind == CLEAN)
		ret = clean_record(race->dev, race->fd, 0, HOT, taken);
	else
		ret = write_protect(race->dev, race->fd, 0, HOT);
	if (ret < 0)
		race->errors++;
	return ret;
}

/*
 * The second observation in @n rounds; the number of lost stores, counted once per
 * page. With @gate, which the fault build alone has, walk A stands before its flush
 * meanwhile. With @loses it ends with the first round that does.
 */
static uint64_t second_walk(struct race *race, unsigned int n, bool with_a, bool gate,
			    bool loses)
{
	struct shared *s = race->shared;
	struct harvest taken = new_harvest(HOT);
	uint64_t before[HOT], lost = 0;
	struct rng rng = { test_seed() };
	unsigned int round;
	int64_t count;
	size_t i;

	/* Nothing but the writer's pages is dirty or writable, so that A flushes at its end. */
	if (race->kind == CLEAN)
		race->errors += clean_only(race->dev, race->fd, 0, PAGES) < 0;
	else
		race->errors += write_protect(race->dev, race->fd, 0, PAGES) < 0;
	if (with_a && pthread_create(&race->a, NULL, walk_a, race))
		return 0;
	for (round = 1; round <= n && !(loses && lost); round++) {
		size_t changed = 0, unseen = 0;

		race->rounds++;

		/* All pages writable and dirty, and walk A at rest. */
		if (!wait_for_pass(race, 10000))
			continue;
		if (with_a) {
			/* The first that comes is A; B passes. */
			if (gate && close_gate(BEFORE_FLUSH, 1))
				race->errors++;
			atomic_store(&s->a_wanted, round);
			wait_for(&s->a_started, round, 10000);
			if (gate)
				race->errors += !wait_at_gate(BEFORE_FLUSH, 1, NULL);
			else	/* A needs a moment to pass the hot pages. */
				spin_us(rng_below(&rng, 300));
		} else {
			/* Alone: the first of B's walks stands for A's. */
			walk_b(race, &taken);
		}
		if (walk_b(race, &taken) == 0) {
			race->overlapped += with_a && atomic_load(&s->a_done) < round;
			for (i = 0; i < HOT; i++)
				before[i] = value_of(race, i);
			if (wait_for_pass(race, 10000)) {
				race->observed++;
				for (i = 0; i < HOT; i++)
					changed += value_of(race, i) != before[i];
				count = walk_b(race, &taken);
				if (race->kind == CLEAN) {
					for (i = 0; i < HOT; i++)
						unseen += !test_bit(taken.bitmap, i);
				} else {
					unseen = count < (int64_t)HOT ? HOT - count : 0;
				}
				/* wait_for_pass() saw a store to each page. */
				if (changed == HOT)
					lost += unseen;
				else
					race->errors++;
			}
		}
		if (gate && open_gate(BEFORE_FLUSH))
			race->errors++;
		if (with_a && !wait_for(&s->a_done, round, 60000))
			race->errors++;
	}
	if (with_a) {
		atomic_store(&s->stop, true);
		pthread_join(race->a, NULL);
	}
	free(taken.bitmap);
	return lost;
}

/* Copy the pages of a harvest; under the lock, so that a later copy is a newer one. */
static void copy_reported(struct race *race, const struct harvest *h)
{
	size_t i;

	pthread_mutex_lock(&race->shadow_lock);
	for (i = 0; i < HOT; i++)
		if (test_bit(h->bitmap, i))
			race->shadow[i] = value_of(race, i);
	pthread_mutex_unlock(&race->shadow_lock);
}

/* A second harvester, or one that write-protects. */
static void *replicate_a(void *arg)
{
	struct race *race = arg;
	struct harvest h = new_harvest(PAGES);

	pin_to_cpu(CPU_A);
	while (!atomic_load(&race->shared->stop)) {
		if (race->kind == PROTECT) {
			if (write_protect(race->dev, race->fd, 0, PAGES) < 0)
				race->errors++;
			continue;
		}
		reset_harvest(&h);
		if (clean_record(race->dev, race->fd, 0, PAGES, &h) < 0)
			race->errors++;
		copy_reported(race, &h);
	}
	free(h.bitmap);
	return NULL;
}

/* The first observation; the number of pages whose shadow is not the memory. */
static uint64_t replicate(struct race *race, unsigned int n)
{
	struct harvest h = new_harvest(PAGES);
	uint64_t lost = 0;
	unsigned int round;
	size_t i;

	if (pthread_create(&race->a, NULL, replicate_a, race))
		return 0;
	for (round = 0; round <= n; round++) {
		if (round == n) {
			/* What is stored after the last harvest but one. */
			wait_for_pass(race, 10000);
			race_stop_writer(race);
			atomic_store(&race->shared->stop, true);
			pthread_join(race->a, NULL);
		} else if (!wait_for_pass(race, 10000)) {
			continue;
		}
		reset_harvest(&h);
		if (clean_record(race->dev, race->fd, 0, PAGES, &h) < 0)
			race->errors++;
		copy_reported(race, &h);
	}
	for (i = 0; i < HOT; i++)
		lost += race->shadow[i] != value_of(race, i);
	free(h.bitmap);
	return lost;
}

FIXTURE(race)
{
	struct race race;
	uint64_t lost;
};

FIXTURE_VARIANT(race)
{
	enum kind kind;
	bool writer_process;
};

FIXTURE_VARIANT_ADD(race, protect_thread) {
	.kind = PROTECT,
};

FIXTURE_VARIANT_ADD(race, clean_thread) {
	.kind = CLEAN,
};

FIXTURE_VARIANT_ADD(race, protect_process) {
	.kind = PROTECT,
	.writer_process = true,
};

FIXTURE_VARIANT_ADD(race, clean_process) {
	.kind = CLEAN,
	.writer_process = true,
};

FIXTURE_SETUP(race)
{
	OPEN_DEV(self->race.dev, MMOPS_DEV);
	if (nr_cpus() < NR_TEST_CPUS)
		SKIP(return, "needs %d CPUs, has %d", NR_TEST_CPUS, nr_cpus());
	self->race.kind = variant->kind;
	self->race.writer_process = variant->writer_process;
}

FIXTURE_TEARDOWN(race)
{
	if (faults_built_in())
		clear_faults();
}

FIXTURE_FAULTS(race);

static void log_rounds(struct __test_metadata *_metadata, FIXTURE_DATA(race) *self)
{
	TH_LOG("%llu stores lost; walk B came second in %u of %u rounds, %u times within A's",
	       (unsigned long long)self->lost, self->race.observed,
	       self->race.rounds, self->race.overlapped);
}

TEST_F_TIMEOUT(race, replicate, TEST_SECONDS)
{
	ASSERT_EQ(0, race_start(&self->race));
	self->lost = replicate(&self->race, rounds(ROUNDS));
	race_end(&self->race);
	ASSERT_EQ(0, self->race.errors);
	ASSERT_EQ(0, self->lost);
}

TEST_F_TIMEOUT(race, one_walk, TEST_SECONDS)
{
	ASSERT_EQ(0, race_start(&self->race));
	self->lost = second_walk(&self->race, rounds(ROUNDS), false, false, false);
	race_end(&self->race);
	ASSERT_EQ(0, self->race.errors);
	ASSERT_EQ(0, self->lost);
}

TEST_F_TIMEOUT(race, two_walks, TEST_SECONDS)
{
	ASSERT_EQ(0, race_start(&self->race));
	self->lost = second_walk(&self->race, rounds(ROUNDS), true, false, false);
	race_end(&self->race);
	ASSERT_EQ(0, self->race.errors);
	ASSERT_EQ(0, self->lost);
	log_rounds(_metadata, self);
}

/*
 * Controls. The first has the gate, and nothing left out.
 */
TEST_FAULTS(race, control_gate_alone)
{
	ASSERT_EQ(0, race_start(&self->race));
	self->lost = second_walk(&self->race, GATE_ROUNDS, true, true, false);
	END_FAULTS();
	race_end(&self->race);
	ASSERT_EQ(0, self->race.errors);
	ASSERT_EQ(0, self->lost);
	/* B came second within A's call, or the other controls prove nothing. */
	ASSERT_GT(self->race.overlapped, 0);
	log_rounds(_metadata, self);
}

TEST_FAULTS(race, control_no_nested_check)
{
	ASSERT_EQ(0, race_start(&self->race));
	ASSERT_EQ(0, set_fault(SKIP_NESTED_CHECK, 1));
	self->lost = second_walk(&self->race, TLB_ROUNDS, true, true, true);
	END_FAULTS();
	race_end(&self->race);
	ASSERT_EQ(0, self->race.errors);
	ASSERT_GT(self->lost, 0);
	log_rounds(_metadata, self);
}

TEST_FAULTS(race, control_no_flush)
{
	ASSERT_EQ(0, race_start(&self->race));
	ASSERT_EQ(0, set_fault(SKIP_FLUSH, 1));
	self->lost = second_walk(&self->race, TLB_ROUNDS, false, false, true);
	END_FAULTS();
	race_end(&self->race);
	ASSERT_EQ(0, self->race.errors);
	ASSERT_GT(self->lost, 0);
	log_rounds(_metadata, self);
}

TEST_FAULTS(race, control_no_flush_replicate)
{
	unsigned int n;

	/* Only what is lost last is still to be seen at the end. */
	for (n = 0; n < TLB_ROUNDS && !self->lost; n++) {
		ASSERT_EQ(0, race_start(&self->race));
		ASSERT_EQ(0, set_fault(SKIP_FLUSH, 1));
		self->lost = replicate(&self->race, 1);
		END_FAULTS();
		race_end(&self->race);
		ASSERT_EQ(0, self->race.errors);
	}
	ASSERT_GT(self->lost, 0);
	TH_LOG("%llu of %lu pages differ, at the end of %u", (unsigned long long)self->lost, HOT,
	       n);
}

TEST_HARNESS_MAIN
