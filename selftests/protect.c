// SPDX-License-Identifier: GPL-2.0
/*
 * MMOPS_IOC_PROTECT and MMOPS_IOC_LEAVES on leaves of PTE and PMD size: the
 * protection and the contents of every page, counts of leaves and splits, TLB
 * flushes, and what is refused.
 *
 * The lists of leaves are compared with pagemap and smaps.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <linux/userfaultfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "flushes.h"
#include "leaves.h"
#include "kselftest_harness.h"
#include "swap.h"

#define LEAVES		4UL
#define PAGES		(LEAVES * PMD_PAGES)
#define RW		(PROT_READ | PROT_WRITE)

/* Newer than the headers of some distributions. */
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC	(1 << 15)
#endif

FIXTURE(protect)
{
	int dev, fd;
	bool huge;
	char *map;
	size_t size;
};

FIXTURE_VARIANT(protect)
{
	bool anon, huge;
};

FIXTURE_VARIANT_ADD(protect, anon_pte) { .anon = true };
FIXTURE_VARIANT_ADD(protect, anon_pmd) { .anon = true, .huge = true };
FIXTURE_VARIANT_ADD(protect, shmem_pte) { };
FIXTURE_VARIANT_ADD(protect, shmem_pmd) { .huge = true };

static uint64_t value_of(size_t page)
{
	return page * 7919 + 13;
}

static void fill(char *map, size_t pages)
{
	size_t i;

	for (i = 0; i < pages; i++)
		store(map, i, value_of(i));
}

/* The first page whose contents are not what fill() stored; -1 if none. */
static ssize_t first_wrong(const char *map, size_t pages)
{
	size_t i;

	for (i = 0; i < pages; i++)
		if (load(map, i) != value_of(i))
			return i;
	return -1;
}

FIXTURE_SETUP(protect)
{
	int flags = variant->anon ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	struct leaf_counts counts;

	OPEN_DEV(self->dev, MMOPS_DEV);
	if (!variant->anon && write_file(SHMEM_ENABLED, "advise"))
		SKIP(return, "cannot set " SHMEM_ENABLED);
	self->fd = variant->anon ? -1 : new_memfd(PAGES);
	self->huge = variant->huge;
	self->size = PAGES * page_size();
	self->map = reserve(PAGES, 0);
	ASSERT_NE(self->map, NULL);
	self->map = map_at(self->map, self->fd, 0, PAGES, RW, flags);
	ASSERT_NE(self->map, NULL);
	ASSERT_EQ(0, madvise(self->map, self->size,
			     variant->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE));
	fill(self->map, PAGES);
	ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
	if (variant->huge && counts.pmd.nr != LEAVES)
		SKIP(return, "no huge pages: %zu leaves of PMD size", counts.pmd.nr);
	ASSERT_EQ(variant->huge ? LEAVES : 0, counts.pmd.nr);
	ASSERT_EQ(variant->huge ? 0 : PAGES, counts.pte.nr);
	ASSERT_EQ(counts.pmd.nr + counts.pte.nr, counts.pmd.writable + counts.pte.writable);
}

FIXTURE_TEARDOWN(protect)
{
	if (self->fd >= 0)
		write_file(SHMEM_ENABLED, "never");
}

/*
 * Protect @nr pages from @first on, and look at all of the mapping: those pages
 * and no others have lost their write permission, nothing else is lost, and a
 * store to each page is resolved.
 */
