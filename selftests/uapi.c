// SPDX-License-Identifier: GPL-2.0
/*
 * The arguments of the ioctls: what the device says of itself, the errno for
 * each wrong argument, and that nothing is changed on the way to it.
 */
#include <sys/socket.h>

#include "faults.h"
#include "fuzz.h"
#include "kselftest_harness.h"

#define PAGES	64UL
/* Pages of a range that a call tells of one by one. */
#define MAX_RESULTS	256UL

enum {
	FD_GOOD, FD_MINUS_ONE, FD_CLOSED, FD_PATH, FD_READ, FD_WRITE, FD_PIPE_READ, FD_PIPE_WRITE,
	FD_SOCKET, FD_NULL, FD_DIRECTORY, FD_HUGETLB, NR_FDS
};

FIXTURE(uapi)
{
	int dev;
	char *map;
	int fds[NR_FDS];
	int fd_errno[NR_FDS];	/* 0 for those that are good */
	uint64_t *bitmap;	/* one page, followed by one that is not mapped */
	uint64_t *readonly;
};

static int reopen(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_CLOEXEC);
}

FIXTURE_SETUP(uapi)
{
	int pipefd[2], sock[2], i;
	char *p;

	OPEN_DEV(self->dev, MMOPS_DEV);
	self->fds[FD_GOOD] = new_memfd(PAGES);
	ASSERT_GE(self->fds[FD_GOOD], 0);
	self->map = map_shared(self->fds[FD_GOOD], 0, PAGES);
	ASSERT_NE(self->map, NULL);
	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	self->fds[FD_MINUS_ONE] = -1;
	self->fds[FD_CLOSED] = 1000;
	self->fds[FD_PATH] = reopen(self->fds[FD_GOOD], O_PATH);
	self->fds[FD_READ] = reopen(self->fds[FD_GOOD], O_RDONLY);
	self->fds[FD_WRITE] = reopen(self->fds[FD_GOOD], O_WRONLY);
	self->fds[FD_PIPE_READ] = pipefd[0];
	self->fds[FD_PIPE_WRITE] = pipefd[1];
	self->fds[FD_SOCKET] = sock[0];
	self->fds[FD_NULL] = open("/dev/null", O_RDWR | O_CLOEXEC);
	self->fds[FD_DIRECTORY] = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	self->fds[FD_HUGETLB] = memfd_create("huge", MFD_HUGETLB | MFD_CLOEXEC);
	for (i = 0; i < NR_FDS; i++) {
		if (i != FD_MINUS_ONE) {
			ASSERT_GE(self->fds[i], 0);
		}
	}
	self->fd_errno[FD_MINUS_ONE] = EBADF;
	self->fd_errno[FD_CLOSED] = EBADF;
	self->fd_errno[FD_PATH] = EBADF;
	self->fd_errno[FD_READ] = EACCES;
	self->fd_errno[FD_WRITE] = EACCES;
	self->fd_errno[FD_PIPE_READ] = EACCES;
	self->fd_errno[FD_PIPE_WRITE] = EACCES;
	self->fd_errno[FD_SOCKET] = ENODEV;
	self->fd_errno[FD_NULL] = ENODEV;
	self->fd_errno[FD_DIRECTORY] = EACCES;
	self->fd_errno[FD_HUGETLB] = EOPNOTSUPP;

	p = mmap(NULL, 3 * page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		 0);
	ASSERT_NE(p, MAP_FAILED);
	self->bitmap = (uint64_t *)p;
	ASSERT_EQ(0, munmap(p + page_size(), page_size()));
	self->readonly = (uint64_t *)(p + 2 * page_size());
	ASSERT_EQ(0, mprotect(self->readonly, page_size(), PROT_READ));
}

FIXTURE_TEARDOWN(uapi)
{
}

/* Every page dirty and writable. */
static void dirty_all(FIXTURE_DATA(uapi) *self)
{
	store_range(self->map, 0, PAGES, 1);
}

/* Every page is as dirty_all() left it; and it is so again afterwards. */
static void assert_untouched(struct __test_metadata *_metadata, FIXTURE_DATA(uapi) *self)
{
	struct harvest h = new_harvest(PAGES);
	int fd = self->fds[FD_GOOD];

	ASSERT_EQ(PAGES, clean_record(self->dev, fd, 0, PAGES, &h));
	ASSERT_EQ(PAGES, write_protect(self->dev, fd, 0, PAGES));
	free(h.bitmap);
	dirty_all(self);
}

TEST_F_TIMEOUT(uapi, info, TEST_SECONDS)
{
	struct mmops_info info = {};
	uint64_t wanted = MMOPS_FEATURE_WRITE_PROTECT | MMOPS_FEATURE_CLEAN_RECORD |
			  MMOPS_FEATURE_HUGE_LEAVES | MMOPS_FEATURE_ZAP |
			  MMOPS_FEATURE_SOFT_DIRTY |
			  MMOPS_FEATURE_EXCLUSIVE | MMOPS_FEATURE_NOTIFIER |
			  MMOPS_FEATURE_PROTECT | MMOPS_FEATURE_LEAVES;

	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_INFO, &info));
	ASSERT_EQ(MMOPS_UAPI_VERSION, info.version);
	ASSERT_EQ(page_size(), info.page_size);
	ASSERT_EQ(wanted, info.features & wanted);
	ASSERT_EQ(0, info.features & ~(wanted | MMOPS_FEATURE_FAULTS));
	ASSERT_EQ(faults_built_in(), !!(info.features & MMOPS_FEATURE_FAULTS));
}

TEST_F_TIMEOUT(uapi, device_mode, TEST_SECONDS)
{
	struct stat st;

	ASSERT_EQ(0, stat(MMOPS_DEV, &st));
	ASSERT_TRUE(S_ISCHR(st.st_mode));
	ASSERT_EQ(0600, st.st_mode & 07777);
	ASSERT_EQ(0, st.st_uid);
}

TEST_F_TIMEOUT(uapi, structure_sizes, TEST_SECONDS)
{
	ASSERT_EQ(48, sizeof(struct mmops_info));
	ASSERT_EQ(56, sizeof(struct mmops_write_protect));
	ASSERT_EQ(96, sizeof(struct mmops_clean_record));
	ASSERT_EQ(56, sizeof(struct mmops_zap));
}

