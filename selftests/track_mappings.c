// SPDX-License-Identifier: GPL-2.0
/*
 * MMOPS_IOC_TRACK_* on mappings whose pages change without a store through the entries that
 * are tracked, or come without an event. The oracle is the memory itself: see track.h.
 */
#include <sys/syscall.h>

#include <linux/aio_abi.h>
#include <linux/userfaultfd.h>

#include "faults.h"
#include "kselftest_harness.h"
#include "track.h"

#define PAGES		16UL
#define RW		(PROT_READ | PROT_WRITE)

FIXTURE(mappings)
{
	int fd;
	char *map;	/* of the memfd, shared: all of its pages are stored to */
	struct tracker t;
};

FIXTURE_VARIANT(mappings)
{
	bool full;
};

FIXTURE_VARIANT_ADD(mappings, fast) {
};

FIXTURE_VARIANT_ADD(mappings, full) {
	.full = true,
};

FIXTURE_SETUP(mappings)
{
	int dev;

	OPEN_DEV(dev, MMOPS_DEV);
	close(dev);
	track_mode = variant->full ? MMOPS_TRACK_FULL : MMOPS_TRACK_FAST;
	self->fd = new_memfd(PAGES);
	ASSERT_GE(self->fd, 0);
	self->map = map_shared(self->fd, 0, PAGES);
	ASSERT_NE(NULL, self->map);
	store_range(self->map, 0, PAGES, 1);
}

FIXTURE_TEARDOWN(mappings)
{
	if (self->t.map)
		track_close(&self->t);
}

FIXTURE_FAULTS(mappings);

/* Track a mapping until nothing is reported of it, and no entry is there. */
static void track_absent(struct __test_metadata *_metadata, FIXTURE_DATA(mappings) *self,
			 char *map)
{
	ASSERT_EQ(0, track_open(&self->t, map, PAGES));
	ASSERT_EPOCH(&self->t);
	/* The copy has read the pages: their entries go, and nobody reads from here on. */
	ASSERT_EQ(0, madvise(map, PAGES * page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(0, track_end(&self->t, 0));
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(0, track_reported(&self->t));
	ASSERT_EQ(0, track_end(&self->t, 0));
}

/*
 * A page of zeroes in the place of a page of a file, in a private mapping: no dirty bit, no
 * event, and other contents.
 */
static void uffd_zeropage(struct __test_metadata *_metadata, FIXTURE_DATA(mappings) *self,
			  bool left_out)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_zeropage zero = {};
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC);
	char *map;

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd: %s", strerror(errno));
	map = mmap(NULL, PAGES * page_size(), RW, MAP_PRIVATE, self->fd, 0);
	ASSERT_NE(MAP_FAILED, map);
	track_absent(_metadata, self, map);
	reg.range.start = (uintptr_t)map;
	reg.range.len = PAGES * page_size();
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	zero.range.start = (uintptr_t)(map + 5 * page_size());
	zero.range.len = 2 * page_size();
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_ZEROPAGE, &zero));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_UNREGISTER, &reg.range));
	if (left_out)
		ASSERT_EQ(0, set_fault(TRACK_SKIP_ZERO_PAGE, 1));
	ASSERT_EQ(0, track_epoch(&self->t));
	ASSERT_EQ(0, load(map, 5));
	ASSERT_EQ(left_out ? 2 : 0, track_missed(&self->t));
	if (left_out)
		return;
	ASSERT_EQ(MMOPS_TRACK_CHANGED, self->t.kinds[5]);
	ASSERT_EQ(MMOPS_TRACK_CHANGED, self->t.kinds[6]);
	/* Nothing tells when it becomes another one. */
	store(map, 6, 66);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, track_missed(&self->t));
	close(uffd);
}

TEST_F_TIMEOUT(mappings, uffd_zeropage, TEST_SECONDS)
{
	uffd_zeropage(_metadata, self, false);
}

TEST_FAULTS(mappings, control_skip_zero_page)
{
	uffd_zeropage(_metadata, self, true);
}

/* Contents that userfaultfd copies to where nothing was come with a dirty bit. */
TEST_F_TIMEOUT(mappings, uffd_copy, TEST_SECONDS)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_copy copy = { .src = (uintptr_t)self->map };
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC);
	char *map;

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd: %s", strerror(errno));
	map = mmap(NULL, PAGES * page_size(), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, map);
	track_absent(_metadata, self, map);
	reg.range.start = (uintptr_t)map;
	reg.range.len = PAGES * page_size();
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	copy.dst = (uintptr_t)(map + 5 * page_size());
	copy.len = 2 * page_size();
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_COPY, &copy));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_UNREGISTER, &reg.range));
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, self->t.kinds[5]);
	ASSERT_NE(0, self->t.kinds[6]);
	ASSERT_EQ(2, track_reported(&self->t));
	ASSERT_EQ(1, load(map, 5));
	ASSERT_EQ(2, load(map, 6));
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, track_reported(&self->t));
	close(uffd);
}

