// SPDX-License-Identifier: GPL-2.0
/*
 * What MMOPS_IOC_WRITE_PROTECT promises, and what it does not: an entry that the
 * kernel makes anew has the permissions of its mapping. On memory that no file
 * system wants to hear of (tmpfs, memfd), that includes stores; on a disk file
 * system it does only where the store was announced already: the entry is dirty,
 * or a write fault is under way.
 */
#include "khugepaged.h"
#include "mmops_selftest.h"
#include "kselftest_harness.h"

#include <limits.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/syscall.h>

/* A page table in whole, so that it can be collapsed. */
#define PAGES	512UL
#define PAGE	37UL

FIXTURE(permission)
{
	int dev;
	int fd;
	char *map;
	char path[PATH_MAX];
};

FIXTURE_VARIANT(permission)
{
	bool disk;
	/* Faults of a store to a page that was made anew after the call. */
	long faults;
};

FIXTURE_VARIANT_ADD(permission, memfd)
{
};

FIXTURE_VARIANT_ADD(permission, disk)
{
	.disk = true,
	.faults = 1,
};

FIXTURE_SETUP(permission)
{
	const char *disk = getenv("MMOPS_DISK");

	OPEN_DEV(self->dev, MMOPS_DEV);
	if (variant->disk) {
		if (!disk)
			SKIP(return, "MMOPS_DISK is not set");
		snprintf(self->path, sizeof(self->path), "%s/permission.XXXXXX", disk);
		self->fd = mkstemp(self->path);
		ASSERT_LE(0, self->fd);
		ASSERT_EQ(0, unlink(self->path));
		ASSERT_EQ(0, ftruncate(self->fd, PAGES * page_size()));
	} else {
		self->fd = new_memfd(PAGES);
		ASSERT_LE(0, self->fd);
	}
	self->map = map_at(reserve(PAGES, 0), self->fd, 0, PAGES, PROT_READ | PROT_WRITE,
			   MAP_SHARED);
	ASSERT_NE(NULL, self->map);
	store_range(self->map, 0, PAGES, 1);
	if (variant->disk) {
		/* Nothing is left to do in the background. */
		ASSERT_EQ(0, fsync(self->fd));
		store_range(self->map, 0, PAGES, 2);
	}
	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
}

FIXTURE_TEARDOWN(permission)
{
}

/* How many faults the store takes. A store is recorded, whatever it takes. */
#define ASSERT_STORE_FAULTS(expected, page) do {				\
	struct harvest h = new_harvest(PAGES);					\
	long faults;								\
										\
	ASSERT_LE(0, clean_record(self->dev, self->fd, 0, PAGES, &h));		\
	reset_harvest(&h);							\
	faults = minor_faults();						\
	store(self->map, page, 99);						\
	ASSERT_EQ(faults + (expected), minor_faults());				\
	ASSERT_EQ(1, clean_record(self->dev, self->fd, 0, PAGES, &h));		\
	ASSERT_TRUE(test_bit(h.bitmap, page));					\
	free(h.bitmap);								\
} while (0)

/* What is promised of both: an entry that stays where it is stays protected. */
TEST_F_TIMEOUT(permission, entry_stays, TEST_SECONDS)
{
	load_range(self->map, 0, PAGES);
	ASSERT_STORE_FAULTS(1, PAGE);
	ASSERT_STORE_FAULTS(0, PAGE);
}

/* A page that is read in again, and its neighbours, which the fault maps as well. */
TEST_F_TIMEOUT(permission, read_fault, TEST_SECONDS)
{
	ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, PAGES));
	load(self->map, PAGE);
	ASSERT_STORE_FAULTS(variant->faults, PAGE);
	if (!(pagemap_entry(self->map + (PAGE + 1) * page_size()) & PAGEMAP_PRESENT))
		SKIP(return, "the fault maps no neighbours");
	ASSERT_STORE_FAULTS(variant->faults, PAGE + 1);
}

