// SPDX-License-Identifier: GPL-2.0
/*
 * MMOPS_IOC_EXCLUSIVE, MMOPS_IOC_REVOKE and MMOPS_IOC_ATOMIC_ADD: what becomes
 * of each kind of page, and of exclusive pages when something else happens to
 * them. The oracles are the contents, pagemap, faults, /proc/self/status and
 * the files of a memory cgroup.
 *
 * MMOPS_DISK is a directory on a disk file system, for a swap file.
 */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>

#include "cgroup.h"
#include "exclusive.h"
#include "faults.h"
#include "flushes.h"
#include "gup_test.h"
#include "kselftest_harness.h"
#include "ksm.h"
#include "mmops_ref.h"
#include "notifier.h"
#include "swap.h"

#define PAGES		1000UL
/* Newer than the headers of some distributions. */
#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON		_IOWR(UFFDIO, 0x08, struct uffdio_poison)
#define UFFD_FEATURE_POISON	(1 << 14)
#endif

FIXTURE(exclusive)
{
	int dev;
};

FIXTURE_SETUP(exclusive)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
}

FIXTURE_TEARDOWN(exclusive)
{
}

FIXTURE_FAULTS(exclusive);

TEST_F_TIMEOUT(exclusive, anon, TEST_SECONDS)
{
	char *map = map_stored(PAGES);
	uint8_t results[PAGES];
	long rss, faults;
	size_t i;

	ASSERT_NE(map, NULL);
	status_kb("RssAnon");
	rss = status_kb("RssAnon");
	ASSERT_EQ(700, exclusive_of(self->dev, -1, map + 100 * page_size(), 700, results));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(i >= 100 && i < 800, is_exclusive(map + i * page_size()));
	}
	for (i = 0; i < 700; i++) {
		ASSERT_EQ(MMOPS_PAGE_EXCLUSIVE, results[i]);
	}
	/* The pages stay charged. */
	ASSERT_EQ(rss, status_kb("RssAnon"));
	/* Once more; the pages stay exclusive. */
	ASSERT_EQ(800, exclusive(self->dev, map, 800));
	ASSERT_EQ(800, count_exclusive(map, PAGES));
	/* A fault gives one page back. */
	faults = minor_faults();
	ASSERT_EQ(1 + 300, load(map, 300));
	ASSERT_EQ(faults + 1, minor_faults());
	ASSERT_EQ(799, count_exclusive(map, PAGES));
	store(map, 301, 7);
	ASSERT_EQ(798, count_exclusive(map, PAGES));
	/* The rest comes back without. */
	ASSERT_EQ(798, give_back(self->dev, map, PAGES));
	ASSERT_EQ(0, count_exclusive(map, PAGES));
	ASSERT_EQ(0, give_back(self->dev, map, PAGES));
	faults = minor_faults();
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(i == 301 ? 7 : 1 + i, load(map, i));
		store(map, i, i);
	}
	ASSERT_EQ(faults, minor_faults());
	ASSERT_EQ(rss, status_kb("RssAnon"));
}

/* What is not there yet is faulted in. */
TEST_F_TIMEOUT(exclusive, not_there, TEST_SECONDS)
{
	char *map = map_anon(3 * PMD_PAGES);
	size_t i;

	ASSERT_NE(map, NULL);
	madvise(map, 3 * pmd_size(), MADV_NOHUGEPAGE);
	/* The shared zero page, a page of its own, and nothing. */
	load(map, 10);
	store(map, 20, 20);
	ASSERT_EQ(3 * PMD_PAGES, exclusive(self->dev, map, 3 * PMD_PAGES));
	ASSERT_EQ(3 * PMD_PAGES, count_exclusive(map, 3 * PMD_PAGES));
	for (i = 0; i < 3 * PMD_PAGES; i++) {
		ASSERT_EQ(i == 20 ? 20 : 0, load(map, i));
	}
}

/* Each page has its own result. */
TEST_F_TIMEOUT(exclusive, results, TEST_SECONDS)
{
	char *map = map_stored(PAGES);
	int fd = new_memfd(100);
	uint8_t results[PAGES];
	size_t i;

	ASSERT_NE(map, NULL);
	store_range(map, 0, PAGES, 1);
	ASSERT_EQ(0, munmap(map + 100 * page_size(), 100 * page_size()));
	ASSERT_EQ(0, mprotect(map + 300 * page_size(), 50 * page_size(), PROT_READ));
	ASSERT_EQ(0, mprotect(map + 350 * page_size(), 50 * page_size(), PROT_NONE));
	ASSERT_NE(map_at(map + 400 * page_size(), fd, 0, 100, PROT_READ | PROT_WRITE, MAP_SHARED),
		  NULL);
	/* What is private of a file becomes anonymous. */
	ASSERT_NE(map_at(map + 600 * page_size(), fd, 0, 100, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE), NULL);
	load_range(map, 600, 50);
	ASSERT_EQ(PAGES - 300, exclusive_of(self->dev, -1, map, PAGES, results));
	for (i = 0; i < PAGES; i++) {
		int want = MMOPS_PAGE_EXCLUSIVE;

		if (i >= 100 && i < 200)
			want = MMOPS_PAGE_UNMAPPED;
		if (i >= 300 && i < 400)
			want = MMOPS_PAGE_READ_ONLY;
		if (i >= 400 && i < 500)
			want = MMOPS_PAGE_NOT_ANONYMOUS;
		ASSERT_EQ(want, results[i]);
	}
	ASSERT_EQ(PAGES - 300, give_back(self->dev, map, PAGES));
}

/* What cannot be faulted in: nothing is there, nor will be. */
TEST_F_TIMEOUT(exclusive, fault, TEST_SECONDS)
{
	const size_t size = page_size();
	char *map = map_stored(PAGES);
	int fd = new_memfd(4);
	uint8_t results[PAGES];
	size_t i;

	ASSERT_NE(map, NULL);
	if (madvise(map + 100 * size, 10 * size, MADV_GUARD_INSTALL))
		SKIP(return, "no guard pages");
	/* Private, and behind the end of the file from its fifth page on. */
	ASSERT_NE(map_at(map + 200 * size, fd, 0, 10, PROT_READ | PROT_WRITE, MAP_PRIVATE), NULL);
	ASSERT_EQ(PAGES - 16, exclusive_of(self->dev, -1, map, PAGES, results));
	for (i = 0; i < PAGES; i++) {
		bool fault = (i >= 100 && i < 110) || (i >= 204 && i < 210);

		ASSERT_EQ(fault ? MMOPS_PAGE_FAULT : MMOPS_PAGE_EXCLUSIVE, results[i]);
	}
	ASSERT_EQ(-EFAULT, atomic_add(self->dev, map + 100 * size, 8, 1, 1, 1, NULL));
	ASSERT_EQ(PAGES - 16, give_back(self->dev, map, PAGES));
	ASSERT_EQ(0, load(map, 200));
}

