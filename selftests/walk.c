// SPDX-License-Identifier: GPL-2.0
/*
 * Walks, a gather and an invalidation of a driver's own (mmops_walk.ko): what
 * such a driver finds and changes, and what secondary MMUs hear of it.
 *
 * Oracles: minor faults, pagemap, smaps, contents, and a subscription.
 */
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "mmops_walk.h"
#include "ksm.h"
#include "leafmap.h"
#include "notifier.h"
#include "swap.h"
#include "kselftest_harness.h"

#define WALK_DEV	"/dev/mmops_walk"

static int walk_arg(int dev, struct mmops_walk *arg)
{
	return ioctl(dev, MMOPS_WALK_IOC, arg) ? -errno : 0;
}

/* A walk over pages of a file. 0 or -errno. */
static int walk_file(int dev, uint32_t op, int fd, size_t first, size_t nr,
		     struct mmops_walk *arg)
{
	*arg = (struct mmops_walk){ .op = op, .fd = fd, .first = first, .nr = nr };
	return walk_arg(dev, arg);
}

/* One over addresses; a gather is over the same. */
static int walk_addr(int dev, uint32_t op, const void *addr, size_t nr, struct mmops_walk *arg)
{
	*arg = (struct mmops_walk){
		.op = op, .fd = -1, .first = (uintptr_t)addr, .nr = nr, .gather = nr,
	};
	return walk_arg(dev, arg);
}

#define ASSERT_FOUND(arg, vmas_, tables_, leaves_, present_, writable_) do {	\
	ASSERT_EQ(vmas_, (arg).vmas);						\
	ASSERT_EQ(tables_, (arg).tables);					\
	ASSERT_EQ(leaves_, (arg).leaves);					\
	ASSERT_EQ(present_, (arg).present);					\
	ASSERT_EQ(writable_, (arg).writable);					\
} while (0)

/* Leaves of @pages from @map on that are dirty. */
static size_t dirty_leaves(int mmops, const char *map, size_t pages)
{
	static struct leaves leaves;

	if (list_leaves(mmops, map, pages * page_size(), &leaves))
		return SIZE_MAX;
	return leaves_with(&leaves, MMOPS_LEAF_DIRTY);
}

/*
 * A dirty bit that a driver takes goes to the folio. Pages that came back from
 * swap are the same there until they are stored to, which their entry alone says:
 * reclaim would drop them, and the old value would come back.
 */
TEST(dirty_is_not_lost)
{
	const size_t pages = 64;
	struct mmops_walk arg;
	struct swap_file swap;
	const char *why;
	int dev, mmops;
	size_t i;
	char *map;

	OPEN_DEV(dev, WALK_DEV);
	OPEN_DEV(mmops, MMOPS_DEV);
	why = add_swap(&swap);
	if (why)
		SKIP(return, "%s", why);
	map = map_at(reserve(pages, 0), -1, 0, pages, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS);
	ASSERT_NE(NULL, map);
	madvise(map, pages * page_size(), MADV_NOHUGEPAGE);
	store_range(map, 0, pages, 1);
	EXPECT_EQ(pages, swap_out(map, pages));
	/* Or the pages stay where they are, under writeback, and are not swapped out again. */
	EXPECT_TRUE(wait_for_swap_writes());
	load_range(map, 0, pages);
	EXPECT_EQ(0, dirty_leaves(mmops, map, pages));
	store_range(map, 0, pages, 1000);
	EXPECT_EQ(pages, dirty_leaves(mmops, map, pages));

	EXPECT_EQ(0, walk_addr(dev, MMOPS_WALK_TAKE_DIRTY, map, pages, &arg));
	EXPECT_EQ(pages, arg.changed);
	EXPECT_EQ(pages, arg.writable);
	EXPECT_EQ(0, dirty_leaves(mmops, map, pages));
	EXPECT_EQ(0, walk_addr(dev, MMOPS_WALK_TAKE_DIRTY, map, pages, &arg));
	EXPECT_EQ(0, arg.changed);

	EXPECT_EQ(pages, swap_out(map, pages));
	for (i = 0; i < pages; i++) {
		EXPECT_EQ(1000 + i, load(map, i));
	}
	/* A store afterwards is seen again. */
	store(map, 5, 1);
	EXPECT_EQ(0, walk_addr(dev, MMOPS_WALK_TAKE_DIRTY, map, pages, &arg));
	EXPECT_EQ(1, arg.changed);
	EXPECT_EQ(0, remove_swap(&swap));
}

