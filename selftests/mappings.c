// SPDX-License-Identifier: GPL-2.0
/*
 * Which mappings of a file are changed: shared ones in every process, whatever
 * their address, length and protection, and no others.
 */
#include <sys/syscall.h>
#include <linux/userfaultfd.h>

#include "agent.h"
#include "kselftest_harness.h"

/* Newer than the headers of some distributions. */
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED	(1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC		(1 << 15)
#endif

#define PAGES	700UL
/* Distance of the addresses that tests map at. */
#define SLOT	(4 * PMD_PAGES)
#define RW	(PROT_READ | PROT_WRITE)

FIXTURE(mappings)
{
	int dev;
	int fd;
	char *base;
	struct harvest h;
};

FIXTURE_SETUP(mappings)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	self->fd = new_memfd(PAGES);
	ASSERT_GE(self->fd, 0);
	self->base = reserve(4 * SLOT, 0);
	ASSERT_NE(self->base, NULL);
	self->h = new_harvest(2 * PAGES);
	ASSERT_NE(self->h.bitmap, NULL);
}

FIXTURE_TEARDOWN(mappings)
{
}

/* The address @page pages into slot @n. */
static char *slot(FIXTURE_DATA(mappings) *self, int n, size_t page)
{
	return self->base + (n * SLOT + page) * page_size();
}

