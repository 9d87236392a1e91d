// SPDX-License-Identifier: GPL-2.0
/*
 * Protection of leaves that mprotect(2) would find in mappings of devices: PUD,
 * PMD and PTE leaves of page frames (mmops_leafmap.ko), PUD and PMD leaves of
 * device-DAX.
 *
 * A mapping of page frames can be served in smaller leaves, and a part of a leaf
 * is protected by itself. Device-DAX serves one size alone, and a part is
 * refused.
 *
 * Oracles: minor faults, which the handler of mmops_leafmap.ko counts by size as
 * well, contents, and smaps where its walk does no harm: it splits a PUD leaf,
 * and leaves VMAs of page frames alone.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>

#include "flushes.h"
#include "leafmap.h"
#include "notifier.h"
#include "kselftest_harness.h"

#define DAX_PUD		"/dev/dax0.0"
#define DAX_PMD		"/dev/dax1.0"

/* Value of a page in all of the tests. */
static uint64_t value_at(size_t page)
{
	return 0x5eed000000000000ULL + page;
}

/*
 * Pages that are looked at: all of a small mapping, and of a large one some in
 * each part that a test can tell from the rest.
 */
struct sample {
	size_t pages[4096];
	size_t nr;
};

static void take_sample(struct sample *sample, size_t pages)
{
	size_t stride = pages <= 4 * PMD_PAGES ? 1 : 8191, page, last = pages;

	sample->nr = 0;
	for (page = 0; page < pages; page += stride) {
		/* The ends of all leaves of 1 GiB, and some pages around. */
		size_t edge = page / PUD_PAGES * PUD_PAGES;

		if (stride > 1 && edge != last) {
			static const long around[] = { -513, -512, -2, -1, 0, 1, 511, 512 };
			size_t i;

			for (i = 0; i < ARRAY_SIZE(around); i++) {
				if ((long)edge + around[i] >= 0)
					sample->pages[sample->nr++] = edge + around[i];
			}
			last = edge;
		}
		sample->pages[sample->nr++] = page;
	}
	sample->pages[sample->nr++] = pages - 1;
}

static void fill(char *map, const struct sample *sample)
{
	size_t i;

	for (i = 0; i < sample->nr; i++)
		store(map, sample->pages[i], value_at(sample->pages[i]));
}

/* Number of pages with another value than fill() gave them. */
static size_t wrong(const char *map, const struct sample *sample)
{
	size_t i, n = 0;

	for (i = 0; i < sample->nr; i++)
		n += load(map, sample->pages[i]) != value_at(sample->pages[i]);
	return n;
}

/* What protect_result() has to count for the pages @first..@end of leaves of @order. */
static struct mmops_protect expected(uint32_t order, size_t first, size_t end)
{
	struct mmops_protect e = {};
	size_t at, next;

	if (order == MMOPS_LEAFMAP_PTE) {
		e.ptes = end - first;
		return e;
	}
	if (order == MMOPS_LEAFMAP_PUD) {
		for (at = first; at < end; at = next) {
			struct mmops_protect inner;

			next = min((at / PUD_PAGES + 1) * PUD_PAGES, end);
			if (next - at == PUD_PAGES) {
				e.puds++;
				continue;
			}
			inner = expected(MMOPS_LEAFMAP_PMD, at, next);
			e.split_puds++;
			e.split_pmds += inner.split_pmds;
			e.pmds += inner.pmds;
			e.ptes += inner.ptes;
		}
		return e;
	}
	for (at = first; at < end; at = next) {
		next = min((at / PMD_PAGES + 1) * PMD_PAGES, end);
		if (next - at == PMD_PAGES) {
			e.pmds++;
		} else {
			e.split_pmds++;
			e.ptes += next - at;
		}
	}
	return e;
}

#define ASSERT_RESULT(want, got) do {						\
	ASSERT_EQ((want).ptes, (got).ptes);					\
	ASSERT_EQ((want).pmds, (got).pmds);					\
	ASSERT_EQ((want).puds, (got).puds);					\
	ASSERT_EQ((want).split_pmds, (got).split_pmds);				\
	ASSERT_EQ((want).split_puds, (got).split_puds);				\
} while (0)

#define ASSERT_NO_RESULT(got) ASSERT_RESULT((struct mmops_protect){}, got)

/*
 * Page frames
 */
