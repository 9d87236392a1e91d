// SPDX-License-Identifier: GPL-2.0
/*
 * What a driver is told about an address space: the sequence of events for each
 * way in which mappings change, the collision of a lookup with an invalidation,
 * and subscriptions that end before, after and while an address space does.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "exclusive.h"
#include "leaves.h"
#include "mmops_ref.h"
#include "notifier.h"
#include "kselftest_harness.h"

#define PAGES	16UL


/* All of a huge page, in pages. */
#define HUGE	"0-512"

FIXTURE(notifier)
{
	int dev;
	char *map;	/* PAGES of private memory, touched, as the only thing in a page table */
	struct heard heard;
};

FIXTURE_SETUP(notifier)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	self->map = reserve(4 * PMD_PAGES, 0);
	ASSERT_NE(self->map, NULL);
	ASSERT_EQ(0, mprotect(self->map, PAGES * page_size(), PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_NOHUGEPAGE));
	store_range(self->map, 0, PAGES, 1);
}

FIXTURE_TEARDOWN(notifier)
{
}

#define SUBSCRIBE(pages)							\
	ASSERT_EQ(0, subscribe(self->dev, self->map, pages, 0))

/* What was heard since the last time is @wanted. */
#define EXPECT_HEARD(wanted) do {						\
	ASSERT_LE(0, hear(self->dev, self->map, &self->heard, 0));		\
	EXPECT_STREQ(wanted, self->heard.text);					\
	EXPECT_EQ(0, self->heard.lost);						\
} while (0)

static char *page(FIXTURE_DATA(notifier) *self, size_t n)
{
	return self->map + n * page_size();
}

/* A huge page at the beginning of the map, or false where there is none to be had. */
static bool make_huge(FIXTURE_DATA(notifier) *self)
{
	if (munmap(self->map, pmd_size()))
		return false;
	if (mmap(self->map, pmd_size(), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != self->map)
		return false;
	madvise(self->map, pmd_size(), MADV_HUGEPAGE);
	store(self->map, 0, 1);
	return smaps_kb(self->map, "AnonHugePages") == (long)(pmd_size() / 1024);
}

TEST_F_TIMEOUT(notifier, munmap, TEST_SECONDS)
{
	SUBSCRIBE(PAGES);
	ASSERT_EQ(0, munmap(page(self, 2), 3 * page_size()));
	EXPECT_HEARD("unmap 2-5");
	/* What reaches beyond the subscription is told as far as it lies inside. */
	ASSERT_EQ(0, munmap(page(self, 14), 100 * page_size()));
	EXPECT_HEARD("unmap 14-16");
	/* What lies outside is not told. */
	ASSERT_EQ(0, munmap(page(self, PAGES + 200), 3 * page_size()));
	EXPECT_HEARD("");
}

TEST_F_TIMEOUT(notifier, mprotect, TEST_SECONDS)
{
	SUBSCRIBE(PAGES);
	ASSERT_EQ(0, mprotect(page(self, 1), 4 * page_size(), PROT_READ));
	EXPECT_HEARD("protection-vma 1-5");
	ASSERT_EQ(0, mprotect(page(self, 1), 4 * page_size(), PROT_READ | PROT_WRITE));
	EXPECT_HEARD("protection-vma 1-5");
}

TEST_F_TIMEOUT(notifier, mremap, TEST_SECONDS)
{
	char *to = page(self, 2 * PMD_PAGES);

	SUBSCRIBE(PAGES);
	ASSERT_EQ(to, mremap(page(self, 4), 4 * page_size(), 4 * page_size(),
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(5, load(to, 0));
	EXPECT_HEARD("unmap 4-8, unmap 4-8");
	/* Shrinking takes the tail. */
	ASSERT_EQ(self->map, mremap(self->map, 4 * page_size(), 2 * page_size(), 0));
	EXPECT_HEARD("unmap 2-4");
}

TEST_F_TIMEOUT(notifier, fork_and_cow, TEST_SECONDS)
{
	pid_t pid;
	int status;

	/*
	 * A page in another CPU's batch for the LRU has a reference more, for which
	 * do_wp_page() copies it even when nobody shares it: it drains its own only.
	 */
	ASSERT_EQ(0, pin_to_cpu(0));
	ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_DONTNEED));
	store_range(self->map, 0, PAGES, 1);
	SUBSCRIBE(PAGES);
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid)
		_exit(pause());
	/* The parent's pages become read-only. */
	EXPECT_HEARD("protection-page 0-16");
	store(self->map, 3, 1000);
	/* The parent gets a page of its own. */
	EXPECT_HEARD("clear 3-4");
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	/* The page is not shared any more: it is made writable in place. */
	store(self->map, 4, 1000);
	EXPECT_HEARD("");
}

TEST_F_TIMEOUT(notifier, madvise, TEST_SECONDS)
{
	SUBSCRIBE(PAGES);
	ASSERT_EQ(0, madvise(page(self, 0), 4 * page_size(), MADV_DONTNEED));
	EXPECT_HEARD("clear 0-4");
	ASSERT_EQ(0, madvise(page(self, 4), 2 * page_size(), MADV_FREE));
	EXPECT_HEARD("clear 4-6");
	ASSERT_EQ(0, madvise(page(self, 6), page_size(), MADV_COLD));
	EXPECT_HEARD("");
	/* A page that comes is no news: it replaces nothing. */
	store(self->map, 0, 5);
	EXPECT_HEARD("");
}

