/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A program of the fuzzer. From the top of the tree:
 *
 *	cc -D_GNU_SOURCE -pthread -Iinclude/uapi -Iselftests/modules/mmops_walk \
 *		-Iselftests/modules/mmops_leafmap reproducer.c
 *
 * MMOPS_DISK names a directory on a disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/mmops.h>
#include <mmops_leafmap.h>
#include <mmops_walk.h>

#define START	0x200000000UL
#define LEN	(8UL << 20)
#define BIG	(START + BIG_LEN)
#define BIG_LEN	(1UL << 30)

struct hmm_dmirror_cmd {
	__u64 addr, ptr, npages, cpages, faults;
};

static int mmops[2], mirror, walk, leafmap, pattern, memory, uffd = -1;
static pid_t children[2];
static pthread_barrier_t begin;

#define SHOW(call) do {								\
	errno = 0;								\
	long _ret = (long)(call);						\
	printf("%s: %ld %s\n", #call, _ret, errno ? strerror(errno) : "");	\
} while (0)

#define IOCTL(name, fd, number, type, ...) do {					\
	type _arg = { __VA_ARGS__ };						\
	int _ret = ioctl(fd, number, &_arg);					\
	printf("%s: %d %s\n", name, _ret, _ret < 0 ? strerror(errno) : "");	\
} while (0)

static void at(int fd, int number)
{
	if (dup2(fd, number) != number)
		perror("dup2");
}

static long touch(long call, unsigned long addr, unsigned long len)
{
	struct iovec words[64];
	int nr = len / 4096 < 64 ? len / 4096 : 64;

	for (int i = 0; i < nr; i++)
		words[i] = (struct iovec){ (void *)(addr + i * 4096UL), 8 };
	return syscall(call, pattern, words, nr, 0, 0);
}

static int child(unsigned long addr, unsigned long len, int stays)
{
	int number = !!children[0];
	pid_t pid;

	if (children[number])
		return 0;
	pid = fork();
	if (pid < 0)
		return -1;
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		touch(SYS_preadv, addr, len);
		while (stays)
			pause();
		_exit(0);
	}
	children[number] = pid;
	at(syscall(SYS_pidfd_open, pid, 0), 121 + number);
	return 0;
}

static long map_big(int prot)
{
	struct mmops_leafmap_serve serve = { .order = MMOPS_LEAFMAP_PUD };
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static int is_open;

	pthread_mutex_lock(&lock);
	if (!is_open) {
		int fd = open("/dev/mmops_leafmap", O_RDWR);

		ioctl(fd, MMOPS_LEAFMAP_IOC_SERVE, &serve);
		at(fd, 116);
		is_open = 1;
	}
	pthread_mutex_unlock(&lock);
	return (long)mmap((void *)BIG, BIG_LEN, prot, MAP_SHARED | MAP_FIXED, 116, 0);
}

static int kill_child(int number)
{
	return children[number] ? kill(children[number], SIGKILL) : 0;
}

static int userfault(unsigned long addr, unsigned long len, int async, int missing, int wp)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_SIGBUS | (1 << 12) | (async ? 1 << 13 | 1 << 15 : 0),
	};
	struct uffdio_register arg = {
		.range = { addr, len }, .mode = !!missing | !!wp << 1,
	};

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	return ioctl(uffd, UFFDIO_API, &api) ? -1 : ioctl(uffd, UFFDIO_REGISTER, &arg);
}

static int userfault_wp(unsigned long addr, unsigned long len, int protect)
{
	struct uffdio_writeprotect arg = { .range = { addr, len }, .mode = protect };

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &arg);
}

static int userfault_end(unsigned long addr, unsigned long len)
{
	struct uffdio_range arg = { addr, len };

	return ioctl(uffd, UFFDIO_UNREGISTER, &arg);
}

static int userfault_zero(unsigned long addr, unsigned long len)
{
	struct uffdio_zeropage arg = { .range = { addr, len } };

	return ioctl(uffd, UFFDIO_ZEROPAGE, &arg);
}

static int userfault_copy(unsigned long from, unsigned long to, unsigned long len)
{
	struct uffdio_copy arg = { .dst = to, .src = from, .len = len };

	return ioctl(uffd, UFFDIO_COPY, &arg);
}

static void nothing(int signal)
{
}

static void setup(void)
{
	/* A wait for an event ends now and then. */
	struct sigaction action = { .sa_handler = nothing };
	struct itimerval often = { { 0, 200000 }, { 0, 200000 } };
	const char *disk = getenv("MMOPS_DISK");
	char words[512], path[256];
	int fd = memfd_create("fuzz", MFD_CLOEXEC), file;

	memset(words, 0x5a, sizeof(words));
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	mmap((void *)START, BIG + BIG_LEN - START, PROT_NONE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	pattern = memfd_create("pattern", MFD_CLOEXEC);
	pwrite(pattern, words, sizeof(words), 0);
	mmops[0] = open("/dev/mmops", O_RDWR);
	mmops[1] = open("/dev/mmops", O_RDWR);
	mirror = open("/dev/hmm_dmirror0", O_RDWR);
	walk = open("/dev/mmops_walk", O_RDWR);
	leafmap = open("/dev/mmops_leafmap", O_RDWR);
	memory = open("/proc/self/mem", O_RDWR);
	snprintf(path, sizeof(path), "%s/mmops-fuzz", disk ? disk : "");
	file = disk ? open(path, O_RDWR | O_CREAT | O_TRUNC, 0600) :
		memfd_create("fuzz", MFD_CLOEXEC);
	ftruncate(fd, LEN);
	ftruncate(file, LEN);
	at(fd, 110);
	at(file, 111);
	at(leafmap >= 0 ? leafmap : open("/dev/zero", O_RDWR), 112);
	at(open("/dev/zero", O_RDWR), 113);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	at(open(path, O_RDONLY), 114);
	at(open("/dev/null", O_RDWR), 115);
	at(syscall(SYS_pidfd_open, getpid(), 0), 120);
}
