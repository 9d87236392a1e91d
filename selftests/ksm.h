/* SPDX-License-Identifier: GPL-2.0 */
/* Pages that KSM has merged. */
#ifndef KSM_H
#define KSM_H

#include "kpageflags.h"

#define KSM_DIR		"/sys/kernel/mm/ksm/"
#define KSM_PASSES	20	/* it merges in the second pass over a page that stays as it is */

/* A number of KSM's, or -1. */
static inline long ksm_number(const char *name)
{
	char path[96];

	snprintf(path, sizeof(path), KSM_DIR "%s", name);
	return read_number(path);
}

static inline long ksm_passes(void)
{
	return ksm_number("full_scans");
}

/* Runs KSM until the page at @addr has that flag of /proc/kpageflags. As ksm_merge(). */
static inline int ksm_until(const void *addr, unsigned int flag)
{
	long first = ksm_passes();
	int merged;

	if (first < 0 || write_file(KSM_DIR "pages_to_scan", "10000") ||
	    write_file(KSM_DIR "run", "1"))
		return -ENOENT;
	while ((merged = page_flag(addr, flag)) != 1 && ksm_passes() - first < KSM_PASSES)
		usleep(1000);
	write_file(KSM_DIR "run", "0");
	return merged == 1 ? 0 : -EAGAIN;
}

/*
 * Runs KSM until the page at @addr is one that it has merged. 0; -ENOENT in a kernel without KSM;
 * -EAGAIN if so many passes did not merge it.
 */
static inline int ksm_merge(const void *addr)
{
	return ksm_until(addr, KPF_KSM);
}

/* The same of a page of zeroes, for which KSM takes the kernel's. */
static inline int ksm_merge_zeroes(const void *addr)
{
	int ret = write_file(KSM_DIR "use_zero_pages", "1") ? -ENOENT :
		  ksm_until(addr, KPF_ZERO_PAGE);

	write_file(KSM_DIR "use_zero_pages", "0");
	return ret;
}

#endif /* KSM_H */
