// SPDX-License-Identifier: GPL-2.0
/*
 * Pages that are pinned for DMA: a device may store to them at any time, so each
 * harvest records them, and so does the next one after the pin, dirty or not.
 */
#include <linux/io_uring.h>
#include <linux/udmabuf.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "gup_test.h"
#include "kselftest_harness.h"
#include "leaves.h"

#define PAGES		(2 * PMD_PAGES)
#define FIRST		500UL	/* of those that are pinned, in two tables */
#define NR		30UL

#define GUP_TEST_FILE	"/sys/kernel/debug/gup_test"

FIXTURE(pinned)
{
	int dev, fd;
	char *map;
	struct harvest h;
};

FIXTURE_SETUP(pinned)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	self->fd = memfd_create("mmops", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ASSERT_GE(self->fd, 0);
	ASSERT_EQ(0, ftruncate(self->fd, PAGES * page_size()));
	self->map = reserve(PAGES, 0);
	ASSERT_NE(self->map, NULL);
	self->map = map_at(self->map, self->fd, 0, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(self->map, NULL);
	self->h = new_harvest(PAGES);
	ASSERT_NE(self->h.bitmap, NULL);
	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
}

FIXTURE_TEARDOWN(pinned)
{
}

/* Pins pages of this process for writing, for a long time. A descriptor, or -errno. */
static int pin(const char *map, size_t pages)
{
	struct pin_longterm_test arg = {
		.addr = (uintptr_t)map,
		.size = pages * page_size(),
		.flags = PIN_LONGTERM_TEST_FLAG_USE_WRITE,
	};
	int fd = open(GUP_TEST_FILE, O_RDWR | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, PIN_LONGTERM_TEST_START, &arg))
		return -errno;
	return fd;
}

static int unpin(int fd)
{
	int ret = ioctl(fd, PIN_LONGTERM_TEST_STOP) ? -errno : 0;

	close(fd);
	return ret;
}

/* One harvest of all; how many entries were cleaned. */
static int64_t harvest(FIXTURE_DATA(pinned) *self)
{
	reset_harvest(&self->h);
	return clean_record(self->dev, self->fd, 0, PAGES, &self->h);
}

#define NO_OTHER	PAGES
#define ALL_RIGHT	(-1L)

/*
 * ALL_RIGHT if exactly the pages from @first on are recorded, and page @other if
 * that is one; else a page for which it is not so.
 */
static long recorded(FIXTURE_DATA(pinned) *self, size_t first, size_t nr, size_t other)
{
	size_t i;

	for (i = 0; i < PAGES; i++) {
		bool want = (i >= first && i < first + nr) || i == other;

		if (test_bit(self->h.bitmap, i) != want)
			return i;
	}
	if (nr && self->h.start != min(first, other))
		return self->h.start;
	if (nr && self->h.end != first + nr)
		return self->h.end;
	return ALL_RIGHT;
}

TEST_F_TIMEOUT(pinned, in_each_harvest, TEST_SECONDS)
{
	int i, fd;

	ASSERT_EQ(0, harvest(self));
	fd = pin(self->map + FIRST * page_size(), NR);
	if (fd < 0)
		SKIP(return, "cannot pin through " GUP_TEST_FILE ": %s", strerror(-fd));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, harvest(self));
		ASSERT_EQ(ALL_RIGHT, recorded(self, FIRST, NR, NO_OTHER));
	}
	/* A dirty one that is pinned stays dirty. */
	store(self->map, FIRST + 1, 2);
	store(self->map, 3, 2);
	ASSERT_EQ(1, harvest(self));
	ASSERT_EQ(ALL_RIGHT, recorded(self, FIRST, NR, 3));
	ASSERT_EQ(0, unpin(fd));
	/* What the device stored since the last harvest is in this one. */
	ASSERT_EQ(NR, harvest(self));
	ASSERT_EQ(ALL_RIGHT, recorded(self, FIRST, NR, NO_OTHER));
	ASSERT_EQ(0, harvest(self));
	ASSERT_EQ(ALL_RIGHT, recorded(self, 0, 0, NO_OTHER));
}

/* Write-protected, as after write_protect or writeback: recorded while the pin lasts. */
TEST_F_TIMEOUT(pinned, not_writable, TEST_SECONDS)
{
	int i, fd = pin(self->map + FIRST * page_size(), NR);

	if (fd < 0)
		SKIP(return, "cannot pin through " GUP_TEST_FILE ": %s", strerror(-fd));
	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, harvest(self));
		ASSERT_EQ(ALL_RIGHT, recorded(self, FIRST, NR, NO_OTHER));
	}
	ASSERT_EQ(0, unpin(fd));
	ASSERT_EQ(0, harvest(self));
	ASSERT_EQ(ALL_RIGHT, recorded(self, 0, 0, NO_OTHER));
}

/*
 * One that is dirty when the harvest comes keeps that, writable or not: it is recorded once
 * more when the pin is over. The pin comes first, since one for writing gives the permission
 * back.
 */
