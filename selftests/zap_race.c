// SPDX-License-Identifier: GPL-2.0
/*
 * MMOPS_IOC_ZAP against stores, writeback and everything else that looks at the
 * same pages.
 *
 * Three CPUs: one takes dirty pages of a file away, one cleans the file and
 * writes it back, one stores to the pages through its TLB entries of before,
 * until a page faults. Each page gets one store in a round, so a store that
 * writeback did not see, and that nobody has marked the folio dirty for, is not
 * hidden by a later one. Afterwards the disk has to hold them all.
 *
 * The control marks the folios dirty, and removes their rmap, before the TLB
 * flush: writeback, which begins when the entries are gone, finds the folios
 * unmapped, cleans them, and what is stored until the flush is lost. The zap stands
 * at a gate before its flush meanwhile, and stores go on all the time. With its steps in
 * order, writeback waits for the page-table lock, and nothing is lost.
 *
 * MMOPS_DISK is a directory on a disk file system.
 */
#include <linux/falloc.h>
#include <pthread.h>
#include <stdatomic.h>

#include "faults.h"
#include "kselftest_harness.h"
#include "zap.h"

enum { CPU_ZAP, CPU_CLEAN, CPU_STORE, CPU_MAIN, NR_TEST_CPUS };

#define HOT		64UL
#define ROUNDS		20
#define GATE_ROUNDS	5
/* Far more of a CPU than a pass over all pages takes. */
#define STUCK_CPU_NS	1000000000ULL
/* How long the stores of a round are spread over where nothing does. */
#define SPREAD_US	500

FIXTURE(race)
{
	int dev, fd, direct;
	char *map;
	void *buffer;
	/* Whether writeback and stores come while the zap stands before its flush. */
	bool gate;
	atomic_bool at_gate, stop, stored;
	_Atomic uint64_t passes;
	/* What was stored to the first page, before a round and last. */
	uint64_t value, last;
	/* Threads of a round that are ready, and whether it may begin. */
	atomic_int ready;
	atomic_bool begin, zap_done, clean_done;
	int64_t zapped;
	long faults;
};

FIXTURE_SETUP(race)
{
	const char *dir = getenv("MMOPS_DISK");
	char path[128];

	OPEN_DEV(self->dev, MMOPS_DEV);
	if (!dir)
		SKIP(return, "no MMOPS_DISK");
	if (nr_cpus() < NR_TEST_CPUS)
		SKIP(return, "needs %d CPUs, has %d", NR_TEST_CPUS, nr_cpus());
	snprintf(path, sizeof(path), "%s/mmops-zap-race-%d", dir, getpid());
	self->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ASSERT_GE(self->fd, 0);
	ASSERT_EQ(0, posix_fallocate(self->fd, 0, HOT * page_size()));
	self->direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	unlink(path);
	if (self->direct < 0)
		SKIP(return, "%s has no O_DIRECT", dir);
	ASSERT_EQ(0, posix_memalign(&self->buffer, page_size(), HOT * page_size()));
	/* In one page table, which a zap locks once. */
	self->map = reserve(HOT, 0);
	ASSERT_NE(self->map, NULL);
	ASSERT_NE(NULL, map_at(self->map, self->fd, 0, HOT, PROT_READ | PROT_WRITE, MAP_SHARED));
	/* Each page is a folio of its own. */
	ASSERT_EQ(0, madvise(self->map, HOT * page_size(), MADV_RANDOM));
}

FIXTURE_TEARDOWN(race)
{
	if (faults_built_in())
		clear_faults();
}

FIXTURE_FAULTS(race);

static void spin_until(uint64_t ns)
{
	while (now_ns() < ns)
		;
}

static void wait_for_begin(FIXTURE_DATA(race) *self)
{
	atomic_fetch_add(&self->ready, 1);
	while (!atomic_load(&self->begin))
		;
}

static void *zap_thread(void *arg)
{
	FIXTURE_DATA(race) *self = arg;

	pin_to_cpu(CPU_ZAP);
	wait_for_begin(self);
	self->zapped = zap(self->dev, self->map, HOT);
	atomic_store(&self->zap_done, true);
	return NULL;
}

