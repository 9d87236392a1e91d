// SPDX-License-Identifier: GPL-2.0
/*
 * What the tests of large leaves rely on: mmops_leafmap.ko serves the leaf that
 * it is asked for, and the kernel's own mprotect(2), munmap(2) and fork(2) work
 * on its mappings.
 */
#include "leafmap.h"
#include "kselftest_harness.h"

FIXTURE(leafmap)
{
	int fd;
	char *map;
};

FIXTURE_SETUP(leafmap)
{
	OPEN_LEAFMAP(self->fd);
	ASSERT_LE(2 * pud_size(), leafmap_info(self->fd).size);
	ASSERT_EQ(0, leafmap_serve(self->fd, MMOPS_LEAFMAP_PUD, 0));
	self->map = map_gib(self->fd, 0, 2 * pud_size(), PROT_READ | PROT_WRITE);
	ASSERT_NE(NULL, self->map);
}

FIXTURE_TEARDOWN(leafmap)
{
}

/* How many faults were served since leafmap_serve(), by size. */
#define ASSERT_SERVED(nr_pte, nr_pmd, nr_pud) do {				\
	struct mmops_leafmap_info info = leafmap_info(self->fd);		\
										\
	ASSERT_EQ(nr_pte, info.pte);						\
	ASSERT_EQ(nr_pmd, info.pmd);						\
	ASSERT_EQ(nr_pud, info.pud);						\
} while (0)

/* One fault makes a whole leaf accessible, and no more. */
TEST_F_TIMEOUT(leafmap, sizes, TEST_SECONDS)
{
	static const uint32_t orders[] = {
		MMOPS_LEAFMAP_PTE, MMOPS_LEAFMAP_PMD, MMOPS_LEAFMAP_PUD,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		size_t leaf = 1UL << orders[i];
		long faults;

		/* Afresh: the page tables of smaller leaves stay otherwise. */
		ASSERT_EQ(self->map, mmap(self->map, 2 * pud_size(), PROT_READ | PROT_WRITE,
					  MAP_SHARED | MAP_FIXED, self->fd, 0));
		ASSERT_EQ(0, leafmap_serve(self->fd, orders[i], 0));
		faults = minor_faults();
		store(self->map, leaf, 10 + i);
		store(self->map, leaf + (leaf - 1), 20 + i);
		store(self->map, 2 * leaf - 1, 30 + i);
		ASSERT_EQ(faults + 1, minor_faults());
		ASSERT_EQ(30 + i, load(self->map, 2 * leaf - 1));
		store(self->map, leaf - 1, 40 + i);
		ASSERT_EQ(faults + 2, minor_faults());
		ASSERT_SERVED(orders[i] == MMOPS_LEAFMAP_PTE ? 2 : 0,
			      orders[i] == MMOPS_LEAFMAP_PMD ? 2 : 0,
			      orders[i] == MMOPS_LEAFMAP_PUD ? 2 : 0);
	}
}

/* The memory is the same whatever maps it. */
TEST_F_TIMEOUT(leafmap, contents, TEST_SECONDS)
{
	int other_fd = open(LEAFMAP_DEV, O_RDWR | O_CLOEXEC);
	char *other = map_gib(other_fd, 0, 2 * pud_size(), PROT_READ | PROT_WRITE);
	size_t page;

	ASSERT_NE(NULL, other);
	for (page = 0; page < 2 * PUD_PAGES; page += 4099)
		store(self->map, page, page + 1);
	for (page = 0; page < 2 * PUD_PAGES; page += 4099) {
		ASSERT_EQ(page + 1, load(other, page));
	}
	ASSERT_SERVED(0, 0, 2);
}

/* A leaf that is gone comes back smaller, where that was asked for. */
TEST_F_TIMEOUT(leafmap, shrink, TEST_SECONDS)
{
	ASSERT_EQ(0, leafmap_serve(self->fd, MMOPS_LEAFMAP_PUD, MMOPS_LEAFMAP_SHRINK));
	store(self->map, 5, 6);
	ASSERT_SERVED(0, 0, 1);
	ASSERT_EQ(0, leafmap_unmap(self->fd, 0, pud_size()));
	ASSERT_EQ(6, load(self->map, 5));
	ASSERT_SERVED(0, 1, 1);
	ASSERT_EQ(0, leafmap_unmap(self->fd, 0, pud_size()));
	ASSERT_EQ(6, load(self->map, 5));
	ASSERT_SERVED(1, 1, 1);
	/* The other GiB was not touched. */
	store(self->map, PUD_PAGES, 1);
	ASSERT_SERVED(1, 1, 2);
}

