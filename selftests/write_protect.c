// SPDX-License-Identifier: GPL-2.0
/*
 * MMOPS_IOC_WRITE_PROTECT on pages of a memfd: counts, and what becomes of the
 * pages.
 */
#include "mmops_selftest.h"
#include "kselftest_harness.h"

/* Three page tables, the first and the last in part. */
#define PAGES	1300UL

FIXTURE_MEMFD(protect, PAGES, 37);

TEST_F_TIMEOUT(protect, dense, TEST_SECONDS)
{
	size_t i;

	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, PAGES));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(1 + i, load(self->map, i));
	}
	/* Loads do not make an entry writable again. */
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, PAGES));
}

TEST_F_TIMEOUT(protect, nothing_mapped, TEST_SECONDS)
{
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, PAGES));
	munmap(self->map, PAGES * page_size());
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, PAGES));
}

/* Each store to a protected page faults once, and its page is protected again. */
TEST_F_TIMEOUT(protect, store_after_protect, TEST_SECONDS)
{
	long faults;
	size_t i, n;

	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
	faults = minor_faults();
	for (i = 3, n = 0; i < PAGES; i += 11, n++)
		store(self->map, i, ~i);
	ASSERT_EQ(faults + (long)n, minor_faults());
	for (i = 3; i < PAGES; i += 11) {
		ASSERT_EQ(~i, load(self->map, i));
	}
	ASSERT_EQ(n, write_protect(self->dev, self->fd, 0, PAGES));
}

/* A page that was only read is mapped writable where the file system needs no notice. */
TEST_F_TIMEOUT(protect, clean_pages, TEST_SECONDS)
{
	long faults;
	size_t i;

	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, clean_only(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(0, clean_only(self->dev, self->fd, 0, PAGES));
	faults = minor_faults();
	store_range(self->map, 0, PAGES, 2);
	ASSERT_EQ(faults + (long)PAGES, minor_faults());
	ASSERT_EQ(PAGES, clean_only(self->dev, self->fd, 0, PAGES));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(2 + i, load(self->map, i));
	}
}

TEST_F_TIMEOUT(protect, dirty_state_kept, TEST_SECONDS)
{
	struct harvest h = new_harvest(PAGES);
	size_t i, n = 0;

	ASSERT_NE(h.bitmap, NULL);
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, clean_only(self->dev, self->fd, 0, PAGES));
	for (i = 2; i < PAGES; i += 5, n++)
		store(self->map, i, i);
	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(n, clean_record(self->dev, self->fd, 0, PAGES, &h));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(i % 5 == 2, test_bit(h.bitmap, i));
	}
}

/* The range is exact to the page, also where it starts and ends inside a page table. */
TEST_F_TIMEOUT(protect, part_of_mapping, TEST_SECONDS)
{
	static const struct {
		size_t first, nr;
	} range[] = {
		{ 0, 1 }, { 1, 1 }, { PAGES - 1, 1 }, { 474, 2 }, { 475, 512 }, { 476, 511 },
		{ 3, 1030 }, { 1000, 300 },
	};
	long faults;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(range); i++) {
		size_t first = range[i].first, nr = range[i].nr;

		store_range(self->map, 0, PAGES, i);
		ASSERT_EQ(nr, write_protect(self->dev, self->fd, first, nr));
		faults = minor_faults();
		store_range(self->map, 0, first, i);
		store_range(self->map, first + nr, PAGES - first - nr, i);
		ASSERT_EQ(faults, minor_faults());
		store_range(self->map, first, nr, i);
		ASSERT_EQ(faults + (long)nr, minor_faults());
		ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
	}
}

TEST_F_TIMEOUT(protect, huge_range, TEST_SECONDS)
{
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, 1ULL << 40));
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES - 10, write_protect(self->dev, self->fd, 10, (1ULL << 51) - 10));
}

TEST_F_TIMEOUT(protect, soft_dirty_kept, TEST_SECONDS)
{
	size_t i;

	store_range(self->map, 0, 16, 1);
	if (write_file("/proc/self/clear_refs", "4"))
		SKIP(return, "soft-dirty is not available");
	for (i = 0; i < 16; i += 2)
		store(self->map, i, 2);
	ASSERT_EQ(8, write_protect(self->dev, self->fd, 0, PAGES)) {
		TH_LOG("clearing soft-dirty write-protects; only stores give the permission back");
	}
	for (i = 0; i < 16; i++) {
		uint64_t entry = pagemap_entry(self->map + i * page_size());

		ASSERT_NE(0, entry & PAGEMAP_PRESENT);
		ASSERT_EQ(i % 2 == 0, !!(entry & PAGEMAP_SOFT_DIRTY));
	}
}

TEST_HARNESS_MAIN