static void protect_part(struct __test_metadata *_metadata, FIXTURE_DATA(protect) *self,
			 size_t first, size_t nr)
{
	size_t last = first + nr, whole = 0, split = 0, leaf, i;
	char *start = self->map + first * page_size();
	struct leaf_counts in, before, behind;
	struct mmops_protect r;

	for (leaf = 0; self->huge && leaf < LEAVES; leaf++) {
		size_t from = max(leaf * PMD_PAGES, first);
		size_t to = min((leaf + 1) * PMD_PAGES, last);

		if (from >= to)
			continue;
		if (to - from == PMD_PAGES)
			whole++;
		else
			split++;
	}

	ASSERT_EQ(0, protect_result(self->dev, start, nr * page_size(), PROT_READ, &r));
	ASSERT_EQ(whole, r.pmds);
	ASSERT_EQ(nr - whole * PMD_PAGES, r.ptes);
	ASSERT_EQ(split, r.split_pmds);
	ASSERT_EQ(0, r.puds + r.split_puds);
	ASSERT_EQ(nr * page_size(), r.done);

	ASSERT_EQ(0, count_leaves(self->dev, start, nr * page_size(), &in));
	ASSERT_EQ(whole, in.pmd.nr);
	ASSERT_EQ(nr - whole * PMD_PAGES, in.pte.nr);
	ASSERT_EQ(0, in.pmd.writable + in.pte.writable);
	/* Each page was stored to. */
	ASSERT_EQ(in.pmd.nr + in.pte.nr, in.pmd.dirty + in.pte.dirty);
	ASSERT_EQ(in.pmd.nr + in.pte.nr, in.pmd.young + in.pte.young);
	ASSERT_EQ(in.pmd.nr + in.pte.nr, in.pmd.soft_dirty + in.pte.soft_dirty);
	ASSERT_EQ(0, in.pmd.unreadable + in.pte.unreadable);
	if (first) {
		ASSERT_EQ(0, count_leaves(self->dev, self->map, first * page_size(), &before));
		ASSERT_EQ(before.pmd.nr + before.pte.nr,
			  before.pmd.writable + before.pte.writable);
		ASSERT_EQ(first, before.pmd.nr * PMD_PAGES + before.pte.nr);
	}
	if (last < PAGES) {
		ASSERT_EQ(0, count_leaves(self->dev, self->map + last * page_size(),
					  (PAGES - last) * page_size(), &behind));
		ASSERT_EQ(behind.pmd.nr + behind.pte.nr,
			  behind.pmd.writable + behind.pte.writable);
		ASSERT_EQ(PAGES - last, behind.pmd.nr * PMD_PAGES + behind.pte.nr);
		ASSERT_EQ(behind.pmd.nr + behind.pte.nr, behind.pmd.dirty + behind.pte.dirty);
	}
	ASSERT_EQ(-1, first_wrong(self->map, PAGES));

	/* Again: there is nothing left to change. */
	ASSERT_EQ(0, protect_result(self->dev, start, nr * page_size(), PROT_READ, &r));
	ASSERT_EQ(0, r.ptes + r.pmds + r.split_pmds);

	/* A store to a protected page is resolved as the VMA says. */
	for (i = 0; i < PAGES; i++)
		store(self->map, i, value_of(i) + 1);
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(value_of(i) + 1, load(self->map, i));
	}
	ASSERT_EQ(0, count_leaves(self->dev, start, nr * page_size(), &in));
	ASSERT_EQ(in.pmd.nr + in.pte.nr, in.pmd.writable + in.pte.writable);
}

TEST_F_TIMEOUT(protect, whole, TEST_SECONDS)
{
	protect_part(_metadata, self, 0, PAGES);
}

TEST_F_TIMEOUT(protect, first_page, TEST_SECONDS)
{
	protect_part(_metadata, self, 0, 1);
}

TEST_F_TIMEOUT(protect, last_page, TEST_SECONDS)
{
	protect_part(_metadata, self, PAGES - 1, 1);
}

TEST_F_TIMEOUT(protect, middle_leaf, TEST_SECONDS)
{
	protect_part(_metadata, self, PMD_PAGES, PMD_PAGES);
}

TEST_F_TIMEOUT(protect, inside_leaf, TEST_SECONDS)
{
	protect_part(_metadata, self, PMD_PAGES + 100, 300);
}

TEST_F_TIMEOUT(protect, crossing_two_leaves, TEST_SECONDS)
{
	protect_part(_metadata, self, PMD_PAGES - 3, 10);
}

TEST_F_TIMEOUT(protect, all_but_ends, TEST_SECONDS)
{
	protect_part(_metadata, self, 1, PAGES - 2);
}

/* Write permission that was taken is given back, without a fault. */
TEST_F_TIMEOUT(protect, given_back, TEST_SECONDS)
{
	size_t leaves = self->huge ? LEAVES : PAGES;
	struct leaf_counts counts;
	struct mmops_protect r;
	long faults;

	ASSERT_EQ(0, protect(self->dev, self->map, self->size, PROT_READ));
	ASSERT_EQ(0, protect_result(self->dev, self->map, self->size, RW, &r));
	ASSERT_EQ(leaves, r.ptes + r.pmds);
	ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
	ASSERT_EQ(leaves, counts.pte.writable + counts.pmd.writable);
	faults = minor_faults();
	fill(self->map, PAGES);
	ASSERT_EQ(faults, minor_faults());
}

/* Nothing at all: each access is resolved, and the contents are there. */
TEST_F_TIMEOUT(protect, none, TEST_SECONDS)
{
	size_t leaves = self->huge ? LEAVES : PAGES;
	struct leaf_counts counts;
	struct mmops_protect r;

	ASSERT_EQ(0, protect_result(self->dev, self->map, self->size, PROT_NONE, &r));
	ASSERT_EQ(leaves, r.ptes + r.pmds);
	ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
	ASSERT_EQ(leaves, counts.pte.unreadable + counts.pmd.unreadable);
	ASSERT_EQ(leaves, counts.pte.dirty + counts.pmd.dirty);
	ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
	ASSERT_EQ(leaves, counts.pte.unreadable + counts.pmd.unreadable);
	ASSERT_EQ(-1, first_wrong(self->map, PAGES));
	ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
	ASSERT_EQ(0, counts.pte.unreadable + counts.pmd.unreadable);
	fill(self->map, PAGES);

	/* And back without an access. */
	ASSERT_EQ(0, protect(self->dev, self->map, self->size, PROT_NONE));
	ASSERT_EQ(0, protect(self->dev, self->map, self->size, RW));
	ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
	ASSERT_EQ(leaves, counts.pte.writable + counts.pmd.writable);
	ASSERT_EQ(-1, first_wrong(self->map, PAGES));
}

