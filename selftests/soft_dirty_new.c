// SPDX-License-Identifier: GPL-2.0
/*
 * What a clear of soft-dirty costs: a part of a mapping that is new, however
 * large; and a range so large that it is cleared in pieces. Nothing here looks at
 * the clock. The cost is counted in page tables, in pages that are kept, and in
 * events of MMU notifiers.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include "agent.h"
#include "faults.h"
#include "kselftest_harness.h"
#include "notifier.h"
#include "soft_dirty.h"

#define RW		(PROT_READ | PROT_WRITE)
#define LAZY		(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

#define HUGE_PAGES	(1UL << 21)	/* 8 GiB */
#define MIDDLE		(1UL << 20)
#define USED		64UL
/* What Documentation/soft-dirty.rst promises. */
#define PIECE_PAGES	(1UL << 18)	/* 1 GiB */
#define MARK_PAGES	(1UL << 16)	/* 256 MiB */
#define POPULATE_PAGES	(1UL << 12)	/* 16 MiB */

/* A process that does nothing but what it is told, so that its page tables stay as they are. */
FIXTURE(target)
{
	int dev, pidfd, pagemap;
	char *map;
	struct agent agent;
	struct mmops_soft_dirty_clear out;
};

FIXTURE_SETUP(target)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	write_file(THP_ENABLED, "madvise");
	/* The addresses alone. */
	self->map = reserve(HUGE_PAGES, 0);
	ASSERT_NE(self->map, NULL);
	ASSERT_EQ(0, agent_start(&self->agent));
	self->pidfd = syscall(SYS_pidfd_open, self->agent.pid, 0);
	ASSERT_GE(self->pidfd, 0);
	self->pagemap = open_pagemap(self->agent.pid);
	ASSERT_GE(self->pagemap, 0);
	if (soft_dirty_clear_of(self->dev, self->pidfd, self->map, 1, 0, NULL) == -EOPNOTSUPP)
		SKIP(return, "the kernel is without CONFIG_MEM_SOFT_DIRTY");
}

FIXTURE_TEARDOWN(target)
{
	if (self->agent.pid)
		agent_stop(&self->agent);
}

static int64_t tell(FIXTURE_DATA(target) *self, enum agent_op op, size_t first, size_t pages)
{
	struct agent_cmd cmd = {
		.op = op, .fd = -1, .prot = RW, .flags = LAZY,
		.addr = self->map + first * page_size(), .pages = pages, .value = 1,
	};

	return agent_run(&self->agent, &cmd);
}

static int64_t clear_pages(FIXTURE_DATA(target) *self, size_t first, size_t nr, uint32_t flags)
{
	return soft_dirty_clear_of(self->dev, self->pidfd, self->map + first * page_size(), nr,
				   flags, &self->out);
}

static int64_t nr_soft_dirty(FIXTURE_DATA(target) *self, size_t first, size_t nr)
{
	return count_soft_dirty(self->pagemap, self->map, first, nr);
}

/* Page tables of the process in kB. */
static long page_tables(FIXTURE_DATA(target) *self)
{
	char path[64], line[256];
	long kb = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", self->agent.pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "VmPTE:", 6))
			kb = atol(line + 6);
	if (f)
		fclose(f);
	return kb;
}

/* One page of a huge new mapping: nothing is mapped for it, and no page reads as clean. */
TEST_F_TIMEOUT(target, page_of_huge_mapping, TEST_SECONDS)
{
	long kb;

	ASSERT_EQ(0, tell(self, AGENT_MAP, 0, HUGE_PAGES));
	ASSERT_EQ(0, tell(self, AGENT_STORE, MIDDLE, USED));
	kb = page_tables(self);
	ASSERT_GT(kb, 0);
	ASSERT_EQ(0, clear_pages(self, MIDDLE, 1, 0));
	ASSERT_EQ(1, self->out.kept);
	ASSERT_EQ(kb, page_tables(self));
	ASSERT_EQ(HUGE_PAGES, nr_soft_dirty(self, 0, HUGE_PAGES));
	/* Nor is a half that is too large to be worth more. */
	ASSERT_EQ(0, clear_pages(self, 0, MIDDLE, 0));
	ASSERT_EQ(MIDDLE, self->out.kept);
	ASSERT_EQ(kb, page_tables(self));
	ASSERT_EQ(HUGE_PAGES, nr_soft_dirty(self, 0, HUGE_PAGES));
}

