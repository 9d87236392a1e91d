// SPDX-License-Identifier: GPL-2.0
/*
 * Bit-for-bit equality with the kernel's C functions on random layouts.
 *
 * A layout is a file, a few shared mappings of it in two processes and a
 * history of loads, stores, protections and harvests, all drawn from a seed. It
 * is built twice; the kernel's function runs on one, ours on the other. Then
 * what was returned is compared, and what is left in the entries.
 */
#include <mmops_ref.h>

#include "agent.h"
#include "kselftest_harness.h"

/* Of each variant: more than 200 in all on any kernel. */
#define NR_LAYOUTS	110
/* Pages that a step of a history covers at most; fewer where each of them takes long. */
#define MAX_STEP	300UL
#define MAX_STEP_DEBUG	80UL
#define MAX_PAGES	1400UL
#define MAX_VMAS	5
#define MAX_BITS	4096UL
#define SLOT		(5 * PMD_PAGES)

struct vma {
	struct agent *agent;
	char *addr;
	size_t pgoff, pages;
	bool readonly;
};

struct layout {
	struct rng rng;
	int ref, fd;
	size_t pages;
	unsigned int nr_vmas;
	struct vma vmas[MAX_VMAS];
};

/* What a call is given, drawn from the seed. */
struct request {
	uint64_t first, nr;
	uint64_t pgoff, bits;
	uint64_t start, end;
	uint64_t preset[MAX_BITS / BITS_PER_WORD];
};

/* What it returned, and what it left behind. */
struct outcome {
	int64_t cleaned, protected;
	uint64_t start, end;
	uint64_t bitmap[MAX_BITS / BITS_PER_WORD];
	int64_t left_dirty, left_writable;
	uint64_t left_bitmap[MAX_BITS / BITS_PER_WORD];
};

static int64_t ref_dirty(int ref, struct mmops_ref_dirty *arg)
{
	if (ioctl(ref, MMOPS_REF_IOC_DIRTY, arg))
		return -errno;
	return arg->count;
}

static int64_t ref_clean(int ref, int side, int fd, const struct request *rq, uint64_t *bitmap,
			 uint64_t *start, uint64_t *end)
{
	struct mmops_ref_dirty arg = {
		.fd = fd, .op = MMOPS_REF_CLEAN_RECORD, .side = side,
		.first = rq->first, .nr = rq->nr, .bitmap_pgoff = rq->pgoff,
		.bitmap = (uintptr_t)bitmap, .bitmap_bits = rq->bits,
		.start = *start, .end = *end,
	};
	int64_t ret = ref_dirty(ref, &arg);

	*start = arg.start;
	*end = arg.end;
	return ret;
}

static int64_t ref_protect(int ref, int side, int fd, uint64_t first, uint64_t nr)
{
	struct mmops_ref_dirty arg = {
		.fd = fd, .op = MMOPS_REF_WRITE_PROTECT, .side = side,
		.first = first, .nr = nr,
	};

	return ref_dirty(ref, &arg);
}

static struct request random_request(struct rng *rng, size_t pages)
{
	struct request rq = {};
	uint64_t need;
	size_t i;

	rq.first = rng_below(rng, pages + 20);
	rq.nr = 1 + rng_below(rng, rng_below(rng, 4) ? pages + 100 : 8);
	if (!rng_below(rng, 4))
		rq.first = 0;
	rq.pgoff = rq.first - rng_below(rng, min(rq.first, 300UL) + 1);
	need = rq.first + rq.nr - rq.pgoff;
	rq.bits = round_bits(need + rng_below(rng, 130));
	switch (rng_below(rng, 4)) {
	case 0:		/* something is known already */
		rq.start = rng_below(rng, rq.bits);
		rq.end = rq.start + 1 + rng_below(rng, rq.bits - rq.start);
		break;
	case 1:		/* the way to say that nothing is */
		rq.start = ~0ULL;
		break;
	}
	if (rng_below(rng, 2))
		for (i = 0; i < rq.bits / BITS_PER_WORD; i++)
			rq.preset[i] = rng_next(rng) & rng_next(rng);
	return rq;
}

