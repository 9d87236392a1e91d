// SPDX-License-Identifier: GPL-2.0
/*
 * The arguments of the ioctls: what the device says of itself, the errno for
 * each wrong argument, and that nothing is changed on the way to it.
 */
#include <grp.h>
#include <sys/socket.h>

#include "exclusive.h"
#include "faults.h"
#include "fuzz.h"
#include "leaves.h"
#include "kselftest_harness.h"

#define PAGES	64UL

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

FIXTURE_FAULTS(uapi);

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
			  MMOPS_FEATURE_PROTECT | MMOPS_FEATURE_LEAVES | MMOPS_FEATURE_AGE |
			  MMOPS_FEATURE_TRACK | MMOPS_FEATURE_TRACK_FULL |
			  MMOPS_FEATURE_TRACK_FILE | MMOPS_FEATURE_TRACK_KINDS |
			  MMOPS_FEATURE_TRACK_BITMAP;

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

/*
 * A good argument of each call, and memory for those on addresses: all pages are
 * stored to, and the first ones are exclusive.
 */
enum {
	CALL_INFO, CALL_WRITE_PROTECT, CALL_CLEAN_RECORD, CALL_LOG, CALL_PROBE, CALL_TRACK_BEGIN,
	CALL_TRACK_READ, CALL_TRACK_BITMAP, CALL_TRACK_END,
	/* From here on by a pidfd. */
	CALL_SUBSCRIBE, CALL_LEAVES, CALL_AGE, CALL_PROTECT, CALL_REVOKE, CALL_EXCLUSIVE,
	CALL_ATOMIC_ADD, CALL_SOFT_DIRTY_CLEAR, CALL_TRACK_OPEN, CALL_ZAP, NR_CALLS
};

#define CALL_OF_PROCESS	CALL_SUBSCRIBE
#define TAKEN		8UL

struct call {
	int dev;
	unsigned long cmd;
	union {
		struct mmops_info info;
		struct mmops_write_protect write_protect;
		struct mmops_clean_record clean_record;
		struct mmops_notifier_log log;
		struct mmops_notifier_probe probe;
		struct mmops_notifier_subscribe subscribe;
		struct mmops_leaves leaves;
		struct mmops_age age;
		struct mmops_protect protect;
		struct mmops_revoke revoke;
		struct mmops_exclusive exclusive;
		struct mmops_atomic_add atomic_add;
		struct mmops_soft_dirty_clear soft_dirty_clear;
		struct mmops_zap zap;
		struct mmops_track_open track_open;
		struct mmops_track_begin track_begin;
		struct mmops_track_read track_read;
		struct mmops_track_end track_end;
		struct mmops_track_bitmap track_bitmap;
	} arg;
};

struct calls {
	char *map;
	int subscribed;		/* a device that was told of the exclusive pages */
	struct mmops_notifier_event event;
	struct mmops_leaf leaves[MMOPS_LEAVES_MIN];
	int tracked;		/* a device with a tracker of the memory */
	struct mmops_track_range ranges[2];
	uint64_t words[2];
	struct call call[NR_CALLS];
};

/* Nothing is stored to the memory yet, so that a child can be forked that shares none of it. */
static struct calls *new_calls(FIXTURE_DATA(uapi) *self, int pidfd)
{
	const size_t len = PAGES * page_size();
	struct calls *c = calloc(1, sizeof(*c));
	char *map = map_anon(PAGES);
	uint64_t addr = (uintptr_t)map;

	if (!c || !map || madvise(map, len, MADV_NOHUGEPAGE))
		return NULL;
	c->map = map;
	c->subscribed = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
	c->tracked = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);