TEST_F_TIMEOUT(notifier, soft_dirty, TEST_SECONDS)
{
	SUBSCRIBE(PAGES);
	ASSERT_EQ(0, write_file("/proc/self/clear_refs", "4"));
	EXPECT_HEARD("soft-dirty 0-16");
}

TEST_F_TIMEOUT(notifier, thp_split, TEST_SECONDS)
{
	if (!make_huge(self))
		SKIP(return, "no huge page to be had");
	SUBSCRIBE(PMD_PAGES);
	/* A part goes: the leaf is split, then the part is zapped. */
	ASSERT_EQ(0, madvise(page(self, 8), 8 * page_size(), MADV_DONTNEED));
	EXPECT_EQ(0, smaps_kb(self->map, "AnonHugePages"));
	EXPECT_HEARD("clear 8-16, clear " HUGE);
}

TEST_F_TIMEOUT(notifier, thp_collapse, TEST_SECONDS)
{
	if (!make_huge(self))
		SKIP(return, "no huge page to be had");
	ASSERT_EQ(0, madvise(page(self, 8), 8 * page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, smaps_kb(self->map, "AnonHugePages"));
	store_range(self->map, 0, PMD_PAGES, 1);
	SUBSCRIBE(PMD_PAGES);
	ASSERT_EQ(0, collapse_range(self->map, pmd_size()));
	EXPECT_EQ((long)(pmd_size() / 1024), smaps_kb(self->map, "AnonHugePages"));
	EXPECT_HEARD("clear " HUGE);
}

/* A page that is taken out of use is migrated first. */
TEST_F_TIMEOUT(notifier, migration, TEST_SECONDS)
{
	uint64_t pfn = pagemap_entry(page(self, 3)) & PAGEMAP_PFN;

	ASSERT_NE(0, pfn);
	SUBSCRIBE(PAGES);
	if (madvise(page(self, 3), page_size(), MADV_SOFT_OFFLINE) && errno == EINVAL)
		SKIP(return, "the kernel is without CONFIG_MEMORY_FAILURE");
	EXPECT_NE(pfn, pagemap_entry(page(self, 3)) & PAGEMAP_PFN);
	EXPECT_EQ(4, load(page(self, 3), 0));
	EXPECT_HEARD("clear 3-4");
}

/*
 * What operations of mmops tell: by the descriptor that is subscribed, so that
 * an event with an owner would be one of its own.
 */
#define RW	(PROT_READ | PROT_WRITE)
/* Where the second VMA of a test lies. */
#define FAR	1000UL

/* A file of PAGES, in two VMAs far apart: 0-8 and FAR to FAR + 8. */
static int map_two(FIXTURE_DATA(notifier) *self)
{
	int fd = new_memfd(PAGES);

	if (fd < 0 || !map_at(page(self, 0), fd, 0, 8, RW, MAP_SHARED) ||
	    !map_at(page(self, FAR), fd, 8, 8, RW, MAP_SHARED))
		return -1;
	madvise(page(self, 0), 8 * page_size(), MADV_NOHUGEPAGE);
	madvise(page(self, FAR), 8 * page_size(), MADV_NOHUGEPAGE);
	store_range(self->map, 0, 8, 1);
	store_range(self->map, FAR, 8, 1);
	return fd;
}

/* Anonymous memory at 0-8, and of a file at 8-16: two VMAs side by side, touched. */
static bool map_adjacent(FIXTURE_DATA(notifier) *self)
{
	int fd = new_memfd(8);

	if (fd < 0 || !map_at(page(self, 8), fd, 0, 8, RW, MAP_SHARED))
		return false;
	close(fd);
	store_range(self->map, 0, PAGES, 1);
	return true;
}

/* As make_huge(), of shared memory; the file, or -1. */
static int make_huge_shared(FIXTURE_DATA(notifier) *self)
{
	int fd = new_memfd(PMD_PAGES);

	if (fd < 0 || !map_at(self->map, fd, 0, PMD_PAGES, RW, MAP_SHARED) ||
	    write_file(SHMEM_ENABLED, "advise"))
		return -1;
	madvise(self->map, pmd_size(), MADV_HUGEPAGE);
	store(self->map, 0, 1);
	write_file(SHMEM_ENABLED, "never");
	return smaps_kb(self->map, "ShmemPmdMapped") == (long)(pmd_size() / 1024) ? fd : -1;
}

#define SUBSCRIBE_ALL()		SUBSCRIBE(HEARD_PAGES)

TEST_F_TIMEOUT(notifier, own_write_protect, TEST_SECONDS)
{
	int fd = map_two(self);

	ASSERT_LE(0, fd);
	SUBSCRIBE_ALL();
	/* Each VMA for itself, and no more than the range. */
	ASSERT_EQ(8, write_protect(self->dev, fd, 4, 8));
	EXPECT_HEARD("protection-page 4-8, protection-page 1000-1004");
	/* What has nothing to change finds that out after it has told. */
	ASSERT_EQ(0, write_protect(self->dev, fd, 4, 4));
	EXPECT_HEARD("protection-page 4-8");
	/* Private mappings are none of its business. */
	ASSERT_NE(map_at(page(self, FAR), fd, 8, 8, RW, MAP_PRIVATE), NULL);
	EXPECT_HEARD("unmap 1000-1008");
	ASSERT_EQ(4, write_protect(self->dev, fd, 0, PAGES));
	EXPECT_HEARD("protection-page 0-8");
}

/*
 * A range that ends in the 1 GiB that it begins in is not searched for entries
 * before it is walked, so it is told of though there are none.
 */
TEST_F_TIMEOUT(notifier, own_write_protect_of_nothing, TEST_SECONDS)
{
	const size_t piece = 1UL << 18;
	int fd = new_memfd(piece + 8);

	ASSERT_LE(0, fd);
	ASSERT_NE(map_at(page(self, 0), fd, 0, 8, RW, MAP_SHARED), NULL);
	ASSERT_NE(map_at(page(self, FAR), fd, piece, 8, RW, MAP_SHARED), NULL);
	SUBSCRIBE_ALL();
	ASSERT_EQ(0, write_protect(self->dev, fd, 2, 4));
	EXPECT_HEARD("protection-page 2-6");
	ASSERT_EQ(0, write_protect(self->dev, fd, 0, piece + 8));
	EXPECT_HEARD("");
	/* What comes behind a piece with an entry is all that is left. */
	EXPECT_EQ(0, load(self->map, 3));
	EXPECT_HEARD("");
	ASSERT_EQ(1, write_protect(self->dev, fd, 0, piece + 8));
	EXPECT_HEARD("protection-page 0-8, protection-page 1000-1008");
}

TEST_F_TIMEOUT(notifier, own_clean_record, TEST_SECONDS)
{
	struct harvest h = new_harvest(PAGES);
	int fd = map_two(self);

	ASSERT_LE(0, fd);
	SUBSCRIBE_ALL();
	ASSERT_EQ(7, clean_record(self->dev, fd, 6, 7, &h));
	EXPECT_HEARD("protection-page 6-8, protection-page 1000-1005");
	ASSERT_EQ(2, clean_record(self->dev, fd, 4, 3, &h));
	EXPECT_HEARD("protection-page 4-7");
	free(h.bitmap);
}

TEST_F_TIMEOUT(notifier, own_zap, TEST_SECONDS)
{
	ASSERT_TRUE(map_adjacent(self));
	SUBSCRIBE_ALL();
	ASSERT_EQ(7, zap(self->dev, page(self, 5), 7));
	EXPECT_HEARD("clear 5-8, clear 8-12");
	ASSERT_EQ(0, zap(self->dev, page(self, 5), 1));
	EXPECT_HEARD("clear 5-6");
	/* Refused for a hole, so nothing is going to change. */
	ASSERT_EQ(0, munmap(page(self, 20), page_size()));
	EXPECT_HEARD("unmap 20-21");
	ASSERT_EQ(-ENOMEM, zap(self->dev, page(self, 5), 20));
	EXPECT_HEARD("");
}

/* One event for all VMAs, as it is one flush. */
TEST_F_TIMEOUT(notifier, own_soft_dirty_clear, TEST_SECONDS)
{
	if (soft_dirty_clear(self->dev, self->map, 1) == -EOPNOTSUPP)
		SKIP(return, "the kernel has no soft-dirty bits");
	ASSERT_TRUE(map_adjacent(self));
	SUBSCRIBE_ALL();
	ASSERT_LE(0, soft_dirty_clear_all(self->dev));
	EXPECT_HEARD("soft-dirty 0-2048");
	store_range(self->map, 0, PAGES, 2);
	ASSERT_EQ(7, soft_dirty_clear(self->dev, page(self, 5), 7));
	EXPECT_HEARD("soft-dirty 5-12");
	/* Of a new VMA, the rest is marked first. What mmap() tells is not of interest here. */
	ASSERT_NE(map_at(page(self, FAR), -1, 0, 8, RW, MAP_PRIVATE | MAP_ANONYMOUS), NULL);
	store_range(self->map, FAR, 8, 1);
	ASSERT_LE(0, hear(self->dev, self->map, &self->heard, 0));
	ASSERT_EQ(3, soft_dirty_clear(self->dev, page(self, FAR + 2), 3));
	EXPECT_HEARD("soft-dirty 1000-1002, soft-dirty 1005-1008, soft-dirty 1002-1005");
}

TEST_F_TIMEOUT(notifier, own_protect, TEST_SECONDS)
{
	ASSERT_TRUE(map_adjacent(self));
	SUBSCRIBE_ALL();
	ASSERT_EQ(0, protect(self->dev, page(self, 5), 7 * page_size(), PROT_READ));
	EXPECT_HEARD("protection-page 5-12");
	ASSERT_EQ(0, protect(self->dev, page(self, 5), 7 * page_size(), RW));
	EXPECT_HEARD("protection-page 5-12");
	/* More than the VMA allows: nothing is going to change. */
	ASSERT_EQ(-EACCES, protect(self->dev, page(self, 5), page_size(), RW | PROT_EXEC));
	EXPECT_HEARD("");
}

/* Who only looks tells nothing. */
TEST_F_TIMEOUT(notifier, own_leaves, TEST_SECONDS)
{
	struct leaf_counts counts;

	SUBSCRIBE_ALL();
	ASSERT_EQ(0, count_leaves(self->dev, self->map, PAGES * page_size(), &counts));
	EXPECT_EQ(PAGES, counts.pte.nr);
	EXPECT_HEARD("");
}

TEST_F_TIMEOUT(notifier, own_exclusive, TEST_SECONDS)
{
	SUBSCRIBE_ALL();
	ASSERT_EQ(7, exclusive(self->dev, page(self, 2), 7));
	EXPECT_HEARD("exclusive 2-9 own");
	ASSERT_EQ(7, give_back(self->dev, page(self, 2), 7));
	EXPECT_HEARD("clear 2-9");
}

/*
 * A part of a huge leaf. The range is told, and with it all of the leaf where
 * that may be changed as a whole. A split is one more event, of all of the leaf.
 */
TEST_F_TIMEOUT(notifier, own_part_of_anon_leaf, TEST_SECONDS)
{
	if (!make_huge(self))
		SKIP(return, "no huge page to be had");
	SUBSCRIBE_ALL();
	ASSERT_EQ(0, protect(self->dev, page(self, 8), 8 * page_size(), PROT_READ));
	EXPECT_EQ(0, smaps_kb(self->map, "AnonHugePages"));
	EXPECT_HEARD("protection-page 8-16, protection-page " HUGE ", clear " HUGE);
	/* It is split already. */
	ASSERT_EQ(0, protect(self->dev, page(self, 8), 8 * page_size(), RW));
	EXPECT_HEARD("protection-page 8-16");

	ASSERT_TRUE(make_huge(self));
	ASSERT_LE(0, hear(self->dev, self->map, &self->heard, 0));
	ASSERT_EQ(8, zap(self->dev, page(self, 8), 8));
	EXPECT_HEARD("clear 8-16, clear " HUGE);
}

TEST_F_TIMEOUT(notifier, own_soft_dirty_part_of_anon_leaf, TEST_SECONDS)
{
	if (soft_dirty_clear(self->dev, self->map, 1) == -EOPNOTSUPP)
		SKIP(return, "the kernel has no soft-dirty bits");
	if (!make_huge(self))
		SKIP(return, "no huge page to be had");
	ASSERT_LE(0, soft_dirty_clear_all(self->dev));
	store(self->map, 0, 2);
	SUBSCRIBE_ALL();
	/* The rest of what is split is marked again, and then the range is cleared. */
	ASSERT_EQ(8, soft_dirty_clear(self->dev, page(self, 8), 8));
	EXPECT_EQ(0, smaps_kb(self->map, "AnonHugePages"));
	EXPECT_HEARD("clear " HUGE ", soft-dirty 0-8, soft-dirty 16-512, soft-dirty 8-16");
}

/* Two leaves, each with an end of the range in it: each is told, and split. */
TEST_F_TIMEOUT(notifier, own_parts_of_two_leaves, TEST_SECONDS)
{
	char *map = map_thp(2);

	if (!map)
		SKIP(return, "no huge page to be had");
	self->map = map;
	SUBSCRIBE(2 * PMD_PAGES);
	ASSERT_EQ(0, protect(self->dev, page(self, 500), 20 * page_size(), PROT_READ));
	EXPECT_HEARD("protection-page 500-520, protection-page 0-512, clear 0-512, "
		     "protection-page 512-1024, clear 512-1024");
}

/*
 * Of shared memory: mmops splits in place. The first walk finds that it needs a
 * table, and is begun anew.
 */
TEST_F_TIMEOUT(notifier, own_part_of_shared_leaf, TEST_SECONDS)
{
	struct harvest h = new_harvest(PMD_PAGES);
	int fd = make_huge_shared(self);

	if (fd < 0)
		SKIP(return, "no huge page of shared memory to be had");
	SUBSCRIBE_ALL();
	/* As a whole, unless it is to be split. */
	ASSERT_EQ(8, write_protect(self->dev, fd, 8, 8));
	EXPECT_HEARD("protection-page 8-16, protection-page " HUGE);
	ASSERT_EQ(8, clean_record(self->dev, fd, 8, 8, &h));
	EXPECT_HEARD("protection-page 8-16, protection-page " HUGE);
	ASSERT_EQ((long)(pmd_size() / 1024), smaps_kb(self->map, "ShmemPmdMapped"));
	ASSERT_EQ(8, clean_record_flags(self->dev, fd, 8, 8, &h, MMOPS_SPLIT));
	EXPECT_EQ(0, smaps_kb(self->map, "ShmemPmdMapped"));
	EXPECT_HEARD("protection-page 8-16, protection-page " HUGE ", "
		     "protection-page 8-16, protection-page " HUGE ", clear " HUGE);
	free(h.bitmap);
}

TEST_F_TIMEOUT(notifier, own_protect_part_of_shared_leaf, TEST_SECONDS)
{
	int fd = make_huge_shared(self);

	if (fd < 0)
		SKIP(return, "no huge page of shared memory to be had");
	SUBSCRIBE_ALL();
	ASSERT_EQ(0, protect(self->dev, page(self, 8), 8 * page_size(), PROT_READ));
	EXPECT_EQ(0, smaps_kb(self->map, "ShmemPmdMapped"));
	EXPECT_HEARD("protection-page 8-16, protection-page " HUGE ", "
		     "protection-page 8-16, protection-page " HUGE ", clear " HUGE);
}

/*
 * A child that does as it is told through a pipe: the byte is what to do with
 * @map, which is that of the parent.
 */
struct worker {
	pid_t pid;
	int pidfd;
	int to;
	int from;
};

static void work(char *map, int from, int to)
{
	char op;

	while (read(from, &op, 1) == 1) {
		if (op == 'm')
			munmap(map + page_size(), 2 * page_size());
		else if (op == 'p')
			mprotect(map, 2 * page_size(), PROT_READ);
		else if (op == 'e')
			_exit(0);
		if (write(to, &op, 1) != 1)
			break;
	}
	_exit(1);
}

static bool worker_start(struct worker *w, char *map)
{
	int to[2], from[2];

	if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		return false;
	w->pid = fork();
	if (!w->pid) {
		close(to[1]);
		work(map, to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	w->to = to[1];
	w->from = from[0];
	w->pidfd = syscall(SYS_pidfd_open, w->pid, 0);
	return w->pid > 0 && w->pidfd >= 0;
}

static bool worker_do(struct worker *w, char op)
{
	char done;

	return write(w->to, &op, 1) == 1 && read(w->from, &done, 1) == 1;
}

static bool worker_end(struct worker *w)
{
	int status;

	return write(w->to, "e", 1) == 1 && waitpid(w->pid, &status, 0) == w->pid;
}

/* A range of another process, which ends before the subscription does. */
TEST_F_TIMEOUT(notifier, range_of_another_process, TEST_SECONDS)
{
	struct worker w;

	ASSERT_TRUE(worker_start(&w, self->map));
	ASSERT_EQ(0, subscribe_capacity(self->dev, w.pidfd, self->map, PAGES * page_size(), 0,
					HEARD_EVENTS));
	ASSERT_TRUE(worker_do(&w, 'm'));
	EXPECT_HEARD("unmap 1-3");
	/* Not what the parent does. */
	ASSERT_EQ(0, munmap(self->map, page_size()));
	EXPECT_HEARD("");
	ASSERT_TRUE(worker_end(&w));
	ASSERT_LE(0, hear(self->dev, self->map, &self->heard, MMOPS_NOTIFIER_WAIT));
	/* All that is still mapped goes after that; it may have been told as well by now. */
	EXPECT_EQ(0, strncmp(self->heard.text, "release 0-16", strlen("release 0-16")));
	EXPECT_TRUE(self->heard.released);
	/* Nothing to wait for. */
	ASSERT_LE(0, hear(self->dev, self->map, &self->heard, MMOPS_NOTIFIER_WAIT));
	EXPECT_TRUE(self->heard.released);
}

/* Whole address space: every start has its end, and the end of all is told. */
TEST_F_TIMEOUT(notifier, address_space, TEST_SECONDS)
{
	unsigned int i, starts = 0, ends = 0, released = 0;
	struct worker w;

	ASSERT_TRUE(worker_start(&w, self->map));
	ASSERT_EQ(0, subscribe_capacity(self->dev, w.pidfd, NULL, 0, MMOPS_NOTIFIER_MM,
					HEARD_EVENTS));
	ASSERT_TRUE(worker_do(&w, 'm'));
	EXPECT_HEARD("unmap 1-3, unmap 1-3 end");
	ASSERT_TRUE(worker_do(&w, 'p'));
	/* The range has a hole by now, and mprotect() stops there. */
	EXPECT_HEARD("protection-vma 0-1, protection-vma 0-1 end");
	ASSERT_TRUE(worker_end(&w));
	do {
		ASSERT_LE(0, hear(self->dev, self->map, &self->heard, MMOPS_NOTIFIER_WAIT));
		EXPECT_EQ(0, self->heard.lost);
		for (i = 0; i < self->heard.nr; i++) {
			const struct mmops_notifier_event *e = &self->heard.events[i];

			if (e->event == MMOPS_EVENT_RELEASE)
				released++;
			else if (e->flags & MMOPS_NOTIFIER_END)
				ends++;
			else
				starts++;
		}
	} while (!self->heard.released);
	EXPECT_EQ(1, released);
	/* Nothing is told after the release, and what was told before is in pairs. */
	EXPECT_EQ(starts, ends);
}

/* The subscription ends first, and the process goes on. */
TEST_F_TIMEOUT(notifier, closed_before_the_end, TEST_SECONDS)
{
	uint32_t flags[] = { 0, MMOPS_NOTIFIER_MM };
	size_t i;

	for (i = 0; i < 2; i++) {
		size_t len = flags[i] ? 0 : PAGES * page_size();
		struct worker w;
		int dev;

		ASSERT_TRUE(worker_start(&w, self->map));
		OPEN_DEV(dev, MMOPS_DEV);
		ASSERT_EQ(0, subscribe_capacity(dev, w.pidfd, flags[i] ? NULL : self->map, len,
						flags[i], 4));
		ASSERT_TRUE(worker_do(&w, 'm'));
		ASSERT_EQ(0, close(dev));
		ASSERT_TRUE(worker_do(&w, 'p'));
		ASSERT_TRUE(worker_end(&w));
	}
}

/* Killed in the middle, with a subscriber that reads and one that does not. */
TEST_F_TIMEOUT(notifier, killed_while_busy, TEST_SECONDS)
{
	unsigned int round;

	for (round = 0; round < rounds(20); round++) {
		int dev[2], status;
		pid_t pid = fork();
		int pidfd;

		ASSERT_GE(pid, 0);
		if (!pid) {
			for (;;) {
				madvise(self->map, PAGES * page_size(), MADV_DONTNEED);
				store_range(self->map, 0, PAGES, 1);
			}
		}
		pidfd = syscall(SYS_pidfd_open, pid, 0);
		ASSERT_GE(pidfd, 0);
		OPEN_DEV(dev[0], MMOPS_DEV);
		OPEN_DEV(dev[1], MMOPS_DEV);
		ASSERT_EQ(0, subscribe_capacity(dev[0], pidfd, NULL, 0, MMOPS_NOTIFIER_MM, 8));
		ASSERT_EQ(0, subscribe_capacity(dev[1], pidfd, self->map, PAGES * page_size(), 0,
						8));
		ASSERT_LE(0, hear(dev[1], self->map, &self->heard, MMOPS_NOTIFIER_WAIT));
		kill(pid, SIGKILL);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		if (round % 2) {
			do {
				ASSERT_LE(0, hear(dev[0], self->map, &self->heard,
						  MMOPS_NOTIFIER_WAIT));
			} while (!self->heard.released);
		}
		close(dev[0]);
		close(dev[1]);
		close(pidfd);
	}
}

/* More events than there is room for: the oldest are kept, the others counted. */
TEST_F_TIMEOUT(notifier, lost_events, TEST_SECONDS)
{
	unsigned int i;

	ASSERT_EQ(0, subscribe_capacity(self->dev, -1, self->map, PAGES * page_size(), 0, 3));
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, madvise(page(self, i), page_size(), MADV_DONTNEED));
	}
	ASSERT_LE(0, hear(self->dev, self->map, &self->heard, 0));
	EXPECT_STREQ("clear 0-1, clear 1-2, clear 2-3", self->heard.text);
	EXPECT_EQ(2, self->heard.lost);
	ASSERT_EQ(0, madvise(page(self, 7), page_size(), MADV_DONTNEED));
	EXPECT_HEARD("clear 7-8");
}

struct busy {
	char *map;
	size_t pages;
	atomic_bool stop;
	atomic_ulong rounds;
};

static void *invalidate(void *data)
{
	struct busy *busy = data;

	while (!atomic_load(&busy->stop)) {
		madvise(busy->map, busy->pages * page_size(), MADV_DONTNEED);
		atomic_fetch_add(&busy->rounds, 1);
	}
	return NULL;
}

/* Subscriptions come and go while two threads invalidate all the time. */
TEST_F_TIMEOUT(notifier, removal_while_callbacks_run, TEST_SECONDS)
{
	struct busy busy = { .map = self->map, .pages = PAGES };
	pthread_t threads[2];
	unsigned int i, heard = 0;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, invalidate, &busy));
	}
	for (i = 0; i < rounds(200); i++) {
		uint32_t flags = i % 3 ? 0 : MMOPS_NOTIFIER_MM;
		size_t len = flags ? 0 : PAGES * page_size();
		int dev;

		OPEN_DEV(dev, MMOPS_DEV);
		ASSERT_EQ(0, subscribe_capacity(dev, -1, flags ? NULL : self->map, len, flags,
						16));
		if (i % 8 == 0) {
			ASSERT_LT(0, hear(dev, self->map, &self->heard, MMOPS_NOTIFIER_WAIT));
			heard += self->heard.nr;
		}
		ASSERT_EQ(0, close(dev));
	}
	atomic_store(&busy.stop, true);
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	EXPECT_GT(heard, 0);
	TH_LOG("%u subscriptions, %lu invalidations", rounds(200), atomic_load(&busy.rounds));
}