FIXTURE(frames)
{
	int dev, fd;
	char *map;
	size_t unit;	/* pages of a leaf, but at least of 2 MiB */
	size_t len;	/* bytes: two units */
	uint32_t soft;	/* MMOPS_LEAF_SOFT_DIRTY if the leaves are so, else 0 */
	struct sample sample;
	struct leaves leaves, after;
};

FIXTURE_VARIANT(frames)
{
	uint32_t order;
};

FIXTURE_VARIANT_ADD(frames, pte) { .order = MMOPS_LEAFMAP_PTE };
FIXTURE_VARIANT_ADD(frames, pmd) { .order = MMOPS_LEAFMAP_PMD };
FIXTURE_VARIANT_ADD(frames, pud) { .order = MMOPS_LEAFMAP_PUD };

FIXTURE_SETUP(frames)
{
	struct mmops_leafmap_info info;

	OPEN_DEV(self->dev, MMOPS_DEV);
	OPEN_LEAFMAP(self->fd);
	ASSERT_EQ(0, leafmap_serve(self->fd, variant->order, MMOPS_LEAFMAP_MAY_SPLIT));
	self->unit = max(1UL << variant->order, PMD_PAGES);
	self->len = 2 * self->unit * page_size();
	self->map = map_gib(self->fd, 0, self->len, PROT_READ | PROT_WRITE);
	ASSERT_NE(NULL, self->map);
	take_sample(&self->sample, 2 * self->unit);
	fill(self->map, &self->sample);

	/* The leaves are what they are taken for. */
	info = leafmap_info(self->fd);
	ASSERT_EQ(variant->order == MMOPS_LEAFMAP_PTE ? 2 * PMD_PAGES : 0, info.pte);
	ASSERT_EQ(variant->order == MMOPS_LEAFMAP_PMD ? 2 : 0, info.pmd);
	ASSERT_EQ(variant->order == MMOPS_LEAFMAP_PUD ? 2 : 0, info.pud);
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_EQ(info.pte, self->leaves.ptes);
	ASSERT_EQ(info.pmd, self->leaves.pmds);
	ASSERT_EQ(info.pud, self->leaves.puds);
	ASSERT_EQ(self->leaves.nr, leaves_with(&self->leaves, MMOPS_LEAF_READ | MMOPS_LEAF_WRITE |
					       MMOPS_LEAF_DIRTY | MMOPS_LEAF_YOUNG |
					       MMOPS_LEAF_SPECIAL));
	self->soft = self->leaves.leaf[0].state & MMOPS_LEAF_SOFT_DIRTY;
	ASSERT_EQ(self->soft ? self->leaves.nr : 0,
		  leaves_with(&self->leaves, MMOPS_LEAF_SOFT_DIRTY));
}

FIXTURE_TEARDOWN(frames)
{
}

TEST_F_TIMEOUT(frames, whole, TEST_SECONDS)
{
	struct mmops_protect got, want = expected(variant->order, 0, 2 * self->unit);
	size_t nr = self->leaves.nr;
	long faults;

	ASSERT_EQ(0, protect_result(self->dev, self->map, self->len, PROT_READ, &got));
	ASSERT_RESULT(want, got);
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_EQ(nr, self->leaves.nr);
	ASSERT_EQ(0, leaves_with(&self->leaves, MMOPS_LEAF_WRITE));
	ASSERT_EQ(nr, leaves_with(&self->leaves, MMOPS_LEAF_READ | MMOPS_LEAF_DIRTY |
				  MMOPS_LEAF_YOUNG | MMOPS_LEAF_SPECIAL));
	ASSERT_EQ(self->soft ? nr : 0, leaves_with(&self->leaves, MMOPS_LEAF_SOFT_DIRTY));
	/* Once more changes nothing. */
	ASSERT_EQ(0, protect_result(self->dev, self->map, self->len, PROT_READ, &got));
	ASSERT_NO_RESULT(got);

	/* Loads do not fault, the first store to a leaf does, and gets it back. */
	faults = minor_faults();
	ASSERT_EQ(0, wrong(self->map, &self->sample));
	ASSERT_EQ(faults, minor_faults());
	store(self->map, self->unit, 1);
	ASSERT_EQ(faults + 1, minor_faults());
	store(self->map, self->unit, value_at(self->unit));
	ASSERT_EQ(faults + 1, minor_faults());
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_EQ(nr, self->leaves.nr);
	ASSERT_EQ(1, leaves_with(&self->leaves, MMOPS_LEAF_WRITE));
	ASSERT_EQ(0, wrong(self->map, &self->sample));

	/* Back: all but the one that is writable already. */
	ASSERT_EQ(0, protect_result(self->dev, self->map, self->len, PROT_READ | PROT_WRITE, &got));
	ASSERT_EQ(nr - 1, got.ptes + got.pmds + got.puds);
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_EQ(nr, leaves_with(&self->leaves, MMOPS_LEAF_WRITE));
	faults = minor_faults();
	fill(self->map, &self->sample);
	ASSERT_EQ(faults, minor_faults());
}

