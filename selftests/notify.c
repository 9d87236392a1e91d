// SPDX-License-Identifier: GPL-2.0
/*
 * Subscriptions in the hands of a driver that misuses them (mmops_notify.ko):
 * what it does where it would wait for itself, what it drops there, and what it
 * leaves behind when it is unloaded. A call that did wait would do so for ever.
 */
#include <sys/syscall.h>

#include "mmops_notify.h"
#include "mmops_selftest.h"
#include "kselftest_harness.h"
#include "track.h"

#define NOTIFY_DEV	"/dev/mmops_notify"
#define NOTIFY_MODULE	"mmops_notify"
#define PAGES		4UL

/* 0, or -errno; -ENOENT where the modules are not to be found. */
static int load_notify(void)
{
	const char *dir = getenv("MMOPS_MODULES");
	char path[4096];
	int fd, ret;

	if (!dir)
		return -ENOENT;
	snprintf(path, sizeof(path), "%s/selftests/modules/mmops_notify/mmops_notify.ko", dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = syscall(SYS_finit_module, fd, "", 0) ? -errno : 0;
	close(fd);
	return ret;
}

static int unload_notify(void)
{
	return syscall(SYS_delete_module, NOTIFY_MODULE, O_NONBLOCK) ? -errno : 0;
}

/* References to mmops.ko, or -1. */
static long mmops_references(void)
{
	return read_number("/sys/module/mmops/refcnt");
}

FIXTURE(notify)
{
	int dev, fd;
	char *map;
};

FIXTURE_SETUP(notify)
{
	int ret = load_notify();
	char *file;

	if (ret == -ENOENT)
		SKIP(return, "MMOPS_MODULES does not lead to mmops_notify.ko");
	ASSERT_EQ(0, ret);
	OPEN_DEV(self->dev, NOTIFY_DEV);
	self->fd = new_memfd(PAGES);
	ASSERT_LE(0, self->fd);
	file = mmap(NULL, PAGES * page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, file);
	store_range(file, 0, PAGES, 1);
	self->map = mmap(NULL, PAGES * page_size(), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->map);
	store_range(self->map, 0, PAGES, 1);
}

FIXTURE_TEARDOWN(notify)
{
	close(self->dev);
	EXPECT_EQ(0, unload_notify());
}

static int notify_arg(FIXTURE_DATA(notify) *self, struct mmops_notify *arg)
{
	arg->addr = (uintptr_t)self->map;
	arg->len = PAGES * page_size();
	arg->fd = self->fd;
	return ioctl(self->dev, MMOPS_NOTIFY_IOC, arg) ? -errno : 0;
}

/* What @what came to inside of @where. */
static int notify(FIXTURE_DATA(notify) *self, uint32_t what, uint32_t where)
{
	struct mmops_notify arg = { .what = what, .where = where };
	int ret = notify_arg(self, &arg);

	return ret ? ret : arg.error;
}

/* How often subscriptions that are not ended are told of one invalidation. */
static long subscriptions(FIXTURE_DATA(notify) *self)
{
	struct mmops_notify before = { .what = MMOPS_NOTIFY_READ_BEGIN };
	struct mmops_notify after = before;

	if (notify_arg(self, &before) ||
	    madvise(self->map, PAGES * page_size(), MADV_DONTNEED) ||
	    notify_arg(self, &after))
		return -1;
	store_range(self->map, 0, PAGES, 1);
	return after.told - before.told;
}

/* Whoever would wait for its own end gets an error, and can go on afterwards. */
TEST_F_TIMEOUT(notify, waits_for_itself, TEST_SECONDS)
{
	static const uint32_t whats[] = {
		MMOPS_NOTIFY_READ_BEGIN, MMOPS_NOTIFY_FAULT, MMOPS_NOTIFY_FAULT_UNLOCKED,
		MMOPS_NOTIFY_EXCLUSIVE, MMOPS_NOTIFY_NEW, MMOPS_NOTIFY_NEW_MM,
		/* A thread that nobody knows to be inside of anything. */
		MMOPS_NOTIFY_THREAD,
	};
	uint32_t what, where;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(whats); i++) {
		what = whats[i];
		for (where = MMOPS_NOTIFY_WITH; where <= MMOPS_NOTIFY_I_MMAP; where++) {
			/*
			 * What would be allocated first must not be, in a callback or below
			 * i_mmap_rwsem.
			 */
			if ((what == MMOPS_NOTIFY_NEW || what == MMOPS_NOTIFY_NEW_MM) &&
			    where >= MMOPS_NOTIFY_CALLBACK)
				continue;
			EXPECT_EQ(-EDEADLK, notify(self, what, where)) {
				TH_LOG("%u inside of %u", what, where);
			}
			EXPECT_EQ(0, notify(self, what, MMOPS_NOTIFY_OUTSIDE)) {
				TH_LOG("%u", what);
			}
		}
	}
	EXPECT_EQ(0, subscriptions(self));
}

/*
 * An operation that takes i_mmap_rwsem, and may lock folios, where one of these may be
 * held: in a callback, whoever called it, and below the first.
 */