/*
 * A zero page that KSM has put there is known by its dirty bit alone, so that it can be
 * counted when it goes: whoever takes dirty bits leaves it.
 */
TEST(zero_page_of_ksm)
{
	long before = ksm_number("ksm_zero_pages");
	const size_t pages = 4;
	struct mmops_walk arg;
	char *map;
	int dev;

	if (before < 0)
		SKIP(return, "the kernel has no KSM");
	OPEN_DEV(dev, WALK_DEV);
	map = map_at(reserve(pages, 0), -1, 0, pages, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS);
	ASSERT_NE(NULL, map);
	memset(map, 0, pages * page_size());
	ASSERT_EQ(0, madvise(map, pages * page_size(), MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_merge_zeroes(map + (pages - 1) * page_size()));
	ASSERT_EQ(before + (long)pages, ksm_number("ksm_zero_pages"));
	ASSERT_EQ(0, walk_addr(dev, MMOPS_WALK_TAKE_DIRTY, map, pages, &arg));
	EXPECT_EQ(0, arg.changed);
	store_range(map, 0, pages, 1);
	EXPECT_EQ(before, ksm_number("ksm_zero_pages"));
}

/*
 * A file with two mappings: all of it, in three page tables, and a part, in two,
 * of which every second page is touched.
 */
#define FILE_PAGES	1100
#define PART_FIRST	100
#define PART_PAGES	100

FIXTURE(file)
{
	int dev, fd;
	char *all, *part;
};

FIXTURE_SETUP(file)
{
	size_t i;

	OPEN_DEV(self->dev, WALK_DEV);
	self->fd = new_memfd(FILE_PAGES);
	ASSERT_LE(0, self->fd);
	self->all = map_at(reserve(FILE_PAGES, 0), self->fd, 0, FILE_PAGES,
			   PROT_READ | PROT_WRITE, MAP_SHARED);
	self->part = map_at(reserve(PART_PAGES, 480), self->fd, PART_FIRST, PART_PAGES,
			    PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(NULL, self->all);
	ASSERT_NE(NULL, self->part);
	store_range(self->all, 0, FILE_PAGES, 1);
	for (i = 0; i < PART_PAGES; i += 2)
		store(self->part, i, 1 + PART_FIRST + i);
}

FIXTURE_TEARDOWN(file)
{
}

TEST_F_TIMEOUT(file, read, TEST_SECONDS)
{
	struct mmops_walk arg;

	ASSERT_EQ(0, walk_file(self->dev, MMOPS_WALK_READ_MAPPING, self->fd, 0, FILE_PAGES, &arg));
	ASSERT_FOUND(arg, 2, 5, 0, FILE_PAGES + PART_PAGES / 2, FILE_PAGES + PART_PAGES / 2);
	ASSERT_EQ(0, arg.changed);
	/* One mapping alone, a part of one table. */
	ASSERT_EQ(0, walk_file(self->dev, MMOPS_WALK_READ_MAPPING, self->fd, 600, 50, &arg));
	ASSERT_FOUND(arg, 1, 1, 0, 50, 50);
	/* Behind the end. */
	ASSERT_EQ(0, walk_file(self->dev, MMOPS_WALK_READ_MAPPING, self->fd, FILE_PAGES, 9, &arg));
	ASSERT_FOUND(arg, 0, 0, 0, 0, 0);
	ASSERT_EQ(-EINVAL, walk_file(self->dev, MMOPS_WALK_READ_MAPPING, self->fd, 0, 0, &arg));
}

TEST_F_TIMEOUT(file, write_protect, TEST_SECONDS)
{
	struct mmops_walk arg;
	long faults;
	size_t i;

	ASSERT_EQ(0, walk_file(self->dev, MMOPS_WALK_PROTECT_MAPPING, self->fd, 0, FILE_PAGES,
			       &arg));
	ASSERT_FOUND(arg, 2, 5, 0, FILE_PAGES + PART_PAGES / 2, FILE_PAGES + PART_PAGES / 2);
	ASSERT_EQ(FILE_PAGES + PART_PAGES / 2, arg.changed);
	/* Nothing is left to do. */
	ASSERT_EQ(0, walk_file(self->dev, MMOPS_WALK_PROTECT_MAPPING, self->fd, 0, FILE_PAGES,
			       &arg));
	ASSERT_FOUND(arg, 2, 5, 0, FILE_PAGES + PART_PAGES / 2, 0);
	ASSERT_EQ(0, arg.changed);

	/* Loads do not fault, the first store to each page does. */
	faults = minor_faults();
	for (i = 0; i < FILE_PAGES; i++) {
		ASSERT_EQ(1 + i, load(self->all, i));
	}
	ASSERT_EQ(faults, minor_faults());
	store_range(self->all, 0, FILE_PAGES, 1);
	ASSERT_EQ(faults + FILE_PAGES, minor_faults());
	store(self->part, 2, 1 + PART_FIRST + 2);
	ASSERT_EQ(faults + FILE_PAGES + 1, minor_faults());
	store_range(self->all, 0, FILE_PAGES, 1);
	ASSERT_EQ(faults + FILE_PAGES + 1, minor_faults());

	/* Both mappings in part, at an end of one. */
	ASSERT_EQ(0, walk_file(self->dev, MMOPS_WALK_PROTECT_MAPPING, self->fd, PART_FIRST - 10, 20,
			       &arg));
	ASSERT_FOUND(arg, 2, 2, 0, 20 + 5, 20 + 1);
	ASSERT_EQ(20 + 1, arg.changed);
}

/* Private memory, a hole, and a file, in one page table. */
#define AREA_PAGES	64

FIXTURE(area)
{
	int dev, mmops;
	char *map;
	struct heard heard;
};

FIXTURE_SETUP(area)
{
	size_t bytes = AREA_PAGES * page_size();
	int fd = new_memfd(AREA_PAGES);

	OPEN_DEV(self->dev, WALK_DEV);
	OPEN_DEV(self->mmops, MMOPS_DEV);
	self->map = reserve(4 * PMD_PAGES, 0);
	ASSERT_NE(NULL, self->map);
	ASSERT_NE(NULL, map_at(self->map, -1, 0, AREA_PAGES, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS));
	ASSERT_EQ(0, munmap(self->map + bytes, bytes));
	ASSERT_NE(NULL, map_at(self->map + 2 * bytes, fd, 0, AREA_PAGES, PROT_READ | PROT_WRITE,
			       MAP_SHARED));
	store_range(self->map, 0, AREA_PAGES, 1);
	store_range(self->map, 2 * AREA_PAGES, AREA_PAGES, 1000);
	ASSERT_EQ(0, subscribe(self->mmops, self->map, 3 * AREA_PAGES, 0));
}

FIXTURE_TEARDOWN(area)
{
}

#define EXPECT_HEARD(wanted) do {						\
	ASSERT_LE(0, hear(self->mmops, self->map, &self->heard, 0));		\
	EXPECT_STREQ(wanted, self->heard.text);					\
	EXPECT_EQ(0, self->heard.lost);						\
} while (0)

static size_t present(const char *map, size_t first, size_t nr)
{
	size_t i, n = 0;

	for (i = first; i < first + nr; i++)
		n += !!(pagemap_entry(map + i * page_size()) & PAGEMAP_PRESENT);
	return n;
}

TEST_F_TIMEOUT(area, read, TEST_SECONDS)
{
	struct mmops_walk arg;

	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_READ_RANGE, self->map, 3 * AREA_PAGES, &arg));
	ASSERT_FOUND(arg, 2, 2, 0, 2 * AREA_PAGES, 2 * AREA_PAGES);
	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_READ_VMA, self->map, AREA_PAGES, &arg));
	ASSERT_FOUND(arg, 1, 1, 0, AREA_PAGES, AREA_PAGES);
	EXPECT_HEARD("");
	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_INVALIDATE, self->map + 2 * page_size(), 3,
			       &arg));
	ASSERT_FOUND(arg, 1, 0, 0, 0, 0);
	EXPECT_HEARD("clear 2-5");
	/* The closure is run, and what it returns comes through. */
	ASSERT_EQ(-EINVAL, walk_addr(self->dev, MMOPS_WALK_INVALIDATE, self->map, AREA_PAGES + 1,
				     &arg));
	EXPECT_HEARD("clear 0-65");
	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_INVALIDATE, self->map, 1, &arg));
	EXPECT_HEARD("clear 0-1");
}