#define CALL(index, device, command, member, ...)				\
	c->call[index] = (struct call){						\
		.dev = (device), .cmd = (command), .arg.member = { __VA_ARGS__ },	\
	}
	CALL(CALL_INFO, self->dev, MMOPS_IOC_INFO, info, 0);
	CALL(CALL_WRITE_PROTECT, self->dev, MMOPS_IOC_WRITE_PROTECT, write_protect,
	     .fd = self->fds[FD_GOOD], .nr = PAGES);
	CALL(CALL_CLEAN_RECORD, self->dev, MMOPS_IOC_CLEAN_RECORD, clean_record,
	     .fd = self->fds[FD_GOOD], .nr = PAGES, .bitmap = (uintptr_t)self->bitmap,
	     .bitmap_bits = PAGES);
	CALL(CALL_LOG, c->subscribed, MMOPS_IOC_NOTIFIER_LOG, log,
	     .events = (uintptr_t)&c->event, .nr = 1);
	CALL(CALL_PROBE, c->subscribed, MMOPS_IOC_NOTIFIER_PROBE, probe, 0);
	CALL(CALL_TRACK_BEGIN, c->tracked, MMOPS_IOC_TRACK_BEGIN, track_begin, 0);
	CALL(CALL_TRACK_READ, c->tracked, MMOPS_IOC_TRACK_READ, track_read,
	     .vec = (uintptr_t)c->ranges, .vec_len = ARRAY_SIZE(c->ranges));
	CALL(CALL_TRACK_BITMAP, c->tracked, MMOPS_IOC_TRACK_BITMAP, track_bitmap,
	     .addr = addr, .bitmap = (uintptr_t)c->words, .words = ARRAY_SIZE(c->words));
	CALL(CALL_TRACK_END, c->tracked, MMOPS_IOC_TRACK_END, track_end, 0);
	CALL(CALL_SUBSCRIBE, self->dev, MMOPS_IOC_NOTIFIER_SUBSCRIBE, subscribe,
	     .pidfd = pidfd, .addr = addr, .len = len, .capacity = 1);
	CALL(CALL_LEAVES, self->dev, MMOPS_IOC_LEAVES, leaves,
	     .pidfd = pidfd, .addr = addr, .len = len, .vec = (uintptr_t)c->leaves,
	     .vec_len = MMOPS_LEAVES_MIN);
	CALL(CALL_AGE, self->dev, MMOPS_IOC_AGE, age,
	     .pidfd = pidfd, .addr = addr, .len = len);
	CALL(CALL_PROTECT, self->dev, MMOPS_IOC_PROTECT, protect,
	     .pidfd = pidfd, .addr = addr, .len = len, .prot = PROT_READ);
	CALL(CALL_REVOKE, self->dev, MMOPS_IOC_REVOKE, revoke,
	     .pidfd = pidfd, .addr = addr, .len = len);
	CALL(CALL_EXCLUSIVE, self->dev, MMOPS_IOC_EXCLUSIVE, exclusive,
	     .pidfd = pidfd, .addr = addr, .len = len);
	CALL(CALL_ATOMIC_ADD, self->dev, MMOPS_IOC_ATOMIC_ADD, atomic_add,
	     .pidfd = pidfd, .addr = addr, .stride = page_size(), .nr = PAGES, .value = 1,
	     .rounds = 1);
	CALL(CALL_SOFT_DIRTY_CLEAR, self->dev, MMOPS_IOC_SOFT_DIRTY_CLEAR, soft_dirty_clear,
	     .pidfd = pidfd, .addr = addr, .len = len);
	CALL(CALL_TRACK_OPEN, self->dev, MMOPS_IOC_TRACK_OPEN, track_open,
	     .pidfd = pidfd, .flags = MMOPS_TRACK_FAST, .addr = addr, .len = len);
	CALL(CALL_ZAP, self->dev, MMOPS_IOC_ZAP, zap,
	     .pidfd = pidfd, .addr = addr, .len = len);
#undef CALL
	return c;
}

