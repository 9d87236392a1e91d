// SPDX-License-Identifier: GPL-2.0
/*
 * Arguments of samples/mirror that the kernel's hmm-tests do not try.
 *
 * It answers under the name of the kernel's test_hmm, so it has to be loaded
 * instead of that.
 */
#include <signal.h>
#include <sys/wait.h>

#include "dmirror.h"
#include "kselftest_harness.h"

/* The last PMD table, behind which there is no address. */
#define LAST_TABLE	((char *)0xffffffffffe00000UL)

FIXTURE(mirror)
{
	int fd;
	char *map, *copy;
};

FIXTURE_SETUP(mirror)
{
	if (access("/sys/module/mmops_mirror", F_OK))
		SKIP(return, "mmops_mirror.ko is not loaded");
	OPEN_DMIRROR(self->fd);
	self->map = mmap(NULL, 2 * page_size(), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->map);
	self->copy = self->map + page_size();
	store(self->map, 0, 1234);
}

FIXTURE_TEARDOWN(mirror)
{
	close(self->fd);
}

TEST_F(mirror, last_table)
{
	ASSERT_EQ(-EFAULT, dmirror(self->fd, HMM_DMIRROR_READ, LAST_TABLE, self->copy, 1));
	ASSERT_EQ(-EFAULT, dmirror(self->fd, HMM_DMIRROR_WRITE, LAST_TABLE, self->copy, 1));
	ASSERT_EQ(-EFAULT, dmirror(self->fd, HMM_DMIRROR_EXCLUSIVE, LAST_TABLE, self->copy, 1));
	ASSERT_EQ(1, dmirror(self->fd, HMM_DMIRROR_SNAPSHOT, LAST_TABLE, self->copy, 1));
	/* As the kernel says where there is no VMA. */
	ASSERT_EQ(HMM_DMIRROR_PROT_ERROR, (unsigned char)self->copy[0]);
	/* Behind what is mirrored, and around. */
	ASSERT_EQ(-EINVAL, dmirror(self->fd, HMM_DMIRROR_READ, LAST_TABLE, self->copy, 512));
	ASSERT_EQ(-EINVAL, dmirror(self->fd, HMM_DMIRROR_READ, LAST_TABLE, self->copy, 513));
	ASSERT_EQ(-EINVAL, dmirror(self->fd, HMM_DMIRROR_READ, self->map + 1, self->copy, 1));

	ASSERT_EQ(1, dmirror(self->fd, HMM_DMIRROR_READ, self->map, self->copy, 1));
	ASSERT_EQ(1234, load(self->copy, 0));
}

/* It looks at each page, and would take years. */
TEST_F(mirror, long_look_can_be_killed)
{
	int status;
	pid_t child = fork();

	ASSERT_GE(child, 0);
	if (!child) {
		dmirror(self->fd, HMM_DMIRROR_CHECK_EXCLUSIVE, NULL, self->copy, (1UL << 52) - 1);
		_exit(0);
	}
	usleep(200000);
	ASSERT_EQ(0, waitpid(child, &status, WNOHANG));
	ASSERT_EQ(0, kill(child, SIGKILL));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status));
	ASSERT_EQ(1, dmirror(self->fd, HMM_DMIRROR_READ, self->map, self->copy, 1));
}

TEST_HARNESS_MAIN