/*
 * A page that has to be copied for a store is not given back: the fault copies
 * it. A shared one needs no copy, and the other process sees the store.
 */
TEST_F_TIMEOUT(protect, copy_on_write, TEST_SECONDS)
{
	struct leaf_counts counts;
	int to[2], status;
	char c = 0;
	pid_t pid;

	ASSERT_EQ(0, pipe(to));
	pid = fork();
	ASSERT_GE(pid, 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (read(to[0], &c, 1) != 1)
			_exit(2);
		_exit(first_wrong(self->map, PAGES) == -1 ? 0 : 1);
	}
	ASSERT_EQ(0, protect(self->dev, self->map, self->size, PROT_READ));
	ASSERT_EQ(0, protect(self->dev, self->map, self->size, RW));
	ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
	if (variant->anon) {
		ASSERT_EQ(0, counts.pte.writable + counts.pmd.writable);
	}
	store_range(self->map, 0, PAGES, 99);
	ASSERT_EQ(1, write(to[1], &c, 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	ASSERT_EQ(variant->anon ? 0 : 1, WEXITSTATUS(status));
}

/* What userfaultfd write-protects stays so, and soft-dirty keeps counting. */
TEST_F_TIMEOUT(protect, soft_dirty, TEST_SECONDS)
{
	size_t leaves = self->huge ? LEAVES : PAGES;
	struct leaf_counts counts;

	ASSERT_EQ(0, write_file("/proc/self/clear_refs", "4"));
	ASSERT_EQ(0, protect(self->dev, self->map, self->size, PROT_READ));
	ASSERT_EQ(0, protect(self->dev, self->map, self->size, RW));
	ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
	ASSERT_EQ(0, counts.pte.soft_dirty + counts.pmd.soft_dirty);
	/* A store has to fault, or it would not be noted. */
	ASSERT_EQ(0, counts.pte.writable + counts.pmd.writable);
	ASSERT_EQ(leaves, counts.pte.nr + counts.pmd.nr);
	store(self->map, 5, 5);
	ASSERT_TRUE(pagemap_entry(self->map + 5 * page_size()) & PAGEMAP_SOFT_DIRTY);
}

TEST_F_TIMEOUT(protect, userfaultfd_wp, TEST_SECONDS)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC };
	struct uffdio_register reg = {
		.range = { (uintptr_t)self->map, self->size },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)self->map, self->size },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	struct leaf_counts counts, again;
	int uffd;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd with asynchronous write-protection");
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	load_range(self->map, 0, PAGES);
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
	load_range(self->map, 0, PAGES);
	ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
	ASSERT_EQ(counts.pte.nr + counts.pmd.nr, counts.pte.uffd + counts.pmd.uffd);
	ASSERT_GT(counts.pte.nr + counts.pmd.nr, 0);

	ASSERT_EQ(0, protect(self->dev, self->map, self->size, PROT_READ));
	ASSERT_EQ(0, protect(self->dev, self->map, self->size, RW));
	ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &again));
	ASSERT_EQ(counts.pte.nr, again.pte.uffd);
	ASSERT_EQ(counts.pmd.nr, again.pmd.uffd);
	ASSERT_EQ(0, again.pte.writable + again.pmd.writable);

	/* The store takes the bit of its page away, as it would have. */
	store(self->map, 7, 7);
	ASSERT_FALSE(pagemap_entry(self->map + 7 * page_size()) & PAGEMAP_UFFD_WP);
	ASSERT_TRUE(pagemap_entry(self->map + 8 * page_size()) & PAGEMAP_UFFD_WP);
	close(uffd);
}

/* The least number of remote flushes that @prot of all pages took in some rounds. */
static uint64_t flushes_of(FIXTURE_DATA(protect) *self, bool mprotects, uint64_t *one, int prot)
{
	uint64_t best = ~0ULL, flushes, single;
	unsigned int i;

	for (i = 0; i < 8; i++) {
		int before = prot == RW ? PROT_READ : RW;

		if (mprotects)
			mprotect(self->map, self->size, before);
		else
			protect(self->dev, self->map, self->size, before);
		flushes = vmstat("nr_tlb_remote_flush");
		single = vmstat("nr_tlb_local_flush_one");
		if (mprotects)
			mprotect(self->map, self->size, prot);
		else
			protect(self->dev, self->map, self->size, prot);
		*one = vmstat("nr_tlb_local_flush_one") - single;
		flushes = vmstat("nr_tlb_remote_flush") - flushes;
		best = min(best, flushes);
	}
	return best;
}

/*
 * One TLB flush when permissions are taken, none when they are given, also over
 * several mappings.
 */
