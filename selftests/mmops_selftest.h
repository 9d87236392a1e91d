/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of /dev/mmops share: the calls with their generic checks,
 * mappings at chosen addresses, and views of page-table state that do not go
 * through mmops.
 *
 * ASSERT_*() and EXPECT_*() of kselftest_harness.h are two statements each: a
 * loop or an if around a single one needs braces.
 */
#ifndef MMOPS_SELFTEST_H
#define MMOPS_SELFTEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <linux/mmops.h>

#define MMOPS_DEV	"/dev/mmops"
#define MMOPS_REF_DEV	"/dev/mmops_ref"

/* Newer than the headers of some distributions. */
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#define MADV_GUARD_REMOVE	103
#endif

#define BITS_PER_WORD	64UL
#define PMD_PAGES	512UL
/* Seconds that a test may take on the slowest kernel before it counts as hung. */
#define TEST_SECONDS	900

#define min(a, b) ({ __typeof__(a) _a = (a); __typeof__(b) _b = (b); _a < _b ? _a : _b; })
#define max(a, b) ({ __typeof__(a) _a = (a); __typeof__(b) _b = (b); _a > _b ? _a : _b; })

static inline size_t page_size(void)
{
	static size_t size;

	if (!size)
		size = sysconf(_SC_PAGESIZE);
	return size;
}

static inline size_t pmd_size(void)
{
	return PMD_PAGES * page_size();
}

/* A debug kernel takes many times as long for the same work. */
static inline bool is_debug_kernel(void)
{
	return !access("/proc/lockdep_stats", F_OK);
}

/* Number of rounds to do: @plain, or a fifth of it where the kernel is slow. */
static inline unsigned int rounds(unsigned int plain)
{
	return is_debug_kernel() ? max(plain / 5, 1u) : plain;
}

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static inline void spin_us(uint64_t us)
{
	uint64_t end = now_ns() + us * 1000;

	while (now_ns() < end)
		;
}

/*
 * Random numbers. A test prints its seed, and MMOPS_SEED repeats a run.
 */
struct rng {
	uint64_t state;
};