TEST_F_TIMEOUT(exclusive, hugetlb, TEST_SECONDS)
{
	uint8_t results[PMD_PAGES];
	char *map;
	size_t i;

	write_file("/proc/sys/vm/nr_hugepages", "1");
	map = mmap(NULL, pmd_size(), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (map == MAP_FAILED) {
		write_file("/proc/sys/vm/nr_hugepages", "0");
		SKIP(return, "no page of hugetlbfs");
	}
	store(map, 0, 7);
	ASSERT_EQ(0, exclusive_of(self->dev, -1, map, PMD_PAGES, results));
	for (i = 0; i < PMD_PAGES; i++) {
		ASSERT_EQ(MMOPS_PAGE_HUGETLB, results[i]);
	}
	ASSERT_EQ(0, give_back(self->dev, map, PMD_PAGES));
	ASSERT_EQ(-EFAULT, atomic_add(self->dev, map, 8, 1, 1, 1, NULL));
	ASSERT_EQ(7, load(map, 0));
	ASSERT_EQ(0, munmap(map, pmd_size()));
	write_file("/proc/sys/vm/nr_hugepages", "0");
}

static void ignore_signal(int signal)
{
	(void)signal;
}

/* Broken memory, by memory failure and as userfaultfd feigns it. */
TEST_F_TIMEOUT(exclusive, poisoned, TEST_SECONDS)
{
	const size_t size = page_size();
	char *map = map_stored(20);
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_POISON };
	struct uffdio_register reg = {
		.range = { (uintptr_t)map + 5 * size, 5 * size },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_poison poison = { .range = { (uintptr_t)map + 5 * size, 2 * size } };
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	int want[20] = {};
	uint8_t results[20];
	int64_t left = 20;
	size_t i;

	ASSERT_NE(map, NULL);
	/* Processes are told of a failure at once. */
	signal(SIGBUS, ignore_signal);
	if (!madvise(map + 15 * size, size, MADV_HWPOISON))
		want[15] = MMOPS_PAGE_POISONED;
	signal(SIGBUS, SIG_DFL);
	ASSERT_EQ(0, madvise(map + 5 * size, 5 * size, MADV_DONTNEED));
	if (fd >= 0 && !ioctl(fd, UFFDIO_API, &api) && !ioctl(fd, UFFDIO_REGISTER, &reg)) {
		ASSERT_EQ(0, ioctl(fd, UFFDIO_POISON, &poison));
		for (i = 5; i < 10; i++)
			want[i] = i < 7 ? MMOPS_PAGE_POISONED : MMOPS_PAGE_USERFAULTFD;
	}
	if (!want[5] && !want[15])
		SKIP(return, "neither memory failure nor UFFDIO_POISON");
	for (i = 0; i < 20; i++)
		left -= !!want[i];
	ASSERT_EQ(left, exclusive_of(self->dev, -1, map, 20, results));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(want[i] ? want[i] : MMOPS_PAGE_EXCLUSIVE, results[i]) {
			TH_LOG("page %zu", i);
		}
		if (!want[i]) {
			ASSERT_TRUE(is_exclusive(map + i * size));
		}
	}
	ASSERT_EQ(left, give_back(self->dev, map, 20));
	if (want[15]) {
		ASSERT_EQ(-EFAULT, atomic_add(self->dev, map + 15 * size, 8, 1, 1, 1, NULL));
	}
	ASSERT_EQ(1, load(map, 0));
	close(fd);
}

/* A private mapping of a file whose pages userspace wants to be asked for when they are mapped. */
TEST_F_TIMEOUT(exclusive, userfaultfd_minor, TEST_SECONDS)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MINOR_SHMEM };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MINOR };
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	int fd = new_memfd(8);
	uint8_t results[8];
	size_t i;
	char *map;

	map = mmap(NULL, 8 * page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, map);
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(8, pwrite(fd, &i, 8, i * page_size()));
	}
	store_range(map, 0, 3, 7);
	reg.range.start = (uintptr_t)map;
	reg.range.len = 8 * page_size();
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg))
		SKIP(return, "no userfaultfd of minor faults");
	ASSERT_EQ(3, exclusive_of(self->dev, -1, map, 8, results));
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(i < 3 ? MMOPS_PAGE_EXCLUSIVE : MMOPS_PAGE_USERFAULTFD, results[i]);
	}
	ASSERT_EQ(3, give_back(self->dev, map, 8));
	close(uffd);
	ASSERT_EQ(7, load(map, 0));
	ASSERT_EQ(5, load(map, 5));
}

/*
 * A device is programmed with several batches of all kinds of pages, over
 * borders of mappings and tables: it has those that are exclusive and no other.
 */
TEST_F_TIMEOUT(exclusive, batches, TEST_SECONDS)
{
	const size_t pages = 3 * PMD_PAGES, size = page_size(), first = 50, nr = 1450;
	char *map = reserve(pages, 0), *thp = map_thp(1);
	struct mmops_ref_program arg = {
		.addr = (uintptr_t)map + first * size,
		.len = nr * size,
		.value = 123456789,
	};
	const int rw = PROT_READ | PROT_WRITE;
	int want[3 * PMD_PAGES] = {}, fd = new_memfd(10), ref;
	uint8_t results[1450];
	int64_t count = 0;
	size_t i;

	OPEN_DEV(ref, "/dev/mmops_ref");
	ASSERT_NE(map, NULL);
	ASSERT_NE(map_at(map, -1, 0, pages, rw, MAP_PRIVATE | MAP_ANONYMOUS), NULL);
	ASSERT_EQ(0, madvise(map, pages * size, MADV_NOHUGEPAGE));
	store_range(map, 0, pages, 1);
	/* A huge leaf between tables of base pages, if there is one. */
	if (thp) {
		ASSERT_EQ(map + pmd_size(), mremap(thp, pmd_size(), pmd_size(),
						   MREMAP_MAYMOVE | MREMAP_FIXED,
						   map + pmd_size()));
		store_range(map, PMD_PAGES, PMD_PAGES, 1 + PMD_PAGES);
	}
	ASSERT_EQ(0, munmap(map + 100 * size, 10 * size));
	ASSERT_EQ(0, mprotect(map + 200 * size, 10 * size, PROT_READ));
	ASSERT_EQ(0, madvise(map + 400 * size, 60 * size, MADV_DONTNEED));
	ASSERT_NE(map_at(map + 1100 * size, fd, 0, 10, rw, MAP_SHARED), NULL);
	/* In one batch with what is around it. */
	ASSERT_EQ(0, madvise(map + 1200 * size, 10 * size, MADV_GUARD_INSTALL));
	for (i = 0; i < 10; i++) {
		want[100 + i] = MMOPS_PAGE_UNMAPPED;
		want[200 + i] = MMOPS_PAGE_READ_ONLY;
		want[1100 + i] = MMOPS_PAGE_NOT_ANONYMOUS;
		want[1200 + i] = MMOPS_PAGE_FAULT;
	}
	arg.results = (uintptr_t)results;
	ASSERT_EQ(0, ioctl(ref, MMOPS_REF_IOC_PROGRAM, &arg));
	for (i = first; i < first + nr; i++) {
		if (!want[i]) {
			want[i] = MMOPS_PAGE_EXCLUSIVE;
			count++;
		}
		ASSERT_EQ(want[i], results[i - first]) {
			TH_LOG("page %zu", i);
		}
	}
	ASSERT_EQ(nr - 40, count);
	ASSERT_EQ(count, arg.count);
	ASSERT_EQ(count, arg.programmed);
	/* 512 pages or a border of a mapping end one. */
	ASSERT_GE(arg.batches, 5);
	ASSERT_LT(arg.batches, 50);
	for (i = 0; i < pages; i++) {
		if (want[i] == MMOPS_PAGE_UNMAPPED || want[i] == MMOPS_PAGE_FAULT)
			continue;
		if (want[i] != MMOPS_PAGE_NOT_ANONYMOUS) {
			ASSERT_EQ(want[i] == MMOPS_PAGE_EXCLUSIVE, is_exclusive(map + i * size));
		}
		ASSERT_EQ(want[i] == MMOPS_PAGE_EXCLUSIVE ? 123456789 :
			  want[i] == MMOPS_PAGE_NOT_ANONYMOUS ? 0 : 1 + i, load(map, i)) {
			TH_LOG("page %zu", i);
		}
		/* No folio is left locked: a store faults, or is of no use. */
		if (want[i] != MMOPS_PAGE_READ_ONLY)
			store(map, i, i);
	}
	if (!thp)
		TH_LOG("without a huge leaf");
	close(ref);
}