/*
 * A part with an end inside each of two leaves: secondary MMUs hear of all of
 * both as what was asked for, and not only of their splits.
 */
TEST_F_TIMEOUT(frames, told_of_both_ends, TEST_SECONDS)
{
	static struct heard heard;
	size_t first = self->unit / 2 + 3, nr = self->unit, i, told[2] = {};
	struct mmops_protect got;

	ASSERT_EQ(0, subscribe(self->dev, self->map, 2 * self->unit, 0));
	ASSERT_EQ(0, protect_result(self->dev, self->map + first * page_size(), nr * page_size(),
				    PROT_READ, &got));
	ASSERT_LE(0, hear(self->dev, self->map, &heard, 0));
	ASSERT_EQ(0, heard.lost);
	for (i = 0; i < heard.nr; i++) {
		size_t page = (heard.events[i].start - (uintptr_t)self->map) / page_size();
		size_t end = (heard.events[i].end - (uintptr_t)self->map) / page_size();

		if (heard.events[i].event == MMOPS_EVENT_PROTECTION_PAGE &&
		    end - page == self->unit && page % self->unit == 0)
			told[page / self->unit]++;
	}
	if (variant->order == MMOPS_LEAFMAP_PTE) {
		/* What is asked for is all that changes. */
		ASSERT_EQ(0, told[0]);
		ASSERT_EQ(0, told[1]);
	} else {
		ASSERT_LE(1, told[0]);
		ASSERT_LE(1, told[1]);
	}
}

/*
 * A part: the rest keeps contents, protection, and its place: no access faults
 * but a store to the part.
 */
static void check_part(struct __test_metadata *_metadata, FIXTURE_DATA(frames) *self,
		       uint32_t order, size_t first, size_t end)
{
	struct mmops_protect got, want = expected(order, first, end);
	char *addr = self->map + first * page_size();
	size_t i, ptes, pmds, puds;
	long faults;

	ptes = self->leaves.ptes + want.split_pmds * PMD_PAGES;
	pmds = self->leaves.pmds + want.split_puds * PMD_PAGES - want.split_pmds;
	puds = self->leaves.puds - want.split_puds;

	ASSERT_EQ(0, protect_result(self->dev, addr, (end - first) * page_size(), PROT_READ, &got));
	ASSERT_RESULT(want, got);
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_EQ(ptes, self->leaves.ptes);
	ASSERT_EQ(pmds, self->leaves.pmds);
	ASSERT_EQ(puds, self->leaves.puds);
	for (i = 0; i < self->leaves.nr; i++) {
		const struct mmops_leaf *leaf = &self->leaves.leaf[i];
		size_t page = (leaf->addr - (uintptr_t)self->map) / page_size();
		bool part = page >= first && page < end;

		ASSERT_EQ(!part, !!(leaf->state & MMOPS_LEAF_WRITE)) {
			TH_LOG("leaf of 1 << %d bytes at page %zu", leaf->shift, page);
		}
		ASSERT_EQ(MMOPS_LEAF_READ | MMOPS_LEAF_DIRTY | MMOPS_LEAF_SPECIAL,
			  leaf->state & (MMOPS_LEAF_READ | MMOPS_LEAF_DIRTY | MMOPS_LEAF_SPECIAL));
		ASSERT_EQ(self->soft, leaf->state & MMOPS_LEAF_SOFT_DIRTY);
	}
	faults = minor_faults();
	ASSERT_EQ(0, wrong(self->map, &self->sample));
	for (i = 0; i < self->sample.nr; i++) {
		size_t page = self->sample.pages[i];

		if (page < first || page >= end)
			store(self->map, page, value_at(page));
	}
	ASSERT_EQ(faults, minor_faults());
	store(self->map, first, 1);
	ASSERT_EQ(faults + 1, minor_faults());
	store(self->map, first, value_at(first));
	ASSERT_EQ(faults + 1, minor_faults());
	ASSERT_EQ(0, wrong(self->map, &self->sample));
	fill(self->map, &self->sample);
}

