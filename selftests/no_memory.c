// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation of every call fails once: the first in the first round, the
 * second in the second, until a call gets through. What each round returns is
 * documented, what it did is complete or nothing, and the next call works.
 *
 * Takes a kernel with CONFIG_FAULT_INJECTION, and no khugepaged meanwhile. What
 * a round leaks is found by kmemleak, and by the kernel's checks of counters
 * when the process exits.
 */
#include "exclusive.h"
#include "leaves.h"
#include "notifier.h"
#include "track.h"
#include "kselftest_harness.h"

#define FAIL_NTH	"/proc/thread-self/fail-nth"
#define SLAB		"/sys/kernel/debug/failslab/"
#define PAGE_ALLOC	"/sys/kernel/debug/fail_page_alloc/"
#define MAX_ROUNDS	5000

/* Settings, as they are here and as the kernel boots. */
static const struct {
	const char *path, *here, *usual;
} settings[] = {
	{ SLAB "ignore-gfp-wait", "N", "Y" },
	{ SLAB "verbose", "0", "2" },
	{ PAGE_ALLOC "ignore-gfp-wait", "N", "Y" },
	{ PAGE_ALLOC "ignore-gfp-highmem", "N", "Y" },
	{ PAGE_ALLOC "min-order", "0", "1" },
	{ PAGE_ALLOC "verbose", "0", "2" },
};

FIXTURE(no_memory)
{
	int dev, nth;
	unsigned int round;
	bool failed;		/* something did in the last round, so there is another */
};

FIXTURE_SETUP(no_memory)
{
	size_t i;

	self->nth = open(FAIL_NTH, O_RDWR | O_CLOEXEC);
	if (self->nth < 0)
		SKIP(return, "the kernel is without CONFIG_FAULT_INJECTION");
	OPEN_DEV(self->dev, MMOPS_DEV);
	for (i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		ASSERT_EQ(0, write_file(settings[i].path, settings[i].here));
	}
	self->failed = true;
}

FIXTURE_TEARDOWN(no_memory)
{
	size_t i;

	for (i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		write_file(settings[i].path, settings[i].usual);
}

static void fail_at(FIXTURE_DATA(no_memory) *self, unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	if (pwrite(self->nth, text, len, 0) != len)
		abort();
}

/* Whether the allocation failed that was to fail. From here on none does. */
static bool has_failed(FIXTURE_DATA(no_memory) *self)
{
	char text[16] = "";

	if (pread(self->nth, text, sizeof(text) - 1, 0) <= 0)
		abort();
	fail_at(self, 0);
	return !strtoul(text, NULL, 10);
}

/*
 * The next round, if there is one: the last is the first in which nothing failed.
 * Behind the first forty, one in sixteen: where there are so many, they are alike.
 */
static bool next_round(FIXTURE_DATA(no_memory) *self)
{
	if (!self->failed)
		return false;
	self->round += self->round < 40 ? 1 : 16;
	return self->round < MAX_ROUNDS;
}

/* @ret = @call, with an allocation in it that fails. */
#define WITH_FAILURE(ret, call) do {						\
	fail_at(self, self->round);						\
	(ret) = (call);								\
	self->failed = has_failed(self);					\
	if (!self->failed) {							\
		ASSERT_LE(0, ret);						\
	}									\
} while (0)

/* Something failed, and then nothing did. */
#define ASSERT_ROUNDS() do {							\
	TH_LOG("%u allocations", self->round - 1);				\
	ASSERT_LT(1, self->round);						\
	ASSERT_FALSE(self->failed);						\
} while (0)

/* Half of the pages are there, and the others have to be faulted in. */
TEST_F_TIMEOUT(no_memory, exclusive, TEST_SECONDS)
{
	enum { PAGES = 12, STORED = 6 };
	uint8_t results[PAGES];

	while (next_round(self)) {
		char *map = map_anon(PAGES);
		int64_t ret, nr = 0;
		size_t i;

		ASSERT_NE(NULL, map);
		madvise(map, PAGES * page_size(), MADV_NOHUGEPAGE);
		store_range(map, 0, STORED, 1);
		memset(results, 0xff, sizeof(results));
		WITH_FAILURE(ret, exclusive_of(self->dev, -1, map, PAGES, results));
		if (ret < 0) {
			ASSERT_EQ(-ENOMEM, ret);
			ASSERT_EQ(0, count_exclusive(map, PAGES));
		}
		for (i = 0; ret >= 0 && i < PAGES; i++) {
			bool is = results[i] == MMOPS_PAGE_EXCLUSIVE;

			nr += is;
			ASSERT_TRUE(is || results[i] == MMOPS_PAGE_NO_MEMORY);
			ASSERT_EQ(is, is_exclusive(map + i * page_size()));
		}
		if (ret >= 0) {
			ASSERT_EQ(nr, ret);
			ASSERT_LE(PAGES - self->failed, ret);
		}
		ASSERT_EQ(PAGES, exclusive(self->dev, map, PAGES));
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(i < STORED ? 1 + i : 0, load(map, i));
		}
		ASSERT_EQ(0, munmap(map, PAGES * page_size()));
	}
	ASSERT_ROUNDS();
}

