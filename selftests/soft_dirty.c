// SPDX-License-Identifier: GPL-2.0
/*
 * Soft-dirty bits, cleared through mmops and read through pagemap: whole address
 * spaces and ranges, all kinds of entries, and mappings that are new.
 */
#include <grp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <linux/types.h>
#include <linux/userfaultfd.h>

#include "agent.h"
#include "flushes.h"
#include "kselftest_harness.h"
#include "swap.h"

#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC	(1 << 15)
#endif
/* As <linux/fs.h> of a newer kernel has them. */
struct pm_region {
	__u64 start, end, categories;
};

struct pm_scan {
	__u64 size, flags, start, end, walk_end, vec, vec_len, max_pages;
	__u64 category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define PM_SCAN		_IOWR('f', 16, struct pm_scan)
#define PM_SOFT_DIRTY	(1 << 7)

#define NR_HUGEPAGES	"/proc/sys/vm/nr_hugepages"

#define PAGES		1100UL
#define RW		(PROT_READ | PROT_WRITE)
#define ANON		(MAP_PRIVATE | MAP_ANONYMOUS)

FIXTURE(sd)
{
	int dev, pagemap;
	char *base;	/* reserved: PAGES and one on either side */
	char *map;
};

FIXTURE_SETUP(sd)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	self->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ASSERT_GE(self->pagemap, 0);
	self->base = reserve(PAGES + 2 * PMD_PAGES, 0);
	ASSERT_NE(self->base, NULL);
	self->map = self->base + pmd_size();
}

FIXTURE_TEARDOWN(sd)
{
	close(self->pagemap);
}

static uint64_t entry_of(int pagemap, const void *addr)
{
	uint64_t entry = 0;

	if (pread(pagemap, &entry, sizeof(entry),
		  (uintptr_t)addr / page_size() * sizeof(entry)) != sizeof(entry))
		return 0;
	return entry;
}

static bool is_soft_dirty(FIXTURE_DATA(sd) *self, size_t page)
{
	return entry_of(self->pagemap, self->map + page * page_size()) & PAGEMAP_SOFT_DIRTY;
}

/* The number of soft-dirty pages from page @first on. */
static size_t nr_soft_dirty(FIXTURE_DATA(sd) *self, size_t first, size_t nr)
{
	size_t i, n = 0;

	for (i = 0; i < nr; i++)
		n += is_soft_dirty(self, first + i);
	return n;
}

/* The same as PAGEMAP_SCAN has it. */
static int64_t scan_soft_dirty(int pagemap, const char *start, size_t nr)
{
	struct pm_region vec[256];
	struct pm_scan arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)start,
		.end = (uintptr_t)start + nr * page_size(),
		.vec = (uintptr_t)vec,
		.vec_len = 256,
		.category_mask = PM_SOFT_DIRTY,
		.return_mask = PM_SOFT_DIRTY,
	};
	int64_t total = 0;
	long found, i;

	do {
		found = ioctl(pagemap, PM_SCAN, &arg);
		if (found < 0)
			return -errno;
		for (i = 0; i < found; i++)
			total += (vec[i].end - vec[i].start) / page_size();
		arg.start = found ? vec[found - 1].end : arg.end;
	} while (found == 256);
	return total;
}

static int64_t clear_pages(FIXTURE_DATA(sd) *self, size_t first, size_t nr)
{
	return soft_dirty_clear(self->dev, self->map + first * page_size(), nr);
}

static int64_t kept_pages(FIXTURE_DATA(sd) *self, size_t first, size_t nr, uint32_t flags)
{
	struct mmops_soft_dirty_clear out = {};
	int64_t ret = soft_dirty_clear_of(self->dev, -1, self->map + first * page_size(), nr,
					  flags, &out);

	return ret < 0 ? ret : (int64_t)out.kept;
}

/* Number of mappings that begin in the reserved area. */
static int nr_vmas(FIXTURE_DATA(sd) *self)
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long start;
	char line[512];
	int n = 0;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-", &start) == 1)
			n += start >= (uintptr_t)self->map &&
			     start < (uintptr_t)self->map + PAGES * page_size();
	if (f)
		fclose(f);
	return n;
}

/* What a mapping is of. */
enum kind { PRIVATE_ANON, SHARED_ANON, SHARED_FILE, PRIVATE_FILE };

static int map_kind(FIXTURE_DATA(sd) *self, enum kind kind)
{
	int flags = kind == PRIVATE_ANON || kind == PRIVATE_FILE ? MAP_PRIVATE : MAP_SHARED;
	int fd = -1;

	if (kind == PRIVATE_ANON || kind == SHARED_ANON)
		flags |= MAP_ANONYMOUS;
	else
		fd = new_memfd(PAGES);
	return map_at(self->map, fd, 0, PAGES, RW, flags) ? 0 : -errno;
}

FIXTURE(kinds)
{
	FIXTURE_DATA(sd) sd;
};

FIXTURE_VARIANT(kinds)
{
	enum kind kind;
};

FIXTURE_VARIANT_ADD(kinds, private_anon) { .kind = PRIVATE_ANON };
FIXTURE_VARIANT_ADD(kinds, shared_anon) { .kind = SHARED_ANON };
FIXTURE_VARIANT_ADD(kinds, shared_file) { .kind = SHARED_FILE };
FIXTURE_VARIANT_ADD(kinds, private_file) { .kind = PRIVATE_FILE };