TEST_F_TIMEOUT(notify, locks_that_are_held, TEST_SECONDS)
{
	static const struct {
		uint32_t where;
		int error;
	} cases[] = {
		{ MMOPS_NOTIFY_OUTSIDE, 0 },
		{ MMOPS_NOTIFY_CALLBACK, -EDEADLK },
		{ MMOPS_NOTIFY_CALLBACK_MM, -EDEADLK },
		{ MMOPS_NOTIFY_LOOK_FILE, -EDEADLK },
		{ MMOPS_NOTIFY_I_MMAP, -EDEADLK },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		EXPECT_EQ(cases[i].error,
			  notify(self, MMOPS_NOTIFY_WRITE_PROTECT, cases[i].where)) {
			TH_LOG("inside of %u", cases[i].where);
		}
		EXPECT_EQ(cases[i].error, notify(self, MMOPS_NOTIFY_LOCK, cases[i].where)) {
			TH_LOG("inside of %u", cases[i].where);
		}
	}
}

/* A tracker keeps mmops.ko, whose code its callbacks are: a driver may leave it behind. */
TEST_F_TIMEOUT(notify, tracker_keeps_the_module, TEST_SECONDS)
{
	long before = mmops_references();
	struct tracker process, file;

	ASSERT_LT(0, before);
	ASSERT_EQ(0, track_open(&process, self->map, PAGES));
	EXPECT_EQ(before + 1, mmops_references());
	ASSERT_EQ(0, track_open_file(&file, self->fd, 0, self->map, PAGES));
	EXPECT_EQ(before + 2, mmops_references());
	track_close(&process);
	EXPECT_EQ(before + 1, mmops_references());
	track_close(&file);
	EXPECT_EQ(before, mmops_references());
}

/* One that is dropped where its end would wait ends all the same. */
TEST_F_TIMEOUT(notify, tracker_dropped_inside, TEST_SECONDS)
{
	long before = mmops_references();
	uint32_t where;

	ASSERT_LT(0, before);
	for (where = MMOPS_NOTIFY_OUTSIDE; where <= MMOPS_NOTIFY_I_MMAP; where++) {
		EXPECT_EQ(0, notify(self, MMOPS_NOTIFY_DROP_TRACKER, where)) {
			TH_LOG("dropped inside of %u", where);
		}
		/* A kernel thread ends it; if none does, this test never ends. */
		while (mmops_references() != before)
			usleep(1000);
	}
}

/* What is dropped where that would wait for itself stays subscribed. */
TEST_F_TIMEOUT(notify, dropped_inside, TEST_SECONDS)
{
	static const struct {
		uint32_t where;
		bool stays;
	} cases[] = {
		{ MMOPS_NOTIFY_OUTSIDE, false },
		{ MMOPS_NOTIFY_LOOK, false },
		{ MMOPS_NOTIFY_WITH, true },
		{ MMOPS_NOTIFY_GATHER, true },
		{ MMOPS_NOTIFY_WALK, true },
		{ MMOPS_NOTIFY_CALLBACK, true },
		{ MMOPS_NOTIFY_CALLBACK_MM, true },
		{ MMOPS_NOTIFY_LOOK_FILE, true },
		{ MMOPS_NOTIFY_I_MMAP, true },
	};
	long wanted = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		EXPECT_EQ(0, notify(self, MMOPS_NOTIFY_DROP, cases[i].where));
		wanted += cases[i].stays;
		EXPECT_EQ(wanted, subscriptions(self)) {
			TH_LOG("dropped inside of %u", cases[i].where);
		}
	}
	for (i = 0; i < ARRAY_SIZE(cases); i++)
		EXPECT_EQ(0, notify(self, MMOPS_NOTIFY_DROP_MM, cases[i].where));
}

/*
 * A module that goes takes its subscriptions along: those in a static, and those
 * that stay for having been dropped in the wrong place.
 */
TEST_F_TIMEOUT(notify, unloaded, TEST_SECONDS)
{
	ASSERT_EQ(0, notify(self, MMOPS_NOTIFY_KEEP, 0));
	ASSERT_EQ(0, notify(self, MMOPS_NOTIFY_DROP, MMOPS_NOTIFY_CALLBACK));
	ASSERT_EQ(0, notify(self, MMOPS_NOTIFY_DROP_MM, MMOPS_NOTIFY_CALLBACK_MM));
	ASSERT_EQ(2, subscriptions(self));
	close(self->dev);
	ASSERT_EQ(0, unload_notify());
	/* Both kinds would be told of these, in text that is freed. */
	ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, mprotect(self->map, PAGES * page_size(), PROT_READ));
	ASSERT_EQ(0, mprotect(self->map, PAGES * page_size(), PROT_READ | PROT_WRITE));
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(0, load_notify());
	OPEN_DEV(self->dev, NOTIFY_DEV);
	EXPECT_EQ(0, subscriptions(self));
	EXPECT_EQ(0, notify(self, MMOPS_NOTIFY_FAULT, MMOPS_NOTIFY_OUTSIDE));
}

/* {:?} of what a driver gets holds no address of the kernel. */
TEST_F_TIMEOUT(notify, printed, TEST_SECONDS)
{
	struct mmops_notify arg = {
		.what = MMOPS_NOTIFY_DEBUG,
		.where = MMOPS_NOTIFY_CALLBACK,
	};

	ASSERT_EQ(0, notify_arg(self, &arg));
	ASSERT_EQ(0, arg.error);
	TH_LOG("%s", arg.text);
	EXPECT_NE(NULL, strstr(arg.text, "Invalidated { event: Clear, range: AddrRange {"));
	EXPECT_NE(NULL, strstr(arg.text, "Token {"));
	EXPECT_EQ(NULL, strstr(arg.text, "0x"));
}

TEST_HARNESS_MAIN