TEST_F_TIMEOUT(no_memory, revoke, TEST_SECONDS)
{
	enum { PAGES = 12 };
	char *map = map_stored(PAGES);

	ASSERT_NE(NULL, map);
	while (next_round(self)) {
		int64_t ret;
		size_t i;

		ASSERT_EQ(PAGES, exclusive(self->dev, map, PAGES));
		WITH_FAILURE(ret, give_back(self->dev, map, PAGES));
		if (ret < 0) {
			ASSERT_EQ(-ENOMEM, ret);
			ASSERT_EQ(PAGES, count_exclusive(map, PAGES));
			ret = give_back(self->dev, map, PAGES);
		}
		ASSERT_EQ(PAGES, ret);
		ASSERT_EQ(0, count_exclusive(map, PAGES));
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(1 + i, load(map, i));
		}
	}
	ASSERT_ROUNDS();
}

/* What was added before an error is told. */
TEST_F_TIMEOUT(no_memory, atomic_add, TEST_SECONDS)
{
	enum { PAGES = 12 };

	while (next_round(self)) {
		char *map = map_stored(PAGES);
		struct mmops_atomic_add arg = {
			.pidfd = -1, .addr = (uintptr_t)map, .stride = page_size(), .nr = PAGES,
			.value = 1000, .rounds = 1,
		};
		uint64_t sum = 0;
		int64_t ret;
		size_t i;

		ASSERT_NE(NULL, map);
		WITH_FAILURE(ret, ioctl(self->dev, MMOPS_IOC_ATOMIC_ADD, &arg) ? -errno : 0);
		if (ret < 0) {
			ASSERT_EQ(-ENOMEM, ret);
		} else {
			ASSERT_EQ(PAGES, arg.added);
		}
		for (i = 0; i < PAGES; i++)
			sum += load(map, i) - (1 + i);
		ASSERT_EQ(1000 * arg.added, sum);
		ASSERT_EQ(PAGES, atomic_add(self->dev, map, page_size(), PAGES, 1000, 1, NULL));
		for (i = 0; i < PAGES; i++)
			sum -= load(map, i) - (1 + i);
		ASSERT_EQ(-1000ULL * PAGES, sum);
		ASSERT_EQ(0, munmap(map, PAGES * page_size()));
	}
	ASSERT_ROUNDS();
}

/* The file can be subscribed afterwards, and hears what there is. */
static void check_subscribe(struct __test_metadata *_metadata, FIXTURE_DATA(no_memory) *self,
			    uint32_t flags)
{
	enum { PAGES = 4 };
	bool all = flags & MMOPS_NOTIFIER_MM;
	static struct heard heard;
	char *map = map_stored(PAGES);
	size_t len = all ? 0 : PAGES * page_size();

	ASSERT_NE(NULL, map);
	while (next_round(self)) {
		int dev = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
		int64_t ret;

		ASSERT_LE(0, dev);
		WITH_FAILURE(ret, subscribe_capacity(dev, -1, all ? NULL : map, len, flags, 8));
		if (ret < 0) {
			ASSERT_EQ(-ENOMEM, ret);
			ASSERT_EQ(0, subscribe_capacity(dev, -1, all ? NULL : map, len, flags, 8));
		}
		store(map, 1, 5);
		ASSERT_EQ(0, madvise(map + page_size(), page_size(), MADV_DONTNEED));
		ASSERT_EQ(all ? 2 : 1, hear(dev, map, &heard, 0));
		EXPECT_STREQ(all ? "clear 1-2, clear 1-2 end" : "clear 1-2", heard.text);
		ASSERT_EQ(0, close(dev));
	}
	ASSERT_ROUNDS();
}