/* All that @op protected faults once at a store, and keeps its contents. */
static void check_protected(struct __test_metadata *_metadata, FIXTURE_DATA(area) *self)
{
	long faults = minor_faults();
	size_t i;

	for (i = 0; i < AREA_PAGES; i++) {
		ASSERT_EQ(1 + i, load(self->map, i));
		ASSERT_EQ(1000 + i, load(self->map, 2 * AREA_PAGES + i));
	}
	ASSERT_EQ(faults, minor_faults());
	store_range(self->map, 0, AREA_PAGES, 1);
	store_range(self->map, 2 * AREA_PAGES, AREA_PAGES, 1000);
	ASSERT_EQ(faults + 2 * AREA_PAGES, minor_faults());
	store_range(self->map, 0, AREA_PAGES, 1);
	store_range(self->map, 2 * AREA_PAGES, AREA_PAGES, 1000);
	ASSERT_EQ(faults + 2 * AREA_PAGES, minor_faults());
}

TEST_F_TIMEOUT(area, protect_range, TEST_SECONDS)
{
	struct mmops_walk arg;

	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_PROTECT_RANGE, self->map, 3 * AREA_PAGES,
			       &arg));
	ASSERT_FOUND(arg, 2, 2, 0, 2 * AREA_PAGES, 2 * AREA_PAGES);
	ASSERT_EQ(2 * AREA_PAGES, arg.changed);
	EXPECT_HEARD("protection-page 0-64, protection-page 128-192");
	check_protected(_metadata, self);
}