/* Bring the memory into the state that no call is to change. */
static void fill(struct __test_metadata *_metadata, FIXTURE_DATA(uapi) *self, struct calls *c)
{
	struct mmops_notifier_subscribe subscribe = c->call[CALL_SUBSCRIBE].arg.subscribe;
	struct mmops_track_open track = c->call[CALL_TRACK_OPEN].arg.track_open;

	subscribe.capacity = 16;
	store_range(c->map, 0, PAGES, 1);
	ASSERT_EQ(0, ioctl(c->tracked, MMOPS_IOC_TRACK_OPEN, &track));
	ASSERT_EQ(0, ioctl(c->subscribed, MMOPS_IOC_NOTIFIER_SUBSCRIBE, &subscribe));
	ASSERT_EQ(TAKEN, exclusive(self->dev, c->map, TAKEN));
}

/* It is as fill() left it; and nothing was written to where a call has its results go. */
static void assert_filled(struct __test_metadata *_metadata, FIXTURE_DATA(uapi) *self,
			  struct calls *c)
{
	struct mmops_track_range no_range = {};
	struct mmops_leaf no_leaf = {};
	struct leaf_counts counts;
	size_t i;

	ASSERT_EQ(0, count_leaves(self->dev, c->map, PAGES * page_size(), &counts));
	ASSERT_EQ(PAGES - TAKEN, counts.pte.nr);
	ASSERT_EQ(PAGES - TAKEN, counts.pte.writable);
	ASSERT_EQ(PAGES - TAKEN, counts.pte.dirty);
	ASSERT_EQ(PAGES - TAKEN, counts.pte.soft_dirty);
	ASSERT_EQ(PAGES - TAKEN, counts.pte.young);
	ASSERT_EQ(TAKEN, counts.absent[MMOPS_LEAF_DEVICE_EXCLUSIVE]);
	for (i = TAKEN; i < PAGES; i++) {
		ASSERT_EQ(1 + i, load(c->map, i));
	}
	ASSERT_EQ(0, c->event.end);
	for (i = 0; i < MMOPS_LEAVES_MIN; i++) {
		ASSERT_EQ(0, memcmp(&c->leaves[i], &no_leaf, sizeof(no_leaf)));
	}
	for (i = 0; i < ARRAY_SIZE(c->ranges); i++) {
		ASSERT_EQ(0, memcmp(&c->ranges[i], &no_range, sizeof(no_range)));
	}
	ASSERT_EQ(0, count_bits(self->bitmap, PAGES));
}

/* Nothing but the argument's place, or the caller, was wrong: all calls from @first on do work. */
static void assert_calls_work(struct __test_metadata *_metadata, FIXTURE_DATA(uapi) *self,
			      struct calls *c, int first)
{
	int i;

	for (i = first; i < NR_CALLS; i++) {
		ASSERT_EQ(0, ioctl(c->call[i].dev, c->call[i].cmd, &c->call[i].arg)) {
			TH_LOG("call %#lx: errno %d", c->call[i].cmd, errno);
		}
	}
	if (first == CALL_INFO) {
		ASSERT_EQ(PAGES, c->call[CALL_WRITE_PROTECT].arg.write_protect.write_protected);
		ASSERT_EQ(PAGES, c->call[CALL_CLEAN_RECORD].arg.clean_record.cleaned);
		/* The event was kept until now. */
		ASSERT_EQ(1, c->call[CALL_LOG].arg.log.nr);
		ASSERT_EQ(MMOPS_EVENT_EXCLUSIVE, c->event.event);
		ASSERT_EQ((uintptr_t)c->map, c->event.start);
		/* The first epoch, with the exclusive pages as those of which nobody knows. */
		ASSERT_EQ(PAGES - TAKEN, c->call[CALL_TRACK_BEGIN].arg.track_begin.written);
		ASSERT_EQ(TAKEN, c->call[CALL_TRACK_BEGIN].arg.track_begin.changed);
		ASSERT_EQ(2, c->call[CALL_TRACK_READ].arg.track_read.nr);
		ASSERT_EQ(TAKEN * page_size(), c->ranges[0].len);
		ASSERT_EQ(MMOPS_TRACK_CHANGED, c->ranges[0].kind);
		ASSERT_EQ(PAGES, c->call[CALL_TRACK_BITMAP].arg.track_bitmap.nr);
	}
	ASSERT_EQ(PAGES, c->call[CALL_LEAVES].arg.leaves.nr);
	ASSERT_EQ(PAGES - TAKEN, c->call[CALL_AGE].arg.age.aged);
	ASSERT_EQ(PAGES - TAKEN, c->call[CALL_PROTECT].arg.protect.ptes);
	ASSERT_EQ(TAKEN, c->call[CALL_REVOKE].arg.revoke.revoked);
	ASSERT_EQ(PAGES, c->call[CALL_EXCLUSIVE].arg.exclusive.exclusive);
	ASSERT_EQ(PAGES, c->call[CALL_ATOMIC_ADD].arg.atomic_add.added);
	ASSERT_EQ(PAGES, c->call[CALL_ZAP].arg.zap.zapped);
}