TEST_F_TIMEOUT(no_memory, subscribe_range, TEST_SECONDS)
{
	check_subscribe(_metadata, self, 0);
}

TEST_F_TIMEOUT(no_memory, subscribe_mm, TEST_SECONDS)
{
	check_subscribe(_metadata, self, MMOPS_NOTIFIER_MM);
}

/* No event is forgotten. */
TEST_F_TIMEOUT(no_memory, log, TEST_SECONDS)
{
	static struct heard heard;
	char *map = map_stored(1);

	ASSERT_NE(NULL, map);
	ASSERT_EQ(0, subscribe(self->dev, map, 1, 0));
	memset(&heard, 0, sizeof(heard));
	while (next_round(self)) {
		struct mmops_notifier_log arg = {
			.events = (uintptr_t)heard.events, .nr = HEARD_EVENTS,
		};
		int64_t ret;

		store(map, 0, 5);
		ASSERT_EQ(0, madvise(map, page_size(), MADV_DONTNEED));
		WITH_FAILURE(ret, ioctl(self->dev, MMOPS_IOC_NOTIFIER_LOG, &arg) ? -errno : 0);
		if (ret == 0) {
			ret = arg.nr;
		} else {
			ASSERT_EQ(-ENOMEM, ret);
			ret = hear(self->dev, map, &heard, 0);
		}
		ASSERT_EQ(1, ret);
		ASSERT_EQ(MMOPS_EVENT_CLEAR, heard.events[0].event);
	}
	ASSERT_ROUNDS();
}

TEST_F_TIMEOUT(no_memory, leaves, TEST_SECONDS)
{
	enum { PAGES = 20 };
	static struct mmops_leaf vec[MMOPS_LEAVES_MIN];
	char *map = map_stored(PAGES);

	ASSERT_NE(NULL, map);
	memset(vec, 0xff, sizeof(vec));
	while (next_round(self)) {
		struct mmops_leaves arg = {
			.pidfd = -1, .addr = (uintptr_t)map, .len = PAGES * page_size(),
			.vec = (uintptr_t)vec, .vec_len = MMOPS_LEAVES_MIN, .nr = ~0ULL,
		};
		int64_t ret;

		WITH_FAILURE(ret, ioctl(self->dev, MMOPS_IOC_LEAVES, &arg) ? -errno : 0);
		if (ret < 0) {
			ASSERT_EQ(-ENOMEM, ret);
			ASSERT_EQ(~0ULL, arg.nr);
			ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_LEAVES, &arg));
		}
		ASSERT_EQ(PAGES, arg.nr);
		ASSERT_EQ((uintptr_t)map + PAGES * page_size(), arg.next);
	}
	ASSERT_ROUNDS();
}

/* Records of a tracker, of which nothing is lost. */
TEST_F_TIMEOUT(no_memory, track_read, TEST_SECONDS)
{
	enum { PAGES = 20 };
	static struct mmops_track_range vec[2];
	char *map = map_stored(PAGES);
	struct mmops_track_open open_all = {
		.pidfd = -1, .flags = MMOPS_TRACK_FAST,
		.addr = (uintptr_t)map, .len = PAGES * page_size(),
	};
	struct mmops_track_begin begin = {};

	ASSERT_NE(NULL, map);
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_OPEN, &open_all));
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_BEGIN, &begin));
	while (next_round(self)) {
		struct mmops_track_read arg = {
			.vec = (uintptr_t)vec, .vec_len = 2, .nr = ~0ULL, .needed = ~0ULL,
		};
		int64_t ret;

		memset(vec, 0xff, sizeof(vec));
		WITH_FAILURE(ret, ioctl(self->dev, MMOPS_IOC_TRACK_READ, &arg) ? -errno : 0);
		if (ret < 0) {
			ASSERT_EQ(-ENOMEM, ret);
			ASSERT_EQ(~0ULL, arg.nr);
			ASSERT_EQ(~0ULL, arg.needed);
			ASSERT_EQ(0, arg.addr);
			ASSERT_EQ(~0ULL, vec[0].addr);
			ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_READ, &arg));
		}
		/* The first epoch has all. */
		ASSERT_EQ(1, arg.nr);
		ASSERT_EQ(1, arg.needed);
		ASSERT_EQ((uintptr_t)map, vec[0].addr);
		ASSERT_EQ(PAGES * page_size(), vec[0].len);
	}
	ASSERT_ROUNDS();
}