/* The way without a page that is kept: all of the mapping, when it is new. */
TEST_F_TIMEOUT(target, all_of_huge_mapping, TEST_SECONDS)
{
	long kb;

	ASSERT_EQ(0, tell(self, AGENT_MAP, 0, HUGE_PAGES));
	ASSERT_EQ(0, tell(self, AGENT_STORE, MIDDLE, USED));
	kb = page_tables(self);
	ASSERT_EQ(USED, clear_pages(self, 0, HUGE_PAGES, 0));
	ASSERT_EQ(0, self->out.kept);
	ASSERT_EQ(kb, page_tables(self));
	ASSERT_EQ(0, nr_soft_dirty(self, 0, HUGE_PAGES));
	/* From now on a part is a part. */
	ASSERT_EQ(0, tell(self, AGENT_STORE, MIDDLE, USED));
	ASSERT_EQ(USED, nr_soft_dirty(self, 0, HUGE_PAGES));
	ASSERT_EQ(1, clear_pages(self, MIDDLE + 7, 1, 0));
	ASSERT_EQ(0, self->out.kept);
	ASSERT_EQ(0, nr_soft_dirty(self, MIDDLE + 7, 1));
	ASSERT_EQ(USED - 1, nr_soft_dirty(self, 0, HUGE_PAGES));
	ASSERT_EQ(kb, page_tables(self));
}

/* Pages that are not there may be forgotten: nothing is mapped for them. */
TEST_F_TIMEOUT(target, forget, TEST_SECONDS)
{
	long kb;

	ASSERT_EQ(0, tell(self, AGENT_MAP, 0, HUGE_PAGES));
	ASSERT_EQ(0, tell(self, AGENT_STORE, MIDDLE, USED));
	kb = page_tables(self);
	ASSERT_EQ(1, clear_pages(self, MIDDLE, 1, MMOPS_SOFT_DIRTY_FORGET));
	ASSERT_EQ(0, self->out.kept);
	ASSERT_EQ(kb, page_tables(self));
	ASSERT_EQ(USED - 1, nr_soft_dirty(self, 0, HUGE_PAGES));
	ASSERT_EQ(USED - 1, nr_soft_dirty(self, MIDDLE + 1, USED - 1));
}

/* Where too many are there, the flag stays as well. */
TEST_F_TIMEOUT(target, forget_is_bounded, TEST_SECONDS)
{
	size_t pages = MARK_PAGES + 2 * PMD_PAGES;

	ASSERT_EQ(0, tell(self, AGENT_MAP, 0, pages));
	ASSERT_EQ(0, tell(self, AGENT_LOAD, 0, pages));
	ASSERT_EQ(0, clear_pages(self, 0, 1, MMOPS_SOFT_DIRTY_FORGET));
	ASSERT_EQ(1, self->out.kept);
	ASSERT_EQ(pages, nr_soft_dirty(self, 0, pages));
	/* With less outside it can go. All but the first page were marked by the first call. */
	ASSERT_EQ(3 * PMD_PAGES - 1,
		  clear_pages(self, 0, 3 * PMD_PAGES, MMOPS_SOFT_DIRTY_FORGET));
	ASSERT_EQ(0, self->out.kept);
	ASSERT_EQ(pages - 3 * PMD_PAGES, nr_soft_dirty(self, 0, pages));
}

