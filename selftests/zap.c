// SPDX-License-Identifier: GPL-2.0
/*
 * MMOPS_IOC_ZAP: each kind of entry, what is left, and what the process is
 * charged with. The oracles are the contents, /proc/self/status and pagemap,
 * and madvise(MADV_DONTNEED) on a twin of the same mapping.
 *
 * MMOPS_DISK is a directory on a disk file system, also for a swap file.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "dmirror.h"
#include "faults.h"
#include "kselftest_harness.h"
#include "leaves.h"
#include "notifier.h"
#include "swap.h"
#include "zap.h"

#ifndef __NR_mseal
#define __NR_mseal	462
#endif

#define PAGES		1000UL
#define KPF_DIRTY	4
#define NR_HUGEPAGES	"/proc/sys/vm/nr_hugepages"
#define PAGE_CLUSTER	"/proc/sys/vm/page-cluster"

FIXTURE(zap)
{
	int dev;
	long anon, file, shmem, swap;
};

static void read_counters(FIXTURE_DATA(zap) *self)
{
	self->anon = status_kb("RssAnon");
	self->file = status_kb("RssFile");
	self->shmem = status_kb("RssShmem");
	self->swap = status_kb("VmSwap");
}

FIXTURE_SETUP(zap)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	/* Stdio and what else the test itself needs is there before it counts. */
	read_counters(self);
	smaps_kb(self, "Rss");
	pagemap_entry(self);
	read_counters(self);
}

FIXTURE_TEARDOWN(zap)
{
}

FIXTURE_FAULTS(zap);

static bool is_there(const char *map, size_t page)
{
	return pagemap_entry(map + page * page_size()) & (PAGEMAP_PRESENT | PAGEMAP_SWAP);
}

/* Whether a system call can read the page: a guard page or poison gives an error. */
static bool can_read(const char *map, size_t page)
{
	int fds[2];
	bool ret;

	if (pipe(fds))
		return false;
	ret = write(fds[1], map + page * page_size(), 8) == 8;
	close(fds[0]);
	close(fds[1]);
	return ret;
}

TEST_F_TIMEOUT(zap, anon, TEST_SECONDS)
{
	char *map = map_anon(PAGES);
	size_t i;

	ASSERT_NE(map, NULL);
	ASSERT_EQ(0, madvise(map, PAGES * page_size(), MADV_NOHUGEPAGE));
	store_range(map, 0, PAGES, 1);
	read_counters(self);
	ASSERT_EQ(700, zap(self->dev, map + 100 * page_size(), 700));
	ASSERT_EQ(self->anon - pages_kb(700), status_kb("RssAnon"));
	ASSERT_EQ(0, zap(self->dev, map + 100 * page_size(), 700));
	for (i = 0; i < PAGES; i++) {
		bool gone = i >= 100 && i < 800;

		ASSERT_EQ(!gone, is_there(map, i));
		ASSERT_EQ(gone ? 0 : 1 + i, load(map, i));
	}
	ASSERT_EQ(0, munmap(map, PAGES * page_size()));
}

/* More pages than wait for one flush. */
TEST_F_TIMEOUT(zap, anon_many, TEST_SECONDS)
{
	const size_t pages = 20000;
	char *map = map_anon(pages);

	ASSERT_NE(map, NULL);
	ASSERT_EQ(0, madvise(map, pages * page_size(), MADV_NOHUGEPAGE));
	store_range(map, 0, pages, 1);
	read_counters(self);
	ASSERT_EQ(pages, zap(self->dev, map, pages));
	ASSERT_EQ(self->anon - pages_kb(pages), status_kb("RssAnon"));
	ASSERT_EQ(0, load(map, 0));
	ASSERT_EQ(0, load(map, pages - 1));
}

/* The shared zero page, which is nobody's. */
TEST_F_TIMEOUT(zap, zero_page, TEST_SECONDS)
{
	char *map = map_anon(PAGES);

	ASSERT_NE(map, NULL);
	ASSERT_EQ(0, madvise(map, PAGES * page_size(), MADV_NOHUGEPAGE));
	load_range(map, 0, PAGES);
	read_counters(self);
	ASSERT_EQ(PAGES, zap(self->dev, map, PAGES));
	ASSERT_EQ(self->anon, status_kb("RssAnon"));
	ASSERT_FALSE(is_there(map, 17));
}

/* Whether the folio behind @addr, which is mapped, is marked dirty. */
static int folio_dirty(const void *addr)
{
	uint64_t entry = pagemap_entry(addr), flags = 0;
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	int ret = -1;

	if (entry & PAGEMAP_PRESENT && fd >= 0 &&
	    pread(fd, &flags, sizeof(flags),
		  (entry & PAGEMAP_PFN) * sizeof(flags)) == sizeof(flags))
		ret = flags >> KPF_DIRTY & 1;
	close(fd);
	return ret;
}

/* What was stored stays in the file, and the folio knows that it is dirty. */
TEST_F_TIMEOUT(zap, shared_memory, TEST_SECONDS)
{
	int fd = new_memfd(PAGES);
	char *map = map_shared(fd, 0, PAGES);
	size_t i;

	ASSERT_NE(map, NULL);
	/* Read first, so that the store leaves its mark in the entry alone. */
	load_range(map, 0, PAGES);
	for (i = 0; i < PAGES; i += 3)
		store(map, i, 1 + i);
	if (folio_dirty(map) < 0)
		SKIP(return, "no /proc/kpageflags");
	ASSERT_EQ(0, folio_dirty(map));
	read_counters(self);
	ASSERT_EQ(PAGES, zap(self->dev, map, PAGES));
	ASSERT_EQ(self->shmem - pages_kb(PAGES), status_kb("RssShmem"));
	for (i = 0; i < PAGES; i++) {
		ASSERT_FALSE(pagemap_entry(map + i * page_size()) & PAGEMAP_PRESENT);
	}
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(i % 3 ? 0 : 1 + i, load(map, i));
		ASSERT_EQ(i % 3 == 0, folio_dirty(map + i * page_size()));
	}
}