TEST_F_TIMEOUT(frames, first_page, TEST_SECONDS)
{
	check_part(_metadata, self, variant->order, 0, 1);
}

TEST_F_TIMEOUT(frames, last_page, TEST_SECONDS)
{
	check_part(_metadata, self, variant->order, 2 * self->unit - 1, 2 * self->unit);
}

TEST_F_TIMEOUT(frames, middle_2m, TEST_SECONDS)
{
	size_t first = self->unit / 2 / PMD_PAGES * PMD_PAGES;

	check_part(_metadata, self, variant->order, first, first + PMD_PAGES);
}

/* Not aligned to anything, within one leaf of 1 GiB. */
TEST_F_TIMEOUT(frames, middle, TEST_SECONDS)
{
	check_part(_metadata, self, variant->order, self->unit / 2 + 7, self->unit / 2 + 150);
}

TEST_F_TIMEOUT(frames, across_two, TEST_SECONDS)
{
	check_part(_metadata, self, variant->order, self->unit - 1, self->unit + 1);
}

/* One whole leaf, and a part of the other. */
TEST_F_TIMEOUT(frames, one_and_a_part, TEST_SECONDS)
{
	check_part(_metadata, self, variant->order, 0, self->unit + 3);
}

/* A part of what a part before left: leaves of all sizes in one range. */
TEST_F_TIMEOUT(frames, mixed, TEST_SECONDS)
{
	struct mmops_protect got;
	size_t nr;

	check_part(_metadata, self, variant->order, self->unit - 1, self->unit);
	nr = self->leaves.nr;
	ASSERT_EQ(0, protect_result(self->dev, self->map, self->len, PROT_READ, &got));
	ASSERT_EQ(0, got.split_pmds);
	ASSERT_EQ(0, got.split_puds);
	ASSERT_EQ(self->leaves.puds, got.puds);
	ASSERT_EQ(self->leaves.pmds, got.pmds);
	ASSERT_EQ(self->leaves.ptes, got.ptes);
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_EQ(nr, self->leaves.nr);
	ASSERT_EQ(0, leaves_with(&self->leaves, MMOPS_LEAF_WRITE));
	ASSERT_EQ(0, wrong(self->map, &self->sample));
}

/*
 * What a driver is told when a part is protected: the range, all of each leaf
 * that has an end of the range in it, and each split. A walk that finds that it
 * needs tables is begun anew.
 */
TEST_F_TIMEOUT(frames, events, TEST_SECONDS)
{
	static struct heard heard;
	const char *want = "protection-page 8-16";

	if (variant->order == MMOPS_LEAFMAP_PMD)
		want = "protection-page 8-16, protection-page 0-512, "
		       "protection-page 8-16, protection-page 0-512, clear 0-512";
	/* Of a leaf of 1 GiB, as far as it is subscribed to; the smaller one lies inside it. */
	if (variant->order == MMOPS_LEAFMAP_PUD)
		want = "protection-page 8-16, protection-page 0-1024, "
		       "protection-page 8-16, protection-page 0-1024, clear 0-1024, clear 0-512";
	ASSERT_EQ(0, subscribe(self->dev, self->map, 2 * PMD_PAGES, 0));
	ASSERT_EQ(0, protect(self->dev, self->map + 8 * page_size(), 8 * page_size(), PROT_READ));
	ASSERT_LE(0, hear(self->dev, self->map, &heard, 0));
	ASSERT_STREQ(want, heard.text);
	ASSERT_EQ(0, heard.lost);
}

/* Where the mapping says that it cannot be cut, nothing is changed. */
TEST_F_TIMEOUT(frames, part_refused, TEST_SECONDS)
{
	static const size_t part[][2] = { { 0, 1 }, { 1, 2 }, { 511, 513 }, { 512, 1024 } };
	struct leaves *after = &self->after;
	size_t i;

	ASSERT_EQ(0, leafmap_serve(self->fd, variant->order, 0));
	/* Only PUD leaves have such a limit in mmops_leafmap.ko. */
	if (variant->order != MMOPS_LEAFMAP_PUD) {
		check_part(_metadata, self, variant->order, 511, 513);
		return;
	}
	for (i = 0; i < ARRAY_SIZE(part); i++) {
		ASSERT_EQ(-EINVAL, protect_result(self->dev, self->map + part[i][0] * page_size(),
						  (part[i][1] - part[i][0]) * page_size(),
						  PROT_READ, NULL));
	}
	/* A whole leaf before the part is not touched either. */
	ASSERT_EQ(-EINVAL, protect_result(self->dev, self->map, self->len - page_size(), PROT_READ,
					  NULL));
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, after));
	ASSERT_TRUE(same_leaves(&self->leaves, after));
	ASSERT_EQ(0, wrong(self->map, &self->sample));
}