static void *clean_thread(void *arg)
{
	FIXTURE_DATA(race) *self = arg;

	pin_to_cpu(CPU_CLEAN);
	wait_for_begin(self);
	while (self->gate && !atomic_load(&self->at_gate))
		sched_yield();
	sync_file_range(self->fd, 0, HOT * page_size(), SYNC_FILE_RANGE_WAIT_BEFORE |
			SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
	atomic_store(&self->clean_done, true);
	/* The end of a thread flushes TLBs: its stack goes. */
	while (self->gate && !atomic_load(&self->stored))
		sched_yield();
	return NULL;
}

static void *store_thread(void *arg)
{
	FIXTURE_DATA(race) *self = arg;
	uint64_t start;
	long faults;
	size_t i;

	pin_to_cpu(CPU_STORE);
	/* Dirty, and writable in the TLB of this CPU. */
	store_range(self->map, 0, HOT, self->value);
	faults = minor_faults();
	store_range(self->map, 0, HOT, self->value + 1);
	wait_for_begin(self);
	start = now_ns();
	for (i = 0; i < HOT; i++) {
		spin_until(start + i * SPREAD_US * 1000ULL / HOT);
		store(self->map, i, self->value + 2 + i);
	}
	self->last = self->value + 2;
	self->faults = minor_faults() - faults;
	return NULL;
}

/* With the gate: all pages over and over, which keeps them in the TLB. */
static void *store_loop(void *arg)
{
	FIXTURE_DATA(race) *self = arg;
	uint64_t value = self->value;
	long faults;

	pin_to_cpu(CPU_STORE);
	store_range(self->map, 0, HOT, value);
	faults = minor_faults();
	atomic_fetch_add(&self->ready, 1);
	while (!atomic_load(&self->stop)) {
		store_range(self->map, 0, HOT, value += HOT);
		atomic_fetch_add(&self->passes, 1);
	}
	self->last = value;
	self->faults = minor_faults() - faults;
	atomic_store(&self->stored, true);
	return NULL;
}

/*
 * Whether the loop of stores has not got further for a second of its CPU: it has lost its
 * TLB, and spins in a fault for the lock of the zap.
 */
struct watch {
	uint64_t passes, cpu_ns;
};

static bool is_stuck(FIXTURE_DATA(race) *self, pthread_t store, struct watch *watch)
{
	uint64_t passes = atomic_load(&self->passes), cpu_ns = cpu_ns_of(store);

	if (!watch->cpu_ns || passes != watch->passes)
		*watch = (struct watch){ passes, cpu_ns };
	return cpu_ns > watch->cpu_ns + STUCK_CPU_NS;
}

/*
 * The steps of a round while the zap stands before its flush: writeback, which waits for
 * its lock if all is @in_order, and stores. False if it did not come there.
 */
static bool let_by(FIXTURE_DATA(race) *self, pthread_t clean, pthread_t store, bool in_order)
{
	bool met = wait_at_gate(ZAP_BEFORE_FLUSH, 1, &self->zap_done);
	uint64_t start = cpu_ns_of(clean), passes;
	struct watch watch = {};

	atomic_store(&self->at_gate, true);
	while (!atomic_load(&self->clean_done) && !is_stuck(self, store, &watch)) {
		if (in_order && cpu_ns_of(clean) > start + STEP_CPU_NS)
			break;
		sched_yield();
	}
	passes = atomic_load(&self->passes) + 2;
	while (atomic_load(&self->passes) < passes && !is_stuck(self, store, &watch))
		sched_yield();
	atomic_store(&self->stop, true);
	while (!atomic_load(&self->stored) && !is_stuck(self, store, &watch))
		sched_yield();
	return !open_gate(ZAP_BEFORE_FLUSH) && met;
}

/*
 * @n rounds of the above; the number of stores that did not reach the disk, or ~0.
 * @stale counts those that went through a TLB entry of before. With @loses it ends
 * with the first round that does.
 */
static uint64_t run_rounds(FIXTURE_DATA(race) *self, unsigned int n, bool loses, uint64_t *stale)
{
	void *(*const functions[])(void *) = {
		zap_thread, clean_thread, self->gate ? store_loop : store_thread,
	};
	uint64_t lost = 0;
	unsigned int round;
	size_t i;

	pin_to_cpu(CPU_MAIN);
	for (round = 0; round < n && !(loses && lost); round++) {
		pthread_t threads[3];
		bool met = true;

		self->value += 1ULL << 40;
		atomic_store(&self->ready, 0);
		atomic_store(&self->begin, false);
		atomic_store(&self->at_gate, false);
		atomic_store(&self->stop, false);
		atomic_store(&self->stored, false);
		atomic_store(&self->zap_done, false);
		atomic_store(&self->clean_done, false);
		/* The stores that come before the round are done when all are ready. */
		for (i = 0; i < 3; i++)
			pthread_create(&threads[i], NULL, functions[i], self);
		while (atomic_load(&self->ready) < 3)
			sched_yield();
		if (self->gate && close_gate(ZAP_BEFORE_FLUSH, 1))
			return ~0ULL;
		atomic_store(&self->begin, true);
		if (self->gate)
			met = let_by(self, threads[1], threads[2], !loses);
		for (i = 0; i < 3; i++)
			pthread_join(threads[i], NULL);
		if (!met || self->zapped < 0 || fsync(self->fd) ||
		    pread(self->direct, self->buffer, HOT * page_size(), 0) !=
		    (ssize_t)(HOT * page_size()))
			return ~0ULL;
		*stale += HOT - min((uint64_t)self->faults, HOT);
		for (i = 0; i < HOT; i++)
			lost += load(self->buffer, i) != self->last + i;
	}
	return lost;
}

TEST_F_TIMEOUT(race, writeback, TEST_SECONDS)
{
	uint64_t stale = 0;

	ASSERT_EQ(0, run_rounds(self, rounds(5 * ROUNDS), false, &stale));
	TH_LOG("%llu stores did not fault", (unsigned long long)stale);
}

TEST_FAULTS(race, control_mark_before_flush)
{
	uint64_t stale = 0, lost;
	unsigned int round;

	self->gate = true;
	/* The same, with the steps in order: nothing is lost. */
	for (round = 0; round < TLB_ROUNDS && (round < GATE_ROUNDS || !stale); round++)
		ASSERT_EQ(0, run_rounds(self, 1, false, &stale));
	ASSERT_GT(stale, 0);
	TH_LOG("in order: %llu stale stores, none lost", (unsigned long long)stale);

	stale = 0;
	ASSERT_EQ(0, set_fault(MARK_BEFORE_FLUSH, 1));
	lost = run_rounds(self, TLB_ROUNDS, true, &stale);
	TH_LOG("marked before the flush: %llu stale stores, %llu lost",
	       (unsigned long long)stale, (unsigned long long)lost);
	ASSERT_NE(~0ULL, lost);
	ASSERT_GT(lost, 0);
}

/*
 * Everything at once on shared memory: zap, madvise(), reclaim, fork(),
 * compaction and a hole punched beside, while each page has one writer that
 * counts it up and must find what it stored last.
 */
#define STRESS_PAGES	2048UL
#define STRESS_SECONDS	6
#define NR_WRITERS	2

struct stress {
	int dev, fd;
	char *map;
	atomic_bool stop;
	_Atomic uint64_t bad, stores, zaps, failed;
};

struct stress_thread {
	struct stress *stress;
	unsigned int number;
	struct rng rng;
};

static void *stress_writer(void *arg)
{
	struct stress_thread *t = arg;
	uint64_t *last = calloc(STRESS_PAGES, sizeof(*last));

	while (!atomic_load(&t->stress->stop)) {
		size_t page = rng_below(&t->rng, STRESS_PAGES / NR_WRITERS) * NR_WRITERS +
			      t->number;

		if (load(t->stress->map, page) != last[page]) {
			atomic_fetch_add(&t->stress->bad, 1);
			break;
		}
		store(t->stress->map, page, ++last[page]);
		atomic_fetch_add(&t->stress->stores, 1);
	}
	free(last);
	return NULL;
}

static void *stress_zapper(void *arg)
{
	struct stress_thread *t = arg;

	while (!atomic_load(&t->stress->stop)) {
		size_t first = rng_below(&t->rng, STRESS_PAGES);
		size_t nr = 1 + rng_below(&t->rng, STRESS_PAGES - first);
		int64_t ret = zap(t->stress->dev, t->stress->map + first * page_size(), nr);

		atomic_fetch_add(&t->stress->zaps, 1);
		atomic_fetch_add(&t->stress->failed, ret < 0);
	}
	return NULL;
}

static void *stress_other(void *arg)
{
	struct stress_thread *t = arg;
	struct stress *s = t->stress;

	while (!atomic_load(&s->stop)) {
		size_t first = rng_below(&t->rng, STRESS_PAGES);
		size_t bytes = (1 + rng_below(&t->rng, STRESS_PAGES - first)) * page_size();
		char *at = s->map + first * page_size();

		switch (rng_below(&t->rng, 6)) {
		case 0:
			madvise(at, bytes, MADV_DONTNEED);
			break;
		case 1:
			madvise(at, bytes, MADV_PAGEOUT);
			break;
		case 2:
			store_range(s->map, STRESS_PAGES, 64, 1);
			fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  STRESS_PAGES * page_size(), 64 * page_size());
			break;
		case 3: {
			pid_t child = fork();

			if (!child) {
				load_range(s->map, 0, 16);
				_exit(0);
			}
			if (child > 0)
				waitpid(child, NULL, 0);
			break;
		}
		case 4:
			write_file("/proc/sys/vm/compact_memory", "1");
			break;
		default:
			mprotect(at, bytes, PROT_READ | PROT_WRITE);
		}
	}
	return NULL;
}