/* A private mapping of a file: what was stored is gone, and the file comes back. */
TEST_F_TIMEOUT(zap, private_file, TEST_SECONDS)
{
	int fd = new_memfd(PAGES);
	char *shared = map_shared(fd, 0, PAGES);
	char *map = mmap(NULL, PAGES * page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	size_t i;

	ASSERT_NE(shared, NULL);
	ASSERT_NE(map, MAP_FAILED);
	store_range(shared, 0, PAGES, 1000);
	load_range(map, 0, PAGES);
	for (i = 0; i < PAGES; i += 2)
		store(map, i, 7);
	read_counters(self);
	ASSERT_EQ(PAGES, zap(self->dev, map, PAGES));
	ASSERT_EQ(self->anon - pages_kb(PAGES / 2), status_kb("RssAnon"));
	ASSERT_EQ(self->shmem - pages_kb(PAGES / 2), status_kb("RssShmem"));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(1000 + i, load(map, i));
	}
}

/* A file on a disk: with what was stored, after a writeback that the zap has to order. */
TEST_F_TIMEOUT(zap, disk_file, TEST_SECONDS)
{
	const char *dir = getenv("MMOPS_DISK");
	unsigned int round, last = rounds(10);
	char path[128], *map;
	int fd, direct;
	void *buffer;
	size_t i;

	if (!dir)
		SKIP(return, "no MMOPS_DISK");
	snprintf(path, sizeof(path), "%s/mmops-zap-%d", dir, getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, posix_fallocate(fd, 0, PAGES * page_size()));
	direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	unlink(path);
	ASSERT_EQ(0, posix_memalign(&buffer, page_size(), PAGES * page_size()));
	map = map_shared(fd, 0, PAGES);
	ASSERT_NE(map, NULL);
	for (round = 1; round <= last; round++) {
		store_range(map, 0, PAGES, round * 10000);
		read_counters(self);
		ASSERT_EQ(PAGES, zap(self->dev, map, PAGES));
		ASSERT_EQ(self->file - pages_kb(PAGES), status_kb("RssFile"));
		ASSERT_EQ(0, fsync(fd));
		ASSERT_EQ((ssize_t)(PAGES * page_size()),
			  pread(direct, buffer, PAGES * page_size(), 0));
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(round * 10000 + i, load(buffer, i));
		}
	}
	close(direct);
	close(fd);
}

TEST_F_TIMEOUT(zap, huge_whole, TEST_SECONDS)
{
	char *map = map_thp(4);
	size_t i;

	if (!map)
		SKIP(return, "no huge pages");
	read_counters(self);
	ASSERT_EQ(2 * PMD_PAGES, zap(self->dev, map + pmd_size(), 2 * PMD_PAGES));
	ASSERT_EQ(self->anon - pages_kb(2 * PMD_PAGES), status_kb("RssAnon"));
	ASSERT_EQ(2 * pmd_size() / 1024, smaps_kb(map, "AnonHugePages"));
	for (i = 0; i < 4 * PMD_PAGES; i++) {
		bool gone = i >= PMD_PAGES && i < 3 * PMD_PAGES;

		ASSERT_EQ(gone ? 0 : 1 + i, load(map, i));
	}
}

TEST_F_TIMEOUT(zap, huge_in_part, TEST_SECONDS)
{
	char *map = map_thp(3);
	size_t i, first = PMD_PAGES - 100, nr = PMD_PAGES + 300;

	if (!map)
		SKIP(return, "no huge pages");
	read_counters(self);
	ASSERT_EQ(nr, zap(self->dev, map + first * page_size(), nr));
	ASSERT_EQ(self->anon - pages_kb(nr), status_kb("RssAnon"));
	ASSERT_EQ(0, smaps_kb(map, "AnonHugePages"));
	for (i = 0; i < 3 * PMD_PAGES; i++) {
		ASSERT_EQ(i >= first && i < first + nr ? 0 : 1 + i, load(map, i));
	}
}

/* Entries of both sizes in one call. */
TEST_F_TIMEOUT(zap, mixed_sizes, TEST_SECONDS)
{
	const size_t leaves = 8;
	char *map = map_thp(leaves);
	size_t i;

	if (!map)
		SKIP(return, "no huge pages");
	/* Every second leaf is split by taking one page out. */
	for (i = 0; i < leaves; i += 2) {
		ASSERT_EQ(0, madvise(map + i * pmd_size() + 5 * page_size(), page_size(),
				     MADV_DONTNEED));
	}
	read_counters(self);
	ASSERT_EQ(leaves * PMD_PAGES - leaves / 2, zap(self->dev, map, leaves * PMD_PAGES));
	ASSERT_EQ(self->anon - pages_kb(leaves * PMD_PAGES - leaves / 2), status_kb("RssAnon"));
	ASSERT_EQ(0, smaps_kb(map, "Rss"));
}

/* The huge zero page, which has a deposited table but no folio of its own. */
TEST_F_TIMEOUT(zap, huge_zero, TEST_SECONDS)
{
	char *map = map_thp(2);

	if (!map)
		SKIP(return, "no huge pages");
	ASSERT_EQ(2 * PMD_PAGES, zap(self->dev, map, 2 * PMD_PAGES));
	read_counters(self);
	load(map, 0);
	load(map, PMD_PAGES);
	ASSERT_EQ(2 * PMD_PAGES, zap(self->dev, map, 2 * PMD_PAGES));
	ASSERT_EQ(self->anon, status_kb("RssAnon"));
	/* And in part. */
	load(map, 0);
	ASSERT_GE(zap(self->dev, map + page_size(), 10), 10);
	ASSERT_EQ(0, load(map, 3));
}