/* Another number, size or direction is another call. */
TEST_F_TIMEOUT(uapi, unknown_calls, TEST_SECONDS)
{
	static const unsigned long calls[] = {
		0,
		~0UL,
		_IO(MMOPS_IOC_MAGIC, 0),
		_IOC(_IOC_READ | _IOC_WRITE, MMOPS_IOC_MAGIC, 0xff, sizeof(struct mmops_info)),
		_IOR(MMOPS_IOC_MAGIC, 0x00, struct mmops_info),
		_IOW(MMOPS_IOC_MAGIC, 0x01, struct mmops_write_protect),
		_IOWR(MMOPS_IOC_MAGIC + 1, 0x00, struct mmops_info),
		_IOWR(MMOPS_IOC_MAGIC, 0x01, struct mmops_clean_record),
		_IOWR(MMOPS_IOC_MAGIC, 0x02, struct mmops_write_protect),
		_IOC(_IOC_READ | _IOC_WRITE, MMOPS_IOC_MAGIC, 0x02,
		     sizeof(struct mmops_clean_record) - 8),
		_IOC(_IOC_READ | _IOC_WRITE, MMOPS_IOC_MAGIC, 0x02,
		     sizeof(struct mmops_clean_record) + 8),
	};
	unsigned char arg[256], before[256];
	size_t i;

	dirty_all(self);
	memset(before, 0, sizeof(before));
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		memcpy(arg, before, sizeof(arg));
		errno = 0;
		ASSERT_EQ(-1, ioctl(self->dev, calls[i], arg));
		ASSERT_EQ(ENOTTY, errno) {
			TH_LOG("call %#lx", calls[i]);
		}
		ASSERT_EQ(0, memcmp(arg, before, sizeof(arg)));
	}
	assert_untouched(_metadata, self);
}

/* The argument itself must be readable and writable. */
TEST_F_TIMEOUT(uapi, bad_argument_address, TEST_SECONDS)
{
	static const unsigned long calls[] = {
		MMOPS_IOC_INFO, MMOPS_IOC_WRITE_PROTECT, MMOPS_IOC_CLEAN_RECORD, MMOPS_IOC_ZAP,
	};
	char *hole = (char *)self->bitmap + page_size();
	size_t i;

	dirty_all(self);
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		void *addresses[] = { NULL, (void *)8, hole, hole - 16, (void *)~7UL };
		size_t j;

		for (j = 0; j < ARRAY_SIZE(addresses); j++) {
			errno = 0;
			ASSERT_EQ(-1, ioctl(self->dev, calls[i], addresses[j]));
			ASSERT_EQ(EFAULT, errno);
		}
	}
	assert_untouched(_metadata, self);
}

TEST_F_TIMEOUT(uapi, info_reserved, TEST_SECONDS)
{
	size_t i;

	for (i = 0; i < 4; i++) {
		struct mmops_info info = {}, before;

		info.reserved[i] = 1ULL << (i * 20);
		before = info;
		errno = 0;
		ASSERT_EQ(-1, ioctl(self->dev, MMOPS_IOC_INFO, &info));
		ASSERT_EQ(EINVAL, errno);
		ASSERT_EQ(0, memcmp(&info, &before, sizeof(info)));
	}
}

TEST_F_TIMEOUT(uapi, bad_descriptors, TEST_SECONDS)
{
	struct harvest h = new_harvest(PAGES);
	size_t i;

	dirty_all(self);
	for (i = 1; i < NR_FDS; i++) {
		EXPECT_EQ(-self->fd_errno[i], write_protect(self->dev, self->fds[i], 0, PAGES)) {
			TH_LOG("descriptor kind %zu", i);
		}
		EXPECT_EQ(-self->fd_errno[i],
			  clean_record(self->dev, self->fds[i], 0, PAGES, &h)) {
			TH_LOG("descriptor kind %zu", i);
		}
	}
	assert_untouched(_metadata, self);
	/* The device is not one that can be mapped either. */
	ASSERT_EQ(-ENODEV, write_protect(self->dev, self->dev, 0, PAGES));
}

TEST_F_TIMEOUT(uapi, bad_ranges, TEST_SECONDS)
{
	static const struct {
		uint64_t first, nr;
	} range[] = {
		{ 0, 0 }, { 1, 0 }, { ~0ULL, 0 }, { ~0ULL, 1 }, { 1, ~0ULL }, { ~0ULL, ~0ULL },
		{ 1ULL << 63, 1ULL << 63 },
	};
	struct harvest h = new_harvest(PAGES);
	size_t i;

	dirty_all(self);
	for (i = 0; i < ARRAY_SIZE(range); i++) {
		EXPECT_EQ(-EINVAL, write_protect(self->dev, self->fds[FD_GOOD], range[i].first,
						 range[i].nr));
		EXPECT_EQ(-EINVAL, clean_record(self->dev, self->fds[FD_GOOD], range[i].first,
						range[i].nr, &h));
	}
	assert_untouched(_metadata, self);
}

TEST_F_TIMEOUT(uapi, bad_flags, TEST_SECONDS)
{
	struct harvest h = new_harvest(PAGES);
	int bit;

	dirty_all(self);
	for (bit = 0; bit < 32; bit++) {
		uint32_t flag = 1U << bit;

		if (!(flag & MMOPS_SPLIT)) {
			EXPECT_EQ(-EINVAL, write_protect_flags(self->dev, self->fds[FD_GOOD], 0,
							       PAGES, flag));
		}
		if (!(flag & (MMOPS_SPLIT | MMOPS_NO_TRANSFER))) {
			EXPECT_EQ(-EINVAL, clean_record_flags(self->dev, self->fds[FD_GOOD], 0,
							      PAGES, &h, flag));
		}
	}
	assert_untouched(_metadata, self);
}

TEST_F_TIMEOUT(uapi, bad_bitmaps, TEST_SECONDS)
{
	const size_t words = page_size() / sizeof(uint64_t);
	int fd = self->fds[FD_GOOD];
	struct harvest good = new_harvest(PAGES), h;
	uint64_t *bad[] = {
		NULL, self->readonly, self->bitmap + words, (uint64_t *)~7UL,
		(uint64_t *)(1UL << 63), self->bitmap + words + 1,
	};
	size_t i;

	dirty_all(self);
	for (i = 1; i < 8; i++) {
		h = good;
		h.bitmap = (uint64_t *)((char *)self->bitmap + i);
		EXPECT_EQ(-EINVAL, clean_record(self->dev, fd, 0, PAGES, &h));
	}
	for (i = 1; i < 64; i++) {
		h = good;
		h.bits = PAGES + i;
		EXPECT_EQ(-EINVAL, clean_record(self->dev, fd, 0, PAGES, &h));
	}
	h = good;
	h.bits = 0;
	EXPECT_EQ(-EINVAL, clean_record(self->dev, fd, 0, PAGES, &h));
	EXPECT_EQ(-EINVAL, clean_record(self->dev, fd, 0, PAGES + 1, &good));
	EXPECT_EQ(-EINVAL, clean_record(self->dev, fd, 1, PAGES, &good));
	h = good;
	h.pgoff = 1;
	EXPECT_EQ(-EINVAL, clean_record(self->dev, fd, 0, PAGES, &h));
	h.pgoff = ~0ULL;
	EXPECT_EQ(-EINVAL, clean_record(self->dev, fd, 0, PAGES, &h));

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		h = good;
		h.bitmap = bad[i];
		EXPECT_EQ(-EFAULT, clean_record(self->dev, fd, 0, PAGES, &h)) {
			TH_LOG("bitmap at %p", bad[i]);
		}
	}
	ASSERT_EQ(0, count_bits(good.bitmap, good.bits));
	assert_untouched(_metadata, self);
}

