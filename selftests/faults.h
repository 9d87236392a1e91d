/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The faults and gates for negative controls, which only a build of mmops.ko
 * with MMOPS_FAULTS=1 has. selftests/Makefile makes fault_names.h from the table in
 * rust/faults.rs: the fault skip_flush is SKIP_FLUSH here.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "fault_names.h"
#include "mmops_selftest.h"

#define FAULTS_DIR	"/sys/kernel/debug/mmops/faults/"

enum fault {
#define FAULT(id, name) id,
	FAULT_NAMES(FAULT)
#undef FAULT
	NR_FAULTS,
	NO_FAULT = NR_FAULTS
};

static const char *const fault_names[] = {
#define FAULT(id, name) name,
	FAULT_NAMES(FAULT)
#undef FAULT
};

static inline bool faults_built_in(void)
{
	return !access(FAULTS_DIR, F_OK);
}

/* Set one fault. 0 or -errno. */
static inline int write_fault(enum fault fault, const char *text)
{
	char path[320];

	snprintf(path, sizeof(path), FAULTS_DIR "%s", fault_names[fault]);
	return write_file(path, text);
}

static inline int set_fault(enum fault fault, unsigned int value)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", value);
	return write_fault(fault, text);
}

/*
 * What a file of the faults holds: of a gate, how many stand there. Without memory of
 * the heap, whose return to the kernel can flush TLBs.
 */
static inline unsigned int get_fault(enum fault fault)
{
	char path[320], text[16] = "";
	int fd;

	snprintf(path, sizeof(path), FAULTS_DIR "%s", fault_names[fault]);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return strtoul(text, NULL, 10);
}

/*
 * Gates. rust/faults.rs says where they are, and what a thread does that stands
 * there: nothing else is needed to come between two steps of the module, and how
 * long the test takes for that does not matter.
 */

/* Longer than the module waits at a gate: reached only by a test that fails. */
#define GATE_SECONDS	120

/* The next @stop threads that come to a gate stop, after @pass that do not. 0 or -errno. */
static inline int close_gate_after(enum fault gate, unsigned int stop, unsigned int pass)
{
	char text[32];

	snprintf(text, sizeof(text), "%u %u", stop, pass);
	return write_fault(gate, text);
}

static inline int close_gate(enum fault gate, unsigned int stop)
{
	return close_gate_after(gate, stop, 0);
}

/* Let go who stands at a gate, and all who come. 0 or -errno. */
static inline int open_gate(enum fault gate)
{
	return set_fault(gate, 0);
}

/*
 * How often a control is tried that needs a store through a TLB entry of before. A CPU
 * may lose such an entry at any time, for instance by a switch to another program, and
 * the round then shows nothing. One is enough on a quiet machine; the first that shows
 * the loss is the last.
 */
#define TLB_ROUNDS	200

/*
 * Wait until @nr threads stand at a gate. False if what they do was @over before,
 * which may be NULL, or if that takes too long.
 */
static inline bool wait_at_gate(enum fault gate, unsigned int nr, atomic_bool *over)
{
	uint64_t end = now_ns() + GATE_SECONDS * 1000000000ULL;

	while (get_fault(gate) < nr) {
		if ((over && atomic_load(over)) || now_ns() > end)
			return false;
		sched_yield();
	}
	return true;
}

/* Time of its CPU that a thread has used. */
static inline uint64_t cpu_ns_of(pthread_t thread)
{
	struct timespec ts;
	clockid_t clock;

	if (pthread_getcpuclockid(thread, &clock) || clock_gettime(clock, &ts))
		return 0;
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/*
 * Wait until the step of a thread is @over. False if that takes too long.
 *
 * With @cpu_ns it may have to spin for the lock of who stands at a gate, as it has to
 * where nothing is to be lost: it is given up when it has used so much of its CPU.
 * Judged too early, the round is worth less, and nothing else.
 */
#define STEP_CPU_NS	100000000ULL

static inline bool wait_for_step(pthread_t thread, atomic_bool *over, uint64_t cpu_ns)
{
	uint64_t end = now_ns() + GATE_SECONDS * 1000000000ULL, first = cpu_ns_of(thread);

	while (!atomic_load(over)) {
		if (now_ns() > end)
			return false;
		if (cpu_ns && cpu_ns_of(thread) > first + cpu_ns)
			break;
		sched_yield();
	}
	return true;
}

/* Open all gates, and set all faults and counts to 0. */
static inline void clear_faults(void)
{
	int i;

	for (i = 0; i < NR_FAULTS; i++)
		set_fault(i, 0);
}

/*
 * Tests of the fault build. run.sh knows one by its fixture, whose name ends in
 * "_faults": FIXTURE_FAULTS() makes it of another fixture, with the same data, set-up
 * and variants, behind which it stands. TEST_FAULTS() is TEST_F_TIMEOUT() for it. The
 * faults are all off at the start of such a test, and at its end.
 */
#define FIXTURE_FAULTS(fixture_name)						\
	FIXTURE(fixture_name ## _faults)					\
	{									\
		FIXTURE_DATA(fixture_name) of_all;				\
	};									\
	static void __attribute__((constructor))				\
	share_variants_of_ ## fixture_name(void)				\
	{									\
		_ ## fixture_name ## _faults_fixture_object.variant =		\
			_ ## fixture_name ## _fixture_object.variant;		\
	}									\
	FIXTURE_SETUP(fixture_name ## _faults)					\
	{									\
		if (!faults_built_in())						\
			SKIP(return, "no " FAULTS_DIR ": "				\
				     "mmops.ko was built without MMOPS_FAULTS=1");	\
		clear_faults();							\
		fixture_name ## _setup(_metadata, &self->of_all, (const void *)variant); \
	}									\
	FIXTURE_TEARDOWN(fixture_name ## _faults)				\
	{									\
		(void)fixture_name ## _teardown_parent;				\
		clear_faults();							\
		fixture_name ## _teardown(_metadata, &self->of_all, (const void *)variant); \
	}									\
	struct fixture_name ## _has_faults

#define TEST_FAULTS(fixture_name, test_name)					\
	static void fixture_name ## _ ## test_name(				\
		struct __test_metadata *_metadata,				\
		FIXTURE_DATA(fixture_name) *self,				\
		const FIXTURE_VARIANT(fixture_name) *variant);			\
	TEST_F_TIMEOUT(fixture_name ## _faults, test_name, TEST_SECONDS)	\
	{									\
		fixture_name ## _ ## test_name(_metadata, &self->of_all, (const void *)variant); \
		END_FAULTS();							\
	}									\
	static void fixture_name ## _ ## test_name(				\
		struct __test_metadata __attribute__((unused)) *_metadata,	\
		FIXTURE_DATA(fixture_name) __attribute__((unused)) *self,	\
		const FIXTURE_VARIANT(fixture_name)				\
			__attribute__((unused)) *variant)

/* All faults are off from here, and no thread was left standing at a gate. */
#define END_FAULTS()								\
do {										\
	ASSERT_EQ(0, get_fault(GATES_GIVEN_UP));				\
	clear_faults();								\
} while (0)

#endif /* FAULTS_H */