/* Huge leaves of shared memory, and large folios mapped by PTEs. */
TEST_F_TIMEOUT(zap, huge_shared, TEST_SECONDS)
{
	int fd = new_memfd(4 * PMD_PAGES);
	char *map = reserve(4 * PMD_PAGES, 0), *high;
	size_t i;

	ASSERT_NE(map, NULL);
	if (write_file(SHMEM_ENABLED, "advise"))
		SKIP(return, "cannot set " SHMEM_ENABLED);
	map = map_at(map, fd, 0, 4 * PMD_PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(map, NULL);
	ASSERT_EQ(0, madvise(map, 4 * pmd_size(), MADV_HUGEPAGE));
	store_range(map, 0, 4 * PMD_PAGES, 1);
	if (smaps_kb(map, "ShmemPmdMapped") != (long)(4 * pmd_size() / 1024))
		SKIP(return, "no huge pages of shared memory");
	read_counters(self);
	/* Whole, then in part: the kernel unmaps all of such a leaf. */
	ASSERT_EQ(2 * PMD_PAGES, zap(self->dev, map, 2 * PMD_PAGES));
	ASSERT_EQ(self->shmem - pages_kb(2 * PMD_PAGES), status_kb("RssShmem"));
	ASSERT_EQ(0, zap(self->dev, map + 2 * pmd_size() + page_size(), 10));
	ASSERT_EQ(self->shmem - pages_kb(3 * PMD_PAGES), status_kb("RssShmem"));
	for (i = 0; i < 4 * PMD_PAGES; i++) {
		ASSERT_EQ(1 + i, load(map, i));
	}
	ASSERT_EQ(0, madvise(map, 4 * pmd_size(), MADV_DONTNEED));
	ASSERT_EQ(0, munmap(map, 4 * pmd_size()));

	/* At an odd address the same folios are mapped by PTEs. */
	high = reserve(4 * PMD_PAGES, 3);
	ASSERT_NE(high, NULL);
	high = map_at(high, fd, 0, 4 * PMD_PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(high, NULL);
	store_range(high, 0, 4 * PMD_PAGES, 5);
	read_counters(self);
	ASSERT_EQ(1500, zap(self->dev, high + 100 * page_size(), 1500));
	ASSERT_EQ(self->shmem - pages_kb(1500), status_kb("RssShmem"));
	for (i = 0; i < 4 * PMD_PAGES; i++) {
		ASSERT_EQ(5 + i, load(high, i));
	}
}

TEST_F_TIMEOUT(zap, swapped, TEST_SECONDS)
{
	const size_t pages = 4000;
	char *map = map_anon(pages);
	long swapped, left, before, used;
	struct swap_file swap;
	const char *why;
	char cluster[32];
	size_t i, n;
	int64_t ret;

	ASSERT_NE(map, NULL);
	why = add_swap(&swap);
	if (why)
		SKIP(return, "%s", why);
	madvise(map, pages * page_size(), MADV_NOHUGEPAGE);
	store_range(map, 0, pages, 1);
	n = swap_out(map, pages);
	EXPECT_TRUE(wait_for_swap_writes());
	read_counters(self);
	swapped = self->swap;
	before = swap_used_kb();
	/* Some come back: then the folio is in the swap cache beside the entry's. */
	snprintf(cluster, sizeof(cluster), "%ld", read_number(PAGE_CLUSTER));
	/* A neighbour that is being read is locked, and its place is not given back. */
	EXPECT_EQ(0, write_file(PAGE_CLUSTER, "0"));
	for (i = 0; i < pages; i += 7)
		load(map, i);
	EXPECT_EQ(0, write_file(PAGE_CLUSTER, cluster));
	ret = zap(self->dev, map, pages);
	left = status_kb("VmSwap");
	used = swap_used_kb();
	TH_LOG("%zu of %zu pages were swapped out, %ld KiB of swap are in use", n, pages, used);
	EXPECT_EQ(0, remove_swap(&swap));
	ASSERT_LE(pages / 2, n);
	ASSERT_GE(swapped, pages_kb(n));
	ASSERT_EQ(pages, ret);
	ASSERT_EQ(swapped - pages_kb(n), left);
	/* Places in swap are given back. */
	ASSERT_LE(pages_kb(n), before);
	ASSERT_EQ(0, used);
	for (i = 0; i < pages; i++) {
		ASSERT_EQ(0, load(map, i));
	}
}

static void on_poison(int number)
{
}

TEST_F_TIMEOUT(zap, hwpoison, TEST_SECONDS)
{
	char *map = map_anon(PAGES);
	struct leaf_counts counts;

	ASSERT_NE(map, NULL);
	madvise(map, PAGES * page_size(), MADV_NOHUGEPAGE);
	store_range(map, 0, PAGES, 1);
	/* The process is told of its dirty page. */
	signal(SIGBUS, on_poison);
	if (madvise(map + 10 * page_size(), page_size(), MADV_HWPOISON))
		SKIP(return, "no MADV_HWPOISON: %s", strerror(errno));
	ASSERT_FALSE(can_read(map, 10));
	ASSERT_EQ(0, count_leaves(self->dev, map, PAGES * page_size(), &counts));
	ASSERT_EQ(1, counts.absent[MMOPS_LEAF_HWPOISON]);
	ASSERT_EQ(PAGES - 1, counts.pte.nr);
	read_counters(self);
	ASSERT_EQ(PAGES, zap(self->dev, map, PAGES));
	/* A poisoned page is not charged any more. */
	ASSERT_EQ(self->anon - pages_kb(PAGES - 1), status_kb("RssAnon"));
	ASSERT_TRUE(can_read(map, 10));
	ASSERT_EQ(0, load(map, 10));
}

TEST_F_TIMEOUT(zap, guard, TEST_SECONDS)
{
	char *map = map_anon(PAGES);

	ASSERT_NE(map, NULL);
	madvise(map, PAGES * page_size(), MADV_NOHUGEPAGE);
	store_range(map, 0, PAGES, 1);
	if (madvise(map + 20 * page_size(), 5 * page_size(), MADV_GUARD_INSTALL))
		SKIP(return, "no guard pages: %s", strerror(errno));
	ASSERT_EQ(PAGES - 5, zap(self->dev, map, PAGES));
	ASSERT_FALSE(can_read(map, 20));
	ASSERT_FALSE(can_read(map, 24));
	ASSERT_TRUE(can_read(map, 19));
	ASSERT_TRUE(can_read(map, 25));
}

static int uffd_wp(char *map, size_t pages, size_t first, size_t nr)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_WP_HUGETLBFS_SHMEM };
	struct uffdio_register reg = {
		.range = { (uintptr_t)map, pages * page_size() },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)map + first * page_size(), nr * page_size() },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg) ||
	    ioctl(fd, UFFDIO_WRITEPROTECT, &wp))
		return -1;
	return fd;
}