static int probe(int dev, unsigned int ms, unsigned int *hint)
{
	struct mmops_notifier_probe arg = { .delay_ms = ms };

	if (ioctl(dev, MMOPS_IOC_NOTIFIER_PROBE, &arg))
		return -errno;
	if (hint)
		*hint = arg.hint;
	return arg.collided;
}

/*
 * A lookup is void if its range was invalidated meanwhile, and only then. How many
 * invalidations meet a probe is left to chance, but one that meets it is seen, and
 * one will: the probe is repeated until then.
 */
TEST_F_TIMEOUT(notifier, collision, TEST_SECONDS)
{
	struct busy busy = { .map = self->map, .pages = PAGES };
	unsigned int hint = 0, i;
	pthread_t thread;
	int ret;

	SUBSCRIBE(4);
	EXPECT_EQ(0, probe(self->dev, 0, NULL));
	/* What was before does not count. */
	ASSERT_EQ(0, madvise(self->map, page_size(), MADV_DONTNEED));
	EXPECT_EQ(0, probe(self->dev, 0, NULL));

	ASSERT_EQ(0, pthread_create(&thread, NULL, invalidate, &busy));
	do {
		ret = probe(self->dev, 10, &hint);
		ASSERT_LE(0, ret);
		/* The hint comes before the lock, so it may miss the last ones. */
		ASSERT_LE(hint, ret);
	} while (!ret || !hint);
	atomic_store(&busy.stop, true);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, probe(self->dev, 0, &hint));
	EXPECT_EQ(0, hint);

	/* Next to the range. */
	busy = (struct busy){ .map = page(self, 4), .pages = PAGES - 4 };
	ASSERT_EQ(0, pthread_create(&thread, NULL, invalidate, &busy));
	for (i = 0; i < 20 || atomic_load(&busy.rounds) < 100; i++) {
		ASSERT_EQ(0, probe(self->dev, 10, &hint));
		ASSERT_EQ(0, hint);
	}
	atomic_store(&busy.stop, true);
	pthread_join(thread, NULL);
}