/* No fault would resolve these. */
TEST_F_TIMEOUT(frames, refused, TEST_SECONDS)
{
	struct leaves *after = &self->after;
	struct mmops_protect got;
	char *read_only;

	ASSERT_EQ(-EOPNOTSUPP, protect_result(self->dev, self->map, self->len, PROT_NONE, NULL));
	/* Nor where nothing but stores is permitted. */
	ASSERT_EQ(0, mprotect(self->map, self->len, PROT_WRITE));
	ASSERT_EQ(-EOPNOTSUPP, protect_result(self->dev, self->map, self->len, PROT_NONE, NULL));
	ASSERT_EQ(0, mprotect(self->map, self->len, PROT_READ | PROT_WRITE));
	ASSERT_EQ(-EACCES, protect_result(self->dev, self->map, self->len,
					  PROT_READ | PROT_WRITE | PROT_EXEC, NULL));
	ASSERT_EQ(-EINVAL, protect_result(self->dev, self->map + 1, self->len, PROT_READ, NULL));
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, after));
	ASSERT_TRUE(same_leaves(&self->leaves, after));

	read_only = map_gib(self->fd, 0, self->len, PROT_READ);
	ASSERT_NE(NULL, read_only);
	ASSERT_EQ(0, wrong(read_only, &self->sample));
	ASSERT_EQ(-EACCES, protect_result(self->dev, read_only, self->len, PROT_READ | PROT_WRITE,
					  NULL));
	ASSERT_EQ(0, protect_result(self->dev, read_only, self->len, PROT_READ, &got));
	ASSERT_NO_RESULT(got);
}

/* Nothing is changed before a hole. */
TEST_F_TIMEOUT(frames, hole, TEST_SECONDS)
{
	struct leaves *after = &self->after;

	ASSERT_EQ(0, munmap(self->map + self->len / 2, self->len / 2));
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_EQ(-ENOMEM, protect_result(self->dev, self->map, self->len, PROT_READ, NULL));
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, after));
	ASSERT_TRUE(same_leaves(&self->leaves, after));
}

/* A leaf that was unmapped and comes back has the protection of the VMA. */
TEST_F_TIMEOUT(frames, after_unmap, TEST_SECONDS)
{
	ASSERT_EQ(0, protect_result(self->dev, self->map, self->len, PROT_READ, NULL));
	ASSERT_EQ(0, leafmap_unmap(self->fd, 0, 0));
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_EQ(0, self->leaves.nr);
	ASSERT_EQ(0, wrong(self->map, &self->sample));
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_LT(0, self->leaves.nr);
	ASSERT_EQ(self->leaves.nr, leaves_with(&self->leaves, MMOPS_LEAF_WRITE));
}

/*
 * Device-DAX
 */
FIXTURE(dax)
{
	int dev, fd, kmsg;
	char *map;
	size_t unit, len;
	struct sample sample;
	struct leaves leaves, after;
};

FIXTURE_VARIANT(dax)
{
	const char *path;
	size_t unit;
};

FIXTURE_VARIANT_ADD(dax, pmd) { .path = DAX_PMD, .unit = PMD_PAGES };
FIXTURE_VARIANT_ADD(dax, pud) { .path = DAX_PUD, .unit = PUD_PAGES };

