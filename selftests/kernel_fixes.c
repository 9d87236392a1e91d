// SPDX-License-Identifier: GPL-2.0
/*
 * Reproducers of the bugs of the kernel that kernel/fixes/ mends. MMOPS_FIXES says
 * which kernel runs: 1 for one with that series, for which a test asserts the right
 * value, and 0 for one without it, for which a test asserts the wrong one. So none
 * passes for a reason that is none. What would end the guest, or be reported by it,
 * is only run with the series.
 */
#include <setjmp.h>
#include <signal.h>
#include <mmops_ref.h>

#include "dmirror.h"
#include "faults.h"
#include "kselftest_harness.h"
#include "leafmap.h"
#include "notifier.h"
#include "zap.h"

#define DAX_PUD		"/dev/dax0.0"
#define VALUE		0x1234567890ULL
/* MADV_PAGEOUT may find the folio on its way to the lists that it takes it from. */
#define PAGEOUT_TRIES	100

static bool fixed(void)
{
	const char *text = getenv("MMOPS_FIXES");

	return text && !strcmp(text, "1");
}

/* Once a point release has the fix, its patch and its reproducer have done their work. */
#define ASSERT_FIXED(right, wrong, value)					\
do {										\
	uint64_t _right = (right), _wrong = (wrong), _value = (value);		\
										\
	if (!fixed() && _value == _right)					\
		SKIP(return, "this kernel has the fix without kernel/fixes");	\
	ASSERT_EQ(fixed() ? _right : _wrong, _value);				\
} while (0)

#define SKIP_WITHOUT_FIXES(what)						\
do {										\
	if (!fixed())								\
		SKIP(return, "without kernel/fixes, " what);			\
} while (0)

/*
 * mm/mapping_dirty_helpers.c and walk_page_mapping(), by /dev/mmops_ref
 */
FIXTURE(ref)
{
	int ref, fd;
	uint64_t bitmap, start, end;
};

