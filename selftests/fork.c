// SPDX-License-Identifier: GPL-2.0
/*
 * Children that inherit a shared mapping, and what is left when they exit.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "agent.h"
#include "kselftest_harness.h"

#define PAGES	256UL

FIXTURE_MEMFD(forks, PAGES, 0);

/* Parent and child have entries of their own; both are reported. */
TEST_F_TIMEOUT(forks, both_reported, TEST_SECONDS)
{
	struct agent_cmd cmd = { .op = AGENT_STORE };
	struct agent child = {};
	size_t i;

	store_range(self->map, 0, 100, 1);
	ASSERT_EQ(0, agent_start(&child));
	cmd.addr = self->map + 80 * page_size();
	cmd.pages = 50;
	cmd.value = 500;
	ASSERT_EQ(0, agent_run(&child, &cmd));
	ASSERT_EQ(150, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(150, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(i < 130, test_bit(self->h.bitmap, i));
	}

	reset_harvest(&self->h);
	cmd.op = AGENT_FAULTS;
	ASSERT_EQ(50, agent_run(&child, &cmd));
	ASSERT_EQ(50, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(80, self->h.start);
	ASSERT_EQ(130, self->h.end);
	for (i = 0; i < 50; i++) {
		ASSERT_EQ(500 + i, load(self->map, 80 + i));
	}
	ASSERT_EQ(0, agent_stop(&child));
}

/* The entries of a process that exits are gone, and its stores are not. */
TEST_F_TIMEOUT(forks, exit_before_harvest, TEST_SECONDS)
{
	struct agent_cmd cmd = { .op = AGENT_STORE, .pages = 50, .value = 500 };
	struct agent child = {};
	size_t i;

	store_range(self->map, 0, 10, 1);
	ASSERT_EQ(0, agent_start(&child));
	cmd.addr = self->map + 100 * page_size();
	ASSERT_EQ(0, agent_run(&child, &cmd));
	ASSERT_EQ(0, agent_stop(&child));
	ASSERT_EQ(10, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	for (i = 0; i < 50; i++) {
		ASSERT_EQ(500 + i, load(self->map, 100 + i));
	}
}

struct harvester {
	int dev, fd;
	atomic_bool stop;
	uint64_t calls, errors;
	const char *map;
	uint64_t shadow[PAGES];
	struct harvest h;
};

/* Harvest and copy what is reported, until told to stop and once more. */
static void *harvest_loop(void *arg)
{
	struct harvester *hv = arg;
	bool last;
	size_t i;

	do {
		last = atomic_load(&hv->stop);
		reset_harvest(&hv->h);
		if (clean_record(hv->dev, hv->fd, 0, PAGES, &hv->h) < 0)
			hv->errors++;
		for (i = 0; i < PAGES; i++)
			if (test_bit(hv->h.bitmap, i))
				hv->shadow[i] = load(hv->map, i);
		if (write_protect(hv->dev, hv->fd, 0, PAGES) < 0)
			hv->errors++;
		hv->calls++;
	} while (!last);
	return NULL;
}

/* Processes come and go while a harvest runs: no store of the parent is lost. */
TEST_F_TIMEOUT(forks, children_come_and_go, TEST_SECONDS)
{
	struct harvester hv = {
		.dev = self->dev, .fd = self->fd, .map = self->map, .h = self->h,
	};
	unsigned int n = rounds(200), i;
	pthread_t thread;
	int status;
	pid_t pid;

	ASSERT_EQ(0, pthread_create(&thread, NULL, harvest_loop, &hv));
	for (i = 1; i <= n; i++) {
		pid = fork();
		ASSERT_GE(pid, 0);
		if (pid == 0) {
			store_range(self->map, PAGES / 2, PAGES / 2, i);
			_exit(0);
		}
		store_range(self->map, 0, PAGES / 2, (uint64_t)i << 32);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_EQ(0, status);
	}
	atomic_store(&hv.stop, true);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, hv.errors);
	ASSERT_GT(hv.calls, 0);
	for (i = 0; i < PAGES / 2; i++) {
		ASSERT_EQ(((uint64_t)n << 32) + i, hv.shadow[i]);
	}
}

TEST_HARNESS_MAIN