/* The argument itself must be readable and writable. */
TEST_F_TIMEOUT(uapi, bad_argument_address, TEST_SECONDS)
{
	char *hole = (char *)self->bitmap + page_size();
	struct calls *c = new_calls(self, -1);
	size_t i, j;

	ASSERT_NE(c, NULL);
	dirty_all(self);
	fill(_metadata, self, c);
	for (i = 0; i < NR_CALLS; i++) {
		void *addresses[] = {
			NULL, (void *)8, hole, hole - 16, (void *)~7UL, self->readonly,
		};
		struct call *call = &c->call[i];

		/* Read-only, it is as good an argument as can be. */
		ASSERT_EQ(0, mprotect(self->readonly, page_size(), PROT_READ | PROT_WRITE));
		memcpy(self->readonly, &call->arg, sizeof(call->arg));
		ASSERT_EQ(0, mprotect(self->readonly, page_size(), PROT_READ));
		for (j = 0; j < ARRAY_SIZE(addresses); j++) {
			errno = 0;
			ASSERT_EQ(-1, ioctl(call->dev, call->cmd, addresses[j])) {
				TH_LOG("call %#lx, address %zu", call->cmd, j);
			}
			ASSERT_EQ(EFAULT, errno);
		}
		ASSERT_EQ(0, memcmp(self->readonly, &call->arg, sizeof(call->arg)));
	}
	assert_untouched(_metadata, self);
	assert_filled(_metadata, self, c);
	/* Also, to subscribe has not failed halfway. */
	assert_calls_work(_metadata, self, c, CALL_INFO);
	free(c);
}

/*
 * Who may not trace a process may neither change its memory nor look at it. The
 * child is forked first: a fork gives exclusive pages back.
 */
