// SPDX-License-Identifier: GPL-2.0
/*
 * MMOPS_IOC_AGE: accessed bits are cleared and counted, and an access that comes
 * after the call sets them again.
 *
 * The oracle is "Referenced" of /proc/self/smaps, and MMOPS_IOC_LEAVES where it is
 * to be known which pages.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "faults.h"
#include "leaves.h"
#include "notifier.h"
#include "kselftest_harness.h"

/* More than a page table. */
#define PAGES	600UL
#define ROUNDS	50

/* Of a bitmap of the pages. */
#define BITS	(((PAGES + BITS_PER_WORD - 1) / BITS_PER_WORD) * BITS_PER_WORD)

static int age(int dev, const void *addr, size_t pages, struct mmops_age *result)
{
	struct mmops_age arg = {
		.pidfd = -1,
		.addr = (uintptr_t)addr,
		.len = pages * page_size(),
		.aged = ~0ULL, .kept = ~0ULL, .done = ~0ULL,
	};
	int ret = ioctl(dev, MMOPS_IOC_AGE, &arg) ? -errno : 0;

	*result = arg;
	return ret || arg.done == arg.len ? ret : -EPROTO;
}

/* The young pages of a map of base pages, by their place. */
struct young {
	uintptr_t base;
	uint64_t bitmap[BITS / BITS_PER_WORD];
};

static void note_young(const struct mmops_leaf *leaf, void *data)
{
	struct young *young = data;
	size_t page = (leaf->addr - young->base) / page_size();

	if (leaf->kind == MMOPS_LEAF_PRESENT && leaf->state & MMOPS_LEAF_YOUNG)
		young->bitmap[page / BITS_PER_WORD] |= 1ULL << page % BITS_PER_WORD;
}

FIXTURE(age)
{
	int dev;
	char *map;
};

FIXTURE_SETUP(age)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	ASSERT_EQ(0, pin_to_cpu(0));
	self->map = reserve(PAGES, 100);
	ASSERT_NE(self->map, NULL);
	self->map = mmap(self->map, PAGES * page_size(), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	ASSERT_NE(self->map, MAP_FAILED);
	ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_NOHUGEPAGE));
	store_range(self->map, 0, PAGES, 1);
}

FIXTURE_TEARDOWN(age)
{
}

FIXTURE_FAULTS(age);

static void assert_young(struct __test_metadata *_metadata, FIXTURE_DATA(age) *self,
			 const uint64_t *expected)
{
	struct young young = { .base = (uintptr_t)self->map };

	ASSERT_EQ(0, for_each_leaf(self->dev, self->map, PAGES * page_size(), note_young, &young));
	ASSERT_EQ(0, memcmp(young.bitmap, expected, sizeof(young.bitmap)));
	ASSERT_EQ((long)(count_bits(expected, BITS) * page_size() / 1024),
		  smaps_kb(self->map, "Referenced"));
}

/* Just what is accessed after a call, by a load or a store, is counted by the next. */
TEST_F_TIMEOUT(age, counts_what_was_accessed, TEST_SECONDS)
{
	struct rng rng = { test_seed() };
	struct mmops_age result;
	int round;

	ASSERT_EQ(0, age(self->dev, self->map, PAGES, &result));
	ASSERT_EQ(PAGES, result.aged);
	ASSERT_EQ(0, result.kept);
	for (round = 0; round < ROUNDS; round++) {
		struct young none = {}, expected = {};
		size_t i, nr = rng_below(&rng, PAGES);

		assert_young(_metadata, self, none.bitmap);
		for (i = 0; i < nr; i++) {
			size_t page = rng_below(&rng, PAGES);

			expected.bitmap[page / BITS_PER_WORD] |= 1ULL << page % BITS_PER_WORD;
			if (rng_below(&rng, 2))
				store(self->map, page, 1 + page);
			ASSERT_EQ(1 + page, load(self->map, page));
		}
		assert_young(_metadata, self, expected.bitmap);
		ASSERT_EQ(0, age(self->dev, self->map, PAGES, &result));
		ASSERT_EQ(count_bits(expected.bitmap, BITS), result.aged);
	}
}

/* All else in the entries is as it was. */
TEST_F_TIMEOUT(age, changes_nothing_else, TEST_SECONDS)
{
	struct leaf_counts before, after;
	struct mmops_age result;

	ASSERT_EQ(0, count_leaves(self->dev, self->map, PAGES * page_size(), &before));
	ASSERT_EQ(PAGES, before.pte.young);
	ASSERT_EQ(PAGES, before.pte.dirty);
	ASSERT_EQ(PAGES, before.pte.writable);
	ASSERT_EQ(0, age(self->dev, self->map, PAGES, &result));
	ASSERT_EQ(0, count_leaves(self->dev, self->map, PAGES * page_size(), &after));
	ASSERT_EQ(0, after.pte.young);
	before.pte.young = 0;
	ASSERT_EQ(0, memcmp(&before, &after, sizeof(before)));
}