/* The kernel changes whole leaves in place, and a write to one is resolved. */
TEST_F_TIMEOUT(leafmap, mprotect_whole, TEST_SECONDS)
{
	long faults;

	store(self->map, 0, 1);
	store(self->map, PUD_PAGES, 2);
	faults = minor_faults();
	ASSERT_EQ(0, mprotect(self->map, 2 * pud_size(), PROT_READ));
	ASSERT_EQ(1, load(self->map, 0));
	ASSERT_EQ(2, load(self->map, PUD_PAGES));
	ASSERT_EQ(faults, minor_faults());
	ASSERT_EQ(0, mprotect(self->map, 2 * pud_size(), PROT_READ | PROT_WRITE));
	store(self->map, 0, 3);
	ASSERT_EQ(3, load(self->map, 0));
	ASSERT_SERVED(0, 0, 2);
}

/* No VMA ends within a PUD leaf. */
TEST_F_TIMEOUT(leafmap, mprotect_part, TEST_SECONDS)
{
	store(self->map, 7, 8);
	ASSERT_EQ(-1, mprotect(self->map, page_size(), PROT_READ));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(-1, munmap(self->map + 3 * pmd_size(), pmd_size()));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(8, load(self->map, 7));
	ASSERT_SERVED(0, 0, 1);
	ASSERT_EQ(0, munmap(self->map + pud_size(), pud_size()));
}

/* Smaller ones the kernel splits. */
TEST_F_TIMEOUT(leafmap, mprotect_part_of_pmd, TEST_SECONDS)
{
	int fd = open(LEAFMAP_DEV, O_RDWR | O_CLOEXEC);
	char *map = map_gib(fd, 0, 2 * pud_size(), PROT_READ | PROT_WRITE);
	long faults;

	ASSERT_NE(NULL, map);
	ASSERT_EQ(0, leafmap_serve(fd, MMOPS_LEAFMAP_PMD, 0));
	store(map, 0, 1);
	store(map, 7, 8);
	ASSERT_EQ(0, mprotect(map, page_size(), PROT_READ));
	faults = minor_faults();
	ASSERT_EQ(8, load(map, 7));
	ASSERT_EQ(faults + 1, minor_faults());
	ASSERT_EQ(1, load(map, 0));
	ASSERT_EQ(2, leafmap_info(fd).pte);
	ASSERT_EQ(1, leafmap_info(fd).pmd);
}

/* A child sees the same memory. */
TEST_F_TIMEOUT(leafmap, fork, TEST_SECONDS)
{
	pid_t child;
	int status;

	store(self->map, 9, 10);
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		if (load(self->map, 9) != 10)
			_exit(1);
		store(self->map, PUD_PAGES - 1, 11);
		_exit(0);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_EQ(0, status);
	ASSERT_EQ(11, load(self->map, PUD_PAGES - 1));
}

TEST_F_TIMEOUT(leafmap, bad_input, TEST_SECONDS)
{
	size_t size = leafmap_info(self->fd).size;

	ASSERT_EQ(-EINVAL, leafmap_serve(self->fd, 1, 0));
	ASSERT_EQ(-EINVAL, leafmap_serve(self->fd, 0, 16));
	ASSERT_EQ(-EINVAL, leafmap_unmap(self->fd, 1, page_size()));
	ASSERT_EQ(-EINVAL, leafmap_unmap(self->fd, size, page_size()));
	ASSERT_EQ(-EINVAL, leafmap_unmap(self->fd, -page_size(), 2 * page_size()));
	ASSERT_EQ(MAP_FAILED, mmap(NULL, page_size(), PROT_READ, MAP_SHARED, self->fd, size));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(MAP_FAILED, mmap(NULL, page_size(), PROT_READ, MAP_PRIVATE, self->fd, 0));
	ASSERT_EQ(EINVAL, errno);
}

TEST_HARNESS_MAIN
