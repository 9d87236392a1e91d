// SPDX-License-Identifier: GPL-2.0
/* Allocations and copies fail in each call of /dev/mmops. */
#include "exclusive.h"
#include "leaves.h"
#include "notifier.h"
#include "track.h"
#include "kselftest_harness.h"
#include "fail_nth.h"

FIXTURE_SETUP(fail_nth)
{
	int dev;

	if (!can_fail())
		SKIP(return, "the kernel is without CONFIG_FAULT_INJECTION");
	OPEN_DEV(dev, MMOPS_DEV);
	set_up(_metadata, self, dev);
}

/* Half of the pages are there, and the others have to be faulted in. */
TEST_F_TIMEOUT(fail_nth, exclusive, TEST_SECONDS)
{
	enum { PAGES = 12, STORED = 6, NOT_STORED = 0xff };
	static uint8_t results[PAGES];

	while (next_round(self)) {
		char *map = map_anon(PAGES);
		struct mmops_exclusive arg = {
			.pidfd = -1, .addr = (uintptr_t)map, .len = PAGES * page_size(),
			.results = (uintptr_t)results, .exclusive = ~0ULL, .done = ~0ULL,
		};
		size_t i, nr, stored;
		int64_t ret;

		ASSERT_NE(NULL, map);
		madvise(map, PAGES * page_size(), MADV_NOHUGEPAGE);
		store_range(map, 0, STORED, 1);
		memset(results, NOT_STORED, sizeof(results));
		CALL_WITH_ARRAY(ret, self->dev, MMOPS_IOC_EXCLUSIVE, &arg);
		nr = count_exclusive(map, PAGES);
		for (stored = 0; stored < PAGES && results[stored] != NOT_STORED; stored++) {
			bool is = results[stored] == MMOPS_PAGE_EXCLUSIVE;

			ASSERT_TRUE(is || results[stored] == MMOPS_PAGE_NO_MEMORY);
			ASSERT_EQ(is, is_exclusive(map + stored * page_size()));
		}
		for (i = stored; i < PAGES; i++) {
			ASSERT_EQ(NOT_STORED, results[i]);
		}
		if (!ret) {
			ASSERT_EQ(PAGES, stored);
			ASSERT_EQ(nr, arg.exclusive);
			ASSERT_EQ(arg.len, arg.done);
			ASSERT_LE(PAGES - (self->failed == MEMORY), nr);
		} else if (ret == -ENOMEM || self->refused) {
			ASSERT_TRUE(ret == -ENOMEM || self->refused);
			ASSERT_EQ(0, stored);
			ASSERT_EQ(0, nr);
		} else if (stored < PAGES) {
			/* The result of a page */
			ASSERT_EQ(-EFAULT, ret);
			ASSERT_EQ(PAGES, nr);
			ASSERT_EQ(PAGES, arg.exclusive);
			ASSERT_EQ(0, arg.done);
		} else {
			ASSERT_EQ(PAGES, nr);
			ASSERT_TRUE(self->untold);
			self->last = true;
		}
		ASSERT_EQ(PAGES, exclusive(self->dev, map, PAGES));
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(i < STORED ? 1 + i : 0, load(map, i));
		}
		ASSERT_EQ(0, munmap(map, PAGES * page_size()));
	}
	ASSERT_ALLOCATED();
}

TEST_F_TIMEOUT(fail_nth, revoke, TEST_SECONDS)
{
	enum { PAGES = 12 };
	char *map = map_stored(PAGES);

	ASSERT_NE(NULL, map);
	while (next_round(self)) {
		struct mmops_revoke arg = {
			.pidfd = -1, .addr = (uintptr_t)map, .len = PAGES * page_size(),
			.revoked = ~0ULL,
		};
		int64_t ret;
		size_t i;

		ASSERT_EQ(PAGES, exclusive(self->dev, map, PAGES));
		CALL(ret, self->dev, MMOPS_IOC_REVOKE, &arg);
		if (!ret) {
			ASSERT_EQ(PAGES, arg.revoked);
			ASSERT_EQ(arg.len, arg.done);
		} else if (!self->untold) {
			ASSERT_TRUE(ret == -ENOMEM || self->refused);
			ASSERT_EQ(PAGES, count_exclusive(map, PAGES));
			ASSERT_EQ(PAGES, give_back(self->dev, map, PAGES));
		}
		ASSERT_EQ(0, count_exclusive(map, PAGES));
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(1 + i, load(map, i));
		}
	}
	ASSERT_ALLOCATED();
}