/* A bitmap whose second half is not there: nothing may have been taken for the first. */
TEST_F_TIMEOUT(uapi, bitmap_ends_early, TEST_SECONDS)
{
	const uint64_t in_page = page_size() * 8;
	struct harvest h = {
		.bitmap = self->bitmap, .bits = 2 * in_page,
	};

	dirty_all(self);
	ASSERT_EQ(-EFAULT, clean_record(self->dev, self->fds[FD_GOOD], 0, 2 * in_page, &h));
	ASSERT_EQ(0, count_bits(self->bitmap, in_page));
	assert_untouched(_metadata, self);
}

/* The same where the part that is missing is reached late: a bitmap for 2 GiB of file. */
TEST_F_TIMEOUT(uapi, bitmap_ends_late, TEST_SECONDS)
{
	const uint64_t nr = 1ULL << 19;
	struct harvest h = { .bits = nr };
	size_t bytes = nr / 8;
	char *p;

	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(p, MAP_FAILED);
	ASSERT_EQ(0, munmap(p + bytes - page_size(), page_size()));
	h.bitmap = (uint64_t *)p;
	dirty_all(self);
	ASSERT_EQ(-EFAULT, clean_record(self->dev, self->fds[FD_GOOD], 0, nr, &h));
	ASSERT_EQ(0, count_bits(h.bitmap, nr - page_size() * 8));
	assert_untouched(_metadata, self);
}

/*
 * Random arguments; fuzz.h says by which rule.
 */
static uint64_t range_errors(uint64_t first, uint64_t nr)
{
	return !nr || first + nr < first ? MAY(EINVAL) : 0;
}

TEST_F_TIMEOUT(uapi, fuzz_info, TEST_SECONDS)
{
	struct rng rng = { test_seed() };
	unsigned int i, n = rounds(2000);

	for (i = 0; i < n; i++) {
		struct mmops_info info, before;
		bool good;
		int ret;

		info.version = rng_next(&rng);
		info.page_size = rng_next(&rng);
		info.features = rng_next(&rng);
		random_reserved(&rng, info.reserved, 4);
		good = !reserved_errors(info.reserved, 4);
		before = info;
		errno = 0;
		ret = ioctl(self->dev, MMOPS_IOC_INFO, &info);
		ASSERT_EQ(good ? 0 : -1, ret);
		if (!good) {
			ASSERT_EQ(EINVAL, errno);
			ASSERT_EQ(0, memcmp(&info, &before, sizeof(info)));
		} else {
			ASSERT_EQ(MMOPS_UAPI_VERSION, info.version);
		}
	}
}

TEST_F_TIMEOUT(uapi, fuzz_write_protect, TEST_SECONDS)
{
	struct rng rng = { test_seed() };
	unsigned int i, n = rounds(4000), succeeded = 0;

	dirty_all(self);
	for (i = 0; i < n; i++) {
		struct mmops_write_protect arg, before;
		unsigned int fd = mostly(&rng) ? FD_GOOD : rng_below(&rng, NR_FDS);
		uint64_t may = 0, expected;

		arg.fd = self->fds[fd];
		arg.flags = mostly(&rng) ? rng_below(&rng, 2) : random_word(&rng);
		arg.first = mostly(&rng) ? rng_below(&rng, 2 * PAGES) : random_word(&rng);
		arg.nr = mostly(&rng) ? 1 + rng_below(&rng, 2 * PAGES) : random_word(&rng);
		arg.write_protected = rng_next(&rng);
		arg.done = rng_next(&rng);
		random_reserved(&rng, arg.reserved, 2);
		before = arg;

		if (self->fd_errno[fd])
			may |= MAY(self->fd_errno[fd]);
		if (arg.flags & ~MMOPS_SPLIT)
			may |= MAY(EINVAL);
		may |= reserved_errors(arg.reserved, 2);
		may |= range_errors(arg.first, arg.nr);

		errno = 0;
		if (ioctl(self->dev, MMOPS_IOC_WRITE_PROTECT, &arg)) {
			ASSERT_FUZZ_ERROR(may, &arg, &before, i);
			if (i % 16 == 0)
				assert_untouched(_metadata, self);
			continue;
		}
		ASSERT_FUZZ_SUCCESS(may, i);
		expected = arg.first < PAGES ? min(arg.nr, PAGES - arg.first) : 0;
		ASSERT_EQ(expected, arg.write_protected);
		ASSERT_EQ(arg.nr, arg.done);
		before.write_protected = arg.write_protected;
		before.done = arg.done;
		ASSERT_EQ(0, memcmp(&arg, &before, sizeof(arg)));
		dirty_all(self);
		succeeded++;
	}
	assert_untouched(_metadata, self);
	ASSERT_GT(succeeded, n / 10);
	ASSERT_LT(succeeded, n);
}

TEST_F_TIMEOUT(uapi, fuzz_clean_record, TEST_SECONDS)
{
	const size_t words = page_size() / sizeof(uint64_t);
	struct rng rng = { test_seed() };
	unsigned int i, n = rounds(4000), succeeded = 0;

	dirty_all(self);
	for (i = 0; i < n; i++) {
		struct mmops_clean_record arg, before;
		unsigned int fd = mostly(&rng) ? FD_GOOD : rng_below(&rng, NR_FDS);
		uint64_t may = 0, expected, end, bits;
		bool overflow;

		memset(self->bitmap, 0, page_size());
		arg.fd = self->fds[fd];
		arg.flags = mostly(&rng) ? rng_below(&rng, 4) : random_word(&rng);
		arg.first = mostly(&rng) ? rng_below(&rng, 2 * PAGES) : random_word(&rng);
		arg.nr = mostly(&rng) ? 1 + rng_below(&rng, 2 * PAGES) : random_word(&rng);
		arg.bitmap_pgoff = mostly(&rng) ? rng_below(&rng, min(arg.first, 100ULL) + 1) :
						  random_word(&rng);
		arg.bitmap = (uintptr_t)self->bitmap;
		if (!mostly(&rng))
			arg.bitmap = rng_below(&rng, 2) ? (uintptr_t)self->readonly :
							  random_word(&rng) | 1;
		arg.bitmap_bits = mostly(&rng) ? BITS_PER_WORD * (1 + rng_below(&rng, words)) :
						 random_word(&rng);
		arg.start = rng_next(&rng);
		arg.end = rng_below(&rng, 2) ? 0 : rng_next(&rng);
		arg.cleaned = rng_next(&rng);
		arg.done = rng_next(&rng);
		random_reserved(&rng, arg.reserved, 2);
		before = arg;

		if (self->fd_errno[fd])
			may |= MAY(self->fd_errno[fd]);
		if (arg.flags & ~(MMOPS_SPLIT | MMOPS_NO_TRANSFER))
			may |= MAY(EINVAL);
		may |= reserved_errors(arg.reserved, 2);
		may |= range_errors(arg.first, arg.nr);
		overflow = arg.first + arg.nr < arg.first;
		end = arg.first + arg.nr;
		bits = arg.bitmap_bits;
		if (bits % BITS_PER_WORD || arg.bitmap % sizeof(uint64_t) ||
		    arg.bitmap_pgoff > arg.first || overflow || end - arg.bitmap_pgoff > bits)
			may |= MAY(EINVAL);
		if (arg.bitmap != (uintptr_t)self->bitmap || bits > words * BITS_PER_WORD)
			may |= MAY(EFAULT);

		errno = 0;
		if (ioctl(self->dev, MMOPS_IOC_CLEAN_RECORD, &arg)) {
			ASSERT_FUZZ_ERROR(may, &arg, &before, i);
			ASSERT_EQ(0, count_bits(self->bitmap, words * BITS_PER_WORD));
			if (i % 16 == 0)
				assert_untouched(_metadata, self);
			continue;
		}
		/* A large bitmap need not be there beyond what the range covers. */
		if (bits > words * BITS_PER_WORD && end - arg.bitmap_pgoff <= words * BITS_PER_WORD)
			may &= ~MAY(EFAULT);
		ASSERT_FUZZ_SUCCESS(may, i);
		expected = arg.first < PAGES ? min(arg.nr, PAGES - arg.first) : 0;
		ASSERT_EQ(expected, arg.cleaned);
		ASSERT_EQ(expected, count_bits(self->bitmap, words * BITS_PER_WORD));
		ASSERT_EQ(arg.nr, arg.done);
		if (!expected) {
			ASSERT_EQ(before.start, arg.start);
			ASSERT_EQ(before.end, arg.end);
		} else if (before.start >= before.end) {
			ASSERT_EQ(arg.first - arg.bitmap_pgoff, arg.start);
			ASSERT_EQ(arg.start + expected, arg.end);
		}
		before.start = arg.start;
		before.end = arg.end;
		before.cleaned = arg.cleaned;
		before.done = arg.done;
		ASSERT_EQ(0, memcmp(&arg, &before, sizeof(arg)));
		dirty_all(self);
		succeeded++;
	}
	assert_untouched(_metadata, self);
	ASSERT_GT(succeeded, n / 10);
	ASSERT_LT(succeeded, n);
}

