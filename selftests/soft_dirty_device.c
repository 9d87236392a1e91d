// SPDX-License-Identifier: GPL-2.0
/*
 * Soft-dirty bits of memory that a device has, or is: device-private and
 * device-exclusive entries, and the leaves of device-DAX.
 */
#include "dmirror.h"
#include "kselftest_harness.h"
#include "leafmap.h"

#define PAGES		200UL
#define FIRST		100UL	/* of those that the device gets */
#define NR		64UL

FIXTURE(device)
{
	int dev, pagemap;
	char *map;	/* anonymous, not new, and stored to */
};

/* Which pages are soft-dirty, of @nr from page @first on. */
static size_t nr_soft_dirty(FIXTURE_DATA(device) *self, size_t first, size_t nr)
{
	uint64_t entry;
	size_t i, n = 0;

	for (i = first; i < first + nr; i++) {
		off_t at = ((uintptr_t)self->map / page_size() + i) * sizeof(entry);

		if (pread(self->pagemap, &entry, sizeof(entry), at) != sizeof(entry))
			return -1;
		n += !!(entry & PAGEMAP_SOFT_DIRTY);
	}
	return n;
}

static int64_t clear_pages(FIXTURE_DATA(device) *self, size_t first, size_t nr)
{
	return soft_dirty_clear(self->dev, self->map + first * page_size(), nr);
}

static int64_t kept_pages(FIXTURE_DATA(device) *self, const char *map, size_t nr)
{
	struct mmops_soft_dirty_clear out = {};
	int64_t ret = soft_dirty_clear_of(self->dev, -1, map, nr, 0, &out);

	return ret < 0 ? ret : (int64_t)out.kept;
}

FIXTURE_SETUP(device)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	self->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ASSERT_GE(self->pagemap, 0);
	self->map = mmap(NULL, PAGES * page_size(), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(self->map, MAP_FAILED);
	madvise(self->map, PAGES * page_size(), MADV_NOHUGEPAGE);
	store_range(self->map, 0, PAGES, 1);
	ASSERT_GE(soft_dirty_clear_all(self->dev), (int64_t)PAGES);
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, nr_soft_dirty(self, 0, PAGES));
}

FIXTURE_TEARDOWN(device)
{
}

/*
 * Writable entries of a kind that is not present: they lose the bit where they
 * are, and the pages come back clean, and not writable, so that a store is seen.
 */
static void device_pages(struct __test_metadata *_metadata, FIXTURE_DATA(device) *self,
			 unsigned long call, unsigned int kind)
{
	const char *first = self->map + FIRST * page_size();
	char *copy = mmap(NULL, NR * page_size(), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct leaf_counts counts;
	size_t i;
	int fd;

	ASSERT_NE(copy, MAP_FAILED);
	OPEN_DMIRROR(fd);
	ASSERT_EQ(NR, dmirror(fd, call, first, copy, NR));
	ASSERT_EQ(0, count_leaves(self->dev, self->map, PAGES * page_size(), &counts));
	ASSERT_EQ(NR, counts.absent[kind]);
	ASSERT_EQ(PAGES, nr_soft_dirty(self, 0, PAGES));

	ASSERT_EQ(PAGES - 10, clear_pages(self, 0, PAGES - 10));
	ASSERT_EQ(10, nr_soft_dirty(self, 0, PAGES));
	ASSERT_EQ(10, clear_pages(self, 0, PAGES));
	/* They are where they were. */
	ASSERT_EQ(0, count_leaves(self->dev, self->map, PAGES * page_size(), &counts));
	ASSERT_EQ(NR, counts.absent[kind]);

	/* A half comes back by loads, the other by stores. */
	for (i = 0; i < NR / 2; i++) {
		ASSERT_EQ(1 + FIRST + i, load(self->map, FIRST + i));
	}
	ASSERT_EQ(0, nr_soft_dirty(self, 0, PAGES));
	for (i = 0; i < NR; i++) {
		store(self->map, FIRST + i, 1000 + i);
		ASSERT_EQ(i + 1, nr_soft_dirty(self, FIRST, NR));
	}
	ASSERT_EQ(NR, nr_soft_dirty(self, 0, PAGES));
	ASSERT_EQ(0, count_leaves(self->dev, self->map, PAGES * page_size(), &counts));
	ASSERT_EQ(0, counts.absent[kind]);
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(i >= FIRST && i < FIRST + NR ? 1000 + i - FIRST : 1 + i,
			  load(self->map, i));
	}
	close(fd);
}