TEST_F_TIMEOUT(pinned, not_writable_but_dirty, TEST_SECONDS)
{
	int i, fd = pin(self->map + FIRST * page_size(), NR);

	if (fd < 0)
		SKIP(return, "cannot pin through " GUP_TEST_FILE ": %s", strerror(-fd));
	store(self->map, FIRST + 1, 2);
	/* The dirty bit stays. */
	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, harvest(self));
		ASSERT_EQ(ALL_RIGHT, recorded(self, FIRST, NR, NO_OTHER));
	}
	ASSERT_EQ(0, unpin(fd));
	ASSERT_EQ(1, harvest(self));
	ASSERT_EQ(ALL_RIGHT, recorded(self, FIRST + 1, 1, NO_OTHER));
	ASSERT_EQ(0, harvest(self));
	ASSERT_EQ(ALL_RIGHT, recorded(self, 0, 0, NO_OTHER));
}

/* A pin of one page counts for all of a huge leaf. */
TEST_F_TIMEOUT(pinned, huge, TEST_SECONDS)
{
	struct leaf_counts counts;
	int i, fd, ret;

	ret = collapse_range(self->map, pmd_size());
	if (ret)
		SKIP(return, "MADV_COLLAPSE: %s", strerror(-ret));
	store(self->map, 0, 1);
	ASSERT_EQ(PMD_PAGES, harvest(self));
	fd = pin(self->map + 7 * page_size(), 1);
	if (fd < 0)
		SKIP(return, "cannot pin through " GUP_TEST_FILE ": %s", strerror(-fd));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, harvest(self));
		ASSERT_EQ(ALL_RIGHT, recorded(self, 0, PMD_PAGES, NO_OTHER));
		ASSERT_EQ(0, count_leaves(self->dev, self->map, pmd_size(), &counts));
		ASSERT_EQ(1, counts.pmd.nr);
		ASSERT_EQ(1, counts.pmd.dirty);
	}
	ASSERT_EQ(0, unpin(fd));
	ASSERT_EQ(PMD_PAGES, harvest(self));
	ASSERT_EQ(ALL_RIGHT, recorded(self, 0, PMD_PAGES, NO_OTHER));
	ASSERT_EQ(0, harvest(self));
}

/* Another process pins what it maps; and goes. */
TEST_F_TIMEOUT(pinned, by_another_process, TEST_SECONDS)
{
	int ready[2], status;
	char word = 0;
	pid_t pid;

	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		word = pin(self->map + FIRST * page_size(), NR) < 0 ? 'n' : 'y';
		write(ready[1], &word, 1);
		pause();
		_exit(0);
	}
	ASSERT_GT(pid, 0);
	ASSERT_EQ(1, read(ready[0], &word, 1));
	if (word == 'y') {
		ASSERT_EQ(0, harvest(self));
		ASSERT_EQ(ALL_RIGHT, recorded(self, FIRST, NR, NO_OTHER));
		ASSERT_EQ(0, harvest(self));
		ASSERT_EQ(ALL_RIGHT, recorded(self, FIRST, NR, NO_OTHER));
	}
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	if (word != 'y')
		SKIP(return, "cannot pin through " GUP_TEST_FILE);
	/* Its entries are gone with their dirty bits. */
	ASSERT_EQ(0, harvest(self));
	ASSERT_EQ(ALL_RIGHT, recorded(self, 0, 0, NO_OTHER));
}

/*
 * Fixed buffers of io_uring: pinned from their registration on. The ring is made
 * by hand, for one read at a time.
 */
struct ring {
	int fd;
	uint32_t *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail;
	struct io_uring_sqe *sqes;
};

static int make_ring(struct ring *ring)
{
	struct io_uring_params p = {};
	char *sq, *cq;

	ring->fd = syscall(__NR_io_uring_setup, 4, &p);
	if (ring->fd < 0)
		return -errno;
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * sizeof(uint32_t), PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
		  PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_CQ_RING);
	ring->sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || ring->sqes == MAP_FAILED)
		return -errno;
	ring->sq_tail = (uint32_t *)(sq + p.sq_off.tail);
	ring->sq_mask = (uint32_t *)(sq + p.sq_off.ring_mask);
	ring->sq_array = (uint32_t *)(sq + p.sq_off.array);
	ring->cq_head = (uint32_t *)(cq + p.cq_off.head);
	ring->cq_tail = (uint32_t *)(cq + p.cq_off.tail);
	return 0;
}

