// SPDX-License-Identifier: GPL-2.0
/*
 * Soft-dirty bits of pages that are pinned. A device stores to them at any time,
 * and no fault tells: they read as soft-dirty, whatever their entry was when they
 * were cleared, and count as kept. And of stores that the kernel makes.
 */
#include <pthread.h>
#include <sys/uio.h>

#include "faults.h"
#include "kselftest_harness.h"
#include "leafmap.h"
#include "pins.h"
#include "soft_dirty.h"

#define PAGES		200UL
#define FIRST		100UL	/* of those that are pinned */
#define NR		64UL
#define RW		(PROT_READ | PROT_WRITE)

FIXTURE(pins)
{
	int dev, pagemap, fd, pins;
	char *map;	/* not new, and stored to */
};

FIXTURE_VARIANT(pins)
{
	bool shared;
};

FIXTURE_VARIANT_ADD(pins, private) { .shared = false };
FIXTURE_VARIANT_ADD(pins, shared) { .shared = true };

static int64_t kept_pages(int dev, const char *map, size_t nr)
{
	struct mmops_soft_dirty_clear out = {};
	int64_t ret = soft_dirty_clear_of(dev, -1, map, nr, 0, &out);

	return ret < 0 ? ret : (int64_t)out.kept;
}

FIXTURE_SETUP(pins)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	OPEN_PINS(self->pins);
	self->pagemap = open_pagemap(getpid());
	ASSERT_GE(self->pagemap, 0);
	self->fd = variant->shared ? new_memfd(PAGES) : -1;
	/* In one page table. */
	self->map = map_at(reserve(PAGES, 0), self->fd, 0, PAGES, RW,
			   variant->shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
	ASSERT_NE(self->map, NULL);
	madvise(self->map, PAGES * page_size(), MADV_NOHUGEPAGE);
	store_range(self->map, 0, PAGES, 1);
	if (soft_dirty_clear_all(self->dev) == -EOPNOTSUPP)
		SKIP(return, "the kernel is without CONFIG_MEM_SOFT_DIRTY");
	ASSERT_EQ(0, count_soft_dirty(self->pagemap, self->map, 0, PAGES));
	store_range(self->map, 0, PAGES, 1);
}

FIXTURE_TEARDOWN(pins)
{
	close(self->pins);
	close(self->pagemap);
}

FIXTURE_FAULTS(pins);

/* The pinned pages and no others are kept. */
#define EXPECT_KEPT(nr) do {							\
	ASSERT_EQ(nr, kept_pages(self->dev, self->map, PAGES));			\
	ASSERT_EQ(nr, count_soft_dirty(self->pagemap, self->map, FIRST, NR));	\
	ASSERT_EQ(nr, count_soft_dirty(self->pagemap, self->map, 0, PAGES));	\
} while (0)

static void kept(struct __test_metadata *_metadata, FIXTURE_DATA(pins) *self, bool fast)
{
	const char *pinned = self->map + FIRST * page_size();
	long faults;

	ASSERT_EQ(0, pin(self->pins, pinned, NR, fast));
	ASSERT_EQ(PAGES - NR, soft_dirty_clear(self->dev, self->map, PAGES));
	EXPECT_KEPT(NR);
	/* All of the address space, too. */
	ASSERT_GE(soft_dirty_clear_all(self->dev), 0);
	ASSERT_EQ(NR, count_soft_dirty(self->pagemap, self->map, 0, PAGES));
	/* They are as writable as before: nothing is to be learnt by a fault. */
	faults = minor_faults();
	store_range(self->map, FIRST, NR, 5);
	ASSERT_EQ(0, minor_faults() - faults);
	ASSERT_EQ(0, unpin(self->pins));
	ASSERT_EQ(NR, soft_dirty_clear(self->dev, self->map, PAGES));
	EXPECT_KEPT(0);
	faults = minor_faults();
	store(self->map, FIRST, 3);
	ASSERT_EQ(1, minor_faults() - faults);
	ASSERT_EQ(1, count_soft_dirty(self->pagemap, self->map, 0, PAGES));
}

TEST_F_TIMEOUT(pins, kept, TEST_SECONDS)
{
	kept(_metadata, self, false);
}

TEST_F_TIMEOUT(pins, kept_fast, TEST_SECONDS)
{
	kept(_metadata, self, true);
}

/* The device goes on when the CPU may not store any more. */
TEST_F_TIMEOUT(pins, read_only_entries, TEST_SECONDS)
{
	ASSERT_EQ(0, pin(self->pins, self->map + FIRST * page_size(), NR, false));
	ASSERT_EQ(0, mprotect(self->map, PAGES * page_size(), PROT_READ));
	EXPECT_KEPT(NR);
	ASSERT_EQ(0, mprotect(self->map, PAGES * page_size(), RW));
	ASSERT_EQ(0, unpin(self->pins));
	EXPECT_KEPT(0);
}