static inline uint64_t rng_next(struct rng *rng)
{
	uint64_t z = rng->state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* A number in 0..n; n must not be 0. */
static inline uint64_t rng_below(struct rng *rng, uint64_t n)
{
	return rng_next(rng) % n;
}

static inline uint64_t test_seed(void)
{
	const char *seed = getenv("MMOPS_SEED");

	return seed ? strtoull(seed, NULL, 0) : 0x6d6d6f7073ULL;
}

/*
 * Files and mappings
 */
static inline int new_memfd(size_t pages)
{
	int fd = memfd_create("mmops", MFD_CLOEXEC);

	if (fd >= 0 && ftruncate(fd, pages * page_size())) {
		close(fd);
		return -1;
	}
	return fd;
}

/*
 * Reserve address space for @pages and return an address in it that is
 * @offset pages above the start of a page table. Mappings are then put there
 * with map_at(), so that a layout has the same addresses in each run.
 */
static inline char *reserve(size_t pages, size_t offset)
{
	size_t bytes = pages * page_size() + 2 * pmd_size();
	char *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	p = (char *)(((uintptr_t)p + pmd_size() - 1) & ~(pmd_size() - 1));
	return p + (offset % PMD_PAGES) * page_size();
}

/* Map @pages of @fd from page offset @pgoff at exactly @addr. */
static inline char *map_at(char *addr, int fd, size_t pgoff, size_t pages, int prot, int flags)
{
	char *p = mmap(addr, pages * page_size(), prot, flags | MAP_FIXED, fd,
		       pgoff * page_size());

	return p == MAP_FAILED ? NULL : p;
}

static inline char *map_shared(int fd, size_t pgoff, size_t pages)
{
	char *p = mmap(NULL, pages * page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		       pgoff * page_size());

	return p == MAP_FAILED ? NULL : p;
}

/* One store to a page of a mapping, at its first 8 bytes. */
static inline void store(char *map, size_t page, uint64_t value)
{
	*(volatile uint64_t *)(map + page * page_size()) = value;
}

static inline uint64_t load(const char *map, size_t page)
{
	return *(const volatile uint64_t *)(map + page * page_size());
}

static inline void store_range(char *map, size_t first, size_t nr, uint64_t value)
{
	size_t i;

	for (i = 0; i < nr; i++)
		store(map, first + i, value + i);
}

static inline void load_range(const char *map, size_t first, size_t nr)
{
	size_t i;

	for (i = 0; i < nr; i++)
		load(map, first + i);
}

/* Minor faults of this thread so far. */
static inline long minor_faults(void)
{
	struct rusage ru;

	/* Twice: the first may fault its buffer in, on the stack of a child, and not count that. */
	getrusage(RUSAGE_THREAD, &ru);
	getrusage(RUSAGE_THREAD, &ru);
	return ru.ru_minflt;
}

/*
 * Bitmaps, laid out as the interface lays them out.
 */
static inline bool test_bit(const uint64_t *bitmap, uint64_t bit)
{
	return bitmap[bit / BITS_PER_WORD] >> (bit % BITS_PER_WORD) & 1;
}

static inline void set_bit(uint64_t *bitmap, uint64_t bit)
{
	bitmap[bit / BITS_PER_WORD] |= 1ULL << (bit % BITS_PER_WORD);
}

static inline uint64_t count_bits(const uint64_t *bitmap, uint64_t bits)
{
	uint64_t i, n = 0;

	for (i = 0; i < bits / BITS_PER_WORD; i++)
		n += __builtin_popcountll(bitmap[i]);
	return n;
}

static inline uint64_t round_bits(uint64_t bits)
{
	return (bits + BITS_PER_WORD - 1) / BITS_PER_WORD * BITS_PER_WORD;
}

/* All bits clear; room for @bits, rounded up to whole words. */
static inline uint64_t *new_bitmap(uint64_t bits)
{
	return calloc(round_bits(bits) / BITS_PER_WORD, sizeof(uint64_t));
}

/*
 * The calls. Each returns what was counted, or -errno; -EPROTO says that the
 * call succeeded with results that contradict themselves.
 */
static inline int64_t write_protect_flags(int dev, int fd, uint64_t first, uint64_t nr,
					  uint32_t flags)
{
	struct mmops_write_protect arg = {
		.fd = fd,
		.flags = flags,
		.first = first,
		.nr = nr,
		.write_protected = ~0ULL,
	};

	if (ioctl(dev, MMOPS_IOC_WRITE_PROTECT, &arg))
		return -errno;
	if (arg.done != nr)
		return -EPROTO;
	return arg.write_protected;
}

static inline int64_t write_protect(int dev, int fd, uint64_t first, uint64_t nr)
{
	return write_protect_flags(dev, fd, first, nr, 0);
}

/* A bitmap for @bits pages from page offset @pgoff, and what is known of it. */
struct harvest {
	uint64_t *bitmap;
	uint64_t bits;
	uint64_t pgoff;
	uint64_t start;
	uint64_t end;
};

static inline int64_t clean_record_flags(int dev, int fd, uint64_t first, uint64_t nr,
					 struct harvest *h, uint32_t flags)
{
	struct mmops_clean_record arg = {
		.fd = fd,
		.flags = flags,
		.first = first,
		.nr = nr,
		.bitmap_pgoff = h->pgoff,
		.bitmap = (uintptr_t)h->bitmap,
		.bitmap_bits = h->bits,
		.start = h->start,
		.end = h->end,
		.cleaned = ~0ULL,
	};

	if (ioctl(dev, MMOPS_IOC_CLEAN_RECORD, &arg))
		return -errno;
	if (arg.done != nr)
		return -EPROTO;
	h->start = arg.start;
	h->end = arg.end;
	return arg.cleaned;
}

static inline int64_t clean_record(int dev, int fd, uint64_t first, uint64_t nr,
				   struct harvest *h)
{
	return clean_record_flags(dev, fd, first, nr, h, 0);
}

/* An empty harvest of pages 0..@pages. */
static inline struct harvest new_harvest(uint64_t pages)
{
	return (struct harvest){ .bitmap = new_bitmap(pages), .bits = round_bits(pages) };
}

static inline void reset_harvest(struct harvest *h)
{
	memset(h->bitmap, 0, h->bits / 8);
	h->start = 0;
	h->end = 0;
}

/* Clean a range without looking at what was dirty. */
static inline int64_t clean_only(int dev, int fd, uint64_t first, uint64_t nr)
{
	struct harvest h = new_harvest(first + nr);
	int64_t ret = clean_record(dev, fd, first, nr, &h);

	free(h.bitmap);
	return ret;
}

/* The call for @pages at @addr of the process behind @pidfd, with all that it tells in @out. */
static inline int64_t soft_dirty_clear_of(int dev, int pidfd, const void *addr, size_t pages,
					  uint32_t flags, struct mmops_soft_dirty_clear *out)
{
	struct mmops_soft_dirty_clear arg = {
		.pidfd = pidfd,
		.flags = flags,
		.addr = (uintptr_t)addr,
		.len = pages * page_size(),
		.cleared = ~0ULL,
		.kept = ~0ULL,
	};

	if (ioctl(dev, MMOPS_IOC_SOFT_DIRTY_CLEAR, &arg))
		return -errno;
	if (!(flags & MMOPS_SOFT_DIRTY_ALL) && arg.done != arg.len)
		return -EPROTO;
	if (out)
		*out = arg;
	return arg.cleared;
}

static inline int64_t soft_dirty_clear(int dev, const void *addr, size_t pages)
{
	return soft_dirty_clear_of(dev, -1, addr, pages, 0, NULL);
}

static inline int64_t soft_dirty_clear_all(int dev)
{
	return soft_dirty_clear_of(dev, -1, NULL, 0, MMOPS_SOFT_DIRTY_ALL, NULL);
}

/*
 * Views that do not go through mmops
 */
#define PAGEMAP_SOFT_DIRTY	(1ULL << 55)
#define PAGEMAP_UFFD_WP		(1ULL << 57)
#define PAGEMAP_SWAP		(1ULL << 62)
#define PAGEMAP_PRESENT		(1ULL << 63)
#define PAGEMAP_PFN		((1ULL << 55) - 1)

/* The entry of /proc/self/pagemap for @addr, or 0. */
static inline uint64_t pagemap_entry(const void *addr)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (pread(fd, &entry, sizeof(entry),
		  (uintptr_t)addr / page_size() * sizeof(entry)) != sizeof(entry))
		entry = 0;
	close(fd);
	return entry;
}