TEST_F_TIMEOUT(mappings, two_processes, TEST_SECONDS)
{
	char *here = slot(self, 0, 3), *there = slot(self, 1, 490);
	struct agent_cmd cmd;
	struct agent agent = {};
	size_t i;

	ASSERT_EQ(0, agent_start(&agent));
	ASSERT_NE(map_at(here, self->fd, 0, PAGES, RW, MAP_SHARED), NULL);
	cmd = (struct agent_cmd){ .op = AGENT_MAP, .fd = self->fd, .addr = there, .pgoff = 100,
				  .pages = PAGES - 100, .prot = RW, .flags = MAP_SHARED };
	ASSERT_EQ(0, agent_run(&agent, &cmd));

	/* 0..300 here, 250..400 there: 50 pages are dirty in both. */
	store_range(here, 0, 300, 1);
	cmd = (struct agent_cmd){ .op = AGENT_STORE, .addr = there + 150 * page_size(),
				  .pages = 150, .value = 1000 };
	ASSERT_EQ(0, agent_run(&agent, &cmd));

	ASSERT_EQ(450, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(450, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(i < 400, test_bit(self->h.bitmap, i));
	}
	ASSERT_EQ(0, self->h.start);
	ASSERT_EQ(400, self->h.end);

	/* Both sides lost the permission and get it back by a fault. */
	cmd.op = AGENT_FAULTS;
	ASSERT_EQ(150, agent_run(&agent, &cmd));
	ASSERT_EQ(150, write_protect(self->dev, self->fd, 0, PAGES));
	reset_harvest(&self->h);
	ASSERT_EQ(150, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(250, self->h.start);
	ASSERT_EQ(400, self->h.end);
	for (i = 250; i < 400; i++) {
		ASSERT_EQ(1000 + i - 250, load(here, i));
	}
	ASSERT_EQ(0, agent_stop(&agent));
}

/* One process that maps a page twice: one bit, counted for each mapping. */
TEST_F_TIMEOUT(mappings, mapped_twice, TEST_SECONDS)
{
	char *a = slot(self, 0, 0), *b = slot(self, 1, 77);

	ASSERT_NE(map_at(a, self->fd, 0, PAGES, RW, MAP_SHARED), NULL);
	ASSERT_NE(map_at(b, self->fd, 0, PAGES, RW, MAP_SHARED), NULL);
	store_range(a, 0, 100, 1);
	store_range(b, 50, 100, 1);
	ASSERT_EQ(200, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(150, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(200, write_protect(self->dev, self->fd, 0, PAGES));
}

/* A private mapping comes first in the file, another has the same first page. */
TEST_F_TIMEOUT(mappings, private_untouched, TEST_SECONDS)
{
	char *first = slot(self, 0, 0), *shared = slot(self, 1, 9), *same = slot(self, 2, 0);
	long faults;
	size_t i;

	ASSERT_NE(map_at(first, self->fd, 0, PAGES, RW, MAP_PRIVATE), NULL);
	ASSERT_NE(map_at(shared, self->fd, 10, PAGES - 10, RW, MAP_SHARED), NULL);
	ASSERT_NE(map_at(same, self->fd, 10, PAGES - 10, RW, MAP_PRIVATE), NULL);
	store_range(first, 0, PAGES, 1000000);
	store_range(same, 0, PAGES - 10, 2000000);
	store_range(shared, 0, 200, 1);

	ASSERT_EQ(200, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(200, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(200, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(10, self->h.start);
	ASSERT_EQ(210, self->h.end);

	faults = minor_faults();
	store_range(first, 0, PAGES, 1000000);
	store_range(same, 0, PAGES - 10, 2000000);
	ASSERT_EQ(faults, minor_faults());
	for (i = 0; i < 200; i++) {
		ASSERT_EQ(1 + i, load(shared, i));
	}
	reset_harvest(&self->h);
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(0, count_bits(self->h.bitmap, self->h.bits));
}

/* Only private mappings: nothing to do, although pages are dirty in them. */
TEST_F_TIMEOUT(mappings, only_private, TEST_SECONDS)
{
	char *map = slot(self, 0, 0);

	ASSERT_NE(map_at(map, self->fd, 0, PAGES, RW, MAP_PRIVATE), NULL);
	store_range(map, 0, PAGES, 1);
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
}

/* A mapping through a descriptor that is only readable has nothing to take. */
TEST_F_TIMEOUT(mappings, readonly_descriptor, TEST_SECONDS)
{
	char *ro = slot(self, 0, 0), *rw = slot(self, 1, 0);
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	ASSERT_NE(map_at(ro, fd, 0, PAGES, PROT_READ, MAP_SHARED), NULL);
	ASSERT_NE(map_at(rw, self->fd, 5, PAGES - 5, RW, MAP_SHARED), NULL);
	store_range(rw, 0, 60, 1);
	load_range(ro, 0, PAGES);
	ASSERT_EQ(60, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(60, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(5, self->h.start);
	ASSERT_EQ(65, self->h.end);
	ASSERT_EQ(60, write_protect(self->dev, self->fd, 0, PAGES));
}

/* A mapping that is only read. */
TEST_F_TIMEOUT(mappings, readonly_mapping, TEST_SECONDS)
{
	char *map = slot(self, 0, 0);

	ASSERT_NE(map_at(map, self->fd, 0, PAGES, PROT_READ, MAP_SHARED), NULL);
	load_range(map, 0, PAGES);
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
}

/* What was dirty before mprotect() took the permission still is. */
TEST_F_TIMEOUT(mappings, dirty_then_readonly, TEST_SECONDS)
{
	char *map = slot(self, 0, 0);
	size_t i;

	ASSERT_NE(map_at(map, self->fd, 0, PAGES, RW, MAP_SHARED), NULL);
	store_range(map, 0, 90, 1);
	ASSERT_EQ(0, mprotect(map, 30 * page_size(), PROT_READ));
	ASSERT_EQ(0, mprotect(map + 30 * page_size(), 30 * page_size(), PROT_NONE));
	ASSERT_EQ(30, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(90, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(90, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(0, mprotect(map, 60 * page_size(), RW));
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	for (i = 0; i < 90; i++) {
		ASSERT_EQ(1 + i, load(map, i));
	}
}

/* A mapping in many pieces, with holes between them. */
TEST_F_TIMEOUT(mappings, many_pieces, TEST_SECONDS)
{
	size_t i, n = 0, mapped = 0;

	for (i = 0; i + 20 <= PAGES; i += 50, n++) {
		char *piece = slot(self, 0, 13 + (PAGES - i) * 2);

		ASSERT_NE(map_at(piece, self->fd, i, 20, RW, MAP_SHARED), NULL);
		store_range(piece, 0, 20, i);
		mapped += 20;
	}
	/* All but the first five pages, so that the first piece is clipped. */
	ASSERT_EQ(mapped - 5, write_protect(self->dev, self->fd, 5, PAGES - 5));
	ASSERT_EQ(mapped - 5, clean_record(self->dev, self->fd, 5, PAGES - 5, &self->h));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(i >= 5 && i % 50 < 20, test_bit(self->h.bitmap, i));
	}
	ASSERT_EQ(5, self->h.start);
	ASSERT_EQ((n - 1) * 50 + 20, self->h.end);
}

/* Beyond the end of the file nothing is mapped, whatever the mapping's length. */
TEST_F_TIMEOUT(mappings, past_end_of_file, TEST_SECONDS)
{
	char *map = slot(self, 0, 0);

	ASSERT_NE(map_at(map, self->fd, 0, 2 * PAGES, RW, MAP_SHARED), NULL);
	store_range(map, 0, PAGES, 1);
	ASSERT_EQ(0, write_protect(self->dev, self->fd, PAGES, 1UL << 30));
	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, 1UL << 30));
	ASSERT_EQ(0, clean_record(self->dev, self->fd, PAGES, PAGES, &self->h));
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, 2 * PAGES, &self->h));
	ASSERT_EQ(PAGES, self->h.end);

	/* Pages that were cut off are gone, those that come back start anew. */
	store_range(map, 0, PAGES, 1);
	ASSERT_EQ(0, ftruncate(self->fd, 100 * page_size()));
	reset_harvest(&self->h);
	ASSERT_EQ(100, clean_record(self->dev, self->fd, 0, 2 * PAGES, &self->h));
	ASSERT_EQ(0, ftruncate(self->fd, PAGES * page_size()));
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, 2 * PAGES, &self->h));
	store(map, 600, 1);
	ASSERT_EQ(1, clean_record(self->dev, self->fd, 0, 2 * PAGES, &self->h));
	ASSERT_TRUE(test_bit(self->h.bitmap, 600));
}

/* An entry that was dropped takes its dirty state to the folio: nothing to report. */
TEST_F_TIMEOUT(mappings, holes, TEST_SECONDS)
{
	char *map = slot(self, 0, 5);
	size_t i;

	ASSERT_NE(map_at(map, self->fd, 0, PAGES, RW, MAP_SHARED), NULL);
	store_range(map, 0, PAGES, 7);
	ASSERT_EQ(0, madvise(map + 100 * page_size(), 550 * page_size(), MADV_DONTNEED));
	ASSERT_EQ(PAGES - 550, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(i < 100 || i >= 650, test_bit(self->h.bitmap, i));
	}
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(7 + i, load(map, i));
	}
}

/* Marks of userfaultfd stay: what it has protected and what was stored to since. */
TEST_F_TIMEOUT(mappings, userfaultfd_marks, TEST_SECONDS)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect wp = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	char *map = slot(self, 0, 0);
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	size_t i;

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "userfaultfd with asynchronous write-protection is not available");
	ASSERT_NE(map_at(map, self->fd, 0, PAGES, RW, MAP_SHARED), NULL);
	store_range(map, 0, 64, 1);
	reg.range.start = wp.range.start = (uintptr_t)map;
	reg.range.len = wp.range.len = PAGES * page_size();
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
	for (i = 0; i < 64; i += 4)
		store(map, i, 2);

	ASSERT_EQ(16, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(64, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	for (i = 0; i < 64; i++) {
		ASSERT_EQ(i % 4 != 0, !!(pagemap_entry(map + i * page_size()) & PAGEMAP_UFFD_WP));
	}
	store_range(map, 0, 64, 3);
	for (i = 0; i < 64; i++) {
		ASSERT_EQ(0, pagemap_entry(map + i * page_size()) & PAGEMAP_UFFD_WP);
	}
	ASSERT_EQ(64, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
}

TEST_HARNESS_MAIN