/*
 * The calls on ranges of addresses.
 */
FIXTURE(ranges)
{
	int dev;
	struct area area;
};

FIXTURE_SETUP(ranges)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	ASSERT_EQ(0, area_new(&self->area));
}

FIXTURE_TEARDOWN(ranges)
{
	area_free(&self->area);
}

/* Which pages of the area are there, in the eyes of pagemap. */
static void assert_present(struct __test_metadata *_metadata, const struct area *area,
			   uint64_t gone_addr, uint64_t gone_len)
{
	uint64_t entries[AREA_PAGES];
	size_t page;

	ASSERT_EQ(0, area_pagemap(area, entries));
	for (page = 0; page < AREA_PAGES; page++) {
		bool there = area->kind[page] != AREA_HOLE &&
			     !area_in_range(area, page, gone_addr, gone_len);

		ASSERT_EQ(there, !!(entries[page] & PAGEMAP_PRESENT)) {
			TH_LOG("page %zu", page);
		}
	}
}

TEST_F_TIMEOUT(ranges, fuzz_zap, TEST_SECONDS)
{
	unsigned int i, n = rounds(4000), succeeded = 0;
	struct area *area = &self->area;
	struct rng rng = { test_seed() };
	size_t page;

	for (i = 0; i < n; i++) {
		struct mmops_zap arg, before;
		uint64_t may = 0, zapped = 0;
		int ret;

		arg.pidfd = area_random_pidfd(area, &rng, &may);
		arg.flags = mostly(&rng) ? 0 : random_word(&rng);
		area_random_range(area, &rng, &arg.addr, &arg.len);
		arg.zapped = rng_next(&rng);
		arg.done = rng_next(&rng);
		random_reserved(&rng, arg.reserved, 2);
		before = arg;

		if (arg.flags)
			may |= MAY(EINVAL);
		may |= reserved_errors(arg.reserved, 2);
		may |= area_range_errors(area, arg.addr, arg.len);
		if (area_has(area, arg.addr, arg.len, AREA_LOCKED))
			may |= MAY(EINVAL);

		errno = 0;
		ret = ioctl(self->dev, MMOPS_IOC_ZAP, &arg);
		if (ret) {
			ASSERT_FUZZ_ERROR(may, &arg, &before, i);
			assert_present(_metadata, area, 0, 0);
		} else {
			ASSERT_FUZZ_SUCCESS(may, i);
			assert_present(_metadata, area, arg.addr, arg.len);
			succeeded++;
		}
		for (page = 0; page < AREA_PAGES; page++) {
			bool taken = !ret && area_in_range(area, page, arg.addr, arg.len);

			zapped += taken;
			if (!area_is_writable(area, page))
				continue;
			ASSERT_EQ(taken && area->kind[page] != AREA_SHARED ? 0 : 1 + page,
				  load(area->map, page));
		}
		if (ret)
			continue;
		ASSERT_EQ(zapped, arg.zapped);
		ASSERT_EQ(arg.len, arg.done);
		before.zapped = arg.zapped;
		before.done = arg.done;
		ASSERT_EQ(0, memcmp(&arg, &before, sizeof(arg)));
		area_touch(area);
	}
	ASSERT_GT(succeeded, n / 10);
	ASSERT_LT(succeeded, n);
}

/* All of the address space, now and then, and mostly as it has to be asked for. */
static void random_all(struct rng *rng, struct mmops_soft_dirty_clear *arg)
{
	if (rng_below(rng, 16))
		return;
	arg->flags |= MMOPS_SOFT_DIRTY_ALL;
	if (mostly(rng))
		arg->flags = MMOPS_SOFT_DIRTY_ALL;
	if (mostly(rng))
		arg->addr = 0;
	if (mostly(rng))
		arg->len = 0;
}

