// SPDX-License-Identifier: GPL-2.0
/*
 * A library for LD_PRELOAD: a program that clears its soft-dirty bits through
 * /proc/self/clear_refs clears them through /dev/mmops instead.
 *
 * Only write(2) of a "4" is redirected, to the file of the process itself.
 * At its end the program tells on standard error how many there were, in a line
 * that TAP takes for a comment.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>

#include <linux/mmops.h>

static unsigned long redirected;

static bool is_own_clear_refs(int fd)
{
	char link[64], target[64], own[64];
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, target, sizeof(target) - 1);
	if (len < 0)
		return false;
	target[len] = 0;
	snprintf(own, sizeof(own), "/proc/%d/clear_refs", getpid());
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
	    is_own_clear_refs(fd)) {
		redirected++;
		return clear_soft_dirty() ? -1 : (ssize_t)count;
	}
	if (!libc_write)
		libc_write = dlsym(RTLD_NEXT, "write");
	return libc_write(fd, buf, count);
}

__attribute__((destructor)) static void report(void)
{
	fprintf(stderr, "# %lu writes to clear_refs went to /dev/mmops\n", redirected);
}