TEST_F_TIMEOUT(protect, one_flush, TEST_SECONDS)
{
	struct spinner spinner = { .map = self->map };
	uint64_t down, up, mdown, mup, one;

	if (nr_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	ASSERT_EQ(0, madvise(self->map + self->size / 2, self->size / 2, MADV_DONTFORK));
	ASSERT_EQ(0, spinner_start(&spinner));
	if (!vmstat("nr_tlb_remote_flush")) {
		spinner_stop(&spinner);
		SKIP(return, "the kernel does not count TLB flushes");
	}
	down = flushes_of(self, false, &one, PROT_READ);
	up = flushes_of(self, false, &one, RW);
	mdown = flushes_of(self, true, &one, PROT_READ);
	mup = flushes_of(self, true, &one, RW);
	spinner_stop(&spinner);
	TH_LOG("flushes down and up: %llu and %llu; mprotect: %llu and %llu",
	       (unsigned long long)down, (unsigned long long)up, (unsigned long long)mdown,
	       (unsigned long long)mup);
	ASSERT_EQ(1, down);
	ASSERT_EQ(0, up);
	ASSERT_GE(mdown, 1);
}

/*
 * A leaf of PMD size costs one entry of a flush, not all of the TLB; as many
 * base pages do.
 */
TEST_F_TIMEOUT(protect, flush_by_size, TEST_SECONDS)
{
	struct spinner spinner = { .map = self->map };
	uint64_t all = ~0ULL, one = ~0ULL;
	unsigned int i;

	if (nr_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	ASSERT_EQ(0, spinner_start(&spinner));
	for (i = 0; i < 8; i++) {
		uint64_t before;

		protect(self->dev, self->map, self->size, RW);
		before = vmstat("nr_tlb_local_flush_one");
		ASSERT_EQ(0, protect(self->dev, self->map, self->size, PROT_READ));
		one = min(one, vmstat("nr_tlb_local_flush_one") - before);
		protect(self->dev, self->map, self->size, RW);
		before = vmstat("nr_tlb_local_flush_all") +
			 vmstat("nr_tlb_remote_flush_received");
		ASSERT_EQ(0, protect(self->dev, self->map, self->size, PROT_READ));
		all = min(all, vmstat("nr_tlb_local_flush_all") +
			       vmstat("nr_tlb_remote_flush_received") - before);
	}
	spinner_stop(&spinner);
	if (!vmstat("nr_tlb_remote_flush"))
		SKIP(return, "the kernel does not count TLB flushes");
	TH_LOG("%llu single entries", (unsigned long long)one);
	if (!self->huge) {
		ASSERT_GE(all, 1);
		return;
	}
	/* One entry for each leaf, on this CPU and on the other. */
	ASSERT_GE(one, LEAVES);
	ASSERT_LE(one, 2 * LEAVES);
}

/* Mappings of several kinds side by side, with pages that are not there. */
TEST_F_TIMEOUT(protect, mixed, TEST_SECONDS)
{
	struct leaf_counts counts;
	struct mmops_protect r;
	char *map = self->map;
	size_t p = page_size();

	/* pages: leaf 0 as it was; leaf 1 anonymous, each second page; leaf 2 read-only */
	ASSERT_NE(NULL, map_at(map + PMD_PAGES * p, -1, 0, PMD_PAGES, RW,
			       MAP_PRIVATE | MAP_ANONYMOUS));
	ASSERT_EQ(0, madvise(map + PMD_PAGES * p, PMD_PAGES * p, MADV_NOHUGEPAGE));
	for (size_t i = 0; i < PMD_PAGES; i += 2)
		store(map + PMD_PAGES * p, i, value_of(PMD_PAGES + i));
	ASSERT_EQ(0, mprotect(map + 2 * PMD_PAGES * p, PMD_PAGES * p, PROT_READ));
	ASSERT_EQ(0, protect_result(self->dev, map + p, (PAGES - 2) * p, PROT_READ, &r));
	ASSERT_EQ(self->huge ? 2 : 0, r.split_pmds);
	ASSERT_EQ(0, r.pmds);
	ASSERT_EQ(PMD_PAGES / 2 + 2 * (PMD_PAGES - 1), r.ptes);
	ASSERT_EQ(0, count_leaves(self->dev, map + p, (PAGES - 2) * p, &counts));
	ASSERT_EQ(0, counts.pte.writable + counts.pmd.writable);
	ASSERT_EQ(PMD_PAGES / 2, r.ptes - 2 * (PMD_PAGES - 1));
	ASSERT_EQ(0, count_leaves(self->dev, map, p, &counts));
	ASSERT_EQ(1, counts.pte.writable);
	ASSERT_EQ(0, count_leaves(self->dev, map + (PAGES - 1) * p, p, &counts));
	ASSERT_EQ(1, counts.pte.writable);
	ASSERT_EQ(-1, first_wrong(map, PMD_PAGES));
	/* Not above what the third of them allows. */
	ASSERT_EQ(-EACCES, protect(self->dev, map, self->size, RW));
	ASSERT_EQ(0, count_leaves(self->dev, map + p, (PAGES - 2) * p, &counts));
	ASSERT_EQ(0, counts.pte.writable + counts.pmd.writable);
}

/*
 * Leaves, PTE tables and nothing at all next to each other in one PMD table, in
 * every order: the leaves that follow each other are changed under one lock.
 */
TEST_F_TIMEOUT(protect, every_order, TEST_SECONDS)
{
	int flags = variant->anon ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	enum { LEAF, TABLE, NONE, STATES };
	size_t p = page_size(), leaf, i;
	struct leaf_counts counts;
	struct mmops_protect r;
	unsigned int order;

	if (!self->huge)
		return;
	for (order = 0; order < STATES * STATES * STATES * STATES; order++) {
		size_t nr[STATES] = {};
		unsigned int rest;

		ASSERT_NE(NULL, map_at(self->map, self->fd, 0, PAGES, RW, flags));
		ASSERT_EQ(0, madvise(self->map, self->size, MADV_HUGEPAGE));
		for (leaf = 0, rest = order; leaf < LEAVES; leaf++, rest /= STATES) {
			char *start = self->map + leaf * pmd_size();

			nr[rest % STATES]++;
			if (rest % STATES == NONE)
				continue;
			store(start, 0, order);
			if (rest % STATES == TABLE) {
				ASSERT_EQ(0, protect_result(self->dev, start, p, PROT_READ, &r));
				ASSERT_EQ(1, r.split_pmds);
				ASSERT_EQ(0, protect(self->dev, start, p, RW));
			}
		}
		ASSERT_EQ(0, protect_result(self->dev, self->map, self->size, PROT_READ, &r));
		ASSERT_EQ(nr[LEAF], r.pmds) {
			TH_LOG("order %u", order);
		}
		ASSERT_EQ(nr[TABLE] * PMD_PAGES, r.ptes);
		ASSERT_EQ(0, r.split_pmds);
		ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
		ASSERT_EQ(nr[LEAF], counts.pmd.nr);
		ASSERT_EQ(nr[TABLE] * PMD_PAGES, counts.pte.nr);
		ASSERT_EQ(0, counts.pmd.writable + counts.pte.writable);
		/* All but the ends, where a leaf may be cut. */
		ASSERT_EQ(0, protect_result(self->dev, self->map + p, self->size - 2 * p, RW, &r));
		ASSERT_EQ(0, count_leaves(self->dev, self->map + p, self->size - 2 * p, &counts));
		ASSERT_EQ(counts.pmd.nr + counts.pte.nr, counts.pmd.writable + counts.pte.writable);
		ASSERT_EQ(counts.pmd.nr, r.pmds);
		ASSERT_EQ(counts.pte.nr, r.ptes);
		for (i = 0; i < LEAVES; i += LEAVES - 1) {
			char *end = self->map + (i ? PAGES - 1 : 0) * p;

			ASSERT_EQ(0, count_leaves(self->dev, end, p, &counts));
			ASSERT_EQ(0, counts.pmd.writable + counts.pte.writable);
		}
	}
}

/* Nothing changes with a call that is refused. */
TEST_F_TIMEOUT(protect, refused, TEST_SECONDS)
{
	struct mmops_protect arg = { .pidfd = -1, .addr = (uintptr_t)self->map,
				     .len = self->size, .prot = PROT_READ };
	size_t leaves = self->huge ? LEAVES : PAGES, p = page_size();
	struct leaf_counts counts;
	struct mmops_protect bad;

#define REFUSED(error, change) do {						\
	bad = arg;								\
	change;									\
	ASSERT_EQ(-1, ioctl(self->dev, MMOPS_IOC_PROTECT, &bad));		\
	ASSERT_EQ(error, errno);						\
	ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));	\
	ASSERT_EQ(leaves, counts.pte.writable + counts.pmd.writable);		\
} while (0)

	REFUSED(EINVAL, bad.addr += 1);
	REFUSED(EINVAL, bad.len -= 1);
	REFUSED(EINVAL, bad.len = 0);
	REFUSED(EINVAL, bad.len = -p);
	REFUSED(EINVAL, bad.addr = -p; bad.len = 2 * p);
	REFUSED(EINVAL, bad.prot |= 8);
	REFUSED(EINVAL, bad.prot |= PROT_GROWSDOWN);
	REFUSED(EINVAL, bad.flags = 2);
	REFUSED(EINVAL, bad.pad = 1);
	REFUSED(EINVAL, bad.reserved[1] = 1);
	REFUSED(EBADF, bad.pidfd = self->dev);
	REFUSED(EBADF, bad.pidfd = -2);
	REFUSED(EACCES, bad.prot |= PROT_EXEC);
	/* A hole behind the mapping. */
	ASSERT_EQ(0, munmap(self->map + self->size, p));
	REFUSED(ENOMEM, bad.len += p);
	/* Less in a way that no fault resolves. */
	REFUSED(EOPNOTSUPP, bad.prot = PROT_WRITE);
	ASSERT_EQ(0, mprotect(self->map, self->size, RW | PROT_EXEC));
	REFUSED(EOPNOTSUPP, bad.prot = PROT_READ);
	REFUSED(EOPNOTSUPP, bad.prot = RW);
	ASSERT_EQ(0, protect(self->dev, self->map, self->size, PROT_READ | PROT_EXEC));
	ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
	ASSERT_EQ(0, counts.pte.writable + counts.pmd.writable);
	ASSERT_EQ(leaves, counts.pte.executable + counts.pmd.executable);
}