/* Shared memory keeps the protection, in a marker; anonymous memory loses it. */
TEST_F_TIMEOUT(zap, userfault_markers, TEST_SECONDS)
{
	int fd = new_memfd(PAGES), uffd;
	char *maps[2] = { map_shared(fd, 0, PAGES), map_anon(PAGES) };
	size_t i, kind;

	for (kind = 0; kind < 2; kind++) {
		ASSERT_NE(maps[kind], NULL);
		madvise(maps[kind], PAGES * page_size(), MADV_NOHUGEPAGE);
		store_range(maps[kind], 0, PAGES, 1);
		uffd = uffd_wp(maps[kind], PAGES, 100, 50);
		if (uffd < 0)
			SKIP(return, "no userfaultfd write protection: %s", strerror(errno));
		ASSERT_EQ(PAGES, zap(self->dev, maps[kind], PAGES));
		for (i = 0; i < PAGES; i++) {
			bool kept = !kind && i >= 100 && i < 150;

			ASSERT_EQ(kept, !!(pagemap_entry(maps[kind] + i * page_size()) &
					   PAGEMAP_UFFD_WP));
		}
		/* Markers alone: kept in shared memory, again. */
		ASSERT_EQ(0, zap(self->dev, maps[kind], PAGES));
		ASSERT_EQ(!kind, !!(pagemap_entry(maps[kind] + 120 * page_size()) &
				    PAGEMAP_UFFD_WP));
		close(uffd);
	}
}

static void device_pages(struct __test_metadata *_metadata, FIXTURE_DATA(zap) *self,
			 unsigned long call)
{
	const size_t pages = 64;
	char *map = map_anon(PAGES), *copy = map_anon(pages);
	size_t i;
	int fd;

	ASSERT_NE(map, NULL);
	ASSERT_NE(copy, NULL);
	OPEN_DMIRROR(fd);
	madvise(map, PAGES * page_size(), MADV_NOHUGEPAGE);
	store_range(map, 0, PAGES, 1);
	ASSERT_EQ(pages, dmirror(fd, call, map + 100 * page_size(), copy, pages));
	/* Or there is nothing to test: a device may also copy the pages. */
	ASSERT_FALSE(pagemap_entry(map + 100 * page_size()) & PAGEMAP_PRESENT);
	read_counters(self);
	ASSERT_EQ(PAGES, zap(self->dev, map, PAGES));
	ASSERT_EQ(self->anon - pages_kb(PAGES), status_kb("RssAnon"));
	if (call == HMM_DMIRROR_EXCLUSIVE) {
		/* The device knows that its access is over. */
		ASSERT_EQ(0, dmirror(fd, HMM_DMIRROR_CHECK_EXCLUSIVE, map + 100 * page_size(),
				     copy, pages) > 0);
	}
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(0, load(map, i));
	}
	close(fd);
}

TEST_F_TIMEOUT(zap, device_private, TEST_SECONDS)
{
	device_pages(_metadata, self, HMM_DMIRROR_MIGRATE_TO_DEV);
}

TEST_F_TIMEOUT(zap, device_exclusive, TEST_SECONDS)
{
	device_pages(_metadata, self, HMM_DMIRROR_EXCLUSIVE);
}

