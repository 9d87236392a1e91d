// SPDX-License-Identifier: GPL-2.0
/*
 * Allocations and copies fail in each call of samples/mirror, which has to be loaded
 * instead of the kernel's test_hmm: also those of a fault that it asks for.
 */
#include "dmirror.h"
#include "zap.h"
#include "kselftest_harness.h"
#include "fail_nth.h"

enum { PAGES = 12, STORED = 6, OLD = 5000, MARK = 7777 };

FIXTURE_SETUP(fail_nth)
{
	int dev;

	if (!can_fail())
		SKIP(return, "the kernel is without CONFIG_FAULT_INJECTION");
	if (access("/sys/module/mmops_mirror", F_OK))
		SKIP(return, "mmops_mirror.ko is not loaded");
	OPEN_DMIRROR(dev);
	set_up(_metadata, self, dev);
}

/* Memory in base pages, the first half of which is there. */
static char *map_half(void)
{
	char *map = map_anon(PAGES);

	if (map) {
		madvise(map, PAGES * page_size(), MADV_NOHUGEPAGE);
		store_range(map, 0, STORED, OLD);
	}
	return map;
}

static uint64_t value(size_t i)
{
	return i < STORED ? OLD + i : 0;
}

/*
 * One call, in which something fails: @ret is the number of its pages, or -errno. With an
 * error the argument is as it was. A fault without memory is EFAULT, as it is for a CPU.
 */
#define FAIL_MIRROR(ret, number, map, to) do {					\
	struct hmm_dmirror_cmd cmd_ = {						\
		.addr = (uintptr_t)(map), .ptr = (uintptr_t)(to),		\
		.npages = PAGES, .cpages = MARK, .faults = MARK,		\
	}, before_ = cmd_;							\
										\
	FAIL_IN(ret, ioctl(self->dev, number, &cmd_));				\
	if (!(ret))								\
		(ret) = cmd_.cpages;						\
	else {									\
		ASSERT_EQ(0, memcmp(&before_, &cmd_, sizeof(cmd_)));		\
		ASSERT_TRUE((ret) == -EFAULT || (ret) == -ENOMEM);		\
	}									\
	if (self->failed == NOTHING) {						\
		ASSERT_EQ(PAGES, ret);						\
	}									\
	if (self->failed == COPY) {						\
		ASSERT_EQ(-EFAULT, ret);					\
	}									\
} while (0)

/* What was read is in the buffer, all of it or nothing. */
static void check_read(struct __test_metadata *_metadata, FIXTURE_DATA(fail_nth) *self,
		       unsigned long call)
{
	char *copy = map_anon(PAGES);
	size_t i;

	ASSERT_NE(NULL, copy);
	while (next_round(self)) {
		char *map = map_half();
		int64_t ret;
		bool all;

		ASSERT_NE(NULL, map);
		for (i = 0; i < PAGES; i++)
			store(copy, i, MARK);
		FAIL_MIRROR(ret, call, map, copy);
		all = load(copy, 0) == value(0);
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(all ? value(i) : MARK, load(copy, i));
			ASSERT_EQ(value(i), load(map, i));
		}
		if (ret > 0) {
			ASSERT_EQ(PAGES, ret);
			ASSERT_TRUE(all);
		}
		self->last |= self->failed == COPY && all;
		ASSERT_EQ(PAGES, dmirror(self->dev, call, map, copy, PAGES));
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(value(i), load(copy, i));
		}
		ASSERT_EQ(0, munmap(map, PAGES * page_size()));
	}
	ASSERT_ALLOCATED();
}

TEST_F_TIMEOUT(fail_nth, read, TEST_SECONDS)
{
	check_read(_metadata, self, HMM_DMIRROR_READ);
}

TEST_F_TIMEOUT(fail_nth, read_unlocked, TEST_SECONDS)
{
	check_read(_metadata, self, HMM_DMIRROR_READ_UNLOCKED);
}

/* A CPU takes each page back, and reads what the process had stored. */
TEST_F_TIMEOUT(fail_nth, exclusive, TEST_SECONDS)
{
	check_read(_metadata, self, HMM_DMIRROR_EXCLUSIVE);
}

