// SPDX-License-Identifier: GPL-2.0
/*
 * Trackers of files: all that changes a file at once, and the controls. They leave out one
 * rule each; then a change has to be missed.
 */
#include <pthread.h>

#include <linux/falloc.h>

#include "swap.h"
#include "track_file.h"

FIXTURE_FAULTS(file);

/* Everything at once; the copies are what the file is in the end. */
struct busy {
	int fd;
	char *map;
	int seed;
	bool forks;
	atomic_bool *stop;
};

static void *change_all_the_time(void *arg)
{
	struct busy *busy = arg;
	struct rng rng = { .state = test_seed() + busy->seed };
	struct mmops_zap zap = { .pidfd = -1 };
	struct harvest h = new_harvest(PAGES);
	int dev = open(MMOPS_DEV, O_RDWR | O_CLOEXEC);
	uint64_t value = 0;
	size_t nr, n;
	char *at;
	pid_t pid;

	while (!atomic_load(busy->stop)) {
		nr = 1 + rng_below(&rng, 40);
		n = rng_below(&rng, PAGES - nr);
		at = busy->map + n * page_size();
		value++;
		switch (rng_below(&rng, 14)) {
		case 0:
			madvise(at, nr * page_size(), MADV_DONTNEED);
			break;
		case 1:
			madvise(at, nr * page_size(), MADV_PAGEOUT);
			break;
		case 2:
			fallocate(busy->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  n * page_size() + 7, nr * page_size() - 7);
			break;
		case 3:
			madvise(busy->map, PAGES * page_size(), MADV_HUGEPAGE);
			madvise(busy->map, pmd_size(), MADV_COLLAPSE);
			break;
		case 4:
			zap.addr = (uintptr_t)at;
			zap.len = nr * page_size();
			ioctl(dev, MMOPS_IOC_ZAP, &zap);
			break;
		case 5:
			clean_record(dev, busy->fd, 0, PAGES, &h);
			break;
		case 6:
			sync_file_range(busy->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
			break;
		case 7:
			if (busy->forks) {
				pid = fork();
				if (!pid) {
					at = map_shared(busy->fd, 0, PAGES);
					if (at != NULL)
						store(at, n, value);
					_exit(0);
				}
				waitpid(pid, NULL, 0);
			}
			break;
		case 8:
			store_remotely(busy->map, n, value);
			break;
		case 9:
		case 10:
			if (pwrite(busy->fd, &value, sizeof(value), n * page_size() + 16) < 0)
				return NULL;
			break;
		default:
			store_range(busy->map, n, nr, value);
		}
	}
	close(dev);
	free(h.bitmap);
	return NULL;
}

TEST_F_TIMEOUT(file, everything, TEST_SECONDS)
{
	atomic_bool stop = false;
	struct busy busy[3];
	struct swap_file swap;
	bool has_swap = !add_swap(&swap);
	struct tracker second;
	pthread_t threads[3];
	unsigned int i;

	write_file(THP_ENABLED, "madvise");
	ASSERT_EQ(0, track_open_file(&second, self->fd, 0, self->map, PAGES));
	for (i = 0; i < 3; i++) {
		busy[i] = (struct busy){
			.fd = self->fd, .map = self->map, .seed = i, .forks = !i, .stop = &stop,
		};
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, change_all_the_time, &busy[i]));
	}
	for (i = 0; i < rounds(40); i++) {
		ASSERT_EQ(0, track_epoch(&self->t));
		ASSERT_EQ(0, track_begin(&second));
		if (rng_below(&self->rng, 3)) {
			track_copy(&second);
			ASSERT_EQ(0, track_end(&second, 0));
		} else {
			ASSERT_EQ(0, track_end(&second, MMOPS_TRACK_ABORT));
		}
	}
	atomic_store(&stop, true);
	for (i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	ASSERT_EPOCH(&self->t);
	ASSERT_EPOCH(&second);
	track_close(&second);
	if (has_swap) {
		ASSERT_EQ(0, remove_swap(&swap));
	}
	ASSERT_QUIET();
}

/*
 * Controls: what the kernel tells, what others of the crate tell, what is looked for in
 * the entries, what comes late, and aborted epochs.
 */