/* What allocates nothing. A call that begins to needs a test, and an error in uapi.rst. */
#define ASSERT_NOTHING_FAILS(call) do {						\
	self->round = 1;							\
	WITH_FAILURE(ret, (call) ? -errno : 0);					\
	ASSERT_EQ(0, ret);							\
	ASSERT_FALSE(self->failed);						\
} while (0)

TEST_F_TIMEOUT(no_memory, nothing_to_fail, TEST_SECONDS)
{
	enum { PAGES = 20 };
	char *map = map_stored(PAGES);
	struct mmops_track_open open_all = {
		.pidfd = -1, .flags = MMOPS_TRACK_FAST,
		.addr = (uintptr_t)map, .len = PAGES * page_size(),
	};
	struct mmops_age age = { .pidfd = -1, .addr = (uintptr_t)map, .len = open_all.len };
	struct mmops_track_begin begin = {};
	struct mmops_track_end end = {};
	struct mmops_notifier_probe probe = {};
	struct mmops_info info = {};
	int64_t ret;

	ASSERT_NE(NULL, map);
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_OPEN, &open_all));
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_BEGIN, &begin));
	ASSERT_EQ(0, subscribe(self->dev, map, PAGES, 0));
	ASSERT_NOTHING_FAILS(ioctl(self->dev, MMOPS_IOC_INFO, &info));
	ASSERT_NOTHING_FAILS(ioctl(self->dev, MMOPS_IOC_TRACK_END, &end));
	ASSERT_NOTHING_FAILS(ioctl(self->dev, MMOPS_IOC_AGE, &age));
	ASSERT_EQ(PAGES, age.aged);
	ASSERT_NOTHING_FAILS(ioctl(self->dev, MMOPS_IOC_NOTIFIER_PROBE, &probe));
}

/*
 * A leaf of 2 MiB, of private or of shared memory, that holds 1 + i, or NULL. It
 * goes with unmap_leaf(), and comes back.
 */
static char *new_leaf(int *fd)
{
	char *map;

	if (!fd)
		return map_thp(1);
	if (*fd < 0) {
		*fd = new_memfd(PMD_PAGES);
		if (write_file(SHMEM_ENABLED, "advise"))
			return NULL;
	}
	map = map_at(reserve(PMD_PAGES, 0), *fd, 0, PMD_PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	if (!map || madvise(map, pmd_size(), MADV_HUGEPAGE))
		return NULL;
	store_range(map, 0, PMD_PAGES, 1);
	return smaps_kb(map, "ShmemPmdMapped") == (long)(pmd_size() / 1024) ? map : NULL;
}

#define PART_FIRST	100
#define PART_PAGES	10

/* Nothing but zeroes where pages were taken, if there was nothing below them. */
#define ASSERT_CONTENTS(map, part_is_zero) do {					\
	size_t page_;								\
										\
	for (page_ = 0; page_ < PMD_PAGES; page_++) {				\
		bool part_ = page_ >= PART_FIRST &&				\
			     page_ < PART_FIRST + PART_PAGES;			\
										\
		ASSERT_EQ(part_ && (part_is_zero) ? 0 : 1 + page_, load(map, page_)); \
	}									\
} while (0)

static void check_protect(struct __test_metadata *_metadata, FIXTURE_DATA(no_memory) *self,
			  int *fd)
{
	while (next_round(self)) {
		struct mmops_protect result, again;
		char *map = new_leaf(fd), *part;
		int64_t ret;
		long faults;

		if (!map)
			SKIP(return, "no huge pages");
		part = map + PART_FIRST * page_size();
		WITH_FAILURE(ret, protect_result(self->dev, part, PART_PAGES * page_size(),
						 PROT_READ, &result));
		if (ret < 0) {
			ASSERT_EQ(-ENOMEM, ret);
			ASSERT_EQ(0, result.ptes + result.pmds);
			ASSERT_EQ(0, result.done);
			ASSERT_EQ(0, protect_result(self->dev, part, PART_PAGES * page_size(),
						    PROT_READ, &again));
			result.ptes = again.ptes;
			result.split_pmds += again.split_pmds;
		}
		ASSERT_EQ(PART_PAGES, result.ptes);
		ASSERT_EQ(1, result.split_pmds);
		faults = minor_faults();
		ASSERT_CONTENTS(map, false);
		store_range(map, 0, PART_FIRST, 1);
		ASSERT_EQ(faults, minor_faults());
		store_range(map, 0, PMD_PAGES, 1);
		ASSERT_EQ(faults + PART_PAGES, minor_faults());
		ASSERT_EQ(0, munmap(map, pmd_size()));
	}
	TH_LOG("%u allocations", self->round - 1);
	ASSERT_FALSE(self->failed);
}

