// SPDX-License-Identifier: GPL-2.0
/*
 * Who may do what: each call by callers with and without a right to the process or
 * the file, and that what a call gives back is what it is documented to give: no
 * other byte changes, and nothing looks like an address of the kernel.
 */
#include <grp.h>
#include <signal.h>
#include <stddef.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "exclusive.h"
#include "kselftest_harness.h"

#define PAGES	16UL
#define RW	(PROT_READ | PROT_WRITE)
#define USER	1000
#define OTHER	1001
#define PATTERN	0xa5
#define EVENTS	64
#define RANGES	(PAGES + 1)
/* 0: whom the user may attach to is asked of the kernel alone. */
#define YAMA	"/proc/sys/kernel/yama/ptrace_scope"

/*
 * The calls, in an order in which each works after those before it. Those from
 * CALL_SUBSCRIBE on are about a process.
 */
enum {
	CALL_INFO, CALL_WRITE_PROTECT, CALL_CLEAN_RECORD,
	CALL_SUBSCRIBE, CALL_TRACK_OPEN, CALL_LEAVES, CALL_AGE, CALL_PROTECT, CALL_EXCLUSIVE,
	CALL_REVOKE, CALL_ATOMIC_ADD, CALL_SOFT_DIRTY_CLEAR, CALL_ZAP,
	/* By what the open file has of the process. */
	CALL_LOG, CALL_PROBE, CALL_TRACK_BEGIN, CALL_TRACK_READ, CALL_TRACK_BITMAP,
	CALL_TRACK_END, NR_CALLS
};

#define FIRST_OF_PROCESS	CALL_SUBSCRIBE
#define FIRST_OF_FILE		CALL_LOG

union argument {
	struct mmops_info info;
	struct mmops_write_protect write_protect;
	struct mmops_clean_record clean_record;
	struct mmops_zap zap;
	struct mmops_soft_dirty_clear soft_dirty_clear;
	struct mmops_exclusive exclusive;
	struct mmops_revoke revoke;
	struct mmops_atomic_add atomic_add;
	struct mmops_notifier_log log;
	struct mmops_notifier_subscribe subscribe;
	struct mmops_notifier_probe probe;
	struct mmops_protect protect;
	struct mmops_leaves leaves;
	struct mmops_age age;
	struct mmops_track_open track_open;
	struct mmops_track_begin track_begin;
	struct mmops_track_read track_read;
	struct mmops_track_end track_end;
	struct mmops_track_bitmap track_bitmap;
	unsigned char bytes[128];
};

/* A field that the call writes to. */
struct field {
	size_t at, size;
};

#define OUT(member, name)	{ offsetof(union argument, member.name),		\
				  sizeof(((union argument *)0)->member.name) }

static const struct description {
	const char *name;
	unsigned long cmd;
	struct field out[8];
} descriptions[NR_CALLS] = {
	[CALL_INFO] = { "info", MMOPS_IOC_INFO,
		{ OUT(info, version), OUT(info, page_size), OUT(info, features) } },
	[CALL_WRITE_PROTECT] = { "write_protect", MMOPS_IOC_WRITE_PROTECT,
		{ OUT(write_protect, write_protected), OUT(write_protect, done) } },
	[CALL_CLEAN_RECORD] = { "clean_record", MMOPS_IOC_CLEAN_RECORD,
		{ OUT(clean_record, start), OUT(clean_record, end), OUT(clean_record, cleaned),
		  OUT(clean_record, done) } },
	[CALL_SUBSCRIBE] = { "subscribe", MMOPS_IOC_NOTIFIER_SUBSCRIBE, { } },
	[CALL_TRACK_OPEN] = { "track_open", MMOPS_IOC_TRACK_OPEN, { } },
	[CALL_LEAVES] = { "leaves", MMOPS_IOC_LEAVES, { OUT(leaves, nr), OUT(leaves, next) } },
	[CALL_AGE] = { "age", MMOPS_IOC_AGE,
		{ OUT(age, aged), OUT(age, kept), OUT(age, done) } },
	[CALL_PROTECT] = { "protect", MMOPS_IOC_PROTECT,
		{ OUT(protect, ptes), OUT(protect, pmds), OUT(protect, puds),
		  OUT(protect, split_pmds), OUT(protect, split_puds), OUT(protect, done) } },
	[CALL_EXCLUSIVE] = { "exclusive", MMOPS_IOC_EXCLUSIVE,
		{ OUT(exclusive, exclusive), OUT(exclusive, done) } },
	[CALL_REVOKE] = { "revoke", MMOPS_IOC_REVOKE, { OUT(revoke, revoked), OUT(revoke, done) } },
	[CALL_ATOMIC_ADD] = { "atomic_add", MMOPS_IOC_ATOMIC_ADD,
		{ OUT(atomic_add, added), OUT(atomic_add, taken) } },
	[CALL_SOFT_DIRTY_CLEAR] = { "soft_dirty_clear", MMOPS_IOC_SOFT_DIRTY_CLEAR,
		{ OUT(soft_dirty_clear, cleared), OUT(soft_dirty_clear, kept),
		  OUT(soft_dirty_clear, done) } },
	[CALL_ZAP] = { "zap", MMOPS_IOC_ZAP, { OUT(zap, zapped), OUT(zap, done) } },
	[CALL_LOG] = { "log", MMOPS_IOC_NOTIFIER_LOG,
		{ OUT(log, nr), OUT(log, lost), OUT(log, released) } },
	[CALL_PROBE] = { "probe", MMOPS_IOC_NOTIFIER_PROBE,
		{ OUT(probe, collided), OUT(probe, hint) } },
	[CALL_TRACK_BEGIN] = { "track_begin", MMOPS_IOC_TRACK_BEGIN,
		{ OUT(track_begin, state), OUT(track_begin, written),
		  OUT(track_begin, changed) } },
	[CALL_TRACK_READ] = { "track_read", MMOPS_IOC_TRACK_READ,
		{ OUT(track_read, addr), OUT(track_read, nr), OUT(track_read, needed) } },
	[CALL_TRACK_BITMAP] = { "track_bitmap", MMOPS_IOC_TRACK_BITMAP,
		{ OUT(track_bitmap, nr) } },
	[CALL_TRACK_END] = { "track_end", MMOPS_IOC_TRACK_END, { } },
};

