// SPDX-License-Identifier: GPL-2.0
/*
 * Leaves of PUD size: 1 GiB of device-DAX, as scripts/guest/lib.sh sets it up.
 *
 * MMOPS_DAX is the device (default /dev/dax0.0).
 *
 * Nothing here may read smaps or pagemap after the last store: their walks have no pud_entry, so
 * the kernel splits a PUD leaf that they meet, which for device-DAX means to unmap it.
 */

#include "kselftest_harness.h"
#include "mmops_selftest.h"
#include "track.h"

#define PUD_PAGES	262144UL

FIXTURE(pud)
{
	int dev;
	int fd;
	char *map;
	struct harvest h;
};

FIXTURE_SETUP(pud)
{
	const char *dax = getenv("MMOPS_DAX") ?: "/dev/dax0.0";
	long kb;

	OPEN_DEV(self->dev, MMOPS_DEV);
	self->fd = open(dax, O_RDWR | O_CLOEXEC);
	if (self->fd < 0)
		SKIP(return, "no device-DAX %s: no legacy persistent memory here", dax);
	self->map = mmap(NULL, PUD_PAGES * page_size(), PROT_READ | PROT_WRITE, MAP_SHARED,
			 self->fd, 0);
	if (self->map == MAP_FAILED)
		SKIP(return, "%s has no 1 GiB that can be mapped", dax);
	store(self->map, 0, 1);
	kb = smaps_kb(self->map, "KernelPageSize");
	if (kb != (long)(PUD_PAGES * page_size() / 1024))
		SKIP(return, "%s is mapped in pages of %ld kB", dax, kb);
	self->h = new_harvest(PUD_PAGES);
	ASSERT_NE(self->h.bitmap, NULL);
	/* Whatever an earlier test left. */
	ASSERT_GE(clean_record(self->dev, self->fd, 0, PUD_PAGES, &self->h), 0);
	reset_harvest(&self->h);
	store(self->map, 0, 1);
	store(self->map, 100000, 2);
}

FIXTURE_TEARDOWN(pud)
{
}

/* One store makes all of a leaf dirty, and each base page is reported once. */
TEST_F_TIMEOUT(pud, clean_in_place, TEST_SECONDS)
{
	ASSERT_EQ(PUD_PAGES, clean_record(self->dev, self->fd, 0, PUD_PAGES, &self->h));
	ASSERT_EQ(PUD_PAGES, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(0, self->h.start);
	ASSERT_EQ(PUD_PAGES, self->h.end);
	reset_harvest(&self->h);
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PUD_PAGES, &self->h));
	ASSERT_EQ(0, count_bits(self->h.bitmap, self->h.bits));

	store(self->map, 200000, 3);
	ASSERT_EQ(PUD_PAGES, clean_record(self->dev, self->fd, 0, PUD_PAGES, &self->h));
	ASSERT_EQ(1, load(self->map, 0));
	ASSERT_EQ(2, load(self->map, 100000));
	ASSERT_EQ(3, load(self->map, 200000));
}

/* A part is recorded, and the leaf stays dirty for whoever asks for the rest. */
TEST_F_TIMEOUT(pud, part_of_leaf, TEST_SECONDS)
{
	const size_t first = 3000, nr = 5000;

	ASSERT_EQ(nr, clean_record(self->dev, self->fd, first, nr, &self->h));
	ASSERT_EQ(nr, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_EQ(first, self->h.start);
	ASSERT_EQ(first + nr, self->h.end);
	reset_harvest(&self->h);
	ASSERT_EQ(PUD_PAGES, clean_record(self->dev, self->fd, 0, PUD_PAGES, &self->h));
}

/* A leaf that mprotect(2) took all permissions from is recorded as any other. */
TEST_F_TIMEOUT(pud, without_permissions, TEST_SECONDS)
{
	ASSERT_EQ(0, mprotect(self->map, PUD_PAGES * page_size(), PROT_NONE));
	ASSERT_EQ(7, clean_record(self->dev, self->fd, 5, 7, &self->h));
	ASSERT_EQ(7, count_bits(self->h.bitmap, self->h.bits));
	reset_harvest(&self->h);
	ASSERT_EQ(PUD_PAGES, clean_record(self->dev, self->fd, 0, PUD_PAGES, &self->h));
	ASSERT_EQ(PUD_PAGES, count_bits(self->h.bitmap, self->h.bits));
	reset_harvest(&self->h);
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PUD_PAGES, &self->h));
}

