// SPDX-License-Identifier: GPL-2.0
/*
 * Which mappings a descriptor stands for. mmap(2) may put another file into the
 * mapping than the one that was opened: each kind of file is either followed to
 * where its mappings are, or refused.
 */
#include "kselftest_harness.h"
#include "track.h"

#include <limits.h>
#include <linux/fuse.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/loop.h>
#include <linux/perf_event.h>
#include <linux/udmabuf.h>
#include <pthread.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#define PAGES	16UL

/* Newer than the headers of some distributions. */
#ifndef FUSE_INIT_EXT
#define FUSE_INIT_EXT		(1 << 30)
#endif
#ifndef FOPEN_PASSTHROUGH
#define FOPEN_PASSTHROUGH	(1 << 7)
struct fuse_backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define FUSE_DEV_IOC_BACKING_OPEN	_IOW(229, 1, struct fuse_backing_map)
#endif
/* FUSE_PASSTHROUGH, bit 37, as a bit of fuse_init_out::flags2 */
#define FLAGS2_PASSTHROUGH	(1U << (37 - 32))

/* The bits of a harvest that are set, as a mask of the first 64 pages; or -errno. */
static int64_t harvest_mask_flags(int dev, int fd, size_t nr, uint64_t *mask, uint32_t flags)
{
	struct harvest h = new_harvest(nr);
	int64_t ret = clean_record_flags(dev, fd, 0, nr, &h, flags);

	*mask = h.bitmap[0];
	free(h.bitmap);
	return ret;
}

static int64_t harvest_mask(int dev, int fd, size_t nr, uint64_t *mask)
{
	return harvest_mask_flags(dev, fd, nr, mask, 0);
}

#define ASSERT_HARVEST_FLAGS(fd, expected, flags) do {				\
	uint64_t mask;								\
										\
	ASSERT_EQ(__builtin_popcountll(expected),				\
		  harvest_mask_flags(self->dev, fd, PAGES, &mask, flags));	\
	ASSERT_EQ(expected, mask);						\
} while (0)

#define ASSERT_HARVEST(fd, expected)	ASSERT_HARVEST_FLAGS(fd, expected, 0)

/* Not all that changes in the file is told, so that it cannot be tracked. */
#define ASSERT_NOT_TRACKED(fd, map) do {					\
	struct tracker t;							\
										\
	ASSERT_EQ(-EOPNOTSUPP, track_open_file(&t, fd, 0, map, PAGES));		\
	close(t.dev);								\
} while (0)

/* Both calls refuse the file, and what is mapped at @map stays writable. */
#define ASSERT_REFUSED(fd, error) do {						\
	uint64_t mask;								\
										\
	ASSERT_EQ(-(error), write_protect(self->dev, fd, 0, PAGES));		\
	ASSERT_EQ(-(error), harvest_mask(self->dev, fd, PAGES, &mask));		\
	ASSERT_EQ(0, mask);							\
} while (0)

/* Mounts of this test go away with it. */
static int private_mounts(void)
{
	if (unshare(CLONE_NEWNS))
		return -errno;
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ? -errno : 0;
}

FIXTURE(overlay)
{
	int dev;
	char top[PATH_MAX];
	char lower[PATH_MAX + 16];	/* the file in its layers, and through the mount */
	char upper[PATH_MAX + 16];
	char merged[PATH_MAX + 16];
};

FIXTURE_VARIANT(overlay)
{
	bool disk;
	bool copied_up;
};

FIXTURE_VARIANT_ADD(overlay, tmpfs_created)
{
};

FIXTURE_VARIANT_ADD(overlay, tmpfs_copied_up)
{
	.copied_up = true,
};

FIXTURE_VARIANT_ADD(overlay, disk_created)
{
	.disk = true,
};

FIXTURE_VARIANT_ADD(overlay, disk_copied_up)
{
	.disk = true,
	.copied_up = true,
};

/* A file of PAGES pages that are all 1. */
static int fill_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char page[4096];
	size_t i;

	memset(page, 1, sizeof(page));
	for (i = 0; fd >= 0 && i < PAGES; i++)
		if (write(fd, page, sizeof(page)) != sizeof(page))
			return -1;
	return fd < 0 ? -1 : close(fd);
}

