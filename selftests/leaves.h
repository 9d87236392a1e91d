/* SPDX-License-Identifier: GPL-2.0 */
/*
 * MMOPS_IOC_PROTECT and MMOPS_IOC_LEAVES for the tests that use them.
 */
#ifndef LEAVES_H
#define LEAVES_H

#include "mmops_selftest.h"

#define PMD_SHIFT	21
#define PUD_SHIFT	30
#define PUD_SIZE	(1UL << PUD_SHIFT)

/* Protect a range of the caller. 0 or -errno; -EPROTO as for write_protect_flags(). */
static inline int protect_flags(int dev, const void *addr, size_t len, int prot, uint32_t flags,
				struct mmops_protect *result)
{
	struct mmops_protect arg = {
		.pidfd = -1,
		.flags = flags,
		.addr = (uintptr_t)addr,
		.len = len,
		.prot = prot,
		.ptes = ~0ULL, .pmds = ~0ULL, .puds = ~0ULL,
		.split_pmds = ~0ULL, .split_puds = ~0ULL, .done = ~0ULL,
	};
	int ret = ioctl(dev, MMOPS_IOC_PROTECT, &arg) ? -errno : 0;

	if (result)
		*result = arg;
	return ret || arg.done == len ? ret : -EPROTO;
}

/* The same with leaves that stay as large as they are. */
static inline int protect_result(int dev, const void *addr, size_t len, int prot,
				 struct mmops_protect *result)
{
	return protect_flags(dev, addr, len, prot, MMOPS_PROTECT_LARGE, result);
}

static inline int protect(int dev, const void *addr, size_t len, int prot)
{
	return protect_result(dev, addr, len, prot, NULL);
}

/* How many of the leaves of a range there are of one size, and in which state. */
struct leaf_count {
	size_t nr;
	size_t writable;
	size_t executable;
	size_t unreadable;
	size_t dirty;
	size_t young;
	size_t soft_dirty;
	size_t uffd;
	size_t special;
};

/* Those that are present, by size, and the others. */
struct leaf_counts {
	struct leaf_count pte, pmd, pud;
	size_t absent[MMOPS_LEAF_MARKER + 1];
};

/*
 * Call @each for each leaf of the range, in ascending order. 0 or -errno;
 * -EPROTO if the list contradicts itself.
 */
static inline int for_each_leaf(int dev, const void *addr, size_t len,
				void (*each)(const struct mmops_leaf *leaf, void *data),
				void *data)
{
	enum { ROOM = 16384 };
	struct mmops_leaf *vec = malloc(ROOM * sizeof(*vec));
	uint64_t next = (uintptr_t)addr, end = next + len, last = 0, i;
	int ret = 0;

	while (!ret && next < end) {
		struct mmops_leaves arg = {
			.pidfd = -1, .addr = next, .len = end - next,
			.vec = (uintptr_t)vec, .vec_len = ROOM, .nr = ~0ULL, .next = ~0ULL,
		};

		if (ioctl(dev, MMOPS_IOC_LEAVES, &arg)) {
			ret = -errno;
			break;
		}
		if (arg.nr > ROOM || arg.next <= next || arg.next > end)
			ret = -EPROTO;
		for (i = 0; !ret && i < arg.nr; i++) {
			uint64_t size = 1ULL << vec[i].shift;

			if (vec[i].addr & (size - 1) || vec[i].addr + size <= next ||
			    vec[i].addr >= arg.next || vec[i].addr < last)
				ret = -EPROTO;
			else
				each(&vec[i], data);
			last = vec[i].addr + size;
		}
		next = arg.next;
	}
	free(vec);
	return ret;
}

static inline void count_leaf(const struct mmops_leaf *leaf, void *data)
{
	struct leaf_counts *counts = data;
	struct leaf_count *count = leaf->shift == PUD_SHIFT ? &counts->pud :
				   leaf->shift == PMD_SHIFT ? &counts->pmd : &counts->pte;

	if (leaf->kind != MMOPS_LEAF_PRESENT) {
		counts->absent[leaf->kind]++;
		return;
	}
	count->nr++;
	count->writable += !!(leaf->state & MMOPS_LEAF_WRITE);
	count->executable += !!(leaf->state & MMOPS_LEAF_EXEC);
	count->unreadable += !(leaf->state & MMOPS_LEAF_READ);
	count->dirty += !!(leaf->state & MMOPS_LEAF_DIRTY);
	count->young += !!(leaf->state & MMOPS_LEAF_YOUNG);
	count->soft_dirty += !!(leaf->state & MMOPS_LEAF_SOFT_DIRTY);
	count->uffd += !!(leaf->state & MMOPS_LEAF_UFFD);
	count->special += !!(leaf->state & MMOPS_LEAF_SPECIAL);
}

static inline int count_leaves(int dev, const void *addr, size_t len, struct leaf_counts *counts)
{
	memset(counts, 0, sizeof(*counts));
	return for_each_leaf(dev, addr, len, count_leaf, counts);
}

#endif /* LEAVES_H */
