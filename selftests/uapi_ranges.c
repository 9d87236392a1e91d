// SPDX-License-Identifier: GPL-2.0
/*
 * Random arguments for the calls on ranges of addresses: the errno is that of the
 * first thing that is wrong, and a call that fails changes nothing.
 */
#include "fuzz.h"
#include "kselftest_harness.h"

/* Pages of a range that a call tells of one by one. */
#define MAX_RESULTS	256UL

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

/* A tracker, of which the first epoch has all of its range; and that no page was touched by it. */
TEST_F_TIMEOUT(ranges, fuzz_track_open, TEST_SECONDS)
{
	unsigned int i, n = rounds(1000), succeeded = 0;
	struct area *area = &self->area;
	struct rng rng = { test_seed() };
	size_t page;

	for (i = 0; i < n; i++) {
		int dev = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
		struct mmops_track_open arg, before;
		struct mmops_track_begin begin = {};
		uint64_t may = 0;
		uint32_t mode;

		ASSERT_GE(dev, 0);
		arg.pidfd = area_random_pidfd(area, &rng, &may);
		arg.flags = mostly(&rng) ? MMOPS_TRACK_FAST << rng_below(&rng, 2) :
					   random_word(&rng) & ~MMOPS_TRACK_FILE;
		arg.flags ^= rng_below(&rng, 2) ? MMOPS_TRACK_KINDS : 0;
		area_random_range(area, &rng, &arg.addr, &arg.len);
		random_reserved(&rng, arg.reserved, 2);
		before = arg;
		mode = arg.flags & ~MMOPS_TRACK_KINDS;
		if ((mode != MMOPS_TRACK_FAST && mode != MMOPS_TRACK_FULL) ||
		    !is_addr_range(arg.addr, arg.len))
			may |= MAY(EINVAL);
		may |= reserved_errors(arg.reserved, 2);

		errno = 0;
		if (ioctl(dev, MMOPS_IOC_TRACK_OPEN, &arg)) {
			ASSERT_FUZZ_ERROR(may, &arg, &before, i);
			ASSERT_EQ(-1, ioctl(dev, MMOPS_IOC_TRACK_BEGIN, &begin));
			ASSERT_EQ(ENODEV, errno);
		} else {
			bool overflow = arg.len / page_size() > 1UL << 24;

			ASSERT_FUZZ_SUCCESS(may, i);
			ASSERT_EQ(0, memcmp(&arg, &before, sizeof(arg)));
			ASSERT_EQ(0, ioctl(dev, MMOPS_IOC_TRACK_BEGIN, &begin));
			ASSERT_EQ(overflow ? MMOPS_TRACK_OVERFLOW : 0, begin.state);
			ASSERT_EQ(arg.len / page_size(), begin.written + begin.changed);
			succeeded++;
		}
		close(dev);
		for (page = 0; page < AREA_PAGES; page++) {
			if (area_is_writable(area, page)) {
				ASSERT_EQ(1 + page, load(area->map, page));
			}
		}
	}
	ASSERT_GT(succeeded, n / 10);
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
		arg.flags = mostly(&rng) ? rng_below(&rng, 2) * MMOPS_PROTECT_LARGE :
					   random_word(&rng);
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

		if (arg.flags & ~MMOPS_PROTECT_LARGE || arg.pad ||
		    arg.prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC))
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

