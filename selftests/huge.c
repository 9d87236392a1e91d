// SPDX-License-Identifier: GPL-2.0
/*
 * Leaves of PMD size, which the kernel's C functions skip: huge pages of shmem;
 * and hugetlbfs, which is refused.
 */
#include "faults.h"
#include "kselftest_harness.h"

#define LEAVES		2UL
#define PAGES		(LEAVES * PMD_PAGES)

FIXTURE(huge)
{
	int dev, fd;
	char *map;
	char before[16];	/* what SHMEM_ENABLED was */
	struct harvest h;
};

static long huge_kb(const char *map)
{
	return smaps_kb(map, "ShmemPmdMapped");
}

FIXTURE_SETUP(huge)
{
	long kb;

	OPEN_DEV(self->dev, MMOPS_DEV);
	if (read_choice(SHMEM_ENABLED, self->before, sizeof(self->before)) ||
	    write_file(SHMEM_ENABLED, "advise"))
		SKIP(return, "cannot set " SHMEM_ENABLED);
	self->fd = new_memfd(PAGES);
	ASSERT_GE(self->fd, 0);
	self->map = reserve(PAGES, 0);
	ASSERT_NE(self->map, NULL);
	self->map = map_at(self->map, self->fd, 0, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(self->map, NULL);
	ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_HUGEPAGE));
	store_range(self->map, 0, PAGES, 1);
	kb = huge_kb(self->map);
	if (kb != (long)(LEAVES * pmd_size() / 1024)) {
		write_file(SHMEM_ENABLED, self->before);
		SKIP(return, "no huge pages: %ld kB of the mapping are PMD leaves", kb);
	}
	self->h = new_harvest(PAGES);
	ASSERT_NE(self->h.bitmap, NULL);
}

FIXTURE_TEARDOWN(huge)
{
	if (faults_built_in())
		clear_faults();
	write_file(SHMEM_ENABLED, self->before);
}

FIXTURE_FAULTS(huge);

static void assert_contents(struct __test_metadata *_metadata, FIXTURE_DATA(huge) *self)
{
	size_t i;

	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(1 + i, load(self->map, i));
	}
}

/* Each base page of a dirty leaf is reported, and the leaf stays. */
TEST_F_TIMEOUT(huge, clean_in_place, TEST_SECONDS)
{
	size_t i;

	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(PAGES, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(0, self->h.start);
	ASSERT_EQ(PAGES, self->h.end);
	ASSERT_EQ(LEAVES * pmd_size() / 1024, huge_kb(self->map));

	reset_harvest(&self->h);
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));

	/* One store makes one leaf dirty. */
	store(self->map, PMD_PAGES + 100, PMD_PAGES + 101);
	ASSERT_EQ(PMD_PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(i >= PMD_PAGES, test_bit(self->h.bitmap, i));
	}
	ASSERT_EQ(PMD_PAGES, self->h.start);
	ASSERT_EQ(PAGES, self->h.end);
	ASSERT_EQ(LEAVES * pmd_size() / 1024, huge_kb(self->map));
	assert_contents(_metadata, self);
}

TEST_F_TIMEOUT(huge, protect_in_place, TEST_SECONDS)
{
	long faults;

	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(LEAVES * pmd_size() / 1024, huge_kb(self->map));
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, PAGES));
	assert_contents(_metadata, self);

	/* Dirty state was kept. */
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(PAGES, count_bits(self->h.bitmap, self->h.bits));

	/* A store faults, and is seen; the other leaf is as it was. */
	faults = minor_faults();
	store(self->map, 7, 8);
	ASSERT_LT(faults, minor_faults());
	reset_harvest(&self->h);
	ASSERT_GT(clean_record(self->dev, self->fd, 0, PAGES, &self->h), 0);
	ASSERT_TRUE(test_bit(self->h.bitmap, 7));
	ASSERT_LE(self->h.end, PMD_PAGES);
	assert_contents(_metadata, self);
}

/* No store may be lost where range or bitmap ends inside a leaf. */
TEST_F_TIMEOUT(huge, part_of_leaf, TEST_SECONDS)
{
	static const struct {
		size_t first, nr;
	} range[] = {
		{ 0, 1 }, { 100, 1 }, { 64, 64 }, { 511, 1 }, { 511, 2 }, { 300, 500 },
		{ 1, 1023 }, { 0, 1000 },
	};
	size_t i, page;

	for (i = 0; i < ARRAY_SIZE(range); i++) {
		size_t first = range[i].first, nr = range[i].nr;
		size_t bits = round_bits(nr), words = bits / BITS_PER_WORD;
		/* A word on either side that does not belong to the bitmap. */
		uint64_t *guarded = new_bitmap(bits + 2 * BITS_PER_WORD);
		struct harvest part = { .bitmap = guarded + 1, .bits = bits, .pgoff = first };

		store_range(self->map, 0, PAGES, 1);
		ASSERT_GE(clean_record(self->dev, self->fd, first, nr, &part), 0);
		ASSERT_EQ(0, guarded[0]);
		ASSERT_EQ(0, guarded[1 + words]);
		reset_harvest(&self->h);
		ASSERT_GE(clean_record(self->dev, self->fd, 0, PAGES, &self->h), 0);
		for (page = 0; page < PAGES; page++) {
			bool now = page >= first && page < first + bits &&
				   test_bit(part.bitmap, page - first);

			ASSERT_TRUE(now || test_bit(self->h.bitmap, page)) {
				TH_LOG("range %zu+%zu: page %zu was in neither report", first, nr,
				       page);
			}
			if (page >= first && page < first + nr) {
				ASSERT_TRUE(now);
			}
		}
		free(guarded);
	}
	assert_contents(_metadata, self);
}

