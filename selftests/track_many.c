// SPDX-License-Identifier: GPL-2.0
/*
 * Trackers where there is much of something: of them, of children, and of memory that
 * is asked for beyond what there is.
 */
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "cgroup.h"
#include "exclusive.h"
#include "track.h"
#include "kselftest_harness.h"

/* An epoch of a tracker of one page: whether that is in it, or -errno. */
static int has_changed(int dev)
{
	struct mmops_track_begin begun = {};
	struct mmops_track_end end = {};

	if (ioctl(dev, MMOPS_IOC_TRACK_BEGIN, &begun) || ioctl(dev, MMOPS_IOC_TRACK_END, &end))
		return -errno;
	return begun.written + begun.changed;
}

FIXTURE(many)
{
};

FIXTURE_SETUP(many)
{
}

FIXTURE_TEARDOWN(many)
{
}

/*
 * 10,000 trackers, each of a page of its own; 2,000 on a debug kernel. Each begin of one
 * looks at all, so that one in ten has epochs.
 */
TEST_F_TIMEOUT(many, trackers, TEST_SECONDS)
{
	enum { MOST = 10000, EPOCHS = 10, STORES = 20 };
	const struct rlimit files = { MOST + 100, MOST + 100 };
	/* Each is called for each invalidation, which lockdep looks at. */
	const size_t nr = rounds(MOST);
	struct mmops_track_open arg = { .pidfd = -1, .flags = track_mode, .len = page_size() };
	char *map = map_anon(nr);
	struct tracker all;
	static int dev[MOST];
	size_t i, cut;

	ASSERT_NE(NULL, map);
	ASSERT_EQ(0, madvise(map, nr * page_size(), MADV_NOHUGEPAGE));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &files));
	store_range(map, 0, nr, 1);
	for (i = 0; i < nr; i++) {
		dev[i] = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, dev[i]);
		arg.addr = (uintptr_t)map + i * page_size();
		ASSERT_EQ(0, ioctl(dev[i], MMOPS_IOC_TRACK_OPEN, &arg));
	}
	for (i = 0; i < nr; i += EPOCHS) {
		ASSERT_EQ(1, has_changed(dev[i]));
	}
	/* One of all pages beside them, which takes each dirty bit first. */
	ASSERT_EQ(0, track_open(&all, map, nr));
	ASSERT_EPOCH(&all);
	for (i = 0; i < nr; i += STORES)
		store(map, i, 2);
	ASSERT_EPOCH(&all);
	ASSERT_EQ(nr / STORES, track_reported(&all));
	for (i = 0; i < nr; i += EPOCHS) {
		ASSERT_EQ(i % STORES == 0, has_changed(dev[i]));
	}
	/* What is taken away is told. Elsewhere the kernel would tell of all that a PMD maps. */
	cut = nr / 2 + PMD_PAGES - ((uintptr_t)map / page_size() + nr / 2) % PMD_PAGES;
	ASSERT_EQ(0, munmap(map, cut * page_size()));
	for (i = 0; i < nr; i += EPOCHS) {
		ASSERT_EQ(i < cut, has_changed(dev[i]));
	}
	for (i = 0; i < nr; i++) {
		ASSERT_EQ(0, close(dev[i]));
	}
	store(map, nr - 1, 3);
	ASSERT_EQ(0, track_begin(&all));
	ASSERT_EQ(cut + 1, track_reported(&all));
	track_close(&all);
}

FIXTURE(forks)
{
};

FIXTURE_VARIANT(forks)
{
	uint32_t mode;
};

FIXTURE_VARIANT_ADD(forks, fast)
{
	.mode = MMOPS_TRACK_FAST,
};

FIXTURE_VARIANT_ADD(forks, full)
{
	.mode = MMOPS_TRACK_FULL,
};

FIXTURE_SETUP(forks)
{
	track_mode = variant->mode;
}

FIXTURE_TEARDOWN(forks)
{
}