TEST_F_TIMEOUT(ranges, fuzz_soft_dirty_clear, TEST_SECONDS)
{
	unsigned int i, n = rounds(4000), succeeded = 0, of_all = 0;
	bool soft_dirty[AREA_PAGES] = {};
	struct area *area = &self->area;
	struct rng rng = { test_seed() };
	uint64_t entries[AREA_PAGES];
	size_t page;

	/* No mapping is new from here on. */
	ASSERT_GE(soft_dirty_clear_all(self->dev), 0);
	for (i = 0; i < n; i++) {
		struct mmops_soft_dirty_clear arg, before;
		uint64_t may = 0, cleared = 0;
		bool all;
		int ret;

		for (page = 0; page < AREA_PAGES; page++) {
			if (area_is_writable(area, page) && !rng_below(&rng, 4)) {
				store(area->map, page, i);
				soft_dirty[page] = true;
			}
		}
		arg.pidfd = area_random_pidfd(area, &rng, &may);
		arg.flags = mostly(&rng) ? rng_below(&rng, 2) * MMOPS_SOFT_DIRTY_FORGET :
					   random_word(&rng);
		area_random_range(area, &rng, &arg.addr, &arg.len);
		random_all(&rng, &arg);
		arg.cleared = rng_next(&rng);
		arg.kept = rng_next(&rng);
		arg.done = rng_next(&rng);
		random_reserved(&rng, arg.reserved, 2);
		before = arg;

		all = arg.flags & MMOPS_SOFT_DIRTY_ALL;
		may |= reserved_errors(arg.reserved, 2);
		if (arg.flags & ~(MMOPS_SOFT_DIRTY_ALL | MMOPS_SOFT_DIRTY_FORGET))
			may |= MAY(EINVAL);
		if (!all)
			may |= area_range_errors(area, arg.addr, arg.len);
		else if (arg.flags != MMOPS_SOFT_DIRTY_ALL || arg.addr || arg.len)
			may |= MAY(EINVAL);

		errno = 0;
		ret = ioctl(self->dev, MMOPS_IOC_SOFT_DIRTY_CLEAR, &arg);
		if (ret) {
			ASSERT_FUZZ_ERROR(may, &arg, &before, i);
		} else {
			ASSERT_FUZZ_SUCCESS(may, i);
			succeeded++;
			of_all += all;
		}
		ASSERT_EQ(0, area_pagemap(area, entries));
		for (page = 0; page < AREA_PAGES; page++) {
			if (!ret && (all || area_in_range(area, page, arg.addr, arg.len))) {
				cleared += soft_dirty[page];
				soft_dirty[page] = false;
			}
			ASSERT_EQ(soft_dirty[page], !!(entries[page] & PAGEMAP_SOFT_DIRTY)) {
				TH_LOG("call %u, page %zu", i, page);
			}
		}
		if (ret)
			continue;
		if (all) {
			ASSERT_GE(arg.cleared, cleared);
		} else {
			ASSERT_EQ(cleared, arg.cleared);
			ASSERT_EQ(0, arg.kept);
			ASSERT_EQ(arg.len, arg.done);
		}
		before.cleared = arg.cleared;
		before.kept = arg.kept;
		before.done = arg.done;
		ASSERT_EQ(0, memcmp(&arg, &before, sizeof(arg)));
	}
	ASSERT_GT(succeeded, n / 10);
	ASSERT_LT(succeeded, n);
	ASSERT_GT(of_all, 0);
}

/*
 * A range that EXCLUSIVE may be asked for. It has a result for each page, of
 * holes as well, so what is huge and no error would take long.
 */
static void random_exclusive_range(const struct area *area, struct rng *rng, __u64 *addr,
				   __u64 *len)
{
	area_random_range(area, rng, addr, len);
	if (is_addr_range(*addr, *len) && *len > MAX_RESULTS * page_size())
		*len = page_size();
}

static bool can_be_exclusive(const struct area *area, size_t page)
{
	return area->kind[page] == AREA_ANON || area->kind[page] == AREA_LOCKED;
}

static int wanted_result(const struct area *area, size_t page)
{
	switch (area->kind[page]) {
	case AREA_HOLE:
		return MMOPS_PAGE_UNMAPPED;
	case AREA_SHARED:
		return MMOPS_PAGE_NOT_ANONYMOUS;
	case AREA_READONLY:
		return MMOPS_PAGE_READ_ONLY;
	default:
		return MMOPS_PAGE_EXCLUSIVE;
	}
}

TEST_F_TIMEOUT(ranges, fuzz_exclusive, TEST_SECONDS)
{
	unsigned int i, n = rounds(3000), succeeded = 0;
	static uint8_t results[MAX_RESULTS];
	struct area *area = &self->area;
	struct rng rng = { test_seed() };
	bool now[AREA_PAGES] = {};
	uint64_t entries[AREA_PAGES];
	size_t page;

	for (i = 0; i < n; i++) {
		struct mmops_exclusive arg, before;
		uint64_t may = 0, exclusive = 0;

		arg.pidfd = area_random_pidfd(area, &rng, &may);
		arg.flags = mostly(&rng) ? 0 : random_word(&rng);
		random_exclusive_range(area, &rng, &arg.addr, &arg.len);
		arg.results = rng_below(&rng, 2) ? (uintptr_t)results : 0;
		if (!mostly(&rng)) {
			arg.results = 1;
			may |= MAY(EFAULT);
		}
		arg.exclusive = rng_next(&rng);
		arg.done = rng_next(&rng);
		random_reserved(&rng, arg.reserved, 2);
		before = arg;
		if (arg.flags || !is_addr_range(arg.addr, arg.len))
			may |= MAY(EINVAL);
		may |= reserved_errors(arg.reserved, 2);
		memset(results, 0xff, sizeof(results));

		errno = 0;
		if (ioctl(self->dev, MMOPS_IOC_EXCLUSIVE, &arg)) {
			int error = errno;

			/* Pages are exclusive by then, and counted. */
			before.exclusive = error == EFAULT ? arg.exclusive : before.exclusive;
			before.done = error == EFAULT ? arg.done : before.done;
			errno = error;
			ASSERT_FUZZ_ERROR(may, &arg, &before, i);
			if (error == EFAULT) {
				ASSERT_EQ(0, arg.done);
			}
		} else {
			ASSERT_FUZZ_SUCCESS(may, i);
			succeeded++;
			for (page = 0; page < AREA_PAGES; page++) {
				size_t index = ((uintptr_t)area_addr(area, page) - arg.addr) /
					       page_size();

				if (!area_in_range(area, page, arg.addr, arg.len))
					continue;
				exclusive += can_be_exclusive(area, page);
				ASSERT_EQ(arg.results ? wanted_result(area, page) : 0xff,
					  results[index]);
			}
			ASSERT_EQ(exclusive, arg.exclusive);
			ASSERT_EQ(arg.len, arg.done);
			if (arg.len < MAX_RESULTS * page_size()) {
				ASSERT_EQ(0xff, results[arg.len / page_size()]);
			}
		}
		/* What was exclusive stays so; what was not is so only if it was asked for. */
		ASSERT_EQ(0, area_pagemap(area, entries));
		for (page = 0; page < AREA_PAGES; page++) {
			bool is = can_be_exclusive(area, page) &&
				  !(entries[page] & PAGEMAP_PRESENT);
			bool asked = area_in_range(area, page, arg.addr, arg.len);

			ASSERT_TRUE(is || !now[page]);
			ASSERT_TRUE(!is || now[page] || asked);
			now[page] = is;
		}
		if (rng_below(&rng, 8))
			continue;
		/* Back to the CPU. */
		for (page = 0; page < AREA_PAGES; page++) {
			if (area_is_writable(area, page)) {
				ASSERT_EQ(1 + page, load(area->map, page));
			}
			now[page] = false;
		}
	}
	ASSERT_GT(succeeded, n / 10);
	ASSERT_LT(succeeded, n);
}

