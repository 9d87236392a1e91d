/* SPDX-License-Identifier: GPL-2.0 */
/* A memory cgroup for a test. */
#ifndef CGROUP_H
#define CGROUP_H

#include <sys/mount.h>
#include <sys/stat.h>

#include "mmops_selftest.h"

/* A figure from a file of the cgroup, in pages, or -1. */
static inline long cgroup_pages(const char *dir, const char *file)
{
	char path[128], text[32] = "";
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (read(fd, text, sizeof(text) - 1) <= 0)
		text[0] = '\0';
	close(fd);
	return text[0] ? strtol(text, NULL, 10) / (long)page_size() : -1;
}

#define CGROUP_ROOT	"/tmp/mmops-cgroup"
#define CGROUP_DIR	CGROUP_ROOT "/mmops"

/* Makes CGROUP_DIR, with the controller of memory. NULL, or why there is none. */
static inline const char *make_cgroup(void)
{
	mkdir(CGROUP_ROOT, 0700);
	if (mount("none", CGROUP_ROOT, "cgroup2", 0, NULL) && errno != EBUSY)
		return "no cgroup v2";
	write_file(CGROUP_ROOT "/cgroup.subtree_control", "+memory");
	if ((mkdir(CGROUP_DIR, 0700) && errno != EEXIST) ||
	    cgroup_pages(CGROUP_DIR, "memory.current") < 0) {
		umount(CGROUP_ROOT);
		return "no memory cgroup";
	}
	return NULL;
}

/* 0 or -errno. No process may be in it. */
static inline int remove_cgroup(void)
{
	int ret = rmdir(CGROUP_DIR) ? -errno : 0;

	umount(CGROUP_ROOT);
	return ret;
}

#endif /* CGROUP_H */