/* Each child stores to all pages, and lives until the last one does. */
TEST_F_TIMEOUT(forks, children, TEST_SECONDS)
{
	enum { CHILDREN = 300, PAGES = 64, EACH = 20 };
	char *map = map_stored(PAGES), byte;
	int ready[2], stop[2], status, i;
	pid_t pids[CHILDREN];
	struct tracker t;

	ASSERT_NE(NULL, map);
	ASSERT_EQ(0, pipe(ready));
	ASSERT_EQ(0, pipe(stop));
	ASSERT_EQ(0, track_open(&t, map, PAGES));
	ASSERT_EPOCH(&t);
	for (i = 0; i < CHILDREN; i++) {
		pids[i] = fork();
		ASSERT_LE(0, pids[i]);
		if (!pids[i]) {
			close(stop[1]);
			store_range(map, 0, PAGES, 100000);
			/* Woken by the end of the parent's side. */
			_exit(write(ready[1], "", 1) != 1 || read(stop[0], &byte, 1) ||
			      load(map, 5) != 100005);
		}
		store(map, i % PAGES, 1000 + i);
		if (i % EACH == EACH - 1) {
			ASSERT_EPOCH(&t);
			ASSERT_LE(EACH, track_reported(&t));
		}
	}
	for (i = 0; i < CHILDREN; i++) {
		ASSERT_EQ(1, read(ready[0], &byte, 1));
	}
	ASSERT_EPOCH(&t);
	/* Nothing is stored, whatever they do. */
	ASSERT_EPOCH(&t);
	ASSERT_EQ(0, track_reported(&t));
	close(stop[1]);
	for (i = 0; i < CHILDREN; i++) {
		ASSERT_EQ(pids[i], waitpid(pids[i], &status, 0));
		ASSERT_EQ(0, status);
	}
	store(map, 7, 1);
	ASSERT_EPOCH(&t);
	ASSERT_EQ(1, track_reported(&t));
	track_close(&t);
}

#define LARGE	(1UL << 22)	/* pages */

/* What a child does in the cgroup: it opens so many trackers of a large range of its parent. */
static int open_large(pid_t of, unsigned int nr, int ready, int stop)
{
	struct mmops_track_open arg = {
		.pidfd = syscall(SYS_pidfd_open, of, 0), .flags = track_mode,
		.addr = 1UL << 40, .len = LARGE * page_size(),
	};
	char byte;

	if (arg.pidfd < 0 || write_file(CGROUP_DIR "/cgroup.procs", "0"))
		return 1;
	while (nr--) {
		int dev = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);

		if (dev < 0 || ioctl(dev, MMOPS_IOC_TRACK_OPEN, &arg))
			return 2;
	}
	return write(ready, "", 1) != 1 || read(stop, &byte, 1);
}

FIXTURE(memory)
{
	char *map;
	struct tracker t;
	int ready[2], stop[2];
	pid_t pid;
	bool has_cgroup;
};

FIXTURE_SETUP(memory)
{
	const char *why = make_cgroup();

	if (why)
		SKIP(return, "%s", why);
	self->has_cgroup = true;
	self->map = map_stored(10);
	ASSERT_NE(NULL, self->map);
	ASSERT_EQ(0, pipe(self->ready));
	ASSERT_EQ(0, pipe(self->stop));
	ASSERT_EQ(0, track_open(&self->t, self->map, 10));
	ASSERT_EPOCH(&self->t);
}

FIXTURE_TEARDOWN(memory)
{
	if (self->has_cgroup)
		remove_cgroup();
}

static void start_child(struct __test_metadata *_metadata, FIXTURE_DATA(memory) *self,
			unsigned int nr)
{
	pid_t of = getpid();

	self->pid = fork();
	ASSERT_LE(0, self->pid);
	if (!self->pid) {
		close(self->stop[1]);
		close(self->ready[0]);
		_exit(open_large(of, nr, self->ready[1], self->stop[0]));
	}
	close(self->ready[1]);
}

/* Bits are charged to who opens the tracker, and let go with it. */
TEST_F_TIMEOUT(memory, is_charged, TEST_SECONDS)
{
	enum { NR = 4 };
	const long bits = NR * LARGE / 8 / page_size();		/* of one for each page */
	long charged;
	int status;
	char byte;

	start_child(_metadata, self, NR);
	ASSERT_EQ(1, read(self->ready[0], &byte, 1));
	charged = cgroup_pages(CGROUP_DIR, "memory.current");
	ASSERT_EQ(0, close(self->stop[1]));
	ASSERT_EQ(self->pid, waitpid(self->pid, &status, 0));
	ASSERT_EQ(0, status);
	ASSERT_LE(6 * bits, charged);
	ASSERT_GE(8 * bits, charged);
	while (cgroup_pages(CGROUP_DIR, "memory.current") > bits)
		usleep(1000);
}

/* At its limit who asked for too much is ended, and nobody else. */
TEST_F_TIMEOUT(memory, limit, TEST_SECONDS)
{
	int status;
	char byte;

	ASSERT_EQ(0, write_file(CGROUP_DIR "/memory.max", "20M"));
	start_child(_metadata, self, 64);
	ASSERT_EQ(0, read(self->ready[0], &byte, 1));
	ASSERT_EQ(self->pid, waitpid(self->pid, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status));
	ASSERT_EQ(SIGKILL, WTERMSIG(status));
	/* Its fork counts as a change. */
	ASSERT_EPOCH(&self->t);
	store(self->map, 3, 77);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(1, track_reported(&self->t));
	while (cgroup_pages(CGROUP_DIR, "memory.current") > 256)
		usleep(1000);
}

TEST_HARNESS_MAIN