/*
 * The range is looked at first, then the process, then what is mapped: there, the error of
 * the lowest address comes. EINVAL is that of a device-DAX.
 */
TEST(order_of_errors)
{
	enum { NR = 16, NONE = 2, HOLE = 4, NONE_2 = 6, EXEC = 8, HOLE_2 = 10, EXEC_2 = 12,
	       NONE_3 = 14 };
	struct mmops_protect arg = { .prot = PROT_READ };
	struct leaf_counts counts;
	size_t p = page_size();
	char *map;
	int dev;

/* Protect from the page before @first to the one behind @last. */
#define PROTECT(first, last)							\
	protect(dev, map + ((first) - 1) * p, ((last) - (first) + 3) * p, PROT_READ)
	OPEN_DEV(dev, MMOPS_DEV);
	map = mmap(NULL, NR * p, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(map, MAP_FAILED);
	store_range(map, 0, NR, 1);
	ASSERT_EQ(0, munmap(map + HOLE * p, p));
	ASSERT_EQ(0, munmap(map + HOLE_2 * p, p));
	ASSERT_EQ(0, mprotect(map + NONE * p, p, PROT_NONE));
	ASSERT_EQ(0, mprotect(map + NONE_2 * p, p, PROT_NONE));
	ASSERT_EQ(0, mprotect(map + NONE_3 * p, p, PROT_NONE));
	/* PROT_READ takes a permission that no fault gives back. */
	ASSERT_EQ(0, mprotect(map + EXEC * p, p, RW | PROT_EXEC));
	ASSERT_EQ(0, mprotect(map + EXEC_2 * p, p, RW | PROT_EXEC));
	arg.pidfd = dev;
	arg.addr = (uintptr_t)map + 1;
	arg.len = p;
	ASSERT_EQ(-1, ioctl(dev, MMOPS_IOC_PROTECT, &arg));
	ASSERT_EQ(EINVAL, errno);
	arg.addr = (uintptr_t)map + HOLE * p;
	ASSERT_EQ(-1, ioctl(dev, MMOPS_IOC_PROTECT, &arg));
	ASSERT_EQ(EBADF, errno);
	ASSERT_EQ(-EACCES, PROTECT(NONE, HOLE));
	ASSERT_EQ(-ENOMEM, PROTECT(HOLE, NONE_2));
	ASSERT_EQ(-EACCES, PROTECT(NONE_2, EXEC));
	ASSERT_EQ(-EOPNOTSUPP, PROTECT(EXEC, HOLE_2));
	ASSERT_EQ(-ENOMEM, PROTECT(HOLE_2, EXEC_2));
	ASSERT_EQ(-EOPNOTSUPP, PROTECT(EXEC_2, NONE_3));
	ASSERT_EQ(0, count_leaves(dev, map, NR * p, &counts));
	ASSERT_EQ(NR - 2, counts.pte.nr);
	ASSERT_EQ(3, counts.pte.unreadable);
	ASSERT_EQ(NR - 5, counts.pte.writable);
#undef PROTECT
}

/* Another process, by its pidfd, and one that is gone. */
TEST_F_TIMEOUT(protect, other_process, TEST_SECONDS)
{
	struct mmops_protect arg = { .addr = (uintptr_t)self->map, .len = self->size,
				     .prot = PROT_READ };
	struct mmops_leaf *vec = calloc(PAGES, sizeof(*vec));
	struct mmops_leaves list = { .addr = (uintptr_t)self->map, .len = self->size,
				     .vec = (uintptr_t)vec, .vec_len = PAGES };
	size_t leaves = self->huge ? LEAVES : PAGES;
	struct leaf_counts counts;
	int to[2], from[2];
	char c = 0;
	pid_t pid;
	size_t i;

	ASSERT_NE(vec, NULL);
	ASSERT_EQ(0, pipe(to));
	ASSERT_EQ(0, pipe(from));
	pid = fork();
	ASSERT_GE(pid, 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fill(self->map, PAGES);
		if (write(from[1], &c, 1) != 1 || read(to[0], &c, 1) != 1)
			_exit(2);
		_exit(first_wrong(self->map, PAGES) == -1 ? 0 : 1);
	}
	ASSERT_EQ(1, read(from[0], &c, 1));
	/* Only the child's leaves are to be seen writable: the parent's stores are gone. */
	arg.pidfd = list.pidfd = syscall(SYS_pidfd_open, pid, 0);
	ASSERT_GE(arg.pidfd, 0);
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_PROTECT, &arg));
	ASSERT_EQ(self->size, arg.done);
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_LEAVES, &list));
	ASSERT_EQ(list.addr + list.len, list.next);
	for (i = 0; i < list.nr; i++) {
		ASSERT_FALSE(vec[i].state & MMOPS_LEAF_WRITE);
	}
	if (!variant->anon) {
		ASSERT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
		ASSERT_EQ(leaves, counts.pte.writable + counts.pmd.writable);
	}
	ASSERT_EQ(1, write(to[1], &c, 1));
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	ASSERT_EQ(-1, ioctl(self->dev, MMOPS_IOC_PROTECT, &arg));
	ASSERT_EQ(ESRCH, errno);
	ASSERT_EQ(-1, ioctl(self->dev, MMOPS_IOC_LEAVES, &list));
	ASSERT_EQ(ESRCH, errno);
	free(vec);
}

