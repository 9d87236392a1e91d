// SPDX-License-Identifier: GPL-2.0
/*
 * A garbage collector that finds out by soft-dirty bits what was stored to: bdwgc,
 * Debian's libgc. It clears them by writing to clear_refs, which goes to /dev/mmops here
 * (kernel/clear_refs_preload.c).
 *
 * Each of its minor collections looks at old objects only where a page is soft-dirty.
 * The client has new objects that are known to one old object alone: where a store is
 * missed, the collector frees what is in use.
 */
#include "mmops_selftest.h"
#include "kselftest_harness.h"

#include <libgen.h>

#include <gc.h>

#define OLD	5000
#define ROUNDS	20
#define STORES	500		/* a round */
#define GARBAGE	(4UL << 20)	/* a round, in bytes */

struct node {
	struct node *next;
	unsigned long number;
	char rest[112];
};

/* What the client has found. */
struct found {
	unsigned long collections;
	unsigned long wrong;
	unsigned long redirected;
};

/* Of the preload library. */
void __attribute__((weak)) hide_soft_dirty(void);

static int client(bool hide)
{
	static unsigned long expected[OLD];
	static struct node *old[OLD];
	unsigned long number = 0, wrong = 0, first;
	struct rng rng = { test_seed() };
	size_t i, used;
	int round;

	GC_INIT();
	GC_set_time_limit(GC_TIME_UNLIMITED);	/* generations, no increments */
	GC_enable_incremental();
	if (!GC_is_incremental_mode())
		return 2;
	for (i = 0; i < OLD; i++)
		old[i] = GC_MALLOC(sizeof(*old[i]));
	GC_gcollect();
	if (hide)
		hide_soft_dirty();

	first = GC_get_gc_no();
	for (round = 0; round < ROUNDS; round++) {
		for (i = 0; i < STORES; i++) {
			size_t at = rng_below(&rng, OLD);

			old[at]->next = GC_MALLOC(sizeof(struct node));
			old[at]->next->number = expected[at] = ++number;
		}
		for (used = 0; used < GARBAGE; used += sizeof(struct node))
			((struct node *)GC_MALLOC(sizeof(struct node)))->number = -1;
	}
	for (i = 0; i < OLD; i++)
		wrong += (old[i]->next ? old[i]->next->number : 0) != expected[i];
	printf("\nclient: %lu %lu\n", GC_get_gc_no() - first, wrong);
	return 0;
}

/* Runs the client with the library. 0 or -errno, and what it said. */
static int run_client(const char *how, struct found *found, char *text, size_t size)
{
	char exe[256], dir[256], library[512], command[2048];
	size_t len = 0, nr;
	ssize_t end;
	FILE *out;
	char *at;

	end = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (end < 0)
		return -errno;
	exe[end] = 0;
	strcpy(dir, exe);
	snprintf(library, sizeof(library), "%s/clear_refs_preload.so", dirname(dir));
	/* The collector itself says by which bits it goes. */
	snprintf(command, sizeof(command),
		 "LD_PRELOAD=%s GC_USE_GETWRITEWATCH=1 GC_PRINT_STATS=1 %s %s 2>&1",
		 library, exe, how);
	out = popen(command, "r");
	if (!out)
		return -errno;
	while (len < size - 1 && (nr = fread(text + len, 1, size - 1 - len, out)))
		len += nr;
	text[len] = 0;
	if (pclose(out))
		return -ECHILD;
	at = strstr(text, "\nclient: ");
	if (!at || sscanf(at, "\nclient: %lu %lu", &found->collections, &found->wrong) != 2)
		return -ENOMSG;
	at = strstr(text, " writes to clear_refs went to /dev/mmops");
	while (at && at > text && at[-1] != ' ')
		at--;
	found->redirected = at ? strtoul(at, NULL, 10) : 0;
	return 0;
}

FIXTURE(collector)
{
	char *text;
	size_t size;
	struct found found;
};

FIXTURE_SETUP(collector)
{
	self->size = 4 << 20;
	self->text = malloc(self->size);
	ASSERT_NE(NULL, self->text);
}

FIXTURE_TEARDOWN(collector)
{
	free(self->text);
}

/* Runs the client; it has to have gone by soft-dirty bits that mmops clears. */
#define RUN_CLIENT(how)								\
do {										\
	int _ret = run_client(how, &self->found, self->text, self->size);	\
										\
	ASSERT_EQ(0, _ret)							\
		TH_LOG("%s", self->text);					\
	ASSERT_NE(NULL, strstr(self->text, "Using soft-dirty bit feature"));	\
	ASSERT_LT(10, self->found.collections);					\
	ASSERT_LE(self->found.collections, self->found.redirected);		\
} while (0)

TEST_F(collector, frees_nothing_that_is_in_use)
{
	RUN_CLIENT("--client");
	ASSERT_EQ(0, self->found.wrong);
}

/* The collector is told that nothing was stored to: what the test above relies on. */
TEST_F(collector, control_nothing_is_soft_dirty)
{
	RUN_CLIENT("--client-that-hides");
	ASSERT_LT(0, self->found.wrong);
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--client"))
		return client(false);
	if (argc == 2 && !strcmp(argv[1], "--client-that-hides"))
		return client(true);
	return test_harness_run(argc, argv);
}