TEST_F_TIMEOUT(ranges, fuzz_revoke, TEST_SECONDS)
{
	unsigned int i, n = rounds(3000), succeeded = 0;
	struct area *area = &self->area;
	struct rng rng = { test_seed() };
	uint64_t entries[AREA_PAGES];
	size_t page;

	for (i = 0; i < n; i++) {
		struct mmops_exclusive all = {
			.pidfd = -1,
			.addr = (uintptr_t)area->map,
			.len = AREA_PAGES * page_size(),
		};
		struct mmops_revoke arg, before;
		uint64_t may = 0, revoked = 0;
		int ret;

		ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_EXCLUSIVE, &all));
		arg.pidfd = area_random_pidfd(area, &rng, &may);
		arg.flags = mostly(&rng) ? 0 : random_word(&rng);
		area_random_range(area, &rng, &arg.addr, &arg.len);
		arg.revoked = rng_next(&rng);
		arg.done = rng_next(&rng);
		random_reserved(&rng, arg.reserved, 2);
		before = arg;
		if (arg.flags || !is_addr_range(arg.addr, arg.len))
			may |= MAY(EINVAL);
		may |= reserved_errors(arg.reserved, 2);

		errno = 0;
		ret = ioctl(self->dev, MMOPS_IOC_REVOKE, &arg);
		if (ret) {
			ASSERT_FUZZ_ERROR(may, &arg, &before, i);
		} else {
			ASSERT_FUZZ_SUCCESS(may, i);
			succeeded++;
		}
		ASSERT_EQ(0, area_pagemap(area, entries));
		for (page = 0; page < AREA_PAGES; page++) {
			bool back = !ret && area_in_range(area, page, arg.addr, arg.len);

			if (!can_be_exclusive(area, page))
				continue;
			revoked += back;
			ASSERT_EQ(back, !!(entries[page] & PAGEMAP_PRESENT));
		}
		if (ret)
			continue;
		ASSERT_EQ(revoked, arg.revoked);
		ASSERT_EQ(arg.len, arg.done);
	}
	ASSERT_GT(succeeded, n / 10);
	ASSERT_LT(succeeded, n);
	for (page = 0; page < AREA_PAGES; page++) {
		if (area_is_writable(area, page)) {
			ASSERT_EQ(1 + page, load(area->map, page));
		}
	}
}

/* How many of the words of an argument a device can have, from the first on. */
static uint64_t words_to_add_to(const struct area *area, const struct mmops_atomic_add *arg)
{
	uint64_t i;

	for (i = 0; i < arg->nr; i++) {
		uint64_t page = (arg->addr + i * arg->stride - (uintptr_t)area->map) / page_size();

		if (page >= AREA_PAGES || !can_be_exclusive(area, page))
			break;
	}
	return i;
}

static bool is_atomic_add(const struct mmops_atomic_add *arg)
{
	uint64_t last;

	if (arg->addr % 8 || arg->stride % 8 || !arg->stride || !arg->nr || arg->flags ||
	    __builtin_mul_overflow(arg->nr - 1, arg->stride, &last) ||
	    __builtin_add_overflow(last, arg->addr, &last) || last >= -page_size())
		return false;
	return last / page_size() - arg->addr / page_size() < MMOPS_ATOMIC_ADD_MAX_PAGES;
}

TEST_F_TIMEOUT(ranges, fuzz_atomic_add, TEST_SECONDS)
{
	unsigned int i, n = rounds(1500), succeeded = 0, stopped = 0;
	struct area *area = &self->area;
	struct rng rng = { test_seed() };

	for (i = 0; i < n; i++) {
		struct mmops_atomic_add arg, before;
		uint64_t may = 0, words = 0, word;
		uint64_t old[64];
		int ret, error;

		arg.pidfd = area_random_pidfd(area, &rng, &may);
		arg.flags = mostly(&rng) ? 0 : random_word(&rng);
		arg.addr = (uintptr_t)area_addr(area, rng_below(&rng, AREA_PAGES)) +
			   8 * rng_below(&rng, page_size() / 8);
		arg.stride = rng_below(&rng, 2) ? 8 : 8 * (1 + rng_below(&rng, 1024));
		arg.nr = 1 + rng_below(&rng, 64);
		arg.value = rng_next(&rng);
		/* More would take long. */
		arg.rounds = rng_below(&rng, 4);
		switch (rng_below(&rng, 16)) {
		case 0:
			arg.addr = random_word(&rng) | 1ULL << 63;
			break;
		case 1:
			arg.addr += rng_below(&rng, 8);
			break;
		case 2:
			arg.stride = random_word(&rng);
			break;
		case 3:
			arg.nr = random_word(&rng);
		}
		arg.added = rng_next(&rng);
		arg.taken = rng_next(&rng);
		random_reserved(&rng, arg.reserved, 2);
		before = arg;
		may |= reserved_errors(arg.reserved, 2);
		if (!is_atomic_add(&arg)) {
			may |= MAY(EINVAL);
		} else if (arg.rounds) {
			words = words_to_add_to(area, &arg);
			if (words < arg.nr)
				may |= MAY(EFAULT);
		}
		for (word = 0; word < words && word < 64; word++)
			old[word] = *(uint64_t *)(arg.addr + word * arg.stride);

		errno = 0;
		ret = ioctl(self->dev, MMOPS_IOC_ATOMIC_ADD, &arg);
		error = errno;
		before.added = arg.added;
		before.taken = arg.taken;
		errno = error;
		if (ret) {
			ASSERT_FUZZ_ERROR(may, &arg, &before, i);
			stopped += error == EFAULT && words;
		} else {
			ASSERT_FUZZ_SUCCESS(may, i);
			ASSERT_EQ(0, memcmp(&arg, &before, sizeof(arg)));
			ASSERT_EQ(arg.nr * arg.rounds, arg.added);
			succeeded++;
		}
		/* Words before one that the device cannot have were added to once. */
		if (ret && error == EFAULT) {
			ASSERT_EQ(words, arg.added);
		}
		for (word = 0; word < words && word < 64; word++) {
			uint64_t times = !ret ? arg.rounds : error == EFAULT;

			ASSERT_EQ(old[word] + times * arg.value,
				  *(uint64_t *)(arg.addr + word * arg.stride));
		}
	}
	ASSERT_GT(succeeded, n / 10);
	ASSERT_GT(stopped, 0);
	ASSERT_LT(succeeded, n);
}