/* What is given back by address; each has one record more than a call is told of. */
struct buffers {
	uint64_t bitmap[2];
	uint8_t results[PAGES + 8];
	struct mmops_leaf leaves[MMOPS_LEAVES_MIN + 1];
	struct mmops_notifier_event events[EVENTS + 1];
	struct mmops_track_range ranges[RANGES + 1];
	uint64_t words[3];
};

/* Shared by all processes of a test. */
struct shared {
	int opened;		/* errno of open() of the device by the caller, or 0 */
	int error[NR_CALLS];	/* of each call, or 0 */
	union argument before[NR_CALLS], after[NR_CALLS];
};

FIXTURE(access)
{
	int dev;
	int fd;
	char *file;		/* a mapping of it */
	char *map;		/* private memory, at the same address in each process */
	struct shared *shared;
	struct buffers *buffers;
};

FIXTURE_SETUP(access)
{
	const size_t bytes = (sizeof(struct buffers) + page_size() - 1) & ~(page_size() - 1);

	OPEN_DEV(self->dev, MMOPS_DEV);
	self->fd = new_memfd(PAGES);
	ASSERT_GE(self->fd, 0);
	self->file = map_shared(self->fd, 0, PAGES);
	ASSERT_NE(self->file, NULL);
	self->map = map_anon(PAGES);
	ASSERT_NE(self->map, NULL);
	ASSERT_EQ(0, madvise(self->map, PAGES * page_size(), MADV_NOHUGEPAGE));
	self->shared = mmap(NULL, 2 * page_size(), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(self->shared, MAP_FAILED);
	ASSERT_LE(sizeof(*self->shared), 2 * page_size());
	self->buffers = mmap(NULL, bytes, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(self->buffers, MAP_FAILED);
	if (!access(YAMA, F_OK)) {
		ASSERT_EQ(0, write_file(YAMA, "0"));
	}
}

FIXTURE_TEARDOWN(access)
{
	write_file(YAMA, "1");
}

/* Arguments as they are before the calls: results are a pattern. */
static void set_up_arguments(FIXTURE_DATA(access) *self, int pidfd, int fd,
			     union argument arg[NR_CALLS])
{
	const uint64_t addr = (uintptr_t)self->map, len = PAGES * page_size();
	struct buffers *b = self->buffers;
	const struct field *out;
	int i;

	memset(arg, 0, NR_CALLS * sizeof(*arg));
	memset(b, PATTERN, sizeof(*b));
	memset(b->bitmap, 0, sizeof(b->bitmap[0]));
	for (i = 0; i < NR_CALLS; i++)
		for (out = descriptions[i].out; out->size; out++)
			memset(arg[i].bytes + out->at, PATTERN, out->size);

#define SET(index, member, ...)	do {						\
	typeof(arg[index].member) *a = &arg[index].member;			\
	__VA_ARGS__;								\
} while (0)
#define OF_PROCESS	a->pidfd = pidfd, a->addr = addr, a->len = len
	SET(CALL_WRITE_PROTECT, write_protect, a->fd = fd, a->nr = PAGES);
	SET(CALL_CLEAN_RECORD, clean_record, a->fd = fd, a->nr = PAGES,
	    a->bitmap = (uintptr_t)b->bitmap, a->bitmap_bits = 64, a->start = 0, a->end = 0);
	SET(CALL_SUBSCRIBE, subscribe, OF_PROCESS, a->capacity = 64);
	SET(CALL_TRACK_OPEN, track_open, OF_PROCESS, a->flags = MMOPS_TRACK_FAST);
	SET(CALL_LEAVES, leaves, OF_PROCESS, a->vec = (uintptr_t)b->leaves,
	    a->vec_len = MMOPS_LEAVES_MIN);
	SET(CALL_AGE, age, OF_PROCESS);
	SET(CALL_PROTECT, protect, OF_PROCESS, a->prot = PROT_READ);
	SET(CALL_EXCLUSIVE, exclusive, OF_PROCESS, a->results = (uintptr_t)b->results);
	SET(CALL_REVOKE, revoke, OF_PROCESS);
	SET(CALL_ATOMIC_ADD, atomic_add, a->pidfd = pidfd, a->addr = addr,
	    a->stride = page_size(), a->nr = PAGES, a->value = 1, a->rounds = 1);
	SET(CALL_SOFT_DIRTY_CLEAR, soft_dirty_clear, OF_PROCESS);
	SET(CALL_ZAP, zap, OF_PROCESS);
	SET(CALL_LOG, log, a->events = (uintptr_t)b->events, a->nr = EVENTS);
	SET(CALL_TRACK_READ, track_read, a->addr = addr, a->vec = (uintptr_t)b->ranges,
	    a->vec_len = RANGES);
	SET(CALL_TRACK_BITMAP, track_bitmap, a->addr = addr, a->bitmap = (uintptr_t)b->words,
	    a->words = 2);
#undef OF_PROCESS
#undef SET
}

/* Make all calls, or those before CALL_LOG, and note what becomes of them. */
static void make_calls(FIXTURE_DATA(access) *self, int dev, int pidfd, int fd, int end)
{
	struct shared *shared = self->shared;
	int i;

	set_up_arguments(self, pidfd, fd, shared->before);
	memcpy(shared->after, shared->before, sizeof(shared->after));
	for (i = 0; i < end; i++)
		shared->error[i] = ioctl(dev, descriptions[i].cmd, &shared->after[i]) ? errno : 0;
}

/* The first place in memory that holds what may be an address of the kernel, or -1. */
static long find_kernel_address(const void *memory, size_t size)
{
	uint64_t word;
	size_t at;

	for (at = 0; at + sizeof(word) <= size; at += 4) {
		memcpy(&word, (const char *)memory + at, sizeof(word));
		if (word >= 0xffff800000000000ULL)
			return at;
	}
	return -1;
}

static bool is_result(const struct description *description, size_t at)
{
	const struct field *out;

	for (out = description->out; out->size; out++)
		if (at >= out->at && at < out->at + out->size)
			return true;
	return false;
}

/* The first byte of an argument that changed and is no result, or -1. */
static long find_other_change(const struct description *description,
			      const union argument *before, const union argument *after)
{
	size_t at;

	for (at = 0; at < sizeof(*after); at++)
		if (after->bytes[at] != before->bytes[at] && !is_result(description, at))
			return at;
	return -1;
}

/* A result that still has the bytes of before, all of them; its place, or -1. */
static long find_no_result(const struct description *description, const union argument *after)
{
	unsigned char pattern[8];
	const struct field *out;

	memset(pattern, PATTERN, sizeof(pattern));
	for (out = description->out; out->size; out++)
		if (!memcmp(after->bytes + out->at, pattern, out->size))
			return out->at;
	return -1;
}

static bool is_all(const void *memory, size_t size, unsigned char byte)
{
	const unsigned char *bytes = memory;

	while (size--)
		if (*bytes++ != byte)
			return false;
	return true;
}

static bool is_pattern(const void *memory, size_t size)
{
	return is_all(memory, size, PATTERN);
}

/* A result that is neither as it was before the call nor 0; its place, or -1. */
static long find_result(const struct description *description, const union argument *before,
			const union argument *after)
{
	const struct field *out;

	for (out = description->out; out->size; out++)
		if (memcmp(after->bytes + out->at, before->bytes + out->at, out->size) &&
		    !is_all(after->bytes + out->at, out->size, 0))
			return out->at;
	return -1;
}

/* The searches find what they are for, wherever it is. */
TEST_F_TIMEOUT(access, searches_find, TEST_SECONDS)
{
	const struct description *leaves = &descriptions[CALL_LEAVES];
	const uint64_t address = 0xffff888012345678ULL;
	union argument before, after;
	size_t at;

	memset(&before, 0, sizeof(before));
	ASSERT_EQ(-1, find_kernel_address(&before, sizeof(before)));
	for (at = 0; at + sizeof(address) <= sizeof(before); at += 4) {
		after = before;
		memcpy(after.bytes + at, &address, sizeof(address));
		ASSERT_EQ(at, find_kernel_address(&after, sizeof(after)));
	}
	for (at = 0; at < sizeof(before); at++) {
		after = before;
		after.bytes[at] = 1;
		ASSERT_EQ(at >= offsetof(struct mmops_leaves, nr) &&
			  at < offsetof(struct mmops_leaves, reserved) ? -1 : (long)at,
			  find_other_change(leaves, &before, &after));
	}
	memset(&after, PATTERN, sizeof(after));
	ASSERT_EQ(offsetof(struct mmops_leaves, nr), find_no_result(leaves, &after));
	after.leaves.nr = 1;
	ASSERT_EQ(offsetof(struct mmops_leaves, next), find_no_result(leaves, &after));
	before = after;
	after.leaves.nr = 0;
	ASSERT_EQ(-1, find_result(leaves, &before, &after));
	after.leaves.next = 1;
	ASSERT_EQ(offsetof(struct mmops_leaves, next), find_result(leaves, &before, &after));
}

/* All bytes of each argument are named: there is none of padding. */
TEST_F_TIMEOUT(access, no_padding, TEST_SECONDS)
{
#define NO_PADDING(type, last, bytes)	do {					\
	ASSERT_EQ(sizeof(struct type),						\
		  offsetof(struct type, last) + sizeof(((struct type *)0)->last));	\
	ASSERT_EQ((size_t)(bytes), sizeof(struct type));			\
} while (0)
	/* The sizes of the fields, one by one. */
	NO_PADDING(mmops_info, reserved, 2 * 4 + 8 + 4 * 8);
	NO_PADDING(mmops_write_protect, reserved, 2 * 4 + 4 * 8 + 2 * 8);
	NO_PADDING(mmops_clean_record, reserved, 2 * 4 + 9 * 8 + 2 * 8);
	NO_PADDING(mmops_zap, reserved, 2 * 4 + 4 * 8 + 2 * 8);
	NO_PADDING(mmops_soft_dirty_clear, reserved, 2 * 4 + 5 * 8 + 2 * 8);
	NO_PADDING(mmops_exclusive, reserved, 2 * 4 + 5 * 8 + 2 * 8);
	NO_PADDING(mmops_revoke, reserved, 2 * 4 + 4 * 8 + 2 * 8);
	NO_PADDING(mmops_atomic_add, reserved, 2 * 4 + 7 * 8 + 2 * 8);
	NO_PADDING(mmops_notifier_event, flags, 3 * 8 + 2 * 4);
	NO_PADDING(mmops_notifier_log, reserved, 8 + 2 * 4 + 8 + 2 * 4 + 2 * 8);
	NO_PADDING(mmops_notifier_subscribe, reserved, 2 * 4 + 2 * 8 + 2 * 4 + 2 * 8);
	NO_PADDING(mmops_notifier_probe, reserved, 4 * 4 + 2 * 8);
	NO_PADDING(mmops_protect, reserved, 2 * 4 + 2 * 8 + 2 * 4 + 6 * 8 + 2 * 8);
	NO_PADDING(mmops_leaf, reserved, 8 + 4 + 2 + 2);
	NO_PADDING(mmops_leaves, reserved, 2 * 4 + 6 * 8 + 2 * 8);
	NO_PADDING(mmops_age, reserved, 2 * 4 + 5 * 8 + 2 * 8);
	NO_PADDING(mmops_track_open, reserved, 2 * 4 + 2 * 8 + 2 * 8);
	NO_PADDING(mmops_track_begin, reserved, 2 * 4 + 2 * 8 + 2 * 8);
	NO_PADDING(mmops_track_range, reserved, 2 * 8 + 2 * 4);
	NO_PADDING(mmops_track_read, reserved, 5 * 8 + 2 * 8);
	NO_PADDING(mmops_track_end, reserved, 2 * 4 + 2 * 8);
	NO_PADDING(mmops_track_bitmap, reserved, 3 * 8 + 2 * 4 + 8 + 2 * 8);
#undef NO_PADDING
}

