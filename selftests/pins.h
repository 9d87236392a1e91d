/* SPDX-License-Identifier: GPL-2.0 */
/* Pages that are pinned as for a device, by the kernel's gup_test. */
#ifndef PINS_H
#define PINS_H

#include "flushes.h"
#include "gup_test.h"
#include "mmops_selftest.h"

#define GUP_TEST_FILE	"/sys/kernel/debug/gup_test"

/* A place for pins, which lets go of them when it is closed. Or -errno. */
static inline int open_pins(void)
{
	int fd = open(GUP_TEST_FILE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* Pin @pages at @map for writing, @fast: without a lock where that goes. 0 or -errno. */
static inline int pin(int fd, const char *map, size_t pages, bool fast)
{
	struct pin_longterm_test arg = {
		.addr = (uintptr_t)map,
		.size = pages * page_size(),
		.flags = PIN_LONGTERM_TEST_FLAG_USE_WRITE |
			 (fast ? PIN_LONGTERM_TEST_FLAG_USE_FAST : 0),
	};

	return ioctl(fd, PIN_LONGTERM_TEST_START, &arg) ? -errno : 0;
}

static inline int unpin(int fd)
{
	return ioctl(fd, PIN_LONGTERM_TEST_STOP) ? -errno : 0;
}

/*
 * Wait until nothing is pinned: the pins of direct I/O go a moment after those who
 * wait for it have been woken. Whether that was so within a minute.
 */
static inline bool wait_for_unpin(void)
{
	int i;

	for (i = 0; i < 60000; i++) {
		/* The figures are sums of what each CPU tells now and then. */
		if (write_file("/proc/sys/vm/stat_refresh", "1"))
			return false;
		if (vmstat("nr_foll_pin_acquired") == vmstat("nr_foll_pin_released"))
			return true;
		usleep(1000);
	}
	return false;
}

#define OPEN_PINS(fd) do {							\
	(fd) = open_pins();							\
	if ((fd) < 0)								\
		SKIP(return, "cannot open " GUP_TEST_FILE ": %s", strerror(-(fd))); \
} while (0)

#endif /* PINS_H */