FIXTURE_SETUP(overlay)
{
	const char *base = variant->disk ? getenv("MMOPS_DISK") : "/tmp";
	char dir[PATH_MAX + 16], options[4 * PATH_MAX];
	static const char *const names[] = { "lower", "upper", "work", "merged" };
	size_t i;

	OPEN_DEV(self->dev, MMOPS_DEV);
	if (!base)
		SKIP(return, "MMOPS_DISK is not set");
	ASSERT_EQ(0, private_mounts());
	if (!variant->disk) {
		ASSERT_EQ(0, mount("tmpfs", base, "tmpfs", 0, NULL));
	}
	snprintf(self->top, sizeof(self->top), "%s/overlay.XXXXXX", base);
	ASSERT_NE(NULL, mkdtemp(self->top));
	for (i = 0; i < 4; i++) {
		snprintf(dir, sizeof(dir), "%s/%s", self->top, names[i]);
		ASSERT_EQ(0, mkdir(dir, 0700));
	}
	snprintf(self->lower, sizeof(self->lower), "%s/lower/file", self->top);
	snprintf(self->upper, sizeof(self->upper), "%s/upper/file", self->top);
	snprintf(self->merged, sizeof(self->merged), "%s/merged/file", self->top);
	if (variant->copied_up) {
		ASSERT_EQ(0, fill_file(self->lower));
	}
	snprintf(options, sizeof(options), "lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work",
		 self->top, self->top, self->top);
	snprintf(dir, sizeof(dir), "%s/merged", self->top);
	if (mount("overlay", dir, "overlay", 0, options)) {
		ASSERT_EQ(ENODEV, errno);
		SKIP(return, "no overlayfs in this kernel");
	}
	if (!variant->copied_up) {
		ASSERT_EQ(0, fill_file(self->merged));
	}
}

FIXTURE_TEARDOWN(overlay)
{
	char *command;

	if (self->top[0]) {
		ASSERT_LT(0, asprintf(&command, "umount -l %s/merged 2>/dev/null; rm -rf %s",
				      self->top, self->top));
		ASSERT_NE(-1, system(command));
	}
}

/* The mount and the upper layer are two ways to the same mappings. */
TEST_F_TIMEOUT(overlay, harvest, TEST_SECONDS)
{
	int fd = open(self->merged, O_RDWR | O_CLOEXEC);
	int upper = open(self->upper, O_RDWR | O_CLOEXEC);
	char path[64], *map;
	int map_file;
	char byte;

	ASSERT_LE(0, fd);
	ASSERT_LE(0, upper);
	map = map_shared(fd, 0, PAGES);
	ASSERT_NE(NULL, map);
	store_range(map, 0, PAGES, 1);
	ASSERT_HARVEST(fd, 0xffffUL);
	store(map, 3, 33);
	store(map, 7, 77);
	/* Whoever asks: the file that was stored to is the one of the upper layer. */
	ASSERT_EQ(1, pread(upper, &byte, 1, 3 * page_size()));
	ASSERT_EQ(33, byte);
	ASSERT_HARVEST(fd, 1UL << 3 | 1UL << 7);
	ASSERT_HARVEST(fd, 0UL);
	store(map, 5, 2);
	ASSERT_HARVEST(upper, 1UL << 5);

	/* By the mapping of a process. */
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)map,
		 (unsigned long)map + PAGES * page_size());
	map_file = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, map_file);
	store(map, 9, 2);
	ASSERT_HARVEST(map_file, 1UL << 9);
}

TEST_F_TIMEOUT(overlay, write_protect, TEST_SECONDS)
{
	int fd = open(self->merged, O_RDWR | O_CLOEXEC);
	char *map = map_shared(fd, 0, PAGES);
	long faults;

	ASSERT_NE(NULL, map);
	store_range(map, 0, PAGES, 1);
	ASSERT_EQ(PAGES, write_protect(self->dev, fd, 0, PAGES));
	faults = minor_faults();
	store(map, 9, 2);
	ASSERT_EQ(faults + 1, minor_faults());
	ASSERT_EQ(1, write_protect(self->dev, fd, 0, PAGES));
}

