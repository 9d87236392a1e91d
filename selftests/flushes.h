/* SPDX-License-Identifier: GPL-2.0 */
/*
 * TLB flushes, as /proc/vmstat counts them for all CPUs. Whatever else runs may
 * flush as well: a test of a number of flushes repeats what it counts, until a
 * round was undisturbed.
 */
#ifndef FLUSHES_H
#define FLUSHES_H

#include <pthread.h>
#include <stdatomic.h>

#include "mmops_selftest.h"

/*
 * Rounds within which one is taken to be undisturbed. Reached only by a test
 * that fails.
 */
#define FLUSH_ROUNDS	2000

/* A counter of /proc/vmstat, or 0. */
static inline uint64_t vmstat(const char *name)
{
	FILE *f = fopen("/proc/vmstat", "r");
	unsigned long long value, found = 0;
	char key[64];

	if (!f)
		return 0;
	while (fscanf(f, "%63s %llu", key, &value) == 2)
		if (!strcmp(key, name))
			found = value;
	fclose(f);
	return found;
}

/*
 * Flushes of this or other CPUs so far: of all of a TLB, or of single entries,
 * one for each. 0 if the kernel does not count them.
 */
static inline uint64_t local_flushes(void)
{
	return vmstat("nr_tlb_local_flush_all") + vmstat("nr_tlb_local_flush_one");
}

/* A second CPU that has the mm loaded, so that a flush has to reach it. */
struct spinner {
	pthread_t thread;
	char *map;
	_Atomic uint64_t passes;
	atomic_bool stop;
};

static void *spin(void *arg)
{
	struct spinner *spinner = arg;

	pin_to_cpu(1);
	while (!atomic_load(&spinner->stop)) {
		load(spinner->map, 0);
		atomic_fetch_add(&spinner->passes, 1);
	}
	return NULL;
}

/* On CPU 1, with the caller on CPU 0. 0 or an errno. */
static inline int spinner_start(struct spinner *spinner)
{
	int ret;

	pin_to_cpu(0);
	ret = pthread_create(&spinner->thread, NULL, spin, spinner);
	while (!ret && !atomic_load(&spinner->passes))
		sched_yield();
	return ret;
}

static inline void spinner_stop(struct spinner *spinner)
{
	atomic_store(&spinner->stop, true);
	pthread_join(spinner->thread, NULL);
}

#endif /* FLUSHES_H */