/* A part of a new mapping, with @outside pages beside it, which are there if @mapped. */
static void part(struct __test_metadata *_metadata, FIXTURE_DATA(target) *self, size_t outside,
		 bool mapped, bool is_cleared)
{
	size_t pages = outside + 10, first = outside / 2;
	long kb;

	ASSERT_EQ(0, tell(self, AGENT_MAP, 0, pages));
	ASSERT_EQ(0, tell(self, AGENT_STORE, first, 10));
	if (mapped) {
		ASSERT_EQ(0, tell(self, AGENT_LOAD, 0, first));
		ASSERT_EQ(0, tell(self, AGENT_LOAD, first + 10, pages - first - 10));
	}
	kb = page_tables(self);
	ASSERT_EQ(is_cleared ? 10 : 0, clear_pages(self, first, 10, 0));
	ASSERT_EQ(is_cleared ? 0 : 10, self->out.kept);
	if (mapped || !is_cleared) {
		ASSERT_EQ(kb, page_tables(self));
	} else {
		ASSERT_LE(page_tables(self) - kb, (long)((outside / PMD_PAGES + 4) * 4));
	}
	ASSERT_EQ(is_cleared ? 0 : 10, nr_soft_dirty(self, first, 10));
	ASSERT_EQ(is_cleared ? outside : pages, nr_soft_dirty(self, 0, pages));
	ASSERT_EQ(0, tell(self, AGENT_STORE, first + 3, 1));
	ASSERT_EQ(is_cleared ? 1 : 10, nr_soft_dirty(self, first, 10));
}

TEST_F_TIMEOUT(target, part_populated, TEST_SECONDS)
{
	part(_metadata, self, POPULATE_PAGES, false, true);
}

TEST_F_TIMEOUT(target, part_not_populated, TEST_SECONDS)
{
	part(_metadata, self, POPULATE_PAGES + 1, false, false);
}

TEST_F_TIMEOUT(target, part_mapped, TEST_SECONDS)
{
	part(_metadata, self, MARK_PAGES, true, true);
}

TEST_F_TIMEOUT(target, part_too_large, TEST_SECONDS)
{
	part(_metadata, self, MARK_PAGES + 1, true, false);
}

/*
 * In pieces of 1 GiB, each flushed and told by itself. Nothing of it is in
 * memory but page tables: reads map the zero page.
 */
FIXTURE(pieces)
{
	int dev, pagemap;
	char *map;
	size_t pages;
	struct heard heard;
};

FIXTURE_SETUP(pieces)
{
	size_t i;

	OPEN_DEV(self->dev, MMOPS_DEV);
	write_file(THP_ENABLED, "madvise");
	self->pages = PIECE_PAGES + 100;
	self->map = reserve(self->pages, 0);
	ASSERT_NE(self->map, NULL);
	ASSERT_NE(NULL, map_at(self->map, -1, 0, self->pages, RW, LAZY));
	self->pagemap = open_pagemap(getpid());
	ASSERT_GE(self->pagemap, 0);
	if (soft_dirty_clear(self->dev, self->map, self->pages) == -EOPNOTSUPP)
		SKIP(return, "the kernel is without CONFIG_MEM_SOFT_DIRTY");
	load_range(self->map, 0, self->pages);
	for (i = 0; i < self->pages; i += 1000)
		store(self->map, i, i);
}

FIXTURE_TEARDOWN(pieces)
{
}

FIXTURE_FAULTS(pieces);

#define STORED(self)	(((self)->pages + 999) / 1000)