/* Huge leaves are split; the pages share one folio and its lock. */
TEST_F_TIMEOUT(exclusive, huge, TEST_SECONDS)
{
	char *map = map_thp(3);
	size_t i;
	long rss;

	if (!map)
		SKIP(return, "no huge pages");
	rss = status_kb("RssAnon");
	ASSERT_EQ(1, exclusive(self->dev, map + 5 * page_size(), 1));
	ASSERT_EQ(2 * pmd_size() / 1024, smaps_kb(map, "AnonHugePages"));
	ASSERT_EQ(1, count_exclusive(map, 3 * PMD_PAGES));
	ASSERT_EQ(3 * PMD_PAGES, exclusive(self->dev, map, 3 * PMD_PAGES));
	ASSERT_EQ(3 * PMD_PAGES, count_exclusive(map, 3 * PMD_PAGES));
	ASSERT_EQ(rss, status_kb("RssAnon"));
	ASSERT_EQ(PMD_PAGES, give_back(self->dev, map, PMD_PAGES));
	for (i = 0; i < 3 * PMD_PAGES; i++) {
		ASSERT_EQ(1 + i, load(map, i));
	}
}

TEST_F_TIMEOUT(exclusive, fork, TEST_SECONDS)
{
	char *map = map_stored(PAGES);
	size_t i, wrong = 0;
	int status;
	pid_t pid;

	ASSERT_NE(map, NULL);
	ASSERT_EQ(PAGES, exclusive(self->dev, map, PAGES));
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		for (i = 0; i < PAGES; i++)
			wrong += load(map, i) != 1 + i;
		store_range(map, 0, PAGES, 5000);
		_exit(!!wrong);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	/* The parent keeps its own pages, and can have them exclusive again. */
	ASSERT_EQ(PAGES, exclusive(self->dev, map, PAGES));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(1 + i, load(map, i));
	}
}

TEST_F_TIMEOUT(exclusive, mprotect, TEST_SECONDS)
{
	char *map = map_stored(PAGES);
	size_t i;

	ASSERT_NE(map, NULL);
	ASSERT_EQ(PAGES, exclusive(self->dev, map, PAGES));
	ASSERT_EQ(0, mprotect(map, PAGES * page_size(), PROT_READ));
	for (i = 0; i < PAGES; i += 2) {
		ASSERT_EQ(1 + i, load(map, i));
	}
	/* What a mapping permits, and no more, comes back without a fault. */
	ASSERT_EQ(PAGES / 2, give_back(self->dev, map, PAGES));
	ASSERT_EQ(MMOPS_PAGE_READ_ONLY, exclusive_result(self->dev, map));
	ASSERT_EQ(0, mprotect(map, PAGES * page_size(), PROT_READ | PROT_WRITE));
	store_range(map, 0, PAGES, 9);
	ASSERT_EQ(PAGES, exclusive(self->dev, map, PAGES));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(9 + i, load(map, i));
	}
}

TEST_F_TIMEOUT(exclusive, mremap_munmap, TEST_SECONDS)
{
	char *map = map_stored(PAGES), *to = reserve(PAGES, 3);
	long rss;
	size_t i;

	ASSERT_NE(map, NULL);
	ASSERT_NE(to, NULL);
	rss = status_kb("RssAnon");
	ASSERT_EQ(PAGES, exclusive(self->dev, map, PAGES));
	map = mremap(map, PAGES * page_size(), PAGES * page_size(), MREMAP_MAYMOVE | MREMAP_FIXED,
		     to);
	ASSERT_EQ(to, map);
	ASSERT_EQ(PAGES, count_exclusive(map, PAGES));
	for (i = 0; i < PAGES; i += 2) {
		ASSERT_EQ(1 + i, load(map, i));
	}
	ASSERT_EQ(PAGES / 2, count_exclusive(map, PAGES));
	ASSERT_EQ(0, madvise(map, 100 * page_size(), MADV_DONTNEED));
	ASSERT_EQ(rss - pages_kb(100), status_kb("RssAnon"));
	ASSERT_EQ(0, load(map, 1));
	ASSERT_EQ(0, munmap(map, PAGES * page_size()));
	ASSERT_EQ(rss - pages_kb(PAGES), status_kb("RssAnon"));
}

/* A process may end with exclusive pages; another one may take them from it. */
TEST_F_TIMEOUT(exclusive, exit_and_pidfd, TEST_SECONDS)
{
	char *map = map_stored(PAGES);
	int pidfd, status;
	pid_t pid;

	ASSERT_NE(map, NULL);
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		store_range(map, 0, PAGES, 3);
		exclusive(self->dev, map, PAGES);
		raise(SIGSTOP);
		pause();
	}
	ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
	pidfd = syscall(__NR_pidfd_open, pid, 0);
	ASSERT_GE(pidfd, 0);
	ASSERT_EQ(100, revoke_of(self->dev, pidfd, map, 100));
	ASSERT_EQ(PAGES, exclusive_of(self->dev, pidfd, map, PAGES, NULL));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(-ESRCH, exclusive_of(self->dev, pidfd, map, PAGES, NULL));
	ASSERT_EQ(-ESRCH, revoke_of(self->dev, pidfd, map, PAGES));
	ASSERT_EQ(-EBADF, exclusive_of(self->dev, self->dev, map, PAGES, NULL));
	close(pidfd);
	ASSERT_EQ(2, load(map, 1));
}