/* An entry that is dirty was announced to the file system, so it may be writable anywhere. */
TEST_F_TIMEOUT(permission, mprotect_and_back, TEST_SECONDS)
{
	size_t bytes = PAGES * page_size();

	ASSERT_EQ(0, mprotect(self->map, bytes, PROT_READ));
	ASSERT_EQ(0, mprotect(self->map, bytes, PROT_READ | PROT_WRITE));
	ASSERT_STORE_FAULTS(0, PAGE);

	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_LE(0, clean_only(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(0, mprotect(self->map, bytes, PROT_READ));
	ASSERT_EQ(0, mprotect(self->map, bytes, PROT_READ | PROT_WRITE));
	ASSERT_STORE_FAULTS(variant->faults, PAGE);
}

/* Soft offlining moves the page elsewhere, by what compaction and NUMA balancing use. */
TEST_F_TIMEOUT(permission, migration, TEST_SECONDS)
{
	char *page = self->map + PAGE * page_size();
	uint64_t frame = pagemap_entry(page) & PAGEMAP_PFN;

	if (madvise(page, page_size(), MADV_SOFT_OFFLINE))
		SKIP(return, "no page can be taken offline (%s)", strerror(errno));
	ASSERT_NE(frame, pagemap_entry(page) & PAGEMAP_PFN);
	ASSERT_STORE_FAULTS(variant->faults, PAGE);
}

/* What only tmpfs has, or has here. */
FIXTURE(on_memfd)
{
	int dev;
	int fd;
	char *map;
	struct harvest h;
};

FIXTURE_SETUP(on_memfd)
{
	SETUP_MEMFD(self, PAGES, 0);
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
}

FIXTURE_TEARDOWN(on_memfd)
{
}

TEST_F_TIMEOUT(on_memfd, khugepaged, TEST_SECONDS)
{
	struct harvest h = new_harvest(PAGES);
	long faults;

	ASSERT_EQ(0, khugepaged_collapse(self->map));
	ASSERT_LE(0, clean_record(self->dev, self->fd, 0, PAGES, &h));
	faults = minor_faults();
	store(self->map, PAGE, 99);
	ASSERT_EQ(faults, minor_faults());
	reset_harvest(&h);
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &h));
}

TEST_F_TIMEOUT(on_memfd, collapse, TEST_SECONDS)
{
	struct harvest h = new_harvest(PAGES);
	long faults;

	ASSERT_EQ(0, collapse_range(self->map, PAGES * page_size()));
	ASSERT_LE(0, clean_record(self->dev, self->fd, 0, PAGES, &h));
	faults = minor_faults();
	store(self->map, PAGE, 99);
	ASSERT_EQ(faults, minor_faults());
	reset_harvest(&h);
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &h)) {
		TH_LOG("there is one leaf");
	}
}

static void *store_once(void *arg)
{
	store(arg, 0, 98);
	return NULL;
}

/* A write fault that began before the call makes its page writable after it. */
TEST_F_TIMEOUT(on_memfd, fault_under_way, TEST_SECONDS)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MINOR };
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MINOR_SHMEM };
	struct uffdio_continue cont = { .range.len = page_size() };
	char *page = self->map + PAGE * page_size();
	struct uffd_msg msg;
	pthread_t thread;
	int uffd;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "no minor faults to userspace (%s)", strerror(errno));
	ASSERT_EQ(0, madvise(page, page_size(), MADV_DONTNEED));
	reg.range.start = (uintptr_t)self->map;
	reg.range.len = PAGES * page_size();
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	ASSERT_EQ(0, pthread_create(&thread, NULL, store_once, page));
	ASSERT_EQ(sizeof(msg), read(uffd, &msg, sizeof(msg)));
	ASSERT_EQ(UFFD_EVENT_PAGEFAULT, msg.event);

	ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, PAGES));
	cont.range.start = (uintptr_t)page;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_CONTINUE, &cont));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(98, load(page, 0));
	ASSERT_STORE_FAULTS(0, PAGE);
	ASSERT_STORE_FAULTS(1, PAGE + 1);
}

TEST_HARNESS_MAIN