FIXTURE_SETUP(dax)
{
	long kb;

	OPEN_DEV(self->dev, MMOPS_DEV);
	self->fd = open(variant->path, O_RDWR | O_CLOEXEC);
	if (self->fd < 0)
		SKIP(return, "no device-DAX %s: no legacy persistent memory here", variant->path);
	self->unit = variant->unit;
	self->len = 2 * self->unit * page_size();
	self->map = map_gib(self->fd, 0, self->len, PROT_READ | PROT_WRITE);
	if (!self->map)
		SKIP(return, "%s has no two leaves of %zu pages", variant->path, self->unit);
	take_sample(&self->sample, 2 * self->unit);
	fill(self->map, &self->sample);
	kb = smaps_kb(self->map, "KernelPageSize");
	if (kb != (long)(self->unit * page_size() / 1024))
		SKIP(return, "%s is mapped in pages of %ld kB", variant->path, kb);
	/* smaps has unmapped PUD leaves. */
	fill(self->map, &self->sample);
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_EQ(2, self->leaves.nr);
	ASSERT_EQ(self->unit == PMD_PAGES ? 2 : 0, self->leaves.pmds);
	ASSERT_EQ(self->unit == PUD_PAGES ? 2 : 0, self->leaves.puds);
	ASSERT_EQ(2, leaves_with(&self->leaves, MMOPS_LEAF_SOFT_DIRTY));
	self->kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ASSERT_LE(0, self->kmsg);
	ASSERT_EQ(0, lseek(self->kmsg, 0, SEEK_END));
}

FIXTURE_TEARDOWN(dax)
{
}

/* Messages of the kernel since set-up that hold @text. */
static size_t messages_with(int kmsg, const char *text)
{
	char message[8192];
	size_t n = 0;
	ssize_t len;

	while ((len = read(kmsg, message, sizeof(message) - 1)) > 0 || errno == EPIPE) {
		if (len < 0)
			continue;
		message[len] = 0;
		n += !!strstr(message, text);
	}
	return n;
}

TEST_F_TIMEOUT(dax, whole, TEST_SECONDS)
{
	struct mmops_protect got;
	bool pud = self->unit == PUD_PAGES;
	long faults;

	ASSERT_EQ(0, protect_result(self->dev, self->map, self->len, PROT_READ, &got));
	ASSERT_EQ(pud ? 2 : 0, got.puds);
	ASSERT_EQ(pud ? 0 : 2, got.pmds);
	ASSERT_EQ(0, got.ptes + got.split_pmds + got.split_puds);
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_EQ(2, self->leaves.nr);
	ASSERT_EQ(0, leaves_with(&self->leaves, MMOPS_LEAF_WRITE));
	ASSERT_EQ(2, leaves_with(&self->leaves,
				 MMOPS_LEAF_READ | MMOPS_LEAF_DIRTY | MMOPS_LEAF_SOFT_DIRTY));
	faults = minor_faults();
	ASSERT_EQ(0, wrong(self->map, &self->sample));
	ASSERT_EQ(faults, minor_faults());

	/* A store to one is resolved, and the other stays. */
	store(self->map, self->unit + 1, value_at(self->unit + 1));
	ASSERT_EQ(faults + 1, minor_faults());
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_EQ(2, self->leaves.nr);
	ASSERT_FALSE(self->leaves.leaf[0].state & MMOPS_LEAF_WRITE);
	ASSERT_TRUE(self->leaves.leaf[1].state & MMOPS_LEAF_WRITE);

	ASSERT_EQ(0, protect_result(self->dev, self->map, self->len, PROT_READ | PROT_WRITE, &got));
	ASSERT_EQ(1, got.pmds + got.puds);
	faults = minor_faults();
	fill(self->map, &self->sample);
	ASSERT_EQ(faults, minor_faults());
	ASSERT_EQ(0, wrong(self->map, &self->sample));
	ASSERT_EQ(0, messages_with(self->kmsg, "bad p"));
}

/* One leaf of the two. */
TEST_F_TIMEOUT(dax, one_leaf, TEST_SECONDS)
{
	struct mmops_protect got;

	ASSERT_EQ(0, protect_result(self->dev, self->map + self->len / 2, self->len / 2, PROT_READ,
				    &got));
	ASSERT_EQ(1, got.pmds + got.puds);
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_EQ(2, self->leaves.nr);
	ASSERT_TRUE(self->leaves.leaf[0].state & MMOPS_LEAF_WRITE);
	ASSERT_FALSE(self->leaves.leaf[1].state & MMOPS_LEAF_WRITE);
	ASSERT_EQ(0, wrong(self->map, &self->sample));
}