/*
 * Pages in swap: the entry keeps its value, and the page comes back with the
 * protection of the mapping, whichever it had when it went.
 */
TEST_F_TIMEOUT(protect, swapped, TEST_SECONDS)
{
	static const int before[] = { RW, PROT_READ, PROT_NONE };
	static const int behind[] = { PROT_READ, PROT_NONE, RW };
	static uint64_t entries[PAGES];
	struct leaf_counts counts;
	size_t swapped = 0, i, j;
	struct mmops_protect r;
	struct swap_file swap;
	const char *why;

	if (!variant->anon || variant->huge)
		return;
	why = add_swap(&swap);
	if (why)
		SKIP(return, "%s", why);
	for (i = 0; i < ARRAY_SIZE(before); i++) {
		size_t absent = 0;

		fill(self->map, PAGES);
		EXPECT_EQ(0, protect(self->dev, self->map, self->size, before[i]));
		EXPECT_EQ(0, page_out(self->map, self->size));
		for (j = 0; j < PAGES; j++) {
			entries[j] = pagemap_entry(self->map + j * page_size());
			absent += !!(entries[j] & PAGEMAP_SWAP);
		}
		swapped += absent;
		EXPECT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
		EXPECT_EQ(absent, counts.absent[MMOPS_LEAF_SWAP]);
		EXPECT_EQ(0, protect_result(self->dev, self->map, self->size, behind[i], &r));
		/* Only what is present can change. */
		EXPECT_GE(PAGES - absent, r.ptes);
		for (j = 0; j < PAGES; j++) {
			if (entries[j] & PAGEMAP_SWAP)
				EXPECT_EQ(entries[j], pagemap_entry(self->map + j * page_size()));
		}
		EXPECT_EQ(-1, first_wrong(self->map, PAGES));
		EXPECT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
		EXPECT_EQ(PAGES, counts.pte.nr);
		EXPECT_EQ(0, counts.pte.unreadable);
		/* All there now, so all can be taken. */
		EXPECT_EQ(0, protect(self->dev, self->map, self->size, PROT_READ));
		EXPECT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
		EXPECT_EQ(0, counts.pte.writable);
	}
	EXPECT_EQ(0, remove_swap(&swap));
	EXPECT_EQ(-1, first_wrong(self->map, PAGES));
	EXPECT_GT(swapped, 0);
	TH_LOG("%zu of %lu pages were swapped out", swapped, ARRAY_SIZE(before) * PAGES);
}