/* Pages that somebody has pinned for reading and writing, by the kernel's gup_test. */
TEST_F_TIMEOUT(exclusive, pinned, TEST_SECONDS)
{
	char *map = map_stored(PAGES);
	struct pin_longterm_test pin = {
		.addr = (uintptr_t)map + 10 * page_size(),
		.size = 20 * page_size(),
		.flags = PIN_LONGTERM_TEST_FLAG_USE_WRITE,
	};
	int fd = open("/sys/kernel/debug/gup_test", O_RDWR | O_CLOEXEC);
	uint8_t results[PAGES];
	size_t i;

	ASSERT_NE(map, NULL);
	if (fd < 0)
		SKIP(return, "no gup_test in debugfs");
	ASSERT_EQ(0, ioctl(fd, PIN_LONGTERM_TEST_START, &pin));
	ASSERT_EQ(PAGES - 20, exclusive_of(self->dev, -1, map, PAGES, results));
	for (i = 0; i < PAGES; i++) {
		bool pinned = i >= 10 && i < 30;

		ASSERT_EQ(pinned ? MMOPS_PAGE_PINNED : MMOPS_PAGE_EXCLUSIVE, results[i]);
		ASSERT_EQ(!pinned, is_exclusive(map + i * page_size()));
	}
	ASSERT_EQ(0, ioctl(fd, PIN_LONGTERM_TEST_STOP));
	ASSERT_EQ(PAGES, exclusive(self->dev, map, PAGES));
	close(fd);
}

/* What KSM has merged stays so. */
TEST_F_TIMEOUT(exclusive, ksm, TEST_SECONDS)
{
	char *map = map_stored(PAGES);
	uint8_t results[100];
	size_t i, merged = 0;

	ASSERT_NE(map, NULL);
	for (i = 0; i < 100; i++)
		memset(map + i * page_size(), 0x5a, page_size());
	ASSERT_EQ(0, madvise(map, 100 * page_size(), MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_merge(map + 99 * page_size()));
	ASSERT_GE(exclusive_of(self->dev, -1, map, 100, results), 0);
	for (i = 0; i < 100; i++)
		merged += results[i] == MMOPS_PAGE_KSM;
	ASSERT_EQ(MMOPS_PAGE_KSM, results[99]);
	ASSERT_GE(merged, 2);
	ASSERT_EQ(100 - merged, count_exclusive(map, 100));
	/* A store takes a page out of the merger. */
	store(map, 99, 1);
	ASSERT_EQ(MMOPS_PAGE_EXCLUSIVE, exclusive_result(self->dev, map + 99 * page_size()));
	ASSERT_EQ(0x5a5a5a5a5a5a5a5aULL, load(map, 5));
}

/* Nobody but userspace decides about a write-protected page. */
TEST_F_TIMEOUT(exclusive, userfaultfd, TEST_SECONDS)
{
	char *map = map_stored(PAGES);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)map, PAGES * page_size() },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)map + 10 * page_size(), 20 * page_size() },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	uint8_t results[PAGES];
	size_t i;

	ASSERT_NE(map, NULL);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
		SKIP(return, "no userfaultfd write protection: %s", strerror(errno));
	ASSERT_EQ(0, ioctl(fd, UFFDIO_WRITEPROTECT, &wp));
	ASSERT_EQ(PAGES - 20, exclusive_of(self->dev, -1, map, PAGES, results));
	for (i = 0; i < PAGES; i++) {
		bool wp = i >= 10 && i < 30;

		ASSERT_EQ(wp ? MMOPS_PAGE_USERFAULTFD : MMOPS_PAGE_EXCLUSIVE, results[i]);
		ASSERT_EQ(wp, !!(pagemap_entry(map + i * page_size()) & PAGEMAP_UFFD_WP));
	}
	/* An exclusive page that is protected afterwards keeps that when it comes back. */
	wp.range.start = (uintptr_t)map + 100 * page_size();
	ASSERT_EQ(0, ioctl(fd, UFFDIO_WRITEPROTECT, &wp));
	/* A page that is exclusive already is no way around userfaultfd. */
	ASSERT_TRUE(is_exclusive(map + 100 * page_size()));
	ASSERT_EQ(MMOPS_PAGE_USERFAULTFD, exclusive_result(self->dev, map + 100 * page_size()));
	ASSERT_EQ(MMOPS_PAGE_EXCLUSIVE, exclusive_result(self->dev, map + 99 * page_size()));
	ASSERT_EQ(200, give_back(self->dev, map + 50 * page_size(), 200));
	for (i = 50; i < 250; i++) {
		ASSERT_EQ(i >= 100 && i < 120,
			  !!(pagemap_entry(map + i * page_size()) & PAGEMAP_UFFD_WP));
		ASSERT_EQ(1 + i, load(map, i));
	}
	ASSERT_EQ(MMOPS_PAGE_USERFAULTFD, exclusive_result(self->dev, map + 100 * page_size()));
	close(fd);
}

/* The mark of a page stays what it was, there and back. */
TEST_F_TIMEOUT(exclusive, soft_dirty, TEST_SECONDS)
{
	char *map = map_stored(PAGES);
	size_t i;

	ASSERT_NE(map, NULL);
	if (!(pagemap_entry(map) & PAGEMAP_SOFT_DIRTY) ||
	    write_file("/proc/self/clear_refs", "4"))
		SKIP(return, "no soft-dirty bits");
	store_range(map, 0, 100, 5);
	ASSERT_EQ(100, exclusive(self->dev, map, 100));
	for (i = 0; i < 100; i++) {
		ASSERT_TRUE(pagemap_entry(map + i * page_size()) & PAGEMAP_SOFT_DIRTY);
	}
	/* Cleared while exclusive: then it comes back clean. */
	ASSERT_EQ(50, soft_dirty_clear(self->dev, map, 50));
	ASSERT_EQ(100, give_back(self->dev, map, 100));
	for (i = 0; i < 100; i++) {
		ASSERT_EQ(i >= 50, !!(pagemap_entry(map + i * page_size()) & PAGEMAP_SOFT_DIRTY));
	}
	load_range(map, 0, 100);
	ASSERT_FALSE(pagemap_entry(map) & PAGEMAP_SOFT_DIRTY);
	store(map, 0, 1);
	ASSERT_TRUE(pagemap_entry(map) & PAGEMAP_SOFT_DIRTY);
	/* Cleared while exclusive, and given to a device again, which stores to it. */
	ASSERT_EQ(10, exclusive(self->dev, map, 10));
	ASSERT_LE(1, soft_dirty_clear(self->dev, map, 10));
	ASSERT_EQ(5, exclusive(self->dev, map, 5));
	ASSERT_EQ(10, give_back(self->dev, map, 10));
	for (i = 0; i < 10; i++) {
		ASSERT_EQ(i < 5, !!(pagemap_entry(map + i * page_size()) & PAGEMAP_SOFT_DIRTY));
	}
}

