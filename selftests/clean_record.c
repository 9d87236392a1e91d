// SPDX-License-Identifier: GPL-2.0
/*
 * MMOPS_IOC_CLEAN_RECORD on pages of a memfd: counts, bitmaps, start and end,
 * and what becomes of the pages.
 */
#include "mmops_selftest.h"
#include "kselftest_harness.h"

/* Three page tables, the first and the last in part. */
#define PAGES	1300UL

FIXTURE_MEMFD(clean, PAGES, 37);

TEST_F_TIMEOUT(clean, dense, TEST_SECONDS)
{
	size_t i;

	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	for (i = 0; i < PAGES; i++) {
		ASSERT_TRUE(test_bit(self->h.bitmap, i)) {
			TH_LOG("page %zu was not reported", i);
		}
	}
	ASSERT_EQ(PAGES, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(0, self->h.start);
	ASSERT_EQ(PAGES, self->h.end);
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(1 + i, load(self->map, i));
	}
}

TEST_F_TIMEOUT(clean, sparse, TEST_SECONDS)
{
	size_t i, n = 0;

	load_range(self->map, 0, PAGES);
	for (i = 5; i < PAGES; i += 7, n++)
		store(self->map, i, i);
	ASSERT_EQ(n, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(i % 7 == 5, test_bit(self->h.bitmap, i));
	}
	ASSERT_EQ(5, self->h.start);
	ASSERT_EQ(5 + (n - 1) * 7 + 1, self->h.end);
}

TEST_F_TIMEOUT(clean, nothing_mapped, TEST_SECONDS)
{
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(0, count_bits(self->h.bitmap, self->h.bits));
	munmap(self->map, PAGES * page_size());
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(0, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(0, self->h.start);
	ASSERT_EQ(0, self->h.end);
}

/* A call that takes nothing leaves start and end as they were, sensible or not. */
TEST_F_TIMEOUT(clean, nothing_dirty, TEST_SECONDS)
{
	static const struct {
		uint64_t start, end;
	} entry[] = { { 0, 0 }, { 3, 9 }, { 9, 3 }, { ~0ULL, 0 }, { 0, ~0ULL } };
	size_t i;

	load_range(self->map, 0, PAGES);
	for (i = 0; i < ARRAY_SIZE(entry); i++) {
		self->h.start = entry[i].start;
		self->h.end = entry[i].end;
		ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
		ASSERT_EQ(entry[i].start, self->h.start);
		ASSERT_EQ(entry[i].end, self->h.end);
	}
	ASSERT_EQ(0, count_bits(self->h.bitmap, self->h.bits));
}

TEST_F_TIMEOUT(clean, reported_once, TEST_SECONDS)
{
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	reset_harvest(&self->h);
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(0, count_bits(self->h.bitmap, self->h.bits));
}

TEST_F_TIMEOUT(clean, store_after_clean, TEST_SECONDS)
{
	struct rng rng = { test_seed() };
	uint64_t *expected = new_bitmap(PAGES);
	unsigned int round;
	size_t i, n;

	ASSERT_NE(expected, NULL);
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, clean_only(self->dev, self->fd, 0, PAGES));
	for (round = 0; round < 20; round++) {
		memset(expected, 0, self->h.bits / 8);
		n = rng_below(&rng, 200);
		for (i = 0; i < n; i++) {
			size_t page = rng_below(&rng, PAGES);

			store(self->map, page, rng_next(&rng));
			set_bit(expected, page);
		}
		reset_harvest(&self->h);
		ASSERT_EQ(count_bits(expected, self->h.bits),
			  clean_record(self->dev, self->fd, 0, PAGES, &self->h));
		ASSERT_EQ(0, memcmp(expected, self->h.bitmap, self->h.bits / 8));
	}
}

