// SPDX-License-Identifier: GPL-2.0
/*
 * How a harvest gives the dirty bits that it took to folios, where that is not
 * straightforward: locks that somebody holds and does not let go of, folios that
 * cannot be pinned, and callers that want no marks.
 */
#include <sys/mount.h>

#include "faults.h"
#include "kpageflags.h"
#include "kselftest_harness.h"
#include "leaves.h"
#include "mmops_hold.h"

#define PAGES		300UL
#define HELD		123UL	/* the page whose lock is held */
#define HOLD_DEV	"/dev/mmops_hold"

FIXTURE(marks)
{
	int dev, fd;
	char *map;
	struct harvest h;
};

/* Pages that are dirty in their entries alone; see the fixture of writeback.c. */
FIXTURE_SETUP(marks)
{
	SETUP_MEMFD(self, PAGES, 0);
	load_range(self->map, 0, PAGES);
	if (folio_dirty(self->map) < 0)
		SKIP(return, "no /proc/kpageflags");
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(0, folio_dirty(self->map));
}

FIXTURE_TEARDOWN(marks)
{
	if (faults_built_in())
		clear_faults();
}

FIXTURE_FAULTS(marks);

/* How many of the pages have a folio that is marked dirty. */
static size_t nr_marked(FIXTURE_DATA(marks) *self)
{
	size_t i, n = 0;

	for (i = 0; i < PAGES; i++)
		n += folio_dirty(self->map + i * page_size()) == 1;
	return n;
}

/* Whether the process waits for the lock of a folio, or is gone. */
static bool waits_for_folio(pid_t pid)
{
	char path[64], where[64] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/wchan", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	if (read(fd, where, sizeof(where) - 1) < 0)
		where[0] = '\0';
	close(fd);
	return strstr(where, "folio");
}

/*
 * A caller that waits for the lock of a folio can be killed. What it owes is not
 * lost: the other folios are marked before it is gone, and this one when its lock
 * is free, by a kernel thread.
 */
TEST_F_TIMEOUT(marks, killed_while_a_lock_is_held, TEST_SECONDS)
{
	struct mmops_clean_record *arg;
	struct leaf_counts counts;
	uint64_t addr, *bitmap;
	int hold, status;
	pid_t pid;

	OPEN_DEV(hold, HOLD_DEV);
	arg = mmap(NULL, 2 * page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		   0);
	ASSERT_NE(arg, MAP_FAILED);
	bitmap = (uint64_t *)((char *)arg + page_size());
	addr = (uintptr_t)self->map + HELD * page_size();
	ASSERT_EQ(0, ioctl(hold, MMOPS_HOLD_IOC_LOCK, &addr));
	ASSERT_EQ(-1, ioctl(hold, MMOPS_HOLD_IOC_LOCK, &addr));
	ASSERT_EQ(EBUSY, errno);

	pid = fork();
	if (!pid) {
		*arg = (struct mmops_clean_record){
			.fd = self->fd,
			.nr = PAGES,
			.bitmap = (uintptr_t)bitmap,
			.bitmap_bits = round_bits(PAGES),
		};
		_exit(ioctl(self->dev, MMOPS_IOC_CLEAN_RECORD, arg) ? errno : 0);
	}
	ASSERT_GT(pid, 0);
	do {
		sched_yield();
		ASSERT_EQ(0, count_leaves(self->dev, self->map, PAGES * page_size(), &counts));
	} while (counts.pte.dirty || !waits_for_folio(pid));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	/* Comes back though the lock is held. */
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status));
	ASSERT_EQ(SIGKILL, WTERMSIG(status));

	/* What was done is complete but for the one mark. */
	ASSERT_EQ(PAGES, count_bits(bitmap, round_bits(PAGES)));
	ASSERT_EQ(PAGES, arg->cleaned);
	ASSERT_EQ(0, clean_only(self->dev, self->fd, 0, HELD));
	ASSERT_EQ(PAGES - 1, nr_marked(self));
	ASSERT_EQ(0, folio_dirty(self->map + HELD * page_size()));
	/* Nor can it be reclaimed before. */
	page_out(self->map + HELD * page_size(), page_size());
	ASSERT_EQ(1 + HELD, load(self->map, HELD));

	close(hold);
	while (nr_marked(self) != PAGES)
		sched_yield();
	ASSERT_EQ(0, page_out(self->map, PAGES * page_size()));
	ASSERT_EQ(1 + HELD, load(self->map, HELD));
}