TEST_F_TIMEOUT(exclusive, swapped, TEST_SECONDS)
{
	const size_t pages = 2000;
	char *map = map_stored(pages);
	struct swap_file swap;
	const char *why;
	size_t i, n;
	int64_t ret;
	long used;

	ASSERT_NE(map, NULL);
	why = add_swap(&swap);
	if (why)
		SKIP(return, "%s", why);
	n = swap_out(map, pages);
	ret = exclusive(self->dev, map, pages);
	used = status_kb("VmSwap");
	/* MADV_PAGEOUT passes over what a device has. */
	swap_out(map, pages);
	EXPECT_EQ(0, status_kb("VmSwap"));
	for (i = 0; i < pages && load(map, i) == 1 + i; i++)
		;
	EXPECT_EQ(0, remove_swap(&swap));
	ASSERT_LE(pages / 2, n);
	ASSERT_EQ(pages, ret);
	ASSERT_EQ(0, used);
	ASSERT_EQ(pages, i);
}

/* The pages stay charged to the cgroup of their process, and are let go with it. */
TEST_F_TIMEOUT(exclusive, memcg, TEST_SECONDS)
{
	const char *why = make_cgroup();
	const size_t pages = 4000;
	long charged, during, after, left;
	int status, fds[2], back[2];
	char byte, *map;
	pid_t pid;

	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(0, pipe(back));
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		if (write_file(CGROUP_DIR "/cgroup.procs", "0"))
			_exit(1);
		map = map_stored(pages);
		if (!map || write(back[1], "", 1) != 1 || read(fds[0], &byte, 1) != 1)
			_exit(2);
		if (exclusive(self->dev, map, pages) != (int64_t)pages ||
		    write(back[1], "", 1) != 1 || read(fds[0], &byte, 1) != 1)
			_exit(3);
		if (munmap(map, pages * page_size()) || write(back[1], "", 1) != 1 ||
		    read(fds[0], &byte, 1) != 1)
			_exit(4);
		_exit(0);
	}
	close(back[1]);
	ASSERT_EQ(1, read(back[0], &byte, 1));
	charged = cgroup_pages(CGROUP_DIR, "memory.current");
	ASSERT_EQ(1, write(fds[1], "", 1));
	ASSERT_EQ(1, read(back[0], &byte, 1));
	during = cgroup_pages(CGROUP_DIR, "memory.current");
	ASSERT_EQ(1, write(fds[1], "", 1));
	ASSERT_EQ(1, read(back[0], &byte, 1));
	after = cgroup_pages(CGROUP_DIR, "memory.current");
	ASSERT_EQ(1, write(fds[1], "", 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	left = remove_cgroup();
	/* The charge is made in steps of 64 pages for each CPU. */
	ASSERT_GE(charged, (long)pages);
	ASSERT_LE(labs(during - charged), 64L * nr_cpus());
	ASSERT_LE(after, charged - (long)pages + 64L * nr_cpus());
	ASSERT_EQ(0, left);
}

/* What pagemap calls the swap file: that of an exclusive page is none. */
static unsigned int swap_type(const void *addr)
{
	uint64_t entry = pagemap_entry(addr);

	return entry & PAGEMAP_SWAP ? entry & 0x1f : ~0U;
}

/*
 * Reclaim swaps exclusive pages out, and tells the device of each page before.
 * What the device stored is not lost by it.
 */
TEST_F_TIMEOUT(exclusive, reclaimed, TEST_SECONDS)
{
	const size_t pages = 100, size = page_size();
	struct mmops_ref_program arg = { .len = pages * size, .value = 123456789 };
	struct heard *heard = malloc(sizeof(*heard));
	unsigned int type, i, told = 0, round;
	const char *why = make_cgroup();
	uint8_t results[100];
	bool is_told[100] = {};
	struct swap_file swap;
	size_t n = 0, right;
	char *map;
	int ref;

	if (why)
		SKIP(return, "%s", why);
	why = add_swap(&swap);
	if (why) {
		remove_cgroup();
		SKIP(return, "%s", why);
	}
	ASSERT_NE(heard, NULL);
	ref = open(MMOPS_REF_DEV, O_RDWR | O_CLOEXEC);
	/* What is mapped from now on is the cgroup's. */
	EXPECT_EQ(0, write_file(CGROUP_DIR "/cgroup.procs", "0"));
	map = map_stored(pages);
	arg.addr = (uintptr_t)map;
	arg.results = (uintptr_t)results;
	EXPECT_EQ(0, ioctl(ref, MMOPS_REF_IOC_PROGRAM, &arg));
	type = swap_type(map);
	/* MADV_PAGEOUT passes over them. */
	swap_out(map, pages);
	for (i = 0; i < pages; i++) {
		EXPECT_EQ(type, swap_type(map + i * size));
	}
	EXPECT_EQ(0, subscribe(self->dev, map, pages, 0));
	for (round = 0; round < 20 && n < pages; round++) {
		/* It cannot get as much, and says so. */
		write_file(CGROUP_DIR "/memory.reclaim", "64M");
		for (i = n = 0; i < pages; i++)
			n += swap_type(map + i * size) < type;
		while (hear(self->dev, map, heard, 0) > 0) {
			for (i = 0; i < heard->nr; i++) {
				size_t page = (heard->events[i].start - (uintptr_t)map) / size;

				EXPECT_STREQ("clear", event_name(heard->events[i].event));
				is_told[page] = true;
			}
		}
	}
	write_file(CGROUP_ROOT "/cgroup.procs", "0");
	for (i = right = 0; i < pages; i++) {
		told += is_told[i];
		right += load(map, i) == 123456789;
	}
	EXPECT_EQ(pages, exclusive(self->dev, map, pages));
	EXPECT_EQ(pages, give_back(self->dev, map, pages));
	EXPECT_EQ(0, munmap(map, pages * size));
	EXPECT_EQ(0, remove_swap(&swap));
	EXPECT_EQ(0, remove_cgroup());
	close(ref);
	free(heard);
	ASSERT_EQ(pages, arg.programmed);
	ASSERT_EQ(pages, n);
	ASSERT_EQ(pages, told);
	ASSERT_EQ(pages, right);
}

/* One event for a batch, and one for what is given back; its own are left out. */
TEST_F_TIMEOUT(exclusive, events, TEST_SECONDS)
{
	int other = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
	char *map = map_stored(PAGES);
	struct heard *heard = malloc(sizeof(*heard));

	ASSERT_GE(other, 0);
	ASSERT_NE(map, NULL);
	ASSERT_NE(heard, NULL);
	ASSERT_EQ(0, subscribe(self->dev, map, PAGES, MMOPS_NOTIFIER_FILTER));
	ASSERT_EQ(0, subscribe(other, map, PAGES, MMOPS_NOTIFIER_FILTER));
	ASSERT_EQ(200, exclusive(self->dev, map + 100 * page_size(), 200));
	ASSERT_GE(hear(other, map, heard, 0), 0);
	ASSERT_STREQ("exclusive 100-300", heard->text);
	ASSERT_GE(hear(self->dev, map, heard, 0), 0);
	ASSERT_STREQ("", heard->text);
	/* The other one takes them over. */
	ASSERT_EQ(200, exclusive(other, map + 100 * page_size(), 200));
	ASSERT_GE(hear(self->dev, map, heard, 0), 0);
	ASSERT_STREQ("exclusive 100-300", heard->text);
	ASSERT_GE(hear(other, map, heard, 0), 0);
	ASSERT_STREQ("", heard->text);
	/* A fault gives one page back, a call the rest: whoever has it has to let go. */
	load(map, 150);
	ASSERT_EQ(199, give_back(self->dev, map, PAGES / 2));
	ASSERT_GE(hear(other, map, heard, 0), 0);
	ASSERT_STREQ("clear 150-151, clear 100-300", heard->text);
	ASSERT_GE(hear(self->dev, map, heard, 0), 0);
	ASSERT_STREQ("clear 150-151, clear 100-300", heard->text);
	close(other);
	free(heard);
}

/*
 * Flushes that another CPU is asked for by making @pages exclusive, or by giving
 * them back: of @wanted if a round has so many, else of the last one.
 */
static uint64_t remote_flushes(struct __test_metadata *_metadata, FIXTURE_DATA(exclusive) *self,
			       char *map, size_t pages, bool back, uint64_t wanted)
{
	uint64_t flushes = ~0ULL;
	unsigned int round;

	for (round = 0; round < FLUSH_ROUNDS && flushes != wanted; round++) {
		if (back) {
			ASSERT_EQ(pages, exclusive(self->dev, map, pages));
		}
		flushes = vmstat("nr_tlb_remote_flush");
		ASSERT_EQ(pages, back ? give_back(self->dev, map, pages) :
					exclusive(self->dev, map, pages));
		flushes = vmstat("nr_tlb_remote_flush") - flushes;
		ASSERT_EQ(back ? 0 : pages, give_back(self->dev, map, pages));
	}
	return flushes;
}

/* One TLB flush for a batch of 512 pages, and none to give them back. */
TEST_F_TIMEOUT(exclusive, one_flush, TEST_SECONDS)
{
	struct spinner spinner = { .map = map_stored(1) };
	char *map = map_stored(3 * PMD_PAGES);
	uint64_t one, part, three, back;

	ASSERT_NE(map, NULL);
	ASSERT_NE(spinner.map, NULL);
	if (nr_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	ASSERT_EQ(0, spinner_start(&spinner));
	if (!vmstat("nr_tlb_remote_flush")) {
		spinner_stop(&spinner);
		SKIP(return, "the kernel does not count TLB flushes");
	}
	one = remote_flushes(_metadata, self, map, PMD_PAGES, false, 1);
	part = remote_flushes(_metadata, self, map + 100 * page_size(), 30, false, 1);
	three = remote_flushes(_metadata, self, map, 3 * PMD_PAGES, false, 3);
	back = remote_flushes(_metadata, self, map, 3 * PMD_PAGES, true, 0);
	spinner_stop(&spinner);
	TH_LOG("flushes of 512 pages: %llu, of 30: %llu, of 1536: %llu, to give these back: %llu",
	       (unsigned long long)one, (unsigned long long)part, (unsigned long long)three,
	       (unsigned long long)back);
	ASSERT_EQ(1, one);
	ASSERT_EQ(1, part);
	ASSERT_EQ(3, three);
	ASSERT_EQ(0, back);
}

/*
 * A driver that asks for pages where its device is programmed for others gets an
 * error, and not a deadlock, even with another guard of the mmap lock. That such
 * a guard is taken, lockdep tells.
 */
TEST_F_TIMEOUT(exclusive, nested, TEST_SECONDS)
{
	struct mmops_ref_nested arg = {
		.addr = (uintptr_t)map_stored(20), .len = 20 * page_size(),
	};
	char *map = (char *)arg.addr;
	size_t i;
	int ref;

	OPEN_DEV(ref, MMOPS_REF_DEV);
	ASSERT_NE(map, NULL);
	if (is_debug_kernel())
		SKIP(return, "lockdep reports the second guard");
	ASSERT_EQ(0, ioctl(ref, MMOPS_REF_IOC_NESTED, &arg));
	ASSERT_EQ(1, arg.programmed);
	ASSERT_EQ(-EDEADLK, arg.make);
	ASSERT_EQ(-EDEADLK, arg.take);
	ASSERT_EQ(-EDEADLK, arg.revoke);
	ASSERT_EQ(-EDEADLK, arg.fault);
	ASSERT_EQ(20, count_exclusive(map, 20));
	ASSERT_EQ(20, give_back(self->dev, map, 20));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(1 + i, load(map, i));
	}
	close(ref);
}

static int64_t raw(int dev, uint64_t addr, uint64_t len, uint64_t results, uint32_t flags)
{
	struct mmops_exclusive arg = {
		.pidfd = -1, .flags = flags, .addr = addr, .len = len, .results = results,
	};

	return ioctl(dev, MMOPS_IOC_EXCLUSIVE, &arg) ? -errno : (int64_t)arg.exclusive;
}

TEST_F_TIMEOUT(exclusive, bad_input, TEST_SECONDS)
{
	size_t size = page_size();
	char *map = map_stored(PAGES);
	uint64_t addr = (uintptr_t)map;

	ASSERT_NE(map, NULL);
	ASSERT_EQ(-EINVAL, raw(self->dev, addr + 8, size, 0, 0));
	ASSERT_EQ(-EINVAL, raw(self->dev, addr, size - 8, 0, 0));
	ASSERT_EQ(-EINVAL, raw(self->dev, addr, 0, 0, 0));
	ASSERT_EQ(-EINVAL, raw(self->dev, addr, -size, 0, 0));
	ASSERT_EQ(-EINVAL, raw(self->dev, addr, size, 0, 1));
	ASSERT_EQ(-EFAULT, raw(self->dev, addr, size, 8, 0));
	/* All of the address space: the results have no room, the holes no pages. */
	ASSERT_EQ(0, munmap(map + 100 * size, size));
	ASSERT_EQ(-EFAULT, raw(self->dev, 0, 1ULL << 47, addr, 0));
	ASSERT_EQ(0, raw(self->dev, 0, 1ULL << 16, 0, 0));
	ASSERT_EQ(-EINVAL, atomic_add(self->dev, map + 4, 8, 1, 1, 1, NULL));
	ASSERT_EQ(-EINVAL, atomic_add(self->dev, map, 12, 1, 1, 1, NULL));
	ASSERT_EQ(-EINVAL, atomic_add(self->dev, map, 0, 1, 1, 1, NULL));
	ASSERT_EQ(-EINVAL, atomic_add(self->dev, map, 8, 0, 1, 1, NULL));
	ASSERT_EQ(-EINVAL, atomic_add(self->dev, map, 8, ~0ULL, 1, 1, NULL));
	ASSERT_EQ(-EINVAL, atomic_add(self->dev, map, size, MMOPS_ATOMIC_ADD_MAX_PAGES + 1, 1, 1,
				      NULL));
	ASSERT_EQ(0, munmap(map, PAGES * size));
	ASSERT_EQ(-EFAULT, atomic_add(self->dev, map, size, 1, 1, 1, NULL));
}

/* A kernel thread (a child of kthreadd) of this name, or 0. */
static pid_t find_kthread(const char *name)
{
	char path[300], text[256], comm[64];
	struct dirent *entry;
	pid_t pid, found = 0;
	DIR *dir = opendir("/proc");
	int fd, ppid;
	ssize_t n;

	while (dir && !found && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		n = read(fd, text, sizeof(text) - 1);
		text[n > 0 ? n : 0] = '\0';
		close(fd);
		if (sscanf(text, "%d (%63[^)]) %*c %d", &pid, comm, &ppid) == 3 && ppid == 2 &&
		    !strcmp(comm, name))
			found = pid;
	}
	closedir(dir);
	return found;
}

/* The device is a kernel thread. It goes with its caller, who can be interrupted at any time. */
TEST_F_TIMEOUT(exclusive, kernel_thread, TEST_SECONDS)
{
	static const int signals[] = { SIGINT, SIGKILL };
	char path[64], *map = map_stored(1);
	uint64_t first, word;
	int status, fd;
	size_t i;
	pid_t pid;

	ASSERT_NE(map, NULL);
	/* That of the test before was waited for, but may still be listed. */
	while (find_kthread("mmops-device"))
		usleep(1000);
	for (i = 0; i < 2; i++) {
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid) {
			atomic_add(self->dev, map, 8, 100, 1, 1ULL << 50, NULL);
			_exit(1);
		}
		while (!find_kthread("mmops-device"))
			usleep(1000);
		/* What is read is given back to the CPU, and taken again. */
		snprintf(path, sizeof(path), "/proc/%d/mem", pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		ASSERT_GE(fd, 0);
		ASSERT_EQ((ssize_t)sizeof(first), pread(fd, &first, sizeof(first), (off_t)map));
		do {
			ASSERT_EQ((ssize_t)sizeof(word),
				  pread(fd, &word, sizeof(word), (off_t)map));
		} while (word == first);
		close(fd);
		ASSERT_EQ(0, kill(pid, signals[i]));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_TRUE(WIFSIGNALED(status));
		ASSERT_EQ(signals[i], WTERMSIG(status));
		/* The same. */
		while (find_kthread("mmops-device"))
			usleep(1000);
	}
	ASSERT_EQ(1, load(map, 0));
}

/* The device and the CPUs add to the same words. */
#define WORDS		64UL
#define WORD_PAGES	4UL
#define ADDERS		2

struct adder {
	pthread_t thread;
	int dev;
	char *map;
	uint64_t rounds;
	atomic_bool *stop;
	uint64_t done;
};

static uint64_t *word(char *map, size_t i)
{
	return (uint64_t *)(map + i * (WORD_PAGES * page_size() / WORDS));
}

static void *add_on_cpu(void *arg)
{
	struct adder *adder = arg;
	uint64_t round;
	size_t i;

	for (round = 0; round < adder->rounds && !*adder->stop; round++) {
		for (i = 0; i < WORDS; i++) {
			__atomic_fetch_add(word(adder->map, i), 1, __ATOMIC_RELAXED);
			adder->done++;
		}
	}
	return NULL;
}

/* How many additions went missing, of at least a million. */
static int64_t run_atomic(int dev, uint64_t device_rounds, uint64_t cpu_rounds, uint64_t *taken,
			  uint64_t *total)
{
	char *map = map_stored(WORD_PAGES);
	struct adder adders[ADDERS] = {};
	uint64_t sum = 0, want = 0;
	atomic_bool stop = false;
	int64_t added;
	size_t i;

	memset(map, 0, WORD_PAGES * page_size());
	for (i = 0; i < ADDERS; i++) {
		adders[i].map = map;
		adders[i].rounds = cpu_rounds;
		adders[i].stop = &stop;
		pthread_create(&adders[i].thread, NULL, add_on_cpu, &adders[i]);
	}
	added = atomic_add(dev, map, WORD_PAGES * page_size() / WORDS, WORDS, 1, device_rounds,
			   taken);
	if (added < 0)
		stop = true;
	for (i = 0; i < ADDERS; i++) {
		pthread_join(adders[i].thread, NULL);
		want += adders[i].done;
	}
	if (added < 0)
		return added;
	want += added;
	for (i = 0; i < WORDS; i++)
		sum += *word(map, i);
	munmap(map, WORD_PAGES * page_size());
	*total = want;
	return want - sum;
}

#define DEVICE_ROUNDS	8000UL
#define CPU_ROUNDS	8000UL

TEST_F_TIMEOUT(exclusive, atomicity, TEST_SECONDS)
{
	uint64_t taken = 0, total = 0, more_taken, more, until = now_ns() + 240000000000ULL;

	/* Until there was something to contend for. */
	while ((total < 1000000 || taken < 20) && now_ns() < until) {
		ASSERT_EQ(0, run_atomic(self->dev, DEVICE_ROUNDS, CPU_ROUNDS, &more_taken, &more));
		taken += more_taken;
		total += more;
	}
	ASSERT_GE(total, 1000000);
	ASSERT_GE(taken, 20);
	TH_LOG("%lu additions, %lu times a page was taken", total, taken);
}

static void *add_on_device(void *arg)
{
	struct adder *adder = arg;
	int64_t added = atomic_add(adder->dev, adder->map, sizeof(uint64_t), 8, 1, adder->rounds,
				   NULL);

	adder->done = added < 0 ? 0 : added;
	return NULL;
}

/* Two calls on one descriptor are two devices, which take the page from each other. */
TEST_F_TIMEOUT(exclusive, two_devices, TEST_SECONDS)
{
	char *map = map_stored(1);
	struct adder adders[2] = {};
	uint64_t sum = 0;
	size_t i;

	ASSERT_NE(map, NULL);
	memset(map, 0, page_size());
	for (i = 0; i < 2; i++) {
		adders[i].dev = self->dev;
		adders[i].map = map;
		adders[i].rounds = rounds(5000);
		ASSERT_EQ(0, pthread_create(&adders[i].thread, NULL, add_on_device, &adders[i]));
	}
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, pthread_join(adders[i].thread, NULL));
		ASSERT_EQ(8 * adders[i].rounds, adders[i].done);
	}
	for (i = 0; i < 8; i++)
		sum += ((uint64_t *)map)[i];
	ASSERT_EQ(adders[0].done + adders[1].done, sum);
}

