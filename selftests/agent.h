/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A second process that maps, loads and stores when it is told to.
 *
 * The same commands can be run in the calling process (agent NULL), so that a
 * test can spread its mappings over both.
 */
#ifndef AGENT_H
#define AGENT_H

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "mmops_selftest.h"

enum agent_op {
	AGENT_MAP,	/* @pages of @fd from @pgoff at @addr with @prot, @flags */
	AGENT_UNMAP,	/* @pages at @addr, which stay reserved */
	AGENT_STORE,	/* @value + n to page n of @pages at @addr */
	AGENT_LOAD,	/* @pages at @addr; returns the last value */
	AGENT_FAULTS,	/* as AGENT_STORE; returns the number of minor faults */
	AGENT_FORGET,	/* MADV_DONTNEED: @pages at @addr lose their entries */
	AGENT_PROTECT,	/* mprotect() of @pages at @addr to @prot */
};

struct agent_cmd {
	enum agent_op op;
	int fd, prot, flags;
	char *addr;
	size_t pgoff, pages;
	uint64_t value;
};

struct agent {
	pid_t pid;
	int sock;
};

/* Run @cmd in this process. What the command returns, or -errno. */
static inline int64_t agent_do(const struct agent_cmd *cmd)
{
	size_t bytes = cmd->pages * page_size();
	int64_t ret = 0;
	size_t i;

	switch (cmd->op) {
	case AGENT_MAP:
		return map_at(cmd->addr, cmd->fd, cmd->pgoff, cmd->pages, cmd->prot,
			      cmd->flags) ? 0 : -errno;
	case AGENT_UNMAP:
		return mmap(cmd->addr, bytes, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
			    0) == MAP_FAILED ? -errno : 0;
	case AGENT_STORE:
		store_range(cmd->addr, 0, cmd->pages, cmd->value);
		return 0;
	case AGENT_LOAD:
		for (i = 0; i < cmd->pages; i++)
			ret = load(cmd->addr, i);
		return ret;
	case AGENT_FAULTS:
		ret = minor_faults();
		store_range(cmd->addr, 0, cmd->pages, cmd->value);
		return minor_faults() - ret;
	case AGENT_FORGET:
		return madvise(cmd->addr, bytes, MADV_DONTNEED) ? -errno : 0;
	case AGENT_PROTECT:
		return mprotect(cmd->addr, bytes, cmd->prot) ? -errno : 0;
	}
	return -EINVAL;
}

/* Start an agent; it has the descriptors and mappings of now, and dies with us. */
static inline int agent_start(struct agent *agent)
{
	struct agent_cmd cmd;
	int64_t reply;
	int sock[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock))
		return -errno;
	agent->pid = fork();
	if (agent->pid < 0)
		return -errno;
	if (agent->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(sock[0]);
		while (recv(sock[1], &cmd, sizeof(cmd), 0) == sizeof(cmd)) {
			reply = agent_do(&cmd);
			if (send(sock[1], &reply, sizeof(reply), 0) != sizeof(reply))
				break;
		}
		_exit(0);
	}
	close(sock[1]);
	agent->sock = sock[0];
	return 0;
}

/* Run @cmd in @agent, or here. What the command returns, or -errno. */
static inline int64_t agent_run(struct agent *agent, const struct agent_cmd *cmd)
{
	int64_t reply;

	if (!agent)
		return agent_do(cmd);
	if (send(agent->sock, cmd, sizeof(*cmd), MSG_NOSIGNAL) != sizeof(*cmd) ||
	    recv(agent->sock, &reply, sizeof(reply), 0) != sizeof(reply))
		return -EPIPE;
	return reply;
}

/* End the agent. 0 if it was well to the end. */
static inline int agent_stop(struct agent *agent)
{
	int status;

	close(agent->sock);
	if (waitpid(agent->pid, &status, 0) != agent->pid)
		return -errno;
	return status;
}

#endif /* AGENT_H */