/* Write protection by userfaultfd changes nothing, and hides no store. */
TEST_F_TIMEOUT(mappings, uffd_writeprotect, TEST_SECONDS)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect wp = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC);
	char *map;

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd with write protection: %s", strerror(errno));
	map = mmap(NULL, PAGES * page_size(), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, map);
	store_range(map, 0, PAGES, 1);
	reg.range.start = (uintptr_t)map;
	reg.range.len = PAGES * page_size();
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	ASSERT_EQ(0, track_open(&self->t, map, PAGES));
	ASSERT_EPOCH(&self->t);
	ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, track_reported(&self->t));

	wp.range.start = (uintptr_t)(map + 5 * page_size());
	wp.range.len = page_size();
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
	ASSERT_EPOCH(&self->t);
	/* In mode full, whoever takes a permission may have come after a store. */
	if (!variant->full) {
		ASSERT_EQ(0, track_reported(&self->t));
	}
	ASSERT_TRUE(pagemap_entry(map + 5 * page_size()) & PAGEMAP_UFFD_WP);
	wp.mode = 0;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
	store(map, 5, 55);
	ASSERT_EPOCH(&self->t);
	ASSERT_NE(0, self->t.kinds[5]);
	if (!variant->full) {
		ASSERT_EQ(1, track_reported(&self->t));
	}
	close(uffd);
}

/*
 * The same page of a file at two places: a store is reported where it was made, and a
 * tracker of the other place does not see it. One of the file sees both.
 */
TEST_F_TIMEOUT(mappings, alias, TEST_SECONDS)
{
	char *map = reserve(2 * PAGES, 0);
	struct tracker file;
	size_t i;

	ASSERT_NE(NULL, map);
	ASSERT_NE(NULL, map_at(map, self->fd, 0, PAGES, RW, MAP_SHARED));
	ASSERT_NE(NULL, map_at(map + PAGES * page_size(), self->fd, 0, PAGES, RW, MAP_SHARED));
	ASSERT_EQ(0, track_open(&self->t, map, 2 * PAGES));
	ASSERT_EQ(0, track_open_file(&file, self->fd, 0, map, PAGES));
	for (i = 0; i < 3; i++)
		ASSERT_EPOCH(&file);
	ASSERT_EQ(0, track_reported(&file));
	/* Which marks all that it has walked. */
	for (i = 0; i < 3; i++)
		ASSERT_EPOCH(&self->t);
	ASSERT_EQ(0, track_reported(&self->t));

	store(map, PAGES + 3, 33);
	ASSERT_EQ(0, track_epoch(&self->t));
	ASSERT_EQ(1, track_reported(&self->t));
	ASSERT_EQ(MMOPS_TRACK_WRITTEN, self->t.kinds[PAGES + 3]);
	ASSERT_EQ(1, track_missed(&self->t));
	ASSERT_EPOCH(&file);
	ASSERT_EQ(MMOPS_TRACK_WRITTEN, file.kinds[3]);
	track_close(&file);
}

/* The kernel stores what has ended into the ring, which the process has as memory. */
static void ring_of_aio(struct __test_metadata *_metadata, FIXTURE_DATA(mappings) *self,
			bool left_out)
{
	struct io_event event;
	aio_context_t ring = 0;
	struct iocb iocb = {
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = self->fd,
		.aio_buf = (uintptr_t)self->map,
		.aio_nbytes = 8,
	}, *list = &iocb;
	unsigned int round;

	if (syscall(__NR_io_setup, 1, &ring))
		SKIP(return, "io_setup: %s", strerror(errno));
	ASSERT_EQ(0, track_open(&self->t, (char *)ring, 1));
	if (left_out)
		ASSERT_EQ(0, set_fault(TRACK_SKIP_DRIVER, 1));
	for (round = 0; round < 4; round++) {
		ASSERT_EQ(0, track_epoch(&self->t));
		ASSERT_EQ(left_out && round ? 0 : MMOPS_TRACK_CHANGED, self->t.kinds[0]);
		ASSERT_EQ(left_out && round, track_missed(&self->t));
		iocb.aio_data = round;
		ASSERT_EQ(1, syscall(__NR_io_submit, ring, 1, &list));
		ASSERT_EQ(1, syscall(__NR_io_getevents, ring, 1, 1, &event, NULL));
		ASSERT_EQ(8, event.res);
		ASSERT_EQ(round, event.data);
	}
	/* The last of them is there since the epoch. */
	ASSERT_EQ(1, track_missed(&self->t));
	ASSERT_EQ(0, track_epoch(&self->t));
	ASSERT_EQ(left_out, track_missed(&self->t));
	ASSERT_EQ(0, syscall(__NR_io_destroy, ring));
}

TEST_F_TIMEOUT(mappings, ring_of_aio, TEST_SECONDS)
{
	ring_of_aio(_metadata, self, false);
}

TEST_FAULTS(mappings, control_skip_driver)
{
	ring_of_aio(_metadata, self, true);
}

TEST_HARNESS_MAIN