/*
 * Pages that migrate all the time: what was writable when its migration began
 * must not come back so. In a shared mapping it may: it is mapped anew.
 */
TEST_F_TIMEOUT(protect, migrating, TEST_SECONDS)
{
	unsigned int round, n = rounds(40);
	uint64_t migrated = vmstat("pgmigrate_success");
	struct leaf_counts counts;
	size_t writable = 0;
	pid_t pid;

	if (access("/proc/sys/vm/compact_memory", W_OK))
		SKIP(return, "no memory compaction");
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		munmap(self->map, self->size);
		while (true)
			write_file("/proc/sys/vm/compact_memory", "1");
	}
	for (round = 0; round < n; round++) {
		fill(self->map, PAGES);
		EXPECT_EQ(0, protect(self->dev, self->map, self->size, PROT_READ));
		EXPECT_EQ(-1, first_wrong(self->map, PAGES));
		EXPECT_EQ(0, count_leaves(self->dev, self->map, self->size, &counts));
		writable += counts.pte.writable + counts.pmd.writable;
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	if (variant->anon)
		EXPECT_EQ(0, writable);
	TH_LOG("%llu pages migrated, %zu leaves came back writable",
	       (unsigned long long)(vmstat("pgmigrate_success") - migrated), writable);
}

/* The list agrees with pagemap, whatever the room for it. */
TEST_F_TIMEOUT(protect, list, TEST_SECONDS)
{
	struct mmops_leaf *vec = calloc(PAGES, sizeof(*vec));
	struct mmops_leaves arg = { .pidfd = -1, .addr = (uintptr_t)self->map,
				    .vec = (uintptr_t)vec, .vec_len = MMOPS_LEAVES_MIN };
	uint64_t end = arg.addr + self->size, calls = 0, pages = 0, i;
	size_t p = page_size();

	ASSERT_NE(vec, NULL);
	/* A hole in the mapping, a page that is not there, and a guard. */
	ASSERT_EQ(0, munmap(self->map + 100 * p, p));
	ASSERT_EQ(0, madvise(self->map + 200 * p, p, MADV_DONTNEED));
	load(self->map, 300);
	while (arg.addr < end) {
		arg.len = end - arg.addr;
		ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_LEAVES, &arg));
		ASSERT_LE(arg.nr, MMOPS_LEAVES_MIN);
		for (i = 0; i < arg.nr; i++) {
			ASSERT_EQ(MMOPS_LEAF_PRESENT, vec[i].kind);
			ASSERT_TRUE(pagemap_entry((void *)vec[i].addr) & PAGEMAP_PRESENT);
			pages += (1ULL << vec[i].shift) / p;
		}
		ASSERT_GT(arg.next, arg.addr);
		arg.addr = arg.next;
		calls++;
	}
	/* A huge leaf of shmem went as a whole with the hole in it. */
	if (variant->anon) {
		ASSERT_EQ(PAGES - 2, pages);
	}
	ASSERT_GE(calls, self->huge ? 1 : LEAVES);
	arg = (struct mmops_leaves){ .pidfd = -1, .len = p,
				     .addr = (uintptr_t)self->map + (PAGES - 1) * p,
				     .vec = (uintptr_t)vec, .vec_len = MMOPS_LEAVES_MIN - 1 };
	ASSERT_EQ(-1, ioctl(self->dev, MMOPS_IOC_LEAVES, &arg));
	ASSERT_EQ(EINVAL, errno);
	arg.vec_len = MMOPS_LEAVES_MIN;
	arg.vec = 1UL << 63;
	ASSERT_EQ(-1, ioctl(self->dev, MMOPS_IOC_LEAVES, &arg));
	ASSERT_EQ(EFAULT, errno);
	arg.vec = (uintptr_t)vec;
	arg.addr += 1;
	ASSERT_EQ(-1, ioctl(self->dev, MMOPS_IOC_LEAVES, &arg));
	ASSERT_EQ(EINVAL, errno);
	free(vec);
}