/*
 * A leaf that stays dirty is found by each walk, and one call may walk more than
 * once: here more folios than it remembers have to be marked dirty while their
 * locks are taken.
 */
TEST_FAULTS(huge, restarted_walk_counts_once)
{
	const size_t small = 12 * PMD_PAGES, total = PAGES + small;
	struct harvest h = new_harvest(total);
	char *map;
	size_t i;

	ASSERT_EQ(0, ftruncate(self->fd, total * page_size()));
	map = map_shared(self->fd, PAGES, small);
	ASSERT_NE(map, NULL);
	ASSERT_EQ(0, madvise(map, small * page_size(), MADV_NOHUGEPAGE));
	/* Read first: the folios are clean, and only the entries get dirty. */
	load_range(map, 0, small);
	store_range(map, 0, small, 7);

	ASSERT_EQ(0, set_fault(TRYLOCK_FAILS, 1));
	i = clean_record(self->dev, self->fd, PMD_PAGES + 100, total - PMD_PAGES - 100, &h);
	ASSERT_EQ(0, set_fault(TRYLOCK_FAILS, 0));
	ASSERT_EQ(PMD_PAGES - 100 + small, i);
	ASSERT_EQ(PMD_PAGES - 100 + small, count_bits(h.bitmap, h.bits));
	assert_contents(_metadata, self);
}

/* What one part of a range has used up of page tables is no matter to the next one. */
static void tables_for_each_part(struct __test_metadata *_metadata, FIXTURE_DATA(huge) *self,
				 bool left_out)
{
	const size_t piece = 1UL << 18;
	char *map[2];
	size_t i;

	ASSERT_EQ(0, ftruncate(self->fd, 3 * piece * page_size()));
	for (i = 0; i < 2; i++) {
		map[i] = reserve(PMD_PAGES, 0);
		ASSERT_NE(NULL, map[i]);
		map[i] = map_at(map[i], self->fd, (1 + i) * piece, PMD_PAGES,
				PROT_READ | PROT_WRITE, MAP_SHARED);
		ASSERT_NE(NULL, map[i]);
		ASSERT_EQ(0, madvise(map[i], pmd_size(), MADV_HUGEPAGE));
		store_range(map[i], 0, PMD_PAGES, 1);
		ASSERT_EQ((long)(pmd_size() / 1024), huge_kb(map[i]));
	}
	ASSERT_EQ(0, set_fault(FEW_TABLES, 1));
	ASSERT_EQ(0, set_fault(SKIP_RENEW, left_out));
	ASSERT_EQ(PAGES + 2 * PMD_PAGES,
		  write_protect_flags(self->dev, self->fd, 0, 3 * piece, MMOPS_SPLIT));
	/* There is one for each part, or one for all. */
	ASSERT_EQ((long)((LEAVES - 1) * pmd_size() / 1024), huge_kb(self->map));
	ASSERT_EQ(left_out ? (long)(pmd_size() / 1024) : 0, huge_kb(map[0]));
	ASSERT_EQ(left_out ? (long)(pmd_size() / 1024) : 0, huge_kb(map[1]));
	assert_contents(_metadata, self);
}

TEST_FAULTS(huge, tables_for_each_part)
{
	tables_for_each_part(_metadata, self, false);
}

TEST_FAULTS(huge, control_no_renew)
{
	tables_for_each_part(_metadata, self, true);
}

TEST_F_TIMEOUT(huge, protect_part_of_leaf, TEST_SECONDS)
{
	size_t i;

	ASSERT_GT(write_protect(self->dev, self->fd, 100, 1), 0);
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 100, 1));
	for (i = 0; i < PAGES; i++)
		store(self->map, i, 1 + i);
	ASSERT_GT(write_protect(self->dev, self->fd, 100, PAGES - 200), 0);
	assert_contents(_metadata, self);
}

/*
 * After a split there is no leaf of PMD size, nothing was lost, and one store
 * is one page.
 */