TEST_F_TIMEOUT(ranges, fuzz_age, TEST_SECONDS)
{
	unsigned int i, n = rounds(3000), succeeded = 0, inside = 0;
	struct area *area = &self->area;
	uint64_t start = (uintptr_t)area->map, end = start + AREA_PAGES * page_size();
	struct mmops_age all = { .pidfd = -1, .addr = start, .len = end - start };
	struct rng rng = { test_seed() };
	bool young[AREA_PAGES] = {};
	size_t page;

	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_AGE, &all));
	for (i = 0; i < n; i++) {
		struct mmops_age arg, before;
		uint64_t may = 0, aged = 0;

		for (page = 0; page < AREA_PAGES; page++) {
			if (area->kind[page] == AREA_HOLE || rng_below(&rng, 4))
				continue;
			if (area_is_writable(area, page) && rng_below(&rng, 2))
				store(area->map, page, 1 + page);
			ASSERT_EQ(area_is_writable(area, page) ? 1 + page : 0,
				  load(area->map, page));
			young[page] = true;
		}
		arg.pidfd = area_random_pidfd(area, &rng, &may);
		arg.flags = mostly(&rng) ? 0 : random_word(&rng);
		area_random_range(area, &rng, &arg.addr, &arg.len);
		arg.aged = rng_next(&rng);
		arg.kept = rng_next(&rng);
		arg.done = rng_next(&rng);
		random_reserved(&rng, arg.reserved, ARRAY_SIZE(arg.reserved));
		before = arg;
		if (arg.flags || !is_addr_range(arg.addr, arg.len))
			may |= MAY(EINVAL);
		may |= reserved_errors(arg.reserved, ARRAY_SIZE(arg.reserved));

		errno = 0;
		/* What is young stays so with an error: the next call counts it. */
		if (ioctl(self->dev, MMOPS_IOC_AGE, &arg)) {
			ASSERT_FUZZ_ERROR(may, &arg, &before, i);
			continue;
		}
		ASSERT_FUZZ_SUCCESS(may, i);
		succeeded++;
		for (page = 0; page < AREA_PAGES; page++) {
			if (area_in_range(area, page, arg.addr, arg.len)) {
				aged += young[page];
				young[page] = false;
			}
		}
		/* Behind the area there may be other memory. */
		if (arg.addr >= start && arg.addr + arg.len <= end) {
			inside++;
			ASSERT_EQ(aged, arg.aged);
			ASSERT_EQ(0, arg.kept);
		} else {
			ASSERT_GE(arg.aged, aged);
		}
		ASSERT_EQ(arg.len, arg.done);
		before.aged = arg.aged;
		before.kept = arg.kept;
		before.done = arg.done;
		ASSERT_EQ(0, memcmp(&arg, &before, sizeof(arg)));
	}
	ASSERT_GT(inside, n / 10);
	ASSERT_LT(succeeded, n);
}

/* Records for the calls of a tracker; behind them there is memory that cannot be written. */
#define TRACK_VEC	512UL
static struct mmops_track_range track_vec[2 * TRACK_VEC] __attribute__((aligned(4096)));

/* The calls of a tracker in any order, and what they have to report. */
struct track_model {
	bool is_open;
	bool stored[AREA_PAGES];	/* since the last begin */
	bool in_epoch[AREA_PAGES];
};

static unsigned int wanted_kind(const struct area *area, const struct track_model *model,
				size_t page)
{
	if (area->kind[page] == AREA_HOLE)
		return MMOPS_TRACK_CHANGED;
	return model->in_epoch[page] ? MMOPS_TRACK_WRITTEN : 0;
}

static bool fuzz_track_begin(struct __test_metadata *_metadata, int dev, const struct area *area,
			     struct rng *rng, struct track_model *model, unsigned int call)
{
	struct mmops_track_begin arg, before;
	uint64_t may = 0, nr[3] = {};
	size_t page;

	arg.flags = mostly(rng) ? 0 : random_word(rng);
	arg.state = rng_next(rng);
	arg.written = rng_next(rng);
	arg.changed = rng_next(rng);
	random_reserved(rng, arg.reserved, ARRAY_SIZE(arg.reserved));
	before = arg;
	if (arg.flags)
		may |= MAY(EINVAL);
	if (model->is_open)
		may |= MAY(EBUSY);
	may |= reserved_errors(arg.reserved, ARRAY_SIZE(arg.reserved));