FIXTURE_SETUP(kinds)
{
	sd_setup(_metadata, &self->sd, NULL);
	ASSERT_EQ(0, map_kind(&self->sd, variant->kind));
}

FIXTURE_TEARDOWN(kinds)
{
	sd_teardown(_metadata, &self->sd, NULL);
}

/* All of the address space: exactly what is stored to afterwards is soft-dirty. */
TEST_F_TIMEOUT(kinds, whole, TEST_SECONDS)
{
	FIXTURE_DATA(sd) *sd = &self->sd;
	struct rng rng = { test_seed() };
	bool stored[PAGES] = {};
	size_t i, n;

	store_range(sd->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, nr_soft_dirty(sd, 0, PAGES));
	ASSERT_GE(soft_dirty_clear_all(sd->dev), (int64_t)PAGES);
	ASSERT_EQ(0, nr_soft_dirty(sd, 0, PAGES));
	load_range(sd->map, 0, PAGES);
	ASSERT_EQ(0, nr_soft_dirty(sd, 0, PAGES));
	for (n = 0; n < 300; n++) {
		i = rng_below(&rng, PAGES);
		stored[i] = true;
		store(sd->map, i, 2);
	}
	for (i = n = 0; i < PAGES; i++) {
		ASSERT_EQ(stored[i], is_soft_dirty(sd, i));
		n += stored[i];
	}
	ASSERT_EQ(n, scan_soft_dirty(sd->pagemap, sd->map, PAGES));
	ASSERT_EQ(n, clear_pages(sd, 0, PAGES));
	ASSERT_EQ(0, scan_soft_dirty(sd->pagemap, sd->map, PAGES));
}

/* Random ranges against a model: pages outside stay as they were. */
TEST_F_TIMEOUT(kinds, ranges, TEST_SECONDS)
{
	FIXTURE_DATA(sd) *sd = &self->sd;
	struct rng rng = { test_seed() };
	unsigned int round, n = rounds(300);
	bool model[PAGES];
	size_t i;

	store_range(sd->map, 0, PAGES, 1);
	memset(model, 1, sizeof(model));
	for (round = 0; round < n; round++) {
		size_t first = rng_below(&rng, PAGES);
		size_t nr = 1 + rng_below(&rng, PAGES - first);
		size_t expected = 0;
		int64_t cleared;

		for (i = first; i < first + nr; i++) {
			expected += model[i];
			model[i] = false;
		}
		/* The first calls meet a new mapping, whose entries may be clean. */
		cleared = clear_pages(sd, first, nr);
		ASSERT_GE(cleared, 0);
		if (round) {
			ASSERT_EQ(expected, cleared);
		}
		for (i = 0; i < 40; i++) {
			size_t page = rng_below(&rng, PAGES);

			model[page] = true;
			store(sd->map, page, round);
		}
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(model[i], is_soft_dirty(sd, i)) {
				TH_LOG("round %u, page %zu, cleared %zu+%zu", round, i, first, nr);
			}
		}
	}
	ASSERT_EQ(1, nr_vmas(sd));
}

/* Each first store after a clear faults, once; reading and writing keep their result. */
TEST_F_TIMEOUT(kinds, stores_fault_once, TEST_SECONDS)
{
	FIXTURE_DATA(sd) *sd = &self->sd;
	long faults;
	size_t i;

	store_range(sd->map, 0, PAGES, 5);
	ASSERT_EQ(0, kept_pages(sd, 0, PAGES, 0));
	faults = minor_faults();
	store_range(sd->map, 0, PAGES, 6);
	ASSERT_EQ(PAGES, minor_faults() - faults);
	faults = minor_faults();
	store_range(sd->map, 0, PAGES, 7);
	ASSERT_EQ(0, minor_faults() - faults);
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(7 + i, load(sd->map, i));
	}
	/* A change of protection to and fro makes no page writable unseen. */
	ASSERT_EQ(PAGES, clear_pages(sd, 0, PAGES));
	ASSERT_EQ(0, mprotect(sd->map, PAGES * page_size(), PROT_READ));
	ASSERT_EQ(0, mprotect(sd->map, PAGES * page_size(), RW));
	ASSERT_EQ(0, nr_soft_dirty(sd, 0, PAGES));
	store(sd->map, 3, 1);
	ASSERT_EQ(1, nr_soft_dirty(sd, 0, PAGES));
	ASSERT_TRUE(is_soft_dirty(sd, 3));
}

/*
 * New mappings
 */
