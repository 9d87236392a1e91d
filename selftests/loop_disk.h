/* SPDX-License-Identifier: GPL-2.0 */
/* A file system of one's own, on a loop device in memory. */
#ifndef LOOP_DISK_H
#define LOOP_DISK_H

#include <sys/mount.h>

#include <linux/loop.h>

#include "mmops_selftest.h"

struct loop_disk {
	char dir[64];		/* where it is mounted */
	int loop;
	bool mounted;
};

/* Makes and mounts one with this command, to which the device is added. NULL, or why not. */
static inline const char *make_loop_disk(struct loop_disk *disk, size_t bytes, const char *type,
					 const char *mkfs)
{
	struct loop_config config = { .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	char command[160], path[32];
	int control, number;

	*disk = (struct loop_disk){ .loop = -1 };
	config.fd = new_memfd(bytes / page_size());
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		return "no loop devices";
	number = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	snprintf(path, sizeof(path), "/dev/loop%d", number);
	disk->loop = open(path, O_RDWR | O_CLOEXEC);
	if (disk->loop < 0 || config.fd < 0 || ioctl(disk->loop, LOOP_CONFIGURE, &config))
		return "the loop device cannot be set up";
	close(config.fd);
	snprintf(command, sizeof(command), "PATH=$PATH:/sbin:/usr/sbin %s %s >/dev/null 2>&1",
		 mkfs, path);
	if (system(command))
		return "mkfs failed: packages e2fsprogs, xfsprogs";
	snprintf(disk->dir, sizeof(disk->dir), "/tmp/mmops-disk-XXXXXX");
	if (!mkdtemp(disk->dir))
		return "no directory in /tmp";
	if (mount(path, disk->dir, type, 0, NULL))
		return "it cannot be mounted: is it in the kernel?";
	disk->mounted = true;
	return NULL;
}

/* Mounts one that needs no device. NULL, or why not. */
static inline const char *make_memory_disk(struct loop_disk *disk, const char *type)
{
	*disk = (struct loop_disk){ .loop = -1 };
	snprintf(disk->dir, sizeof(disk->dir), "/tmp/mmops-disk-XXXXXX");
	if (!mkdtemp(disk->dir))
		return "no directory in /tmp";
	if (mount("none", disk->dir, type, 0, NULL))
		return "it cannot be mounted: is it in the kernel?";
	disk->mounted = true;
	return NULL;
}

static inline void remove_loop_disk(struct loop_disk *disk)
{
	if (disk->mounted)
		umount2(disk->dir, MNT_DETACH);
	if (disk->loop > 0)
		close(disk->loop);
	if (disk->dir[0])
		rmdir(disk->dir);
}

#endif /* LOOP_DISK_H */
