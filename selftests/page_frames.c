// SPDX-License-Identifier: GPL-2.0
/*
 * Dirty tracking of large leaves of page frames, as a driver maps them: ends of
 * a range inside a leaf, leaves that lie across the pieces in which a range is
 * walked, and a driver that does not resolve a write fault on a large leaf.
 */
#include <signal.h>

#include "leafmap.h"
#include "kselftest_harness.h"

/* Page offsets at which the pieces of a range end are multiples of this. */
#define PIECE_PAGES	PUD_PAGES
#define SKEW		5UL

FIXTURE(frames)
{
	int dev;
	int fd;
	char *map;
	struct harvest h;
	struct leaves *leaves;
};

FIXTURE_VARIANT(frames)
{
	uint32_t order;
	uint32_t flags;
};

FIXTURE_VARIANT_ADD(frames, pmd)
{
	.order = MMOPS_LEAFMAP_PMD,
};

FIXTURE_VARIANT_ADD(frames, pud)
{
	.order = MMOPS_LEAFMAP_PUD,
};

FIXTURE_VARIANT_ADD(frames, mixed_pmd)
{
	.order = MMOPS_LEAFMAP_PMD,
	.flags = MMOPS_LEAFMAP_MIXED,
};

FIXTURE_VARIANT_ADD(frames, mixed_pud)
{
	.order = MMOPS_LEAFMAP_PUD,
	.flags = MMOPS_LEAFMAP_MIXED,
};

FIXTURE_SETUP(frames)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	OPEN_LEAFMAP(self->fd);
	self->h = new_harvest(2 * PUD_PAGES + SKEW);
	ASSERT_NE(NULL, self->h.bitmap);
	self->leaves = calloc(1, sizeof(*self->leaves));
	ASSERT_NE(NULL, self->leaves);
}

FIXTURE_TEARDOWN(frames)
{
}

/* Map all of the device, which begins at page offset @skew of the file. */
static char *map_frames(int fd, const FIXTURE_VARIANT(frames) *variant, uint32_t flags,
			size_t skew)
{
	struct mmops_leafmap_serve arg = {
		.order = variant->order,
		.flags = variant->flags | flags,
		.skew = skew,
	};

	char *map;

	if (ioctl(fd, MMOPS_LEAFMAP_IOC_SERVE, &arg))
		return NULL;
	map = map_gib(fd, skew * page_size(), 2 * pud_size(), PROT_READ | PROT_WRITE);
	/* A mixed mapping gets huge leaves like one of memory, where they are asked for. */
	return map && !madvise(map, 2 * pud_size(), MADV_HUGEPAGE) ? map : NULL;
}

/* The next store faults once, whether or not the driver does anything about it. */
TEST_F_TIMEOUT(frames, driver_leaves_alone, TEST_SECONDS)
{
	size_t leaf = 1UL << variant->order, i;
	long faults;

	self->map = map_frames(self->fd, variant, MMOPS_LEAFMAP_LEAVE_ALONE, 0);
	ASSERT_NE(NULL, self->map);
	store(self->map, 5, 1);
	ASSERT_EQ(1, write_protect(self->dev, self->fd, 5, 1));
	faults = minor_faults();
	store(self->map, 4, 2);
	store(self->map, 6, 2);
	store(self->map, leaf - 1, 2);
	ASSERT_EQ(faults, minor_faults()) {
		TH_LOG("the rest of the leaf is as it was");
	}
	store(self->map, 5, 3);
	ASSERT_EQ(faults + 1, minor_faults());

	ASSERT_EQ(leaf, write_protect(self->dev, self->fd, 0, leaf));
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, leaf));
	ASSERT_EQ(3, load(self->map, 5));
	faults = minor_faults();
	for (i = 0; i < leaf; i += leaf / 64)
		store(self->map, i, i);
	ASSERT_EQ(faults + 64, minor_faults());
	ASSERT_EQ(64, write_protect(self->dev, self->fd, 0, leaf));
	ASSERT_EQ(0, leafmap_info(self->fd).left);
	ASSERT_EQ(0, leafmap_info(self->fd).writes);
}

/* The protection of a range of addresses is the same business, and gives the permission back. */
TEST_F_TIMEOUT(frames, protect_driver_leaves_alone, TEST_SECONDS)
{
	size_t leaf = 1UL << variant->order, bytes = leaf * page_size();
	struct mmops_protect got;
	long faults;

	self->map = map_frames(self->fd, variant, MMOPS_LEAFMAP_LEAVE_ALONE, 0);
	ASSERT_NE(NULL, self->map);
	store(self->map, 5, 1);
	ASSERT_EQ(0, protect_flags(self->dev, self->map, bytes, PROT_READ, 0, &got));
	ASSERT_EQ(leaf, got.ptes);
	ASSERT_EQ(0, got.pmds);
	ASSERT_EQ(0, got.puds);
	ASSERT_EQ(leaf / PMD_PAGES, got.split_pmds);
	ASSERT_EQ(variant->order == MMOPS_LEAFMAP_PUD, got.split_puds);
	faults = minor_faults();
	store(self->map, 5, 3);
	store(self->map, leaf - 1, 4);
	ASSERT_EQ(faults + 2, minor_faults());
	ASSERT_EQ(3, load(self->map, 5));
	ASSERT_EQ(0, protect_flags(self->dev, self->map, bytes, PROT_READ | PROT_WRITE, 0, &got));
	ASSERT_EQ(leaf - 2, got.ptes);
	ASSERT_EQ(0, leafmap_info(self->fd).left);
}

