// SPDX-License-Identifier: GPL-2.0
/*
 * A library for LD_PRELOAD: a program that clears its soft-dirty bits through
 * /proc/self/clear_refs clears them through /dev/mmops instead.
 *
 * Only write(2) of a "4" is redirected, to the file of the process itself.
 * At its end the program tells on standard error how many there were, in a line
 * that TAP takes for a comment.
 *
 * For a control, hide_soft_dirty() makes all that the program reads of its own pagemap
 * from then on clean.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>

#include <linux/mmops.h>

#define PM_SOFT_DIRTY	(1ULL << 55)

static unsigned long redirected;
static bool hides;

void hide_soft_dirty(void)
{
	hides = true;
}

static bool is_own(int fd, const char *name)
{
	char link[64], target[64], own[64];
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, target, sizeof(target) - 1);
	if (len < 0)
		return false;
	target[len] = 0;
	snprintf(own, sizeof(own), "/proc/%d/%s", getpid(), name);
	return !strcmp(target, own);
}

static int clear_soft_dirty(void)
{
	struct mmops_soft_dirty_clear arg = { .pidfd = -1, .flags = MMOPS_SOFT_DIRTY_ALL };
	static int dev = -1;

	if (dev < 0)
		dev = open("/dev/mmops", O_RDWR | O_CLOEXEC);
	return dev < 0 ? -1 : ioctl(dev, MMOPS_IOC_SOFT_DIRTY_CLEAR, &arg);
}

ssize_t write(int fd, const void *buf, size_t count)
{
	static ssize_t (*libc_write)(int fd, const void *buf, size_t count);
	const char *text = buf;

	if (count >= 1 && count <= 2 && text[0] == '4' && (count == 1 || text[1] == '\n') &&
	    is_own(fd, "clear_refs")) {
		redirected++;
		return clear_soft_dirty() ? -1 : (ssize_t)count;
	}
	if (!libc_write)
		libc_write = dlsym(RTLD_NEXT, "write");
	return libc_write(fd, buf, count);
}

ssize_t read(int fd, void *buf, size_t count)
{
	static ssize_t (*libc_read)(int fd, void *buf, size_t count);
	uint64_t *entry = buf;
	ssize_t i, nr;

	if (!libc_read)
		libc_read = dlsym(RTLD_NEXT, "read");
	nr = libc_read(fd, buf, count);
	if (hides && is_own(fd, "pagemap"))
		for (i = 0; i < nr / (ssize_t)sizeof(*entry); i++)
			entry[i] &= ~PM_SOFT_DIRTY;
	return nr;
}

__attribute__((destructor)) static void report(void)
{
	fprintf(stderr, "# %lu writes to clear_refs went to /dev/mmops\n", redirected);
}