/* Only the range is made old. */
TEST_F_TIMEOUT(age, part, TEST_SECONDS)
{
	struct young expected = { .bitmap = { [0] = 0x3 } };
	struct mmops_age result;
	size_t page;

	for (page = 500; page < PAGES; page++)
		expected.bitmap[page / BITS_PER_WORD] |= 1ULL << page % BITS_PER_WORD;
	ASSERT_EQ(0, age(self->dev, self->map + 2 * page_size(), 498, &result));
	ASSERT_EQ(498, result.aged);
	assert_young(_metadata, self, expected.bitmap);
}

/*
 * Another CPU, which has the translations still, accesses the pages on a word: fewer
 * than the smallest TLB holds, the emulated one included.
 */
#define OTHER_PAGES	32UL

struct other {
	pthread_t thread;
	char *map;
	atomic_int asked, done;
};

static void *access_all(void *arg)
{
	struct other *other = arg;
	int round = 0;

	pin_to_cpu(1);
	for (;;) {
		while (atomic_load(&other->asked) == round)
			;
		round = atomic_load(&other->asked);
		if (round < 0)
			return NULL;
		load_range(other->map, 0, OTHER_PAGES);
		atomic_store(&other->done, round);
	}
}

static void ask_other(struct other *other, int round)
{
	atomic_store(&other->asked, round);
	while (atomic_load(&other->done) != round)
		sched_yield();
}

static void start_other(struct __test_metadata *_metadata, struct other *other, char *map)
{
	other->map = map;
	ASSERT_EQ(0, pthread_create(&other->thread, NULL, access_all, other));
}

static void stop_other(struct __test_metadata *_metadata, struct other *other)
{
	atomic_store(&other->asked, -1);
	ASSERT_EQ(0, pthread_join(other->thread, NULL));
}

/* Returns how many accesses of the other CPU were not seen. */
static size_t missed(struct __test_metadata *_metadata, FIXTURE_DATA(age) *self,
		     struct other *other, int round)
{
	struct mmops_age result;

	/* The other CPU holds the translations now. */
	ask_other(other, 2 * round + 1);
	ASSERT_EQ(0, age(self->dev, self->map, OTHER_PAGES, &result));
	ask_other(other, 2 * round + 2);
	ASSERT_EQ(0, age(self->dev, self->map, OTHER_PAGES, &result));
	return OTHER_PAGES - result.aged;
}

TEST_F_TIMEOUT(age, other_cpu, TEST_SECONDS)
{
	struct other other = {};
	int round;

	start_other(_metadata, &other, self->map);
	for (round = 0; round < ROUNDS; round++) {
		ASSERT_EQ(0, missed(_metadata, self, &other, round));
	}
	stop_other(_metadata, &other);
}

/*
 * clear_refs makes entries old and flushes nothing. What another CPU holds of them is
 * flushed by the call, which finds nothing young.
 */
TEST_F_TIMEOUT(age, old_already, TEST_SECONDS)
{
	struct mmops_age result;
	struct other other = {};
	int round;

	start_other(_metadata, &other, self->map);
	for (round = 0; round < ROUNDS; round++) {
		ask_other(&other, 2 * round + 1);
		ASSERT_EQ(0, write_file("/proc/self/clear_refs", "1"));
		ASSERT_EQ(0, age(self->dev, self->map, OTHER_PAGES, &result));
		ASSERT_EQ(0, result.aged);
		ask_other(&other, 2 * round + 2);
		ASSERT_EQ(0, age(self->dev, self->map, OTHER_PAGES, &result));
		ASSERT_EQ(OTHER_PAGES, result.aged);
	}
	stop_other(_metadata, &other);
}

/* The same of a huge leaf, of which the range covers a part. */
TEST_F_TIMEOUT(age, old_already_in_part, TEST_SECONDS)
{
	struct mmops_age result;
	struct other other = {};
	char *map = map_thp(1);
	int round;

	if (!map)
		SKIP(return, "no transparent huge page");
	start_other(_metadata, &other, map);
	for (round = 0; round < ROUNDS; round++) {
		ask_other(&other, 2 * round + 1);
		ASSERT_EQ(0, write_file("/proc/self/clear_refs", "1"));
		ASSERT_EQ(0, age(self->dev, map + page_size(), 10, &result));
		ASSERT_EQ(0, result.aged);
		ASSERT_EQ(0, result.kept);
		ask_other(&other, 2 * round + 2);
		ASSERT_EQ(0, age(self->dev, map, PMD_PAGES, &result));
		ASSERT_EQ(PMD_PAGES, result.aged);
	}
	stop_other(_metadata, &other);
}

/* Without the flush an access goes by the old translation, and sets no bit. */
TEST_FAULTS(age, control_no_flush)
{
	struct other other = {};
	size_t nr = 0;
	int round;

	ASSERT_EQ(0, set_fault(SKIP_FLUSH, 1));
	start_other(_metadata, &other, self->map);
	for (round = 0; !nr && round < TLB_ROUNDS; round++)
		nr = missed(_metadata, self, &other, round);
	stop_other(_metadata, &other);
	ASSERT_NE(0, nr);
}

