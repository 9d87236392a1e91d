// SPDX-License-Identifier: GPL-2.0
/*
 * Which address space a pidfd names: that of the process, as long as any of its
 * threads has not ended. Every call that takes a pidfd finds it by the same
 * function.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "exclusive.h"
#include "kselftest_harness.h"
#include "notifier.h"

#ifndef PIDFD_THREAD
#define PIDFD_THREAD	O_EXCL
#endif

#define PAGES	32UL
#define RW	(PROT_READ | PROT_WRITE)

/* What both processes see. */
struct shared {
	_Atomic pid_t thread;
	atomic_bool main_ends, thread_ends;
	_Atomic uint64_t rounds;
};

FIXTURE(pidfd)
{
	int dev, leader;
	pid_t pid;
	char *map;	/* private memory of the process */
	struct shared *shared;
};

static struct shared *the_shared;

static void *second_thread(void *arg)
{
	uint64_t *words = arg;

	atomic_store(&the_shared->thread, syscall(SYS_gettid));
	while (!atomic_load(&the_shared->thread_ends)) {
		words[PAGES * page_size() / 8 - 1]++;
		atomic_fetch_add(&the_shared->rounds, 1);
		sched_yield();
	}
	/* Not exit(): only this thread. */
	syscall(SYS_exit, 0);
	return NULL;
}

static void run_target(char *map)
{
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	store_range(map, 0, PAGES, 2);
	if (pthread_create(&thread, NULL, second_thread, map))
		_exit(1);
	while (!atomic_load(&the_shared->main_ends))
		sched_yield();
	syscall(SYS_exit, 0);
}

/* The state of a task as /proc has it, or 0. */
static char state_of(pid_t pid)
{
	char path[64], line[512] = "", *end;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, pid);
	f = fopen(path, "r");
	if (f) {
		if (!fgets(line, sizeof(line), f))
			line[0] = '\0';
		fclose(f);
	}
	end = strrchr(line, ')');
	return end ? end[2] : 0;
}

