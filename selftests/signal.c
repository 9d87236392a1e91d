// SPDX-License-Identifier: GPL-2.0
/*
 * A fatal signal in the middle of a long range: the process dies soon, and
 * what its call did is complete and reported.
 *
 * The argument and the bitmap lie in memory that the parent shares, so it can
 * read how far the call of a killed child got.
 */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/time.h>

#include "mmops_selftest.h"
#include "kselftest_harness.h"

#define PAGES	8192UL
/* Mappings of the whole file, so that a call takes long with little memory. */
#define COPIES	8
#define TRIES	40

struct shared {
	volatile bool calling;
	volatile int error;	/* errno of a call that failed; 0 if it returned nothing */
	volatile bool returned;
	struct mmops_clean_record clean;
	struct mmops_write_protect protect;
	uint64_t bitmap[PAGES / BITS_PER_WORD];
};

FIXTURE(fatal)
{
	int dev, fd;
	char *maps[COPIES];
	struct shared *s;
	uint64_t call_ns;
};

FIXTURE_SETUP(fatal)
{
	int i;

	OPEN_DEV(self->dev, MMOPS_DEV);
	self->fd = new_memfd(PAGES);
	ASSERT_GE(self->fd, 0);
	for (i = 0; i < COPIES; i++) {
		self->maps[i] = map_shared(self->fd, 0, PAGES);
		ASSERT_NE(self->maps[i], NULL);
	}
	self->s = mmap(NULL, sizeof(*self->s), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(self->s, MAP_FAILED);
}

FIXTURE_TEARDOWN(fatal)
{
}

static void dirty_all(FIXTURE_DATA(fatal) *self)
{
	int i;

	for (i = 0; i < COPIES; i++)
		store_range(self->maps[i], 0, PAGES, 1);
}

/* In the child: one call, whose argument and result the parent sees. */
static void call(FIXTURE_DATA(fatal) *self, bool clean)
{
	struct shared *s = self->s;
	int ret;

	s->calling = true;
	if (clean)
		ret = ioctl(self->dev, MMOPS_IOC_CLEAN_RECORD, &s->clean);
	else
		ret = ioctl(self->dev, MMOPS_IOC_WRITE_PROTECT, &s->protect);
	s->error = ret ? errno : 0;
	s->returned = true;
}

static void prepare(FIXTURE_DATA(fatal) *self)
{
	struct shared *s = self->s;

	dirty_all(self);
	memset(s, 0, sizeof(*s));
	s->clean = (struct mmops_clean_record){
		.fd = self->fd, .nr = PAGES, .bitmap = (uintptr_t)s->bitmap,
		.bitmap_bits = PAGES, .cleaned = ~0ULL, .done = ~0ULL,
	};
	s->protect = (struct mmops_write_protect){
		.fd = self->fd, .nr = PAGES, .write_protected = ~0ULL, .done = ~0ULL,
	};
}

/* Start a child that calls, and kill it @us microseconds into the call. */
static int kill_within(FIXTURE_DATA(fatal) *self, bool clean, uint64_t us, uint64_t *died_ns)
{
	struct shared *s = self->s;
	uint64_t end;
	int status;
	pid_t pid;

	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		call(self, clean);
		while (true)
			pause();
	}
	while (!s->calling)
		sched_yield();
	for (end = now_ns() + us * 1000; now_ns() < end;)
		;
	end = now_ns();
	kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) != pid)
		return -errno;
	*died_ns = now_ns() - end;
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 0 : -EPROTO;
}

/* How long an undisturbed call takes. */
static void measure(struct __test_metadata *_metadata, FIXTURE_DATA(fatal) *self, bool clean)
{
	prepare(self);
	self->call_ns = now_ns();
	call(self, clean);
	self->call_ns = now_ns() - self->call_ns;
	ASSERT_EQ(0, self->s->error);
}

