// SPDX-License-Identifier: GPL-2.0
/*
 * Arguments of samples/mirror that the kernel's hmm-tests do not try.
 *
 * It answers under the name of the kernel's test_hmm, so it has to be loaded
 * instead of that.
 */
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "dmirror.h"
#include "leafmap.h"
#include "kselftest_harness.h"

/* The last PMD table, behind which there is no address. */
#define LAST_TABLE	((char *)0xffffffffffe00000UL)

FIXTURE(mirror)
{
	int fd;
	char *map, *copy;
};

FIXTURE_SETUP(mirror)
{
	if (access("/sys/module/mmops_mirror", F_OK))
		SKIP(return, "mmops_mirror.ko is not loaded");
	OPEN_DMIRROR(self->fd);
	self->map = mmap(NULL, 2 * page_size(), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->map);
	self->copy = self->map + page_size();
	store(self->map, 0, 1234);
}

FIXTURE_TEARDOWN(mirror)
{
	close(self->fd);
}

TEST_F(mirror, last_table)
{
	ASSERT_EQ(-EFAULT, dmirror(self->fd, HMM_DMIRROR_READ, LAST_TABLE, self->copy, 1));
	ASSERT_EQ(-EFAULT, dmirror(self->fd, HMM_DMIRROR_WRITE, LAST_TABLE, self->copy, 1));
	ASSERT_EQ(-EFAULT, dmirror(self->fd, HMM_DMIRROR_EXCLUSIVE, LAST_TABLE, self->copy, 1));
	ASSERT_EQ(1, dmirror(self->fd, HMM_DMIRROR_SNAPSHOT, LAST_TABLE, self->copy, 1));
	/* As the kernel says where there is no VMA. */
	ASSERT_EQ(HMM_DMIRROR_PROT_ERROR, (unsigned char)self->copy[0]);
	/* Behind what is mirrored, and around. */
	ASSERT_EQ(-EINVAL, dmirror(self->fd, HMM_DMIRROR_READ, LAST_TABLE, self->copy, 512));
	ASSERT_EQ(-EINVAL, dmirror(self->fd, HMM_DMIRROR_READ, LAST_TABLE, self->copy, 513));
	ASSERT_EQ(-EINVAL, dmirror(self->fd, HMM_DMIRROR_READ, self->map + 1, self->copy, 1));

	ASSERT_EQ(1, dmirror(self->fd, HMM_DMIRROR_READ, self->map, self->copy, 1));
	ASSERT_EQ(1234, load(self->copy, 0));
}

/* It looks at each page, and would take years. */
TEST_F(mirror, long_look_can_be_killed)
{
	struct timespec spent;
	clockid_t clock;
	int status;
	pid_t child = fork();

	ASSERT_GE(child, 0);
	if (!child) {
		dmirror(self->fd, HMM_DMIRROR_CHECK_EXCLUSIVE, NULL, self->copy, (1UL << 52) - 1);
		_exit(0);
	}
	/* So long as this takes nothing but a call that goes on. */
	ASSERT_EQ(0, clock_getcpuclockid(child, &clock));
	do {
		usleep(1000);
		ASSERT_EQ(0, waitpid(child, &status, WNOHANG));
		ASSERT_EQ(0, clock_gettime(clock, &spent));
	} while (!spent.tv_sec && spent.tv_nsec < 100000000);
	ASSERT_EQ(0, kill(child, SIGKILL));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status));
	ASSERT_EQ(1, dmirror(self->fd, HMM_DMIRROR_READ, self->map, self->copy, 1));
}

/*
 * Page frames without a struct page, in leaves of each size: no device but the
 * one whose memory they are can use them. The kernel's hmm_range_fault() refuses
 * them in PTEs, and where a mapping has nothing else (VM_PFNMAP), but not in huge
 * leaves of a mapping that may have pages as well (VM_MIXEDMAP).
 */
FIXTURE(page_frames)
{
	int fd, leafmap;
	char *map, *copy;
};

FIXTURE_VARIANT(page_frames)
{
	uint32_t order, flags;
};

FIXTURE_VARIANT_ADD(page_frames, pte)
{
	.order = MMOPS_LEAFMAP_PTE,
};

FIXTURE_VARIANT_ADD(page_frames, pmd)
{
	.order = MMOPS_LEAFMAP_PMD,
};

FIXTURE_VARIANT_ADD(page_frames, pud)
{
	.order = MMOPS_LEAFMAP_PUD,
};

FIXTURE_VARIANT_ADD(page_frames, mixed_pte)
{
	.order = MMOPS_LEAFMAP_PTE,
	.flags = MMOPS_LEAFMAP_MIXED,
};