TEST_F_TIMEOUT(notifier, errors, TEST_SECONDS)
{
	struct mmops_notifier_subscribe sub = {
		.pidfd = -1, .addr = (uintptr_t)self->map, .len = page_size(), .capacity = 1,
	};
	struct mmops_notifier_log log = { .events = (uintptr_t)self->heard.events, .nr = 1 };
	size_t len = page_size();
	struct worker w;
	int other, fd;

#define SUB_ERR(err, ...)							\
	EXPECT_EQ(-(err), subscribe_capacity(self->dev, __VA_ARGS__))
	/* No subscription yet. */
	EXPECT_EQ(-ENOENT, hear(self->dev, self->map, &self->heard, 0));
	EXPECT_EQ(-ENOENT, probe(self->dev, 0, NULL));
	SUB_ERR(EINVAL, -1, self->map, len, 0, 0);
	SUB_ERR(EINVAL, -1, self->map, len, 0, MMOPS_NOTIFIER_MAX_EVENTS + 1);
	SUB_ERR(EINVAL, -1, self->map + 1, len, 0, 1);
	SUB_ERR(EINVAL, -1, self->map, len + 1, 0, 1);
	SUB_ERR(EINVAL, -1, self->map, 0, 0, 1);
	SUB_ERR(EINVAL, -1, self->map, -len, 0, 1);
	SUB_ERR(EINVAL, -1, self->map, len, 4, 1);
	SUB_ERR(EINVAL, -1, self->map, 0, MMOPS_NOTIFIER_MM, 1);
	SUB_ERR(EINVAL, -1, NULL, len, MMOPS_NOTIFIER_MM, 1);
	SUB_ERR(EINVAL, -1, NULL, 0, MMOPS_NOTIFIER_MM | MMOPS_NOTIFIER_FILTER, 1);
	SUB_ERR(EBADF, 1000, self->map, len, 0, 1);
	SUB_ERR(EBADF, -2, self->map, len, 0, 1);
	SUB_ERR(EBADF, self->dev, self->map, len, 0, 1);
	sub.reserved0 = 1;
	EXPECT_EQ(-1, ioctl(self->dev, MMOPS_IOC_NOTIFIER_SUBSCRIBE, &sub));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ioctl(self->dev, MMOPS_IOC_NOTIFIER_SUBSCRIBE, NULL));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_TRUE(worker_start(&w, self->map));
	ASSERT_TRUE(worker_end(&w));
	SUB_ERR(ESRCH, w.pidfd, self->map, len, 0, 1);

	SUBSCRIBE(1);
	SUB_ERR(EBUSY, -1, self->map, len, 0, 1);
	EXPECT_EQ(-EINVAL, probe(self->dev, MMOPS_NOTIFIER_MAX_DELAY_MS + 1, NULL));
	ASSERT_EQ(0, madvise(self->map, len, MADV_DONTNEED));
