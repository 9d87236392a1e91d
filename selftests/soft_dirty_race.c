// SPDX-License-Identifier: GPL-2.0
/*
 * Clearing of soft-dirty bits against a writer on another CPU, alone and with
 * the others that change the same entries: a harvest, and writeback.
 *
 * What has to hold, always: a page that is stored to after a clear has returned
 * reads as soft-dirty. After the clear the test looks at the values, lets the
 * writer pass over all pages, and looks again: a page whose value has changed
 * and that is not soft-dirty was stored to through a stale TLB entry.
 *
 * Four CPUs, as Yu Zhao described them: one harvests (clean_record takes the
 * dirty bit), one clears soft-dirty (takes the write permission), and both have
 * their flush still to come. Writeback on a third finds an entry that is neither
 * dirty nor writable, and flushes nothing. The writer still stores through what
 * its TLB has. Whoever comes next must not rely on the entry alone: a second
 * clear finds nothing to do, and has to flush because others are pending. And
 * the harvest has to mark the pages dirty after its flush, or the stores would
 * never reach the disk.
 *
 * The same functions are the negative controls. The harvest and the first clear
 * stand at a gate before their flush until the others are done, so that each round
 * meets the race; with the step left out stores are lost, without that none is.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "faults.h"
#include "kselftest_harness.h"
#include "notifier.h"

#define HOT		32UL	/* pages that the writer stores to */
#define ROUNDS		40U
#define GATE_ROUNDS	5U

enum { CPU_MAIN, CPU_HARVEST, CPU_WRITER, CPU_CLEAR, NR_TEST_CPUS };

/* A thread that makes one call for each round that is wanted. */
struct caller {
	pthread_t thread;
	_Atomic uint64_t wanted, started, done;
};

struct race {
	int dev, fd, pagemap;
	char *map, path[256];
	_Atomic uint64_t passes, errors;
	atomic_bool stop, writer_stop;
	pthread_t writer, syncer;
	struct caller harvester, clearer;
	unsigned int rounds, observed, overlapped;
	uint64_t shadow[HOT];
};

static void *writer_loop(void *arg)
{
	struct race *race = arg;
	uint64_t value = 0;

	pin_to_cpu(CPU_WRITER);
	while (!atomic_load_explicit(&race->writer_stop, memory_order_acquire)) {
		store_range(race->map, 0, HOT, ++value);
		atomic_fetch_add_explicit(&race->passes, 1, memory_order_release);
	}
	return NULL;
}

static bool wait_for(_Atomic uint64_t *what, uint64_t value)
{
	uint64_t end = now_ns() + 60000000000ULL;

	while (atomic_load_explicit(what, memory_order_acquire) < value)
		if (now_ns() > end)
			return false;
	return true;
}

/* Of the two passes to wait for, the first may have begun before. */
static void wait_for_pass(struct race *race)
{
	if (!wait_for(&race->passes, atomic_load(&race->passes) + 2))
		race->errors++;
}