TEST_F_TIMEOUT(sd, new_anon_part, TEST_SECONDS)
{
	size_t i, first = 400, nr = 300;

	ASSERT_NE(map_at(self->map, -1, 0, PAGES, RW, ANON), NULL);
	for (i = 0; i < PAGES; i += 3)
		store(self->map, i, i);
	for (i = 1; i < PAGES; i += 3)
		load(self->map, i);
	ASSERT_EQ(PAGES, nr_soft_dirty(self, 0, PAGES));

	ASSERT_EQ(0, kept_pages(self, first, nr, 0));
	ASSERT_EQ(0, nr_soft_dirty(self, first, nr));
	ASSERT_EQ(first, nr_soft_dirty(self, 0, first));
	ASSERT_EQ(PAGES - first - nr, nr_soft_dirty(self, first + nr, PAGES - first - nr));
	ASSERT_EQ(1, nr_vmas(self));
	/* Also when all of it has been read. */
	load_range(self->map, 0, PAGES);
	ASSERT_EQ(PAGES - nr, nr_soft_dirty(self, 0, PAGES));
	ASSERT_EQ(PAGES - nr, scan_soft_dirty(self->pagemap, self->map, PAGES));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(i % 3 ? 0 : i, load(self->map, i));
	}
	store(self->map, first + 7, 1);
	ASSERT_EQ(PAGES - nr + 1, nr_soft_dirty(self, 0, PAGES));
	ASSERT_EQ(PAGES - nr + 1, clear_pages(self, 0, PAGES));
	ASSERT_EQ(0, nr_soft_dirty(self, 0, PAGES));
	/* No memory was taken for pages that were never stored to. */
	ASSERT_LE(smaps_kb(self->map, "Rss"), (long)((PAGES / 3 + 2) * page_size() / 1024));
}

/* What was mapped before at the same addresses was something else. */
TEST_F_TIMEOUT(sd, new_over_old, TEST_SECONDS)
{
	ASSERT_NE(map_at(self->map, -1, 0, PAGES, RW, ANON), NULL);
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, clear_pages(self, 0, PAGES));
	ASSERT_EQ(0, munmap(self->map, PAGES * page_size()));
	ASSERT_NE(map_at(self->map, -1, 0, PAGES, RW, ANON), NULL);
	ASSERT_EQ(0, clear_pages(self, 10, 10));
	ASSERT_EQ(0, nr_soft_dirty(self, 10, 10));
	load_range(self->map, 0, PAGES);
	ASSERT_EQ(PAGES - 10, nr_soft_dirty(self, 0, PAGES));
}

/* A mapping that is merged with a new one is new again. */
TEST_F_TIMEOUT(sd, new_by_merge, TEST_SECONDS)
{
	ASSERT_NE(map_at(self->map, -1, 0, 100, RW, ANON), NULL);
	store_range(self->map, 0, 100, 1);
	ASSERT_EQ(100, clear_pages(self, 0, 100));
	ASSERT_NE(map_at(self->map + 100 * page_size(), -1, 0, 100, RW, ANON), NULL);
	/* It and what is reserved behind. */
	ASSERT_EQ(2, nr_vmas(self));
	ASSERT_EQ(200, nr_soft_dirty(self, 0, 200));
	ASSERT_EQ(0, kept_pages(self, 0, 100, 0));
	ASSERT_EQ(0, nr_soft_dirty(self, 0, 100));
	ASSERT_EQ(100, nr_soft_dirty(self, 100, 100));
}

TEST_F_TIMEOUT(sd, new_anon_forget, TEST_SECONDS)
{
	ASSERT_NE(map_at(self->map, -1, 0, PAGES, RW, ANON), NULL);
	store_range(self->map, 0, 100, 1);
	ASSERT_EQ(0, kept_pages(self, 50, 10, MMOPS_SOFT_DIRTY_FORGET));
	ASSERT_EQ(90, nr_soft_dirty(self, 0, PAGES));
	ASSERT_EQ(0, nr_soft_dirty(self, 50, 10));
}

/* A file: with all pages mapped it is as with anonymous memory. */
TEST_F_TIMEOUT(sd, new_file_part, TEST_SECONDS)
{
	int fd = new_memfd(PAGES);

	ASSERT_NE(map_at(self->map, fd, 0, PAGES, RW, MAP_SHARED), NULL);
	store_range(self->map, 0, PAGES / 2, 1);
	load_range(self->map, PAGES / 2, PAGES / 2);
	ASSERT_EQ(0, kept_pages(self, 100, 200, 0));
	ASSERT_EQ(0, nr_soft_dirty(self, 100, 200));
	ASSERT_EQ(PAGES - 200, nr_soft_dirty(self, 0, PAGES));
	ASSERT_EQ(1, nr_vmas(self));
}

/* With pages that are not mapped, nothing is cleared but on request. */
TEST_F_TIMEOUT(sd, new_file_untouched, TEST_SECONDS)
{
	int fd = new_memfd(PAGES);
	struct stat st;

	ASSERT_NE(map_at(self->map, fd, 0, PAGES, RW, MAP_SHARED), NULL);
	store_range(self->map, 0, 300, 1);
	ASSERT_EQ(200, kept_pages(self, 100, 200, 0));
	ASSERT_EQ(PAGES, nr_soft_dirty(self, 0, PAGES));
	ASSERT_EQ(0, kept_pages(self, 100, 200, MMOPS_SOFT_DIRTY_FORGET));
	ASSERT_EQ(100, nr_soft_dirty(self, 0, PAGES));
	ASSERT_EQ(100, nr_soft_dirty(self, 0, 100));
	/* No page of the file was made. */
	ASSERT_EQ(0, fstat(fd, &st));
	ASSERT_EQ(300 * page_size() / 512, st.st_blocks);
	ASSERT_EQ(0, kept_pages(self, 0, PAGES, 0));
}

