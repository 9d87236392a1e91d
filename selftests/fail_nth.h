/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every allocation and every copy from and to user memory of a call fails once: the
 * first of them in the first round, the second in the second, until a call gets
 * through. What each round returns is documented, what it did is complete or nothing,
 * and the next call works.
 *
 * Takes a kernel with CONFIG_FAULT_INJECTION, and no khugepaged meanwhile; without
 * CONFIG_FAULT_INJECTION_USERCOPY only allocations fail. What a round leaks is found
 * by kmemleak, and by the kernel's checks of counters when the process exits.
 *
 * Included behind kselftest_harness.h: it has the fixture.
 */
#ifndef FAIL_NTH_H
#define FAIL_NTH_H

#include "mmops_selftest.h"

#define FAIL_NTH	"/proc/thread-self/fail-nth"
#define SLAB		"/sys/kernel/debug/failslab/"
#define PAGE_ALLOC	"/sys/kernel/debug/fail_page_alloc/"
#define USERCOPY	"/sys/kernel/debug/fail_usercopy/"
#define MAX_ROUNDS	5000

/* Settings, as they are here and as the kernel boots. */
static const struct {
	const char *path, *here, *usual;
} settings[] = {
	{ SLAB "ignore-gfp-wait", "N", "Y" },
	{ SLAB "verbose", "0", "2" },
	{ PAGE_ALLOC "ignore-gfp-wait", "N", "Y" },
	{ PAGE_ALLOC "ignore-gfp-highmem", "N", "Y" },
	{ PAGE_ALLOC "min-order", "0", "1" },
	{ PAGE_ALLOC "verbose", "0", "2" },
	{ USERCOPY "verbose", "0", "2" },	/* the last: not each kernel has it */
};

/* What failed in a round. */
enum what { NOTHING, MEMORY, COPY };

FIXTURE(fail_nth)
{
	int dev, nth;
	bool copies;		/* can fail */
	unsigned int round, stride, turns;
	unsigned int failures[COPY + 1];
	enum what failed;	/* in the last round */
	bool refused;		/* so the argument was not to be had, and nothing was done */
	bool untold;		/* so a copy failed later, and the argument is as it was */
	bool last;		/* the copy did in some round that tells what was done */
};

static void first_round(FIXTURE_DATA(fail_nth) *self)
{
	self->round = 0;
	self->stride = 1;
	self->turns = 0;
	memset(self->failures, 0, sizeof(self->failures));
	self->failed = MEMORY;
	self->last = false;
}

static bool can_fail(void)
{
	return !access(FAIL_NTH, F_OK);
}

/* The device is opened, and from here on calls fail as they are told to. */
static void set_up(struct __test_metadata *_metadata, FIXTURE_DATA(fail_nth) *self, int dev)
{
	size_t i;

	self->dev = dev;
	self->nth = open(FAIL_NTH, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->nth);
	self->copies = !access(USERCOPY, F_OK);
	for (i = 0; i < ARRAY_SIZE(settings) - !self->copies; i++) {
		ASSERT_EQ(0, write_file(settings[i].path, settings[i].here));
	}
	first_round(self);
}

FIXTURE_TEARDOWN(fail_nth)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(settings); i++)
		write_file(settings[i].path, settings[i].usual);
}

static void fail_at(FIXTURE_DATA(fail_nth) *self, unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	/* What is written here is copied as well, and this may be what fails, once. */
	if (pwrite(self->nth, text, len, 0) != len &&
	    (errno != EFAULT || pwrite(self->nth, text, len, 0) != len))
		abort();
}

/* So many more copies may fail. It is counted down, and nothing else looks at it. */
static bool set_copies(void)
{
	return !write_file(USERCOPY "times", "1");
}

static bool a_copy_failed(void)
{
	int fd = open(USERCOPY "times", O_RDONLY | O_CLOEXEC);
	char left;

	if (fd < 0 || read(fd, &left, 1) != 1)
		abort();
	close(fd);
	return left == '0';
}