/* Reads from @fd into the buffer that is registered, at its start. 0 or -errno. */
static int read_fixed(struct ring *ring, int fd, void *buffer, unsigned int len)
{
	uint32_t tail = *ring->sq_tail, index = tail & *ring->sq_mask;

	ring->sqes[index] = (struct io_uring_sqe){
		.opcode = IORING_OP_READ_FIXED,
		.fd = fd,
		.addr = (uintptr_t)buffer,
		.len = len,
	};
	ring->sq_array[index] = index;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	if (syscall(__NR_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		return -errno;
	if (__atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE) == *ring->cq_head)
		return -EIO;
	__atomic_store_n(ring->cq_head, *ring->cq_head + 1, __ATOMIC_RELEASE);
	return 0;
}

TEST_F_TIMEOUT(pinned, fixed_buffers_of_io_uring, TEST_SECONDS)
{
	const uint64_t value = 0x55aa55aaULL;
	char *buffer = self->map + FIRST * page_size();
	struct iovec iov = { buffer, NR * page_size() };
	int from = new_memfd(1);
	struct ring ring;
	int ret;

	ASSERT_GE(from, 0);
	ASSERT_EQ(sizeof(value), pwrite(from, &value, sizeof(value), 0));
	ret = make_ring(&ring);
	if (ret)
		SKIP(return, "no io_uring: %s", strerror(-ret));
	ASSERT_EQ(0, syscall(__NR_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &iov, 1));
	ASSERT_EQ(0, harvest(self));
	ASSERT_EQ(ALL_RIGHT, recorded(self, FIRST, NR, NO_OTHER));
	/* The kernel stores through an address of its own. */
	ASSERT_EQ(0, read_fixed(&ring, from, buffer, sizeof(value)));
	ASSERT_EQ(value, load(self->map, FIRST));
	ASSERT_EQ(0, harvest(self));
	ASSERT_EQ(ALL_RIGHT, recorded(self, FIRST, NR, NO_OTHER));
	/* The last store before the end of the pin. */
	ASSERT_EQ(0, read_fixed(&ring, from, buffer, sizeof(value)));
	ASSERT_EQ(0, syscall(__NR_io_uring_register, ring.fd, IORING_UNREGISTER_BUFFERS, NULL, 0));
	close(ring.fd);
	/* The pin may last a little longer. */
	ASSERT_GE(harvest(self), 0);
	ASSERT_TRUE(test_bit(self->h.bitmap, FIRST));
	close(from);
}

/*
 * References that are no pins: pipes hold the page, once for each time that it was
 * spliced to one. From 1024 on, nobody can tell them from a pin.
 */
TEST_F_TIMEOUT(pinned, many_references, TEST_SECONDS)
{
	/* What a pipe holds by default is 16. */
	enum { ROOM = 256, PIPES = 4, OTHERS = 16 };
	struct iovec iov[ROOM];
	int pipes[PIPES][2], i, fd;

	for (i = 0; i < ROOM; i++)
		iov[i] = (struct iovec){ self->map + FIRST * page_size(), page_size() };
	/* Pins are looked for only where there was one. */
	fd = pin(self->map, 1);
	if (fd < 0)
		SKIP(return, "cannot pin through " GUP_TEST_FILE ": %s", strerror(-fd));
	ASSERT_EQ(0, unpin(fd));
	for (i = 0; i < PIPES; i++) {
		ASSERT_EQ(0, pipe(pipes[i]));
		ASSERT_EQ(ROOM * (int)page_size(),
			  fcntl(pipes[i][1], F_SETPIPE_SZ, ROOM * page_size()));
		/* The last one is left with room for some. */
		ASSERT_EQ((ROOM - (i == PIPES - 1 ? OTHERS : 0)) * (ssize_t)page_size(),
			  vmsplice(pipes[i][1], iov, ROOM - (i == PIPES - 1 ? OTHERS : 0), 0));
	}
	ASSERT_EQ(0, harvest(self));
	ASSERT_EQ(ALL_RIGHT, recorded(self, 0, 0, NO_OTHER));

	ASSERT_EQ(OTHERS * (ssize_t)page_size(), vmsplice(pipes[PIPES - 1][1], iov, OTHERS, 0));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, harvest(self));
		ASSERT_EQ(ALL_RIGHT, recorded(self, FIRST, 1, NO_OTHER));
	}
	close(pipes[0][0]);
	close(pipes[0][1]);
	ASSERT_EQ(1, harvest(self));
	ASSERT_EQ(ALL_RIGHT, recorded(self, FIRST, 1, NO_OTHER));
	ASSERT_EQ(0, harvest(self));
	ASSERT_EQ(ALL_RIGHT, recorded(self, 0, 0, NO_OTHER));
	for (i = 1; i < PIPES; i++) {
		close(pipes[i][0]);
		close(pipes[i][1]);
	}
}

/* A dma-buf pins the pages of a memfd, but through no mapping: documented as not recorded. */
TEST_F_TIMEOUT(pinned, not_by_the_file_alone, TEST_SECONDS)
{
	struct udmabuf_create create = {
		.memfd = self->fd,
		.offset = FIRST * page_size(),
		.size = NR * page_size(),
	};
	int dmabuf, fd = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		SKIP(return, "no /dev/udmabuf");
	ASSERT_EQ(0, fcntl(self->fd, F_ADD_SEALS, F_SEAL_SHRINK));
	dmabuf = ioctl(fd, UDMABUF_CREATE, &create);
	ASSERT_GE(dmabuf, 0);
	ASSERT_EQ(0, harvest(self));
	ASSERT_EQ(ALL_RIGHT, recorded(self, 0, 0, NO_OTHER));
	close(dmabuf);
	close(fd);
}

TEST_HARNESS_MAIN