/* Pages that nobody can read take part without harm. */
TEST_F_TIMEOUT(sd, new_guard_pages, TEST_SECONDS)
{
	ASSERT_NE(map_at(self->map, -1, 0, PAGES, RW, ANON), NULL);
	if (madvise(self->map, 20 * page_size(), MADV_GUARD_INSTALL))
		SKIP(return, "no guard pages: %s", strerror(errno));
	ASSERT_EQ(0, kept_pages(self, 100, 200, 0));
	ASSERT_EQ(PAGES - 200, nr_soft_dirty(self, 0, PAGES));
	ASSERT_EQ(0, nr_soft_dirty(self, 100, 200));
	/* The markers themselves. */
	ASSERT_EQ(10, clear_pages(self, 0, 10));
	ASSERT_EQ(PAGES - 210, nr_soft_dirty(self, 0, PAGES));
}

/* Several mappings, new and not, in one call. */
TEST_F_TIMEOUT(sd, many_mappings, TEST_SECONDS)
{
	int fd = new_memfd(PAGES);

	ASSERT_NE(map_at(self->map, -1, 0, 300, RW, ANON), NULL);
	store_range(self->map, 0, 300, 1);
	ASSERT_EQ(300, clear_pages(self, 0, 300));
	ASSERT_NE(map_at(self->map + 300 * page_size(), fd, 0, 300, RW, MAP_SHARED), NULL);
	ASSERT_NE(map_at(self->map + 600 * page_size(), -1, 0, 300, PROT_READ, ANON), NULL);
	ASSERT_NE(map_at(self->map + 900 * page_size(), fd, 0, 200, RW, MAP_PRIVATE), NULL);
	store_range(self->map, 0, 600, 2);
	store_range(self->map, 900, 200, 3);
	ASSERT_EQ(0, kept_pages(self, 100, 900, 0));
	ASSERT_EQ(100, nr_soft_dirty(self, 0, 100));
	ASSERT_EQ(0, nr_soft_dirty(self, 100, 900));
	ASSERT_EQ(100, nr_soft_dirty(self, 1000, 100));
}

/*
 * Huge leaves
 */
static int make_huge(FIXTURE_DATA(sd) *self, bool anon)
{
	int fd = anon ? -1 : new_memfd(2 * PMD_PAGES);

	if (write_file(anon ? THP_ENABLED : SHMEM_ENABLED, anon ? "madvise" : "advise"))
		return -ENOTSUP;
	if (!map_at(self->map, fd, 0, 2 * PMD_PAGES, RW, anon ? ANON : MAP_SHARED) ||
	    madvise(self->map, 2 * pmd_size(), MADV_HUGEPAGE))
		return -errno;
	return 0;
}

static long huge_kb(FIXTURE_DATA(sd) *self, bool anon)
{
	return smaps_kb(self->map, anon ? "AnonHugePages" : "ShmemPmdMapped");
}

static void huge_leaves(struct __test_metadata *_metadata, FIXTURE_DATA(sd) *self, bool anon)
{
	long full = 2 * pmd_size() / 1024;
	size_t i;

	if (make_huge(self, anon))
		SKIP(return, "no transparent huge pages");
	store_range(self->map, 0, 2 * PMD_PAGES, 1);
	if (huge_kb(self, anon) != full)
		SKIP(return, "%ld kB of the mapping are PMD leaves", huge_kb(self, anon));

	/* Whole: in place. */
	ASSERT_EQ(2 * PMD_PAGES, clear_pages(self, 0, 2 * PMD_PAGES));
	ASSERT_EQ(full, huge_kb(self, anon));
	ASSERT_EQ(0, nr_soft_dirty(self, 0, 2 * PMD_PAGES));
	store(self->map, 600, 1);
	ASSERT_EQ(0, nr_soft_dirty(self, 0, PMD_PAGES));
	ASSERT_EQ(PMD_PAGES, nr_soft_dirty(self, PMD_PAGES, PMD_PAGES));

	/* In part: split, and nothing outside is lost. */
	store(self->map, 0, 1);
	ASSERT_EQ(full, huge_kb(self, anon));
	ASSERT_EQ(PMD_PAGES - 200, clear_pages(self, 100, PMD_PAGES - 200));
	ASSERT_EQ(100, nr_soft_dirty(self, 0, 100));
	ASSERT_EQ(0, nr_soft_dirty(self, 100, PMD_PAGES - 200));
	ASSERT_EQ(100 + PMD_PAGES, nr_soft_dirty(self, PMD_PAGES - 100, 100 + PMD_PAGES));
	ASSERT_EQ(full / 2, huge_kb(self, anon));
	ASSERT_EQ(PMD_PAGES, clear_pages(self, PMD_PAGES / 2, PMD_PAGES) + 156);
	ASSERT_EQ(0, nr_soft_dirty(self, PMD_PAGES / 2, PMD_PAGES));
	ASSERT_EQ(PMD_PAGES / 2, nr_soft_dirty(self, PMD_PAGES + PMD_PAGES / 2, PMD_PAGES / 2));
	store(self->map, 150, 9);
	ASSERT_TRUE(is_soft_dirty(self, 150));
	ASSERT_FALSE(is_soft_dirty(self, 151));
	for (i = 1; i < 2 * PMD_PAGES; i++) {
		if (i != 150 && i != 600) {
			ASSERT_EQ(1 + i, load(self->map, i));
		}
	}
}