/* Each call gives its results, and nothing else. */
TEST_F_TIMEOUT(access, results_alone, TEST_SECONDS)
{
	const uint64_t addr = (uintptr_t)self->map, len = PAGES * page_size();
	const struct buffers *b = self->buffers;
	const union argument *after = self->shared->after;
	size_t i, nr;

	store_range(self->file, 0, PAGES, 1);
	store_range(self->map, 0, PAGES, 1);
	make_calls(self, self->dev, -1, self->fd, NR_CALLS);
	for (i = 0; i < NR_CALLS; i++) {
		const struct description *description = &descriptions[i];

		ASSERT_EQ(0, self->shared->error[i]) {
			TH_LOG("%s", description->name);
		}
		ASSERT_EQ(-1, find_other_change(description, &self->shared->before[i], &after[i])) {
			TH_LOG("%s", description->name);
		}
		ASSERT_EQ(-1, find_no_result(description, &after[i])) {
			TH_LOG("%s", description->name);
		}
		ASSERT_EQ(-1, find_kernel_address(&after[i], sizeof(after[i]))) {
			TH_LOG("%s", description->name);
		}
	}
	ASSERT_EQ(-1, find_kernel_address(b, sizeof(*b)));

	ASSERT_EQ(PAGES, after[CALL_WRITE_PROTECT].write_protect.write_protected);
	ASSERT_EQ(PAGES, after[CALL_CLEAN_RECORD].clean_record.cleaned);
	ASSERT_EQ((1ULL << PAGES) - 1, b->bitmap[0]);
	ASSERT_TRUE(is_pattern(&b->bitmap[1], sizeof(b->bitmap[1])));

	ASSERT_EQ(PAGES, after[CALL_LEAVES].leaves.nr);
	ASSERT_EQ(addr + len, after[CALL_LEAVES].leaves.next);
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(addr + i * page_size(), b->leaves[i].addr);
		ASSERT_EQ(1UL << b->leaves[i].shift, page_size());
		ASSERT_EQ(MMOPS_LEAF_PRESENT, b->leaves[i].kind);
		ASSERT_EQ(0, b->leaves[i].state & ~0xffU);
		ASSERT_EQ(0, b->leaves[i].reserved);
	}
	ASSERT_TRUE(is_pattern(&b->leaves[PAGES], sizeof(b->leaves) - PAGES * sizeof(*b->leaves)));

	ASSERT_EQ(PAGES, after[CALL_AGE].age.aged);
	ASSERT_EQ(PAGES, after[CALL_PROTECT].protect.ptes);
	ASSERT_EQ(PAGES, after[CALL_EXCLUSIVE].exclusive.exclusive);
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(MMOPS_PAGE_EXCLUSIVE, b->results[i]);
	}
	ASSERT_TRUE(is_pattern(b->results + PAGES, sizeof(b->results) - PAGES));
	ASSERT_EQ(PAGES, after[CALL_REVOKE].revoke.revoked);
	ASSERT_EQ(PAGES, after[CALL_ATOMIC_ADD].atomic_add.added);
	ASSERT_EQ(PAGES, after[CALL_ATOMIC_ADD].atomic_add.taken);
	ASSERT_EQ(PAGES, after[CALL_SOFT_DIRTY_CLEAR].soft_dirty_clear.cleared);
	ASSERT_EQ(PAGES, after[CALL_ZAP].zap.zapped);

	nr = after[CALL_LOG].log.nr;
	ASSERT_GE(nr, 5);
	ASSERT_LT(nr, EVENTS);
	for (i = 0; i < nr; i++) {
		ASSERT_GE(b->events[i].start, addr);
		ASSERT_LE(b->events[i].end, addr + len);
		ASSERT_LE(b->events[i].event, MMOPS_EVENT_EXCLUSIVE);
		ASSERT_EQ(0, b->events[i].flags & ~7U);
	}
	/* It was tried whether the array can be written to. */
	ASSERT_TRUE(is_all(&b->events[nr], (EVENTS - nr) * sizeof(*b->events), 0));
	ASSERT_TRUE(is_pattern(&b->events[EVENTS], sizeof(b->events[EVENTS])));

	ASSERT_EQ(PAGES, after[CALL_TRACK_BEGIN].track_begin.written +
			 after[CALL_TRACK_BEGIN].track_begin.changed);
	nr = after[CALL_TRACK_READ].track_read.nr;
	ASSERT_GE(nr, 1);
	ASSERT_EQ(nr, after[CALL_TRACK_READ].track_read.needed);
	for (i = 0; i < nr; i++) {
		ASSERT_GE(b->ranges[i].addr, addr);
		ASSERT_LE(b->ranges[i].addr + b->ranges[i].len, addr + len);
		ASSERT_EQ(0, b->ranges[i].reserved);
	}
	ASSERT_TRUE(is_pattern(&b->ranges[nr], sizeof(b->ranges) - nr * sizeof(*b->ranges)));
	ASSERT_EQ(PAGES, after[CALL_TRACK_BITMAP].track_bitmap.nr);
	ASSERT_EQ(PAGES, count_bits(b->words, 2 * BITS_PER_WORD));
	ASSERT_TRUE(is_pattern(&b->words[2], sizeof(b->words[2])));
}