/* A figure in kB from the smaps entry of the mapping that holds @addr, or -1. */
static inline long smaps_kb(const void *addr, const char *field)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	size_t len = strlen(field);
	unsigned long lo, hi;
	bool inside = false;
	char line[512];
	long kb = -1;

	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &lo, &hi) == 2)
			inside = (uintptr_t)addr >= lo && (uintptr_t)addr < hi;
		else if (inside && !strncmp(line, field, len) && line[len] == ':')
			kb = strtol(line + len + 1, NULL, 10);
	}
	fclose(f);
	return kb;
}

/* Run on one CPU from here on. */
static inline int pin_to_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

static inline int nr_possible_cpus(void)
{
	return sysconf(_SC_NPROCESSORS_CONF);
}

/*
 * madvise(MADV_PAGEOUT) from each CPU in turn. A page that is in some CPU's batch for the
 * LRU lists is passed over by reclaim, and the call empties the batches of its own only.
 */
static inline int page_out(char *addr, size_t bytes)
{
	cpu_set_t before;
	int cpu, ret = 0;

	if (sched_getaffinity(0, sizeof(before), &before))
		return -1;
	for (cpu = 0; !ret && cpu < nr_possible_cpus(); cpu++) {
		/* One that is offline or forbidden has no batch of ours. */
		if (!pin_to_cpu(cpu))
			ret = madvise(addr, bytes, MADV_PAGEOUT);
	}
	return sched_setaffinity(0, sizeof(before), &before) ?: ret;
}

/*
 * MADV_COLLAPSE, again while the pages are on their way to the lists that it takes
 * them from. 0 or -errno.
 */