TEST_F_TIMEOUT(sd, huge_anon, TEST_SECONDS)
{
	huge_leaves(_metadata, self, true);
}

TEST_F_TIMEOUT(sd, huge_shmem, TEST_SECONDS)
{
	huge_leaves(_metadata, self, false);
	write_file(SHMEM_ENABLED, "never");
}

/* New, and never stored to: the shared huge zero page has the mark, also when it is split. */
TEST_F_TIMEOUT(sd, huge_zero, TEST_SECONDS)
{
	if (make_huge(self, true))
		SKIP(return, "no transparent huge pages");
	ASSERT_EQ(0, kept_pages(self, 100, 100, 0));
	ASSERT_EQ(0, nr_soft_dirty(self, 100, 100));
	ASSERT_EQ(2 * PMD_PAGES - 100, nr_soft_dirty(self, 0, 2 * PMD_PAGES));
	ASSERT_EQ(0, kept_pages(self, 600, 100, 0));
	load_range(self->map, 0, 2 * PMD_PAGES);
	ASSERT_EQ(0, nr_soft_dirty(self, 600, 100));
	ASSERT_EQ(2 * PMD_PAGES - 200, nr_soft_dirty(self, 0, 2 * PMD_PAGES));
}

/* Nor does it lose the mark when the kernel, or another call, splits it later. */
TEST_F_TIMEOUT(sd, huge_zero_split_later, TEST_SECONDS)
{
	char *second = self->map + PMD_PAGES * page_size();

	if (make_huge(self, true))
		SKIP(return, "no transparent huge pages");
	ASSERT_EQ(0, kept_pages(self, 0, PMD_PAGES, 0));
	ASSERT_EQ(0, nr_soft_dirty(self, 0, PMD_PAGES));
	ASSERT_EQ(PMD_PAGES, nr_soft_dirty(self, PMD_PAGES, PMD_PAGES));
	ASSERT_EQ(0, mprotect(second + 10 * page_size(), page_size(), PROT_READ));
	ASSERT_EQ(PMD_PAGES, nr_soft_dirty(self, PMD_PAGES, PMD_PAGES));
	ASSERT_EQ(0, nr_soft_dirty(self, 0, PMD_PAGES));
}

/* What reads the bits meanwhile never finds the pages beside the range clean. */
struct looker {
	FIXTURE_DATA(sd) *sd;
	atomic_bool stop;
	uint64_t passes, clean;
};

static void *look(void *arg)
{
	struct looker *looker = arg;

	while (!atomic_load(&looker->stop)) {
		looker->clean += 10 - nr_soft_dirty(looker->sd, 50, 10);
		looker->clean += 10 - nr_soft_dirty(looker->sd, 300, 10);
		looker->passes++;
	}
	return NULL;
}

TEST_F_TIMEOUT(sd, huge_zero_is_never_clean, TEST_SECONDS)
{
	unsigned int round, n = rounds(100);

	if (make_huge(self, true))
		SKIP(return, "no transparent huge pages");
	for (round = 0; round < n; round++) {
		struct looker looker = { .sd = self };
		pthread_t thread;

		/* A new mapping for each round. */
		ASSERT_EQ(0, make_huge(self, true));
		ASSERT_EQ(0, pthread_create(&thread, NULL, look, &looker));
		ASSERT_EQ(0, kept_pages(self, 100, 100, 0));
		atomic_store(&looker.stop, true);
		ASSERT_EQ(0, pthread_join(thread, NULL));
		ASSERT_EQ(0, looker.clean) {
			TH_LOG("round %u, %llu looks", round, (unsigned long long)looker.passes);
		}
	}
	ASSERT_EQ(0, nr_soft_dirty(self, 100, 100));
	ASSERT_EQ(2 * PMD_PAGES - 100, nr_soft_dirty(self, 0, 2 * PMD_PAGES));
}

/*
 * Entries that are not present
 */
TEST_F_TIMEOUT(sd, swap_entries, TEST_SECONDS)
{
	struct swap_file swap;
	const char *why = add_swap(&swap);
	size_t i, swapped;

	if (why)
		SKIP(return, "%s", why);
	ASSERT_NE(map_at(self->map, -1, 0, PAGES, RW, ANON), NULL);
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, clear_pages(self, 0, PAGES));
	store_range(self->map, 0, PAGES, 2);
	swapped = swap_out(self->map, PAGES);
	EXPECT_GT(swapped, 0);
	EXPECT_EQ(PAGES, nr_soft_dirty(self, 0, PAGES));
	EXPECT_EQ(500, clear_pages(self, 100, 500));
	EXPECT_EQ(0, nr_soft_dirty(self, 100, 500));
	EXPECT_EQ(PAGES - 500, nr_soft_dirty(self, 0, PAGES));
	load_range(self->map, 0, PAGES);
	EXPECT_EQ(PAGES - 500, nr_soft_dirty(self, 0, PAGES));
	store(self->map, 300, 302);
	EXPECT_EQ(PAGES - 499, nr_soft_dirty(self, 0, PAGES));
	for (i = 0; i < PAGES; i++) {
		EXPECT_EQ(2 + i, load(self->map, i));
	}
	EXPECT_EQ(0, remove_swap(&swap));
	TH_LOG("%zu of %lu pages were swapped out", swapped, PAGES);
}