/* What failed since fail_at(). From here on nothing does. */
static enum what what_failed(FIXTURE_DATA(fail_nth) *self)
{
	char text[16] = "";

	if (pread(self->nth, text, sizeof(text) - 1, 0) <= 0) {
		/* This did. */
		if (errno != EFAULT)
			abort();
		return NOTHING;
	}
	fail_at(self, 0);
	if (strtoul(text, NULL, 10))
		return NOTHING;
	return self->copies && a_copy_failed() ? COPY : MEMORY;
}

/*
 * The next round, if there is one: the last is the first in which nothing failed.
 * Behind the first forty, one in sixteen, but for the last sixteen: where there are so
 * many, they are alike. A call may do with more or less than the one before it, so that
 * its last copy is missed; then the last rounds come again.
 */
static bool next_round(FIXTURE_DATA(fail_nth) *self)
{
	const unsigned int each = 40, stride = 16;

	if (self->failed == NOTHING) {
		if (self->stride == 1 && (self->last || !self->copies))
			return false;
		if (self->turns++ == 8)
			return false;
		self->round = max(self->round, stride) - stride;
		self->stride = 1;
	} else if (self->round == each && !self->turns) {
		self->stride = stride;
	}
	self->round += self->stride;
	return self->round < MAX_ROUNDS;
}

/* @ret = @call, or -errno if that is below 0; in it something fails. */
#define FAIL_IN(ret, call) do {							\
	if (self->copies) {							\
		ASSERT_TRUE(set_copies());					\
	}									\
	fail_at(self, self->round);						\
	(ret) = (call);								\
	if ((ret) < 0)								\
		(ret) = -errno;							\
	self->failed = what_failed(self);					\
	self->failures[self->failed]++;						\
} while (0)

/*
 * @ret = 0 or -errno of a call, in which something fails. What is copied first is its
 * argument, and then the argument is written back, to see that it can be. A call may
 * go on without memory; it cannot without a copy.
 */
#define CALL_WITH_ARRAY(ret, file, number, arg) do {				\
	__typeof__(*(arg)) before_ = *(arg);					\
										\
	FAIL_IN(ret, ioctl(file, number, arg));					\
	ASSERT_EQ(self->failed == COPY, (ret) == -EFAULT);			\
	self->refused = self->failed == COPY && self->round <= 2;		\
	self->untold = self->failed == COPY && !self->refused &&		\
		       !memcmp(&before_, arg, sizeof(before_));			\
	if (self->failed == NOTHING) {						\
		ASSERT_EQ(0, ret);						\
	}									\
	if (self->round <= 2 && self->copies) {					\
		ASSERT_TRUE(self->refused);					\
		ASSERT_EQ(0, memcmp(&before_, arg, sizeof(before_)));		\
	}									\
} while (0)

/* The same for a call that copies nothing else: what fails later is its last copy. */
#define CALL(ret, file, number, arg) do {					\
	CALL_WITH_ARRAY(ret, file, number, arg);				\
	ASSERT_EQ(self->failed == COPY, self->refused || self->untold);		\
	self->last |= self->untold;						\
} while (0)

/* At least @nr copies failed, with the last one, and at last nothing did. */
#define ASSERT_ROUNDS(nr) do {							\
	TH_LOG("%u rounds, %u without memory, %u without a copy", self->round,	\
	       self->failures[MEMORY], self->failures[COPY]);			\
	ASSERT_EQ(NOTHING, self->failed);					\
	ASSERT_EQ(self->copies, self->last);					\
	ASSERT_LE(self->copies ? (nr) : 0, self->failures[COPY]);		\
} while (0)

/* Allocations as well. */
#define ASSERT_ALLOCATED() do {							\
	ASSERT_ROUNDS(3);							\
	ASSERT_LT(0, self->failures[MEMORY]);					\
} while (0)

/* None. A call that begins to allocate needs another test, and an error in uapi.rst. */
#define ASSERT_NOT_ALLOCATED() do {						\
	ASSERT_ROUNDS(3);							\
	ASSERT_EQ(0, self->failures[MEMORY]);					\
} while (0)

#endif /* FAIL_NTH_H */