FIXTURE_SETUP(ref)
{
	OPEN_DEV(self->ref, MMOPS_REF_DEV);
	self->fd = new_memfd(16);
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(ref)
{
}

static int64_t ref_call(FIXTURE_DATA(ref) *self, uint32_t op, uint64_t first, uint64_t nr)
{
	struct mmops_ref_dirty arg = {
		.fd = self->fd, .op = op, .side = MMOPS_REF_KERNEL, .first = first, .nr = nr,
	};

	if (op == MMOPS_REF_CLEAN_RECORD) {
		arg.bitmap = (uintptr_t)&self->bitmap;
		arg.bitmap_bits = BITS_PER_WORD;
		arg.start = self->start;
		arg.end = self->end;
	}
	if (ioctl(self->ref, MMOPS_REF_IOC_DIRTY, &arg))
		return -errno;
	self->start = arg.start;
	self->end = arg.end;
	return arg.count;
}

static int64_t ref_clean(FIXTURE_DATA(ref) *self, uint64_t first, uint64_t nr)
{
	return ref_call(self, MMOPS_REF_CLEAN_RECORD, first, nr);
}

static int64_t ref_protect(FIXTURE_DATA(ref) *self, uint64_t first, uint64_t nr)
{
	return ref_call(self, MMOPS_REF_WRITE_PROTECT, first, nr);
}

/* A private mapping of pages 0..2 comes before a shared one of pages 4..8. */
static char *map_behind_private(FIXTURE_DATA(ref) *self)
{
	char *map = map_shared(self->fd, 4, 4);

	if (mmap(NULL, 2 * page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE, self->fd, 0) ==
	    MAP_FAILED)
		return NULL;
	if (map)
		store_range(map, 0, 4, 1);
	return map;
}

TEST_F_TIMEOUT(ref, private_mapping_ends_write_protect, TEST_SECONDS)
{
	ASSERT_NE(map_behind_private(self), NULL);
	ASSERT_FIXED(4, 0, ref_protect(self, 0, 8));
}

TEST_F_TIMEOUT(ref, private_mapping_ends_clean_record, TEST_SECONDS)
{
	ASSERT_NE(map_behind_private(self), NULL);
	ASSERT_FIXED(0xf0, 0, ({ ref_clean(self, 0, 8); self->bitmap; }));
}

/* The same without the private mapping, or with one behind: what is asserted above is its doing. */
TEST_F_TIMEOUT(ref, private_mapping_behind, TEST_SECONDS)
{
	char *map = map_shared(self->fd, 0, 4);

	ASSERT_NE(map, NULL);
	ASSERT_NE(mmap(NULL, 2 * page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE, self->fd,
		       4 * page_size()), MAP_FAILED);
	store_range(map, 0, 4, 1);
	ASSERT_EQ(4, ref_protect(self, 0, 8));
	ASSERT_EQ(4, ref_clean(self, 0, 8));
	ASSERT_EQ(0xf, self->bitmap);
}

/* Pages 10..14 and a bitmap that begins with page 0: *start is a bit, and 4 a number of pages. */
TEST_F_TIMEOUT(ref, first_bit, TEST_SECONDS)
{
	char *map = map_shared(self->fd, 0, 16);

	ASSERT_NE(map, NULL);
	store(map, 12, 1);
	ASSERT_EQ(1, ref_clean(self, 10, 4));
	ASSERT_EQ(1 << 12, self->bitmap);
	ASSERT_EQ(13, self->end);
	ASSERT_FIXED(12, 4, self->start);
}

/* Nothing is dirty: that no bit is known stays as it was said. */
TEST_F_TIMEOUT(ref, no_bit, TEST_SECONDS)
{
	char *map = map_shared(self->fd, 0, 16);

	ASSERT_NE(map, NULL);
	load_range(map, 0, 16);
	self->start = 7;
	self->end = 3;
	ASSERT_EQ(0, ref_clean(self, 10, 4));
	ASSERT_EQ(0, self->bitmap);
	ASSERT_FIXED(7 << 8 | 3, 4 << 8 | 0, self->start << 8 | self->end);
}

static sigjmp_buf fault_jump;

static void on_fault(int sig)
{
	siglongjmp(fault_jump, sig);
}

/* The signal that a load gets, or 0. */
static int signal_of_load(const char *map, size_t page)
{
	struct sigaction action = { .sa_handler = on_fault }, old;
	int sig;

	sigaction(SIGSEGV, &action, &old);
	sig = sigsetjmp(fault_jump, 1);
	if (!sig)
		load(map, page);
	sigaction(SIGSEGV, &old, NULL);
	return sig;
}

/* The marker of a guard region has the bit of pte_dirty(). */
TEST_F_TIMEOUT(ref, marker_is_recorded, TEST_SECONDS)
{
	char *map = map_shared(self->fd, 0, 8);

	ASSERT_NE(map, NULL);
	store_range(map, 0, 2, 1);
	if (madvise(map + 4 * page_size(), 2 * page_size(), MADV_GUARD_INSTALL))
		SKIP(return, "no guard regions of files: %s", strerror(errno));
	ASSERT_FIXED(0x3, 0x33, ({ ref_clean(self, 0, 8); self->bitmap; }));
	ASSERT_EQ(SIGSEGV, signal_of_load(map, 4));
}

/* A marker that was moved is soft-dirty, and has the bit of pte_write() then. */
TEST_F_TIMEOUT(ref, marker_is_write_protected, TEST_SECONDS)
{
	char *map = map_shared(self->fd, 0, 8), *to = reserve(8, 0);

	ASSERT_NE(map, NULL);
	ASSERT_NE(to, NULL);
	if (madvise(map + 4 * page_size(), 2 * page_size(), MADV_GUARD_INSTALL))
		SKIP(return, "no guard regions of files: %s", strerror(errno));
	ASSERT_EQ(0, ref_protect(self, 0, 8));
	ASSERT_EQ(to, mremap(map, 8 * page_size(), 8 * page_size(), MREMAP_MAYMOVE | MREMAP_FIXED,
			     to));
	ASSERT_FIXED(0, 2, ref_protect(self, 0, 8));
	ASSERT_EQ(SIGSEGV, signal_of_load(to, 4));
}

/*
 * try_collapse_pte_mapped_thp()
 */
FIXTURE(collapse)
{
	int fd;
	char before[16];
	char *map;
};

/* A huge folio of a hole, which was read once; what maps it is gone. */
FIXTURE_SETUP(collapse)
{
	if (read_choice(SHMEM_ENABLED, self->before, sizeof(self->before)) ||
	    write_file(SHMEM_ENABLED, "advise"))
		SKIP(return, "cannot set " SHMEM_ENABLED);
	self->fd = new_memfd(PMD_PAGES);
	ASSERT_GE(self->fd, 0);
	self->map = reserve(PMD_PAGES, 0);
	ASSERT_NE(self->map, NULL);
	self->map = map_at(self->map, self->fd, 0, PMD_PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(self->map, NULL);
	ASSERT_EQ(0, madvise(self->map, pmd_size(), MADV_HUGEPAGE));
	ASSERT_EQ(0, load(self->map, 0));
	if (smaps_kb(self->map, "ShmemPmdMapped") != (long)pmd_size() / 1024) {
		write_file(SHMEM_ENABLED, self->before);
		SKIP(return, "no huge pages");
	}
	ASSERT_EQ(self->map, map_at(self->map, self->fd, 0, PMD_PAGES, PROT_READ | PROT_WRITE,
				    MAP_SHARED));
}

FIXTURE_TEARDOWN(collapse)
{
	write_file(SHMEM_ENABLED, self->before);
}

/* Have the folio reclaimed, which it is if it is clean. */
static void reclaim(FIXTURE_DATA(collapse) *self)
{
	unsigned char resident = 1;
	unsigned int tries;

	for (tries = 0; (resident & 1) && tries < PAGEOUT_TRIES; tries++) {
		page_out(self->map, pmd_size());
		if (mincore(self->map, page_size(), &resident))
			return;
	}
}

/* The folio is clean, and only a PTE knows of the store. */
TEST_F_TIMEOUT(collapse, store_by_pte, TEST_SECONDS)
{
	uint64_t value = ~0ULL;

	ASSERT_EQ(0, madvise(self->map, pmd_size(), MADV_NOHUGEPAGE));
	ASSERT_EQ(0, load(self->map, 5));
	store(self->map, 5, VALUE);
	ASSERT_EQ(0, smaps_kb(self->map, "ShmemPmdMapped"));
	ASSERT_EQ(0, madvise(self->map, pmd_size(), MADV_HUGEPAGE));
	ASSERT_EQ(0, collapse_range(self->map, pmd_size()));
	ASSERT_EQ((long)pmd_size() / 1024, smaps_kb(self->map, "ShmemPmdMapped"));
	reclaim(self);
	ASSERT_EQ(sizeof(value), pread(self->fd, &value, sizeof(value), 5 * page_size()));
	ASSERT_FIXED(VALUE, 0, value);
}

/* The same without the collapse: the store stays in any kernel. */
TEST_F_TIMEOUT(collapse, store_without_collapse, TEST_SECONDS)
{
	uint64_t value = ~0ULL;

	ASSERT_EQ(0, madvise(self->map, pmd_size(), MADV_NOHUGEPAGE));
	ASSERT_EQ(0, load(self->map, 5));
	store(self->map, 5, VALUE);
	reclaim(self);
	ASSERT_EQ(sizeof(value), pread(self->fd, &value, sizeof(value), 5 * page_size()));
	ASSERT_EQ(VALUE, value);
}

/*
 * zap_huge_pmd_folio(): MADV_DONTNEED meets the migration entry of a page of a device,
 * which is on its way back and held there. Without the fix the machine locks up.
 */
struct fetch {
	int device;
	char *map;
	atomic_bool go, over;
};

static void *fetch_loop(void *arg)
{
	struct fetch *fetch = arg;

	while (!atomic_load(&fetch->go))
		sched_yield();
	dmirror(fetch->device, HMM_DMIRROR_MIGRATE_TO_SYS, fetch->map, NULL, PMD_PAGES);
	atomic_store(&fetch->over, true);
	return NULL;
}

FIXTURE(leaf)
{
};

FIXTURE_SETUP(leaf)
{
	SKIP_WITHOUT_FIXES("this locks up the machine");
}

FIXTURE_TEARDOWN(leaf)
{
}

FIXTURE_FAULTS(leaf);

TEST_FAULTS(leaf, migrating_leaf)
{
	static char copy[PMD_PAGES * 4096];
	struct fetch fetch = {};
	pthread_t thread;
	long anon;
	size_t i;
	int dev;

	OPEN_DEV(dev, MMOPS_DEV);
	OPEN_DMIRROR(fetch.device);
	fetch.map = map_thp(1);
	if (!fetch.map)
		SKIP(return, "no huge pages");
	ASSERT_EQ(0, subscribe(dev, NULL, 0, MMOPS_NOTIFIER_MM));
	ASSERT_EQ(PMD_PAGES, dmirror(fetch.device, HMM_DMIRROR_MIGRATE_TO_DEV, fetch.map, copy,
				     PMD_PAGES));
	anon = status_kb("RssAnon");
	/* The stack of a thread is an invalidation, too. */
	ASSERT_EQ(0, pthread_create(&thread, NULL, fetch_loop, &fetch));
	ASSERT_EQ(0, close_gate(INVALIDATION_ENDED, 1));
	atomic_store(&fetch.go, true);
	ASSERT_TRUE(wait_at_gate(INVALIDATION_ENDED, 1, &fetch.over));
	ASSERT_EQ(0, madvise(fetch.map, pmd_size(), MADV_DONTNEED));
	ASSERT_EQ(0, open_gate(INVALIDATION_ENDED));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	/* The stack of the thread is there as well. */
	ASSERT_GT(anon - (long)pmd_size() / 2048, status_kb("RssAnon"));
	for (i = 0; i < PMD_PAGES; i++) {
		ASSERT_EQ(0, load(fetch.map, i));
	}
}

/*
 * pud_present(): with CONFIG_DEBUG_VM, mprotect() of a leaf without permissions warns.
 */
static size_t messages_with(int kmsg, const char *text)
{
	char message[8192];
	size_t n = 0;
	ssize_t len;

	/* EPIPE: messages were overwritten before they could be read. */
	while ((len = read(kmsg, message, sizeof(message) - 1)) > 0 || errno == EPIPE) {
		if (len <= 0)
			continue;
		message[len] = '\0';
		n += !!strstr(message, text);
	}
	return n;
}

TEST(pud_without_permissions)
{
	size_t len = PUD_PAGES * page_size();
	int kmsg, fd = open(DAX_PUD, O_RDWR | O_CLOEXEC);
	char *map;

	if (!is_debug_kernel())
		SKIP(return, "this shows with CONFIG_DEBUG_VM only");
	SKIP_WITHOUT_FIXES("the kernel warns, which fails the run");
	if (fd < 0)
		SKIP(return, "no " DAX_PUD);
	map = map_gib(fd, 0, len, PROT_READ | PROT_WRITE);
	ASSERT_NE(map, NULL);
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ASSERT_LE(0, kmsg);
	ASSERT_EQ(0, lseek(kmsg, 0, SEEK_END));
	store(map, 1, VALUE);
	ASSERT_EQ(0, mprotect(map, len, PROT_NONE));
	ASSERT_EQ(SIGSEGV, signal_of_load(map, 1));
	ASSERT_EQ(0, mprotect(map, len, PROT_READ | PROT_WRITE));
	ASSERT_EQ(VALUE, load(map, 1));
	ASSERT_EQ(0, mprotect(map, len, PROT_NONE));
	ASSERT_EQ(0, munmap(map, len));
	ASSERT_EQ(0, messages_with(kmsg, "WARNING"));
}

TEST_HARNESS_MAIN