/* What was cleared by others while it was pinned is found, though its entry says nothing. */
TEST_F_TIMEOUT(pins, cleared_by_clear_refs, TEST_SECONDS)
{
	ASSERT_EQ(0, pin(self->pins, self->map + FIRST * page_size(), NR, false));
	ASSERT_EQ(0, write_file("/proc/self/clear_refs", "4"));
	EXPECT_KEPT(NR);
	ASSERT_EQ(0, unpin(self->pins));
	EXPECT_KEPT(0);
}

/* A child has its own pins. Its pages of a private mapping are copies. */
TEST_F_TIMEOUT(pins, of_parent, TEST_SECONDS)
{
	int status;
	pid_t pid;

	ASSERT_EQ(0, pin(self->pins, self->map + FIRST * page_size(), NR, false));
	pid = fork();
	if (!pid) {
		int pagemap = open_pagemap(getpid());

		if (kept_pages(self->dev, self->map, PAGES))
			_exit(1);
		if (count_soft_dirty(pagemap, self->map, 0, PAGES))
			_exit(2);
		store(self->map, FIRST, 4);
		_exit(count_soft_dirty(pagemap, self->map, 0, PAGES) == 1 ? 0 : 3);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	EXPECT_KEPT(NR);
}

/*
 * GUP-fast comes when the table is locked, and before its entries are changed: the
 * first pins of the process, so that no look at the beginning finds any.
 */
struct clearer {
	pthread_t thread;
	int dev;
	char *map;
	int64_t kept;
};

static void *clear_them(void *arg)
{
	struct clearer *clearer = arg;

	clearer->kept = kept_pages(clearer->dev, clearer->map, PAGES);
	return NULL;
}

static void pin_in_between(struct __test_metadata *_metadata, FIXTURE_DATA(pins) *self,
			   int64_t kept)
{
	struct clearer clearer = { .dev = self->dev, .map = self->map };

	ASSERT_EQ(0, close_gate(SOFT_DIRTY_NOW, 1));
	ASSERT_EQ(0, pthread_create(&clearer.thread, NULL, clear_them, &clearer));
	ASSERT_TRUE(wait_at_gate(SOFT_DIRTY_NOW, 1, NULL));
	ASSERT_EQ(0, pin(self->pins, self->map + FIRST * page_size(), NR, true));
	ASSERT_EQ(0, open_gate(SOFT_DIRTY_NOW));
	ASSERT_EQ(0, pthread_join(clearer.thread, NULL));
	ASSERT_EQ(kept, clearer.kept);
	ASSERT_EQ(kept, count_soft_dirty(self->pagemap, self->map, FIRST, NR));
	ASSERT_EQ(kept, count_soft_dirty(self->pagemap, self->map, 0, PAGES));
}

TEST_FAULTS(pins, control_pin_in_between)
{
	pin_in_between(_metadata, self, NR);
}

/* As in clear_refs: the device stores, and nobody will know. */
TEST_FAULTS(pins, control_no_pin_check)
{
	ASSERT_EQ(0, set_fault(SKIP_PIN_CHECK, 1));
	pin_in_between(_metadata, self, 0);
}

FIXTURE(pin)
{
	int dev, pagemap, pins;
};

FIXTURE_SETUP(pin)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	OPEN_PINS(self->pins);
	self->pagemap = open_pagemap(getpid());
	ASSERT_GE(self->pagemap, 0);
	if (soft_dirty_clear_all(self->dev) == -EOPNOTSUPP)
		SKIP(return, "the kernel is without CONFIG_MEM_SOFT_DIRTY");
}

FIXTURE_TEARDOWN(pin)
{
	close(self->pins);
	close(self->pagemap);
}

/*
 * In a mapping that is new, a page that was only read is writable and neither
 * dirty nor soft-dirty, and GUP-fast takes it so. Once the mapping is not new any
 * more, only the entry can tell.
 */
TEST_F_TIMEOUT(pin, clean_page_of_new_mapping, TEST_SECONDS)
{
	int fd = new_memfd(PAGES);
	struct leaf_counts counts;
	char *map;

	ASSERT_GE(fd, 0);
	map = map_shared(fd, 0, PAGES);
	ASSERT_NE(NULL, map);
	load_range(map, 0, PAGES);
	ASSERT_EQ(0, pin(self->pins, map + FIRST * page_size(), NR, true));
	ASSERT_EQ(0, count_leaves(self->dev, map, PAGES * page_size(), &counts));
	ASSERT_EQ(PAGES, counts.pte.writable);
	ASSERT_EQ(0, counts.pte.soft_dirty);
	ASSERT_EQ(NR, kept_pages(self->dev, map, PAGES));
	ASSERT_EQ(NR, count_soft_dirty(self->pagemap, map, FIRST, NR));
	ASSERT_EQ(NR, count_soft_dirty(self->pagemap, map, 0, PAGES));

	/* The same with the permission gone in between. */
	map = map_shared(fd, 0, PAGES);
	ASSERT_NE(NULL, map);
	load_range(map, 0, PAGES);
	ASSERT_EQ(PAGES + NR, write_protect(self->dev, fd, 0, PAGES));
	ASSERT_EQ(NR, kept_pages(self->dev, map, PAGES));
	ASSERT_EQ(NR, count_soft_dirty(self->pagemap, map, FIRST, NR));
	ASSERT_EQ(NR, count_soft_dirty(self->pagemap, map, 0, PAGES));
}