#define LOG_ERR(err) do {							\
	unsigned int _nr = log.nr;						\
										\
	EXPECT_EQ(-1, ioctl(self->dev, MMOPS_IOC_NOTIFIER_LOG, &log));		\
	EXPECT_EQ(err, errno);							\
	EXPECT_EQ(_nr, log.nr);							\
} while (0)
	log.nr = 0;
	LOG_ERR(EINVAL);
	log.nr = MMOPS_NOTIFIER_MAX_EVENTS + 1;
	LOG_ERR(EINVAL);
	log.nr = 1;
	log.events++;
	LOG_ERR(EINVAL);
	log.events = 8;
	LOG_ERR(EFAULT);
	log.nr = 3;
	LOG_ERR(EFAULT);
	log.events = -8ULL;
	log.nr = 1;
	LOG_ERR(EFAULT);
	log.flags = 2;
	LOG_ERR(EINVAL);
	/* All of it without taking what was there. */
	EXPECT_HEARD("clear 0-1");

	/* Of a whole address space there is no lookup. */
	OPEN_DEV(other, MMOPS_DEV);
	ASSERT_EQ(0, subscribe_capacity(other, -1, NULL, 0, MMOPS_NOTIFIER_MM, 1));
	EXPECT_EQ(-ENOENT, probe(other, 0, NULL));

	/* A process that is not the caller's to trace. */
	fd = syscall(SYS_pidfd_open, 1, 0);
	ASSERT_GE(fd, 0);
	w.pid = fork();
	if (!w.pid) {
		int dev = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);

		if (dev < 0 || setresuid(1000, 1000, 1000))
			_exit(1);
		_exit(subscribe_capacity(dev, fd, self->map, len, 0, 1) != -EACCES);
	}
	ASSERT_EQ(w.pid, waitpid(w.pid, &other, 0));
	EXPECT_EQ(0, other);
}