/* One step of the history of a layout. */
static int64_t random_step(struct layout *l)
{
	struct vma *vma = &l->vmas[rng_below(&l->rng, l->nr_vmas)];
	size_t first = rng_below(&l->rng, vma->pages);
	size_t most = is_debug_kernel() ? MAX_STEP_DEBUG : MAX_STEP;
	size_t nr = 1 + rng_below(&l->rng, min(vma->pages - first, most));
	struct agent_cmd cmd = {
		.addr = vma->addr + first * page_size(), .pages = nr, .value = rng_next(&l->rng),
	};
	struct request rq = {
		.first = vma->pgoff + first, .nr = nr, .bits = MAX_BITS,
	};
	uint64_t scratch[MAX_BITS / BITS_PER_WORD] = {}, start = 0, end = 0;

	switch (rng_below(&l->rng, 12)) {
	case 0 ... 4:
		cmd.op = vma->readonly ? AGENT_LOAD : AGENT_STORE;
		break;
	case 5 ... 6:
		cmd.op = AGENT_LOAD;
		break;
	case 7 ... 8:
		return ref_protect(l->ref, MMOPS_REF_KERNEL, l->fd, rq.first, rq.nr);
	case 9:
		return ref_clean(l->ref, MMOPS_REF_KERNEL, l->fd, &rq, scratch, &start, &end);
	case 10:
		cmd.op = AGENT_FORGET;
		break;
	default:
		vma->readonly = !vma->readonly;
		cmd.op = AGENT_PROTECT;
		cmd.addr = vma->addr;
		cmd.pages = vma->pages;
		cmd.prot = vma->readonly ? PROT_READ : PROT_READ | PROT_WRITE;
	}
	if (cmd.op == AGENT_LOAD) {
		agent_run(vma->agent, &cmd);
		return 0;
	}
	return agent_run(vma->agent, &cmd);
}