/*
 * The controls: what is lost if the device goes on with a page that it was told
 * to let go, or if CPUs go on through their TLBs. The device stands at a gate between
 * its load and its store.
 */

/* A thread that adds to a word, @rounds times or until it is to stop. */
struct counter {
	pthread_t thread;
	uint64_t *word;
	uint64_t rounds;
	_Atomic pid_t tid;
	_Atomic uint64_t added;
	atomic_bool stop, done;
};

static void *count_up(void *arg)
{
	struct counter *counter = arg;

	atomic_store(&counter->tid, gettid());
	while (atomic_load(&counter->added) < counter->rounds && !atomic_load(&counter->stop)) {
		__atomic_fetch_add(counter->word, 1, __ATOMIC_SEQ_CST);
		atomic_fetch_add(&counter->added, 1);
	}
	atomic_store(&counter->done, true);
	return NULL;
}

static int counter_start(struct counter *counter, char *map, uint64_t rounds)
{
	*counter = (struct counter){ .word = (uint64_t *)map, .rounds = rounds };
	return pthread_create(&counter->thread, NULL, count_up, counter);
}

/* Wait until it has added so often, or sleeps in the kernel: there is nothing else to sleep for. */
static void wait_for_counter(struct counter *counter, uint64_t added)
{
	char path[64], stat[256], *state;

	while (!atomic_load(&counter->tid))
		sched_yield();
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", counter->tid);
	while (atomic_load(&counter->added) < added && !atomic_load(&counter->done)) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? 0 : read(fd, stat, sizeof(stat) - 1);

		if (fd >= 0)
			close(fd);
		stat[max(n, 0)] = '\0';
		state = strrchr(stat, ')');
		if (state && (state[2] == 'D' || state[2] == 'S'))
			return;
		sched_yield();
	}
}