/* An invalidation that must not block, as the OOM reaper's: who would have to sleep refuses. */
TEST_F_TIMEOUT(notifier, nonblocking, TEST_SECONDS)
{
	struct mmops_ref_nonblock arg = {};
	int ref;

	OPEN_DEV(ref, "/dev/mmops_ref");
	SUBSCRIBE(PAGES);
	arg.addr = (uintptr_t)page(self, 2);
	arg.len = 3 * page_size();
	ASSERT_EQ(0, ioctl(ref, MMOPS_REF_IOC_NONBLOCK, &arg));
	EXPECT_EQ(0, arg.refused);
	EXPECT_EQ(1, arg.ran);
	EXPECT_EQ(1, arg.told);
	EXPECT_HEARD("clear 2-5 atomic");
	/* Nothing is done if one refuses, whether others were told or not. */
	arg.locked = 1;
	ASSERT_EQ(0, ioctl(ref, MMOPS_REF_IOC_NONBLOCK, &arg));
	EXPECT_EQ(1, arg.refused);
	EXPECT_EQ(0, arg.ran);
	EXPECT_EQ(0, arg.told);
	ASSERT_GE(hear(self->dev, self->map, &self->heard, 0), 0);
	/* No invalidation was left open, which lookups would wait for. */
	EXPECT_EQ(0, probe(self->dev, 0, NULL));
	ASSERT_EQ(0, madvise(page(self, 1), page_size(), MADV_DONTNEED));
	EXPECT_HEARD("clear 1-2");
	close(ref);
}