#define END_RULE(n, fault)							\
do {										\
	ASSERT_EQ(0, track_epoch(&self->t));					\
	ASSERT_EQ(0, set_fault(fault, 0));					\
	ASSERT_EQ(n, track_missed(&self->t));					\
} while (0)

TEST_FAULTS(file, control_skip_stored)
{
	ASSERT_EQ(0, set_fault(TRACK_SKIP_STORED, 1));
	ASSERT_EQ(0, write_to(self, 300, 1));
	store_elsewhere(_metadata, self, 310, true);
	store(self->map, 320, 3);
	ASSERT_EQ(0, madvise(page(self, 320), page_size(), MADV_DONTNEED));
	END_RULE(3, TRACK_SKIP_STORED);
	END_FAULTS();
}

TEST_FAULTS(file, control_skip_replaced)
{
	ASSERT_EQ(0, set_fault(TRACK_SKIP_REPLACED, 1));
	/* The first page and the last are zeroed, in part, and marked dirty for that. */
	ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       400 * page_size(), 4 * page_size()));
	END_RULE(4, TRACK_SKIP_REPLACED);
	END_FAULTS();
}

TEST_FAULTS(file, control_skip_walk)
{
	ASSERT_EQ(0, set_fault(TRACK_SKIP_WALK, 1));
	store(self->map, 300, 1);
	END_RULE(1, TRACK_SKIP_WALK);
	END_FAULTS();
}

TEST_FAULTS(file, control_skip_tell)
{
	struct harvest h = new_harvest(PAGES);

	ASSERT_EQ(0, set_fault(FILEMAP_SKIP_TELL, 1));
	store(self->map, 300, 1);
	ASSERT_EQ(1, clean_record(self->dev, self->fd, FIRST, PAGES - FIRST, &h));
	/* The entry is writable still, which mode full takes for a store. */
	END_RULE(!variant->full, FILEMAP_SKIP_TELL);
	END_FAULTS();
	free(h.bitmap);
}

TEST_FAULTS(file, control_skip_abort)
{
	ASSERT_EQ(0, set_fault(TRACK_SKIP_ABORT, 1));
	store(self->map, 300, 1);
	ASSERT_EQ(0, track_begin(&self->t));
	ASSERT_EQ(0, track_end(&self->t, MMOPS_TRACK_ABORT));
	END_RULE(1, TRACK_SKIP_ABORT);
	END_FAULTS();
}

static void *begin(void *arg)
{
	FIXTURE_DATA(file) *self = arg;

	atomic_store(&self->ret, track_begin(&self->t));
	atomic_store(&self->over, true);
	return NULL;
}

/* The entry goes when the marks were taken, and before the walk has come to it. */
static void begin_late(struct __test_metadata *_metadata, FIXTURE_DATA(file) *self, bool left_out)
{
	pthread_t thread;

	ASSERT_EQ(0, set_fault(TRACK_SKIP_LATE, left_out));
	ASSERT_EQ(0, close_gate(TRACK_MARKS_TAKEN, 1));
	store(self->map, 300, 1003 + left_out);
	atomic_store(&self->over, false);
	ASSERT_EQ(0, pthread_create(&thread, NULL, begin, self));
	ASSERT_TRUE(wait_at_gate(TRACK_MARKS_TAKEN, 1, &self->over));
	ASSERT_EQ(0, madvise(page(self, 300), page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, open_gate(TRACK_MARKS_TAKEN));
	pthread_join(thread, NULL);
	ASSERT_EQ(0, self->ret);
	ASSERT_EQ(!left_out, !!IS_REPORTED(300));
	track_copy(&self->t);
	ASSERT_EQ(left_out, track_missed(&self->t));
	ASSERT_EQ(0, track_end(&self->t, 0));
	ASSERT_EQ(0, set_fault(TRACK_SKIP_LATE, 0));
	ASSERT_EPOCH(&self->t);
}

TEST_FAULTS(file, control_skip_late)
{
	begin_late(_metadata, self, false);
	begin_late(_metadata, self, true);
	END_FAULTS();
}

TEST_HARNESS_MAIN