/* A leaf keeps its soft-dirty bit, and one that has none does not become writable without. */
TEST_F_TIMEOUT(dax, soft_dirty, TEST_SECONDS)
{
	const struct mmops_leaf *leaf = self->leaves.leaf;
	long faults;
	int i;

	/* All of the mapping, which is new: a part could take too much of it to mark. */
	ASSERT_EQ(2 * self->unit, soft_dirty_clear(self->dev, self->map, 2 * self->unit));
	store(self->map, self->unit, value_at(self->unit));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, protect_result(self->dev, self->map, self->len,
					    PROT_READ | (i ? PROT_WRITE : 0), NULL));
		ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
		ASSERT_EQ(2, self->leaves.nr);
		ASSERT_EQ(2, leaves_with(&self->leaves, MMOPS_LEAF_READ | MMOPS_LEAF_DIRTY));
		ASSERT_EQ(0, leaf[0].state & (MMOPS_LEAF_SOFT_DIRTY | MMOPS_LEAF_WRITE));
		ASSERT_TRUE(leaf[1].state & MMOPS_LEAF_SOFT_DIRTY);
	}
	faults = minor_faults();
	store(self->map, 0, value_at(0));
	ASSERT_EQ(faults + 1, minor_faults());
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, &self->leaves));
	ASSERT_EQ(2, self->leaves.nr);
	ASSERT_EQ(2, leaves_with(&self->leaves, MMOPS_LEAF_SOFT_DIRTY | MMOPS_LEAF_DIRTY));
	ASSERT_TRUE(leaf[0].state & MMOPS_LEAF_WRITE);
	ASSERT_EQ(0, wrong(self->map, &self->sample));
}

/* A part is refused before anything changes, as by mprotect(2). */
TEST_F_TIMEOUT(dax, part_refused, TEST_SECONDS)
{
	const size_t part[][2] = {
		{ 0, 1 }, { 2 * self->unit - 1, 2 * self->unit },
		{ self->unit - 1, self->unit + 1 }, { 0, 2 * self->unit - 1 },
		{ 1, 2 * self->unit }, { 0, self->unit / 2 },
	};
	struct leaves *after = &self->after;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(part); i++) {
		char *addr = self->map + part[i][0] * page_size();
		size_t len = (part[i][1] - part[i][0]) * page_size();

		ASSERT_EQ(-EINVAL, protect_result(self->dev, addr, len, PROT_READ, NULL));
		ASSERT_EQ(-1, mprotect(addr, len, PROT_READ));
		ASSERT_EQ(EINVAL, errno);
	}
	ASSERT_EQ(0, list_leaves(self->dev, self->map, self->len, after));
	ASSERT_TRUE(same_leaves(&self->leaves, after));
	ASSERT_EQ(0, wrong(self->map, &self->sample));
}

static sigjmp_buf fault_jump;

static void on_fault(int sig)
{
	siglongjmp(fault_jump, sig);
}

/* Whether a store gets SIGSEGV. */
static bool store_is_fatal(char *map, size_t page, uint64_t value)
{
	struct sigaction action = { .sa_handler = on_fault }, old;
	bool fatal = true;

	sigaction(SIGSEGV, &action, &old);
	if (!sigsetjmp(fault_jump, 1)) {
		store(map, page, value);
		fatal = false;
	}
	sigaction(SIGSEGV, &old, NULL);
	return fatal;
}

/*
 * The case of the mail: mprotect(2), which before Linux 6.12 cleared a PUD leaf
 * and reported a "bad pud". Neither it nor the two in turn do.
 */
TEST_F_TIMEOUT(dax, mprotect_and_protect, TEST_SECONDS)
{
	struct mmops_protect got;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, mprotect(self->map, self->len, PROT_READ));
		ASSERT_EQ(0, protect_result(self->dev, self->map, self->len, PROT_READ, &got));
		ASSERT_NO_RESULT(got);
		ASSERT_EQ(-EACCES, protect_result(self->dev, self->map, self->len,
						  PROT_READ | PROT_WRITE, NULL));
		ASSERT_TRUE(store_is_fatal(self->map, 0, 1));
		ASSERT_EQ(0, wrong(self->map, &self->sample));
		/*
		 * pud_present() of x86 is false for a PROT_NONE leaf, of which the
		 * next mprotect() warns with CONFIG_DEBUG_VM (pudp_invalidate()).
		 */
		if (!is_debug_kernel()) {
			ASSERT_EQ(0, mprotect(self->map, self->len, PROT_NONE));
			ASSERT_TRUE(store_is_fatal(self->map, 0, 1));
		}
		ASSERT_EQ(0, mprotect(self->map, self->len, PROT_READ | PROT_WRITE));
		ASSERT_EQ(0, protect_result(self->dev, self->map, self->len, PROT_READ, &got));
		ASSERT_EQ(0, mprotect(self->map, self->len, PROT_READ));
		ASSERT_EQ(0, mprotect(self->map, self->len, PROT_READ | PROT_WRITE));
		ASSERT_FALSE(store_is_fatal(self->map, 0, value_at(0)));
		fill(self->map, &self->sample);
		ASSERT_EQ(0, wrong(self->map, &self->sample));
	}
	ASSERT_EQ(0, munmap(self->map, self->len));
	ASSERT_EQ(0, messages_with(self->kmsg, "bad p"));
}