/* What the flag asks for: the leaf stays, and here nobody resolves a write fault. */
TEST_F_TIMEOUT(frames, protect_large, TEST_SECONDS)
{
	size_t leaf = 1UL << variant->order;
	struct mmops_protect got;
	int status;
	pid_t child;

	self->map = map_frames(self->fd, variant, MMOPS_LEAFMAP_LEAVE_ALONE, 0);
	ASSERT_NE(NULL, self->map);
	store(self->map, 5, 1);
	ASSERT_EQ(0, protect_flags(self->dev, self->map, leaf * page_size(), PROT_READ,
				   MMOPS_PROTECT_LARGE, &got));
	ASSERT_EQ(0, got.ptes);
	ASSERT_EQ(1, got.pmds + got.puds);
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		/* Its own leaf, which the fault put there, is writable. */
		load(self->map, 5);
		if (protect_flags(self->dev, self->map, leaf * page_size(), PROT_READ,
				  MMOPS_PROTECT_LARGE, NULL))
			_exit(1);
		store(self->map, 5, 2);
		_exit(2);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status));
	ASSERT_EQ(SIGBUS, WTERMSIG(status));
	ASSERT_LT(MMOPS_LEAFMAP_PATIENCE, leafmap_info(self->fd).left);
}

/*
 * The soft-dirty bits of such a mapping are not tracked: what is there stays
 * writable, and so is what comes later.
 */
TEST_F_TIMEOUT(frames, soft_dirty_driver_leaves_alone, TEST_SECONDS)
{
	size_t leaf = 1UL << variant->order;
	struct mmops_soft_dirty_clear got = {};
	long faults;

	self->map = map_frames(self->fd, variant, MMOPS_LEAFMAP_LEAVE_ALONE, 0);
	ASSERT_NE(NULL, self->map);
	store(self->map, 5, 1);
	faults = minor_faults();
	ASSERT_EQ(0, soft_dirty_clear_of(self->dev, -1, self->map, leaf, 0, &got));
	EXPECT_EQ(leaf, got.kept);
	store(self->map, 5, 2);
	/* A part of a leaf. */
	ASSERT_EQ(0, soft_dirty_clear_of(self->dev, -1, self->map + 7 * page_size(), 11, 0, &got));
	EXPECT_EQ(11, got.kept);
	store(self->map, 8, 2);
	/* The mapping as a whole, which is new. */
	ASSERT_EQ(0, soft_dirty_clear_of(self->dev, -1, self->map, 2 * PUD_PAGES, 0, &got));
	EXPECT_EQ(2 * PUD_PAGES, got.kept);
	store(self->map, leaf - 1, 3);
	ASSERT_EQ(faults, minor_faults());
	ASSERT_EQ(0, list_leaves(self->dev, self->map, leaf * page_size(), self->leaves));
	ASSERT_EQ(1, self->leaves->nr);
	ASSERT_EQ(1, leaves_with(self->leaves, MMOPS_LEAF_WRITE));

	/* Leaves that come after the call. */
	ASSERT_LE(0, soft_dirty_clear_all(self->dev));
	ASSERT_EQ(0, leafmap_unmap(self->fd, 0, 0));
	faults = minor_faults();
	store(self->map, 5, 4);
	ASSERT_EQ(faults + 1, minor_faults());
	ASSERT_EQ(0, leafmap_info(self->fd).left);
}

/* As much is split as has to be: what lies outside the range stays large. */
TEST_F_TIMEOUT(frames, split_for_protection, TEST_SECONDS)
{
	size_t pmds = variant->order == MMOPS_LEAFMAP_PUD ? PMD_PAGES : 1;

	self->map = map_frames(self->fd, variant, 0, 0);
	ASSERT_NE(NULL, self->map);
	store(self->map, 0, 1);
	ASSERT_EQ(1, write_protect(self->dev, self->fd, PMD_PAGES - 1, 1));
	ASSERT_EQ(0, list_leaves(self->dev, self->map, pmds * pmd_size(), self->leaves));
	ASSERT_EQ(PMD_PAGES, self->leaves->ptes);
	ASSERT_EQ(pmds - 1, self->leaves->pmds);
	ASSERT_EQ(0, self->leaves->puds);
	ASSERT_EQ(PMD_PAGES - 1 + pmds - 1, leaves_with(self->leaves, MMOPS_LEAF_WRITE));
}