/* Calls that fail give back no more than 0 in the place of a result. */
TEST_F_TIMEOUT(access, nothing_of_a_failed_call, TEST_SECONDS)
{
	const struct buffers *b = self->buffers;
	size_t i;

	/* Descriptors that are none, and a device with neither subscription nor tracker. */
	make_calls(self, self->dev, self->fd, self->dev, NR_CALLS);
	for (i = 0; i < NR_CALLS; i++) {
		const struct description *description = &descriptions[i];
		const union argument *before = &self->shared->before[i];
		const union argument *after = &self->shared->after[i];

		if (i == CALL_INFO)
			continue;
		ASSERT_NE(0, self->shared->error[i]) {
			TH_LOG("%s", description->name);
		}
		ASSERT_EQ(-1, find_other_change(description, before, after)) {
			TH_LOG("%s", description->name);
		}
		ASSERT_EQ(-1, find_result(description, before, after)) {
			TH_LOG("%s", description->name);
		}
	}
	ASSERT_EQ(0, b->bitmap[0]);
	ASSERT_TRUE(is_pattern(&b->bitmap[1], sizeof(*b) - sizeof(b->bitmap[0])));
}

enum caller {
	BY_ROOT,
	BY_ROOT_WITHOUT_CAPABILITIES,
	BY_USER,
	BY_ROOT_OF_NAMESPACE,		/* of a user namespace that this user has made */
};

