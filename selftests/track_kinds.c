// SPDX-License-Identifier: GPL-2.0
/*
 * The kinds that records have with MMOPS_TRACK_KINDS; and that without it the same pages
 * are reported, as one of two.
 */
#include "exclusive.h"
#include "kselftest_harness.h"
#include "ksm.h"
#include "pins.h"
#include "track.h"

#define PAGES	64UL
#define RW	(PROT_READ | PROT_WRITE)

enum { NONE, W = MMOPS_TRACK_WRITTEN, C = MMOPS_TRACK_CHANGED, P = MMOPS_TRACK_PINNED,
       N = MMOPS_TRACK_NEW, G = MMOPS_TRACK_GONE };

struct both {
	struct tracker t, plain;	/* with kinds, and without */
	char *map;
	int fd;
};

/* 64 pages of which half have been stored to. */
static void set_up(struct __test_metadata *_metadata, struct both *self, bool file, uint32_t mode)
{
	int dev;

	OPEN_DEV(dev, MMOPS_DEV);
	close(dev);
	self->fd = -1;
	if (file) {
		self->fd = new_memfd(PAGES);
		ASSERT_GE(self->fd, 0);
	}
	self->map = reserve(PAGES, 0);
	ASSERT_NE(self->map, NULL);
	self->map = map_at(self->map, self->fd, 0, PAGES, RW,
			   file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
	ASSERT_NE(self->map, NULL);
	ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_NOHUGEPAGE));
	store_range(self->map, 0, PAGES / 2, 1);
	track_mode = mode | MMOPS_TRACK_KINDS;
	ASSERT_EQ(0, file ? track_open_file(&self->t, self->fd, 0, self->map, PAGES) :
			    track_open(&self->t, self->map, PAGES));
	track_mode = mode;
	ASSERT_EQ(0, file ? track_open_file(&self->plain, self->fd, 0, self->map, PAGES) :
			    track_open(&self->plain, self->map, PAGES));
}

static void tear_down(struct both *self)
{
	track_close(&self->t);
	track_close(&self->plain);
	if (self->fd >= 0)
		close(self->fd);
}

static char *page(struct both *self, size_t n)
{
	return self->map + n * page_size();
}

/* Whether the tracker without kinds tells of the same pages, as of one of two. */
static bool is_plain(struct both *self)
{
	size_t i;

	for (i = 0; i < PAGES; i++) {
		uint8_t kind = self->t.kinds[i];
		uint8_t plain = kind == P ? W : kind == N || kind == G ? C : kind;

		if (self->plain.kinds[i] != plain)
			return false;
	}
	return true;
}

/*
 * An epoch in which the @nr pages from @first on are of a @kind, and @others pages are
 * reported besides.
 */
#define ASSERT_KIND(kind, first, nr, others)					\
do {										\
	ASSERT_EQ(0, track_begin(&self->t));					\
	for (size_t n = 0; n < (nr); n++) {					\
		ASSERT_EQ((kind), self->t.kinds[(first) + n]) {			\
			TH_LOG("page %zu", (first) + n);			\
		}								\
	}									\
	ASSERT_EQ((nr) + (others), track_reported(&self->t));			\
	ASSERT_EQ(0, track_end(&self->t, 0));					\
} while (0)

#define ASSERT_NOTHING()	ASSERT_KIND(NONE, 0UL, 0UL, 0UL)

/* The first epoch has all. What was never there is of no kind but changed. */
#define FIRST_EPOCH()								\
do {										\
	ASSERT_EQ(0, track_begin(&self->t));					\
	ASSERT_EQ(PAGES, track_reported(&self->t));				\
	ASSERT_EQ(PAGES / 2, self->t.begun.written);				\
	for (size_t n = 0; n < PAGES; n++) {					\
		ASSERT_EQ(n < PAGES / 2 ? W : C, self->t.kinds[n]);		\
	}									\
	ASSERT_EQ(0, track_end(&self->t, 0));					\
	ASSERT_NOTHING();							\
} while (0)

static void test_written(struct __test_metadata *_metadata, struct both *self)
{
	FIRST_EPOCH();
	store(self->map, 3, 30);
	store(self->map, 40, 400);	/* as well where nothing was */
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(W, self->t.kinds[3]);
	ASSERT_EQ(W, self->t.kinds[40]);
	ASSERT_EQ(2, track_reported(&self->t));
	ASSERT_EQ(0, track_end(&self->t, 0));
	ASSERT_NOTHING();
}