/* A secondary MMU is told, so that its device looks the pages up again. */
TEST_F_TIMEOUT(age, notifier, TEST_SECONDS)
{
	struct mmops_age result;
	struct heard heard;
	int log;

	OPEN_DEV(log, MMOPS_DEV);
	ASSERT_EQ(0, subscribe(log, self->map, PAGES, 0));
	ASSERT_EQ(0, age(self->dev, self->map + page_size(), 7, &result));
	ASSERT_EQ(7, result.aged);
	ASSERT_EQ(1, hear(log, self->map, &heard, 0));
	ASSERT_STREQ("protection-page 1-8", heard.text);
}

/* A huge leaf has one bit: the whole of it is made old, or none. */
TEST_F_TIMEOUT(age, huge_leaf, TEST_SECONDS)
{
	struct mmops_age result;
	char *map = map_thp(1);

	if (!map)
		SKIP(return, "no transparent huge page");
	store(map, 7, 1);
	ASSERT_EQ(0, age(self->dev, map + page_size(), 10, &result));
	ASSERT_EQ(0, result.aged);
	ASSERT_EQ(10, result.kept);
	ASSERT_EQ((long)pmd_size() / 1024, smaps_kb(map, "Referenced"));
	ASSERT_EQ(0, age(self->dev, map, PMD_PAGES, &result));
	ASSERT_EQ(PMD_PAGES, result.aged);
	ASSERT_EQ(0, result.kept);
	ASSERT_EQ(0, smaps_kb(map, "Referenced"));
	ASSERT_EQ((long)pmd_size() / 1024, smaps_kb(map, "AnonHugePages"));
	ASSERT_EQ(0, age(self->dev, map, PMD_PAGES, &result));
	ASSERT_EQ(0, result.aged);
	ASSERT_EQ(1, load(map, 7));
	ASSERT_EQ(0, age(self->dev, map, PMD_PAGES, &result));
	ASSERT_EQ(PMD_PAGES, result.aged);
}

/* A leaf of PUD size; smaps would split it. */
TEST_F_TIMEOUT(age, pud_leaf, TEST_SECONDS)
{
	const size_t pages = PUD_SIZE / page_size();
	const char *dax = getenv("MMOPS_DAX") ?: "/dev/dax0.0";
	struct mmops_age result;
	int fd = open(dax, O_RDWR | O_CLOEXEC);
	char *map;

	if (fd < 0)
		SKIP(return, "no device-DAX %s: no legacy persistent memory here", dax);
	map = mmap(NULL, PUD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		SKIP(return, "%s has no 1 GiB that can be mapped", dax);
	store(map, 100000, 1);
	ASSERT_EQ(0, age(self->dev, map, 100, &result));
	ASSERT_EQ(0, result.aged);
	ASSERT_EQ(100, result.kept);
	ASSERT_EQ(0, age(self->dev, map, pages, &result));
	ASSERT_EQ(pages, result.aged);
	ASSERT_EQ(0, age(self->dev, map, pages, &result));
	ASSERT_EQ(0, result.aged);
	ASSERT_EQ(1, load(map, 100000));
	ASSERT_EQ(0, age(self->dev, map, pages, &result));
	ASSERT_EQ(pages, result.aged);
}

/* Holes, memory without pages, and wrong arguments. */
TEST_F_TIMEOUT(age, arguments, TEST_SECONDS)
{
	struct mmops_age result, good = {
		.pidfd = -1, .addr = (uintptr_t)self->map, .len = PAGES * page_size(),
	};

	ASSERT_EQ(0, munmap(self->map + 10 * page_size(), 20 * page_size()));
	ASSERT_EQ(0, age(self->dev, self->map, PAGES, &result));
	ASSERT_EQ(PAGES - 20, result.aged);
	ASSERT_EQ(0, madvise(self->map, 10 * page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, age(self->dev, self->map, 10, &result));
	ASSERT_EQ(0, result.aged);

#define ERROR(error, change) do {						\
	struct mmops_age arg = good;						\
										\
	load_range(self->map, 30, PAGES - 30);					\
	change;									\
	ASSERT_EQ(-1, ioctl(self->dev, MMOPS_IOC_AGE, &arg));			\
	ASSERT_EQ(error, errno);						\
	ASSERT_EQ(0, age(self->dev, self->map + 30 * page_size(), PAGES - 30, &result));	\
	ASSERT_EQ(PAGES - 30, result.aged);					\
} while (0)
	ERROR(EINVAL, arg.flags = 1);
	ERROR(EINVAL, arg.reserved[1] = 1);
	ERROR(EINVAL, arg.addr++);
	ERROR(EINVAL, arg.len--);
	ERROR(EINVAL, arg.len = 0);
	ERROR(EINVAL, arg.len = -page_size());
	ERROR(EBADF, arg.pidfd = 1000);
	ERROR(EBADF, arg.pidfd = self->dev);
#undef ERROR
}

TEST_HARNESS_MAIN