/*
 * Pages that migrate all the time: a writable migration entry that is cleared
 * must not come back writable.
 */
TEST_F_TIMEOUT(sd, migration, TEST_SECONDS)
{
	unsigned int round, n = rounds(200);
	size_t i, unseen = 0;
	pid_t pid;

	if (access("/proc/sys/vm/compact_memory", W_OK))
		SKIP(return, "no memory compaction");
	ASSERT_NE(map_at(self->map, -1, 0, PAGES, RW, ANON), NULL);
	store_range(self->map, 0, PAGES, 1);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		munmap(self->map, PAGES * page_size());
		while (true)
			write_file("/proc/sys/vm/compact_memory", "1");
	}
	for (round = 0; round < n; round++) {
		ASSERT_GE(clear_pages(self, 0, PAGES), 0);
		store_range(self->map, 0, PAGES, round);
		unseen += PAGES - nr_soft_dirty(self, 0, PAGES);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	ASSERT_EQ(0, unseen);
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(n - 1 + i, load(self->map, i));
	}
}

/*
 * What stays
 */
TEST_F_TIMEOUT(sd, uffd_wp_stays, TEST_SECONDS)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect wp = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	size_t i;

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "userfaultfd with asynchronous write-protection is not available");
	ASSERT_NE(map_at(self->map, -1, 0, PAGES, RW, ANON), NULL);
	store_range(self->map, 0, PAGES, 1);
	reg.range.start = wp.range.start = (uintptr_t)self->map;
	reg.range.len = wp.range.len = PAGES * page_size();
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
	store_range(self->map, 0, 100, 2);
	ASSERT_EQ(0, kept_pages(self, 0, PAGES, 0));
	ASSERT_EQ(0, nr_soft_dirty(self, 0, PAGES));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(i >= 100, !!(entry_of(self->pagemap, self->map + i * page_size()) &
				       PAGEMAP_UFFD_WP));
	}
	store(self->map, 5, 3);
	store(self->map, 500, 3);
	ASSERT_EQ(2, nr_soft_dirty(self, 0, PAGES));
}

/*
 * A marker is an entry, but its bit is lost when the page is read: a new mapping has its pages
 * soft-dirty as before, when another one was cleared.
 */
TEST_F_TIMEOUT(sd, marker_of_uffd, TEST_SECONDS)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_ASYNC,
	};
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect wp = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	int fd = new_memfd(PAGES), uffd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "userfaultfd with write-protection of shmem is not available");
	ASSERT_NE(map_at(self->map, fd, 0, PAGES, RW, MAP_SHARED), NULL);
	reg.range.start = wp.range.start = (uintptr_t)self->map;
	reg.range.len = wp.range.len = PAGES * page_size();
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
	ASSERT_EQ(1, kept_pages(self, 5, 1, 0));
	load_range(self->map, 0, PAGES);
	ASSERT_EQ(PAGES, nr_soft_dirty(self, 0, PAGES));
}

/* Dirty bits are still there for a harvest, and for the file system. */
TEST_F_TIMEOUT(sd, dirty_bits_stay, TEST_SECONDS)
{
	int fd = new_memfd(PAGES);

	ASSERT_NE(map_at(self->map, fd, 0, PAGES, RW, MAP_SHARED), NULL);
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, clear_pages(self, 0, PAGES));
	ASSERT_EQ(PAGES, clean_only(self->dev, fd, 0, PAGES));
	ASSERT_EQ(0, nr_soft_dirty(self, 0, PAGES));
	store_range(self->map, 0, 10, 2);
	/* And a harvest leaves soft-dirty bits. */
	ASSERT_EQ(10, clean_only(self->dev, fd, 0, PAGES));
	ASSERT_EQ(10, nr_soft_dirty(self, 0, PAGES));
}

/* The bit is in the entry. With the entry of a file's page it is gone, without a clear. */
TEST_F_TIMEOUT(sd, goes_with_entry_of_file, TEST_SECONDS)
{
	int fd = new_memfd(PAGES);
	size_t i;

	ASSERT_NE(map_at(self->map, fd, 0, PAGES, RW, MAP_SHARED), NULL);
	ASSERT_GE(clear_pages(self, 0, PAGES), 0);
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, nr_soft_dirty(self, 0, PAGES));
	ASSERT_EQ(0, madvise(self->map, 100 * page_size(), MADV_DONTNEED));
	ASSERT_EQ(PAGES - 100, nr_soft_dirty(self, 0, PAGES));
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(1 + i, load(self->map, i));
	}
	ASSERT_EQ(PAGES - 100, nr_soft_dirty(self, 0, PAGES));
}

