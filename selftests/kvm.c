// SPDX-License-Identifier: GPL-2.0
/*
 * The stores of a virtual processor. KVM has page tables of its own for them, so that
 * the entries of the monitor's mapping get no dirty bit: a harvest does not record
 * them, and KVM's dirty log does. What takes a permission tells KVM, whose next look
 * at the entry is a write fault.
 *
 * The guest runs in real mode. It stores a byte, and halts.
 */
#include "mmops_selftest.h"
#include "kselftest_harness.h"
#include "track.h"

#include <linux/kvm.h>

#define PAGES	64UL
#define CODE	1UL		/* the page that has the program */
#define PAGE	37UL		/* what is stored to */

static const unsigned char program[] = {
	0x88, 0x07,		/* 1: mov %al, (%bx) */
	0xf4,			/*    hlt */
	0xeb, 0xfb,		/*    jmp 1b */
};

FIXTURE(kvm)
{
	int dev, fd;
	int vm, vcpu;
	char *map;
	struct kvm_run *run;
	struct harvest h;
};

/* Memory of the guest, as the mapping has it. */
static int set_memory(FIXTURE_DATA(kvm) *self, uint32_t flags)
{
	struct kvm_userspace_memory_region region = {
		.flags = flags,
		.memory_size = PAGES * page_size(),
		.userspace_addr = (uintptr_t)self->map,
	};

	return ioctl(self->vm, KVM_SET_USER_MEMORY_REGION, &region) ? -errno : 0;
}

/* The guest stores @value to the first byte of @page, and halts. 0 or -errno. */
static int guest_store(FIXTURE_DATA(kvm) *self, size_t page, uint8_t value)
{
	struct kvm_regs regs = { .rip = CODE * page_size(), .rax = value, .rflags = 2 };
	struct kvm_sregs sregs;

	if (ioctl(self->vcpu, KVM_GET_SREGS, &sregs))
		return -errno;
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	sregs.ds.base = page * page_size();
	sregs.ds.selector = sregs.ds.base >> 4;
	if (ioctl(self->vcpu, KVM_SET_SREGS, &sregs) || ioctl(self->vcpu, KVM_SET_REGS, &regs))
		return -errno;
	while (ioctl(self->vcpu, KVM_RUN, 0))
		if (errno != EINTR)
			return -errno;
	return self->run->exit_reason == KVM_EXIT_HLT ? 0 : -EPROTO;
}

FIXTURE_SETUP(kvm)
{
	int kvm, size;

	SETUP_MEMFD(self, PAGES, 0);
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		SKIP(return, "no /dev/kvm (%s)", strerror(errno));
	store_range(self->map, 0, PAGES, 1);
	memcpy(self->map + CODE * page_size(), program, sizeof(program));
	self->vm = ioctl(kvm, KVM_CREATE_VM, 0);
	ASSERT_LE(0, self->vm);
	ASSERT_EQ(0, set_memory(self, 0));
	self->vcpu = ioctl(self->vm, KVM_CREATE_VCPU, 0);
	ASSERT_LE(0, self->vcpu);
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	self->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, self->vcpu, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->run);
	/* KVM has an entry for the page that lets the guest store. */
	ASSERT_EQ(0, guest_store(self, PAGE, 11));
	ASSERT_EQ(11, load(self->map, PAGE) & 0xff);
	ASSERT_LE(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	reset_harvest(&self->h);
}

FIXTURE_TEARDOWN(kvm)
{
}

/* Not by a harvest, but by KVM. */
TEST_F_TIMEOUT(kvm, store, TEST_SECONDS)
{
	uint64_t bitmap[PAGES / BITS_PER_WORD] = { 0 };
	struct kvm_dirty_log log = { .dirty_bitmap = bitmap };

	ASSERT_EQ(0, guest_store(self, PAGE, 22));
	ASSERT_EQ(22, load(self->map, PAGE) & 0xff);
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(0, count_bits(self->h.bitmap, self->h.bits));

	ASSERT_EQ(0, set_memory(self, KVM_MEM_LOG_DIRTY_PAGES));
	ASSERT_EQ(0, guest_store(self, PAGE, 33));
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(0, ioctl(self->vm, KVM_GET_DIRTY_LOG, &log));
	ASSERT_TRUE(test_bit(bitmap, PAGE));
	ASSERT_FALSE(test_bit(bitmap, PAGE + 1));
	ASSERT_EQ(33, load(self->map, PAGE) & 0xff);
}

static void track_guest(struct __test_metadata *_metadata, FIXTURE_DATA(kvm) *self,
			uint32_t mode)
{
	size_t seen = mode == MMOPS_TRACK_FULL;
	struct tracker t;
	unsigned int i;

	track_mode = mode;
	ASSERT_EQ(0, track_open(&t, self->map, PAGES));
	ASSERT_EPOCH(&t);
	ASSERT_EPOCH(&t);
	ASSERT_EQ(0, track_reported(&t));
	for (i = 0; i < 3; i++) {
		/* The second store is by an entry of KVM's that is there. */
		ASSERT_EQ(0, guest_store(self, PAGE, 22 + i));
		ASSERT_EQ(0, guest_store(self, PAGE, 44 + i));
		ASSERT_EQ(0, track_epoch(&t));
		ASSERT_EQ(seen, track_reported(&t));
		ASSERT_EQ(seen, !!t.kinds[PAGE]);
		ASSERT_EQ(!seen, track_missed(&t));
	}
	track_close(&t);
}