/* The table was deposited when the leaf was made. */
TEST_F_TIMEOUT(no_memory, protect_part_private, TEST_SECONDS)
{
	check_protect(_metadata, self, NULL);
}

TEST_F_TIMEOUT(no_memory, protect_part_shared, TEST_SECONDS)
{
	int fd = -1;

	check_protect(_metadata, self, &fd);
	ASSERT_LT(1, self->round);
}

/* A zap needs no memory that it cannot do without. */
static void check_zap(struct __test_metadata *_metadata, FIXTURE_DATA(no_memory) *self, int *fd)
{
	while (next_round(self)) {
		char *map = new_leaf(fd);
		int64_t ret;

		if (!map)
			SKIP(return, "no huge pages");
		WITH_FAILURE(ret, zap(self->dev, map + PART_FIRST * page_size(), PART_PAGES));
		/* A leaf of a file goes as a whole. */
		ASSERT_EQ(fd ? 0 : PART_PAGES, ret);
		ASSERT_CONTENTS(map, !fd);
		ASSERT_LE(0, zap(self->dev, map + PART_FIRST * page_size(), PART_PAGES));
		ASSERT_CONTENTS(map, !fd);
		ASSERT_EQ(0, munmap(map, pmd_size()));
	}
	TH_LOG("%u allocations", self->round - 1);
	ASSERT_FALSE(self->failed);
}

TEST_F_TIMEOUT(no_memory, zap_part_private, TEST_SECONDS)
{
	check_zap(_metadata, self, NULL);
}

TEST_F_TIMEOUT(no_memory, zap_part_shared, TEST_SECONDS)
{
	int fd = -1;

	check_zap(_metadata, self, &fd);
}

/* More pages than the queue has slots without memory. */
TEST_F_TIMEOUT(no_memory, zap_pages, TEST_SECONDS)
{
	enum { PAGES = 200 };
	int fd = new_memfd(PAGES);
	char *file = map_shared(fd, 0, PAGES), *map = map_stored(PAGES);

	ASSERT_NE(NULL, file);
	ASSERT_NE(NULL, map);
	while (next_round(self)) {
		int64_t ret, of_file;
		bool failed;
		size_t i;

		store_range(map, 0, PAGES, 1);
		store_range(file, 0, PAGES, self->round);
		WITH_FAILURE(ret, zap(self->dev, map, PAGES));
		failed = self->failed;
		WITH_FAILURE(of_file, zap(self->dev, file, PAGES));
		self->failed |= failed;
		ASSERT_EQ(PAGES, ret);
		ASSERT_EQ(PAGES, of_file);
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(0, load(map, i));
			ASSERT_EQ(self->round + i, load(file, i));
		}
	}
	ASSERT_ROUNDS();
}

static size_t count_soft_dirty(const char *map, size_t first, size_t nr)
{
	size_t i, n = 0;

	for (i = first; i < first + nr; i++)
		n += !!(pagemap_entry(map + i * page_size()) & PAGEMAP_SOFT_DIRTY);
	return n;
}