/* What was added before an error is told, if anything is. */
TEST_F_TIMEOUT(fail_nth, atomic_add, TEST_SECONDS)
{
	enum { PAGES = 12 };

	while (next_round(self)) {
		char *map = map_stored(PAGES);
		struct mmops_atomic_add arg = {
			.pidfd = -1, .addr = (uintptr_t)map, .stride = page_size(), .nr = PAGES,
			.value = 1000, .rounds = 1, .added = ~0ULL,
		};
		uint64_t sum = 0, added;
		int64_t ret;
		size_t i;

		ASSERT_NE(NULL, map);
		CALL(ret, self->dev, MMOPS_IOC_ATOMIC_ADD, &arg);
		ASSERT_TRUE(!ret || ret == -ENOMEM || ret == -EFAULT);
		added = self->refused ? 0 : self->untold ? PAGES : arg.added;
		if (!ret) {
			ASSERT_EQ(PAGES, added);
		}
		for (i = 0; i < PAGES; i++)
			sum += load(map, i) - (1 + i);
		ASSERT_EQ(1000 * added, sum);
		ASSERT_EQ(PAGES, atomic_add(self->dev, map, page_size(), PAGES, 1000, 1, NULL));
		for (i = 0; i < PAGES; i++)
			sum -= load(map, i) - (1 + i);
		ASSERT_EQ(-1000ULL * PAGES, sum);
		ASSERT_EQ(0, munmap(map, PAGES * page_size()));
	}
	ASSERT_ALLOCATED();
}

/* The file is subscribed if the call was to be told of, and else can be afterwards. */
static void check_subscribe(struct __test_metadata *_metadata, FIXTURE_DATA(fail_nth) *self,
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
		struct mmops_notifier_subscribe arg = {
			.pidfd = -1, .flags = flags, .addr = all ? 0 : (uintptr_t)map, .len = len,
			.capacity = 8,
		};
		int64_t ret, again;

		ASSERT_LE(0, dev);
		CALL(ret, dev, MMOPS_IOC_NOTIFIER_SUBSCRIBE, &arg);
		ASSERT_TRUE(!ret || ret == -ENOMEM || ret == -EFAULT);
		again = subscribe_capacity(dev, -1, all ? NULL : map, len, flags, 8);
		ASSERT_EQ(!ret || self->untold ? -EBUSY : 0, again);
		store(map, 1, 5);
		ASSERT_EQ(0, madvise(map + page_size(), page_size(), MADV_DONTNEED));
		ASSERT_EQ(all ? 2 : 1, hear(dev, map, &heard, 0));
		EXPECT_STREQ(all ? "clear 1-2, clear 1-2 end" : "clear 1-2", heard.text);
		ASSERT_EQ(0, close(dev));
	}
	ASSERT_ALLOCATED();
}

TEST_F_TIMEOUT(fail_nth, subscribe_range, TEST_SECONDS)
{
	check_subscribe(_metadata, self, 0);
}

TEST_F_TIMEOUT(fail_nth, subscribe_mm, TEST_SECONDS)
{
	check_subscribe(_metadata, self, MMOPS_NOTIFIER_MM);
}

/* No event is forgotten, but one that was on its way to the caller. */
TEST_F_TIMEOUT(fail_nth, log, TEST_SECONDS)
{
	enum { ROOM = 16, NOT_STORED = 0xff };
	static struct heard heard;
	char *map = map_stored(1);

	ASSERT_NE(NULL, map);
	ASSERT_EQ(0, subscribe(self->dev, map, 1, 0));
	while (next_round(self)) {
		struct mmops_notifier_log arg = {
			.events = (uintptr_t)heard.events, .nr = ROOM, .lost = ~0ULL,
		};
		const struct mmops_notifier_event *event = &heard.events[0];
		int64_t ret, left = 0;

		store(map, 0, 5);
		ASSERT_EQ(0, madvise(map, page_size(), MADV_DONTNEED));
		memset(heard.events, NOT_STORED, ROOM * sizeof(*event));
		CALL_WITH_ARRAY(ret, self->dev, MMOPS_IOC_NOTIFIER_LOG, &arg);
		if (!ret) {
			ASSERT_EQ(1, arg.nr);
			ASSERT_EQ(0, arg.lost);
			ASSERT_EQ(MMOPS_EVENT_CLEAR, event->event);
		} else if (ret == -EFAULT && arg.nr != ROOM) {
			/* The event */
			ASSERT_EQ(0, arg.nr);
			ASSERT_EQ(0, event->end);
		} else if (ret == -EFAULT && event->event == MMOPS_EVENT_CLEAR) {
			ASSERT_EQ((uintptr_t)map, event->start);
			ASSERT_TRUE(self->untold);
			self->last = true;
		} else {
			/* Memory, or the array while it is tried */
			ASSERT_TRUE(ret == -ENOMEM || self->refused || self->untold);
			ASSERT_EQ(ROOM, arg.nr);
			ASSERT_EQ(~0ULL, event->end);
			left = 1;
		}
		ASSERT_EQ(left, hear(self->dev, map, &heard, 0));
		ASSERT_EQ(0, heard.lost);
		if (left) {
			ASSERT_EQ(MMOPS_EVENT_CLEAR, event->event);
		}
	}
	ASSERT_ALLOCATED();
	ASSERT_LE(self->copies ? 5 : 0, self->failures[COPY]);
}

