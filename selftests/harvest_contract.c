// SPDX-License-Identifier: GPL-2.0
/*
 * What a harvest sees and what it does not: each way that uapi.rst names in which
 * a page changes, or its dirty bit goes elsewhere, without a record. A test fails
 * as well if a change is recorded that is documented not to be: then the text is
 * wrong. In all of them the contents of the file are right.
 */
#include <sys/uio.h>

#include "faults.h"
#include "flushes.h"
#include "khugepaged.h"
#include "kselftest_harness.h"
#include "notifier.h"
#include "pins.h"
#include "track.h"
#include "zap.h"

#define PAGES		PMD_PAGES
#define STORED		100UL		/* the page that is stored to */
#define PART		10UL		/* pages at an end of the leaf, which is the other part */
#define VALUE		0x1234567890ULL

FIXTURE(contract)
{
	int dev, fd;
	char *map;
	struct harvest h;
};

/*
 * What is done after page STORED of a file was stored to, and before the harvest.
 * 0, or -errno: the test is skipped then.
 */
typedef int (*step)(FIXTURE_DATA(contract) *self);

static char *page(FIXTURE_DATA(contract) *self, size_t n)
{
	return self->map + n * page_size();
}

static int result(long ret)
{
	return ret < 0 ? -errno : 0;
}

static int nothing(FIXTURE_DATA(contract) *self)
{
	return 0;
}

/* A part of the leaf that the stored page is not in */

static int mprotect_part(FIXTURE_DATA(contract) *self)
{
	return result(mprotect(self->map, PART * page_size(), PROT_READ));
}

static int mprotect_all(FIXTURE_DATA(contract) *self)
{
	return result(mprotect(self->map, PAGES * page_size(), PROT_READ));
}

static int munmap_part(FIXTURE_DATA(contract) *self)
{
	return result(munmap(page(self, PAGES - PART), PART * page_size()));
}