FIXTURE_SETUP(pidfd)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	self->shared = mmap(NULL, page_size(), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(self->shared, MAP_FAILED);
	the_shared = self->shared;
	self->map = mmap(NULL, PAGES * page_size(), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(self->map, MAP_FAILED);
	madvise(self->map, PAGES * page_size(), MADV_NOHUGEPAGE);
	store_range(self->map, 0, PAGES, 1);
	self->pid = fork();
	ASSERT_GE(self->pid, 0);
	if (!self->pid)
		run_target(self->map);
	self->leader = syscall(SYS_pidfd_open, self->pid, 0);
	ASSERT_GE(self->leader, 0);
	while (!atomic_load(&self->shared->thread))
		sched_yield();
}

FIXTURE_TEARDOWN(pidfd)
{
	if (self->pid > 0) {
		kill(self->pid, SIGKILL);
		waitpid(self->pid, NULL, 0);
	}
}

/* The main thread ends, and the process does not. */
static bool end_main_thread(FIXTURE_DATA(pidfd) *self)
{
	uint64_t rounds;

	atomic_store(&self->shared->main_ends, true);
	while (state_of(self->pid) != 'Z')
		if (!state_of(self->pid))
			return false;
	rounds = atomic_load(&self->shared->rounds);
	while (atomic_load(&self->shared->rounds) < rounds + 2)
		sched_yield();
	return true;
}

/* Each call that takes a pidfd, on the first pages. The first one that fails, as -errno. */
static int all_calls(int dev, int pidfd, char *map)
{
	static struct mmops_leaf vec[MMOPS_LEAVES_MIN];
	struct mmops_protect protect = {
		.pidfd = pidfd, .addr = (uintptr_t)map, .len = 4 * page_size(), .prot = PROT_READ,
	};
	struct mmops_leaves leaves = {
		.pidfd = pidfd, .addr = (uintptr_t)map, .len = 8 * page_size(),
		.vec = (uintptr_t)vec, .vec_len = MMOPS_LEAVES_MIN,
	};
	struct mmops_atomic_add add = {
		.pidfd = pidfd, .addr = (uintptr_t)map, .stride = 8, .nr = 1, .value = 10,
		.rounds = 1,
	};
	int own, ret;
	int64_t n;

	n = soft_dirty_clear_of(dev, pidfd, map, 8, 0, NULL);
	if (n < 0 && n != -EOPNOTSUPP)
		return n;
	n = exclusive_of(dev, pidfd, map, 4, NULL);
	if (n != 4)
		return n < 0 ? n : -EPROTO;
	n = revoke_of(dev, pidfd, map, 4);
	if (n != 4)
		return n < 0 ? n : -EPROTO;
	if (ioctl(dev, MMOPS_IOC_ATOMIC_ADD, &add))
		return -errno;
	if (ioctl(dev, MMOPS_IOC_PROTECT, &protect))
		return -errno;
	protect.prot = RW;
	if (ioctl(dev, MMOPS_IOC_PROTECT, &protect))
		return -errno;
	if (ioctl(dev, MMOPS_IOC_LEAVES, &leaves))
		return -errno;
	if (leaves.nr != 8)
		return -EPROTO;
	n = zap_of(dev, pidfd, map + 4 * page_size(), 4);
	if (n != 4)
		return n < 0 ? n : -EPROTO;
	own = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
	ret = subscribe_capacity(own, pidfd, map, 8 * page_size(), 0, 16);
	close(own);
	return ret;
}

TEST_F_TIMEOUT(pidfd, main_thread_runs, TEST_SECONDS)
{
	ASSERT_EQ(0, all_calls(self->dev, self->leader, self->map));
}

/* The process is there, and so is its memory. */
TEST_F_TIMEOUT(pidfd, main_thread_has_ended, TEST_SECONDS)
{
	uint64_t rounds, word;
	char path[64];
	int mem;

	ASSERT_TRUE(end_main_thread(self));
	ASSERT_EQ(0, all_calls(self->dev, self->leader, self->map));
	rounds = atomic_load(&self->shared->rounds);
	while (atomic_load(&self->shared->rounds) < rounds + 2)
		sched_yield();
	/* It was that of the process which the calls changed. */
	snprintf(path, sizeof(path), "/proc/%d/task/%d/mem", self->pid, self->shared->thread);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_GE(mem, 0);
	ASSERT_EQ(8, pread(mem, &word, 8, (uintptr_t)self->map));
	ASSERT_EQ(2 + 10, word);
	ASSERT_EQ(8, pread(mem, &word, 8, (uintptr_t)self->map + 4 * page_size()));
	ASSERT_EQ(0, word);
	close(mem);
	ASSERT_EQ(1, load(self->map, 0));
}

/* Who may not trace it may do nothing, with the main thread or without. */
TEST_F_TIMEOUT(pidfd, access_is_checked, TEST_SECONDS)
{
	int round, status;
	pid_t pid;

	for (round = 0; round < 2; round++) {
		pid = fork();
		if (!pid) {
			if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
				_exit(1);
			_exit(zap_of(self->dev, self->leader, self->map, 1) == -EACCES ? 0 : 2);
		}
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_EQ(0, status);
		if (!round) {
			ASSERT_TRUE(end_main_thread(self));
		}
	}
}

/* With its last thread the process has ended, waited for or not. */
TEST_F_TIMEOUT(pidfd, all_have_ended, TEST_SECONDS)
{
	siginfo_t info;

	ASSERT_TRUE(end_main_thread(self));
	atomic_store(&self->shared->thread_ends, true);
	ASSERT_EQ(0, waitid(P_PID, self->pid, &info, WEXITED | WNOWAIT));
	ASSERT_EQ(-ESRCH, zap_of(self->dev, self->leader, self->map, 1));
	ASSERT_EQ(self->pid, waitpid(self->pid, NULL, 0));
	self->pid = 0;
	ASSERT_EQ(-ESRCH, zap_of(self->dev, self->leader, self->map, 1));
}

/* The pidfd of a thread: the main one stands for the process, another one for nothing here. */
TEST_F_TIMEOUT(pidfd, of_threads, TEST_SECONDS)
{
	int main_thread = syscall(SYS_pidfd_open, self->pid, PIDFD_THREAD);
	int other = syscall(SYS_pidfd_open, self->shared->thread, PIDFD_THREAD);

	if (main_thread < 0 || other < 0)
		SKIP(return, "no PIDFD_THREAD: %s", strerror(errno));
	ASSERT_EQ(0, all_calls(self->dev, main_thread, self->map));
	ASSERT_EQ(-ESRCH, zap_of(self->dev, other, self->map, 1));
	ASSERT_TRUE(end_main_thread(self));
	ASSERT_EQ(4, zap_of(self->dev, main_thread, self->map, 4));
	ASSERT_EQ(-ESRCH, zap_of(self->dev, other, self->map, 1));
}

TEST_F_TIMEOUT(pidfd, kernel_thread, TEST_SECONDS)
{
	int pidfd = syscall(SYS_pidfd_open, 2, 0);

	if (pidfd < 0)
		SKIP(return, "no kernel thread to be named: %s", strerror(errno));
	ASSERT_EQ(-ESRCH, zap_of(self->dev, pidfd, self->map, 1));
}

TEST_HARNESS_MAIN