/* The descriptor outlives the name and the mount. */
TEST_F_TIMEOUT(overlay, unlinked, TEST_SECONDS)
{
	int fd = open(self->merged, O_RDWR | O_CLOEXEC);
	char dir[PATH_MAX + 16], *map = map_shared(fd, 0, PAGES);

	ASSERT_NE(NULL, map);
	ASSERT_EQ(0, unlink(self->merged));
	snprintf(dir, sizeof(dir), "%s/merged", self->top);
	ASSERT_EQ(0, umount2(dir, MNT_DETACH));
	/* A fault may map all pages of a large folio, and dirty. */
	store_range(map, 0, PAGES, 1);
	ASSERT_HARVEST(fd, 0xffffUL);
	store(map, 11, 1);
	ASSERT_HARVEST(fd, 1UL << 11);
	close(fd);
	munmap(map, PAGES * page_size());
}

/*
 * What was mapped before the copy-up is the file of the lower layer, which nobody writes. Without
 * one, a reader maps the same file as a writer.
 */
TEST_F_TIMEOUT(overlay, reader_of_before, TEST_SECONDS)
{
	int reader, fd;
	char *read_map, *map;

	reader = open(self->merged, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, reader);
	read_map = mmap(NULL, PAGES * page_size(), PROT_READ, MAP_SHARED, reader, 0);
	ASSERT_NE(MAP_FAILED, read_map);
	load_range(read_map, 0, PAGES);
	ASSERT_EQ(-1, mprotect(read_map, PAGES * page_size(), PROT_READ | PROT_WRITE));
	ASSERT_EQ(EACCES, errno);

	fd = open(self->merged, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	map = map_shared(fd, 0, PAGES);
	ASSERT_NE(NULL, map);
	store_range(map, 0, PAGES, 1);
	ASSERT_HARVEST(fd, 0xffffUL);
	store(map, 2, 5);
	ASSERT_HARVEST(fd, 1UL << 2);
	ASSERT_EQ(5, load(map, 2));
	ASSERT_EQ(variant->copied_up ? 0x0101010101010101UL : 5, load(read_map, 2));
	/* A descriptor that cannot write stands for no mapping that could. */
	ASSERT_REFUSED(reader, EACCES);
}

/*
 * A file system of one file, which is its root. The server is a thread.
 */
struct server {
	int fd;
	int backing;		/* what the file is passed through to, or -1 */
	int backing_id;
	uint64_t size;
};

static void reply(int fd, uint64_t unique, int error, const void *data, size_t len)
{
	static char buf[1 << 17];
	struct fuse_out_header *out = (void *)buf;

	*out = (struct fuse_out_header){
		.len = sizeof(*out) + len, .error = error, .unique = unique,
	};
	memcpy(buf + sizeof(*out), data, len);
	if (write(fd, buf, out->len) < 0 && errno != ENOENT)
		perror("# fuse: reply");
}

static void *serve(void *arg)
{
	struct server *server = arg;
	static char buf[1 << 20], zeros[1 << 16];
	struct fuse_in_header *in = (void *)buf;
	void *data = in + 1;

	while (read(server->fd, buf, sizeof(buf)) > 0) {
		switch (in->opcode) {
		case FUSE_INIT: {
			struct fuse_init_in *init = data;
			struct fuse_init_out out = {
				.major = FUSE_KERNEL_VERSION,
				.minor = init->minor,
				.max_readahead = 1 << 16,
				.max_write = 1 << 16,
				.max_background = 4,
			};

			if (server->backing >= 0) {
				out.flags = FUSE_INIT_EXT;
				out.flags2 = FLAGS2_PASSTHROUGH;
				/* max_stack_depth, which follows flags2 */
				(&out.flags2)[1] = 1;
			}
			reply(server->fd, in->unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_GETATTR: {
			struct fuse_attr_out out = {
				.attr_valid = 3600,
				.attr = {
					.ino = 1, .size = server->size, .mode = S_IFREG | 0600,
					.nlink = 1, .blksize = 4096,
				},
			};

			reply(server->fd, in->unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_OPEN: {
			struct fuse_open_out out = { .fh = 1 };

			if (server->backing >= 0) {
				struct fuse_backing_map map = { .fd = server->backing };
				/* backing_id, which was padding */
				int32_t *id = (int32_t *)(&out.open_flags + 1);

				if (!server->backing_id)
					server->backing_id = ioctl(server->fd,
								   FUSE_DEV_IOC_BACKING_OPEN,
								   &map);
				*id = server->backing_id;
				out.open_flags = FOPEN_PASSTHROUGH;
			}
			reply(server->fd, in->unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_READ: {
			struct fuse_read_in *r = data;

			reply(server->fd, in->unique, 0, zeros, min(r->size, sizeof(zeros)));
			break;
		}
		case FUSE_WRITE: {
			struct fuse_write_in *w = data;
			struct fuse_write_out out = { .size = w->size };

			reply(server->fd, in->unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_FLUSH:
		case FUSE_RELEASE:
		case FUSE_FSYNC:
			reply(server->fd, in->unique, 0, NULL, 0);
			break;
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			break;
		default:
			reply(server->fd, in->unique, -ENOSYS, NULL, 0);
		}
	}
	return NULL;
}

#define FUSE_FILE	"/tmp/fuse"

FIXTURE(fuse)
{
	int dev;
	struct server server;
	pthread_t thread;
};

FIXTURE_VARIANT(fuse)
{
	bool passthrough;
};

FIXTURE_VARIANT_ADD(fuse, plain)
{
};

FIXTURE_VARIANT_ADD(fuse, passthrough)
{
	.passthrough = true,
};

FIXTURE_SETUP(fuse)
{
	char options[128];
	int fd;

	OPEN_DEV(self->dev, MMOPS_DEV);
	self->server = (struct server){ .backing = -1, .size = PAGES * page_size() };
	self->server.fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (self->server.fd < 0)
		SKIP(return, "no FUSE in this kernel");
	ASSERT_EQ(0, private_mounts());
	ASSERT_EQ(0, mount("tmpfs", "/tmp", "tmpfs", 0, NULL));
	fd = open(FUSE_FILE, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_LE(0, fd);
	if (variant->passthrough) {
		self->server.backing = open("/tmp/backing", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		ASSERT_LE(0, self->server.backing);
		ASSERT_EQ(0, ftruncate(self->server.backing, PAGES * page_size()));
	}
	snprintf(options, sizeof(options), "fd=%d,rootmode=100600,user_id=0,group_id=0",
		 self->server.fd);
	ASSERT_EQ(0, mount("fuse", FUSE_FILE, "fuse", 0, options));
	/* Nothing can be read before that. */
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, serve, &self->server));
}

FIXTURE_TEARDOWN(fuse)
{
	umount2(FUSE_FILE, MNT_DETACH);
}

/* What the server has passed through is mapped by another inode, and no caller can tell which. */
TEST_F_TIMEOUT(fuse, is_what_it_is, TEST_SECONDS)
{
	int fd = open(FUSE_FILE, O_RDWR | O_CLOEXEC);
	struct stat st;
	char *map;

	if (fd < 0 && variant->passthrough)
		SKIP(return, "FUSE without passthrough (%s)", strerror(errno));
	ASSERT_LE(0, fd);
	/* The size is asked of the server only here. */
	ASSERT_EQ(0, fstat(fd, &st));
	ASSERT_EQ(PAGES * page_size(), st.st_size);
	map = map_shared(fd, 0, PAGES);
	ASSERT_NE(NULL, map);
	store_range(map, 0, PAGES, 1);
	ASSERT_NOT_TRACKED(fd, map);
	if (variant->passthrough) {
		ASSERT_REFUSED(fd, EOPNOTSUPP);
		/* It is reached by its own name. */
		ASSERT_HARVEST(self->server.backing, 0xffffUL);
	} else {
		ASSERT_HARVEST(fd, 0xffffUL);
		store(map, 3, 1);
		ASSERT_HARVEST(fd, 1UL << 3);
		/* It is written back. */
		store(map, 4, 1);
		ASSERT_HARVEST_FLAGS(fd, 1UL << 4, MMOPS_NO_TRANSFER);
	}
	munmap(map, PAGES * page_size());
	close(fd);
}

FIXTURE(device)
{
	int dev;
};

FIXTURE_SETUP(device)
{
	OPEN_DEV(self->dev, MMOPS_DEV);
}

FIXTURE_TEARDOWN(device)
{
}

/* A shared mapping of /dev/zero is one of a file that was made for it. */
TEST_F_TIMEOUT(device, zero, TEST_SECONDS)
{
	int fd = open("/dev/zero", O_RDWR | O_CLOEXEC), map_file;
	char path[64], *map = map_shared(fd, 0, PAGES);

	ASSERT_NE(NULL, map);
	store(map, 5, 1);
	ASSERT_REFUSED(fd, EOPNOTSUPP);
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)map,
		 (unsigned long)map + PAGES * page_size());
	map_file = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, map_file);
	ASSERT_HARVEST(map_file, 1UL << 5);
}

/* All perf events, and much else, have one inode: its mappings are those of strangers. */
TEST_F_TIMEOUT(device, shared_anonymous_inode, TEST_SECONDS)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_DUMMY,
	};
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	int stranger = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	char *map;

	if (fd < 0)
		SKIP(return, "no perf events (%s)", strerror(errno));
	map = map_shared(stranger, 0, 2);
	ASSERT_NE(NULL, map);
	load_range(map, 0, 2);
	ASSERT_REFUSED(fd, EOPNOTSUPP);
	ASSERT_REFUSED(stranger, EOPNOTSUPP);
}

/* So has what belongs to a virtual machine. */
TEST_F_TIMEOUT(device, virtual_processor, TEST_SECONDS)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm, cpu;
	char *map;

	vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		SKIP(return, "no KVM (%s)", strerror(errno));
	cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	ASSERT_LE(0, cpu);
	map = map_shared(cpu, 0, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0) / page_size());
	ASSERT_NE(NULL, map);
	store(map, 0, 0);
	ASSERT_REFUSED(cpu, EOPNOTSUPP);
	/* Of the machine itself, nothing can be mapped. */
	ASSERT_REFUSED(vm, ENODEV);
	close(cpu);
	close(vm);
	close(kvm);
}

/* Each ring has an inode of its own: neither sees what is stored to the other. */
TEST_F_TIMEOUT(device, ring_of_io_uring, TEST_SECONDS)
{
	const size_t first = IORING_OFF_SQES / page_size();
	struct io_uring_params params[2] = {};
	char *sqes[2];
	int fd[2], i;

	for (i = 0; i < 2; i++) {
		/* Two pages of entries. */
		fd[i] = syscall(SYS_io_uring_setup,
				2 * page_size() / sizeof(struct io_uring_sqe), &params[i]);
		if (fd[i] < 0)
			SKIP(return, "no io_uring (%s)", strerror(errno));
		sqes[i] = map_shared(fd[i], first, 2);
		ASSERT_NE(NULL, sqes[i]);
	}
	for (i = 0; i < 2; i++) {
		struct harvest h = { .bitmap = new_bitmap(2), .bits = 64, .pgoff = first };

		store(sqes[i], 1, 0);
		ASSERT_EQ(0, clean_record(self->dev, fd[!i], first, 2, &h));
		ASSERT_EQ(0, h.bitmap[0]);
		ASSERT_EQ(1, clean_record(self->dev, fd[i], first, 2, &h));
		ASSERT_EQ(1UL << 1, h.bitmap[0]);
		ASSERT_EQ(2, write_protect(self->dev, fd[i], first, 2));
		ASSERT_EQ(0, write_protect(self->dev, fd[i], first, 2));
		free(h.bitmap);
	}
	close(fd[0]);
	close(fd[1]);
}

/* A block device that has a memfd behind it, and another node of the same device. */
TEST_F_TIMEOUT(device, block, TEST_SECONDS)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int number, fd, node, backing;
	char path[64], *map;
	struct stat st;
	long faults;

	number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
	if (number < 0)
		SKIP(return, "no loop device (%s)", strerror(errno));
	snprintf(path, sizeof(path), "/dev/loop%d", number);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	backing = new_memfd(PAGES);
	ASSERT_LE(0, backing);
	ASSERT_EQ(0, ioctl(fd, LOOP_SET_FD, backing));
	ASSERT_EQ(0, fstat(fd, &st));
	ASSERT_EQ(0, private_mounts());
	ASSERT_EQ(0, mount("tmpfs", "/tmp", "tmpfs", 0, NULL));
	ASSERT_EQ(0, mknod("/tmp/node", S_IFBLK | 0600, st.st_rdev));
	node = open("/tmp/node", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, node);

	map = map_shared(fd, 0, PAGES);
	ASSERT_NE(NULL, map);
	store_range(map, 0, PAGES, 1);
	ASSERT_HARVEST(fd, 0xffffUL);
	store(map, 3, 33);
	ASSERT_HARVEST(node, 1UL << 3);
	ASSERT_HARVEST(fd, 0UL);
	/* The file behind it has mappings of its own. */
	store(map, 5, 55);
	ASSERT_HARVEST(backing, 0UL);
	ASSERT_EQ(PAGES, write_protect(self->dev, node, 0, PAGES));
	faults = minor_faults();
	store(map, 9, 99);
	ASSERT_EQ(faults + 1, minor_faults());
	ASSERT_HARVEST(fd, 1UL << 5 | 1UL << 9);
	/* What was stored is no less written back. */
	ASSERT_EQ(0, fsync(fd));
	ASSERT_EQ(sizeof(faults), pread(backing, &faults, sizeof(faults), 3 * page_size()));
	ASSERT_EQ(33, faults);
	/* So the caller may do that itself. */
	store(map, 7, 77);
	ASSERT_HARVEST_FLAGS(fd, 1UL << 7, MMOPS_NO_TRANSFER);
	ASSERT_NOT_TRACKED(fd, map);

	munmap(map, PAGES * page_size());
	ASSERT_EQ(0, ioctl(fd, LOOP_CLR_FD));
	close(node);
	close(fd);
}

/* Each dma-buf has an inode of its own. This one maps page frames, without folios. */
TEST_F_TIMEOUT(device, dma_buf, TEST_SECONDS)
{
	int udmabuf = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
	struct udmabuf_create create = { .size = PAGES * page_size() };
	int fd, other;
	char *map, *other_map;
	long faults;

	if (udmabuf < 0)
		SKIP(return, "no udmabuf in this kernel");
	create.memfd = memfd_create("mmops", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	ASSERT_EQ(0, ftruncate(create.memfd, create.size));
	ASSERT_EQ(0, fcntl(create.memfd, F_ADD_SEALS, F_SEAL_SHRINK));
	fd = ioctl(udmabuf, UDMABUF_CREATE, &create);
	ASSERT_LE(0, fd);
	other = ioctl(udmabuf, UDMABUF_CREATE, &create);
	ASSERT_LE(0, other);
	map = map_shared(fd, 0, PAGES);
	ASSERT_NE(NULL, map);
	other_map = map_shared(other, 0, PAGES);
	ASSERT_NE(NULL, other_map);
	store(other_map, 1, 1);
	store(map, 2, 1);
	ASSERT_HARVEST(fd, 1UL << 2);
	ASSERT_HARVEST(other, 1UL << 1);
	ASSERT_HARVEST(create.memfd, 0UL);

	/* A fault maps all of it. */
	ASSERT_EQ(PAGES, write_protect(self->dev, fd, 0, PAGES));
	ASSERT_EQ(0, write_protect(self->dev, fd, 0, PAGES));
	faults = minor_faults();
	store(map, 9, 1);
	ASSERT_EQ(faults + 1, minor_faults());
	ASSERT_HARVEST(fd, 1UL << 9);
	ASSERT_EQ(1, write_protect(self->dev, fd, 0, PAGES));
}

/* A BAR by sysfs is mapped by what all memory of devices has in common, at other offsets. */
TEST_F_TIMEOUT(device, resource_of_pci, TEST_SECONDS)
{
	char line[PATH_MAX];
	FILE *list = popen("ls /sys/bus/pci/devices/*/resource[0-5] 2>/dev/null", "r");
	int fd = -1;

	ASSERT_NE(NULL, list);
	while (fd < 0 && fgets(line, sizeof(line), list)) {
		char *map;

		line[strcspn(line, "\n")] = 0;
		fd = open(line, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			continue;
		map = mmap(NULL, page_size(), PROT_READ, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED) {
			close(fd);
			fd = -1;
		}
	}
	pclose(list);
	if (fd < 0)
		SKIP(return, "no PCI device with memory that can be mapped");
	ASSERT_REFUSED(fd, EOPNOTSUPP);
}

TEST_HARNESS_MAIN