TEST_F_TIMEOUT(uapi, process_of_another_user, TEST_SECONDS)
{
	int pidfd = syscall(__NR_pidfd_open, getpid(), 0), go[2], status, i;
	struct calls *c = new_calls(self, pidfd);
	char byte = 0;
	pid_t pid;

	ASSERT_GE(pidfd, 0);
	ASSERT_NE(c, NULL);
	ASSERT_EQ(0, pipe(go));
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		struct mmops_leaf no_leaves[MMOPS_LEAVES_MIN] = {};

		close(go[1]);
		if (read(go[0], &byte, 1) != 1 || setgroups(0, NULL) || setgid(1000) ||
		    setuid(1000))
			_exit(100);
		for (i = CALL_OF_PROCESS; i < NR_CALLS; i++) {
			struct call before = c->call[i], *call = &c->call[i];

			errno = 0;
			if (ioctl(call->dev, call->cmd, &call->arg) != -1 || errno != EACCES)
				_exit(10 + i);
			if (memcmp(&call->arg, &before.arg, sizeof(before.arg)))
				_exit(30 + i);
		}
		_exit(memcmp(c->leaves, no_leaves, sizeof(no_leaves)) ? 101 : 0);
	}
	fill(_metadata, self, c);
	ASSERT_EQ(1, write(go[1], &byte, 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	ASSERT_EQ(0, WEXITSTATUS(status)) {
		TH_LOG("10 and a call: not EACCES; 30 and a call: its argument has changed");
	}
	assert_filled(_metadata, self, c);
	assert_calls_work(_metadata, self, c, CALL_OF_PROCESS);
	free(c);
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
		/* Files that are not written back, all of them. */
		if (arg.flags & MMOPS_NO_TRANSFER)
			may |= MAY(EOPNOTSUPP);
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

/* Map the page of a file, and call write_protect. 0 or -errno. */
static int write_protect_mapped(int dev, int fd)
{
	char *map = map_shared(fd, 0, 1);
	int64_t ret;

	if (!map)
		return -errno;
	store(map, 0, 1);
	ret = write_protect(dev, fd, 0, 1);
	munmap(map, page_size());
	return ret == 1 ? 0 : ret < 0 ? ret : -EPROTO;
}

/* Who stands at a gate goes on when it is opened, and when it is killed; all others pass. */
TEST_FAULTS(uapi, gates)
{
	static const char *const wrong[] = { "x", "-1", "1 2 3", "65536", "1 65536", "1,2" };
	/* Two files: who stands at the gate keeps others from mapping its own. */
	int fd = new_memfd(1), other = new_memfd(1), status;
	unsigned int i;
	pid_t pid;

	ASSERT_GE(fd, 0);
	ASSERT_GE(other, 0);
	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		ASSERT_EQ(-EINVAL, write_file(FAULTS_DIR "before_flush", wrong[i]));
	}
	/* The first passes, the second stops, the third passes. */
	ASSERT_EQ(0, close_gate_after(BEFORE_FLUSH, 1, 1));
	for (i = 0; i < 2; i++) {
		bool kill_it = i;

		if (!i) {
			ASSERT_EQ(0, write_protect_mapped(self->dev, other));
		}
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid)
			_exit(write_protect_mapped(self->dev, fd) != 0);
		ASSERT_TRUE(wait_at_gate(BEFORE_FLUSH, 1, NULL));
		ASSERT_EQ(1, get_fault(BEFORE_FLUSH));
		ASSERT_EQ(0, waitpid(pid, &status, WNOHANG));
		ASSERT_EQ(0, write_protect_mapped(self->dev, other));
		if (kill_it) {
			ASSERT_EQ(0, kill(pid, SIGKILL));
		} else {
			ASSERT_EQ(0, open_gate(BEFORE_FLUSH));
		}
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_EQ(kill_it, WIFSIGNALED(status));
		ASSERT_EQ(kill_it, !WIFEXITED(status) || WEXITSTATUS(status));
		ASSERT_EQ(0, get_fault(BEFORE_FLUSH));
		ASSERT_EQ(0, close_gate(BEFORE_FLUSH, 1));
	}
	close(fd);
	close(other);
}

/* The plain build holds no trace of the faults. */
TEST_F_TIMEOUT(uapi, faults_where_they_belong, TEST_SECONDS)
{
	struct mmops_info info = {};
	int i;

	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_INFO, &info));
	if (info.features & MMOPS_FEATURE_FAULTS) {
		for (i = 0; i < NR_FAULTS; i++) {
			ASSERT_EQ(0, set_fault(i, 0)) {
				TH_LOG("no %s", fault_names[i]);
			}
		}
	} else {
		ASSERT_NE(0, access(FAULTS_DIR, F_OK));
	}
}

/* What is asked of both builds. */
TEST_FAULTS(uapi, of_both)
{
	uapi_info(_metadata, self, variant);
	uapi_faults_where_they_belong(_metadata, self, variant);
}

TEST_HARNESS_MAIN