/* Stores to hugetlbfs are not seen: it reads as soft-dirty for ever, not as clean. */
TEST_F_TIMEOUT(sd, hugetlb_is_kept, TEST_SECONDS)
{
	char *map;

	if (write_file(NR_HUGEPAGES, "2"))
		SKIP(return, "no hugetlbfs");
	map = mmap(NULL, pmd_size(), RW, ANON | MAP_HUGETLB, -1, 0);
	if (map == MAP_FAILED) {
		write_file(NR_HUGEPAGES, "0");
		SKIP(return, "no huge page");
	}
	store(map, 0, 1);
	self->map = map;
	EXPECT_EQ(PMD_PAGES, kept_pages(self, 0, PMD_PAGES, 0));
	EXPECT_EQ(PMD_PAGES, nr_soft_dirty(self, 0, PMD_PAGES));
	EXPECT_GE(soft_dirty_clear_all(self->dev), 0);
	EXPECT_EQ(PMD_PAGES, nr_soft_dirty(self, 0, PMD_PAGES));
	store(map, 0, 2);
	EXPECT_EQ(PMD_PAGES, nr_soft_dirty(self, 0, PMD_PAGES));
	munmap(map, pmd_size());
	write_file(NR_HUGEPAGES, "0");
}

/* A child has its own bits. */
TEST_F_TIMEOUT(sd, fork, TEST_SECONDS)
{
	int status;
	pid_t pid;

	ASSERT_NE(map_at(self->map, -1, 0, PAGES, RW, ANON), NULL);
	store_range(self->map, 0, PAGES, 1);
	pid = fork();
	if (!pid) {
		int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

		if (soft_dirty_clear(self->dev, self->map, PAGES) < 0)
			_exit(1);
		store(self->map, 8, 2);
		_exit(scan_soft_dirty(pagemap, self->map, PAGES) == 1 ? 0 : 2);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	ASSERT_EQ(PAGES, nr_soft_dirty(self, 0, PAGES));
}

/*
 * Another process
 */
TEST_F_TIMEOUT(sd, by_pidfd, TEST_SECONDS)
{
	struct agent_cmd cmd = { .op = AGENT_STORE, .addr = self->map, .pages = PAGES };
	struct mmops_soft_dirty_clear out = {};
	struct agent agent = {};
	int pidfd, pagemap;
	char path[64];

	ASSERT_NE(map_at(self->map, -1, 0, PAGES, RW, ANON), NULL);
	ASSERT_EQ(0, agent_start(&agent));
	pidfd = syscall(SYS_pidfd_open, agent.pid, 0);
	ASSERT_GE(pidfd, 0);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", agent.pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_GE(pagemap, 0);
	ASSERT_EQ(0, agent_run(&agent, &cmd));
	ASSERT_EQ(PAGES, soft_dirty_clear_of(self->dev, pidfd, self->map, PAGES, 0, &out));
	ASSERT_EQ(0, scan_soft_dirty(pagemap, self->map, PAGES));
	cmd.pages = 40;
	ASSERT_EQ(0, agent_run(&agent, &cmd));
	ASSERT_EQ(40, scan_soft_dirty(pagemap, self->map, PAGES));
	ASSERT_GE(soft_dirty_clear_of(self->dev, pidfd, NULL, 0, MMOPS_SOFT_DIRTY_ALL, &out), 40);
	ASSERT_EQ(0, scan_soft_dirty(pagemap, self->map, PAGES));
	ASSERT_EQ(0, agent_stop(&agent));
	ASSERT_EQ(-ESRCH, soft_dirty_clear_of(self->dev, pidfd, self->map, PAGES, 0, &out));
	ASSERT_EQ(-EBADF, soft_dirty_clear_of(self->dev, self->dev, self->map, PAGES, 0, &out));
	ASSERT_EQ(-EBADF, soft_dirty_clear_of(self->dev, 1000, self->map, PAGES, 0, &out));
	ASSERT_EQ(-EBADF, soft_dirty_clear_of(self->dev, -2, self->map, PAGES, 0, &out));
}

/* A process that may not be traced may not be cleared. */
TEST_F_TIMEOUT(sd, by_pidfd_of_others, TEST_SECONDS)
{
	int pidfd = syscall(SYS_pidfd_open, getpid(), 0), status;
	pid_t pid;

	ASSERT_GE(pidfd, 0);
	ASSERT_NE(map_at(self->map, -1, 0, PAGES, RW, ANON), NULL);
	store_range(self->map, 0, PAGES, 1);
	pid = fork();
	if (!pid) {
		if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
			_exit(1);
		_exit(soft_dirty_clear_of(self->dev, pidfd, self->map, PAGES, 0, NULL) == -EACCES ?
		      0 : 2);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	ASSERT_EQ(PAGES, nr_soft_dirty(self, 0, PAGES));
}

/*
 * Bad input: the errno, and nothing changes.
 */
TEST_F_TIMEOUT(sd, bad_input, TEST_SECONDS)
{
	const struct {
		struct mmops_soft_dirty_clear arg;
		int error;
	} cases[] = {
		{ { .pidfd = -1, .addr = 1, .len = 0 }, EINVAL },
		{ { .pidfd = -1, .addr = 0, .len = 0 }, EINVAL },
		{ { .pidfd = -1, .addr = 1, .len = 4096 }, EINVAL },
		{ { .pidfd = -1, .addr = 0, .len = 4095 }, EINVAL },
		{ { .pidfd = -1, .addr = 4096, .len = -4096ULL }, EINVAL },
		{ { .pidfd = -1, .addr = 4096, .len = -1ULL }, EINVAL },
		{ { .pidfd = -1, .addr = 8192, .len = -4096ULL }, EINVAL },
		{ { .pidfd = -1, .flags = 1 << 2, .addr = 0, .len = 4096 }, EINVAL },
		{ { .pidfd = -1, .flags = 1U << 31, .addr = 0, .len = 4096 }, EINVAL },
		{ { .pidfd = -1, .len = 4096, .reserved = { 1 } }, EINVAL },
		{ { .pidfd = -1, .len = 4096, .reserved = { 0, 1 } }, EINVAL },
		{ { .pidfd = -1, .flags = MMOPS_SOFT_DIRTY_ALL, .len = 4096 }, EINVAL },
		{ { .pidfd = -1, .flags = MMOPS_SOFT_DIRTY_ALL, .addr = 4096 }, EINVAL },
		{ { .pidfd = -1, .flags = MMOPS_SOFT_DIRTY_ALL | MMOPS_SOFT_DIRTY_FORGET },
		  EINVAL },
		/* Beyond what a process can map. */
		{ { .pidfd = -1, .addr = 1ULL << 62, .len = 4096 }, ENOMEM },
		{ { .pidfd = -1, .addr = -8192ULL, .len = 4096 }, ENOMEM },
	};
	char *hole = self->map + 500 * page_size();
	size_t i;

	ASSERT_NE(map_at(self->map, -1, 0, PAGES, RW, ANON), NULL);
	store_range(self->map, 0, PAGES, 1);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct mmops_soft_dirty_clear arg = cases[i].arg;

		errno = 0;
		EXPECT_EQ(-1, ioctl(self->dev, MMOPS_IOC_SOFT_DIRTY_CLEAR, &arg));
		EXPECT_EQ(cases[i].error, errno) {
			TH_LOG("case %zu", i);
		}
		EXPECT_EQ(0, memcmp(&arg, &cases[i].arg, sizeof(arg)));
	}
	ASSERT_EQ(0, munmap(hole, page_size()));
	ASSERT_EQ(-ENOMEM, clear_pages(self, 0, PAGES));
	ASSERT_EQ(-ENOMEM, clear_pages(self, 500, 1));
	ASSERT_EQ(-ENOMEM, clear_pages(self, 400, 101));
	ASSERT_EQ(PAGES - 1, nr_soft_dirty(self, 0, 500) + nr_soft_dirty(self, 501, PAGES - 501));
	ASSERT_EQ(500, clear_pages(self, 0, 500));
}

/*
 * The flush: one if an entry was writable, none else.
 */

/*
 * TLB flushes of a call on all pages, of which @dirty are stored to before: the
 * least of many rounds, or the first number that is not above @enough.
 */
static uint64_t flushes_of(struct __test_metadata *_metadata, FIXTURE_DATA(sd) *self,
			   size_t dirty, uint64_t enough)
{
	uint64_t least = ~0ULL, flushes;
	unsigned int round;
	size_t i;

	for (round = 0; round < FLUSH_ROUNDS && least > enough; round++) {
		for (i = 0; i < dirty; i++)
			store(self->map, i * (PAGES / dirty), round);
		flushes = local_flushes();
		ASSERT_GE(clear_pages(self, 0, PAGES), (int64_t)dirty);
		flushes = local_flushes() - flushes;
		least = min(least, flushes);
		/* What is owed is never left out. */
		if (dirty) {
			ASSERT_GE(flushes, 1);
		}
	}
	return least;
}

TEST_F_TIMEOUT(sd, flushes, TEST_SECONDS)
{
	uint64_t one, two, single, none;

	if (!local_flushes())
		SKIP(return, "the kernel does not count TLB flushes");
	pin_to_cpu(0);
	ASSERT_NE(map_at(self->map, -1, 0, PAGES, RW, ANON), NULL);
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, clear_pages(self, 0, PAGES));

	/* 44 pages far apart are more than are flushed one by one: all is flushed, once. */
	one = flushes_of(_metadata, self, 44, 1);
	single = flushes_of(_metadata, self, 1, 1);
	/* Not writable: nothing is owed, soft-dirty or not. */
	none = flushes_of(_metadata, self, 0, 0);
	/* The same in two mappings by one call. */
	ASSERT_EQ(0, madvise(self->map + PAGES / 2 * page_size(), PAGES / 2 * page_size(),
			     MADV_DONTFORK));
	ASSERT_EQ(2, nr_vmas(self));
	two = flushes_of(_metadata, self, 44, 1);
	TH_LOG("flushes: %llu for 44 pages, %llu in two mappings, %llu for one page, %llu for none",
	       (unsigned long long)one, (unsigned long long)two, (unsigned long long)single,
	       (unsigned long long)none);
	ASSERT_EQ(1, one);
	ASSERT_EQ(1, two);
	ASSERT_EQ(1, single);
	ASSERT_EQ(0, none);
}

TEST_HARNESS_MAIN
