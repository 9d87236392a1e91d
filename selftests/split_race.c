// SPDX-License-Identifier: GPL-2.0
/*
 * MMOPS_SPLIT against what else happens to a PMD leaf of shmem on other CPUs:
 * stores and page faults, mprotect(), MADV_DONTNEED and munmap().
 *
 * A leaf is split in place: it is invalidated, and a PTE table that maps the same
 * pages is put in its place. Who looks at the entry without its lock meanwhile
 * has to find a leaf and to wait. In each round a new leaf is split by one thread
 * while another does one of these things. Then
 *
 * stores: each page has the value that was stored to it last, and a page whose
 *	copy, made when a harvest reported it, is not the memory must be reported
 *	by the last harvest;
 * mprotect(PROT_READ): no page can be stored to any more;
 * MADV_DONTNEED, munmap(): no entry is left, nothing maps the pages, and the
 *	folio is dirty if any of its pages was stored to.
 *
 * In the fault build the split stands at a gate where the leaf is invalid, until the
 * other thread waits for the page-table lock, or is done without it. As the control
 * it leaves the entry cleared there, as a split by pmdp_huge_clear_flush() would:
 * then mprotect() and MADV_DONTNEED pass over what is about to be mapped again.
 * munmap() is no control: it would free the table with entries in it, and the
 * kernel would say so.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "faults.h"
#include "kselftest_harness.h"

#define PAGES		PMD_PAGES
#define ROUNDS		60U
#define GATE_ROUNDS	3U
#define KPF_DIRTY	4
/* A call that splits takes about as long. */
#define SPREAD_NS	3000000

enum { CPU_OTHER, CPU_SPLIT, CPU_WRITER, NR_TEST_CPUS };
enum op { STORES, MPROTECT, DONTNEED, MUNMAP };

struct race {
	int dev, fd;
	char *map;
	bool protect;			/* split by write_protect, not by clean_record */
	atomic_bool go, split_done, stop;
	/* With the gate a thread of its own does what the split is raced against. */
	atomic_bool op_go, op_done;
	enum op op;
	int op_ret;
	_Atomic uint64_t passes;
	int64_t ret;
	struct harvest h;
	uint64_t shadow[PAGES];
	unsigned int within;		/* rounds in which the split came back later */
	/* What is wrong, in pages. */
	unsigned int entries, huge, mapped, clean, unseen, values;
};

/* A word of /proc/kpageflags or kpagecount for a page frame, or ~0. */
static uint64_t kpage(const char *path, uint64_t pfn)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t word = ~0ULL;

	if (fd < 0)
		return word;
	if (pread(fd, &word, sizeof(word), pfn * sizeof(word)) != sizeof(word))
		word = ~0ULL;
	close(fd);
	return word;
}

static uint64_t value_of(struct race *race, size_t page)
{
	uint64_t value = ~0ULL;

	if (pread(race->fd, &value, sizeof(value), page * page_size()) != sizeof(value))
		return ~0ULL;
	return value;
}

static void copy_reported(struct race *race)
{
	size_t i;

	for (i = 0; i < PAGES; i++)
		if (test_bit(race->h.bitmap, i))
			race->shadow[i] = value_of(race, i);
}

static void *splitter(void *arg)
{
	struct race *race = arg;

	pin_to_cpu(CPU_SPLIT);
	while (!atomic_load(&race->go))
		;
	if (race->protect)
		race->ret = write_protect_flags(race->dev, race->fd, 0, PAGES, MMOPS_SPLIT);
	else
		race->ret = clean_record_flags(race->dev, race->fd, 0, PAGES, &race->h,
					       MMOPS_SPLIT);
	atomic_store(&race->split_done, true);
	return NULL;
}

/* Ever higher values in all pages. A page's value says how often it was stored to. */
static void *writer(void *arg)
{
	struct race *race = arg;
	uint64_t pass = 1;
	size_t i;

	pin_to_cpu(CPU_WRITER);
	while (!atomic_load(&race->stop)) {
		pass++;
		for (i = 0; i < PAGES; i++)
			store(race->map, i, pass << 32 | i);
		atomic_store(&race->passes, pass);
	}
	return NULL;
}

static void wait_for_passes(struct race *race, unsigned int n)
{
	uint64_t until = atomic_load(&race->passes) + n, end = now_ns() + 20000000000ULL;

	while (atomic_load(&race->passes) < until && now_ns() < end)
		sched_yield();
}

FIXTURE(split)
{
	struct race race;
	char *place;
	struct rng rng;
	bool set;
};

FIXTURE_VARIANT(split)
{
	bool protect;
};

FIXTURE_VARIANT_ADD(split, by_clean) {
	.protect = false,
};

FIXTURE_VARIANT_ADD(split, by_protect) {
	.protect = true,
};

