/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's own thread that makes huge pages. scripts/guest/lib.sh has put it to
 * sleep, so that it disturbs no test.
 */
#ifndef KHUGEPAGED_H
#define KHUGEPAGED_H

#include "mmops_selftest.h"

#define KHUGEPAGED_DIR		THP_DIR "khugepaged/"
#define SCAN_SLEEP		KHUGEPAGED_DIR "scan_sleep_millisecs"
/* Scans of all memory after which a page table is not going to be collapsed. */
#define KHUGEPAGED_SCANS	1000

/*
 * Let khugepaged make one huge page of the PTE table at @map, whose memory is of a
 * memfd. It unmaps the pages, and may or may not map the new one. 0 or -errno.
 */
static inline int khugepaged_collapse(char *map)
{
	char shmem[32], enabled[32], sleep[32];
	long collapsed = read_number(KHUGEPAGED_DIR "pages_collapsed"), scans;
	int ret = 0;

	if (read_choice(SHMEM_ENABLED, shmem, sizeof(shmem)) ||
	    read_choice(THP_ENABLED, enabled, sizeof(enabled)))
		return -ENODEV;
	snprintf(sleep, sizeof(sleep), "%ld", read_number(SCAN_SLEEP));
	if (write_file(SHMEM_ENABLED, "advise") || write_file(THP_ENABLED, "madvise"))
		return -ENODEV;
	if (madvise(map, pmd_size(), MADV_HUGEPAGE))
		ret = -errno;
	scans = read_number(KHUGEPAGED_DIR "full_scans");
	ret = ret ?: write_file(SCAN_SLEEP, "0");
	while (!ret && read_number(KHUGEPAGED_DIR "pages_collapsed") == collapsed) {
		if (read_number(KHUGEPAGED_DIR "full_scans") > scans + KHUGEPAGED_SCANS)
			ret = -ETIMEDOUT;
		sched_yield();
	}
	write_file(SCAN_SLEEP, sleep);
	write_file(SHMEM_ENABLED, shmem);
	write_file(THP_ENABLED, enabled);
	if (ret)
		return ret;
	/* It was this one. */
	load(map, 0);
	return smaps_kb(map, "ShmemPmdMapped") == (long)pmd_size() / 1024 ? 0 : -EPROTO;
}

#endif /* KHUGEPAGED_H */