TEST_F_TIMEOUT(area, protect_one_scope, TEST_SECONDS)
{
	struct mmops_walk arg;

	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_PROTECT_ONE_SCOPE, self->map, 3 * AREA_PAGES,
			       &arg));
	ASSERT_FOUND(arg, 2, 2, 0, 2 * AREA_PAGES, 2 * AREA_PAGES);
	ASSERT_EQ(2 * AREA_PAGES, arg.changed);
	EXPECT_HEARD("protection-page 0-192");
	check_protected(_metadata, self);
}

TEST_F_TIMEOUT(area, protect_vma, TEST_SECONDS)
{
	char *second = self->map + 2 * AREA_PAGES * page_size();
	struct mmops_walk arg;
	long faults;

	/* Not beyond the VMA, and not where there is none. */
	ASSERT_EQ(-EINVAL, walk_addr(self->dev, MMOPS_WALK_PROTECT_VMA, self->map, AREA_PAGES + 1,
				     &arg));
	ASSERT_EQ(-EINVAL, walk_addr(self->dev, MMOPS_WALK_PROTECT_VMA, second - page_size(), 2,
				     &arg));
	faults = minor_faults();
	store_range(self->map, 0, AREA_PAGES, 1);
	ASSERT_EQ(faults, minor_faults());
	EXPECT_HEARD("");

	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_PROTECT_VMA, second, 5, &arg));
	ASSERT_FOUND(arg, 1, 1, 0, 5, 5);
	ASSERT_EQ(5, arg.changed);
	EXPECT_HEARD("protection-page 128-133");
	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_PROTECT_VMA, self->map, AREA_PAGES, &arg));
	ASSERT_EQ(AREA_PAGES, arg.changed);
	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_PROTECT_VMA, second, AREA_PAGES, &arg));
	ASSERT_FOUND(arg, 1, 1, 0, AREA_PAGES, AREA_PAGES - 5);
	ASSERT_EQ(AREA_PAGES - 5, arg.changed);
	check_protected(_metadata, self);
}