FIXTURE_VARIANT_ADD(page_frames, mixed_pmd)
{
	.order = MMOPS_LEAFMAP_PMD,
	.flags = MMOPS_LEAFMAP_MIXED,
};

FIXTURE_VARIANT_ADD(page_frames, mixed_pud)
{
	.order = MMOPS_LEAFMAP_PUD,
	.flags = MMOPS_LEAFMAP_MIXED,
};

FIXTURE_SETUP(page_frames)
{
	if (access("/sys/module/mmops_mirror", F_OK))
		SKIP(return, "mmops_mirror.ko is not loaded");
	OPEN_DMIRROR(self->fd);
	OPEN_LEAFMAP(self->leafmap);
	ASSERT_EQ(0, leafmap_serve(self->leafmap, variant->order, variant->flags));
	self->map = map_gib(self->leafmap, 0, 2 * pud_size(), PROT_READ | PROT_WRITE);
	ASSERT_NE(NULL, self->map);
	/* A mixed mapping gets huge leaves like one of memory, where they are asked for. */
	ASSERT_EQ(0, madvise(self->map, 2 * pud_size(), MADV_HUGEPAGE));
	self->copy = mmap(NULL, PMD_PAGES * page_size(), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->copy);
}

FIXTURE_TEARDOWN(page_frames)
{
	close(self->fd);
}

static void refuses(struct __test_metadata *_metadata, FIXTURE_DATA(page_frames) *self,
		    char *map, size_t pages)
{
	ASSERT_EQ(-EFAULT, dmirror(self->fd, HMM_DMIRROR_READ, map, self->copy, pages));
	ASSERT_EQ(-EFAULT, dmirror(self->fd, HMM_DMIRROR_READ_UNLOCKED, map, self->copy, pages));
	ASSERT_EQ(-EFAULT, dmirror(self->fd, HMM_DMIRROR_WRITE, map, self->copy, pages));
	ASSERT_EQ(-EBUSY, dmirror(self->fd, HMM_DMIRROR_EXCLUSIVE, map, self->copy, pages));
}

TEST_F(page_frames, refused)
{
	const size_t leaf = 1UL << variant->order, size = page_size();
	size_t i;

	/* The first leaf is there, the second is faulted in by the mirror. */
	store(self->map, 0, 77);
	refuses(_metadata, self, self->map, 1);
	refuses(_metadata, self, self->map + leaf / 2 * size, leaf < 4 ? 1 : 3);
	refuses(_metadata, self, self->map + leaf * size, 1);
	if (leaf > 1)
		refuses(_metadata, self, self->map + (leaf - 1) * size, 2);
	store(self->map, leaf, 78);
	ASSERT_EQ(2, variant->order == MMOPS_LEAFMAP_PTE ? leafmap_info(self->leafmap).pte :
		     variant->order == MMOPS_LEAFMAP_PMD ? leafmap_info(self->leafmap).pmd :
							   leafmap_info(self->leafmap).pud);

	/* To be told of it is no error. */
	ASSERT_EQ(PMD_PAGES, dmirror(self->fd, HMM_DMIRROR_SNAPSHOT, self->map, self->copy,
				     PMD_PAGES));
	for (i = 0; i < (leaf < PMD_PAGES ? 2 * leaf : PMD_PAGES); i++) {
		ASSERT_EQ(HMM_DMIRROR_PROT_ERROR, (unsigned char)self->copy[i]);
	}
	ASSERT_EQ(77, load(self->map, 0));
	ASSERT_EQ(78, load(self->map, leaf));
}

/* What is beside them in the range is a page like any other. */
TEST_F(page_frames, beside_a_page)
{
	char *page = self->map + 2 * pud_size(), *last = page - page_size();

	/* Behind the mapping, where map_gib() has reserved more. */
	ASSERT_EQ(page, mmap(page, page_size(), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	store(page, 0, 5);
	store(last, 0, 77);
	ASSERT_EQ(-EFAULT, dmirror(self->fd, HMM_DMIRROR_READ, last, self->copy, 2));
	ASSERT_EQ(2, dmirror(self->fd, HMM_DMIRROR_SNAPSHOT, last, self->copy, 2));
	ASSERT_EQ(HMM_DMIRROR_PROT_ERROR, (unsigned char)self->copy[0]);
	ASSERT_EQ(HMM_DMIRROR_PROT_WRITE, (unsigned char)self->copy[1]);
	ASSERT_EQ(1, dmirror(self->fd, HMM_DMIRROR_READ, page, self->copy, 1));
	ASSERT_EQ(5, load(self->copy, 0));
}

TEST_HARNESS_MAIN
