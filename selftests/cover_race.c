// SPDX-License-Identifier: GPL-2.0
/*
 * A PTE table that becomes a huge leaf between the look at it and its lock.
 *
 * A change of a huge leaf is one of all that it maps, also where a walk covers only
 * a part of it: then secondary MMUs hear of all of it, before it is locked. A walk
 * that has seen a table has told of its part alone. If there is a leaf when it
 * comes to lock, it has to look again, and to tell of the rest.
 *
 * The walk stands at a gate between the two, while MADV_COLLAPSE makes the leaf. As
 * the control, leaves that are covered in part are told of in part.
 *
 * Oracles: a subscription, smaps, and the leaf's protection.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "faults.h"
#include "leafmap.h"
#include "notifier.h"
#include "kselftest_harness.h"

#define PAGES	PMD_PAGES
#define FIRST	8
#define NR	16

struct walk {
	int dev, fd;
	int64_t ret;
	atomic_bool over;
};

static void *protect_part(void *arg)
{
	struct walk *walk = arg;

	walk->ret = write_protect(walk->dev, walk->fd, FIRST, NR);
	atomic_store(&walk->over, true);
	return NULL;
}

/*
 * One walk over a part of a leaf, or with @at_gate of a table that is a leaf when the
 * walk comes to its lock. 1 if all of the leaf was told of, 0 if only a part, or -1.
 */
static int protect_leaf(int dev, bool at_gate)
{
	struct walk walk = { .dev = dev, .fd = new_memfd(PAGES) };
	static struct heard heard;
	struct leaves *leaves = malloc(sizeof(*leaves));
	bool part = false, all = false, errors;
	pthread_t thread;
	unsigned int i;
	char *map;

	map = map_at(reserve(PAGES, 0), walk.fd, 0, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	if (!leaves || !map || madvise(map, pmd_size(), MADV_NOHUGEPAGE))
		return -1;
	store_range(map, 0, PAGES, 1);
	errors = smaps_kb(map, "ShmemPmdMapped") || madvise(map, pmd_size(), MADV_HUGEPAGE) ||
		 (!at_gate && collapse_range(map, pmd_size()));
	store_range(map, 0, PAGES, 1);
	if (errors || subscribe_capacity(dev, -1, map, pmd_size(), 0, 4 * PAGES) ||
	    (at_gate && close_gate(BEFORE_TABLE_LOCK, 1)) ||
	    pthread_create(&thread, NULL, protect_part, &walk))
		return -1;
	if (at_gate) {
		errors |= !wait_at_gate(BEFORE_TABLE_LOCK, 1, &walk.over);
		errors |= collapse_range(map, pmd_size());
		store_range(map, 0, PAGES, 1);
		errors |= smaps_kb(map, "ShmemPmdMapped") != (long)(pmd_size() / 1024);
		errors |= open_gate(BEFORE_TABLE_LOCK);
	}
	pthread_join(thread, NULL);

	/* The leaf was changed, and the pages of the range counted. */
	errors |= walk.ret != NR || list_leaves(dev, map, pmd_size(), leaves);
	errors |= leaves->nr != 1 || leaves->pmds != 1 || leaves_with(leaves, MMOPS_LEAF_WRITE);
	/* MADV_COLLAPSE tells of each page. */
	do {
		errors |= hear(dev, map, &heard, 0) < 0 || heard.lost;
		for (i = 0; i < heard.nr; i++) {
			const struct mmops_notifier_event *e = &heard.events[i];
			size_t first = (e->start - (uintptr_t)map) / page_size();
			size_t end = (e->end - (uintptr_t)map) / page_size();

			if (e->event != MMOPS_EVENT_PROTECTION_PAGE)
				continue;
			part |= first == FIRST && end == FIRST + NR;
			all |= first == 0 && end == PAGES;
		}
	} while (!errors && heard.nr);
	munmap(map, pmd_size());
	close(walk.fd);
	free(leaves);
	return errors || !part ? -1 : all;
}

FIXTURE(cover)
{
	int dev;
};

FIXTURE_SETUP(cover)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
}

FIXTURE_TEARDOWN(cover)
{
}

FIXTURE_FAULTS(cover);

TEST_F_TIMEOUT(cover, part_of_leaf, TEST_SECONDS)
{
	ASSERT_EQ(1, protect_leaf(self->dev, false));
}

TEST_FAULTS(cover, control_skip_cover)
{
	ASSERT_EQ(1, protect_leaf(self->dev, true));
	/* A descriptor has one subscription. */
	close(self->dev);
	OPEN_DEV(self->dev, MMOPS_DEV);
	ASSERT_EQ(0, set_fault(SKIP_COVER, 1));
	ASSERT_EQ(0, protect_leaf(self->dev, true));
}

TEST_HARNESS_MAIN