FIXTURE_SETUP(split)
{
	struct race *race = &self->race;

	OPEN_DEV(race->dev, MMOPS_DEV);
	if (nr_cpus() < NR_TEST_CPUS)
		SKIP(return, "needs %d CPUs, has %d", NR_TEST_CPUS, nr_cpus());
	if (write_file(SHMEM_ENABLED, "advise"))
		SKIP(return, "cannot set " SHMEM_ENABLED);
	self->set = true;
	self->place = reserve(PAGES, 0);
	ASSERT_NE(self->place, NULL);
	race->h = new_harvest(PAGES);
	ASSERT_NE(race->h.bitmap, NULL);
	race->protect = variant->protect;
	self->rng.state = test_seed();
	pin_to_cpu(CPU_OTHER);
}

FIXTURE_TEARDOWN(split)
{
	if (faults_built_in())
		clear_faults();
	/* The kernel's default */
	if (self->set)
		write_file(SHMEM_ENABLED, "never");
}

FIXTURE_FAULTS(split);

/* A new file in one clean leaf. The page frame of the leaf, or 0. */
static uint64_t new_leaf(FIXTURE_DATA(split) *self)
{
	struct race *race = &self->race;

	race->fd = new_memfd(PAGES);
	race->map = map_at(self->place, race->fd, 0, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	if (race->fd < 0 || !race->map || madvise(race->map, pmd_size(), MADV_HUGEPAGE))
		return 0;
	/* Read first: the folio is clean, and the stores are known to the entry alone. */
	load(race->map, 0);
	if (smaps_kb(race->map, "ShmemPmdMapped") != (long)(pmd_size() / 1024))
		return 0;
	/* khugepaged is not to put a leaf back. */
	if (madvise(race->map, pmd_size(), MADV_NOHUGEPAGE))
		return 0;
	atomic_store(&race->go, false);
	atomic_store(&race->stop, false);
	atomic_store(&race->split_done, false);
	atomic_store(&race->op_go, false);
	atomic_store(&race->op_done, false);
	atomic_store(&race->passes, 0);
	memset(race->shadow, 0, sizeof(race->shadow));
	reset_harvest(&race->h);
	return pagemap_entry(race->map) & PAGEMAP_PFN;
}

static void drop_leaf(FIXTURE_DATA(split) *self)
{
	mmap(self->place, pmd_size(), PROT_NONE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	close(self->race.fd);
}

static int do_op(struct race *race, enum op op)
{
	switch (op) {
	case MPROTECT:
		return mprotect(race->map, pmd_size(), PROT_READ);
	case DONTNEED:
		return madvise(race->map, pmd_size(), MADV_DONTNEED);
	case MUNMAP:
		return munmap(race->map, pmd_size());
	default:
		wait_for_passes(race, 2);
		return 0;
	}
}

/* Pages that mprotect(PROT_READ) has left writable: the kernel can still store there. */
static unsigned int writable_pages(struct race *race)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	unsigned int n = 0;
	size_t i;

	for (i = 0; i < PAGES; i++)
		n += read(zero, race->map + i * page_size() + 64, 8) > 0;
	close(zero);
	return n;
}

static uint64_t all_wrong(const struct race *race)
{
	return race->entries + race->huge + race->mapped + race->clean + race->unseen +
	       race->values;
}

/* On the CPU of the writer, who is not there then: no thread that spins is on the main one's. */
static void *op_thread(void *arg)
{
	struct race *race = arg;

	pin_to_cpu(CPU_WRITER);
	while (!atomic_load(&race->op_go))
		;
	race->op_ret = do_op(race, race->op);
	atomic_store(&race->op_done, true);
	return NULL;
}

/*
 * Let the @other thread do what it does while the split stands at its gate. False if a
 * step failed.
 */
static bool op_at_gate(struct race *race, pthread_t other, bool in_order)
{
	if (close_gate(SPLIT_NOW, 1))
		return false;
	atomic_store(&race->go, true);
	race->within += wait_at_gate(SPLIT_NOW, 1, &race->split_done);
	atomic_store(&race->op_go, true);
	return wait_for_step(other, &race->op_done, in_order ? STEP_CPU_NS : 0) &&
	       !open_gate(SPLIT_NOW);
}

/* Do @op at a random time of the split. */
static bool op_at_random(FIXTURE_DATA(split) *self, enum op op)
{
	struct race *race = &self->race;
	uint64_t end = now_ns() + rng_below(&self->rng, SPREAD_NS);

	atomic_store(&race->go, true);
	while (now_ns() < end)
		;
	race->within += !atomic_load(&race->split_done);
	return !do_op(race, op);
}

/* Which step of a round failed, as the result of all rounds. */
static uint64_t step_failed(int line)
{
	printf("# step at line %d: %s\n", line, strerror(errno));
	return ~0ULL;
}

/*
 * @n rounds of @op against a split; the number of pages with which something is
 * wrong, or ~0 if a step failed. In the fault build it has the @gate, and @in_order says
 * that the leaf stays one, so that the other has to wait for its lock.
 */
static uint64_t race_split(FIXTURE_DATA(split) *self, enum op op, unsigned int n, bool gate,
			   bool in_order)
{
	struct race *race = &self->race;
	unsigned int round;
	size_t i;

	race->op = op;
	for (round = 0; round < n; round++) {
		uint64_t pfn = new_leaf(self);
		pthread_t split, other;

		if (!pfn)
			return step_failed(__LINE__);
		for (i = 0; i < PAGES; i++)
			store(race->map, i, 1ULL << 32 | i);
		if (pthread_create(&split, NULL, splitter, race))
			return step_failed(__LINE__);
		if ((op == STORES || gate) &&
		    pthread_create(&other, NULL, op == STORES ? writer : op_thread, race))
			return step_failed(__LINE__);
		if (op == STORES)
			wait_for_passes(race, 1);
		if (!(gate ? op_at_gate(race, other, in_order) : op_at_random(self, op)))
			return step_failed(__LINE__);
		if (gate && op == STORES)
			wait_for_passes(race, 2);
		pthread_join(split, NULL);
		atomic_store(&race->stop, true);
		if (op == STORES || gate)
			pthread_join(other, NULL);
		if (race->op_ret)
			return step_failed(__LINE__);
		if (race->ret < 0)
			return step_failed(__LINE__);

		copy_reported(race);
		switch (op) {
		case DONTNEED:
			for (i = 0; i < PAGES; i++)
				race->entries += !!(pagemap_entry(race->map + i * page_size()) &
						    PAGEMAP_PRESENT);
			break;
		case MPROTECT:
			race->entries += writable_pages(race);
			break;
		default:
			break;
		}
		if (op == DONTNEED || op == MUNMAP) {
			for (i = 0; i < PAGES; i++)
				race->mapped += kpage("/proc/kpagecount", pfn + i) != 0;
			race->clean += !(kpage("/proc/kpageflags", pfn) >> KPF_DIRTY & 1);
		} else {
			/* All that was stored since is known to the entries. */
			reset_harvest(&race->h);
			if (clean_record(race->dev, race->fd, 0, PAGES, &race->h) < 0)
				return step_failed(__LINE__);
			copy_reported(race);
			for (i = 0; i < PAGES; i++)
				race->unseen += race->shadow[i] != value_of(race, i);
			race->huge += smaps_kb(race->map, "ShmemPmdMapped") != 0;
		}
		for (i = 0; i < PAGES; i++) {
			uint64_t pass = op == STORES ? atomic_load(&race->passes) : 1;

			race->values += value_of(race, i) != (pass << 32 | i);
		}
		drop_leaf(self);
	}
	return all_wrong(race);
}

static void log_wrong(struct __test_metadata *_metadata, FIXTURE_DATA(split) *self)
{
	const struct race *race = &self->race;

	TH_LOG("wrong: %u entries, %u huge, %u mapped, %u clean, %u unseen, %u values",
	       race->entries, race->huge, race->mapped, race->clean, race->unseen, race->values);
}

#define RACE_TEST(name, op)							\
TEST_F_TIMEOUT(split, name, TEST_SECONDS)					\
{										\
	uint64_t wrong = race_split(self, op, rounds(ROUNDS), false, true);	\
										\
	log_wrong(_metadata, self);						\
	ASSERT_EQ(0, wrong);							\
	TH_LOG("%u of %u rounds within the split", self->race.within, rounds(ROUNDS)); \
}

RACE_TEST(stores, STORES)
RACE_TEST(mprotect, MPROTECT)
RACE_TEST(dontneed, DONTNEED)
RACE_TEST(munmap, MUNMAP)

/*
 * Controls. The first have the gate, and nothing left out.
 */
#define CONTROL_TEST(name, op, clear_first)					\
TEST_FAULTS(split, control_ ## name)				\
{										\
	/* write_protect leaves nothing writable, whatever mprotect() passes over. */ \
	bool fails = (clear_first) && !((op) == MPROTECT && self->race.protect); \
	uint64_t wrong;								\
										\
	ASSERT_EQ(0, set_fault(SPLIT_CLEAR_FIRST, clear_first));		\
	wrong = race_split(self, op, GATE_ROUNDS, true, !(clear_first));	\
	log_wrong(_metadata, self);						\
	ASSERT_NE(~0ULL, wrong);						\
	ASSERT_EQ(GATE_ROUNDS, self->race.within);				\
	if (fails) {								\
		ASSERT_GT(wrong, 0);						\
	} else {								\
		ASSERT_EQ(0, wrong);						\
	}									\
}

CONTROL_TEST(gate_stores, STORES, 0)
CONTROL_TEST(gate_mprotect, MPROTECT, 0)
CONTROL_TEST(gate_dontneed, DONTNEED, 0)
CONTROL_TEST(gate_munmap, MUNMAP, 0)
CONTROL_TEST(clear_mprotect, MPROTECT, 1)
CONTROL_TEST(clear_dontneed, DONTNEED, 1)

TEST_HARNESS_MAIN