TEST_F_TIMEOUT(area, gather_and_zap, TEST_SECONDS)
{
	char *second = self->map + 2 * AREA_PAGES * page_size();
	struct mmops_walk arg;
	size_t i;

	/* Nothing outside the gather, or outside the VMA. */
	arg = (struct mmops_walk){
		.op = MMOPS_WALK_ZAP, .first = (uintptr_t)self->map, .nr = 8, .gather = 3,
	};
	ASSERT_EQ(-EINVAL, walk_arg(self->dev, &arg));
	ASSERT_EQ(-EINVAL, walk_addr(self->dev, MMOPS_WALK_ZAP, self->map, 2 * AREA_PAGES + 2,
				     &arg));
	ASSERT_EQ(AREA_PAGES, present(self->map, 0, AREA_PAGES));
	EXPECT_HEARD("clear 0-3, clear 0-130");

	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_ZAP, self->map, 11, &arg));
	ASSERT_EQ(11, arg.changed);
	EXPECT_HEARD("clear 0-11");
	ASSERT_EQ(0, present(self->map, 0, 11));
	ASSERT_EQ(AREA_PAGES - 11, present(self->map, 11, AREA_PAGES - 11));
	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_ZAP, second, AREA_PAGES, &arg));
	ASSERT_EQ(AREA_PAGES, arg.changed);
	ASSERT_EQ(0, present(self->map, 2 * AREA_PAGES, AREA_PAGES));

	/* Zeroes, what was kept, and the file. */
	for (i = 0; i < AREA_PAGES; i++) {
		ASSERT_EQ(i < 11 ? 0 : 1 + i, load(self->map, i));
		ASSERT_EQ(1000 + i, load(self->map, 2 * AREA_PAGES + i));
	}
}

FIXTURE(huge)
{
	int dev;
};

FIXTURE_SETUP(huge)
{
	OPEN_DEV(self->dev, WALK_DEV);
}

FIXTURE_TEARDOWN(huge)
{
}

TEST_F_TIMEOUT(huge, whole, TEST_SECONDS)
{
	char *map = map_thp(2);
	struct mmops_walk arg;
	long faults;

	if (!map)
		SKIP(return, "no huge pages");
	/* Nothing but the file's leaves can be split, so the flag makes no difference. */
	arg = (struct mmops_walk){
		.op = MMOPS_WALK_PROTECT_VMA, .flags = MMOPS_WALK_SPLIT,
		.first = (uintptr_t)map, .nr = 2 * PMD_PAGES,
	};
	ASSERT_EQ(0, walk_arg(self->dev, &arg));
	ASSERT_FOUND(arg, 1, 0, 2, 2 * PMD_PAGES, 2 * PMD_PAGES);
	ASSERT_EQ(2 * PMD_PAGES, arg.changed);
	faults = minor_faults();
	store_range(map, 0, 2 * PMD_PAGES, 1);
	ASSERT_EQ(faults + 2, minor_faults());
	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_TAKE_DIRTY, map, 2 * PMD_PAGES, &arg));
	ASSERT_EQ(2 * PMD_PAGES, arg.changed);
	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_TAKE_DIRTY, map, 2 * PMD_PAGES, &arg));
	ASSERT_EQ(0, arg.changed);
	ASSERT_EQ(2 * pmd_size() / 1024, smaps_kb(map, "AnonHugePages"));
	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_READ_RANGE, map, 2 * PMD_PAGES, &arg));
	ASSERT_FOUND(arg, 1, 0, 2, 2 * PMD_PAGES, 2 * PMD_PAGES);

	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_ZAP, map, 2 * PMD_PAGES, &arg));
	ASSERT_EQ(2 * PMD_PAGES, arg.changed);
	ASSERT_EQ(0, present(map, 0, 2 * PMD_PAGES));
	ASSERT_EQ(0, load(map, 7));
}