TEST_F_TIMEOUT(fail_nth, leaves, TEST_SECONDS)
{
	enum { PAGES = 20 };
	static struct mmops_leaf vec[MMOPS_LEAVES_MIN];
	char *map = map_stored(PAGES);

	ASSERT_NE(NULL, map);
	while (next_round(self)) {
		struct mmops_leaves arg = {
			.pidfd = -1, .addr = (uintptr_t)map, .len = PAGES * page_size(),
			.vec = (uintptr_t)vec, .vec_len = MMOPS_LEAVES_MIN, .nr = ~0ULL,
			.next = ~0ULL,
		};
		int64_t ret;

		memset(vec, 0xff, sizeof(vec));
		CALL_WITH_ARRAY(ret, self->dev, MMOPS_IOC_LEAVES, &arg);
		if (ret) {
			ASSERT_TRUE(ret == -ENOMEM || self->refused || self->untold);
			ASSERT_EQ(~0ULL, arg.nr);
			ASSERT_EQ(~0ULL, arg.next);
			self->last |= self->untold && vec[0].addr == (uintptr_t)map;
			ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_LEAVES, &arg));
		}
		ASSERT_EQ(PAGES, arg.nr);
		ASSERT_EQ((uintptr_t)map + PAGES * page_size(), arg.next);
		ASSERT_EQ((uintptr_t)map, vec[0].addr);
		ASSERT_EQ((uintptr_t)map + (PAGES - 1) * page_size(), vec[PAGES - 1].addr);
	}
	ASSERT_ALLOCATED();
	ASSERT_LE(self->copies ? 4 : 0, self->failures[COPY]);
}

/* Records of a tracker, of which nothing is lost. */
TEST_F_TIMEOUT(fail_nth, track_read, TEST_SECONDS)
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
		CALL_WITH_ARRAY(ret, self->dev, MMOPS_IOC_TRACK_READ, &arg);
		if (ret) {
			bool stored = vec[0].addr == (uintptr_t)map;

			if (ret == -EFAULT && !self->refused && !self->untold) {
				/* The records */
				ASSERT_EQ(0, arg.nr);
				ASSERT_EQ(0, arg.needed);
			} else {
				ASSERT_TRUE(ret == -ENOMEM || self->refused || self->untold);
				ASSERT_EQ(~0ULL, arg.nr);
				ASSERT_EQ(~0ULL, arg.needed);
			}
			ASSERT_EQ(0, arg.addr);
			ASSERT_EQ(stored ? (uintptr_t)map : ~0ULL, vec[0].addr);
			ASSERT_EQ(self->untold, stored);
			self->last |= self->untold;
			ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_READ, &arg));
		}
		/* The first epoch has all. */
		ASSERT_EQ(1, arg.nr);
		ASSERT_EQ(1, arg.needed);
		ASSERT_EQ((uintptr_t)map, vec[0].addr);
		ASSERT_EQ(PAGES * page_size(), vec[0].len);
	}
	ASSERT_ALLOCATED();
	ASSERT_LE(self->copies ? 4 : 0, self->failures[COPY]);
}

/* As a bitmap. */
TEST_F_TIMEOUT(fail_nth, track_bitmap, TEST_SECONDS)
{
	enum { PAGES = 20 };
	const uint64_t all = (1ULL << PAGES) - 1, mark = ~all;
	static uint64_t bitmap;
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
		struct mmops_track_bitmap arg = {
			.addr = (uintptr_t)map, .bitmap = (uintptr_t)&bitmap, .words = 1,
			.nr = ~0ULL,
		};
		int64_t ret;

		bitmap = mark;
		CALL_WITH_ARRAY(ret, self->dev, MMOPS_IOC_TRACK_BITMAP, &arg);
		if (ret) {
			bool stored = bitmap == all;

			/* Without its result: the words, or the argument, could not be copied. */
			ASSERT_EQ(~0ULL, arg.nr);
			ASSERT_TRUE(stored || bitmap == mark);
			ASSERT_TRUE(!stored || self->untold);
			self->last |= stored;
			ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_BITMAP, &arg));
		}
		ASSERT_EQ(PAGES, arg.nr);
		ASSERT_EQ(all, bitmap);
	}
	ASSERT_ALLOCATED();
	ASSERT_LE(self->copies ? 3 : 0, self->failures[COPY]);
}