static void no_op(int sig)
{
}

/* A wait that a signal ends. */
TEST_F_TIMEOUT(notifier, wait_is_interruptible, TEST_SECONDS)
{
	struct sigaction action = { .sa_handler = no_op };
	/* Again and again: one that comes before the wait ends nothing. */
	struct itimerval timer = { { 0, 20000 }, { 0, 20000 } };
	struct mmops_notifier_log log = {
		.events = (uintptr_t)self->heard.events, .nr = 7, .flags = MMOPS_NOTIFIER_WAIT,
	};

	SUBSCRIBE(PAGES);
	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &timer, NULL));
	EXPECT_EQ(-EINTR, hear(self->dev, self->map, &self->heard, MMOPS_NOTIFIER_WAIT));
	EXPECT_EQ(-1, ioctl(self->dev, MMOPS_IOC_NOTIFIER_LOG, &log));
	EXPECT_EQ(EINTR, errno);
	/* The argument is as it was. */
	EXPECT_EQ(7, log.nr);
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &(struct itimerval){}, NULL));
}

/* When an event was told, counted from the subscription on. */
TEST_F_TIMEOUT(notifier, time, TEST_SECONDS)
{
	const struct mmops_notifier_event *events = self->heard.events;
	uint64_t before, subscribed, first, second, now;

	before = now_ns();
	SUBSCRIBE(PAGES);
	subscribed = now_ns();
	spin_us(100);
	first = now_ns();
	ASSERT_EQ(0, madvise(page(self, 1), page_size(), MADV_DONTNEED));
	second = now_ns();
	ASSERT_EQ(0, madvise(page(self, 2), page_size(), MADV_DONTNEED));
	now = now_ns();
	EXPECT_HEARD("clear 1-2, clear 2-3");
	ASSERT_EQ(2, self->heard.nr);
	ASSERT_LE(first - subscribed, events[0].time);
	ASSERT_LE(events[0].time, second - before);
	ASSERT_LE(second - subscribed, events[1].time);
	ASSERT_LE(events[1].time, now - before);
	ASSERT_LE(events[0].time, events[1].time);
}