/* Subscriptions, reading of the log and probing, with and without a subscription. */
TEST_F_TIMEOUT(ranges, fuzz_notifier, TEST_SECONDS)
{
	static struct mmops_notifier_event events[MMOPS_NOTIFIER_MAX_EVENTS];
	unsigned int i, n = rounds(400), subscribed = 0, logged = 0, probed = 0;
	struct area *area = &self->area;
	struct rng rng = { test_seed() };

	for (i = 0; i < n; i++) {
		struct mmops_notifier_subscribe sub, sub_before;
		struct mmops_notifier_probe probe, probe_before;
		struct mmops_notifier_log log, before;
		int ret, dev = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
		uint64_t may = 0;
		bool mm, is = false;

		ASSERT_GE(dev, 0);
		sub.pidfd = area_random_pidfd(area, &rng, &may);
		sub.flags = mostly(&rng) ? rng_below(&rng, 3) : random_word(&rng);
		mm = sub.flags & MMOPS_NOTIFIER_MM;
		area_random_range(area, &rng, &sub.addr, &sub.len);
		if (mm && mostly(&rng))
			sub.addr = sub.len = 0;
		sub.capacity = mostly(&rng) ? 1 + rng_below(&rng, 100) : random_word(&rng);
		sub.reserved0 = mostly(&rng) ? 0 : random_word(&rng);
		random_reserved(&rng, sub.reserved, 2);
		sub_before = sub;
		if (sub.flags & ~(MMOPS_NOTIFIER_MM | MMOPS_NOTIFIER_FILTER) || sub.reserved0 ||
		    sub.flags == (MMOPS_NOTIFIER_MM | MMOPS_NOTIFIER_FILTER) ||
		    !sub.capacity || sub.capacity > MMOPS_NOTIFIER_MAX_EVENTS ||
		    (mm ? sub.addr || sub.len : !is_addr_range(sub.addr, sub.len)))
			may |= MAY(EINVAL);
		may |= reserved_errors(sub.reserved, 2);
		errno = 0;
		if (mostly(&rng)) {
			if (ioctl(dev, MMOPS_IOC_NOTIFIER_SUBSCRIBE, &sub)) {
				ASSERT_FUZZ_ERROR(may, &sub, &sub_before, i);
			} else {
				ASSERT_FUZZ_SUCCESS(may, i);
				subscribed++;
				is = true;
				ASSERT_NE(0, ioctl(dev, MMOPS_IOC_NOTIFIER_SUBSCRIBE, &sub));
				ASSERT_EQ(EBUSY, errno);
			}
		}

		may = is ? 0 : MAY(ENOENT);
		log.events = (uintptr_t)events;
		if (!mostly(&rng))
			log.events = rng_below(&rng, 2) ? 0 : log.events + rng_below(&rng, 8);
		log.nr = mostly(&rng) ? 1 + rng_below(&rng, 64) : random_word(&rng);
		log.flags = mostly(&rng) ? 0 : random_word(&rng);
		/* There may be nothing to wait for. */
		if (log.flags == MMOPS_NOTIFIER_WAIT)
			log.flags = ~0U;
		log.lost = rng_next(&rng);
		log.released = rng_next(&rng);
		log.reserved0 = mostly(&rng) ? 0 : random_word(&rng);
		random_reserved(&rng, log.reserved, 2);
		before = log;
		may |= reserved_errors(log.reserved, 2);
		if (log.flags || log.reserved0 || log.events % 8 || !log.nr ||
		    log.nr > MMOPS_NOTIFIER_MAX_EVENTS)
			may |= MAY(EINVAL);
		if (!log.events)
			may |= MAY(EFAULT);
		errno = 0;
		ret = ioctl(dev, MMOPS_IOC_NOTIFIER_LOG, &log);
		if (ret) {
			int error = errno;

			before.nr = log.nr;
			before.lost = log.lost;
			before.released = log.released;
			errno = error;
			ASSERT_FUZZ_ERROR(may, &log, &before, i);
		} else {
			ASSERT_FUZZ_SUCCESS(may, i);
			ASSERT_LE(log.nr, before.nr);
			ASSERT_EQ(0, log.released);
			logged++;
		}

		may = is && !mm ? 0 : MAY(ENOENT);
		probe.delay_ms = mostly(&rng) ? rng_below(&rng, 2) : random_word(&rng) | 1 << 20;
		probe.collided = rng_next(&rng);
		probe.hint = rng_next(&rng);
		probe.reserved0 = mostly(&rng) ? 0 : random_word(&rng);
		random_reserved(&rng, probe.reserved, 2);
		probe_before = probe;
		may |= reserved_errors(probe.reserved, 2);
		if (probe.delay_ms > MMOPS_NOTIFIER_MAX_DELAY_MS || probe.reserved0)
			may |= MAY(EINVAL);
		errno = 0;
		if (ioctl(dev, MMOPS_IOC_NOTIFIER_PROBE, &probe)) {
			ASSERT_FUZZ_ERROR(may, &probe, &probe_before, i);
		} else {
			ASSERT_FUZZ_SUCCESS(may, i);
			ASSERT_LE(probe.collided, 1);
			ASSERT_LE(probe.hint, probe.collided);
			probed++;
		}
		close(dev);
	}
	ASSERT_GT(subscribed, n / 10);
	ASSERT_GT(logged, n / 20);
	ASSERT_GT(probed, n / 40);
}

/* Room for leaves in pages, then as many that cannot be stored to. */
#define VEC_LEN	1024
static struct mmops_leaf leaf_vec[2 * VEC_LEN] __attribute__((aligned(4096)));

/*
 * What the leaves of all pages of the area permit: @prot in a range, and all
 * that the mapping allows elsewhere.
 */
static void assert_permitted(struct __test_metadata *_metadata, int dev, const struct area *area,
			     uint64_t addr, uint64_t len, unsigned int prot)
{
	struct mmops_leaves list = {
		.pidfd = -1, .addr = (uintptr_t)area->map, .len = AREA_PAGES * page_size(),
		.vec = (uintptr_t)leaf_vec, .vec_len = VEC_LEN,
	};
	size_t page, i = 0;

	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_LEAVES, &list));
	ASSERT_EQ(list.addr + list.len, list.next);
	for (page = 0; page < AREA_PAGES; page++) {
		unsigned int allowed = PROT_READ, want = 0;

		if (area->kind[page] == AREA_HOLE)
			continue;
		if (area_is_writable(area, page))
			allowed |= PROT_WRITE;
		if (area_in_range(area, page, addr, len))
			allowed &= prot;
		want |= allowed & PROT_READ ? MMOPS_LEAF_READ : 0;
		want |= allowed & PROT_WRITE ? MMOPS_LEAF_WRITE : 0;
		ASSERT_LT(i, list.nr);
		ASSERT_EQ((uintptr_t)area_addr(area, page), leaf_vec[i].addr);
		ASSERT_EQ(MMOPS_LEAF_PRESENT, leaf_vec[i].kind);
		ASSERT_EQ(want, leaf_vec[i].state & (MMOPS_LEAF_READ | MMOPS_LEAF_WRITE |
							MMOPS_LEAF_EXEC)) {
			TH_LOG("page %zu", page);
		}
		ASSERT_EQ(area->kind[page] == AREA_READONLY,
			  !!(leaf_vec[i].state & MMOPS_LEAF_SPECIAL));
		i++;
	}
	ASSERT_EQ(i, list.nr);
}