TEST_F_TIMEOUT(fail_nth, info, TEST_SECONDS)
{
	while (next_round(self)) {
		struct mmops_info arg = {};
		int64_t ret;

		CALL(ret, self->dev, MMOPS_IOC_INFO, &arg);
		ASSERT_EQ(ret ? 0 : MMOPS_UAPI_VERSION, arg.version);
	}
	ASSERT_NOT_ALLOCATED();
}

TEST_F_TIMEOUT(fail_nth, probe, TEST_SECONDS)
{
	char *map = map_stored(1);

	ASSERT_NE(NULL, map);
	ASSERT_EQ(0, subscribe(self->dev, map, 1, 0));
	while (next_round(self)) {
		struct mmops_notifier_probe arg = { .collided = 7, .hint = 7 };
		int64_t ret;

		CALL(ret, self->dev, MMOPS_IOC_NOTIFIER_PROBE, &arg);
		ASSERT_EQ(ret ? 7 : 0, arg.collided);
		ASSERT_EQ(ret ? 7 : 0, arg.hint);
	}
	ASSERT_NOT_ALLOCATED();
}

TEST_F_TIMEOUT(fail_nth, age, TEST_SECONDS)
{
	enum { PAGES = 20 };
	char *map = map_stored(PAGES);

	ASSERT_NE(NULL, map);
	while (next_round(self)) {
		struct mmops_age arg = {
			.pidfd = -1, .addr = (uintptr_t)map, .len = PAGES * page_size(),
			.aged = ~0ULL, .kept = ~0ULL, .done = ~0ULL,
		}, again = arg;
		int64_t ret;

		load_range(map, 0, PAGES);
		CALL(ret, self->dev, MMOPS_IOC_AGE, &arg);
		if (!ret) {
			ASSERT_EQ(PAGES, arg.aged);
			ASSERT_EQ(0, arg.kept);
			ASSERT_EQ(arg.len, arg.done);
		}
		ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_AGE, &again));
		ASSERT_EQ(self->refused ? PAGES : 0, again.aged);
	}
	ASSERT_NOT_ALLOCATED();
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

/* A leaf for whose table there is no memory stays one, and as it was. */
static void check_protect(struct __test_metadata *_metadata, FIXTURE_DATA(fail_nth) *self,
			  int *fd)
{
	while (next_round(self)) {
		char *map = new_leaf(fd);
		struct mmops_protect arg = {
			.pidfd = -1, .flags = MMOPS_PROTECT_LARGE, .prot = PROT_READ,
			.addr = (uintptr_t)map + PART_FIRST * page_size(),
			.len = PART_PAGES * page_size(), .ptes = ~0ULL,
		}, again = arg;
		int64_t ret;
		long faults;

		if (!map)
			SKIP(return, "no huge pages");
		CALL(ret, self->dev, MMOPS_IOC_PROTECT, &arg);
		ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_PROTECT, &again));
		if (!ret) {
			ASSERT_EQ(PART_PAGES, arg.ptes);
			ASSERT_EQ(1, arg.split_pmds);
			ASSERT_EQ(arg.len, arg.done);
		} else if (ret == -ENOMEM) {
			ASSERT_EQ(0, arg.ptes + arg.pmds + arg.split_pmds);
			ASSERT_EQ(0, arg.done);
		} else {
			ASSERT_EQ(-EFAULT, ret);
		}
		ASSERT_EQ(!ret || self->untold ? 0 : PART_PAGES, again.ptes);
		ASSERT_EQ(!ret || self->untold ? 0 : 1, again.split_pmds);
		faults = minor_faults();
		ASSERT_CONTENTS(map, false);
		store_range(map, 0, PART_FIRST, 1);
		ASSERT_EQ(faults, minor_faults());
		store_range(map, 0, PMD_PAGES, 1);
		ASSERT_EQ(faults + PART_PAGES, minor_faults());
		ASSERT_EQ(0, munmap(map, pmd_size()));
	}
	ASSERT_ROUNDS(3);
}

/* The table was deposited when the leaf was made. */
TEST_F_TIMEOUT(fail_nth, protect_part_private, TEST_SECONDS)
{
	check_protect(_metadata, self, NULL);
}

TEST_F_TIMEOUT(fail_nth, protect_part_shared, TEST_SECONDS)
{
	int fd = -1;

	check_protect(_metadata, self, &fd);
	ASSERT_LT(0, self->failures[MEMORY]);
}