TEST_F_TIMEOUT(fatal, clean_record, TEST_SECONDS)
{
	struct mmops_clean_record *arg = &self->s->clean;
	unsigned int try, n = rounds(TRIES), interrupted = 0;
	struct harvest rest = new_harvest(PAGES);
	struct rng rng = { test_seed() };

	measure(_metadata, self, true);
	ASSERT_EQ(PAGES * COPIES, arg->cleaned);
	for (try = 0; try < n; try++) {
		uint64_t died_ns, page;
		int64_t left;

		prepare(self);
		ASSERT_EQ(0, kill_within(self, true, rng_below(&rng, self->call_ns / 1000 + 1),
					 &died_ns));
		/* Between two page tables there is a way out. */
		EXPECT_LT(died_ns, 5000000000ULL);
		reset_harvest(&rest);
		left = clean_record(self->dev, self->fd, 0, PAGES, &rest);
		ASSERT_GE(left, 0);
		if (arg->done == ~0ULL) {
			/* Died before the call began its work, or after it without a report. */
			ASSERT_EQ(PAGES * COPIES, left);
			continue;
		}
		ASSERT_LE(arg->done, PAGES);
		ASSERT_EQ(PAGES * COPIES, arg->cleaned + left);
		for (page = 0; page < PAGES; page++) {
			/* Each page is in the report of the one, of the other, or of both. */
			ASSERT_TRUE(test_bit(self->s->bitmap, page) || test_bit(rest.bitmap, page));
			if (page < arg->done) {
				ASSERT_TRUE(test_bit(self->s->bitmap, page));
				ASSERT_FALSE(test_bit(rest.bitmap, page));
			}
		}
		if (arg->done < PAGES)
			interrupted++;
	}
	TH_LOG("%u of %u calls were interrupted", interrupted, n);
	if (!interrupted)
		SKIP(return, "no signal met the call, which takes %llu us",
		     (unsigned long long)self->call_ns / 1000);
}

TEST_F_TIMEOUT(fatal, write_protect, TEST_SECONDS)
{
	struct mmops_write_protect *arg = &self->s->protect;
	unsigned int try, n = rounds(TRIES), interrupted = 0;
	struct rng rng = { test_seed() };

	measure(_metadata, self, false);
	ASSERT_EQ(PAGES * COPIES, arg->write_protected);
	for (try = 0; try < n; try++) {
		uint64_t died_ns;
		int64_t left;

		prepare(self);
		ASSERT_EQ(0, kill_within(self, false, rng_below(&rng, self->call_ns / 1000 + 1),
					 &died_ns));
		EXPECT_LT(died_ns, 5000000000ULL);
		if (arg->done == ~0ULL) {
			ASSERT_EQ(PAGES * COPIES, write_protect(self->dev, self->fd, 0, PAGES));
			continue;
		}
		ASSERT_LE(arg->done, PAGES);
		if (arg->done) {
			ASSERT_EQ(0, write_protect(self->dev, self->fd, 0, arg->done));
		}
		left = write_protect(self->dev, self->fd, 0, PAGES);
		ASSERT_EQ(PAGES * COPIES, arg->write_protected + left);
		if (arg->done < PAGES)
			interrupted++;
	}
	TH_LOG("%u of %u calls were interrupted", interrupted, n);
	if (!interrupted)
		SKIP(return, "no signal met the call, which takes %llu us",
		     (unsigned long long)self->call_ns / 1000);
}

static void on_signal(int sig)
{
}

/* A signal that is handled does not end the call. */
TEST_F_TIMEOUT(fatal, handled_signal, TEST_SECONDS)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct itimerval timer = { { 0, 200 }, { 0, 200 } };
	unsigned int i;

	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	for (i = 0; i < 5; i++) {
		prepare(self);
		ASSERT_EQ(0, setitimer(ITIMER_REAL, &timer, NULL));
		call(self, i % 2);
		setitimer(ITIMER_REAL, &(struct itimerval){}, NULL);
		ASSERT_EQ(0, self->s->error);
		ASSERT_EQ(PAGES * COPIES,
			  i % 2 ? self->s->clean.cleaned : self->s->protect.write_protected);
	}
}

TEST_HARNESS_MAIN