enum target {
	OF_ITSELF,			/* as -1 */
	OF_ITSELF_BY_PIDFD,		/* though it is not to be traced by others */
	OF_CHILD,			/* of the same user, with the same rights */
	OF_CHILD_THAT_IS_NOT_DUMPABLE,
	OF_ROOT,
	OF_USER,
	OF_OTHER_USER,
};

static bool become_user(uid_t id)
{
	return !setgroups(0, NULL) && !setresgid(id, id, id) && !setresuid(id, id, id);
}

static bool drop_capabilities(void)
{
	struct { uint32_t version; int pid; } header = { 0x20080522, 0 };
	uint32_t data[6] = {};

	return !syscall(SYS_capset, &header, data);
}

static bool make_namespace(void)
{
	/* The files are root's where the process cannot be traced. */
	return !prctl(PR_SET_DUMPABLE, 1) && !unshare(CLONE_NEWUSER) &&
	       !write_file("/proc/self/setgroups", "deny") &&
	       !write_file("/proc/self/uid_map", "0 1000 1") &&
	       !write_file("/proc/self/gid_map", "0 1000 1") && !setresgid(0, 0, 0) &&
	       !setresuid(0, 0, 0);
}

static bool become(enum caller caller)
{
	switch (caller) {
	case BY_ROOT:
		return true;
	case BY_ROOT_WITHOUT_CAPABILITIES:
		return drop_capabilities();
	case BY_USER:
		return become_user(USER);
	case BY_ROOT_OF_NAMESPACE:
		return become_user(USER) && make_namespace();
	}
	return false;
}