/* A zap needs no memory that it cannot do without. */
static void check_zap(struct __test_metadata *_metadata, FIXTURE_DATA(fail_nth) *self, int *fd)
{
	while (next_round(self)) {
		char *map = new_leaf(fd);
		struct mmops_zap arg = {
			.pidfd = -1, .addr = (uintptr_t)map + PART_FIRST * page_size(),
			.len = PART_PAGES * page_size(), .zapped = ~0ULL,
		};
		int64_t ret;

		if (!map)
			SKIP(return, "no huge pages");
		CALL(ret, self->dev, MMOPS_IOC_ZAP, &arg);
		if (!ret) {
			/* A leaf of a file goes as a whole. */
			ASSERT_EQ(fd ? 0 : PART_PAGES, arg.zapped);
			ASSERT_EQ(arg.len, arg.done);
		} else {
			ASSERT_EQ(-EFAULT, ret);
		}
		ASSERT_CONTENTS(map, !fd && !self->refused);
		ASSERT_LE(0, zap(self->dev, map + PART_FIRST * page_size(), PART_PAGES));
		ASSERT_CONTENTS(map, !fd);
		ASSERT_EQ(0, munmap(map, pmd_size()));
	}
	ASSERT_ROUNDS(3);
}

TEST_F_TIMEOUT(fail_nth, zap_part_private, TEST_SECONDS)
{
	check_zap(_metadata, self, NULL);
}

TEST_F_TIMEOUT(fail_nth, zap_part_shared, TEST_SECONDS)
{
	int fd = -1;

	check_zap(_metadata, self, &fd);
}

/* More pages than the queue has slots without memory. */
static void check_zap_pages(struct __test_metadata *_metadata, FIXTURE_DATA(fail_nth) *self,
			    char *map, size_t pages, bool is_file)
{
	ASSERT_NE(NULL, map);
	while (next_round(self)) {
		struct mmops_zap arg = {
			.pidfd = -1, .addr = (uintptr_t)map, .len = pages * page_size(),
			.zapped = ~0ULL,
		};
		int64_t ret;
		size_t i;

		store_range(map, 0, pages, self->round);
		CALL(ret, self->dev, MMOPS_IOC_ZAP, &arg);
		if (!ret) {
			ASSERT_EQ(pages, arg.zapped);
			ASSERT_EQ(arg.len, arg.done);
		} else {
			ASSERT_EQ(-EFAULT, ret);
		}
		for (i = 0; i < pages; i++) {
			ASSERT_EQ(self->refused, is_present(map + i * page_size()));
		}
		for (i = 0; i < pages; i++) {
			ASSERT_EQ(is_file || self->refused ? self->round + i : 0, load(map, i));
		}
	}
	ASSERT_ALLOCATED();
}

TEST_F_TIMEOUT(fail_nth, zap_pages_private, TEST_SECONDS)
{
	enum { PAGES = 200 };

	check_zap_pages(_metadata, self, map_stored(PAGES), PAGES, false);
}

TEST_F_TIMEOUT(fail_nth, zap_pages_shared, TEST_SECONDS)
{
	enum { PAGES = 200 };

	check_zap_pages(_metadata, self, map_shared(new_memfd(PAGES), 0, PAGES), PAGES, true);
}

static size_t count_soft_dirty(const char *map, size_t first, size_t nr)
{
	size_t i, n = 0;

	for (i = first; i < first + nr; i++)
		n += !!(pagemap_entry(map + i * page_size()) & PAGEMAP_SOFT_DIRTY);
	return n;
}

