/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The faults for negative controls, which only a build of mmops.ko
 * with MMOPS_FAULTS=1 has.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include "mmops_selftest.h"

#define FAULTS_DIR	"/sys/kernel/debug/mmops/faults/"

static inline bool faults_built_in(void)
{
	return !access(FAULTS_DIR, F_OK);
}

/* Set one fault. 0 or -errno. */
static inline int set_fault(const char *name, unsigned int value)
{
	char path[128], text[16];

	snprintf(path, sizeof(path), FAULTS_DIR "%s", name);
	snprintf(text, sizeof(text), "%u", value);
	return write_file(path, text);
}

/* What a file of the faults holds; one that counts, mostly. */
static inline unsigned int get_fault(const char *name)
{
	unsigned int value = 0;
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), FAULTS_DIR "%s", name);
	f = fopen(path, "r");
	if (f && fscanf(f, "%u", &value) != 1)
		value = 0;
	if (f)
		fclose(f);
	return value;
}

static inline void clear_faults(void)
{
	set_fault("skip_nested_check", 0);
	set_fault("skip_pending", 0);
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