TEST_F_TIMEOUT(pud, protect_in_place, TEST_SECONDS)
{
	long faults;

	ASSERT_EQ(PUD_PAGES, write_protect(self->dev, self->fd, 0, PUD_PAGES));
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, PUD_PAGES));

	/* The dirty state was kept. */
	ASSERT_EQ(PUD_PAGES, clean_record(self->dev, self->fd, 0, PUD_PAGES, &self->h));

	/* A load does not fault, a store does and is seen. */
	faults = minor_faults();
	ASSERT_EQ(2, load(self->map, 100000));
	ASSERT_EQ(faults, minor_faults());
	store(self->map, 5, 6);
	ASSERT_LT(faults, minor_faults());
	reset_harvest(&self->h);
	ASSERT_EQ(PUD_PAGES, clean_record(self->dev, self->fd, 0, PUD_PAGES, &self->h));
	ASSERT_EQ(6, load(self->map, 5));
	ASSERT_EQ(2, load(self->map, 100000));
}

/* All of an epoch, or nothing of it. */
#define ASSERT_PAGES(nr)							\
do {										\
	ASSERT_EQ(0, track_begin(&t));						\
	ASSERT_EQ(nr, track_reported(&t));					\
	ASSERT_EQ(0, track_end(&t, 0));						\
} while (0)

/* A store to the leaf, and one whose leaf is gone: by munmap(), and by the kernel's split. */
TEST_F_TIMEOUT(pud, track_file, TEST_SECONDS)
{
	struct tracker t;
	unsigned int i;

	for (i = 0; i < 2; i++) {
		track_mode = i ? MMOPS_TRACK_FULL : MMOPS_TRACK_FAST;
		ASSERT_EQ(0, track_open_file(&t, self->fd, 0, self->map, PUD_PAGES));
		ASSERT_PAGES(PUD_PAGES);
		ASSERT_PAGES(0);
		store(self->map, 100000, 7);
		ASSERT_PAGES(PUD_PAGES);
		ASSERT_PAGES(0);
		store(self->map, 100000, 8);
		/* Its walk meets the leaf. */
		ASSERT_LE(0, smaps_kb(self->map, "Rss"));
		ASSERT_PAGES(PUD_PAGES);
		/* Device-DAX makes it writable for a read, too: it could be stored to. */
		load_range(self->map, 0, 1);
		ASSERT_PAGES(i ? PUD_PAGES : 0);
		ASSERT_PAGES(0);
		store(self->map, 100000, 9);
		ASSERT_EQ(0, munmap(self->map, PUD_PAGES * page_size()));
		ASSERT_PAGES(PUD_PAGES);
		ASSERT_PAGES(0);
		self->map = mmap(self->map, PUD_PAGES * page_size(), PROT_READ | PROT_WRITE,
				 MAP_SHARED, self->fd, 0);
		ASSERT_NE(MAP_FAILED, self->map);
		track_close(&t);
	}
}

/* Device-DAX serves nothing smaller, so the leaf stays when a split is asked for. */
TEST_F_TIMEOUT(pud, split_keeps, TEST_SECONDS)
{
	long faults;

	ASSERT_EQ(PUD_PAGES, clean_record_flags(self->dev, self->fd, 0, PUD_PAGES, &self->h,
						MMOPS_SPLIT));
	ASSERT_EQ(PUD_PAGES, write_protect_flags(self->dev, self->fd, 0, PUD_PAGES, MMOPS_SPLIT));
	/* The loads alone: other pages of this program may fault as well. */
	faults = minor_faults();
	ASSERT_EQ(2, load(self->map, 100000));
	ASSERT_EQ(1, load(self->map, 0));
	ASSERT_EQ(faults, minor_faults());
}

TEST_HARNESS_MAIN