/* Nor by a tracker in mode fast. */
TEST_F_TIMEOUT(kvm, track_fast, TEST_SECONDS)
{
	track_guest(_metadata, self, MMOPS_TRACK_FAST);
}

/* One in mode full takes the entry that KVM has, and the next store faults. */
TEST_F_TIMEOUT(kvm, track_full, TEST_SECONDS)
{
	track_guest(_metadata, self, MMOPS_TRACK_FULL);
}

/*
 * A tracker of the file sees it in both modes: to begin an epoch takes the entries of
 * KVM, which tells of each page that it enters again so that the guest can store. That
 * may be one that the guest only reads.
 */
TEST_F_TIMEOUT(kvm, track_file, TEST_SECONDS)
{
	struct tracker t;
	unsigned int i;

	for (i = 0; i < 6; i++) {
		track_mode = i < 3 ? MMOPS_TRACK_FAST : MMOPS_TRACK_FULL;
		if (i % 3 == 0) {
			ASSERT_EQ(0, track_open_file(&t, self->fd, 0, self->map, PAGES));
			ASSERT_EPOCH(&t);
			ASSERT_EPOCH(&t);
			ASSERT_EQ(0, track_reported(&t));
		}
		ASSERT_EQ(0, guest_store(self, PAGE, 22 + i));
		ASSERT_EQ(0, guest_store(self, PAGE, 44 + i));
		ASSERT_EPOCH(&t);
		ASSERT_NE(0, t.kinds[PAGE]);
		ASSERT_LE(track_reported(&t), 2);
		ASSERT_EPOCH(&t);
		ASSERT_EQ(0, track_reported(&t));
		if (i % 3 == 2)
			track_close(&t);
	}
}

/* What KVM tells of the virtual processor it stores by itself, whatever the entries are. */
TEST_F_TIMEOUT(kvm, track_state, TEST_SECONDS)
{
	unsigned int i;

	for (i = 0; i < 2; i++) {
		struct tracker t;

		track_mode = i ? MMOPS_TRACK_FULL : MMOPS_TRACK_FAST;
		ASSERT_EQ(0, track_open(&t, (char *)self->run, 1));
		ASSERT_EPOCH(&t);
		ASSERT_EPOCH(&t);
		self->run->exit_reason = KVM_EXIT_UNKNOWN;
		ASSERT_EPOCH(&t);
		ASSERT_EQ(0, guest_store(self, PAGE, 22 + i));
		ASSERT_EQ(1, track_missed(&t));
		ASSERT_EPOCH(&t);
		ASSERT_EQ(MMOPS_TRACK_CHANGED, t.kinds[0]);
		track_close(&t);
	}
}

/* What the monitor itself stores is seen beside it. */
TEST_F_TIMEOUT(kvm, store_of_monitor, TEST_SECONDS)
{
	ASSERT_EQ(0, guest_store(self, PAGE, 22));
	store(self->map, PAGE + 1, 44);
	ASSERT_EQ(1, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_EQ(1, count_bits(self->h.bitmap, self->h.bits));
	ASSERT_TRUE(test_bit(self->h.bitmap, PAGE + 1));
}

/* KVM is told of a write protection, and the next store of the guest asks the entry. */
TEST_F_TIMEOUT(kvm, write_protect, TEST_SECONDS)
{
	ASSERT_EQ(PAGES, write_protect(self->dev, self->fd, 0, PAGES));
	ASSERT_EQ(0, guest_store(self, PAGE, 22));
	ASSERT_EQ(1, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
	ASSERT_TRUE(test_bit(self->h.bitmap, PAGE));
	ASSERT_EQ(22, load(self->map, PAGE) & 0xff);
	/* Once. */
	reset_harvest(&self->h);
	ASSERT_EQ(0, guest_store(self, PAGE, 33));
	ASSERT_EQ(0, clean_record(self->dev, self->fd, 0, PAGES, &self->h));
}

/* Soft-dirty is seen for the same reason. */
TEST_F_TIMEOUT(kvm, soft_dirty, TEST_SECONDS)
{
	ASSERT_LE(0, soft_dirty_clear(self->dev, self->map, PAGES));
	ASSERT_EQ(0, pagemap_entry(self->map + PAGE * page_size()) & PAGEMAP_SOFT_DIRTY);
	ASSERT_EQ(0, guest_store(self, PAGE, 22));
	ASSERT_NE(0, pagemap_entry(self->map + PAGE * page_size()) & PAGEMAP_SOFT_DIRTY);
	ASSERT_EQ(0, pagemap_entry(self->map + (PAGE + 1) * page_size()) & PAGEMAP_SOFT_DIRTY);
	ASSERT_EQ(22, load(self->map, PAGE) & 0xff);
}

TEST_HARNESS_MAIN