static inline int collapse_range(char *addr, size_t bytes)
{
	unsigned int tries = 1000;

	while (madvise(addr, bytes, MADV_COLLAPSE)) {
		if ((errno != EAGAIN && errno != EBUSY) || !--tries)
			return -errno;
		sched_yield();
	}
	return 0;
}

static inline int nr_cpus(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN);
}

/* The number that a file of sysfs or debugfs holds, or -1. */
static inline long read_number(const char *path)
{
	FILE *file = fopen(path, "re");
	long n = -1;

	if (!file)
		return -1;
	if (fscanf(file, "%ld", &n) != 1)
		n = -1;
	fclose(file);
	return n;
}

/* Write a string to a file of sysfs or debugfs. 0 or -errno. */
static inline int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		ret = -errno;
	close(fd);
	return ret;
}

#define THP_DIR		"/sys/kernel/mm/transparent_hugepage/"
#define THP_ENABLED	THP_DIR "enabled"
#define SHMEM_ENABLED	THP_DIR "shmem_enabled"

/* The word in brackets in a file of sysfs, which is what is chosen. 0 or -errno. */
static inline int read_choice(const char *path, char *word, size_t size)
{
	char text[256] = "", *start, *end;
	FILE *f = fopen(path, "r");

	if (!f)
		return -errno;
	if (!fgets(text, sizeof(text), f))
		text[0] = '\0';
	fclose(f);
	start = strchr(text, '[');
	end = start ? strchr(start, ']') : NULL;
	if (!end || (size_t)(end - start) > size)
		return -EINVAL;
	memcpy(word, start + 1, end - start - 1);
	word[end - start - 1] = '\0';
	return 0;
}

/* Anonymous memory of @leaves aligned PMDs, each a huge leaf and stored to; or NULL. */
static inline char *map_thp(size_t leaves)
{
	char *map = reserve(leaves * PMD_PAGES, 0);

	write_file(THP_ENABLED, "madvise");
	if (!map)
		return NULL;
	map = mmap(map, leaves * pmd_size(), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (map == MAP_FAILED || madvise(map, leaves * pmd_size(), MADV_HUGEPAGE))
		return NULL;
	store_range(map, 0, leaves * PMD_PAGES, 1);
	return smaps_kb(map, "AnonHugePages") == (long)(leaves * pmd_size() / 1024) ? map : NULL;
}

/*
 * The device, or a skip that says what to do.
 */
#define OPEN_DEV(dev, path) do {						\
	(dev) = open(path, O_RDWR | O_CLOEXEC);					\
	if ((dev) < 0)								\
		SKIP(return, "cannot open %s (%s): load its module as root",	\
		     path, strerror(errno));					\
} while (0)

/*
 * A memfd with a mapping, and a harvest of it: what most tests of the calls on files
 * have. SETUP_MEMFD() fills in these members of a fixture, with a mapping of @pages
 * that starts @offset pages above the start of a page table. FIXTURE_MEMFD() is a
 * fixture that has nothing else.
 */
#define SETUP_MEMFD(self, pages, offset) do {					\
	OPEN_DEV((self)->dev, MMOPS_DEV);					\
	(self)->fd = new_memfd(pages);						\
	ASSERT_GE((self)->fd, 0);						\
	(self)->map = reserve(pages, offset);					\
	ASSERT_NE((self)->map, NULL);						\
	(self)->map = map_at((self)->map, (self)->fd, 0, pages,			\
			     PROT_READ | PROT_WRITE, MAP_SHARED);		\
	ASSERT_NE((self)->map, NULL);						\
	(self)->h = new_harvest(pages);						\
	ASSERT_NE((self)->h.bitmap, NULL);					\
} while (0)

#define FIXTURE_MEMFD(name, pages, offset)					\
	FIXTURE(name)								\
	{									\
		int dev, fd;							\
		char *map;							\
		struct harvest h;						\
	};									\
	FIXTURE_SETUP(name)							\
	{									\
		SETUP_MEMFD(self, pages, offset);				\
	}									\
	FIXTURE_TEARDOWN(name)							\
	{									\
	}									\
	struct name ## _is_of_memfd

#endif /* MMOPS_SELFTEST_H */