/* One that asks for a split of all leaves has those that cannot be split passed over, once. */
TEST_F_TIMEOUT(huge, split_refused, TEST_SECONDS)
{
	char *map = map_thp(2);
	struct mmops_walk arg;
	long faults;

	if (!map)
		SKIP(return, "no huge pages");
	store_range(map, 0, 2 * PMD_PAGES, 1);
	arg = (struct mmops_walk){
		.op = MMOPS_WALK_PROTECT_VMA, .flags = MMOPS_WALK_SPLIT | MMOPS_WALK_SPLIT_ALL,
		.first = (uintptr_t)map, .nr = 2 * PMD_PAGES,
	};
	ASSERT_EQ(0, walk_arg(self->dev, &arg));
	ASSERT_FOUND(arg, 1, 0, 2, 2 * PMD_PAGES, 2 * PMD_PAGES);
	ASSERT_EQ(0, arg.changed);
	ASSERT_EQ(2 * pmd_size() / 1024, smaps_kb(map, "AnonHugePages"));
	faults = minor_faults();
	store_range(map, 0, 2 * PMD_PAGES, 1);
	ASSERT_EQ(faults, minor_faults());
}

/* Shared memory in leaves of 2 MiB, with its first word stored to. NULL if there are none. */
static char *map_huge_shared(int fd, size_t leaves)
{
	char *map = map_at(reserve(leaves * PMD_PAGES, 0), fd, 0, leaves * PMD_PAGES,
			   PROT_READ | PROT_WRITE, MAP_SHARED);

	if (!map || madvise(map, leaves * pmd_size(), MADV_HUGEPAGE))
		return NULL;
	store_range(map, 0, leaves * PMD_PAGES, 1);
	return smaps_kb(map, "ShmemPmdMapped") == (long)(leaves * pmd_size() / 1024) ? map : NULL;
}

/* A page table that was allocated for another process is refused. */
TEST_F_TIMEOUT(huge, foreign_table, TEST_SECONDS)
{
	struct mmops_walk arg;
	int go[2], pidfd;
	char *map, byte;
	size_t i;
	pid_t pid;

	if (write_file(SHMEM_ENABLED, "advise"))
		SKIP(return, "cannot set " SHMEM_ENABLED);
	map = map_huge_shared(new_memfd(PMD_PAGES), 1);
	if (!map)
		SKIP(return, "no huge pages of shared memory");
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, go));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* Maps it, and stays until the other end is closed. */
		byte = load(map, 0);
		close(go[1]);
		if (write(go[0], &byte, 1) == 1)
			byte = read(go[0], &byte, 1);
		_exit(0);
	}
	close(go[0]);
	ASSERT_EQ(1, read(go[1], &byte, 1));
	pidfd = syscall(__NR_pidfd_open, pid, 0);
	ASSERT_LE(0, pidfd);

	arg = (struct mmops_walk){
		.op = MMOPS_WALK_FOREIGN_TABLE, .fd = pidfd, .first = (uintptr_t)map, .nr = 1,
	};
	ASSERT_EQ(-EINVAL, walk_arg(self->dev, &arg));
	/* The leaf is as it was, in both. */
	ASSERT_EQ(pmd_size() / 1024, smaps_kb(map, "ShmemPmdMapped"));
	for (i = 0; i < PMD_PAGES; i++) {
		ASSERT_EQ(1 + i, load(map, i));
	}
	/* One's own is taken. */
	arg.fd = syscall(__NR_pidfd_open, getpid(), 0);
	ASSERT_EQ(0, walk_arg(self->dev, &arg));
	ASSERT_EQ(0, smaps_kb(map, "ShmemPmdMapped"));
	close(go[1]);
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
}