/* Build the layout of @seed. 0 or -errno. */
static int build(struct layout *l, uint64_t seed, int ref, char *base, struct agent *agent)
{
	struct agent_cmd cmd = { .op = AGENT_MAP, .flags = MAP_SHARED };
	unsigned int i, steps;
	int64_t ret;

	*l = (struct layout){ .rng = { seed }, .ref = ref };
	l->pages = 30 + rng_below(&l->rng, MAX_PAGES - 30);
	l->nr_vmas = 1 + rng_below(&l->rng, MAX_VMAS);
	l->fd = new_memfd(l->pages);
	if (l->fd < 0)
		return -errno;
	ret = agent_start(agent);
	if (ret)
		return ret;
	for (i = 0; i < l->nr_vmas; i++) {
		struct vma *vma = &l->vmas[i];

		vma->agent = rng_below(&l->rng, 2) ? agent : NULL;
		vma->addr = base + (i * SLOT + rng_below(&l->rng, PMD_PAGES)) * page_size();
		vma->pgoff = rng_below(&l->rng, l->pages);
		if (!rng_below(&l->rng, 3))
			vma->pgoff = 0;
		vma->pages = 1 + rng_below(&l->rng, l->pages - vma->pgoff);
		cmd.fd = l->fd;
		cmd.addr = vma->addr;
		cmd.pgoff = vma->pgoff;
		cmd.pages = vma->pages;
		cmd.prot = PROT_READ | PROT_WRITE;
		ret = agent_run(vma->agent, &cmd);
		if (ret)
			return ret;
	}
	steps = 5 + rng_below(&l->rng, 25);
	while (steps--) {
		ret = random_step(l);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* Build the layout of @seed, run one side on it and take it down. 0 or -errno. */
static int run_side(uint64_t seed, int side, int ref, int dev, char *base, struct request *rq,
		    struct outcome *out)
{
	struct request all = { .nr = MAX_BITS, .bits = MAX_BITS };
	uint64_t start = 0, end = 0;
	struct agent agent = {};
	struct layout l;
	unsigned int i;
	int ret;

	memset(out, 0, sizeof(*out));
	ret = build(&l, seed, ref, base, &agent);
	if (ret)
		return ret;
	*rq = random_request(&l.rng, l.pages);
	memcpy(out->bitmap, rq->preset, sizeof(out->bitmap));
	out->start = rq->start;
	out->end = rq->end;
	if (dev < 0) {
		out->cleaned = ref_clean(ref, side, l.fd, rq, out->bitmap, &out->start,
					 &out->end);
		out->protected = ref_protect(ref, side, l.fd, rq->first, rq->nr);
	} else {
		struct harvest h = {
			.bitmap = out->bitmap, .bits = rq->bits, .pgoff = rq->pgoff,
			.start = rq->start, .end = rq->end,
		};

		out->cleaned = clean_record(dev, l.fd, rq->first, rq->nr, &h);
		out->start = h.start;
		out->end = h.end;
		out->protected = write_protect(dev, l.fd, rq->first, rq->nr);
	}

	/* What is left, as the kernel's functions see it on either side. */
	out->left_writable = ref_protect(ref, MMOPS_REF_KERNEL, l.fd, 0, MAX_BITS);
	out->left_dirty = ref_clean(ref, MMOPS_REF_KERNEL, l.fd, &all, out->left_bitmap, &start,
				    &end);

	for (i = 0; i < l.nr_vmas; i++) {
		struct agent_cmd cmd = {
			.op = AGENT_UNMAP, .addr = l.vmas[i].addr, .pages = l.vmas[i].pages,
		};

		if (!l.vmas[i].agent)
			agent_do(&cmd);
	}
	close(l.fd);
	return agent_stop(&agent) ? -ECHILD : 0;
}

/* Lowest set bit that was not set before, or @bits. */
static uint64_t first_new(const struct request *rq, const struct outcome *out)
{
	uint64_t i;

	for (i = 0; i < rq->bits; i++)
		if (test_bit(out->bitmap, i) && !test_bit(rq->preset, i))
			break;
	return i;
}

FIXTURE(layouts)
{
	int dev, ref;
	char *base;
};

FIXTURE_VARIANT(layouts)
{
	bool through_ioctl;
};

/* The operation of the library, called by the module that also calls the kernel's. */
FIXTURE_VARIANT_ADD(layouts, in_kernel) {
	.through_ioctl = false,
};

/* The whole way, with its bitmap chunks. */
FIXTURE_VARIANT_ADD(layouts, through_ioctl) {
	.through_ioctl = true,
};

FIXTURE_SETUP(layouts)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
	OPEN_DEV(self->ref, MMOPS_REF_DEV);
	self->base = reserve(MAX_VMAS * SLOT, 0);
	ASSERT_NE(self->base, NULL);
}

FIXTURE_TEARDOWN(layouts)
{
}

TEST_F_TIMEOUT(layouts, equal_to_kernel, TEST_SECONDS)
{
	uint64_t total = 0, protected = 0;
	struct rng seeds = { test_seed() + variant->through_ioctl };
	struct request rq, same;
	struct outcome c, ours;
	unsigned int i;

	for (i = 0; i < NR_LAYOUTS; i++) {
		uint64_t seed = rng_next(&seeds);
		bool none_set;

		ASSERT_EQ(0, run_side(seed, MMOPS_REF_KERNEL, self->ref, -1, self->base, &rq, &c));
		ASSERT_EQ(0, run_side(seed, MMOPS_REF_MMOPS, self->ref,
				      variant->through_ioctl ? self->dev : -1, self->base, &same,
				      &ours));
		ASSERT_EQ(0, memcmp(&rq, &same, sizeof(rq)));
		ASSERT_GE(c.cleaned, 0);
		ASSERT_GE(c.protected, 0);
		EXPECT_EQ(c.cleaned, ours.cleaned);
		EXPECT_EQ(c.protected, ours.protected);
		EXPECT_EQ(0, memcmp(c.bitmap, ours.bitmap, sizeof(c.bitmap)));

		/*
		 * Where nothing is known on entry, the kernel's function begins
		 * with start = nr, which is not an offset from bitmap_pgoff.
		 */
		none_set = rq.start >= rq.end;
		if (!none_set) {
			EXPECT_EQ(c.start, ours.start);
			EXPECT_EQ(c.end, ours.end);
		} else if (c.cleaned) {
			EXPECT_EQ(c.start, min(rq.nr, ours.start));
			EXPECT_EQ(c.end, ours.end);
			EXPECT_LE(ours.start, first_new(&rq, &ours));
			EXPECT_TRUE(test_bit(ours.bitmap, ours.start));
			EXPECT_TRUE(test_bit(ours.bitmap, ours.end - 1));
		} else {
			EXPECT_EQ(rq.nr, c.start);
			EXPECT_EQ(0, c.end);
			EXPECT_EQ(rq.start, ours.start);
			EXPECT_EQ(rq.end, ours.end);
		}

		EXPECT_EQ(c.left_dirty, ours.left_dirty);
		EXPECT_EQ(c.left_writable, ours.left_writable);
		EXPECT_EQ(0, memcmp(c.left_bitmap, ours.left_bitmap, sizeof(c.left_bitmap)));
		if (_metadata->exit_code) {
			TH_LOG("layout %u, seed %#llx: first %llu nr %llu pgoff %llu", i,
			       (unsigned long long)seed, (unsigned long long)rq.first,
			       (unsigned long long)rq.nr, (unsigned long long)rq.pgoff);
			return;
		}
		total += c.cleaned;
		protected += c.protected;
	}
	/* The layouts must not have been empty. */
	EXPECT_GT(total, NR_LAYOUTS);
	EXPECT_GT(protected, NR_LAYOUTS);
	TH_LOG("%u layouts, %llu dirty and %llu writable entries taken", i,
	       (unsigned long long)total, (unsigned long long)protected);
}

TEST_HARNESS_MAIN