TEST_F_TIMEOUT(pieces, are_told_one_by_one, TEST_SECONDS)
{
	const struct mmops_notifier_event *events = self->heard.events;

	ASSERT_EQ(STORED(self), count_soft_dirty(self->pagemap, self->map, 0, self->pages));
	ASSERT_EQ(0, subscribe(self->dev, self->map, self->pages, 0));
	ASSERT_EQ(STORED(self), soft_dirty_clear(self->dev, self->map, self->pages));
	ASSERT_EQ(2, hear(self->dev, self->map, &self->heard, 0));
	ASSERT_EQ(MMOPS_EVENT_SOFT_DIRTY, events[0].event);
	ASSERT_EQ((uintptr_t)self->map, events[0].start);
	ASSERT_EQ(MMOPS_EVENT_SOFT_DIRTY, events[1].event);
	ASSERT_EQ((uintptr_t)self->map + PIECE_PAGES * page_size(), events[1].start);
	ASSERT_EQ((uintptr_t)self->map + self->pages * page_size(), events[1].end);
	ASSERT_EQ(0, count_soft_dirty(self->pagemap, self->map, 0, self->pages));
	/* A small range is one. */
	store(self->map, 70000, 1);
	ASSERT_EQ(1, soft_dirty_clear(self->dev, self->map + 69000 * page_size(), 2000));
	ASSERT_EQ(1, hear(self->dev, self->map, &self->heard, 0));
}

/* Several mappings are one piece, as long as they are not larger together. */
TEST_F_TIMEOUT(pieces, of_several_mappings, TEST_SECONDS)
{
	const struct mmops_notifier_event *events = self->heard.events;
	size_t half = PIECE_PAGES / 2;

	ASSERT_EQ(0, madvise(self->map + half * page_size(), half * page_size(), MADV_DONTFORK));
	ASSERT_EQ(0, subscribe(self->dev, self->map, self->pages, 0));
	ASSERT_EQ(STORED(self), soft_dirty_clear(self->dev, self->map, self->pages));
	ASSERT_EQ(2, hear(self->dev, self->map, &self->heard, 0));
	ASSERT_EQ((uintptr_t)self->map, events[0].start);
	ASSERT_EQ((uintptr_t)self->map + PIECE_PAGES * page_size(), events[0].end);
	ASSERT_EQ(events[0].end, events[1].start);
	ASSERT_EQ(0, count_soft_dirty(self->pagemap, self->map, 0, self->pages));
}

/* In a huge mapping with little in it pieces grow: their number does not go with its size. */
TEST_F_TIMEOUT(pieces, grow, TEST_SECONDS)
{
	size_t pages = 1UL << 32;	/* 16 TiB */
	char *map = mmap(NULL, pages * page_size(), RW, LAZY, -1, 0);

	if (map == MAP_FAILED)
		SKIP(return, "16 TiB cannot be mapped: %s", strerror(errno));
	store(map, 7, 1);
	store(map, pages - 7, 1);
	ASSERT_EQ(2, soft_dirty_clear(self->dev, map, pages));
	store(map, 7, 2);
	store(map, pages / 2, 2);
	store(map, pages - 7, 2);
	ASSERT_EQ(0, subscribe(self->dev, map, pages, 0));
	ASSERT_EQ(3, soft_dirty_clear(self->dev, map, pages));
	ASSERT_LE(hear(self->dev, map, &self->heard, 0), 16);
	ASSERT_EQ(0, count_soft_dirty(self->pagemap, map, 7, 1));
	ASSERT_EQ(0, count_soft_dirty(self->pagemap, map, pages / 2, 1));
	ASSERT_EQ(0, count_soft_dirty(self->pagemap, map, pages - 7, 1));
	store(map, pages / 2, 3);
	ASSERT_EQ(1, count_soft_dirty(self->pagemap, map, pages / 2, 1));
	ASSERT_EQ(0, munmap(map, pages * page_size()));
}

/* Between two pieces the process may change its mappings, and store. */
static void *clear_pieces(void *arg)
{
	FIXTURE_DATA(pieces) *self = arg;

	return (void *)soft_dirty_clear(self->dev, self->map, self->pages);
}