/*
 * TLB flushes: the counts of /proc/vmstat, of all CPUs. They stand still in a
 * guest that does nothing else; the least of some rounds is without noise.
 */
struct flushes {
	long remote;	/* flushes that another CPU was asked for */
	long all, one;	/* local: of everything, and single entries */
};

static struct flushes count_flushes(void)
{
	return (struct flushes){
		.remote = vmstat("nr_tlb_remote_flush"),
		.all = vmstat("nr_tlb_local_flush_all"),
		.one = vmstat("nr_tlb_local_flush_one"),
	};
}

struct toucher {
	char *map;
	size_t unit;
	atomic_bool stop;
	_Atomic uint64_t passes;
};

/* Another CPU with both leaves in its TLB. */
static void *touch(void *arg)
{
	struct toucher *t = arg;

	pin_to_cpu(1);
	while (!atomic_load(&t->stop)) {
		load(t->map, 0);
		load(t->map, t->unit);
		atomic_fetch_add(&t->passes, 1);
	}
	return NULL;
}

#define PROTECT_ROUNDS	10

/* The least that protecting both leaves costs, by mmops or by the kernel. */
static struct flushes least_flushes(int dev, char *map, size_t len, bool kernel, bool lower)
{
	struct flushes least = { 1000, 1000, 1000 };
	int both = PROT_READ | PROT_WRITE;
	unsigned int i;

	for (i = 0; i < PROTECT_ROUNDS; i++) {
		struct flushes before, after;
		int to = lower ? PROT_READ : both, ret;

		/* From the other protection, and writable in the VMA for mmops. */
		if (kernel)
			ret = mprotect(map, len, lower ? both : PROT_READ);
		else
			ret = protect_result(dev, map, len, lower ? both : PROT_READ, NULL);
		usleep(20000);
		before = count_flushes();
		if (kernel)
			ret |= mprotect(map, len, to);
		else
			ret |= protect_result(dev, map, len, to, NULL);
		after = count_flushes();
		if (ret)
			return (struct flushes){ -1, -1, -1 };
		least.remote = min(least.remote, after.remote - before.remote);
		least.all = min(least.all, after.all - before.all);
		least.one = min(least.one, after.one - before.one);
	}
	return least;
}

/* One flush for two leaves, with an entry for each; none where nothing is lost. */
TEST_F_TIMEOUT(dax, one_flush, TEST_SECONDS)
{
	struct toucher toucher = { .map = self->map, .unit = self->unit };
	struct flushes ours, theirs, up;
	pthread_t thread;

	if (!count_flushes().remote)
		SKIP(return, "no nr_tlb_remote_flush in /proc/vmstat");
	if (nr_cpus() < 2)
		SKIP(return, "needs 2 CPUs");
	pin_to_cpu(0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, touch, &toucher));
	while (atomic_load(&toucher.passes) < 2)
		sched_yield();
	ours = least_flushes(self->dev, self->map, self->len, false, true);
	up = least_flushes(self->dev, self->map, self->len, false, false);
	theirs = least_flushes(self->dev, self->map, self->len, true, true);
	atomic_store(&toucher.stop, true);
	pthread_join(thread, NULL);
	TH_LOG("flushes of two leaves: %ld, single entries %ld; mprotect(2): %ld, %ld",
	       ours.remote, ours.one, theirs.remote, theirs.one);
	ASSERT_EQ(1, ours.remote);
	ASSERT_EQ(2, ours.one);
	ASSERT_EQ(0, ours.all);
	ASSERT_EQ(0, up.remote);
	ASSERT_EQ(0, up.one);
	/* The kernel flushes after each PUD leaf, and once more at the end. */
	ASSERT_LE(self->unit == PUD_PAGES ? 2 : 1, theirs.remote);
}

TEST_HARNESS_MAIN