TEST_F_TIMEOUT(huge, split_on_clean, TEST_SECONDS)
{
	ASSERT_EQ(PAGES, clean_record_flags(self->dev, self->fd, 0, PAGES, &self->h, MMOPS_SPLIT));
	ASSERT_EQ(PAGES, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(0, huge_kb(self->map));
	assert_contents(_metadata, self);

	reset_harvest(&self->h);
	store(self->map, 3, 4);
	ASSERT_EQ(1, clean_record_flags(self->dev, self->fd, 0, PAGES, &self->h, MMOPS_SPLIT));
	ASSERT_TRUE(test_bit(self->h.bitmap, 3));

	reset_harvest(&self->h);
	store(self->map, 700, 701);
	ASSERT_EQ(1, clean_record_flags(self->dev, self->fd, 0, PAGES, &self->h, MMOPS_SPLIT));
	ASSERT_EQ(1, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_TRUE(test_bit(self->h.bitmap, 700));
	ASSERT_EQ(0, huge_kb(self->map));
	assert_contents(_metadata, self);
}

TEST_F_TIMEOUT(huge, split_on_protect, TEST_SECONDS)
{
	long faults;

	ASSERT_EQ(PAGES, write_protect_flags(self->dev, self->fd, 0, PAGES, MMOPS_SPLIT));
	ASSERT_EQ(0, huge_kb(self->map));
	assert_contents(_metadata, self);
	/* One fault for each page that is stored to; the dirty state is still there. */
	faults = minor_faults();
	store(self->map, 9, 10);
	store(self->map, 800, 801);
	ASSERT_EQ(faults + 2, minor_faults());
	ASSERT_EQ(2, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
}

/* A leaf is split also where the range meets it only in part. */
TEST_F_TIMEOUT(huge, split_part_of_leaf, TEST_SECONDS)
{
	struct harvest part = { .bitmap = new_bitmap(64), .bits = 64, .pgoff = 500 };

	ASSERT_EQ(20, clean_record_flags(self->dev, self->fd, 500, 20, &part, MMOPS_SPLIT));
	ASSERT_EQ((1ULL << 20) - 1, part.bitmap[0]);
	ASSERT_EQ(0, huge_kb(self->map));
	ASSERT_EQ(PAGES - 20, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_FALSE(test_bit(self->h.bitmap, 500));
	ASSERT_FALSE(test_bit(self->h.bitmap, 519));
	ASSERT_TRUE(test_bit(self->h.bitmap, 520));
	assert_contents(_metadata, self);
}

/* A clean leaf stays clean through a split. */
TEST_F_TIMEOUT(huge, split_of_clean_leaf, TEST_SECONDS)
{
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	store(self->map, 1, 2);
	reset_harvest(&self->h);
	ASSERT_EQ(PMD_PAGES, clean_record_flags(self->dev, self->fd, 0, PAGES, &self->h,
						MMOPS_SPLIT));
	ASSERT_EQ(PMD_PAGES, self->h.end);
	ASSERT_EQ(0, huge_kb(self->map));
	assert_contents(_metadata, self);
}

/* A second mapping of the same huge pages, which cannot have leaves of PMD size. */
TEST_F_TIMEOUT(huge, two_mappings, TEST_SECONDS)
{
	char *other = reserve(PAGES, 5);

	ASSERT_NE(other, NULL);
	ASSERT_NE(map_at(other, self->fd, 0, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED), NULL);
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	store(other, 900, 901);
	ASSERT_EQ(0, huge_kb(other));
	reset_harvest(&self->h);
	ASSERT_GE(clean_record(self->dev, self->fd, 0, PAGES, &self->h), 1);
	ASSERT_TRUE(test_bit(self->h.bitmap, 900));
	ASSERT_FALSE(test_bit(self->h.bitmap, 100));
	assert_contents(_metadata, self);
}

FIXTURE(hugetlb)
{
	int dev;
};

FIXTURE_SETUP(hugetlb)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
}

FIXTURE_TEARDOWN(hugetlb)
{
}

/* hugetlbfs is refused, and its pages are left alone. */
TEST_F_TIMEOUT(hugetlb, refused, TEST_SECONDS)
{
	struct harvest h = new_harvest(PMD_PAGES);
	int fd = memfd_create("hugetlb", MFD_HUGETLB | MFD_CLOEXEC);
	long faults;
	char *map;

	if (fd < 0)
		SKIP(return, "no hugetlbfs");
	ASSERT_EQ(-EOPNOTSUPP, write_protect(self->dev, fd, 0, PMD_PAGES));
	ASSERT_EQ(-EOPNOTSUPP, clean_record(self->dev, fd, 0, PMD_PAGES, &h));

	write_file("/proc/sys/vm/nr_hugepages", "2");
	map = mmap(NULL, pmd_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		SKIP(return, "no free hugetlb page");
	store_range(map, 0, PMD_PAGES, 5);
	ASSERT_EQ(-EOPNOTSUPP, write_protect(self->dev, fd, 0, PMD_PAGES));
	ASSERT_EQ(-EOPNOTSUPP, clean_record(self->dev, fd, 0, PMD_PAGES, &h));
	ASSERT_EQ(0, count_bits(h.bitmap, h.bits));
	faults = minor_faults();
	store_range(map, 0, PMD_PAGES, 5);
	ASSERT_EQ(faults, minor_faults());
	munmap(map, pmd_size());
	close(fd);
	write_file("/proc/sys/vm/nr_hugepages", "0");
}

TEST_HARNESS_MAIN