/*
 * A process with memory that was stored to, until its parent ends or kills it. With
 * SIGUSR1 it executes another program.
 */
static pid_t new_target(FIXTURE_DATA(access) *self, uid_t id, bool is_dumpable)
{
	sigset_t signals;
	int ready[2], nr;
	char byte = 0;
	pid_t pid;

	if (pipe(ready))
		return -1;
	pid = fork();
	if (!pid) {
		sigemptyset(&signals);
		sigaddset(&signals, SIGUSR1);
		sigprocmask(SIG_BLOCK, &signals, NULL);
		if (id && !become_user(id))
			_exit(1);
		prctl(PR_SET_DUMPABLE, is_dumpable);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		store_range(self->map, 0, PAGES, 1);
		if (write(ready[1], &byte, 1) != 1)
			_exit(1);
		while (sigwait(&signals, &nr))
			;
		execl("/bin/sleep", "sleep", "1000", NULL);
		_exit(1);
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		pid = -1;
	close(ready[0]);
	return pid;
}

/* What the caller does. */
static int call(FIXTURE_DATA(access) *self, enum caller caller, enum target target, int dev,
		int pidfd)
{
	pid_t pid = 0;
	int fd;

	if (!become(caller))
		return 10;
	prctl(PR_SET_DUMPABLE, target != OF_ITSELF_BY_PIDFD);
	fd = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
	self->shared->opened = fd < 0 ? errno : 0;
	if (target == OF_ITSELF) {
		store_range(self->map, 0, PAGES, 1);
		pidfd = -1;
	} else if (target == OF_ITSELF_BY_PIDFD) {
		store_range(self->map, 0, PAGES, 1);
		pidfd = syscall(SYS_pidfd_open, getpid(), 0);
	} else if (target == OF_CHILD || target == OF_CHILD_THAT_IS_NOT_DUMPABLE) {
		pid = new_target(self, 0, target == OF_CHILD);
		pidfd = pid < 0 ? -1 : syscall(SYS_pidfd_open, pid, 0);
	}
	if (target != OF_ITSELF && pidfd < 0)
		return 11;
	make_calls(self, dev, pidfd, self->fd, NR_CALLS);
	if (pid > 0)
		kill(pid, SIGKILL);
	return 0;
}

/* All leaves are as a store leaves them. */
static bool is_untouched(FIXTURE_DATA(access) *self, int pidfd)
{
	const uint32_t state = MMOPS_LEAF_WRITE | MMOPS_LEAF_DIRTY | MMOPS_LEAF_YOUNG |
			       MMOPS_LEAF_SOFT_DIRTY;
	struct mmops_leaf vec[MMOPS_LEAVES_MIN];
	struct mmops_leaves arg = {
		.pidfd = pidfd, .addr = (uintptr_t)self->map, .len = PAGES * page_size(),
		.vec = (uintptr_t)vec, .vec_len = MMOPS_LEAVES_MIN,
	};
	size_t i;

	if (ioctl(self->dev, MMOPS_IOC_LEAVES, &arg) || arg.nr != PAGES)
		return false;
	for (i = 0; i < PAGES; i++)
		if ((vec[i].state & state) != state)
			return false;
	return true;
}

/* The calls about a process have this errno; those about a file work, whoever calls. */
static void try_calls(struct __test_metadata *_metadata, FIXTURE_DATA(access) *self,
		      enum caller caller, enum target target, int error)
{
	const uid_t users[] = { [OF_ROOT] = 0, [OF_USER] = USER, [OF_OTHER_USER] = OTHER };
	struct shared *shared = self->shared;
	int dev, status, pidfd = -1, i;
	pid_t pid, other = 0;

	store_range(self->file, 0, PAGES, 1);
	/* An open file of its own, since it gets a subscription and a tracker. */
	dev = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
	ASSERT_GE(dev, 0);
	if (target >= OF_ROOT) {
		other = new_target(self, users[target], true);
		ASSERT_GT(other, 0);
		pidfd = syscall(SYS_pidfd_open, other, 0);
		ASSERT_GE(pidfd, 0);
	}
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid)
		_exit(call(self, caller, target, dev, pidfd));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	for (i = 0; i < NR_CALLS; i++) {
		int expected = i < FIRST_OF_PROCESS ? 0 : error;

		/* No subscription and no tracker was made. */
		if (error && i >= FIRST_OF_FILE)
			expected = i == CALL_LOG || i == CALL_PROBE ? ENOENT : ENODEV;
		ASSERT_EQ(expected, shared->error[i]) {
			TH_LOG("caller %d, target %d: %s", caller, target, descriptions[i].name);
		}
		if (expected == EACCES) {
			const union argument *before = &shared->before[i];
			const union argument *after = &shared->after[i];

			ASSERT_EQ(-1, find_other_change(&descriptions[i], before, after));
			ASSERT_EQ(-1, find_result(&descriptions[i], before, after));
		}
	}
	ASSERT_EQ(PAGES, shared->after[CALL_CLEAN_RECORD].clean_record.cleaned);
	if (other) {
		/* The control: where the calls work, they do something. */
		ASSERT_EQ(error != 0, is_untouched(self, pidfd));
		kill(other, SIGKILL);
		waitpid(other, NULL, 0);
		close(pidfd);
	}
	close(dev);
}