/* A part of a new mapping: the mark is pushed down to pages around that are not there yet. */
TEST_F_TIMEOUT(no_memory, soft_dirty_clear, TEST_SECONDS)
{
	enum { PAGES = 40, STORED = 10, FIRST = 5, NR = 10 };

	while (next_round(self)) {
		/* In two page tables, the second of which is not there yet. */
		char *map = map_at(reserve(2 * PMD_PAGES, PMD_PAGES - PAGES / 2), -1, 0, PAGES,
				   PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
		char *part = map + FIRST * page_size();
		struct mmops_soft_dirty_clear out = {};
		int64_t ret;
		size_t i;

		ASSERT_NE(NULL, map);
		madvise(map, PAGES * page_size(), MADV_NOHUGEPAGE);
		store_range(map, 0, STORED, 1);
		WITH_FAILURE(ret, soft_dirty_clear_of(self->dev, -1, part, NR, 0, &out));
		if (ret == -EOPNOTSUPP)
			SKIP(return, "the kernel is without CONFIG_MEM_SOFT_DIRTY");
		ASSERT_GE(ret, 0);
		/* Without memory for page tables the range is kept. */
		if (out.kept) {
			ASSERT_EQ(0, ret);
			ASSERT_EQ(NR, out.kept);
			ASSERT_EQ(PAGES, count_soft_dirty(map, 0, PAGES));
			ret = soft_dirty_clear_of(self->dev, -1, part, NR, 0, &out);
			ASSERT_EQ(0, out.kept);
		}
		ASSERT_EQ(STORED - FIRST, ret);
		ASSERT_EQ(FIRST, count_soft_dirty(map, 0, FIRST));
		ASSERT_EQ(0, count_soft_dirty(map, FIRST, NR));
		ASSERT_EQ(PAGES - FIRST - NR,
			  count_soft_dirty(map, FIRST + NR, PAGES - FIRST - NR));
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(i < STORED ? 1 + i : 0, load(map, i));
		}
		store(map, FIRST, 1);
		ASSERT_EQ(1, count_soft_dirty(map, FIRST, NR));
		ASSERT_EQ(0, munmap(map, PAGES * page_size()));
	}
	ASSERT_ROUNDS();
}

/* Each dirty page is recorded once. */
TEST_F_TIMEOUT(no_memory, clean_record, TEST_SECONDS)
{
	enum { PAGES = 200 };
	int fd = new_memfd(PAGES);
	char *map = map_shared(fd, 0, PAGES);
	struct harvest h = new_harvest(PAGES);

	ASSERT_NE(NULL, map);
	while (next_round(self)) {
		int64_t ret;

		store_range(map, 0, PAGES, self->round);
		reset_harvest(&h);
		WITH_FAILURE(ret, clean_record(self->dev, fd, 0, PAGES, &h));
		if (ret < 0) {
			ASSERT_EQ(-ENOMEM, ret);
			ASSERT_EQ(0, count_bits(h.bitmap, h.bits));
			ret = clean_record(self->dev, fd, 0, PAGES, &h);
		}
		ASSERT_EQ(PAGES, ret);
		ASSERT_EQ(PAGES, count_bits(h.bitmap, h.bits));
		ASSERT_EQ(0, clean_record(self->dev, fd, 0, PAGES, &h));
	}
	ASSERT_ROUNDS();
}

/* A leaf for whose table there is no memory stays one. */
TEST_F_TIMEOUT(no_memory, clean_record_split, TEST_SECONDS)
{
	struct harvest h = new_harvest(PMD_PAGES);
	int fd = -1;

	while (next_round(self)) {
		char *map = new_leaf(&fd);
		bool split;
		int64_t ret;

		if (!map)
			SKIP(return, "no huge pages");
		reset_harvest(&h);
		WITH_FAILURE(ret, clean_record_flags(self->dev, fd, PART_FIRST, PART_PAGES, &h,
						     MMOPS_SPLIT));
		if (ret < 0) {
			ASSERT_EQ(-ENOMEM, ret);
			ASSERT_EQ(0, count_bits(h.bitmap, h.bits));
		} else {
			ASSERT_EQ(PART_PAGES, ret);
			ASSERT_EQ(PART_PAGES, count_bits(h.bitmap, h.bits));
		}
		split = !smaps_kb(map, "ShmemPmdMapped");
		ASSERT_TRUE(split || self->failed);
		ASSERT_FALSE(split && ret < 0);
		ret = clean_record_flags(self->dev, fd, PART_FIRST, PART_PAGES, &h, MMOPS_SPLIT);
		ASSERT_EQ(split ? 0 : PART_PAGES, ret);
		ASSERT_EQ(PART_PAGES, count_bits(h.bitmap, h.bits));
		ASSERT_EQ(0, smaps_kb(map, "ShmemPmdMapped"));
		ASSERT_CONTENTS(map, false);
		ASSERT_EQ(0, munmap(map, pmd_size()));
	}
	ASSERT_ROUNDS();
}