TEST_F_TIMEOUT(race, everything_at_once, TEST_SECONDS)
{
	static void *(*const functions[])(void *) = {
		stress_writer, stress_writer, stress_zapper, stress_zapper, stress_other,
	};
	struct stress_thread args[ARRAY_SIZE(functions)];
	pthread_t threads[ARRAY_SIZE(functions)];
	struct stress s = { .dev = self->dev };
	size_t i;

	s.fd = new_memfd(STRESS_PAGES + 64);
	s.map = map_shared(s.fd, 0, STRESS_PAGES + 64);
	ASSERT_NE(s.map, NULL);
	for (i = 0; i < ARRAY_SIZE(functions); i++) {
		args[i] = (struct stress_thread){ &s, i, { test_seed() + i } };
		pthread_create(&threads[i], NULL, functions[i], &args[i]);
	}
	sleep(STRESS_SECONDS);
	atomic_store(&s.stop, true);
	for (i = 0; i < ARRAY_SIZE(functions); i++)
		pthread_join(threads[i], NULL);
	TH_LOG("%llu stores, %llu zaps", (unsigned long long)s.stores, (unsigned long long)s.zaps);
	ASSERT_EQ(0, s.bad);
	ASSERT_EQ(0, s.failed);
	ASSERT_GT(s.stores, 0);
	ASSERT_GT(s.zaps, 0);
}

TEST_HARNESS_MAIN