struct device {
	pthread_t thread;
	int dev;
	char *map;
	size_t pages;
	uint64_t rounds;
	int64_t added;
	atomic_bool done;
};

static void *run_device(void *arg)
{
	struct device *device = arg;

	device->added = atomic_add(device->dev, device->map, page_size(), device->pages, 1,
				   device->rounds, NULL);
	atomic_store(&device->done, true);
	return NULL;
}

/*
 * The device adds to a word in each of two pages, twice. When it has added to the
 * first one and takes the second, a CPU adds to the first one and has its page back;
 * so the device has to take that again. A CPU that adds while the device is between
 * its load and its store has to wait. How many additions went missing, or -1.
 */
static int64_t lost_after_invalidation(int dev)
{
	struct device device = { .dev = dev, .map = map_stored(2), .pages = 2, .rounds = 2 };
	struct counter counter;
	bool met;

	if (!device.map)
		return -1;
	memset(device.map, 0, 2 * page_size());
	if (close_gate_after(BEFORE_FLUSH, 1, 1) || close_gate_after(DEVICE_STORES, 1, 2) ||
	    pthread_create(&device.thread, NULL, run_device, &device))
		return -1;
	met = wait_at_gate(BEFORE_FLUSH, 1, &device.done);
	__atomic_fetch_add((uint64_t *)device.map, 1, __ATOMIC_SEQ_CST);
	open_gate(BEFORE_FLUSH);
	met = met && wait_at_gate(DEVICE_STORES, 1, &device.done);
	if (counter_start(&counter, device.map, 1))
		return -1;
	wait_for_counter(&counter, 1);
	open_gate(DEVICE_STORES);
	pthread_join(device.thread, NULL);
	pthread_join(counter.thread, NULL);
	if (!met || device.added != 4)
		return -1;
	return 6 - load(device.map, 0) - load(device.map, 1);
}