/* A folio with too many references: the dirty bit goes back to the entry. */
TEST_FAULTS(marks, no_pin)
{
	size_t i;

	ASSERT_EQ(0, set_fault(PIN_FAILS, 1));
	/* Few of a table, so that they wait for the flush and have to be pinned. */
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 50, 100, &self->h));
	ASSERT_EQ(100, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(0, nr_marked(self));
	/* Many: those that are clean after the flush have to be pinned as well. */
	reset_harvest(&self->h);
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(PAGES, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(0, nr_marked(self));
	ASSERT_EQ(0, set_fault(PIN_FAILS, 0));
	reset_harvest(&self->h);
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(PAGES, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(PAGES, nr_marked(self));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(1 + i, load(self->map, i));
	}
}

/* The same of a huge leaf. */
TEST_FAULTS(marks, no_pin_huge)
{
	int ret, fd = new_memfd(PMD_PAGES);
	struct harvest h = new_harvest(PMD_PAGES);
	char *map = reserve(PMD_PAGES, 0);

	ASSERT_NE(map, NULL);
	map = map_at(map, fd, 0, PMD_PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(map, NULL);
	store_range(map, 0, PMD_PAGES, 1);
	ret = collapse_range(map, pmd_size());
	if (ret)
		SKIP(return, "MADV_COLLAPSE: %s", strerror(-ret));
	store(map, 7, 1);
	ASSERT_EQ(0, set_fault(PIN_FAILS, 1));
	ASSERT_EQ(0, clean_record(self->dev, fd, 0, PMD_PAGES, &h));
	ASSERT_EQ(PMD_PAGES, count_bits(h.bitmap, h.bits));
	ASSERT_EQ(0, set_fault(PIN_FAILS, 0));
	ASSERT_EQ(PMD_PAGES, clean_record(self->dev, fd, 0, PMD_PAGES, &h));
	ASSERT_EQ(0, clean_record(self->dev, fd, 0, PMD_PAGES, &h));
	close(fd);
}

/* Where nothing is written back the dirty bit is all there is. */
TEST_F_TIMEOUT(marks, no_transfer_refused, TEST_SECONDS)
{
	struct mmops_clean_record arg = {
		.fd = self->fd,
		.flags = MMOPS_NO_TRANSFER,
		.nr = PAGES,
		.bitmap = (uintptr_t)self->h.bitmap,
		.bitmap_bits = self->h.bits,
		.start = 5,
		.end = 6,
	}, before = arg;

	ASSERT_EQ(-1, ioctl(self->dev, MMOPS_IOC_CLEAN_RECORD, &arg));
	ASSERT_EQ(EOPNOTSUPP, errno);
	ASSERT_EQ(0, memcmp(&arg, &before, sizeof(arg)));
	ASSERT_EQ(0, count_bits(self->h.bitmap, self->h.bits));
	/* Before the bitmap is looked at. */
	arg.bitmap = page_size();
	ASSERT_EQ(-1, ioctl(self->dev, MMOPS_IOC_CLEAN_RECORD, &arg));
	ASSERT_EQ(EOPNOTSUPP, errno);
	/* Nothing was changed. */
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
}

/* Reclaim leaves the pages of ramfs alone, so nothing is lost without a mark. */
TEST_F_TIMEOUT(marks, no_transfer_of_ramfs, TEST_SECONDS)
{
	char dir[] = "/tmp/mmops-ramfs-XXXXXX";
	char *map;
	int fd;

	ASSERT_NE(mkdtemp(dir), NULL);
	ASSERT_EQ(0, mount("none", dir, "ramfs", 0, NULL));
	fd = open(dir, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	ASSERT_EQ(0, umount2(dir, MNT_DETACH));
	rmdir(dir);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, PAGES * page_size()));
	map = map_shared(fd, 0, PAGES);
	ASSERT_NE(map, NULL);
	store_range(map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, clean_record_flags(self->dev, fd, 0, PAGES, &self->h,
					    MMOPS_NO_TRANSFER));
	ASSERT_EQ(PAGES, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(0, page_out(map, PAGES * page_size()));
	ASSERT_EQ(1 + HELD, load(map, HELD));
	close(fd);
}

TEST_HARNESS_MAIN