/* The range is exact to the page, also where it starts and ends inside a page table. */
TEST_F_TIMEOUT(clean, part_of_mapping, TEST_SECONDS)
{
	static const struct {
		size_t first, nr;
	} range[] = {
		{ 0, 1 }, { 1, 1 }, { PAGES - 1, 1 }, { 474, 2 }, { 475, 512 }, { 476, 511 },
		{ 3, 1030 }, { 1000, 300 },
	};
	size_t i, page;

	for (i = 0; i < ARRAY_SIZE(range); i++) {
		size_t first = range[i].first, nr = range[i].nr;

		store_range(self->map, 0, PAGES, i);
		reset_harvest(&self->h);
		ASSERT_EQ(nr, clean_record(self->dev, self->fd, first, nr, &self->h));
		for (page = 0; page < PAGES; page++) {
			ASSERT_EQ(page >= first && page < first + nr,
				  test_bit(self->h.bitmap, page));
		}
		ASSERT_EQ(first, self->h.start);
		ASSERT_EQ(first + nr, self->h.end);
		/* What was outside is still dirty. */
		reset_harvest(&self->h);
		ASSERT_EQ(PAGES - nr, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
		for (page = 0; page < PAGES; page++) {
			ASSERT_EQ(page < first || page >= first + nr,
				  test_bit(self->h.bitmap, page));
		}
	}
}

/* Bit 0 of the bitmap may stand for a page before the range; start and end follow it. */
TEST_F_TIMEOUT(clean, bitmap_offset, TEST_SECONDS)
{
	static const size_t below[] = { 0, 1, 63, 64, 65, 200 };
	const size_t first = 300, nr = 700;
	size_t i, page;

	for (i = 0; i < ARRAY_SIZE(below); i++) {
		store(self->map, 310, 1);
		store(self->map, 812, 1);
		reset_harvest(&self->h);
		self->h.pgoff = first - below[i];
		ASSERT_EQ(2, clean_record(self->dev, self->fd, first, nr, &self->h));
		for (page = 0; page < self->h.bits; page++) {
			ASSERT_EQ(page == 10 + below[i] || page == 512 + below[i],
				  test_bit(self->h.bitmap, page));
		}
		ASSERT_EQ(10 + below[i], self->h.start);
		ASSERT_EQ(512 + below[i] + 1, self->h.end);
	}
}

TEST_F_TIMEOUT(clean, start_and_end_extended, TEST_SECONDS)
{
	store(self->map, 100, 1);
	store(self->map, 200, 1);
	self->h.start = 150;
	self->h.end = 160;
	ASSERT_EQ(2, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(100, self->h.start);
	ASSERT_EQ(201, self->h.end);

	store(self->map, 150, 1);
	ASSERT_EQ(1, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(100, self->h.start);
	ASSERT_EQ(201, self->h.end);
	ASSERT_EQ(3, count_bits(self->h.bitmap, self->h.bits));
}

/* Bits are never cleared, and those outside what was asked stay as they were. */
TEST_F_TIMEOUT(clean, other_bits_kept, TEST_SECONDS)
{
	const size_t first = 70, nr = 900;
	struct rng rng = { test_seed() };
	uint64_t *before = new_bitmap(PAGES);
	size_t i;

	ASSERT_NE(before, NULL);
	for (i = 0; i < self->h.bits / BITS_PER_WORD; i++)
		self->h.bitmap[i] = before[i] = rng_next(&rng);
	load_range(self->map, 0, PAGES);
	for (i = 0; i < PAGES; i += 3)
		store(self->map, i, i);
	ASSERT_EQ(nr / 3, clean_record(self->dev, self->fd, first, nr, &self->h));
	for (i = 0; i < self->h.bits; i++) {
		bool taken = i >= first && i < first + nr && i % 3 == 0;

		ASSERT_EQ(taken || test_bit(before, i), test_bit(self->h.bitmap, i));
	}
}

/* A dirty bit is taken without the write permission: the next store does not fault. */
TEST_F_TIMEOUT(clean, no_fault_after_clean, TEST_SECONDS)
{
	long faults;

	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, clean_only(self->dev, self->fd, 0, PAGES));
	faults = minor_faults();
	store_range(self->map, 0, PAGES, 2);
	ASSERT_EQ(faults, minor_faults());
	ASSERT_EQ(PAGES, clean_only(self->dev, self->fd, 0, PAGES));
}

/* Soft-dirty belongs to somebody else. */
TEST_F_TIMEOUT(clean, soft_dirty_kept, TEST_SECONDS)
{
	size_t i;

	store_range(self->map, 0, 16, 1);
	if (write_file("/proc/self/clear_refs", "4"))
		SKIP(return, "soft-dirty is not available");
	ASSERT_EQ(0, pagemap_entry(self->map) & PAGEMAP_SOFT_DIRTY);
	for (i = 0; i < 16; i += 2)
		store(self->map, i, 2);
	clean_only(self->dev, self->fd, 0, PAGES);
	for (i = 0; i < 16; i++) {
		uint64_t entry = pagemap_entry(self->map + i * page_size());

		ASSERT_NE(0, entry & PAGEMAP_PRESENT);
		ASSERT_EQ(i % 2 == 0, !!(entry & PAGEMAP_SOFT_DIRTY));
	}
}

/* The words of the bitmap that do not belong to the range need not be there. */
TEST_F_TIMEOUT(clean, large_bitmap, TEST_SECONDS)
{
	struct harvest h = { .bits = 1UL << 26 };
	const size_t nr = h.bits - 5;

	h.bitmap = mmap(NULL, h.bits / 8, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(h.bitmap, MAP_FAILED);
	store(self->map, 7, 1);
	store(self->map, PAGES - 1, 1);
	ASSERT_EQ(2, clean_record(self->dev, self->fd, 5, nr, &h));
	ASSERT_EQ(2, count_bits(h.bitmap, h.bits));
	ASSERT_TRUE(test_bit(h.bitmap, 7));
	ASSERT_TRUE(test_bit(h.bitmap, PAGES - 1));
	ASSERT_EQ(7, h.start);
	ASSERT_EQ(PAGES, h.end);
}

TEST_HARNESS_MAIN