TEST_F_TIMEOUT(device, private_entries, TEST_SECONDS)
{
	device_pages(_metadata, self, HMM_DMIRROR_MIGRATE_TO_DEV, MMOPS_LEAF_DEVICE_PRIVATE);
}

TEST_F_TIMEOUT(device, exclusive_entries, TEST_SECONDS)
{
	device_pages(_metadata, self, HMM_DMIRROR_EXCLUSIVE, MMOPS_LEAF_DEVICE_EXCLUSIVE);
}

/*
 * Device-DAX: leaves of one size, which are changed in place and never split.
 * No look at them through pagemap, which would split a PUD leaf.
 */
static void dax_leaves(struct __test_metadata *_metadata, FIXTURE_DATA(device) *self,
		       const char *path, size_t leaf_size)
{
	const size_t pages = leaf_size / page_size();
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct leaf_counts counts;
	struct leaf_count *leaf;
	long faults;
	char *map;

	if (fd < 0)
		SKIP(return, "no device-DAX %s: no legacy persistent memory here", path);
	map = map_gib(fd, 0, leaf_size, PROT_READ | PROT_WRITE);
	if (!map)
		SKIP(return, "%s cannot be mapped: %s", path, strerror(errno));
	leaf = leaf_size == pmd_size() ? &counts.pmd : &counts.pud;
	/* New as a whole; from here on only the entry tells. */
	ASSERT_GE(soft_dirty_clear(self->dev, map, pages), 0);
	store(map, 0, 1);
	store(map, pages - 1, 2);
	ASSERT_EQ(0, count_leaves(self->dev, map, leaf_size, &counts));
	ASSERT_EQ(1, leaf->nr);
	ASSERT_EQ(1, leaf->soft_dirty);

	/* In part: kept, with all of the leaf as it was. */
	ASSERT_EQ(30, kept_pages(self, map + 10 * page_size(), 30));
	ASSERT_EQ(0, count_leaves(self->dev, map, leaf_size, &counts));
	ASSERT_EQ(1, leaf->nr);
	ASSERT_EQ(1, leaf->soft_dirty);

	/* Whole: in place, dirty as before, and the next store faults, once. */
	ASSERT_EQ(pages, soft_dirty_clear(self->dev, map, pages));
	ASSERT_EQ(0, count_leaves(self->dev, map, leaf_size, &counts));
	ASSERT_EQ(1, leaf->nr);
	ASSERT_EQ(0, leaf->soft_dirty);
	ASSERT_EQ(0, leaf->writable);
	ASSERT_EQ(1, leaf->dirty);
	ASSERT_EQ(0, soft_dirty_clear(self->dev, map, pages));

	/* In part, where nothing is to be cleared: as it is. */
	ASSERT_EQ(0, kept_pages(self, map + 10 * page_size(), 30));
	ASSERT_EQ(0, count_leaves(self->dev, map, leaf_size, &counts));
	ASSERT_EQ(1, leaf->nr);
	ASSERT_EQ(0, leaf->soft_dirty);
	faults = minor_faults();
	ASSERT_EQ(1, load(map, 0));
	ASSERT_EQ(2, load(map, pages - 1));
	ASSERT_EQ(0, minor_faults() - faults);
	store(map, 5, 3);
	store(map, 6, 4);
	ASSERT_EQ(1, minor_faults() - faults);
	ASSERT_EQ(0, count_leaves(self->dev, map, leaf_size, &counts));
	ASSERT_EQ(1, leaf->nr);
	ASSERT_EQ(1, leaf->soft_dirty);
	ASSERT_EQ(pages, soft_dirty_clear(self->dev, map, pages));
	ASSERT_EQ(0, munmap(map, leaf_size));
	close(fd);
}

TEST_F_TIMEOUT(device, dax_pmd, TEST_SECONDS)
{
	dax_leaves(_metadata, self, getenv("MMOPS_DAX_PMD") ?: "/dev/dax1.0", pmd_size());
}

TEST_F_TIMEOUT(device, dax_pud, TEST_SECONDS)
{
	dax_leaves(_metadata, self, getenv("MMOPS_DAX") ?: "/dev/dax0.0", pud_size());
}

TEST_HARNESS_MAIN