	errno = 0;
	if (ioctl(dev, MMOPS_IOC_TRACK_BEGIN, &arg)) {
		ASSERT_FUZZ_ERROR(may, &arg, &before, call);
		return false;
	}
	ASSERT_FUZZ_SUCCESS(may, call);
	model->is_open = true;
	for (page = 0; page < AREA_PAGES; page++) {
		model->in_epoch[page] = model->stored[page];
		model->stored[page] = false;
		nr[wanted_kind(area, model, page)]++;
	}
	ASSERT_EQ(0, arg.state);
	ASSERT_EQ(nr[MMOPS_TRACK_WRITTEN], arg.written);
	ASSERT_EQ(nr[MMOPS_TRACK_CHANGED], arg.changed);
	before.state = arg.state;
	before.written = arg.written;
	before.changed = arg.changed;
	ASSERT_EQ(0, memcmp(&arg, &before, sizeof(arg)));
	return true;
}

static bool fuzz_track_read(struct __test_metadata *_metadata, int dev, const struct area *area,
			    struct rng *rng, const struct track_model *model, unsigned int call)
{
	uint64_t start = (uintptr_t)area->map, end = start + AREA_PAGES * page_size();
	unsigned int kinds[AREA_PAGES] = {};
	struct mmops_track_read arg, before;
	uint64_t may = 0, fault = 0, behind, i;
	bool good_vec = mostly(rng);
	size_t page;

	arg.addr = mostly(rng) ? start + rng_below(rng, AREA_PAGES * page_size()) :
		   random_word(rng);
	arg.vec = good_vec ? (uintptr_t)track_vec :
		  rng_below(rng, 2) ? (uintptr_t)&track_vec[TRACK_VEC] :
		  random_word(rng) | 1ULL << 63;
	arg.vec_len = mostly(rng) ? rng_below(rng, 100) : random_word(rng);
	arg.nr = rng_next(rng);
	arg.needed = rng_next(rng);
	random_reserved(rng, arg.reserved, ARRAY_SIZE(arg.reserved));
	before = arg;
	if (arg.vec_len > ~0ULL / sizeof(track_vec[0]))
		may |= MAY(EINVAL);
	if (!model->is_open)
		may |= MAY(ENOENT);
	may |= reserved_errors(arg.reserved, ARRAY_SIZE(arg.reserved));
	/* Only what is written may fault. */
	if (!good_vec)
		fault = MAY(EFAULT);

	errno = 0;
	if (ioctl(dev, MMOPS_IOC_TRACK_READ, &arg)) {
		int error = errno;

		if (error == EFAULT) {
			before.addr = arg.addr;
			before.nr = arg.nr;
			before.needed = arg.needed;
		}
		errno = error;
		ASSERT_FUZZ_ERROR(may | fault, &arg, &before, call);
		return false;
	}
	ASSERT_FUZZ_SUCCESS(may, call);
	ASSERT_EQ(min(arg.needed, arg.vec_len), arg.nr);
	ASSERT_LE(arg.nr, good_vec ? TRACK_VEC : 0);
	behind = max(before.addr, start);
	for (i = 0; i < arg.nr; i++) {
		const struct mmops_track_range *range = &track_vec[i];

		ASSERT_GE(range->addr, behind);
		ASSERT_GT(range->len, 0);
		ASSERT_LE(range->len, end - range->addr);
		ASSERT_EQ(0, (range->addr | range->len) % page_size());
		ASSERT_EQ(0, range->reserved);
		behind = range->addr + range->len;
		for (page = 0; page < AREA_PAGES; page++) {
			if (area_in_range(area, page, range->addr, range->len))
				kinds[page] = range->kind;
		}
	}
	ASSERT_EQ(arg.nr ? behind : before.addr, arg.addr);
	/* All of those that there was room for. */
	for (page = 0; page < AREA_PAGES; page++) {
		uint64_t at = (uintptr_t)area_addr(area, page);

		if (at < before.addr || (arg.nr < arg.needed && at >= arg.addr))
			continue;
		ASSERT_EQ(wanted_kind(area, model, page), kinds[page]) {
			TH_LOG("call %u, page %zu", call, page);
		}
	}
	before.addr = arg.addr;
	before.nr = arg.nr;
	before.needed = arg.needed;
	ASSERT_EQ(0, memcmp(&arg, &before, sizeof(arg)));
	return true;
}