/* A leaf inside the range is cleaned in place; at its ends a leaf is split, and is exact. */
TEST_F_TIMEOUT(frames, clean_part, TEST_SECONDS)
{
	size_t leaf = 1UL << variant->order, first = leaf - 7, nr = leaf + 10, i;

	self->map = map_frames(self->fd, variant, 0, 0);
	ASSERT_NE(NULL, self->map);
	if (variant->order == MMOPS_LEAFMAP_PUD)
		nr = leaf;
	for (i = 0; i < 3 * leaf && i < 2 * PUD_PAGES; i += leaf)
		store(self->map, i, 1);
	ASSERT_EQ(nr, clean_record(self->dev, self->fd, first, nr, &self->h));
	ASSERT_EQ(nr, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(first, self->h.start);
	ASSERT_EQ(first + nr, self->h.end);
	reset_harvest(&self->h);
	ASSERT_EQ(0, clean_record(self->dev, self->fd, first, nr, &self->h));
	/* The rest is dirty as before. */
	ASSERT_EQ(i - nr, clean_record(self->dev, self->fd, 0, 2 * PUD_PAGES, &self->h));
	ASSERT_FALSE(test_bit(self->h.bitmap, first));
	ASSERT_FALSE(test_bit(self->h.bitmap, first + nr - 1));
	ASSERT_TRUE(test_bit(self->h.bitmap, first - 1));
	ASSERT_TRUE(test_bit(self->h.bitmap, first + nr));
}

/* Leaves that mprotect(2) took all permissions from keep what they know, and give it. */
TEST_F_TIMEOUT(frames, without_permissions, TEST_SECONDS)
{
	const size_t leaf = 1UL << variant->order;

	self->map = map_frames(self->fd, variant, 0, 0);
	ASSERT_NE(NULL, self->map);
	store(self->map, 0, 1);
	store(self->map, leaf, 2);
	ASSERT_EQ(0, mprotect(self->map, 2 * pud_size(), PROT_NONE));
	ASSERT_EQ(leaf, clean_record(self->dev, self->fd, 0, leaf, &self->h));
	ASSERT_EQ(leaf, count_bits(self->h.bitmap, self->h.bits));
	reset_harvest(&self->h);
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, leaf, &self->h));

	/* A part of one that is split in place. */
	ASSERT_EQ(5, clean_record(self->dev, self->fd, leaf + 3, 5, &self->h));
	reset_harvest(&self->h);
	ASSERT_EQ(leaf - 5, clean_record(self->dev, self->fd, leaf, leaf, &self->h));
	ASSERT_FALSE(test_bit(self->h.bitmap, leaf + 3));
	ASSERT_TRUE(test_bit(self->h.bitmap, leaf + 2));
	reset_harvest(&self->h);
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, 2 * PUD_PAGES, &self->h));
}

/* A leaf that lies across the end of a piece is handled once, and counted once. */
TEST_F_TIMEOUT(frames, clean_across_pieces, TEST_SECONDS)
{
	size_t leaf = 1UL << variant->order;
	/* The leaf with the page offset PIECE_PAGES in it. */
	size_t page = (PIECE_PAGES - SKEW) & ~(leaf - 1), i;

	self->map = map_frames(self->fd, variant, 0, SKEW);
	ASSERT_NE(NULL, self->map);
	store(self->map, page, 1);
	ASSERT_EQ(leaf, clean_record(self->dev, self->fd, 0, 2 * PUD_PAGES + SKEW, &self->h));
	ASSERT_EQ(leaf, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(page + SKEW, self->h.start);
	ASSERT_EQ(page + SKEW + leaf, self->h.end);
	reset_harvest(&self->h);
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, 2 * PUD_PAGES + SKEW, &self->h));

	/* And is tracked on both sides from now on. */
	i = PIECE_PAGES - SKEW;
	store(self->map, i - 1, 1);
	store(self->map, i, 1);
	ASSERT_LE(2, clean_record(self->dev, self->fd, 0, 2 * PUD_PAGES + SKEW, &self->h));
	ASSERT_TRUE(test_bit(self->h.bitmap, PIECE_PAGES - 1));
	ASSERT_TRUE(test_bit(self->h.bitmap, PIECE_PAGES));
}

TEST_F_TIMEOUT(frames, protect_across_pieces, TEST_SECONDS)
{
	size_t leaf = 1UL << variant->order;
	size_t page = (PIECE_PAGES - SKEW) & ~(leaf - 1);

	self->map = map_frames(self->fd, variant, 0, SKEW);
	ASSERT_NE(NULL, self->map);
	store(self->map, page, 1);
	ASSERT_EQ(leaf, write_protect(self->dev, self->fd, 0, 2 * PUD_PAGES + SKEW));
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, 2 * PUD_PAGES + SKEW));
}

TEST_HARNESS_MAIN