/* So does one that is to be write-protected, and that it is. */
TEST_F_TIMEOUT(no_memory, write_protect_split, TEST_SECONDS)
{
	int fd = -1;

	while (next_round(self)) {
		char *map = new_leaf(&fd);
		bool split;
		int64_t ret;
		long faults;

		if (!map)
			SKIP(return, "no huge pages");
		WITH_FAILURE(ret, write_protect_flags(self->dev, fd, 0, PMD_PAGES, MMOPS_SPLIT));
		ASSERT_EQ(PMD_PAGES, ret);
		split = !smaps_kb(map, "ShmemPmdMapped");
		ASSERT_TRUE(split || self->failed);
		faults = minor_faults();
		ASSERT_CONTENTS(map, false);
		ASSERT_EQ(faults, minor_faults());
		store_range(map, 0, PMD_PAGES, 1);
		ASSERT_EQ(faults + (split ? PMD_PAGES : 1), minor_faults());
		ASSERT_EQ(PMD_PAGES, write_protect_flags(self->dev, fd, 0, PMD_PAGES, MMOPS_SPLIT));
		ASSERT_EQ(0, smaps_kb(map, "ShmemPmdMapped"));
		ASSERT_EQ(0, munmap(map, pmd_size()));
	}
	ASSERT_ROUNDS();
}

/* A tracker that had no memory for its bits has all of its range in each epoch. */
TEST_F_TIMEOUT(no_memory, track_open, TEST_SECONDS)
{
	enum { PAGES = 64 };
	char *map = map_anon(PAGES);

	ASSERT_NE(NULL, map);
	while (next_round(self)) {
		struct mmops_track_open arg = {
			.pidfd = -1,
			.flags = MMOPS_TRACK_FAST,
			.addr = (uintptr_t)map,
			.len = PAGES * page_size(),
		};
		struct tracker t = { .map = map, .pages = PAGES };
		int64_t ret;

		OPEN_DEV(t.dev, MMOPS_DEV);
		ASSERT_EQ(0, track_room(&t));
		WITH_FAILURE(ret, ioctl(t.dev, MMOPS_IOC_TRACK_OPEN, &arg) ? -errno : 0);
		if (ret < 0) {
			ASSERT_EQ(-ENOMEM, ret);
			ASSERT_EQ(-ENODEV, track_begin(&t));
			ASSERT_EQ(0, ioctl(t.dev, MMOPS_IOC_TRACK_OPEN, &arg));
		}
		ASSERT_EPOCH(&t);
		ASSERT_EQ(PAGES, track_reported(&t));
		store(map, 5, self->round);
		ASSERT_EPOCH(&t);
		ASSERT_NE(0, t.kinds[5]);
		if (t.begun.state) {
			ASSERT_EQ(MMOPS_TRACK_OVERFLOW, t.begun.state);
			ASSERT_EQ(PAGES, track_reported(&t));
			ASSERT_TRUE(self->failed);
		} else {
			ASSERT_EQ(1, track_reported(&t));
		}
		track_close(&t);
	}
	ASSERT_ROUNDS();
}

/* An epoch that could not begin is in the next. */
TEST_F_TIMEOUT(no_memory, track_begin, TEST_SECONDS)
{
	enum { PAGES = 64 };
	char *map = map_anon(PAGES);
	struct tracker t;

	ASSERT_NE(NULL, map);
	ASSERT_EQ(0, track_open(&t, map, PAGES));
	ASSERT_EPOCH(&t);
	while (next_round(self)) {
		int64_t ret;

		store_range(map, 7, 3, self->round);
		t.begun = (struct mmops_track_begin){};
		WITH_FAILURE(ret, ioctl(t.dev, MMOPS_IOC_TRACK_BEGIN, &t.begun) ? -errno : 0);
		if (ret < 0) {
			struct mmops_track_read none = {};

			ASSERT_EQ(-ENOMEM, ret);
			ASSERT_EQ(-1, ioctl(t.dev, MMOPS_IOC_TRACK_READ, &none));
			ASSERT_EQ(ENOENT, errno);
			store(map, 20, self->round);
			t.begun = (struct mmops_track_begin){};
			ASSERT_EQ(0, ioctl(t.dev, MMOPS_IOC_TRACK_BEGIN, &t.begun));
		}
		ASSERT_EQ(0, track_read(&t));
		track_copy(&t);
		ASSERT_EQ(0, track_missed(&t));
		ASSERT_EQ(ret < 0 ? 4 : 3, track_reported(&t));
		ASSERT_EQ(0, track_end(&t, 0));
	}
	ASSERT_ROUNDS();
	track_close(&t);
}

TEST_HARNESS_MAIN