static bool fuzz_track_end(struct __test_metadata *_metadata, int dev, struct rng *rng,
			   struct track_model *model, unsigned int call)
{
	struct mmops_track_end arg, before;
	uint64_t may = 0;
	size_t page;

	arg.flags = mostly(rng) ? rng_below(rng, 2) * MMOPS_TRACK_ABORT : random_word(rng);
	arg.pad = mostly(rng) ? 0 : random_word(rng);
	random_reserved(rng, arg.reserved, ARRAY_SIZE(arg.reserved));
	before = arg;
	if (arg.flags & ~MMOPS_TRACK_ABORT || arg.pad)
		may |= MAY(EINVAL);
	if (!model->is_open)
		may |= MAY(ENOENT);
	may |= reserved_errors(arg.reserved, ARRAY_SIZE(arg.reserved));

	errno = 0;
	if (ioctl(dev, MMOPS_IOC_TRACK_END, &arg)) {
		ASSERT_FUZZ_ERROR(may, &arg, &before, call);
		return false;
	}
	ASSERT_FUZZ_SUCCESS(may, call);
	ASSERT_EQ(0, memcmp(&arg, &before, sizeof(arg)));
	model->is_open = false;
	for (page = 0; page < AREA_PAGES; page++) {
		if (arg.flags & MMOPS_TRACK_ABORT)
			model->stored[page] |= model->in_epoch[page];
		model->in_epoch[page] = false;
	}
	return true;
}

TEST_F_TIMEOUT(ranges, fuzz_track, TEST_SECONDS)
{
	unsigned int i, op, n = rounds(6000), succeeded[3] = {}, tried[3] = {};
	struct area *area = &self->area;
	struct mmops_track_open open_all = {
		.pidfd = area->pidfd,
		.flags = MMOPS_TRACK_FAST,
		.addr = (uintptr_t)area->map,
		.len = AREA_PAGES * page_size(),
	};
	struct mmops_track_begin begin = {};
	struct mmops_track_end commit = {};
	struct rng rng = { test_seed() };
	struct track_model model = {};
	size_t page;

	ASSERT_EQ(0, sizeof(track_vec) / 2 % page_size());
	ASSERT_EQ(0, mprotect(&track_vec[TRACK_VEC], sizeof(track_vec) / 2, PROT_READ));
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_OPEN, &open_all));
	/* The first epoch has all. */
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_BEGIN, &begin));
	ASSERT_EQ(0, ioctl(self->dev, MMOPS_IOC_TRACK_END, &commit));
	for (i = 0; i < n; i++) {
		bool did = false;

		for (page = 0; page < AREA_PAGES; page++) {
			if (area_is_writable(area, page) && !rng_below(&rng, 16)) {
				store(area->map, page, 1 + page);
				model.stored[page] = true;
			}
		}
		op = rng_below(&rng, 3);
		switch (op) {
		case 0:
			did = fuzz_track_begin(_metadata, self->dev, area, &rng, &model, i);
			break;
		case 1:
			did = fuzz_track_read(_metadata, self->dev, area, &rng, &model, i);
			break;
		case 2:
			did = fuzz_track_end(_metadata, self->dev, &rng, &model, i);
		}
		succeeded[op] += did;
		tried[op]++;
	}
	for (op = 0; op < 3; op++) {
		ASSERT_GT(succeeded[op], tried[op] / 10);
		ASSERT_LT(succeeded[op], tried[op]);
	}
	for (page = 0; page < AREA_PAGES; page++) {
		if (area_is_writable(area, page)) {
			ASSERT_EQ(1 + page, load(area->map, page));
		}
	}
}

TEST_HARNESS_MAIN