/* A PUD leaf of device-DAX: whole, and in part. */
TEST_F_TIMEOUT(zap, pud_leaf, TEST_SECONDS)
{
	const size_t pages = 1UL << 18;
	const char *dax = getenv("MMOPS_DAX") ?: "/dev/dax0.0";
	int fd = open(dax, O_RDWR | O_CLOEXEC);
	long faults;
	char *map;

	if (fd < 0)
		SKIP(return, "no device-DAX %s: no legacy persistent memory here", dax);
	map = mmap(NULL, pages * page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		SKIP(return, "%s has no 1 GiB that can be mapped", dax);
	store(map, 0, 11);
	store(map, pages - 1, 12);
	ASSERT_EQ(pages, zap(self->dev, map, pages));
	faults = minor_faults();
	ASSERT_EQ(11, load(map, 0));
	ASSERT_EQ(12, load(map, pages - 1));
	ASSERT_EQ(1, minor_faults() - faults);
	/* In part, the kernel unmaps all of it. */
	store(map, 5, 13);
	ASSERT_EQ(0, zap(self->dev, map + page_size(), 100));
	faults = minor_faults();
	ASSERT_EQ(13, load(map, 5));
	ASSERT_EQ(1, minor_faults() - faults);
	ASSERT_EQ(0, munmap(map, pages * page_size()));
	close(fd);
}

/* hugetlbfs, as madvise() treats it: from a huge page on, whole ones only. */
TEST_F_TIMEOUT(zap, hugetlb, TEST_SECONDS)
{
	int fd = memfd_create("huge", MFD_HUGETLB | MFD_CLOEXEC);
	size_t pages = 3 * PMD_PAGES;
	char *map;

	write_file(NR_HUGEPAGES, "6");
	map = mmap(NULL, 3 * pmd_size(), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (map == MAP_FAILED) {
		write_file(NR_HUGEPAGES, "0");
		SKIP(return, "no pages of hugetlbfs");
	}
	close(fd);
	store_range(map, 0, pages, 1);
	ASSERT_EQ(-EINVAL, zap(self->dev, map + page_size(), PMD_PAGES));
	ASSERT_EQ(1, load(map, 0));
	/* One and a half: the half stays. */
	ASSERT_EQ(0, zap(self->dev, map, PMD_PAGES + PMD_PAGES / 2));
	ASSERT_EQ(0, load(map, 0));
	ASSERT_EQ(0, load(map, PMD_PAGES - 1));
	ASSERT_EQ(1 + PMD_PAGES, load(map, PMD_PAGES));
	ASSERT_EQ(1 + 2 * PMD_PAGES, load(map, 2 * PMD_PAGES));
	ASSERT_EQ(0, munmap(map, 3 * pmd_size()));
	write_file(NR_HUGEPAGES, "0");
}

/* What is refused: the errno, and nothing changed. */
static int64_t zap_raw(int dev, int32_t pidfd, uint32_t flags, uint64_t addr, uint64_t len)
{
	struct mmops_zap arg = { .pidfd = pidfd, .flags = flags, .addr = addr, .len = len };

	return ioctl(dev, MMOPS_IOC_ZAP, &arg) ? -errno : (int64_t)arg.zapped;
}

TEST_F_TIMEOUT(zap, bad_arguments, TEST_SECONDS)
{
	char *map = map_anon(PAGES);
	uint64_t addr = (uintptr_t)map, page = page_size(), i;
	struct mmops_zap arg = { .pidfd = -1, .addr = addr, .len = page };

	ASSERT_NE(map, NULL);
	store_range(map, 0, PAGES, 1);
	ASSERT_EQ(-EINVAL, zap_raw(self->dev, -1, 1, addr, page));
	ASSERT_EQ(-EINVAL, zap_raw(self->dev, -1, 1U << 31, addr, page));
	ASSERT_EQ(-EINVAL, zap_raw(self->dev, -1, 0, addr + 1, page));
	ASSERT_EQ(-EINVAL, zap_raw(self->dev, -1, 0, addr, page - 1));
	ASSERT_EQ(-EINVAL, zap_raw(self->dev, -1, 0, addr, 0));
	ASSERT_EQ(-EINVAL, zap_raw(self->dev, -1, 0, addr, -page));
	ASSERT_EQ(-EINVAL, zap_raw(self->dev, -1, 0, -page, 2 * page));
	ASSERT_EQ(-EINVAL, zap_raw(self->dev, -1, 0, -page, page));
	ASSERT_EQ(-ENOMEM, zap_raw(self->dev, -1, 0, 0xffff800000000000ULL, page));
	ASSERT_EQ(-ENOMEM, zap_raw(self->dev, -1, 0, 0, page));
	ASSERT_EQ(-EBADF, zap_raw(self->dev, -2, 0, addr, page));
	ASSERT_EQ(-EBADF, zap_raw(self->dev, 1000, 0, addr, page));
	ASSERT_EQ(-EBADF, zap_raw(self->dev, self->dev, 0, addr, page));
	for (i = 0; i < 2; i++) {
		arg.reserved[i] = 1;
		ASSERT_EQ(-1, ioctl(self->dev, MMOPS_IOC_ZAP, &arg));
		ASSERT_EQ(EINVAL, errno);
		arg.reserved[i] = 0;
	}
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(1 + i, load(map, i));
	}
}

TEST_F_TIMEOUT(zap, holes, TEST_SECONDS)
{
	char *map = map_anon(PAGES);

	ASSERT_NE(map, NULL);
	store_range(map, 0, PAGES, 1);
	ASSERT_EQ(0, munmap(map + 500 * page_size(), page_size()));
	ASSERT_EQ(-ENOMEM, zap(self->dev, map, PAGES));
	ASSERT_EQ(-ENOMEM, zap(self->dev, map + 500 * page_size(), 1));
	ASSERT_EQ(-ENOMEM, zap(self->dev, map + 400 * page_size(), 101));
	ASSERT_EQ(1, load(map, 0));
	ASSERT_EQ(1 + 501, load(map, 501));
	ASSERT_EQ(500, zap(self->dev, map, 500));
}

/* Locked memory and PFN maps: EINVAL, also for those before them in the range. */
TEST_F_TIMEOUT(zap, locked_and_pfn_maps, TEST_SECONDS)
{
	char *map = map_anon(PAGES), *vvar = NULL, line[256];
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long start;

	ASSERT_NE(map, NULL);
	store_range(map, 0, PAGES, 1);
	ASSERT_EQ(0, mlock(map + 500 * page_size(), 10 * page_size()));
	ASSERT_EQ(-EINVAL, zap(self->dev, map, PAGES));
	ASSERT_EQ(-EINVAL, zap(self->dev, map + 505 * page_size(), 1));
	ASSERT_EQ(1, load(map, 0));
	ASSERT_EQ(506, load(map, 505));
	ASSERT_EQ(-1, madvise(map + 505 * page_size(), page_size(), MADV_DONTNEED));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(0, munlock(map + 500 * page_size(), 10 * page_size()));
	ASSERT_EQ(PAGES, zap(self->dev, map, PAGES));

	ASSERT_NE(f, NULL);
	while (fgets(line, sizeof(line), f)) {
		if (strstr(line, "[vvar]") && sscanf(line, "%lx-", &start) == 1)
			vvar = (char *)start;
	}
	fclose(f);
	if (vvar) {
		int wanted = madvise(vvar, page_size(), MADV_DONTNEED) ? -errno : 0;
		int64_t ret = zap(self->dev, vvar, 1);

		ASSERT_EQ(wanted, ret < 0 ? ret : 0);
	}
}

/* Sealed anonymous memory that is not writable: EPERM, as madvise() has it. */
TEST_F_TIMEOUT(zap, sealed, TEST_SECONDS)
{
	char *map = map_anon(PAGES), *sealed = map + 100 * page_size();

	ASSERT_NE(map, NULL);
	store_range(map, 0, PAGES, 1);
	ASSERT_EQ(0, mprotect(sealed, 10 * page_size(), PROT_READ));
	if (syscall(__NR_mseal, sealed, 20 * page_size(), 0))
		SKIP(return, "the kernel has no mseal()");
	ASSERT_EQ(-1, madvise(sealed, page_size(), MADV_DONTNEED));
	ASSERT_EQ(EPERM, errno);
	ASSERT_EQ(-EPERM, zap(self->dev, sealed, 1));
	ASSERT_EQ(-EPERM, zap(self->dev, map, PAGES));
	ASSERT_EQ(1, load(map, 0));
	ASSERT_EQ(101, load(map, 100));
	/* What is sealed and writable may go. */
	ASSERT_EQ(10, zap(self->dev, sealed + 10 * page_size(), 10));
	ASSERT_EQ(0, load(map, 110));
	ASSERT_EQ(121, load(map, 120));
}

/*
 * The range is looked at first, then the process, then what is mapped: there, the error of
 * the lowest address comes.
 */
TEST_F_TIMEOUT(zap, order_of_errors, TEST_SECONDS)
{
	enum { LOCKED = 100, HOLE = 200, LOCKED_2 = 300, SEALED = 400, HOLE_2 = 500,
	       LOCKED_3 = 600, SEALED_2 = 700 };
	char *map = map_anon(PAGES);
	size_t page = page_size(), i;

#define AT(n)		(map + (n) * page)
/* From some pages before @first to some behind @last. */
#define ZAP(first, last)	zap(self->dev, AT((first) - 50), (last) - (first) + 60)
	ASSERT_NE(map, NULL);
	store_range(map, 0, PAGES, 1);
	ASSERT_EQ(0, mlock(AT(LOCKED), page));
	ASSERT_EQ(0, munmap(AT(HOLE), page));
	ASSERT_EQ(0, mlock(AT(LOCKED_2), page));
	ASSERT_EQ(0, munmap(AT(HOLE_2), page));
	ASSERT_EQ(0, mlock(AT(LOCKED_3), page));
	ASSERT_EQ(-EINVAL, zap_raw(self->dev, self->dev, 0, (uintptr_t)AT(0) + 1, page));
	ASSERT_EQ(-EBADF, zap_of(self->dev, self->dev, AT(HOLE), 1));
	ASSERT_EQ(-EBADF, zap_of(self->dev, self->dev, AT(LOCKED), 1));
	ASSERT_EQ(-EINVAL, ZAP(LOCKED, HOLE));
	ASSERT_EQ(-ENOMEM, ZAP(HOLE, LOCKED_2));
	for (i = 0; i < PAGES; i++) {
		if (i != HOLE && i != HOLE_2) {
			ASSERT_EQ(1 + i, load(map, i));
		}
	}

	ASSERT_EQ(0, mprotect(AT(SEALED), page, PROT_READ));
	ASSERT_EQ(0, mprotect(AT(SEALED_2), page, PROT_READ));
	if (syscall(__NR_mseal, AT(SEALED), page, 0) || syscall(__NR_mseal, AT(SEALED_2), page, 0))
		SKIP(return, "the kernel has no mseal()");
	ASSERT_EQ(-EINVAL, ZAP(LOCKED_2, SEALED));
	ASSERT_EQ(-EPERM, ZAP(SEALED, HOLE_2));
	ASSERT_EQ(-ENOMEM, ZAP(HOLE_2, SEALED_2));
	ASSERT_EQ(-EINVAL, ZAP(LOCKED_3, SEALED_2));
	for (i = 0; i < PAGES; i++) {
		if (i != HOLE && i != HOLE_2) {
			ASSERT_EQ(1 + i, load(map, i));
		}
	}
#undef ZAP
#undef AT
}

/* Another process, by pidfd. */
static int pidfd_open(pid_t pid)
{
	return syscall(__NR_pidfd_open, pid, 0);
}

TEST_F_TIMEOUT(zap, other_process, TEST_SECONDS)
{
	char *map = map_anon(PAGES);
	int pidfd, self_pidfd = pidfd_open(getpid()), to_child[2], from_child[2], status;
	char byte = 0;
	pid_t child;

	ASSERT_NE(map, NULL);
	ASSERT_EQ(0, madvise(map, PAGES * page_size(), MADV_NOHUGEPAGE));
	ASSERT_EQ(0, pipe(to_child));
	ASSERT_EQ(0, pipe(from_child));
	store_range(map, 0, PAGES, 1);
	child = fork();
	ASSERT_GE(child, 0);
	if (!child) {
		size_t i, bad = 0;

		store_range(map, 0, PAGES, 5);
		if (write(from_child[1], &byte, 1) != 1 || read(to_child[0], &byte, 1) != 1)
			_exit(100);
		for (i = 0; i < PAGES; i++)
			bad += load(map, i) != (i < 600 ? 0 : 5 + i);
		_exit(!!bad);
	}
	pidfd = pidfd_open(child);
	ASSERT_GE(pidfd, 0);
	ASSERT_EQ(1, read(from_child[0], &byte, 1));
	ASSERT_EQ(600, zap_of(self->dev, pidfd, map, 600));
	ASSERT_EQ(1, write(to_child[1], &byte, 1));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_EQ(0, status);
	ASSERT_EQ(-ESRCH, zap_of(self->dev, pidfd, map, 600));
	ASSERT_EQ(1, load(map, 0));
	ASSERT_EQ(10, zap_of(self->dev, self_pidfd, map, 10));

	/* Somebody who may not trace us. */
	child = fork();
	ASSERT_GE(child, 0);
	if (!child) {
		if (setgid(1000) || setuid(1000))
			_exit(100);
		_exit(zap_of(self->dev, self_pidfd, map, 600) != -EACCES);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_EQ(0, status);
	ASSERT_EQ(101, load(map, 100));
}

/*
 * Twins: the same random layout twice, one zapped by us and one by madvise().
 * Afterwards both have the same in pagemap and the same contents.
 */
#define TWIN_PAGES	(4 * PMD_PAGES)

static char *make_twin(struct rng rng, int fd)
{
	char *map = reserve(TWIN_PAGES, 0);
	size_t page = 0;

	while (map && page < TWIN_PAGES) {
		size_t nr = min(1 + rng_below(&rng, 600), TWIN_PAGES - page);
		char *at = map + page * page_size();
		uint64_t kind = rng_below(&rng, 5), what = rng_below(&rng, 4);
		size_t i;

		if (!map_at(at, kind < 2 ? -1 : fd, kind < 2 ? 0 : page, nr,
			    PROT_READ | PROT_WRITE,
			    kind < 2 ? MAP_PRIVATE | MAP_ANONYMOUS :
			    kind == 2 ? MAP_PRIVATE : MAP_SHARED))
			return NULL;
		if (kind == 1)
			madvise(at, nr * page_size(), MADV_HUGEPAGE);
		for (i = 0; i < nr; i++) {
			switch (what) {
			case 0:
				store(at, i, page + i);
				break;
			case 1:
				load(at, i);
				break;
			default:
				if (rng_below(&rng, 2))
					store(at, i, page + i);
				else if (rng_below(&rng, 2))
					load(at, i);
			}
		}
		if (rng_below(&rng, 4) == 0)
			madvise(at + nr / 2 * page_size(), page_size(), MADV_GUARD_INSTALL);
		page += nr;
	}
	return map;
}

TEST_F_TIMEOUT(zap, as_madvise, TEST_SECONDS)
{
	struct rng rng = { test_seed() };
	unsigned int round, last = rounds(40);
	int fd = new_memfd(TWIN_PAGES);

	write_file(THP_ENABLED, "madvise");
	for (round = 0; round < last; round++) {
		struct rng layout = { rng_next(&rng) };
		char *ours = make_twin(layout, fd), *theirs = make_twin(layout, fd);
		size_t first = rng_below(&rng, TWIN_PAGES);
		size_t nr = 1 + rng_below(&rng, TWIN_PAGES - first), i;
		const uint64_t bits = PAGEMAP_PRESENT | PAGEMAP_SWAP | PAGEMAP_UFFD_WP;
		long anon, shmem, by_us[2], by_madvise[2];

		ASSERT_NE(ours, NULL);
		ASSERT_NE(theirs, NULL);
		anon = status_kb("RssAnon");
		shmem = status_kb("RssShmem");
		ASSERT_GE(zap(self->dev, ours + first * page_size(), nr), 0);
		by_us[0] = anon - status_kb("RssAnon");
		by_us[1] = shmem - status_kb("RssShmem");
		anon = status_kb("RssAnon");
		shmem = status_kb("RssShmem");
		ASSERT_EQ(0, madvise(theirs + first * page_size(), nr * page_size(),
				     MADV_DONTNEED));
		by_madvise[0] = anon - status_kb("RssAnon");
		by_madvise[1] = shmem - status_kb("RssShmem");
		ASSERT_EQ(by_madvise[0], by_us[0]);
		ASSERT_EQ(by_madvise[1], by_us[1]);
		for (i = 0; i < TWIN_PAGES; i++) {
			ASSERT_EQ(pagemap_entry(theirs + i * page_size()) & bits,
				  pagemap_entry(ours + i * page_size()) & bits) {
				TH_LOG("round %u, page %zu", round, i);
			}
		}
		for (i = 0; i < TWIN_PAGES; i += 1 + i % 5) {
			bool readable = can_read(ours, i);

			ASSERT_EQ(can_read(theirs, i), readable);
			if (readable) {
				ASSERT_EQ(load(theirs, i), load(ours, i));
			}
		}
		ASSERT_EQ(0, munmap(ours, TWIN_PAGES * page_size()));
		ASSERT_EQ(0, munmap(theirs, TWIN_PAGES * page_size()));
	}
}

/* Without memory for a queue, one of a few slots does. */
TEST_FAULTS(zap, no_memory_for_queue)
{
	int fd = new_memfd(PAGES);
	char *shared = map_shared(fd, 0, PAGES), *anon = map_anon(PAGES), *huge = map_thp(2);
	size_t i;

	ASSERT_NE(shared, NULL);
	ASSERT_NE(anon, NULL);
	madvise(anon, PAGES * page_size(), MADV_NOHUGEPAGE);
	store_range(shared, 0, PAGES, 1);
	store_range(anon, 0, PAGES, 1);
	read_counters(self);
	ASSERT_EQ(0, set_fault(GATHER_NO_MEMORY, 1));
	ASSERT_EQ(PAGES, zap(self->dev, shared, PAGES));
	ASSERT_EQ(PAGES, zap(self->dev, anon, PAGES));
	if (huge) {
		ASSERT_EQ(2 * PMD_PAGES - 100, zap(self->dev, huge, 2 * PMD_PAGES - 100));
	}
	ASSERT_EQ(0, set_fault(GATHER_NO_MEMORY, 0));
	ASSERT_EQ(self->shmem - pages_kb(PAGES), status_kb("RssShmem"));
	ASSERT_EQ(self->anon - pages_kb(PAGES + (huge ? 2 * PMD_PAGES - 100 : 0)),
		  status_kb("RssAnon"));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(1 + i, load(shared, i));
		ASSERT_EQ(0, load(anon, i));
	}
}

/*
 * Migration entries. Another thread has pages moved one after the other; or a
 * huge page split, for which the kernel puts a migration entry in the place of
 * each of its small ones; or a huge page that a device has moved back, for which
 * there is one of PMD size. The zap comes at a random time. In the fault build it
 * comes when the entries are in place: a subscriber that was told so stands at a gate.
 * The module counts the entries that it met.
 */
#define SPLIT_HUGE_PAGES	"/sys/kernel/debug/split_huge_pages"
#define MOVED			8UL
#define MIGRATING_ROUNDS	30
/* How long a round takes at the most until its zap, however slow the machine. */
#define MOVE_NS			50000000ULL

enum way { MOVE, SPLIT, FETCH };

struct mover {
	pthread_t thread;
	char *map, split[80];
	_Atomic uint64_t wanted, started, done;
	atomic_bool over;
	enum way way;
	bool gate, refused;
	int device;
	uint64_t ns;
};

#define MOVER_END	(~0ULL)

static void *mover_loop(void *arg)
{
	struct mover *mover = arg;
	uint64_t round, start;
	size_t i;

	pin_to_cpu(1);
	for (round = 1;; round++) {
		while (atomic_load(&mover->wanted) < round)
			sched_yield();
		if (atomic_load(&mover->wanted) == MOVER_END)
			return NULL;
		start = now_ns();
		atomic_store(&mover->started, round);
		if (mover->way == SPLIT)
			write_file(SPLIT_HUGE_PAGES, mover->split);
		if (mover->way == FETCH)
			dmirror(mover->device, HMM_DMIRROR_MIGRATE_TO_SYS, mover->map, NULL,
				PMD_PAGES);
		for (i = 0; i < (mover->gate ? 1 : MOVED) && mover->way == MOVE; i++)
			if (madvise(mover->map + i * page_size(), page_size(),
				    MADV_SOFT_OFFLINE) && errno == EINVAL)
				mover->refused = true;
		mover->ns = now_ns() - start;
		atomic_store(&mover->over, true);
		atomic_store(&mover->done, round);
	}
}

/*
 * One round: store, zap @ns nanoseconds after the mover has begun, or when it stands at
 * the gate, and look.
 */
static void zap_while_moving(struct __test_metadata *_metadata, FIXTURE_DATA(zap) *self,
			     struct mover *mover, uint64_t round, uint64_t ns)
{
	size_t i, pages = mover->way == MOVE ? MOVED : PMD_PAGES;
	static char copy[PMD_PAGES * 4096];
	int64_t zapped;
	uint64_t end;

	ASSERT_EQ(mover->map, mmap(mover->map, pmd_size(), PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ASSERT_EQ(0, madvise(mover->map, pmd_size(),
			     mover->way == MOVE ? MADV_NOHUGEPAGE : MADV_HUGEPAGE));
	read_counters(self);
	store_range(mover->map, 0, pages, 1);
	if (mover->way == FETCH) {
		ASSERT_EQ(PMD_PAGES, dmirror(mover->device, HMM_DMIRROR_MIGRATE_TO_DEV, mover->map,
					     copy, PMD_PAGES));
	}
	atomic_store(&mover->over, false);
	if (mover->gate) {
		ASSERT_EQ(0, close_gate(INVALIDATION_ENDED, 1));
	}
	atomic_store(&mover->wanted, round);
	while (atomic_load(&mover->started) < round)
		sched_yield();
	if (mover->gate)
		wait_at_gate(INVALIDATION_ENDED, 1, &mover->over);
	for (end = now_ns() + ns; now_ns() < end;)
		;
	zapped = zap(self->dev, mover->map, pages);
	if (mover->gate) {
		ASSERT_EQ(0, open_gate(INVALIDATION_ENDED));
	}
	while (atomic_load(&mover->done) < round)
		sched_yield();
	/*
	 * set_pmd_migration_entry() clears a device's entry first, for a moment. Who
	 * looks without the lock, as MADV_DONTNEED does too, finds nothing then.
	 */
	if (mover->way == FETCH && !zapped)
		zapped = zap(self->dev, mover->map, pages);
	ASSERT_EQ(pages, zapped);
	/* The first rounds touch the stack of the thread. */
	if (round > 2) {
		ASSERT_EQ(self->anon, status_kb("RssAnon"));
	}
	for (i = 0; i < pages; i++) {
		ASSERT_EQ(0, load(mover->map, i));
	}
}

/* How many migration entries a round of @mover has met. */
static unsigned int zap_at_gate(struct __test_metadata *_metadata, FIXTURE_DATA(zap) *self,
				struct mover *mover, uint64_t round)
{
	unsigned int before = get_fault(MIGRATIONS_ZAPPED);

	zap_while_moving(_metadata, self, mover, round, 0);
	return get_fault(MIGRATIONS_ZAPPED) - before;
}

/* @wanted rounds, or with the gate three of each kind. False if nothing moves. */
static bool rounds_with_mover(struct __test_metadata *_metadata, FIXTURE_DATA(zap) *self,
			      unsigned int wanted, bool gate)
{
	bool can_split = !access(SPLIT_HUGE_PAGES, W_OK), can_move = true;
	struct mover mover = { .map = map_thp(1), .gate = gate };
	struct rng rng = { test_seed() };
	uint64_t ns[2] = {}, round;

	can_split = can_split && mover.map;
	if (!mover.map)
		mover.map = reserve(PMD_PAGES, 0);
	ASSERT_NE(mover.map, NULL);
	snprintf(mover.split, sizeof(mover.split), "%d,0x%lx,0x%lx", getpid(),
		 (unsigned long)mover.map, (unsigned long)mover.map + pmd_size());
	pin_to_cpu(0);
	ASSERT_EQ(0, pthread_create(&mover.thread, NULL, mover_loop, &mover));
	for (round = 1; round <= (gate ? 6 : wanted); round++) {
		bool split = can_split && (round % 2 || !can_move);

		if (!can_split && !can_move)
			break;
		mover.way = split ? SPLIT : MOVE;
		if (gate) {
			unsigned int met = zap_at_gate(_metadata, self, &mover, round);

			if (split) {
				ASSERT_EQ(PMD_PAGES, met);
			} else if (!mover.refused) {
				ASSERT_EQ(1, met);
			}
		} else {
			zap_while_moving(_metadata, self, &mover, round,
					 rng_below(&rng, ns[split] + 1));
		}
		can_move = !mover.refused;
		ns[split] = min(mover.ns, MOVE_NS);
	}
	atomic_store(&mover.wanted, MOVER_END);
	pthread_join(mover.thread, NULL);
	TH_LOG("%llu rounds; the last split took %llu us, the last move %llu us",
	       (unsigned long long)round - 1, (unsigned long long)ns[1] / 1000,
	       (unsigned long long)ns[0] / 1000);
	return can_split || can_move;
}

/* The same of leaves of PMD size. */
static void rounds_with_device(struct __test_metadata *_metadata, FIXTURE_DATA(zap) *self,
			       unsigned int wanted, bool gate)
{
	struct mover mover = { .way = FETCH, .map = map_thp(1), .gate = gate };
	struct rng rng = { test_seed() };
	uint64_t ns = 0, round;

	OPEN_DMIRROR(mover.device);
	if (!mover.map)
		SKIP(return, "no huge pages");
	pin_to_cpu(0);
	ASSERT_EQ(0, pthread_create(&mover.thread, NULL, mover_loop, &mover));
	for (round = 1; round <= (gate ? 3 : wanted); round++) {
		if (gate) {
			ASSERT_EQ(1, zap_at_gate(_metadata, self, &mover, round));
		} else {
			zap_while_moving(_metadata, self, &mover, round, rng_below(&rng, ns + 1));
		}
		ns = min(mover.ns, MOVE_NS);
	}
	atomic_store(&mover.wanted, MOVER_END);
	pthread_join(mover.thread, NULL);
	close(mover.device);
	TH_LOG("%llu rounds; the last took %llu us", (unsigned long long)round - 1,
	       (unsigned long long)ns / 1000);
}

TEST_F_TIMEOUT(zap, migrating_leaf, TEST_SECONDS)
{
	if (nr_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	rounds_with_device(_metadata, self, rounds(MIGRATING_ROUNDS), false);
}

TEST_FAULTS(zap, control_migrating_leaf_is_met)
{
	if (nr_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	ASSERT_EQ(0, subscribe(self->dev, NULL, 0, MMOPS_NOTIFIER_MM));
	rounds_with_device(_metadata, self, 0, true);
}

TEST_F_TIMEOUT(zap, migrating, TEST_SECONDS)
{
	if (nr_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	if (!rounds_with_mover(_metadata, self, rounds(MIGRATING_ROUNDS), false))
		SKIP(return, "the kernel has neither CONFIG_MEMORY_FAILURE nor huge pages");
}

TEST_FAULTS(zap, control_migration_is_met)
{
	if (nr_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	ASSERT_EQ(0, subscribe(self->dev, NULL, 0, MMOPS_NOTIFIER_MM));
	if (!rounds_with_mover(_metadata, self, 0, true))
		SKIP(return, "the kernel has neither CONFIG_MEMORY_FAILURE nor huge pages");
}

TEST_HARNESS_MAIN