/* A pin of one page keeps the whole of a huge leaf. */
TEST_F_TIMEOUT(pin, huge, TEST_SECONDS)
{
	char *map = map_thp(2);
	struct leaf_counts counts;

	if (!map)
		SKIP(return, "no huge pages");
	ASSERT_GE(soft_dirty_clear_all(self->dev), 0);
	store_range(map, 0, 2 * PMD_PAGES, 1);
	ASSERT_EQ(0, pin(self->pins, map + pmd_size() + 7 * page_size(), 1, false));
	ASSERT_EQ(PMD_PAGES, kept_pages(self->dev, map, 2 * PMD_PAGES));
	ASSERT_EQ(0, count_leaves(self->dev, map, 2 * pmd_size(), &counts));
	ASSERT_EQ(2, counts.pmd.nr);
	ASSERT_EQ(1, counts.pmd.soft_dirty);
	ASSERT_EQ(1, counts.pmd.writable);
	ASSERT_EQ(0, unpin(self->pins));
	ASSERT_EQ(0, kept_pages(self->dev, map, 2 * PMD_PAGES));
	ASSERT_EQ(0, count_leaves(self->dev, map, 2 * pmd_size(), &counts));
	ASSERT_EQ(0, counts.pmd.soft_dirty);
}

/* A leaf of device-DAX, of the size of a PMD or of a PUD. */
static void dax(struct __test_metadata *_metadata, FIXTURE_DATA(pin) *self, const char *path,
		size_t leaf_size)
{
	const size_t pages = leaf_size / page_size();
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct leaf_counts counts;
	char *map;

	if (fd < 0)
		SKIP(return, "no device-DAX %s: no legacy persistent memory here", path);
	map = map_gib(fd, 0, leaf_size, RW);
	if (!map)
		SKIP(return, "%s cannot be mapped: %s", path, strerror(errno));
	store(map, 0, 1);
	if (pin(self->pins, map + 7 * page_size(), 1, false))
		SKIP(return, "%s cannot be pinned", path);
	ASSERT_EQ(pages, kept_pages(self->dev, map, pages));
	ASSERT_EQ(0, count_leaves(self->dev, map, leaf_size, &counts));
	ASSERT_EQ(1, counts.pmd.soft_dirty + counts.pud.soft_dirty);
	ASSERT_EQ(1, counts.pmd.writable + counts.pud.writable);
	ASSERT_EQ(0, unpin(self->pins));
	ASSERT_EQ(pages, soft_dirty_clear(self->dev, map, pages));
	ASSERT_EQ(0, count_leaves(self->dev, map, leaf_size, &counts));
	ASSERT_EQ(0, counts.pmd.soft_dirty + counts.pud.soft_dirty);
	ASSERT_EQ(0, counts.pmd.writable + counts.pud.writable);
	ASSERT_EQ(0, munmap(map, leaf_size));
	close(fd);
}

TEST_F_TIMEOUT(pin, dax_pmd, TEST_SECONDS)
{
	dax(_metadata, self, getenv("MMOPS_DAX_PMD") ?: "/dev/dax1.0", pmd_size());
}

TEST_F_TIMEOUT(pin, dax_pud, TEST_SECONDS)
{
	dax(_metadata, self, getenv("MMOPS_DAX") ?: "/dev/dax0.0", pud_size());
}

/* The kernel stores through the entries, or looks for one that it may write. */
TEST_F_TIMEOUT(pins, stores_of_the_kernel, TEST_SECONDS)
{
	uint64_t value[4] = { 1, 2, 3, 4 };
	struct iovec from = { value, sizeof(value) }, to;
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	ASSERT_EQ(PAGES, soft_dirty_clear(self->dev, self->map, PAGES));
	/* read(2) */
	ASSERT_EQ(8, read(zero, self->map, 8));
	ASSERT_EQ(1, count_soft_dirty(self->pagemap, self->map, 0, PAGES));
	/* As a debugger does. */
	ASSERT_EQ(sizeof(value), pwrite(mem, value, sizeof(value),
					(uintptr_t)self->map + 10 * page_size()));
	ASSERT_EQ(2, count_soft_dirty(self->pagemap, self->map, 0, PAGES));
	to = (struct iovec){ self->map + 20 * page_size(), sizeof(value) };
	if (process_vm_writev(getpid(), &from, 1, &to, 1, 0) < 0) {
		ASSERT_EQ(ENOSYS, errno);
		store(self->map, 20, 1);
	}
	ASSERT_EQ(3, count_soft_dirty(self->pagemap, self->map, 0, PAGES));
	/* Pinned when it was clean, by a write fault. */
	ASSERT_EQ(0, pin(self->pins, self->map + FIRST * page_size(), NR, true));
	ASSERT_EQ(3 + NR, count_soft_dirty(self->pagemap, self->map, 0, PAGES));
	close(zero);
	close(mem);
}

TEST_HARNESS_MAIN