/* hugetlbfs, and entries that are no leaves. */
TEST(other_mappings)
{
	struct mmops_age age = { .pidfd = -1, .aged = ~0ULL, .kept = ~0ULL };
	struct leaf_counts counts;
	size_t p = page_size(), i;
	char *map;
	int dev;

	OPEN_DEV(dev, MMOPS_DEV);
	map = mmap(NULL, 16 * p, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(map, MAP_FAILED);
	store_range(map, 0, 8, 1);
	ASSERT_EQ(0, madvise(map + 8 * p, 2 * p, MADV_GUARD_INSTALL));
	load_range(map, 10, 6);
	ASSERT_EQ(0, protect(dev, map, 16 * p, PROT_READ));
	ASSERT_EQ(0, count_leaves(dev, map, 16 * p, &counts));
	ASSERT_EQ(14, counts.pte.nr);
	ASSERT_EQ(0, counts.pte.writable);
	ASSERT_EQ(2, counts.absent[MMOPS_LEAF_MARKER]);
	/* The shared zero page. */
	ASSERT_EQ(6, counts.pte.special);
	ASSERT_EQ(0, protect(dev, map, 16 * p, RW));
	ASSERT_EQ(0, count_leaves(dev, map, 16 * p, &counts));
	ASSERT_EQ(8, counts.pte.writable);
	store_range(map, 10, 6, 1);

	write_file("/proc/sys/vm/nr_hugepages", "1");
	map = mmap(NULL, pmd_size(), RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (map != MAP_FAILED) {
		store(map, 0, 1);
		ASSERT_EQ(-EOPNOTSUPP, protect(dev, map, pmd_size(), PROT_READ));
		store(map, 0, 2);
		/* Passed over, as what is not mapped. */
		ASSERT_EQ(0, count_leaves(dev, map, pmd_size(), &counts));
		ASSERT_EQ(0, counts.pte.nr + counts.pmd.nr + counts.pud.nr);
		for (i = 0; i < ARRAY_SIZE(counts.absent); i++) {
			ASSERT_EQ(0, counts.absent[i]);
		}
		age.addr = (uintptr_t)map;
		age.len = pmd_size();
		ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_AGE, &age));
		ASSERT_EQ(0, age.aged);
		ASSERT_EQ(0, age.kept);
		ASSERT_EQ(pmd_size(), age.done);
		munmap(map, pmd_size());
	}
	write_file("/proc/sys/vm/nr_hugepages", "0");
}

TEST_HARNESS_MAIN