/* As long as they are, stored to or not; and once more, since nobody knows until when. */
static void test_pinned(struct __test_metadata *_metadata, struct both *self)
{
	int fd, round;

	OPEN_PINS(fd);
	FIRST_EPOCH();
	ASSERT_EQ(0, pin(fd, page(self, 5), 3, false));
	for (round = 0; round < 3; round++) {
		ASSERT_KIND(P, 5, 3UL, 0UL);
		if (round)
			store(self->map, 6, round);
	}
	ASSERT_EQ(0, track_begin(&self->plain));
	ASSERT_EQ(W, self->plain.kinds[5]);
	ASSERT_EQ(0, track_end(&self->plain, 0));
	ASSERT_EQ(0, unpin(fd));
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(3, track_reported(&self->t));
	ASSERT_NE(P, self->t.kinds[5]);
	ASSERT_NE(P, self->t.kinds[6]);
	ASSERT_NE(P, self->t.kinds[7]);
	ASSERT_EQ(0, track_end(&self->t, 0));
	ASSERT_NOTHING();
	close(fd);
}

/* Clean pages that come to where nothing was; an abort leaves them to the next epoch. */
static void test_new_contents(struct __test_metadata *_metadata, struct both *self)
{
	char *other = mmap(NULL, 4 * page_size(), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct tracker from;

	ASSERT_NE(other, MAP_FAILED);
	ASSERT_EQ(0, madvise(other, 4 * page_size(), MADV_NOHUGEPAGE));
	store_range(other, 0, 4, 4711);
	/* Another tracker takes their dirty bits. */
	ASSERT_EQ(0, track_open(&from, other, 4));
	ASSERT_EPOCH(&from);
	track_close(&from);
	FIRST_EPOCH();
	ASSERT_NE(MAP_FAILED, mremap(other, 4 * page_size(), 4 * page_size(),
				     MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
				     page(self, 40)));
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(N, self->t.kinds[40]);
	ASSERT_EQ(0, track_end(&self->t, MMOPS_TRACK_ABORT));
	store(self->map, 41, 1);
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(N, self->t.kinds[40]);
	ASSERT_EQ(W, self->t.kinds[41]);
	ASSERT_EQ(N, self->t.kinds[42]);
	ASSERT_EQ(0, track_end(&self->t, 0));
	/* They are not new for ever. */
	ASSERT_EQ(0, madvise(page(self, 43), page_size(), MADV_DONTNEED));
	ASSERT_KIND(G, 43, 1UL, 0UL);
}

/* Contents that are gone: the first epoch tells, and an abort leaves it to the next. */
static void test_gone(struct __test_metadata *_metadata, struct both *self)
{
	FIRST_EPOCH();
	ASSERT_EQ(0, madvise(page(self, 8), 4 * page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(G, self->t.kinds[8]);
	ASSERT_EQ(0, track_end(&self->t, MMOPS_TRACK_ABORT));
	/* A page of zeroes is none that was ever there. */
	ASSERT_EQ(0, load(self->map, 9));
	ASSERT_KIND(G, 8, 4UL, 0UL);
	ASSERT_NOTHING();
	/* Where nothing was, nothing is gone; it is told of, and nobody knows. */
	ASSERT_EQ(0, madvise(page(self, 8), 4 * page_size(), MADV_DONTNEED));
	ASSERT_KIND(C, 8, 4UL, 0UL);
	/* There again, and stored to. */
	store(self->map, 10, 100);
	ASSERT_KIND(W, 10, 1UL, 0UL);
}

/* Gone, whoever was told before that it had been stored to: an epoch that was aborted, or others. */
static void test_gone_after_a_store(struct __test_metadata *_metadata, struct both *self)
{
	FIRST_EPOCH();
	ASSERT_EPOCH(&self->plain);
	store(self->map, 8, 80);
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(W, self->t.kinds[8]);
	ASSERT_EQ(0, track_end(&self->t, MMOPS_TRACK_ABORT));
	store(self->map, 9, 90);
	/* It tells the first of its store, which is not found any more. */
	ASSERT_EPOCH(&self->plain);
	ASSERT_EQ(W, self->plain.kinds[9]);
	ASSERT_EQ(0, madvise(page(self, 8), 2 * page_size(), MADV_DONTNEED));
	ASSERT_KIND(G, 8, 2UL, 0UL);
	ASSERT_NOTHING();
}

/* Guard markers, over something and over nothing. */
static void test_guard(struct __test_metadata *_metadata, struct both *self)
{
	FIRST_EPOCH();
	if (madvise(page(self, 30), 4 * page_size(), MADV_GUARD_INSTALL) && errno == EINVAL)
		SKIP(return, "the kernel is without MADV_GUARD_INSTALL");
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(G, self->t.kinds[30]);
	ASSERT_EQ(G, self->t.kinds[31]);
	ASSERT_EQ(C, self->t.kinds[32]);
	ASSERT_EQ(C, self->t.kinds[33]);
	ASSERT_EQ(4, track_reported(&self->t));
	ASSERT_EQ(0, track_end(&self->t, 0));
	ASSERT_KIND(C, 30, 4UL, 0UL);
	ASSERT_EQ(0, madvise(page(self, 30), 4 * page_size(), MADV_GUARD_REMOVE));
	ASSERT_KIND(C, 30, 4UL, 0UL);
	ASSERT_NOTHING();
}

/*
 * Page of zeroes that KSM knows as its own by a dirty bit: the tracker leaves that alone,
 * and the kernel counts the page until it goes.
 */
static void test_ksm_zero_page(struct __test_metadata *_metadata, struct both *self)
{
	long before = ksm_number("ksm_zero_pages");

	memset(page(self, 4), 0, 4 * page_size());
	FIRST_EPOCH();
	ASSERT_EQ(0, madvise(page(self, 4), 4 * page_size(), MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_merge_zeroes(page(self, 7)));
	ASSERT_EQ(before + 4, ksm_number("ksm_zero_pages"));
	ASSERT_KIND(G, 4, 4UL, 0UL);
	ASSERT_NOTHING();
	store_range(self->map, 4, 4, 1);
	ASSERT_EQ(before, ksm_number("ksm_zero_pages"));
	ASSERT_KIND(W, 4, 4UL, 0UL);
}

/* Nothing is mapped: gone once, and then unknown, since something may come. */
static void test_unmapped(struct __test_metadata *_metadata, struct both *self)
{
	int round;

	FIRST_EPOCH();
	ASSERT_EQ(0, munmap(page(self, 20), 2 * page_size()));
	/* Where a mapping is cut the kernel may tell of the 2 MiB around. */
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(G, self->t.kinds[20]);
	ASSERT_EQ(G, self->t.kinds[21]);
	ASSERT_NE(G, self->t.kinds[19]);
	ASSERT_NE(G, self->t.kinds[22]);
	ASSERT_EQ(0, track_end(&self->t, 0));
	for (round = 0; round < 2; round++) {
		ASSERT_KIND(C, 20, 2UL, 0UL);
	}
}

/* Contents that a device has are there: nobody knows what they are. */
static void test_exclusive(struct __test_metadata *_metadata, struct both *self)
{
	int dev, round;

	OPEN_DEV(dev, MMOPS_DEV);
	FIRST_EPOCH();
	ASSERT_EQ(2, exclusive(dev, page(self, 12), 2));
	for (round = 0; round < 3; round++) {
		ASSERT_KIND(C, 12, 2UL, 0UL);
	}
	ASSERT_EQ(2, give_back(dev, page(self, 12), 2));
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_NE(0, self->t.kinds[12]);
	ASSERT_NE(G, self->t.kinds[12]);
	ASSERT_NE(N, self->t.kinds[12]);
	ASSERT_EQ(0, track_end(&self->t, 0));
	close(dev);
}

/* Of a file nobody knows whether contents are new or gone. */
static void test_hole(struct __test_metadata *_metadata, struct both *self)
{
	FIRST_EPOCH();
	ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       8 * page_size(), 4 * page_size()));
	ASSERT_KIND(C, 8, 4UL, 0UL);
	ASSERT_NOTHING();
}

/* The same pages as one of two kinds, and runs of one kind are one record. */
static void test_two_kinds(struct __test_metadata *_metadata, struct both *self)
{
	struct mmops_track_range ranges[8];
	struct mmops_track_read arg = { .vec = (uintptr_t)ranges, .vec_len = 8 };
	char *other = mmap(NULL, 2 * page_size(), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct tracker from;
	int fd;

	OPEN_PINS(fd);
	ASSERT_NE(other, MAP_FAILED);
	ASSERT_EQ(0, madvise(other, 2 * page_size(), MADV_NOHUGEPAGE));
	store_range(other, 0, 2, 4711);
	ASSERT_EQ(0, track_open(&from, other, 2));
	ASSERT_EPOCH(&from);
	track_close(&from);
	FIRST_EPOCH();
	ASSERT_EPOCH(&self->plain);
	ASSERT_EPOCH(&self->plain);
	ASSERT_EQ(0, track_reported(&self->plain));

	/* Pages 30 and 31 are gone, 32 and 33 are new; 3 is written, and 4 is pinned. */
	ASSERT_EQ(0, madvise(page(self, 30), 2 * page_size(), MADV_DONTNEED));
	ASSERT_NE(MAP_FAILED, mremap(other, 2 * page_size(), 2 * page_size(),
				     MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
				     page(self, 32)));
	store(self->map, 3, 30);
	ASSERT_EQ(0, pin(fd, page(self, 4), 1, false));
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(0, track_begin(&self->plain));
	ASSERT_EQ(W, self->t.kinds[3]);
	ASSERT_EQ(P, self->t.kinds[4]);
	ASSERT_EQ(G, self->t.kinds[30]);
	ASSERT_EQ(N, self->t.kinds[33]);
	ASSERT_TRUE(is_plain(self));
	ASSERT_EQ(self->t.begun.written, self->plain.begun.written);
	ASSERT_EQ(self->t.begun.changed, self->plain.begun.changed);

	ASSERT_EQ(0, ioctl(self->plain.dev, MMOPS_IOC_TRACK_READ, &arg));
	ASSERT_EQ(2, arg.nr);
	ASSERT_EQ(2, arg.needed);
	ASSERT_EQ((uintptr_t)page(self, 3), ranges[0].addr);
	ASSERT_EQ(2 * page_size(), ranges[0].len);
	ASSERT_EQ(W, ranges[0].kind);
	ASSERT_EQ((uintptr_t)page(self, 30), ranges[1].addr);
	ASSERT_EQ(C, ranges[1].kind);

	arg.addr = 0;
	ASSERT_EQ(0, ioctl(self->t.dev, MMOPS_IOC_TRACK_READ, &arg));
	ASSERT_EQ(arg.needed, arg.nr);
	ASSERT_EQ(4, arg.nr);
	ASSERT_EQ(page_size(), ranges[0].len);
	ASSERT_EQ(P, ranges[1].kind);
	ASSERT_EQ(G, ranges[2].kind);
	ASSERT_EQ(2 * page_size(), ranges[2].len);
	ASSERT_EQ(N, ranges[3].kind);
	ASSERT_EQ(2 * page_size(), ranges[3].len);
	close(fd);
}

/*
 * What the records say, as bits: of each kind and of all, from any page on, and with more
 * words than there are pages.
 */
static void test_bitmap(struct __test_metadata *_metadata, struct both *self)
{
	struct mmops_track_bitmap arg = { .addr = self->t.base };
	uint64_t words[4], wrong;
	uint32_t kinds;
	size_t first, i;
	int fd;

	OPEN_PINS(fd);
	FIRST_EPOCH();
	store(self->map, 3, 30);
	ASSERT_EQ(0, pin(fd, page(self, 5), 2, false));
	ASSERT_EQ(0, madvise(page(self, 8), 4 * page_size(),
			     self->fd < 0 ? MADV_DONTNEED : MADV_REMOVE));
	arg.bitmap = (uintptr_t)words;
	arg.words = ARRAY_SIZE(words);
	ASSERT_EQ(-1, ioctl(self->t.dev, MMOPS_IOC_TRACK_BITMAP, &arg));
	ASSERT_EQ(ENOENT, errno);
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(W, self->t.kinds[3]);
	ASSERT_EQ(P, self->t.kinds[5]);
	ASSERT_EQ(self->fd < 0 ? G : C, self->t.kinds[8]);

	for (kinds = 0; kinds < 1 << (G + 1); kinds += 2) {
		for (first = 0; first < PAGES; first += 3) {
			uint64_t nr = 0;

			arg = (struct mmops_track_bitmap){
				.addr = self->t.base + first * page_size(),
				.bitmap = (uintptr_t)words, .words = ARRAY_SIZE(words),
				.kinds = kinds,
			};
			memset(words, 0xff, sizeof(words));
			ASSERT_EQ(0, ioctl(self->t.dev, MMOPS_IOC_TRACK_BITMAP, &arg));
			for (wrong = 0, i = 0; i < ARRAY_SIZE(words) * BITS_PER_WORD; i++) {
				uint8_t kind = first + i < PAGES ? self->t.kinds[first + i] : NONE;
				bool wanted = kind && (!kinds || kinds & 1 << kind);

				wrong += test_bit(words, i) != wanted;
				nr += wanted;
			}
			ASSERT_EQ(0, wrong);
			ASSERT_EQ(nr, arg.nr);
		}
	}

	/* No word is none, and words that cannot be written are told. */
	arg.words = 0;
	ASSERT_EQ(0, ioctl(self->t.dev, MMOPS_IOC_TRACK_BITMAP, &arg));
	ASSERT_EQ(0, arg.nr);
	arg = (struct mmops_track_bitmap){ .addr = self->t.base, .words = 1 };
	ASSERT_EQ(-1, ioctl(self->t.dev, MMOPS_IOC_TRACK_BITMAP, &arg));
	ASSERT_EQ(EFAULT, errno);

#define ASSERT_BAD(tracker, ...)						\
do {										\
	arg = (struct mmops_track_bitmap){					\
		.addr = self->t.base, .bitmap = (uintptr_t)words, .words = 1,	\
	};									\
	words[0] = 4711;							\
	__VA_ARGS__;								\
	ASSERT_EQ(-1, ioctl((tracker)->dev, MMOPS_IOC_TRACK_BITMAP, &arg));	\
	ASSERT_EQ(EINVAL, errno);						\
	ASSERT_EQ(4711, words[0]);						\
} while (0)
	ASSERT_BAD(&self->t, arg.addr++);
	ASSERT_BAD(&self->t, arg.addr -= page_size());
	ASSERT_BAD(&self->t, arg.addr += PAGES * page_size());
	ASSERT_BAD(&self->t, arg.kinds = 1);
	ASSERT_BAD(&self->t, arg.kinds = 1 << (G + 1));
	ASSERT_BAD(&self->t, arg.flags = 1);
	ASSERT_BAD(&self->t, arg.words = 1ULL << 61);
	ASSERT_BAD(&self->t, arg.reserved[1] = 1);
	/* Who did not ask for kinds has two of them. */
	ASSERT_EQ(0, track_begin(&self->plain));
	ASSERT_BAD(&self->plain, arg.kinds = 1 << P);
#undef ASSERT_BAD
	arg = (struct mmops_track_bitmap){
		.addr = self->t.base, .bitmap = (uintptr_t)words, .words = 1, .kinds = 1 << W,
	};
	ASSERT_EQ(0, ioctl(self->plain.dev, MMOPS_IOC_TRACK_BITMAP, &arg));
	ASSERT_EQ(self->plain.begun.written, arg.nr);
	close(fd);
}

#define KINDS_FIXTURE(name, is_file)						\
FIXTURE(name)									\
{										\
	struct both both;							\
};										\
FIXTURE_VARIANT(name)								\
{										\
	uint32_t mode;								\
};										\
FIXTURE_VARIANT_ADD(name, fast) {						\
	.mode = MMOPS_TRACK_FAST,						\
};										\
FIXTURE_VARIANT_ADD(name, full) {						\
	.mode = MMOPS_TRACK_FULL,						\
};										\
FIXTURE_SETUP(name)								\
{										\
	set_up(_metadata, &self->both, is_file, variant->mode);			\
}										\
FIXTURE_TEARDOWN(name)								\
{										\
	tear_down(&self->both);							\
}

KINDS_FIXTURE(process, false)
KINDS_FIXTURE(file, true)

#define KINDS_TEST(fixture, name)						\
TEST_F_TIMEOUT(fixture, name, TEST_SECONDS)					\
{										\
	test_##name(_metadata, &self->both);					\
}

KINDS_TEST(process, written)
KINDS_TEST(process, pinned)
KINDS_TEST(process, new_contents)
KINDS_TEST(process, gone)
KINDS_TEST(process, gone_after_a_store)
KINDS_TEST(process, guard)
KINDS_TEST(process, ksm_zero_page)
KINDS_TEST(process, unmapped)
KINDS_TEST(process, exclusive)
KINDS_TEST(process, two_kinds)
KINDS_TEST(file, written)
KINDS_TEST(file, pinned)
KINDS_TEST(file, hole)

KINDS_TEST(process, bitmap)
KINDS_TEST(file, bitmap)

TEST_HARNESS_MAIN
