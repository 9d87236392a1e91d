/* SPDX-License-Identifier: GPL-2.0 */
/* Pages that KSM has merged. */
#ifndef KSM_H
#define KSM_H

#include "kpageflags.h"

#define KSM_DIR		"/sys/kernel/mm/ksm/"
#define KSM_PASSES	20	/* it merges in the second pass over a page that stays as it is */

static inline long ksm_passes(void)
{
	FILE *file = fopen(KSM_DIR "full_scans", "re");
	long n = -1;

	if (!file)
		return -1;
	if (fscanf(file, "%ld", &n) != 1)
		n = -1;
	fclose(file);
	return n;
}

/*
 * Runs KSM until the page at @addr is one that it has merged. 0; -ENOENT in a kernel without KSM;
 * -EAGAIN if so many passes did not merge it.
 */
static inline int ksm_merge(const void *addr)
{
	long first = ksm_passes();
	int merged;

	if (first < 0 || write_file(KSM_DIR "pages_to_scan", "10000") ||
	    write_file(KSM_DIR "run", "1"))
		return -ENOENT;
	while ((merged = page_flag(addr, KPF_KSM)) != 1 && ksm_passes() - first < KSM_PASSES)
		usleep(1000);
	write_file(KSM_DIR "run", "0");
	return merged == 1 ? 0 : -EAGAIN;
}

#endif /* KSM_H */