/* The device is root's: only who owns the file opens it. An open one serves whoever has it. */
TEST_F_TIMEOUT(access, of_itself, TEST_SECONDS)
{
	static const int opened[] = {
		[BY_ROOT] = 0, [BY_ROOT_WITHOUT_CAPABILITIES] = 0, [BY_USER] = EACCES,
		[BY_ROOT_OF_NAMESPACE] = EACCES,
	};
	enum caller caller;

	for (caller = BY_ROOT; caller <= BY_ROOT_OF_NAMESPACE; caller++) {
		try_calls(_metadata, self, caller, OF_ITSELF, 0);
		ASSERT_EQ(opened[caller], self->shared->opened) {
			TH_LOG("caller %d", caller);
		}
		try_calls(_metadata, self, caller, OF_ITSELF_BY_PIDFD, 0);
	}
}

/* Another process of the same user, if nothing hides it from that user. */
TEST_F_TIMEOUT(access, of_own_process, TEST_SECONDS)
{
	enum caller caller;

	for (caller = BY_ROOT; caller <= BY_ROOT_OF_NAMESPACE; caller++)
		try_calls(_metadata, self, caller, OF_CHILD, 0);
	try_calls(_metadata, self, BY_ROOT, OF_CHILD_THAT_IS_NOT_DUMPABLE, 0);
	try_calls(_metadata, self, BY_ROOT_WITHOUT_CAPABILITIES, OF_CHILD_THAT_IS_NOT_DUMPABLE,
		  EACCES);
	try_calls(_metadata, self, BY_USER, OF_CHILD_THAT_IS_NOT_DUMPABLE, EACCES);
}

/* What counts are the rights of the caller, and not who has opened the device. */
TEST_F_TIMEOUT(access, of_other_processes, TEST_SECONDS)
{
	static const int errors[][3] = {
		/* OF_ROOT, OF_USER, OF_OTHER_USER */
		[BY_ROOT] = { 0, 0, 0 },
		[BY_ROOT_WITHOUT_CAPABILITIES] = { EACCES, EACCES, EACCES },
		[BY_USER] = { EACCES, 0, EACCES },
		/* Outside of its namespace it has no rights, not even to what its user has. */
		[BY_ROOT_OF_NAMESPACE] = { EACCES, EACCES, EACCES },
	};
	enum caller caller;
	enum target target;

	for (caller = BY_ROOT; caller <= BY_ROOT_OF_NAMESPACE; caller++)
		for (target = OF_ROOT; target <= OF_OTHER_USER; target++)
			try_calls(_metadata, self, caller, target,
				  errors[caller][target - OF_ROOT]);
}

/* With Yama, a user has to be an ancestor of the process. */
TEST_F_TIMEOUT(access, with_yama, TEST_SECONDS)
{
	if (access(YAMA, F_OK))
		SKIP(return, "the kernel is without CONFIG_SECURITY_YAMA");
	try_calls(_metadata, self, BY_USER, OF_USER, 0);
	ASSERT_EQ(0, write_file(YAMA, "1"));
	try_calls(_metadata, self, BY_USER, OF_USER, EACCES);
	try_calls(_metadata, self, BY_ROOT, OF_USER, 0);
}

/* A filter of system calls refuses one call of the device by its number. */
TEST_F_TIMEOUT(access, with_seccomp, TEST_SECONDS)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MMOPS_IOC_ZAP, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = ARRAY_SIZE(filter), .filter = filter };
	struct mmops_zap zap = {
		.pidfd = -1, .addr = (uintptr_t)self->map, .len = PAGES * page_size(),
	};
	struct mmops_info info = {};

	store_range(self->map, 0, PAGES, 1);
	ASSERT_EQ(0, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		SKIP(return, "no filter of system calls: %s", strerror(errno));
	ASSERT_EQ(-1, ioctl(self->dev, MMOPS_IOC_ZAP, &zap));
	ASSERT_EQ(EPERM, errno);
	ASSERT_EQ(1, load(self->map, 0));
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_INFO, &info));
}

