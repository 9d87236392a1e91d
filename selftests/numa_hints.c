// SPDX-License-Identifier: GPL-2.0
/*
 * Entries that NUMA balancing has made inaccessible, so that the next access tells
 * on which node the memory is used. They are present, and the fault gives them the
 * permissions of the mapping, whether it migrates the page or not.
 *
 * A scan makes hints of all pages of the mapping at once: when a load of the first
 * page faults, all others have their hint, and no later scan comes.
 */
#include "mmops_selftest.h"
#include "kselftest_harness.h"

#include <limits.h>

#define PAGES		64UL
#define PAGE		37UL
#define BALANCING	"/proc/sys/kernel/numa_balancing"
#define SCAN_PERIOD	"/sys/kernel/debug/sched/numa_balancing/scan_period_min_ms"
#define SCAN_DELAY	"/sys/kernel/debug/sched/numa_balancing/scan_delay_ms"

FIXTURE(numa)
{
	int dev;
	int fd;
	char *map;
	char period[16];
	char delay[16];
	struct harvest h;
};

FIXTURE_VARIANT(numa)
{
	bool disk;
};

FIXTURE_VARIANT_ADD(numa, memfd)
{
};

FIXTURE_VARIANT_ADD(numa, disk)
{
	.disk = true,
};

static void read_setting(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, size - 1);

	text[max(n, (ssize_t)0)] = '\0';
	close(fd);
}

FIXTURE_SETUP(numa)
{
	const char *disk = getenv("MMOPS_DISK");
	char path[PATH_MAX];

	OPEN_DEV(self->dev, MMOPS_DEV);
	if (access(BALANCING, F_OK))
		SKIP(return, "no NUMA balancing in this kernel");
	if (variant->disk) {
		if (!disk)
			SKIP(return, "MMOPS_DISK is not set");
		snprintf(path, sizeof(path), "%s/numa.XXXXXX", disk);
		self->fd = mkstemp(path);
		ASSERT_LE(0, self->fd);
		ASSERT_EQ(0, unlink(path));
		ASSERT_EQ(0, ftruncate(self->fd, PAGES * page_size()));
	} else {
		self->fd = new_memfd(PAGES);
		ASSERT_LE(0, self->fd);
	}
	self->h = new_harvest(PAGES);
	self->map = map_at(reserve(PAGES, 0), self->fd, 0, PAGES, PROT_READ | PROT_WRITE,
			   MAP_SHARED);
	ASSERT_NE(NULL, self->map);
	store_range(self->map, 0, PAGES, 1);
	/* NUMA balancing leaves dirty folios of a disk file system alone. */
	ASSERT_EQ(0, fsync(self->fd));
	read_setting(SCAN_PERIOD, self->period, sizeof(self->period));
	read_setting(SCAN_DELAY, self->delay, sizeof(self->delay));
	ASSERT_EQ(0, write_file(SCAN_PERIOD, "10"));
	ASSERT_EQ(0, write_file(SCAN_DELAY, "10"));
}

FIXTURE_TEARDOWN(numa)
{
	if (self->period[0]) {
		write_file(BALANCING, "0");
		write_file(SCAN_PERIOD, self->period);
		write_file(SCAN_DELAY, self->delay);
	}
}

/* Faults of one load. */
static long load_faults(const char *map, size_t page)
{
	long faults = minor_faults();

	load(map, page);
	return minor_faults() - faults;
}

/* Faults of one store. */
static long store_faults(char *map, size_t page, uint64_t value)
{
	long faults = minor_faults();

	store(map, page, value);
	return minor_faults() - faults;
}

/*
 * Wait until a scan has come by, which it does while the process uses its CPU. Page 0
 * has no hint afterwards.
 */
static int make_hints(const char *map)
{
	int ret;

	load(map, 0);
	ret = write_file(BALANCING, "1");
	while (!ret && !load_faults(map, 0))
		;
	return ret ?: write_file(BALANCING, "0");
}

/*
 * The permission that write_protect has taken comes back with a hint on a memfd, and
 * does not on a disk file system.
 */
TEST_F_TIMEOUT(numa, write_protect_before, TEST_SECONDS)
{
	ASSERT_LE(0, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(0, make_hints(self->map));
	/* The hint, and no other fault. */
	ASSERT_EQ(1, load_faults(self->map, PAGE));
	ASSERT_EQ(0, load_faults(self->map, PAGE));
	ASSERT_EQ(variant->disk ? 1 : 0, store_faults(self->map, PAGE, 99));
	/* Without a load in between: the kernel resolves the hint first. */
	ASSERT_EQ(variant->disk ? 2 : 1, store_faults(self->map, PAGE + 1, 98));
	/* The stores are seen in any case. */
	ASSERT_LE(2, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_TRUE(test_bit(self->h.bitmap, PAGE));
	ASSERT_TRUE(test_bit(self->h.bitmap, PAGE + 1));
	ASSERT_EQ(99, load(self->map, PAGE));
	ASSERT_EQ(98, load(self->map, PAGE + 1));
}

/* An entry with a hint has no write permission that could be taken. */
TEST_F_TIMEOUT(numa, write_protect_after, TEST_SECONDS)
{
	ASSERT_EQ(0, make_hints(self->map));
	ASSERT_EQ(0, write_protect(self->dev, self->fd, 1, PAGES - 1));
	ASSERT_EQ(1, load_faults(self->map, PAGE));
	ASSERT_EQ(variant->disk ? 1 : 0, store_faults(self->map, PAGE, 99));
}

/* A hint is no place where a dirty bit gets lost, and no store past it is missed. */
TEST_F_TIMEOUT(numa, harvest, TEST_SECONDS)
{
	size_t page;

	ASSERT_LE(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	reset_harvest(&self->h);
	if (!variant->disk)
		store(self->map, PAGE, 99);
	ASSERT_EQ(0, make_hints(self->map));
	ASSERT_EQ(variant->disk ? 0 : 1,
		  clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(!variant->disk, test_bit(self->h.bitmap, PAGE));
	/* The harvest leaves the hint in place. */
	for (page = PAGE; page < PAGES; page++) {
		ASSERT_EQ(variant->disk ? 2 : 1, store_faults(self->map, page, page));
	}
	reset_harvest(&self->h);
	ASSERT_EQ(PAGES - PAGE, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	for (page = 0; page < PAGES; page++) {
		ASSERT_EQ(page >= PAGE, test_bit(self->h.bitmap, page));
	}
	ASSERT_EQ(PAGE, load(self->map, PAGE));
}

/* A change of protection ends a hint, as that of mprotect() does. */
TEST_F_TIMEOUT(numa, protect, TEST_SECONDS)
{
	struct mmops_protect arg = {
		.pidfd = -1,
		.addr = (uintptr_t)self->map,
		.len = PAGES * page_size(),
		.prot = PROT_READ,
	};

	ASSERT_EQ(0, make_hints(self->map));
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_PROTECT, &arg));
	ASSERT_EQ(0, load_faults(self->map, PAGE));
	ASSERT_EQ(0, make_hints(self->map));
	arg.prot = PROT_READ | PROT_WRITE;
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_PROTECT, &arg));
	ASSERT_EQ(0, load_faults(self->map, PAGE));
	ASSERT_EQ(variant->disk ? 1 : 0, store_faults(self->map, PAGE, 99));
	ASSERT_EQ(99, load(self->map, PAGE));
}

TEST_HARNESS_MAIN