static int race_start(struct race *race)
{
	race->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (race->pagemap < 0)
		return -errno;
	if (race->fd < 0)
		race->map = mmap(NULL, HOT * page_size(), PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	else
		race->map = map_shared(race->fd, 0, HOT);
	if (!race->map || race->map == MAP_FAILED)
		return -errno;
	pin_to_cpu(CPU_MAIN);
	if (pthread_create(&race->writer, NULL, writer_loop, race))
		return -EAGAIN;
	wait_for_pass(race);
	return 0;
}

static void race_end(struct race *race)
{
	atomic_store(&race->writer_stop, true);
	pthread_join(race->writer, NULL);
}

/* Clear; the number of pages that were soft-dirty. */
static int64_t clear(struct race *race)
{
	int64_t ret = soft_dirty_clear(race->dev, race->map, HOT);

	if (ret < 0)
		race->errors++;
	return ret;
}

/* The number of stores from now on that are not seen. */
static uint64_t unseen(struct race *race)
{
	uint64_t before[HOT], entries[HOT], lost = 0;
	size_t i, changed = 0;

	for (i = 0; i < HOT; i++)
		before[i] = load(race->map, i);
	wait_for_pass(race);
	if (pread(race->pagemap, entries, sizeof(entries),
		  (uintptr_t)race->map / page_size() * sizeof(entries[0])) != sizeof(entries))
		race->errors++;
	for (i = 0; i < HOT; i++) {
		/* wait_for_pass() saw a store to each page. */
		changed += load(race->map, i) != before[i];
		lost += !(entries[i] & PAGEMAP_SOFT_DIRTY);
	}
	if (changed != HOT)
		race->errors++;
	return lost;
}

/* With @loses it ends with the first round that does. */
static uint64_t clear_and_look(struct race *race, unsigned int n, bool loses)
{
	uint64_t lost = 0;
	unsigned int round;

	for (round = 0; round < n && !(loses && lost); round++) {
		if (clear(race) == (int64_t)HOT)
			race->observed++;
		lost += unseen(race);
	}
	return lost;
}

/*
 * Against a writer alone
 */
FIXTURE(writer)
{
	struct race race;
	uint64_t lost;
};

FIXTURE_VARIANT(writer)
{
	bool file;
};

FIXTURE_VARIANT_ADD(writer, anon) { .file = false };
FIXTURE_VARIANT_ADD(writer, memfd) { .file = true };

FIXTURE_SETUP(writer)
{
	OPEN_DEV(self->race.dev, MMOPS_DEV);
	if (nr_cpus() < NR_TEST_CPUS)
		SKIP(return, "needs %d CPUs, has %d", NR_TEST_CPUS, nr_cpus());
	self->race.fd = variant->file ? new_memfd(HOT) : -1;
}

FIXTURE_TEARDOWN(writer)
{
	if (faults_built_in())
		clear_faults();
}

FIXTURE_FAULTS(writer);

TEST_F_TIMEOUT(writer, clear, TEST_SECONDS)
{
	ASSERT_EQ(0, race_start(&self->race));
	self->lost = clear_and_look(&self->race, rounds(ROUNDS), false);
	race_end(&self->race);
	ASSERT_EQ(0, self->race.errors);
	ASSERT_EQ(0, self->lost);
	ASSERT_GT(self->race.observed, rounds(ROUNDS) / 2);
}

TEST_FAULTS(writer, control_no_flush)
{
	ASSERT_EQ(0, race_start(&self->race));
	ASSERT_EQ(0, set_fault(SKIP_FLUSH, 1));
	self->lost = clear_and_look(&self->race, TLB_ROUNDS, true);
	END_FAULTS();
	race_end(&self->race);
	ASSERT_EQ(0, self->race.errors);
	ASSERT_GT(self->lost, 0);
	TH_LOG("%llu stores lost", (unsigned long long)self->lost);
}

/*
 * Against a writer whose pages migrate: one after the other is taken out of use,
 * and a clear that comes meanwhile meets a writable migration entry. If it stays
 * that, the page comes back writable.
 */
struct migrator {
	struct race *race;
	pthread_t thread;
	unsigned int nr, moved;
	_Atomic unsigned int wanted;	/* of the controls, which have them one by one */
	atomic_bool done;
	bool unknown;
};

static void migrate_page(struct migrator *migrator, unsigned int i)
{
	if (!madvise(migrator->race->map + i % HOT * page_size(), page_size(), MADV_SOFT_OFFLINE))
		migrator->moved++;
	else if (errno == EINVAL)
		migrator->unknown = true;
}

static void *migrator_loop(void *arg)
{
	struct migrator *migrator = arg;
	unsigned int i;

	pin_to_cpu(CPU_HARVEST);
	for (i = 0; i < migrator->nr; i++)
		migrate_page(migrator, i);
	atomic_store(&migrator->done, true);
	return NULL;
}

TEST_F_TIMEOUT(writer, migrating, TEST_SECONDS)
{
	struct migrator migrator = { .race = &self->race, .nr = rounds(50) };
	unsigned int clears = 0;

	ASSERT_EQ(0, race_start(&self->race));
	ASSERT_EQ(0, pthread_create(&migrator.thread, NULL, migrator_loop, &migrator));
	while (!atomic_load(&migrator.done)) {
		self->lost += clear_and_look(&self->race, 1, false);
		clears++;
	}
	pthread_join(migrator.thread, NULL);
	race_end(&self->race);
	ASSERT_EQ(0, self->race.errors);
	if (migrator.unknown)
		SKIP(return, "the kernel is without CONFIG_MEMORY_FAILURE");
	TH_LOG("%u migrations, %u clears, %llu stores lost", migrator.moved, clears,
	       (unsigned long long)self->lost);
	ASSERT_EQ(0, self->lost);
}

static void *migrator_rounds(void *arg)
{
	struct migrator *migrator = arg;
	unsigned int i;

	pin_to_cpu(CPU_HARVEST);
	for (i = 0; i < migrator->nr; i++) {
		while (atomic_load(&migrator->wanted) <= i)
			sched_yield();
		migrate_page(migrator, i);
		atomic_store(&migrator->done, true);
	}
	return NULL;
}

/*
 * A page is held where its migration entry is in place, and is cleared. A
 * subscriber that stands at a gate holds it: it was told of the end of an
 * invalidation, and nothing but the migration makes one meanwhile.
 */
static void clear_while_migrating(struct __test_metadata *_metadata, FIXTURE_DATA(writer) *self)
{
	struct migrator migrator = { .race = &self->race, .nr = GATE_ROUNDS };
	unsigned int i, held = 0;

	ASSERT_EQ(0, subscribe(self->race.dev, NULL, 0, MMOPS_NOTIFIER_MM));
	ASSERT_EQ(0, race_start(&self->race));
	ASSERT_EQ(0, pthread_create(&migrator.thread, NULL, migrator_rounds, &migrator));
	/* The first clear of a mapping waits for faults, and so for a migration. */
	clear(&self->race);
	for (i = 0; i < GATE_ROUNDS; i++) {
		bool met;

		/* All are writable. */
		wait_for_pass(&self->race);
		atomic_store(&migrator.done, false);
		ASSERT_EQ(0, close_gate(INVALIDATION_ENDED, 1));
		atomic_store(&migrator.wanted, i + 1);
		met = wait_at_gate(INVALIDATION_ENDED, 1, &migrator.done);
		clear(&self->race);
		ASSERT_EQ(0, open_gate(INVALIDATION_ENDED));
		while (!atomic_load(&migrator.done))
			sched_yield();
		held += met;
		self->lost += unseen(&self->race);
	}
	pthread_join(migrator.thread, NULL);
	race_end(&self->race);
	ASSERT_EQ(0, self->race.errors);
	if (migrator.unknown)
		SKIP(return, "the kernel is without CONFIG_MEMORY_FAILURE");
	TH_LOG("%u of %u migrations were held, %llu stores lost", held, migrator.moved,
	       (unsigned long long)self->lost);
	ASSERT_GT(held, 0);
	ASSERT_EQ(held, get_fault(MIGRATIONS_MET));
}

TEST_FAULTS(writer, control_migration_is_met)
{
	clear_while_migrating(_metadata, self);
	ASSERT_EQ(0, self->lost);
}

TEST_FAULTS(writer, control_migration_stays_writable)
{
	ASSERT_EQ(0, set_fault(KEEP_MIGRATION_WRITABLE, 1));
	clear_while_migrating(_metadata, self);
	/* One page in each migration that was held. */
	ASSERT_GT(self->lost, 0);
}

/*
 * Four CPUs
 */
FIXTURE(four)
{
	struct race race;
	uint64_t lost;
};

FIXTURE_SETUP(four)
{
	const char *disk = getenv("MMOPS_DISK");
	struct race *race = &self->race;

	OPEN_DEV(race->dev, MMOPS_DEV);
	if (nr_cpus() < NR_TEST_CPUS)
		SKIP(return, "needs %d CPUs, has %d", NR_TEST_CPUS, nr_cpus());
	if (!disk)
		SKIP(return, "MMOPS_DISK has to name a directory on a disk file system");
	snprintf(race->path, sizeof(race->path), "%s/soft_dirty_race.%d", disk, getpid());
	race->fd = open(race->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (race->fd < 0)
		SKIP(return, "cannot create %s: %s", race->path, strerror(errno));
	ASSERT_EQ(0, ftruncate(race->fd, HOT * page_size()));
}

FIXTURE_TEARDOWN(four)
{
	if (faults_built_in())
		clear_faults();
	if (self->race.path[0])
		unlink(self->race.path);
}

FIXTURE_FAULTS(four);

/* Harvest, and copy what was dirty. */
static void harvest(struct race *race, struct harvest *h)
{
	size_t i;

	reset_harvest(h);
	if (clean_record(race->dev, race->fd, 0, HOT, h) < 0)
		race->errors++;
	for (i = 0; i < HOT; i++)
		if (test_bit(h->bitmap, i))
			race->shadow[i] = load(race->map, i);
}

static void *harvester_loop(void *arg)
{
	struct race *race = arg;
	struct harvest h = new_harvest(HOT);

	pin_to_cpu(CPU_HARVEST);
	while (!atomic_load(&race->stop))
		harvest(race, &h);
	free(h.bitmap);
	return NULL;
}

static void *syncer_loop(void *arg)
{
	struct race *race = arg;

	pin_to_cpu(CPU_CLEAR);
	while (!atomic_load(&race->stop))
		if (fdatasync(race->fd))
			race->errors++;
	return NULL;
}

/* The number of pages of the file on disk that are not what was stored last. */
static uint64_t disk_differs(struct race *race)
{
	uint64_t values[HOT], value, differs = 0;
	size_t i;

	for (i = 0; i < HOT; i++)
		values[i] = load(race->map, i);
	munmap(race->map, HOT * page_size());
	if (fdatasync(race->fd) || posix_fadvise(race->fd, 0, 0, POSIX_FADV_DONTNEED))
		race->errors++;
	for (i = 0; i < HOT; i++) {
		if (pread(race->fd, &value, sizeof(value), i * page_size()) != sizeof(value))
			race->errors++;
		differs += value != values[i];
	}
	return differs;
}

/* All four at their own pace. */
TEST_F_TIMEOUT(four, free_running, TEST_SECONDS)
{
	struct race *race = &self->race;
	struct harvest h = new_harvest(HOT);
	uint64_t behind = 0;
	size_t i;

	ASSERT_EQ(0, race_start(race));
	ASSERT_EQ(0, pthread_create(&race->harvester.thread, NULL, harvester_loop, race));
	ASSERT_EQ(0, pthread_create(&race->syncer, NULL, syncer_loop, race));
	self->lost = clear_and_look(race, rounds(ROUNDS), false);
	race_end(race);
	atomic_store(&race->stop, true);
	pthread_join(race->harvester.thread, NULL);
	pthread_join(race->syncer, NULL);
	harvest(race, &h);
	for (i = 0; i < HOT; i++)
		behind += race->shadow[i] != load(race->map, i);
	/* Writeback takes dirty bits from a harvest as well; but never both lose a store. */
	TH_LOG("%llu of %lu pages were left to writeback", (unsigned long long)behind, HOT);
	ASSERT_EQ(0, disk_differs(race));
	ASSERT_EQ(0, race->errors);
	ASSERT_EQ(0, self->lost);
}

static void *harvester_rounds(void *arg)
{
	struct race *race = arg;
	struct harvest h = new_harvest(HOT);
	uint64_t round;

	pin_to_cpu(CPU_HARVEST);
	for (round = 1; !atomic_load(&race->stop); round++) {
		while (atomic_load(&race->harvester.wanted) < round)
			if (atomic_load(&race->stop))
				goto out;
		atomic_store(&race->harvester.started, round);
		harvest(race, &h);
		atomic_store(&race->harvester.done, round);
	}
out:
	free(h.bitmap);
	return NULL;
}

static void *clearer_rounds(void *arg)
{
	struct race *race = arg;
	uint64_t round;

	pin_to_cpu(CPU_CLEAR);
	for (round = 1; !atomic_load(&race->stop); round++) {
		while (atomic_load(&race->clearer.wanted) < round)
			if (atomic_load(&race->stop))
				return NULL;
		atomic_store(&race->clearer.started, round);
		clear(race);
		atomic_store(&race->clearer.done, round);
	}
	return NULL;
}

/* Begin the call of a round, and let it get to the gate, as the first or second. */
static void begin(struct race *race, struct caller *caller, uint64_t round, unsigned int nr)
{
	atomic_store(&caller->wanted, round);
	if (!wait_at_gate(BEFORE_FLUSH, nr, NULL))
		race->errors++;
}

/*
 * One after the other, each while those before stand before their flush. With
 * @loses it ends with the first round that does.
 */
static uint64_t in_step(struct race *race, bool loses)
{
	unsigned int round, nr = loses ? TLB_ROUNDS : GATE_ROUNDS;
	uint64_t lost = 0;

	if (pthread_create(&race->harvester.thread, NULL, harvester_rounds, race) ||
	    pthread_create(&race->clearer.thread, NULL, clearer_rounds, race))
		return 0;
	for (round = 1; round <= nr && !(loses && lost); round++) {
		/* All pages writable, dirty and soft-dirty. */
		wait_for_pass(race);
		if (close_gate(BEFORE_FLUSH, 2))
			race->errors++;
		begin(race, &race->harvester, round, 1);
		begin(race, &race->clearer, round, 2);
		if (fdatasync(race->fd))
			race->errors++;
		if (clear(race) == 0) {
			race->observed++;
			race->overlapped += atomic_load(&race->harvester.done) < round &&
					    atomic_load(&race->clearer.done) < round;
			lost += unseen(race);
		}
		race->rounds++;
		if (open_gate(BEFORE_FLUSH) || !wait_for(&race->harvester.done, round) ||
		    !wait_for(&race->clearer.done, round))
			race->errors++;
	}
	atomic_store(&race->stop, true);
	pthread_join(race->harvester.thread, NULL);
	pthread_join(race->clearer.thread, NULL);
	return lost;
}

static void log_rounds(struct __test_metadata *_metadata, FIXTURE_DATA(four) *self)
{
	TH_LOG("%llu stores lost; second clear found nothing in %u of %u rounds, %u within both",
	       (unsigned long long)self->lost, self->race.observed,
	       self->race.rounds, self->race.overlapped);
}

TEST_FAULTS(four, control_gate_alone)
{
	ASSERT_EQ(0, race_start(&self->race));
	self->lost = in_step(&self->race, false);
	END_FAULTS();
	race_end(&self->race);
	log_rounds(_metadata, self);
	ASSERT_EQ(0, disk_differs(&self->race));
	ASSERT_EQ(0, self->race.errors);
	ASSERT_EQ(0, self->lost);
	/* All three were within each other, or the other control proves nothing. */
	ASSERT_GT(self->race.overlapped, 0);
}

TEST_FAULTS(four, control_no_pending)
{
	ASSERT_EQ(0, race_start(&self->race));
	ASSERT_EQ(0, set_fault(SKIP_PENDING, 1));
	self->lost = in_step(&self->race, true);
	END_FAULTS();
	race_end(&self->race);
	log_rounds(_metadata, self);
	ASSERT_EQ(0, self->race.errors);
	ASSERT_GT(self->lost, 0);
}

TEST_HARNESS_MAIN