/* A CPU adds all the time while the device takes the page and adds once. */
static int64_t lost_without_flush(int dev)
{
	struct device device = { .dev = dev, .map = map_stored(1), .pages = 1, .rounds = 1 };
	struct counter counter;
	bool met;

	if (!device.map)
		return -1;
	memset(device.map, 0, page_size());
	if (counter_start(&counter, device.map, ~0ULL))
		return -1;
	wait_for_counter(&counter, 1000);
	if (close_gate(DEVICE_STORES, 1) ||
	    pthread_create(&device.thread, NULL, run_device, &device))
		return -1;
	met = wait_at_gate(DEVICE_STORES, 1, &device.done);
	wait_for_counter(&counter, atomic_load(&counter.added) + 1000);
	open_gate(DEVICE_STORES);
	pthread_join(device.thread, NULL);
	atomic_store(&counter.stop, true);
	pthread_join(counter.thread, NULL);
	if (!met || device.added != 1)
		return -1;
	return counter.added + 1 - load(device.map, 0);
}

TEST_FAULTS(exclusive, control_ignore_invalidation)
{
	ASSERT_EQ(0, lost_after_invalidation(self->dev));
	ASSERT_EQ(0, set_fault(IGNORE_INVALIDATION, 1));
	ASSERT_EQ(1, lost_after_invalidation(self->dev));
}

TEST_FAULTS(exclusive, control_no_flush)
{
	int64_t lost = 0;
	int round;

	ASSERT_EQ(0, lost_without_flush(self->dev));
	ASSERT_EQ(0, set_fault(SKIP_FLUSH, 1));
	for (round = 0; round < TLB_ROUNDS && !lost; round++)
		lost = lost_without_flush(self->dev);
	ASSERT_GT(lost, 0);
}

/* There is no memory for what is not there yet; nothing else suffers. */
TEST_FAULTS(exclusive, no_memory)
{
	char *map = map_anon(20);
	uint8_t results[20];
	size_t i;

	ASSERT_NE(map, NULL);
	madvise(map, 20 * page_size(), MADV_NOHUGEPAGE);
	store_range(map, 0, 10, 1);
	ASSERT_EQ(0, set_fault(FAULT_IN_NO_MEMORY, 1));
	ASSERT_EQ(10, exclusive_of(self->dev, -1, map, 20, results));
	ASSERT_EQ(-ENOMEM, atomic_add(self->dev, map + 15 * page_size(), 8, 1, 1, 1, NULL));
	clear_faults();
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(i < 10 ? MMOPS_PAGE_EXCLUSIVE : MMOPS_PAGE_NO_MEMORY, results[i]);
		ASSERT_EQ(i < 10, is_exclusive(map + i * page_size()));
	}
	ASSERT_EQ(20, exclusive(self->dev, map, 20));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(i < 10 ? 1 + i : 0, load(map, i));
	}
}

/* What changes each time is given up; it stays the CPU's, and its folio is not locked. */
TEST_FAULTS(exclusive, busy)
{
	char *map = map_stored(20);
	uint8_t results[20];
	size_t i;

	ASSERT_NE(map, NULL);
	ASSERT_EQ(0, set_fault(ENTRY_CHANGES, 1));
	ASSERT_EQ(0, exclusive_of(self->dev, -1, map, 20, results));
	clear_faults();
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(MMOPS_PAGE_BUSY, results[i]);
		ASSERT_TRUE(is_present(map + i * page_size()));
	}
	ASSERT_EQ(20, exclusive(self->dev, map, 20));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(1 + i, load(map, i));
	}
}

/* Pages whose folios somebody has locked are done alone, there and back. */
TEST_FAULTS(exclusive, locked_folios)
{
	char *map = map_stored(20);
	uint8_t results[20];
	size_t i;

	ASSERT_NE(map, NULL);
	ASSERT_EQ(0, set_fault(TRYLOCK_FAILS, 1));
	ASSERT_EQ(20, exclusive_of(self->dev, -1, map, 20, results));
	ASSERT_EQ(20, count_exclusive(map, 20));
	ASSERT_EQ(20, give_back(self->dev, map, 20));
	clear_faults();
	ASSERT_EQ(0, count_exclusive(map, 20));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(MMOPS_PAGE_EXCLUSIVE, results[i]);
		ASSERT_EQ(1 + i, load(map, i));
	}
	ASSERT_EQ(20, exclusive(self->dev, map, 20));
}

TEST_HARNESS_MAIN