/* Until the child waits in an ioctl. */
static bool wait_until_in_ioctl(pid_t pid)
{
	char path[64], line[256];

	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	for (;;) {
		FILE *file = fopen(path, "r");
		bool got = file && fgets(line, sizeof(line), file);

		if (file)
			fclose(file);
		if (!got)
			return false;
		if (atoi(line) == SYS_ioctl)
			return true;
		sched_yield();
	}
}

/* A stop, which runs no handler, does not end a wait; nor does a handler that restarts. */
TEST_F_TIMEOUT(notifier, wait_goes_on_after_a_stop, TEST_SECONDS)
{
	struct sigaction action = { .sa_handler = no_op, .sa_flags = SA_RESTART };
	int status;
	pid_t pid;

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int heard;

		raise(SIGSTOP);
		heard = hear(self->dev, self->map, &self->heard, MMOPS_NOTIFIER_WAIT);
		_exit(heard < 0 ? -heard : heard == 1 ? 0 : 255);
	}
	/* Not before the fork, which would be heard of. */
	ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
	SUBSCRIBE(PAGES);
	ASSERT_EQ(0, kill(pid, SIGCONT));
	ASSERT_TRUE(wait_until_in_ioctl(pid));
	ASSERT_EQ(0, kill(pid, SIGSTOP));
	ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
	ASSERT_TRUE(WIFSTOPPED(status));
	ASSERT_EQ(0, kill(pid, SIGCONT));
	ASSERT_EQ(pid, waitpid(pid, &status, WCONTINUED));
	ASSERT_TRUE(WIFCONTINUED(status));
	ASSERT_TRUE(wait_until_in_ioctl(pid));
	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, pid, NULL, NULL));
	ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, pid, NULL, NULL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSTOPPED(status));
	ASSERT_EQ(0, ptrace(PTRACE_DETACH, pid, NULL, NULL));
	ASSERT_TRUE(wait_until_in_ioctl(pid));
	ASSERT_EQ(0, kill(pid, SIGUSR1));
	ASSERT_EQ(0, madvise(page(self, 1), page_size(), MADV_DONTNEED));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	EXPECT_EQ(0, WEXITSTATUS(status));
}

TEST_HARNESS_MAIN