/* A driver splits by Action::Replace, with tables that it allocated. */
TEST_F_TIMEOUT(huge, split, TEST_SECONDS)
{
	int fd = new_memfd(2 * PMD_PAGES);
	struct mmops_walk arg;
	long faults;
	char *map;
	size_t i;

	if (write_file(SHMEM_ENABLED, "advise"))
		SKIP(return, "cannot set " SHMEM_ENABLED);
	map = map_huge_shared(fd, 2);
	if (!map)
		SKIP(return, "no huge pages of shared memory");

	ASSERT_EQ(0, walk_file(self->dev, MMOPS_WALK_READ_MAPPING, fd, 0, 2 * PMD_PAGES, &arg));
	ASSERT_FOUND(arg, 1, 0, 2, 2 * PMD_PAGES, 2 * PMD_PAGES);
	arg = (struct mmops_walk){
		.op = MMOPS_WALK_PROTECT_MAPPING, .flags = MMOPS_WALK_SPLIT, .fd = fd,
		.nr = 2 * PMD_PAGES,
	};
	ASSERT_EQ(0, walk_arg(self->dev, &arg));
	ASSERT_EQ(2 * PMD_PAGES, arg.changed);
	ASSERT_EQ(0, smaps_kb(map, "ShmemPmdMapped"));
	ASSERT_EQ(0, walk_addr(self->dev, MMOPS_WALK_READ_VMA, map, 2 * PMD_PAGES, &arg));
	ASSERT_FOUND(arg, 1, 2, 0, 2 * PMD_PAGES, 0);
	faults = minor_faults();
	for (i = 0; i < 2 * PMD_PAGES; i++) {
		ASSERT_EQ(1 + i, load(map, i));
	}
	ASSERT_EQ(faults, minor_faults());
	store(map, 3, 4);
	store(map, PMD_PAGES + 9, PMD_PAGES + 10);
	ASSERT_EQ(faults + 2, minor_faults());
}

/*
 * What becomes of a leaf that a driver wants to be split, in each of the two
 * ways, and what the walk visits then.
 */
FIXTURE(leaf)
{
	int dev, mmops, fd;
	char *map;
	size_t pages;
	struct leaves leaves;
};

FIXTURE_VARIANT(leaf)
{
	const char *path;	/* of device-DAX; else it is one of page frames */
	uint32_t order;
	uint32_t flags;
	size_t tables, leaves;	/* that are visited after the leaf */
	bool stays;		/* as it is */
	bool vanishes;		/* comes back by a fault */
};

FIXTURE_VARIANT_ADD(leaf, replace_dax_pmd)
{
	.path = "/dev/dax1.0",
	.order = MMOPS_LEAFMAP_PMD,
	.stays = true,
};

FIXTURE_VARIANT_ADD(leaf, replace_dax_pud)
{
	.path = "/dev/dax0.0",
	.order = MMOPS_LEAFMAP_PUD,
	.vanishes = true,
};

FIXTURE_VARIANT_ADD(leaf, replace_frames_pmd)
{
	.order = MMOPS_LEAFMAP_PMD,
	.tables = 1,
};

FIXTURE_VARIANT_ADD(leaf, replace_frames_pud)
{
	.order = MMOPS_LEAFMAP_PUD,
	.leaves = PMD_PAGES,
};

FIXTURE_VARIANT_ADD(leaf, split_dax_pmd)
{
	.path = "/dev/dax1.0",
	.order = MMOPS_LEAFMAP_PMD,
	.flags = MMOPS_WALK_AS_KERNEL,
	.vanishes = true,
};

FIXTURE_VARIANT_ADD(leaf, split_dax_pud)
{
	.path = "/dev/dax0.0",
	.order = MMOPS_LEAFMAP_PUD,
	.flags = MMOPS_WALK_AS_KERNEL,
	.vanishes = true,
};

FIXTURE_VARIANT_ADD(leaf, split_frames_pmd)
{
	.order = MMOPS_LEAFMAP_PMD,
	.flags = MMOPS_WALK_AS_KERNEL,
	.vanishes = true,
};

FIXTURE_VARIANT_ADD(leaf, split_frames_pud)
{
	.order = MMOPS_LEAFMAP_PUD,
	.flags = MMOPS_WALK_AS_KERNEL,
	.vanishes = true,
};