TEST_F_TIMEOUT(ranges, fuzz_protect, TEST_SECONDS)
{
	static const unsigned int prots[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE };
	unsigned int i, n = rounds(3000), succeeded = 0;
	struct area *area = &self->area;
	struct rng rng = { test_seed() };
	size_t page;

	for (i = 0; i < n; i++) {
		struct mmops_protect arg, before;
		uint64_t may = 0, changed = 0;

		arg.pidfd = area_random_pidfd(area, &rng, &may);
		arg.flags = mostly(&rng) ? 0 : random_word(&rng);
		area_random_range(area, &rng, &arg.addr, &arg.len);
		arg.prot = mostly(&rng) ? prots[rng_below(&rng, 3)] :
			   rng_below(&rng, 2) ? rng_below(&rng, 16) : random_word(&rng);
		arg.pad = mostly(&rng) ? 0 : random_word(&rng);
		arg.ptes = rng_next(&rng);
		arg.pmds = rng_next(&rng);
		arg.puds = rng_next(&rng);
		arg.split_pmds = rng_next(&rng);
		arg.split_puds = rng_next(&rng);
		arg.done = rng_next(&rng);
		random_reserved(&rng, arg.reserved, 2);
		before = arg;

		if (arg.flags || arg.pad || arg.prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC))
			may |= MAY(EINVAL);
		may |= reserved_errors(arg.reserved, 2);
		may |= area_range_errors(area, arg.addr, arg.len);
		if (arg.prot & PROT_EXEC ||
		    (arg.prot & PROT_WRITE && area_has(area, arg.addr, arg.len, AREA_READONLY)))
			may |= MAY(EACCES);
		if ((arg.prot & (PROT_READ | PROT_WRITE)) == PROT_WRITE)
			may |= MAY(EOPNOTSUPP);

		errno = 0;
		if (ioctl(self->dev, MMOPS_IOC_PROTECT, &arg)) {
			ASSERT_FUZZ_ERROR(may, &arg, &before, i);
			if (i % 16 == 0)
				assert_permitted(_metadata, self->dev, area, 0, 0, 0);
			continue;
		}
		ASSERT_FUZZ_SUCCESS(may, i);
		assert_permitted(_metadata, self->dev, area, arg.addr, arg.len, arg.prot);
		for (page = 0; page < AREA_PAGES; page++) {
			bool loses = arg.prot == PROT_NONE ||
				     (arg.prot == PROT_READ && area_is_writable(area, page));

			changed += loses && area_in_range(area, page, arg.addr, arg.len);
			if (area_is_writable(area, page)) {
				ASSERT_EQ(1 + page, load(area->map, page));
			}
		}
		ASSERT_EQ(changed, arg.ptes);
		ASSERT_EQ(0, arg.pmds + arg.puds + arg.split_pmds + arg.split_puds);
		ASSERT_EQ(arg.len, arg.done);
		before.ptes = arg.ptes;
		before.pmds = before.puds = before.split_pmds = before.split_puds = 0;
		before.done = arg.done;
		ASSERT_EQ(0, memcmp(&arg, &before, sizeof(arg)));
		area_touch(area);
		succeeded++;
	}
	assert_permitted(_metadata, self->dev, area, 0, 0, 0);
	ASSERT_GT(succeeded, n / 10);
	ASSERT_LT(succeeded, n);
}

TEST_F_TIMEOUT(ranges, fuzz_leaves, TEST_SECONDS)
{
	unsigned int i, n = rounds(3000), succeeded = 0, inside = 0;
	struct area *area = &self->area;
	uint64_t start = (uintptr_t)area->map, end = start + AREA_PAGES * page_size();
	struct rng rng = { test_seed() };
	size_t page;

	ASSERT_EQ(0, sizeof(leaf_vec) / 2 % page_size());
	ASSERT_EQ(0, mprotect(&leaf_vec[VEC_LEN], sizeof(leaf_vec) / 2, PROT_READ));
	for (i = 0; i < n; i++) {
		struct mmops_leaves arg, before;
		bool good_vec = mostly(&rng);
		uint64_t may = 0, fault = 0;
		size_t nr = 0;

		arg.pidfd = area_random_pidfd(area, &rng, &may);
		arg.flags = mostly(&rng) ? 0 : random_word(&rng);
		area_random_range(area, &rng, &arg.addr, &arg.len);
		arg.vec = good_vec ? (uintptr_t)leaf_vec :
			  rng_below(&rng, 2) ? (uintptr_t)&leaf_vec[VEC_LEN] :
			  random_word(&rng) | 1ULL << 63;
		arg.vec_len = mostly(&rng) ? MMOPS_LEAVES_MIN + rng_below(&rng, 513) :
			      random_word(&rng);
		arg.nr = rng_next(&rng);
		arg.next = rng_next(&rng);
		random_reserved(&rng, arg.reserved, ARRAY_SIZE(arg.reserved));
		before = arg;

		if (arg.flags || arg.vec_len < MMOPS_LEAVES_MIN ||
		    !is_addr_range(arg.addr, arg.len) ||
		    arg.vec_len > ~0ULL / sizeof(leaf_vec[0]))
			may |= MAY(EINVAL);
		may |= reserved_errors(arg.reserved, ARRAY_SIZE(arg.reserved));
		/* Only what is written may fault. */
		if (!good_vec || arg.vec_len > VEC_LEN)
			fault = MAY(EFAULT);

		errno = 0;
		if (ioctl(self->dev, MMOPS_IOC_LEAVES, &arg)) {
			ASSERT_FUZZ_ERROR(may | fault, &arg, &before, i);
			continue;
		}
		ASSERT_FUZZ_SUCCESS(may, i);
		succeeded++;
		ASSERT_LE(arg.nr, good_vec ? VEC_LEN : 0);
		ASSERT_LE(arg.nr, arg.vec_len);
		ASSERT_GT(arg.next, arg.addr);
		ASSERT_LE(arg.next, arg.addr + arg.len);
		before.nr = arg.nr;
		before.next = arg.next;
		ASSERT_EQ(0, memcmp(&arg, &before, sizeof(arg)));
		if (arg.addr < start || arg.addr + arg.len > end)
			continue;
		inside++;
		ASSERT_EQ(arg.addr + arg.len, arg.next);
		for (page = 0; page < AREA_PAGES; page++) {
			unsigned int want = area_is_writable(area, page) ?
				MMOPS_LEAF_READ | MMOPS_LEAF_WRITE | MMOPS_LEAF_DIRTY :
				MMOPS_LEAF_READ | MMOPS_LEAF_SPECIAL;

			if (area->kind[page] == AREA_HOLE ||
			    !area_in_range(area, page, arg.addr, arg.len))
				continue;
			ASSERT_LT(nr, arg.nr);
			ASSERT_EQ((uintptr_t)area_addr(area, page), leaf_vec[nr].addr);
			ASSERT_EQ(12, leaf_vec[nr].shift);
			ASSERT_EQ(MMOPS_LEAF_PRESENT, leaf_vec[nr].kind);
			ASSERT_EQ(0, leaf_vec[nr].reserved);
			ASSERT_EQ(want, leaf_vec[nr].state & ~(MMOPS_LEAF_YOUNG |
							       MMOPS_LEAF_SOFT_DIRTY));
			nr++;
		}
		ASSERT_EQ(nr, arg.nr);
	}
	ASSERT_GT(inside, n / 10);
	ASSERT_LT(succeeded, n);
}

/* The plain build holds no trace of the faults. */
TEST_F_TIMEOUT(uapi, faults_where_they_belong, TEST_SECONDS)
{
	struct mmops_info info = {};

	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_INFO, &info));
	if (info.features & MMOPS_FEATURE_FAULTS) {
		ASSERT_EQ(0, set_fault("delay_us", 0));
		ASSERT_EQ(0, set_fault("skip_flush", 0));
		ASSERT_EQ(0, set_fault("skip_nested_check", 0));
		ASSERT_EQ(0, set_fault("transfer_before_flush", 0));
	} else {
		ASSERT_NE(0, access(FAULTS_DIR, F_OK));
	}
}

TEST_HARNESS_MAIN
