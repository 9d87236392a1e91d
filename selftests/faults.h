/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The faults and gates for negative controls, which only a build of mmops.ko
 * with MMOPS_FAULTS=1 has.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>

#include "mmops_selftest.h"

#define FAULTS_DIR	"/sys/kernel/debug/mmops/faults/"

static inline bool faults_built_in(void)
{
	return !access(FAULTS_DIR, F_OK);
}

/* Set one fault. 0 or -errno. */
static inline int set_fault(const char *name, unsigned int value)
{
	char path[320], text[16];

	snprintf(path, sizeof(path), FAULTS_DIR "%s", name);
	snprintf(text, sizeof(text), "%u", value);
	return write_file(path, text);
}

/*
 * What a file of the faults holds: of a gate, how many stand there. Without memory of
 * the heap, whose return to the kernel can flush TLBs.
 */
static inline unsigned int get_fault(const char *name)
{
	char path[320], text[16] = "";
	int fd;

	snprintf(path, sizeof(path), FAULTS_DIR "%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return strtoul(text, NULL, 10);
}

/*
 * Gates. rust/faults.rs says where they are, and what a thread does that stands
 * there: nothing else is needed to come between two steps of the module, and how
 * long the test takes for that does not matter.
 */

/* Longer than the module waits at a gate: reached only by a test that fails. */
#define GATE_SECONDS	120

/* The next @stop threads that come to a gate stop, after @pass that do not. 0 or -errno. */
static inline int close_gate_after(const char *name, unsigned int stop, unsigned int pass)
{
	char path[320], text[32];

	snprintf(path, sizeof(path), FAULTS_DIR "%s", name);
	snprintf(text, sizeof(text), "%u %u", stop, pass);
	return write_file(path, text);
}

static inline int close_gate(const char *name, unsigned int stop)
{
	return close_gate_after(name, stop, 0);
}

/* Let go who stands at a gate, and all who come. 0 or -errno. */
static inline int open_gate(const char *name)
{
	return set_fault(name, 0);
}

/*
 * Wait until @nr threads stand at a gate. False if what they do was @over before,
 * which may be NULL, or if that takes too long.
 */
static inline bool wait_at_gate(const char *name, unsigned int nr, atomic_bool *over)
{
	uint64_t end = now_ns() + GATE_SECONDS * 1000000000ULL;

	while (get_fault(name) < nr) {
		if ((over && atomic_load(over)) || now_ns() > end)
			return false;
		sched_yield();
	}
	return true;
}

/* Time of its CPU that a thread has used. */
static inline uint64_t cpu_ns_of(pthread_t thread)
{
	struct timespec ts;
	clockid_t clock;

	if (pthread_getcpuclockid(thread, &clock) || clock_gettime(clock, &ts))
		return 0;
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/*
 * Wait until the step of a thread is @over. False if that takes too long.
 *
 * With @cpu_ns it may have to spin for the lock of who stands at a gate, as it has to
 * where nothing is to be lost: it is given up when it has used so much of its CPU.
 * Judged too early, the round is worth less, and nothing else.
 */
#define STEP_CPU_NS	100000000ULL

static inline bool wait_for_step(pthread_t thread, atomic_bool *over, uint64_t cpu_ns)
{
	uint64_t end = now_ns() + GATE_SECONDS * 1000000000ULL, first = cpu_ns_of(thread);

	while (!atomic_load(over)) {
		if (now_ns() > end)
			return false;
		if (cpu_ns && cpu_ns_of(thread) > first + cpu_ns)
			break;
		sched_yield();
	}
	return true;
}

/* Open all gates, and set all faults and counts to 0. */
static inline void clear_faults(void)
{
	DIR *dir = opendir(FAULTS_DIR);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			set_fault(entry->d_name, 0);
	if (dir)
		closedir(dir);
}

/* At the start of a control */
#define SKIP_WITHOUT_FAULTS()							\
do {										\
	if (!faults_built_in())							\
		SKIP(return, "no " FAULTS_DIR ": mmops.ko was built without MMOPS_FAULTS=1"); \
	clear_faults();								\
} while (0)

/* At its end: no thread was left standing at a gate. */
#define END_FAULTS()								\
do {										\
	ASSERT_EQ(0, get_fault("gates_given_up"));				\
	clear_faults();								\
} while (0)

#endif /* FAULTS_H */