FIXTURE_SETUP(leaf)
{
	OPEN_DEV(self->dev, WALK_DEV);
	OPEN_DEV(self->mmops, MMOPS_DEV);
	self->pages = 1UL << variant->order;
	if (variant->path) {
		self->fd = open(variant->path, O_RDWR | O_CLOEXEC);
		if (self->fd < 0)
			SKIP(return, "no %s: no legacy persistent memory here", variant->path);
	} else {
		OPEN_LEAFMAP(self->fd);
		ASSERT_EQ(0, leafmap_serve(self->fd, variant->order, 0));
	}
	self->map = map_gib(self->fd, 0, self->pages * page_size(), PROT_READ | PROT_WRITE);
	ASSERT_NE(NULL, self->map);
	store(self->map, 3, 30);
	store(self->map, self->pages - 1, 40);
}

FIXTURE_TEARDOWN(leaf)
{
}

#define ASSERT_LEAVES(nr_, ptes_, pmds_, puds_, writable_) do {				\
	ASSERT_EQ(0, list_leaves(self->mmops, self->map, self->pages * page_size(),	\
				 &self->leaves));					\
	ASSERT_EQ(nr_, self->leaves.nr);						\
	ASSERT_EQ(ptes_, self->leaves.ptes);						\
	ASSERT_EQ(pmds_, self->leaves.pmds);						\
	ASSERT_EQ(puds_, self->leaves.puds);						\
	ASSERT_EQ(writable_, leaves_with(&self->leaves, MMOPS_LEAF_WRITE));		\
} while (0)

TEST_F_TIMEOUT(leaf, ends_as_documented, TEST_SECONDS)
{
	bool is_pud = variant->order == MMOPS_LEAFMAP_PUD;
	size_t below = variant->tables * PMD_PAGES + variant->leaves;
	size_t visits = variant->tables || variant->leaves ? 2 : 1;
	struct mmops_walk arg = {
		.op = MMOPS_WALK_PROTECT_VMA,
		.flags = MMOPS_WALK_SPLIT | variant->flags |
			 (is_pud ? MMOPS_WALK_SPLIT_PUD : MMOPS_WALK_SPLIT_ALL),
		.first = (uintptr_t)self->map, .nr = self->pages,
	};
	long faults;

	ASSERT_LEAVES(1, 0, !is_pud, is_pud, 1);
	ASSERT_EQ(0, walk_arg(self->dev, &arg));
	ASSERT_FOUND(arg, 1, variant->tables, 1 + variant->leaves, visits * self->pages,
		     visits * self->pages);
	ASSERT_EQ(visits == 2 ? self->pages : 0, arg.changed);
	ASSERT_EQ(!variant->stays, arg.split);
	if (variant->stays) {
		ASSERT_LEAVES(1, 0, !is_pud, is_pud, 1);
		faults = minor_faults();
		store(self->map, 3, 30);
		ASSERT_EQ(faults, minor_faults());
	} else if (variant->vanishes) {
		ASSERT_LEAVES(0, 0, 0, 0, 0);
		faults = minor_faults();
		ASSERT_EQ(30, load(self->map, 3));
		ASSERT_EQ(faults + 1, minor_faults());
		ASSERT_LEAVES(1, 0, !is_pud, is_pud, 1);
	} else {
		ASSERT_LEAVES(below, is_pud ? 0 : below, is_pud ? below : 0, 0, 0);
		faults = minor_faults();
		ASSERT_EQ(30, load(self->map, 3));
		ASSERT_EQ(faults, minor_faults());
	}
	ASSERT_EQ(40, load(self->map, self->pages - 1));
	store(self->map, 4, 50);
	ASSERT_EQ(50, load(self->map, 4));
	ASSERT_EQ(30, load(self->map, 3));
}

TEST_F_TIMEOUT(huge, unknown, TEST_SECONDS)
{
	struct mmops_walk arg = { .op = MMOPS_WALK_TAKE_DIRTY + 1 };

	ASSERT_EQ(-EINVAL, walk_arg(self->dev, &arg));
	ASSERT_EQ(-1, ioctl(self->dev, _IOWR(0xBC, 0x01, struct mmops_walk), &arg));
	ASSERT_EQ(ENOTTY, errno);
}

TEST_HARNESS_MAIN
