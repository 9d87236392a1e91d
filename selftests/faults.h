/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The faults for negative controls, which only a build of mmops.ko
 * with MMOPS_FAULTS=1 has.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include <stdatomic.h>

#include "mmops_selftest.h"

#define FAULTS_DIR	"/sys/kernel/debug/mmops/faults/"

/*
 * How long a control goes on at most. On a machine with CPUs of its own it meets its
 * window within the rounds of the test that it belongs to; on a busy one the
 * threads of a round do not run side by side, and it takes more of them.
 */
#define CONTROL_SECONDS	240

/* Whether there is a round to do after @done of @wanted; @until is 0, or control_end(). */
static inline bool more_rounds(unsigned int done, unsigned int wanted, uint64_t until)
{
	return done < wanted || now_ns() < until;
}

static inline uint64_t control_end(void)
{
	return now_ns() + CONTROL_SECONDS * 1000000000ULL;
}

static inline bool faults_built_in(void)
{
	return !access(FAULTS_DIR, F_OK);
}

#define SKIP_WITHOUT_FAULTS()							\
do {										\
	if (!faults_built_in())							\
		SKIP(return, "no " FAULTS_DIR ": mmops.ko was built without MMOPS_FAULTS=1"); \
} while (0)

/* Set one fault. 0 or -errno. */
static inline int set_fault(const char *name, unsigned int value)
{
	char path[128], text[16];

	snprintf(path, sizeof(path), FAULTS_DIR "%s", name);
	snprintf(text, sizeof(text), "%u", value);
	return write_file(path, text);
}

/*
 * What a file of the faults holds; one that counts, mostly. Without memory of the
 * heap, whose return to the kernel can flush TLBs.
 */
static inline unsigned int get_fault(const char *name)
{
	char path[128], text[16] = "";
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
 * Wait until so many of the windows that a fault holds open are. False if it was
 * @over before, which may be NULL, or takes too long.
 */
static inline bool wait_for_windows(unsigned int nr, atomic_bool *over)
{
	uint64_t end = now_ns() + 10000000000ULL;

	while (get_fault("windows_open") < nr)
		if ((over && atomic_load(over)) || now_ns() > end)
			return false;
	return true;
}

static inline void clear_faults(void)
{
	set_fault("skip_nested_check", 0);
	set_fault("skip_pending", 0);
	set_fault("leak_pending", 0);
	set_fault("skip_flush", 0);
	set_fault("transfer_before_flush", 0);
	set_fault("trylock_fails", 0);
	set_fault("mark_before_flush", 0);
	set_fault("gather_no_memory", 0);
	set_fault("protect_clear_first", 0);
	set_fault("protect_stale_value", 0);
	set_fault("skip_retry", 0);
	set_fault("window_us", 0);
	set_fault("ignore_invalidation", 0);
	set_fault("fault_in_no_memory", 0);
	set_fault("entry_changes", 0);
	set_fault("split_clear_first", 0);
	set_fault("split_us", 0);
	set_fault("keep_migration_writable", 0);
	set_fault("delay_us", 0);
}

#endif /* FAULTS_H */