/* Each page has what it had, or what was written, and in the end all were written. */
TEST_F_TIMEOUT(fail_nth, write, TEST_SECONDS)
{
	char *from = map_anon(PAGES);
	size_t i;

	ASSERT_NE(NULL, from);
	for (i = 0; i < PAGES; i++)
		store(from, i, MARK + i);
	while (next_round(self)) {
		char *map = map_half();
		size_t written = 0;
		int64_t ret;

		ASSERT_NE(NULL, map);
		FAIL_MIRROR(ret, HMM_DMIRROR_WRITE, map, from);
		for (i = 0; i < PAGES; i++) {
			bool is = load(map, i) == MARK + i;

			written += is;
			ASSERT_TRUE(is || load(map, i) == value(i));
		}
		if (ret > 0) {
			ASSERT_EQ(PAGES, ret);
			ASSERT_EQ(PAGES, written);
		}
		self->last |= self->failed == COPY && written == PAGES;
		ASSERT_EQ(PAGES, dmirror(self->dev, HMM_DMIRROR_WRITE, map, from, PAGES));
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(MARK + i, load(map, i));
		}
		ASSERT_EQ(0, munmap(map, PAGES * page_size()));
	}
	ASSERT_ALLOCATED();
}

/* It faults nothing in. */
TEST_F_TIMEOUT(fail_nth, snapshot, TEST_SECONDS)
{
	enum { NOT_TOLD = 0x77, THERE = HMM_DMIRROR_PROT_WRITE };
	static unsigned char found[PAGES];
	char *map = map_half();
	size_t i;

	ASSERT_NE(NULL, map);
	while (next_round(self)) {
		int64_t ret;
		bool all;

		memset(found, NOT_TOLD, sizeof(found));
		FAIL_MIRROR(ret, HMM_DMIRROR_SNAPSHOT, map, found);
		all = found[0] == THERE;
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(!all ? NOT_TOLD : i < STORED ? THERE : HMM_DMIRROR_PROT_NONE,
				  found[i]);
		}
		ASSERT_TRUE(ret < 0 || all);
		self->last |= self->failed == COPY && all;
		ASSERT_EQ(PAGES, dmirror(self->dev, HMM_DMIRROR_SNAPSHOT, map, found, PAGES));
	}
	ASSERT_ALLOCATED();
}

/* Its memory is that of the system: all pages are brought in, and stay what they are. */
TEST_F_TIMEOUT(fail_nth, migrate_to_device, TEST_SECONDS)
{
	size_t i;

	while (next_round(self)) {
		char *map = map_half();
		int64_t ret;

		ASSERT_NE(NULL, map);
		FAIL_MIRROR(ret, HMM_DMIRROR_MIGRATE_TO_DEV, map, NULL);
		self->last |= self->failed == COPY && self->round > 1;
		ASSERT_EQ(PAGES, dmirror(self->dev, HMM_DMIRROR_MIGRATE_TO_DEV, map, NULL, PAGES));
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(value(i), load(map, i));
		}
		ASSERT_EQ(0, munmap(map, PAGES * page_size()));
	}
	/* The argument, twice. */
	ASSERT_ROUNDS(2);
	ASSERT_LT(0, self->failures[MEMORY]);
}

/* What opens the device subscribes to its address space. */
TEST_F_TIMEOUT(fail_nth, open, TEST_SECONDS)
{
	char *map = map_half(), *copy = map_anon(PAGES);

	ASSERT_NE(NULL, map);
	ASSERT_NE(NULL, copy);
	/* The name is copied as well. */
	self->last = true;
	while (next_round(self)) {
		int64_t fd;

		FAIL_IN(fd, open(DMIRROR_DEV, O_RDWR | O_CLOEXEC));
		if (fd < 0) {
			ASSERT_EQ(self->failed == COPY ? -EFAULT : -ENOMEM, fd);
			fd = open(DMIRROR_DEV, O_RDWR | O_CLOEXEC);
			ASSERT_LE(0, fd);
		}
		ASSERT_EQ(PAGES, dmirror(fd, HMM_DMIRROR_READ, map, copy, PAGES));
		ASSERT_EQ(OLD, load(copy, 0));
		ASSERT_EQ(0, close(fd));
	}
	ASSERT_EQ(NOTHING, self->failed);
	ASSERT_LT(0, self->failures[MEMORY]);
}

TEST_HARNESS_MAIN