/* A part of a new mapping: the mark is pushed down to pages around that are not there yet. */
TEST_F_TIMEOUT(fail_nth, soft_dirty_clear, TEST_SECONDS)
{
	enum { PAGES = 40, STORED = 10, FIRST = 5, NR = 10 };

	if (soft_dirty_clear(self->dev, map_stored(1), 1) == -EOPNOTSUPP)
		SKIP(return, "the kernel is without CONFIG_MEM_SOFT_DIRTY");
	while (next_round(self)) {
		/* In two page tables, the second of which is not there yet. */
		char *map = map_at(reserve(2 * PMD_PAGES, PMD_PAGES - PAGES / 2), -1, 0, PAGES,
				   PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
		char *part = map + FIRST * page_size();
		struct mmops_soft_dirty_clear arg = {
			.pidfd = -1, .addr = (uintptr_t)part, .len = NR * page_size(),
			.cleared = ~0ULL,
		};
		int64_t ret;
		size_t i;

		ASSERT_NE(NULL, map);
		madvise(map, PAGES * page_size(), MADV_NOHUGEPAGE);
		store_range(map, 0, STORED, 1);
		CALL(ret, self->dev, MMOPS_IOC_SOFT_DIRTY_CLEAR, &arg);
		if (!ret) {
			ASSERT_EQ(arg.len, arg.done);
			ASSERT_EQ(arg.kept ? 0 : STORED - FIRST, arg.cleared);
		} else {
			ASSERT_EQ(-EFAULT, ret);
		}
		/* Without memory for page tables the range is kept. */
		if (arg.kept) {
			ASSERT_EQ(MEMORY, self->failed);
			ASSERT_EQ(NR, arg.kept);
		}
		if (arg.kept || self->refused) {
			ASSERT_EQ(PAGES, count_soft_dirty(map, 0, PAGES));
			ASSERT_EQ(STORED - FIRST, soft_dirty_clear_of(self->dev, -1, part, NR, 0,
								      &arg));
			ASSERT_EQ(0, arg.kept);
		}
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
	ASSERT_ALLOCATED();
}

/*
 * One round of a harvest of @nr pages, all of them dirty. The number of those that the
 * next one has to find, since this one has neither recorded them nor lost the record.
 */
static uint64_t harvest(struct __test_metadata *_metadata, FIXTURE_DATA(fail_nth) *self, int fd,
			uint64_t first, uint64_t nr, uint32_t flags, struct harvest *h)
{
	struct mmops_clean_record arg = {
		.fd = fd, .flags = flags, .first = first, .nr = nr,
		.bitmap = (uintptr_t)h->bitmap, .bitmap_bits = h->bits, .cleaned = ~0ULL,
		.done = ~0ULL,
	};
	uint64_t bits;
	int64_t ret;

	reset_harvest(h);
	CALL_WITH_ARRAY(ret, self->dev, MMOPS_IOC_CLEAN_RECORD, &arg);
	bits = count_bits(h->bitmap, h->bits);
	if (!ret) {
		ASSERT_EQ(nr, bits);
		ASSERT_EQ(nr, arg.cleaned);
		ASSERT_EQ(nr, arg.done);
		ASSERT_EQ(first, arg.start);
		ASSERT_EQ(first + nr, arg.end);
		return 0;
	}
	ASSERT_TRUE(ret == -ENOMEM || ret == -EFAULT);
	ASSERT_EQ(0, arg.start);
	ASSERT_EQ(0, arg.end);
	if (bits) {
		ASSERT_EQ(nr, bits);
		ASSERT_TRUE(self->untold);
		self->last = true;
		return 0;
	}
	ASSERT_TRUE(!arg.done || arg.done == ~0ULL);
	if (arg.cleaned && arg.cleaned != ~0ULL) {
		/* All was done but to store the record. */
		ASSERT_EQ(-EFAULT, ret);
		ASSERT_EQ(nr, arg.cleaned);
		ASSERT_EQ(0, arg.done);
		return 0;
	}
	return nr;
}

/* Each dirty page is recorded once, if its record can be stored. */
TEST_F_TIMEOUT(fail_nth, clean_record, TEST_SECONDS)
{
	enum { PAGES = 200 };
	int fd = new_memfd(PAGES);
	char *map = map_shared(fd, 0, PAGES);
	struct harvest h = new_harvest(PAGES);

	ASSERT_NE(NULL, map);
	while (next_round(self)) {
		uint64_t left;

		store_range(map, 0, PAGES, self->round);
		left = harvest(_metadata, self, fd, 0, PAGES, 0, &h);
		reset_harvest(&h);
		ASSERT_EQ(left, clean_record(self->dev, fd, 0, PAGES, &h));
		ASSERT_EQ(left, count_bits(h.bitmap, h.bits));
	}
	ASSERT_ALLOCATED();
	/* The argument, and the record: read and written back before it is made, and stored. */
	ASSERT_LE(self->copies ? 6 : 0, self->failures[COPY]);
}

/* A leaf for whose table there is no memory stays one. */
TEST_F_TIMEOUT(fail_nth, clean_record_split, TEST_SECONDS)
{
	struct harvest h = new_harvest(PMD_PAGES);
	int fd = -1;

	while (next_round(self)) {
		char *map = new_leaf(&fd);
		uint64_t left;
		bool split;

		if (!map)
			SKIP(return, "no huge pages");
		left = harvest(_metadata, self, fd, PART_FIRST, PART_PAGES, MMOPS_SPLIT, &h);
		split = !smaps_kb(map, "ShmemPmdMapped");
		ASSERT_TRUE(split || left || self->failed == MEMORY);
		ASSERT_FALSE(split && left);
		reset_harvest(&h);
		ASSERT_EQ(split ? 0 : PART_PAGES,
			  clean_record_flags(self->dev, fd, PART_FIRST, PART_PAGES, &h,
					     MMOPS_SPLIT));
		ASSERT_EQ(split ? 0 : PART_PAGES, count_bits(h.bitmap, h.bits));
		ASSERT_EQ(0, smaps_kb(map, "ShmemPmdMapped"));
		ASSERT_CONTENTS(map, false);
		ASSERT_EQ(0, munmap(map, pmd_size()));
	}
	ASSERT_ALLOCATED();
}

/* So does one that is to be write-protected, and that it is. */
TEST_F_TIMEOUT(fail_nth, write_protect_split, TEST_SECONDS)
{
	int fd = -1;

	while (next_round(self)) {
		char *map = new_leaf(&fd);
		struct mmops_write_protect arg = {
			.fd = fd, .flags = MMOPS_SPLIT, .nr = PMD_PAGES, .write_protected = ~0ULL,
		};
		long faults, more;
		bool split;
		int64_t ret;

		if (!map)
			SKIP(return, "no huge pages");
		CALL(ret, self->dev, MMOPS_IOC_WRITE_PROTECT, &arg);
		if (!ret) {
			ASSERT_EQ(PMD_PAGES, arg.write_protected);
			ASSERT_EQ(PMD_PAGES, arg.done);
		} else {
			ASSERT_EQ(-EFAULT, ret);
		}
		split = !smaps_kb(map, "ShmemPmdMapped");
		ASSERT_TRUE(split || self->failed == MEMORY || self->refused);
		ASSERT_FALSE(split && self->refused);
		more = self->refused ? 0 : split ? PMD_PAGES : 1;
		faults = minor_faults();
		ASSERT_CONTENTS(map, false);
		ASSERT_EQ(faults, minor_faults());
		store_range(map, 0, PMD_PAGES, 1);
		ASSERT_EQ(faults + more, minor_faults());
		ASSERT_EQ(PMD_PAGES, write_protect_flags(self->dev, fd, 0, PMD_PAGES, MMOPS_SPLIT));
		ASSERT_EQ(0, smaps_kb(map, "ShmemPmdMapped"));
		ASSERT_EQ(0, munmap(map, pmd_size()));
	}
	ASSERT_ALLOCATED();
}

/* What is to be tracked: memory of the process, or a file and a mapping of it. */
static char *track_memory(uint32_t flags, size_t pages, int *fd)
{
	*fd = flags & MMOPS_TRACK_FILE ? new_memfd(pages) : -1;
	return *fd < 0 ? map_anon(pages) : map_shared(*fd, 0, pages);
}

/* A tracker that had no memory for its bits has all of its range in each epoch. */
static void check_track_open(struct __test_metadata *_metadata, FIXTURE_DATA(fail_nth) *self,
			     uint32_t flags)
{
	enum { PAGES = 64 };
	int fd;
	char *map = track_memory(flags, PAGES, &fd);

	ASSERT_NE(NULL, map);
	while (next_round(self)) {
		struct mmops_track_open arg = {
			.pidfd = fd,
			.flags = flags,
			.addr = fd < 0 ? (uintptr_t)map : 0,
			.len = PAGES * page_size(),
		};
		struct tracker t = { .map = map, .pages = PAGES, .base = arg.addr };
		int64_t ret;
		int again;

		OPEN_DEV(t.dev, MMOPS_DEV);
		ASSERT_EQ(0, track_room(&t));
		CALL(ret, t.dev, MMOPS_IOC_TRACK_OPEN, &arg);
		ASSERT_TRUE(!ret || ret == -ENOMEM || ret == -EFAULT);
		if (ret && !self->untold) {
			ASSERT_EQ(-ENODEV, track_begin(&t));
		}
		again = ioctl(t.dev, MMOPS_IOC_TRACK_OPEN, &arg) ? -errno : 0;
		ASSERT_EQ(!ret || self->untold ? -EBUSY : 0, again);
		ASSERT_EPOCH(&t);
		ASSERT_EQ(PAGES, track_reported(&t));
		store(map, 5, self->round);
		ASSERT_EPOCH(&t);
		ASSERT_NE(0, t.kinds[5]);
		if (t.begun.state) {
			ASSERT_EQ(MMOPS_TRACK_OVERFLOW, t.begun.state);
			ASSERT_EQ(PAGES, track_reported(&t));
			ASSERT_EQ(MEMORY, self->failed);
		} else {
			ASSERT_EQ(1, track_reported(&t));
		}
		track_close(&t);
	}
	ASSERT_ALLOCATED();
}

TEST_F_TIMEOUT(fail_nth, track_open_fast, TEST_SECONDS)
{
	check_track_open(_metadata, self, MMOPS_TRACK_FAST);
}

TEST_F_TIMEOUT(fail_nth, track_open_full, TEST_SECONDS)
{
	check_track_open(_metadata, self, MMOPS_TRACK_FULL);
}

TEST_F_TIMEOUT(fail_nth, track_open_file, TEST_SECONDS)
{
	check_track_open(_metadata, self, MMOPS_TRACK_FAST | MMOPS_TRACK_FILE);
}

/* An epoch that could not begin is in the next. One that nobody was told of is open. */
static void check_track_begin(struct __test_metadata *_metadata, FIXTURE_DATA(fail_nth) *self,
			      uint32_t flags)
{
	enum { PAGES = 64 };
	int fd;
	char *map = track_memory(flags, PAGES, &fd);
	struct tracker t;

	ASSERT_NE(NULL, map);
	ASSERT_EQ(0, track_open_as(&t, fd, flags, fd < 0 ? (uintptr_t)map : 0, map, PAGES));
	ASSERT_EPOCH(&t);
	while (next_round(self)) {
		int64_t ret;

		store_range(map, 7, 3, self->round);
		t.begun = (struct mmops_track_begin){};
		CALL(ret, t.dev, MMOPS_IOC_TRACK_BEGIN, &t.begun);
		if (self->untold) {
			ASSERT_EQ(-EBUSY, track_begin(&t));
			ASSERT_EQ(0, track_end(&t, MMOPS_TRACK_ABORT));
		} else if (ret) {
			struct mmops_track_read none = {};

			ASSERT_TRUE(ret == -ENOMEM || self->refused);
			ASSERT_EQ(-1, ioctl(t.dev, MMOPS_IOC_TRACK_READ, &none));
			ASSERT_EQ(ENOENT, errno);
		}
		if (ret) {
			store(map, 20, self->round);
			t.begun = (struct mmops_track_begin){};
			ASSERT_EQ(0, ioctl(t.dev, MMOPS_IOC_TRACK_BEGIN, &t.begun));
		}
		ASSERT_EQ(0, track_read(&t));
		track_copy(&t);
		ASSERT_EQ(0, track_missed(&t));
		ASSERT_EQ(ret ? 4 : 3, track_reported(&t));
		ASSERT_EQ(0, track_end(&t, 0));
	}
	ASSERT_ALLOCATED();
	track_close(&t);
}

TEST_F_TIMEOUT(fail_nth, track_begin_fast, TEST_SECONDS)
{
	check_track_begin(_metadata, self, MMOPS_TRACK_FAST);
}

TEST_F_TIMEOUT(fail_nth, track_begin_full, TEST_SECONDS)
{
	check_track_begin(_metadata, self, MMOPS_TRACK_FULL);
}

TEST_F_TIMEOUT(fail_nth, track_begin_file, TEST_SECONDS)
{
	check_track_begin(_metadata, self, MMOPS_TRACK_FAST | MMOPS_TRACK_FILE);
}

/* The epoch is still open if the argument was not to be had, and else it has ended. */
static void check_track_end(struct __test_metadata *_metadata, FIXTURE_DATA(fail_nth) *self,
			    uint32_t flags)
{
	enum { PAGES = 64 };
	char *map = map_anon(PAGES);
	struct tracker t;

	ASSERT_NE(NULL, map);
	ASSERT_EQ(0, track_open(&t, map, PAGES));
	ASSERT_EPOCH(&t);
	while (next_round(self)) {
		struct mmops_track_end arg = { .flags = flags };
		int64_t ret;

		store_range(map, 7, 3, self->round);
		ASSERT_EQ(0, track_begin(&t));
		ASSERT_EQ(3, track_reported(&t));
		track_copy(&t);
		CALL(ret, t.dev, MMOPS_IOC_TRACK_END, &arg);
		ASSERT_EQ(self->refused ? 0 : -ENOENT, track_end(&t, flags));
		ASSERT_EPOCH(&t);
		ASSERT_EQ(flags & MMOPS_TRACK_ABORT ? 3 : 0, track_reported(&t));
	}
	ASSERT_NOT_ALLOCATED();
	track_close(&t);
}

TEST_F_TIMEOUT(fail_nth, track_end, TEST_SECONDS)
{
	check_track_end(_metadata, self, 0);
}

TEST_F_TIMEOUT(fail_nth, track_abort, TEST_SECONDS)
{
	check_track_end(_metadata, self, MMOPS_TRACK_ABORT);
}

TEST_HARNESS_MAIN