static int mremap_part(FIXTURE_DATA(contract) *self)
{
	char *to = mmap(NULL, PART * page_size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (to == MAP_FAILED)
		return -errno;
	return mremap(page(self, PAGES - PART), PART * page_size(), PART * page_size(),
		      MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED ? -errno : 0;
}

static int mlock_part(FIXTURE_DATA(contract) *self)
{
	return result(mlock(self->map, PART * page_size()));
}

static int dontneed_part(FIXTURE_DATA(contract) *self)
{
	return result(madvise(self->map, PART * page_size(), MADV_DONTNEED));
}

static int pageout_part(FIXTURE_DATA(contract) *self)
{
	return result(page_out(self->map, PART * page_size()));
}

static int punch_part(FIXTURE_DATA(contract) *self)
{
	return result(fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				PART * page_size()));
}

static int truncate_part(FIXTURE_DATA(contract) *self)
{
	return result(ftruncate(self->fd, (PAGES - PART) * page_size()));
}

static int offline_part(FIXTURE_DATA(contract) *self)
{
	return result(madvise(self->map, page_size(), MADV_SOFT_OFFLINE));
}

static int zap_part(FIXTURE_DATA(contract) *self)
{
	return min(zap(self->dev, self->map, PART), (int64_t)0);
}

static int protect_part(FIXTURE_DATA(contract) *self)
{
	struct mmops_protect arg = {
		.pidfd = -1,
		.addr = (uintptr_t)self->map,
		.len = PART * page_size(),
		.prot = PROT_READ,
	};

	return result(ioctl(self->dev, MMOPS_IOC_PROTECT, &arg));
}

static int soft_dirty_part(FIXTURE_DATA(contract) *self)
{
	return min(soft_dirty_clear(self->dev, self->map, PART), (int64_t)0);
}

static int write_protect_part(FIXTURE_DATA(contract) *self)
{
	return min(write_protect_flags(self->dev, self->fd, 0, PART, MMOPS_SPLIT), (int64_t)0);
}

static int harvest_part(FIXTURE_DATA(contract) *self)
{
	struct harvest other = new_harvest(PART);
	int64_t ret = clean_record_flags(self->dev, self->fd, 0, PART, &other, MMOPS_SPLIT);

	free(other.bitmap);
	return min(ret, (int64_t)0);
}

/* The page itself, or all of the mapping */

static int collapse(FIXTURE_DATA(contract) *self)
{
	return collapse_range(self->map, PAGES * page_size());
}

/* By the kernel's own thread, which nobody asked in this moment. */
static int khugepaged(FIXTURE_DATA(contract) *self)
{
	return khugepaged_collapse(self->map);
}

static int dontneed(FIXTURE_DATA(contract) *self)
{
	return result(madvise(page(self, STORED), page_size(), MADV_DONTNEED));
}

static int pageout(FIXTURE_DATA(contract) *self)
{
	int ret = page_out(page(self, STORED), page_size());

	if (ret)
		return -errno;
	/* Without swap it stays. */
	return pagemap_entry(page(self, STORED)) & PAGEMAP_PRESENT ? -EBUSY : 0;
}

static int zap_page(FIXTURE_DATA(contract) *self)
{
	return min(zap(self->dev, page(self, STORED), 1), (int64_t)0);
}

static int map_anew(FIXTURE_DATA(contract) *self)
{
	if (munmap(self->map, PAGES * page_size()))
		return -errno;
	return map_at(self->map, self->fd, 0, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED) ?
		0 : -errno;
}

static int move(FIXTURE_DATA(contract) *self)
{
	char *to = reserve(PAGES, 0);

	if (!to || mremap(self->map, PAGES * page_size(), PAGES * page_size(),
			  MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
		return -errno;
	self->map = to;
	return 0;
}

/*
 * Whether a migration entry keeps the dirty bit: it has no room for it where the
 * kernel inverts the page numbers of entries, as it does against L1TF.
 */
static bool migration_keeps_dirty(void)
{
	FILE *f = fopen("/sys/devices/system/cpu/vulnerabilities/l1tf", "r");
	char text[128] = "";

	if (f) {
		if (!fgets(text, sizeof(text), f))
			text[0] = '\0';
		fclose(f);
	}
	return !strstr(text, "PTE Inversion");
}

/* The page is migrated. */
static int migrate(FIXTURE_DATA(contract) *self)
{
	uint64_t before = pagemap_entry(page(self, STORED)) & PAGEMAP_PFN;

	if (madvise(page(self, STORED), page_size(), MADV_SOFT_OFFLINE))
		return -errno;
	return (pagemap_entry(page(self, STORED)) & PAGEMAP_PFN) == before ? -EBUSY : 0;
}

/*
 * One huge leaf, cleaned as a whole before the store.
 */
FIXTURE_VARIANT(contract)
{
	step step;
	bool huge;
	bool recorded;
};

#define WAY(name, is_huge, is_recorded)						\
	FIXTURE_VARIANT_ADD(contract, name) {					\
		.step = name, .huge = is_huge, .recorded = is_recorded,		\
	}

WAY(nothing, true, true);
WAY(mprotect_all, true, true);
WAY(move, true, true);
/* The kernel splits the leaf of a file by unmapping it. */
WAY(mprotect_part, true, false);
WAY(munmap_part, true, false);
WAY(mremap_part, true, false);
WAY(mlock_part, true, false);
WAY(dontneed_part, true, false);
WAY(pageout_part, true, false);
WAY(punch_part, true, false);
WAY(truncate_part, true, false);
WAY(offline_part, true, false);
WAY(zap_part, true, false);
/* mmops splits in place. */
WAY(protect_part, true, true);
WAY(soft_dirty_part, true, true);
WAY(write_protect_part, true, true);
WAY(harvest_part, true, true);
/* Base pages */
WAY(collapse, false, false);
WAY(khugepaged, false, false);
WAY(dontneed, false, false);
WAY(pageout, false, false);
WAY(zap_page, false, false);
WAY(map_anew, false, false);
WAY(migrate, false, true);

FIXTURE_SETUP(contract)
{
	SETUP_MEMFD(self, PAGES, 0);
	store_range(self->map, 0, PAGES, 1);
	if (variant->huge) {
		int ret = collapse(self);

		if (ret)
			SKIP(return, "MADV_COLLAPSE: %s", strerror(-ret));
		store(self->map, 0, 1);
		ASSERT_EQ((long)pmd_size() / 1024, smaps_kb(self->map, "ShmemPmdMapped"));
	}
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	reset_harvest(&self->h);
	store(self->map, STORED, VALUE);
}

FIXTURE_TEARDOWN(contract)
{
}

/* What the file has. */
static uint64_t contents(FIXTURE_DATA(contract) *self, size_t n)
{
	uint64_t value = 0;

	pread(self->fd, &value, sizeof(value), n * page_size());
	return value;
}

TEST_F_TIMEOUT(contract, store_before, TEST_SECONDS)
{
	bool recorded = variant->recorded && (variant->step != migrate || migration_keeps_dirty());
	int ret = variant->step(self);

	if (ret)
		SKIP(return, "cannot be done here: %s", strerror(-ret));
	ASSERT_GE(clean_record_flags(self->dev, self->fd, 0, PAGES, &self->h, MMOPS_SPLIT), 0);
	ASSERT_EQ(recorded, test_bit(self->h.bitmap, STORED));
	ASSERT_EQ(VALUE, contents(self, STORED));
	/* A store after that is recorded: the page is mapped anew by then. */
	if (variant->step == mprotect_all) {
		ASSERT_EQ(0, mprotect(self->map, PAGES * page_size(), PROT_READ | PROT_WRITE));
	}
	reset_harvest(&self->h);
	store(self->map, STORED, VALUE + 1);
	ASSERT_GE(clean_record_flags(self->dev, self->fd, 0, PAGES, &self->h, MMOPS_SPLIT), 0);
	ASSERT_TRUE(test_bit(self->h.bitmap, STORED));
}

/*
 * The stores of others: through no entry, or one that is gone.
 */
FIXTURE(others)
{
	int dev, fd;
	char *map;
	struct harvest h;
};

FIXTURE_SETUP(others)
{
	SETUP_MEMFD(self, PAGES, 0);
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	reset_harvest(&self->h);
}

FIXTURE_TEARDOWN(others)
{
}

FIXTURE_FAULTS(others);

static void assert_unseen(struct __test_metadata *_metadata, FIXTURE_DATA(others) *self)
{
	ASSERT_EQ(VALUE, load(self->map, STORED));
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(0, count_bits(self->h.bitmap, self->h.bits));
}

TEST_F_TIMEOUT(others, write, TEST_SECONDS)
{
	uint64_t value = VALUE;

	ASSERT_EQ(sizeof(value), pwrite(self->fd, &value, sizeof(value), STORED * page_size()));
	assert_unseen(_metadata, self);
}

/* The kernel stores through the mapping of the caller, as the caller would. */
TEST_F_TIMEOUT(others, read_into_the_mapping, TEST_SECONDS)
{
	uint64_t value = VALUE;
	int from = new_memfd(1);

	ASSERT_GE(from, 0);
	ASSERT_EQ(sizeof(value), pwrite(from, &value, sizeof(value), 0));
	ASSERT_EQ(sizeof(value), pread(from, self->map + STORED * page_size(), sizeof(value), 0));
	ASSERT_EQ(VALUE, load(self->map, STORED));
	ASSERT_EQ(1, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_TRUE(test_bit(self->h.bitmap, STORED));
	close(from);
}

TEST_F_TIMEOUT(others, process_vm_writev, TEST_SECONDS)
{
	uint64_t value = VALUE;
	struct iovec from = { &value, sizeof(value) };
	struct iovec to = { self->map + STORED * page_size(), sizeof(value) };

	ASSERT_EQ(sizeof(value), process_vm_writev(getpid(), &from, 1, &to, 1, 0));
	assert_unseen(_metadata, self);
}

TEST_F_TIMEOUT(others, proc_mem, TEST_SECONDS)
{
	uint64_t value = VALUE;
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(sizeof(value), pwrite(fd, &value, sizeof(value),
					(uintptr_t)self->map + STORED * page_size()));
	assert_unseen(_metadata, self);
	close(fd);
}

/* A device stores to the pages, which are pinned no more when it has done so. */
TEST_F_TIMEOUT(others, direct_io, TEST_SECONDS)
{
	const char *disk = getenv("MMOPS_DISK");
	char path[256];
	void *buffer;
	int fd;

	if (!disk)
		SKIP(return, "no MMOPS_DISK, a directory on a disk file system");
	snprintf(path, sizeof(path), "%s/mmops-contract-%d", disk, getpid());
	fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
	ASSERT_GE(fd, 0);
	unlink(path);
	ASSERT_EQ(0, posix_memalign(&buffer, page_size(), page_size()));
	memset(buffer, 0, page_size());
	*(uint64_t *)buffer = VALUE;
	ASSERT_EQ((ssize_t)page_size(), pwrite(fd, buffer, page_size(), 0));
	ASSERT_EQ((ssize_t)page_size(),
		  pread(fd, self->map + STORED * page_size(), page_size(), 0));
	ASSERT_TRUE(wait_for_unpin());
	assert_unseen(_metadata, self);
	/* Only if it is protected before. */
	*(uint64_t *)buffer = VALUE + 1;
	ASSERT_EQ((ssize_t)page_size(), pwrite(fd, buffer, page_size(), 0));
	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ((ssize_t)page_size(),
		  pread(fd, self->map + STORED * page_size(), page_size(), 0));
	ASSERT_EQ(VALUE + 1, load(self->map, STORED));
	ASSERT_TRUE(wait_for_unpin());
	/* The lookup for the device was a write fault. */
	ASSERT_GE(clean_record(self->dev, self->fd, 0, PAGES, &self->h), 0);
	ASSERT_TRUE(test_bit(self->h.bitmap, STORED));
	close(fd);
}

TEST_F_TIMEOUT(others, exited, TEST_SECONDS)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		store(self->map, STORED, VALUE);
		_exit(0);
	}
	ASSERT_GT(pid, 0);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	assert_unseen(_metadata, self);
}

/* What an open tracker of the file's pages reports as written, it has taken. */
static void assert_takes(struct __test_metadata *_metadata, FIXTURE_DATA(others) *self,
			 struct tracker *t)
{
	ASSERT_EQ(0, track_begin(t));
	ASSERT_EQ(0, track_end(t, 0));
	store(self->map, STORED, VALUE);
	ASSERT_EQ(0, track_begin(t));
	ASSERT_EQ(1, track_reported(t));
	ASSERT_EQ(MMOPS_TRACK_WRITTEN, t->kinds[STORED]);
	assert_unseen(_metadata, self);
	ASSERT_EQ(0, track_end(t, 0));
	/* What was stored since is the harvest's, if that comes first; the tracker is told. */
	store(self->map, STORED + 1, VALUE);
	ASSERT_EQ(1, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_TRUE(test_bit(self->h.bitmap, STORED + 1));
	ASSERT_EQ(0, track_begin(t));
	ASSERT_NE(0, t->kinds[STORED + 1]);
	ASSERT_EQ(0, track_end(t, 0));
	track_close(t);
}

/* Of a process that maps the file. */
TEST_F_TIMEOUT(others, tracker, TEST_SECONDS)
{
	struct tracker t;

	ASSERT_EQ(0, track_open(&t, self->map, PAGES));
	assert_takes(_metadata, self, &t);
}

/* Of the file itself. */
TEST_F_TIMEOUT(others, tracker_of_file, TEST_SECONDS)
{
	struct tracker t;

	ASSERT_EQ(0, track_open_file(&t, self->fd, 0, self->map, PAGES));
	assert_takes(_metadata, self, &t);
}

struct migration {
	pthread_t thread;
	char *page;
	atomic_bool wanted, done;
	int error;
};

static void *migrate_once(void *arg)
{
	struct migration *migration = arg;

	while (!atomic_load(&migration->wanted))
		sched_yield();
	if (madvise(migration->page, page_size(), MADV_SOFT_OFFLINE))
		migration->error = errno;
	atomic_store(&migration->done, true);
	return NULL;
}

/*
 * A harvest passes over a page that is being migrated, and the next one records
 * it. A subscriber that is told of the end of the migration's invalidation holds it
 * where the migration entry is in place.
 */
TEST_FAULTS(others, migrating)
{
	struct migration migration = { .page = self->map + STORED * page_size() };
	bool keeps = migration_keeps_dirty(), held;
	uint64_t entry;
	int64_t cleaned;

	ASSERT_EQ(0, subscribe(self->dev, NULL, 0, MMOPS_NOTIFIER_MM));
	/* A thread that is made changes mappings. */
	ASSERT_EQ(0, pthread_create(&migration.thread, NULL, migrate_once, &migration));
	store(self->map, STORED, VALUE);
	store(self->map, STORED + 1, VALUE);
	/* What is needed below is touched: a page that is copied is an invalidation, too. */
	ASSERT_EQ(0, get_fault(INVALIDATION_ENDED));
	entry = pagemap_entry(migration.page);
	ASSERT_EQ(PAGEMAP_PRESENT, entry & (PAGEMAP_SWAP | PAGEMAP_PRESENT));
	ASSERT_EQ(0, close_gate(INVALIDATION_ENDED, 1));
	atomic_store(&migration.wanted, true);
	held = wait_at_gate(INVALIDATION_ENDED, 1, &migration.done);
	entry = pagemap_entry(migration.page);
	cleaned = clean_record(self->dev, self->fd, 0, PAGES, &self->h);
	ASSERT_EQ(0, open_gate(INVALIDATION_ENDED));
	ASSERT_EQ(0, pthread_join(migration.thread, NULL));
	if (migration.error)
		SKIP(return, "no page can be taken offline (%s)", strerror(migration.error));
	ASSERT_TRUE(held);
	ASSERT_EQ(PAGEMAP_SWAP, entry & (PAGEMAP_SWAP | PAGEMAP_PRESENT));
	ASSERT_EQ(1, cleaned);
	ASSERT_EQ(1, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_TRUE(test_bit(self->h.bitmap, STORED + 1));

	reset_harvest(&self->h);
	ASSERT_EQ(keeps, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(keeps, test_bit(self->h.bitmap, STORED));
	ASSERT_EQ(VALUE, load(self->map, STORED));
}

/* Writeback of a disk file system takes the dirty bits that it finds. */
TEST(written_back)
{
	const char *disk = getenv("MMOPS_DISK");
	struct harvest h = new_harvest(PAGES);
	char path[256], *map;
	int dev, fd;

	OPEN_DEV(dev, MMOPS_DEV);
	if (!disk)
		SKIP(return, "no MMOPS_DISK, a directory on a disk file system");
	snprintf(path, sizeof(path), "%s/mmops-contract-%d", disk, getpid());
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_GE(fd, 0);
	unlink(path);
	ASSERT_EQ(0, posix_fallocate(fd, 0, PAGES * page_size()));
	map = map_shared(fd, 0, PAGES);
	ASSERT_NE(map, NULL);
	store(map, STORED, VALUE);
	ASSERT_EQ(0, msync(map, PAGES * page_size(), MS_SYNC));
	ASSERT_EQ(0, clean_record(dev, fd, 0, PAGES, &h));
	ASSERT_EQ(0, count_bits(h.bitmap, h.bits));
	store(map, STORED, VALUE);
	ASSERT_EQ(1, clean_record(dev, fd, 0, PAGES, &h));
	ASSERT_TRUE(test_bit(h.bitmap, STORED));
	close(fd);
}

TEST_HARNESS_MAIN