/*
 * Who gets an open file with a subscription and a tracker gets what these tell, and no
 * right to the process. They tell nothing of a program that the process executes.
 */
TEST_F_TIMEOUT(access, passed_on, TEST_SECONDS)
{
	static const int ends[] = { FIRST_OF_FILE, NR_CALLS };
	union argument log, begin, arg[NR_CALLS];
	int dev, status, pidfd, i, n;
	pid_t other, pid;

	dev = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
	ASSERT_GE(dev, 0);
	other = new_target(self, OTHER, true);
	ASSERT_GT(other, 0);
	pidfd = syscall(SYS_pidfd_open, other, 0);
	ASSERT_GE(pidfd, 0);
	set_up_arguments(self, pidfd, self->fd, arg);
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_NOTIFIER_SUBSCRIBE, &arg[CALL_SUBSCRIBE]));
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_OPEN, &arg[CALL_TRACK_OPEN]));
	for (n = 0; n < 2; n++) {
		store_range(self->file, 0, PAGES, 1);
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid) {
			if (!become_user(USER))
				_exit(1);
			make_calls(self, dev, pidfd, self->fd, ends[n]);
			_exit(0);
		}
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_EQ(0, status);
		for (i = FIRST_OF_PROCESS; i < ends[n]; i++) {
			int expected = i < FIRST_OF_FILE ? EACCES : 0;

			/* The open file has one of each already. */
			if (i == CALL_SUBSCRIBE || i == CALL_TRACK_OPEN)
				expected = EBUSY;
			ASSERT_EQ(expected, self->shared->error[i]) {
				TH_LOG("%s", descriptions[i].name);
			}
		}
		/* An epoch takes what the entries say of stores. */
		ASSERT_EQ(n == 0, is_untouched(self, pidfd));
	}

	log = arg[CALL_LOG];
	log.log.flags = MMOPS_NOTIFIER_WAIT;
	ASSERT_EQ(0, kill(other, SIGUSR1));
	do {
		log.log.nr = EVENTS;
		ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_NOTIFIER_LOG, &log));
	} while (!log.log.released);
	begin = arg[CALL_TRACK_BEGIN];
	ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_BEGIN, &begin));
	ASSERT_EQ(MMOPS_TRACK_ENDED, begin.track_begin.state);
	/* The new program is there, and it is another address space. */
	ASSERT_EQ(0, waitpid(other, &status, WNOHANG));
	ASSERT_FALSE(is_untouched(self, pidfd));
	kill(other, SIGKILL);
	waitpid(other, NULL, 0);
	close(pidfd);
	close(dev);
}

/* The mode in which the device was opened does not matter. */
TEST_F_TIMEOUT(access, device_by_any_mode, TEST_SECONDS)
{
	static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR };
	size_t i, call;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		int dev = open(MMOPS_DEV, modes[i] | O_CLOEXEC);

		ASSERT_GE(dev, 0);
		store_range(self->file, 0, PAGES, 1);
		store_range(self->map, 0, PAGES, 1);
		make_calls(self, dev, -1, self->fd, NR_CALLS);
		for (call = 0; call < NR_CALLS; call++) {
			ASSERT_EQ(0, self->shared->error[call]) {
				TH_LOG("%s", descriptions[call].name);
			}
		}
		close(dev);
	}
	i = open(MMOPS_DEV, O_PATH | O_CLOEXEC);
	make_calls(self, i, -1, self->fd, NR_CALLS);
	for (call = 0; call < NR_CALLS; call++) {
		ASSERT_EQ(EBADF, self->shared->error[call]);
	}
}

/*
 * Who may store to a file may harvest it, from the mappings of all processes; who
 * may not store to it may not, though it is its own process that maps it.
 */
TEST_F_TIMEOUT(access, of_files, TEST_SECONDS)
{
	static const int modes[] = { O_RDWR, O_RDONLY, O_WRONLY, O_PATH };
	static const int errors[] = { 0, EACCES, EACCES, EBADF };
	char path[64];
	size_t i;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		int fd = open(path, modes[i] | O_CLOEXEC), status;
		pid_t pid;

		ASSERT_GE(fd, 0);
		/* In the process of root. */
		store_range(self->file, 0, PAGES, 1);
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid) {
			if (!become_user(USER))
				_exit(1);
			make_calls(self, self->dev, -1, fd, FIRST_OF_PROCESS);
			_exit(0);
		}
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_EQ(0, status);
		ASSERT_EQ(errors[i], self->shared->error[CALL_WRITE_PROTECT]);
		ASSERT_EQ(errors[i], self->shared->error[CALL_CLEAN_RECORD]);
		ASSERT_EQ(errors[i] ? 0 : (1ULL << PAGES) - 1, self->buffers->bitmap[0]);
		close(fd);
	}
	/* The last ones have left everything as it was. */
	ASSERT_EQ(PAGES, clean_only(self->dev, self->fd, 0, PAGES));
}

TEST_HARNESS_MAIN