TEST_FAULTS(pieces, control_lock_is_dropped)
{
	char *end = self->map + PIECE_PAGES * page_size();
	pthread_t thread;
	void *cleared;

	ASSERT_EQ(0, close_gate(BETWEEN_PIECES, 1));
	ASSERT_EQ(0, pthread_create(&thread, NULL, clear_pieces, self));
	ASSERT_TRUE(wait_at_gate(BETWEEN_PIECES, 1, NULL));
	/* Each waits for the mmap lock. */
	ASSERT_EQ(0, munmap(end + 50 * page_size(), 50 * page_size()));
	ASSERT_NE(MAP_FAILED, mmap(NULL, page_size(), RW, LAZY, -1, 0));
	store(self->map, 3, 1);
	store(end, 3, 1);
	ASSERT_EQ(0, open_gate(BETWEEN_PIECES));
	ASSERT_EQ(0, pthread_join(thread, &cleared));
	/* One page more behind what was done, and no other. */
	ASSERT_EQ(STORED(self) + 1, (int64_t)cleared);
	ASSERT_EQ(1, count_soft_dirty(self->pagemap, self->map, 0, PIECE_PAGES));
	ASSERT_EQ(1, count_soft_dirty(self->pagemap, self->map, 3, 1));
	ASSERT_EQ(0, count_soft_dirty(self->pagemap, end, 0, 50));
}

/*
 * Little memory: the process asks for itself, so what is allocated counts for its
 * own cgroup. It gets an answer, and lives.
 */
static int call_under_limit(const char *cgroup)
{
	char path[256], pid[16];
	struct mmops_soft_dirty_clear out = {};
	int dev = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
	char *map;
	int64_t ret;

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	snprintf(pid, sizeof(pid), "%d", getpid());
	if (dev < 0 || write_file(path, pid))
		return 1;
	map = mmap(NULL, HUGE_PAGES * page_size(), RW, LAZY, -1, 0);
	if (map == MAP_FAILED)
		return 2;
	store_range(map, MIDDLE, USED, 1);
	ret = soft_dirty_clear_of(dev, -1, map + MIDDLE * page_size(), 1, 0, &out);
	if (ret != 0 || out.kept != 1)
		return 3;
	ret = soft_dirty_clear_of(dev, -1, map, HUGE_PAGES, 0, &out);
	if (ret != (int64_t)USED || out.kept)
		return 4;
	store(map, MIDDLE, 2);
	ret = soft_dirty_clear_of(dev, -1, map + MIDDLE * page_size(), 1, 0, &out);
	return ret == 1 && !out.kept ? 0 : 5;
}

TEST(lives_under_memory_limit)
{
	char dir[] = "/tmp/mmops_cgroup.XXXXXX", cgroup[64], path[128];
	int dev = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
	int status = -1, limited;
	pid_t pid;

	if (dev < 0)
		SKIP(return, "cannot open " MMOPS_DEV ": %s", strerror(errno));
	if (soft_dirty_clear_all(dev) == -EOPNOTSUPP)
		SKIP(return, "the kernel is without CONFIG_MEM_SOFT_DIRTY");
	ASSERT_NE(NULL, mkdtemp(dir));
	if (mount("none", dir, "cgroup2", 0, NULL)) {
		rmdir(dir);
		SKIP(return, "no cgroups: %s", strerror(errno));
	}
	snprintf(path, sizeof(path), "%s/cgroup.subtree_control", dir);
	write_file(path, "+memory");
	snprintf(cgroup, sizeof(cgroup), "%s/mmops.%d", dir, getpid());
	EXPECT_EQ(0, mkdir(cgroup, 0755));
	snprintf(path, sizeof(path), "%s/memory.max", cgroup);
	limited = write_file(path, "10M");
	if (!limited) {
		pid = fork();
		if (!pid)
			_exit(call_under_limit(cgroup));
		waitpid(pid, &status, 0);
	}
	rmdir(cgroup);
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	if (limited)
		SKIP(return, "no limit of memory: %s", strerror(-limited));
	ASSERT_EQ(0, status);
}

TEST_HARNESS_MAIN
