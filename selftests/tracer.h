/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A process that stores to the memory of the one that started it, by ptrace(2). It is
 * started before that memory is mapped, and so has no part of it.
 */
#ifndef TRACER_H
#define TRACER_H

#include <sys/ptrace.h>
#include <sys/wait.h>

#include "mmops_selftest.h"

struct tracer {
	pid_t pid;
	int ask, answer;
};

struct tracer_store {
	char *addr;
	uint64_t value;
};

static inline int tracer_store(pid_t of, const struct tracer_store *store)
{
	int status;

	if (ptrace(PTRACE_ATTACH, of, NULL, NULL))
		return errno;
	if (waitpid(of, &status, __WALL) != of)
		return errno;
	errno = 0;
	ptrace(PTRACE_POKEDATA, of, store->addr, store->value);
	status = errno;
	ptrace(PTRACE_DETACH, of, NULL, NULL);
	return status;
}

/* 0 or -errno. */
static inline int start_tracer(struct tracer *t)
{
	struct tracer_store store;
	int ask[2], answer[2], ret;
	pid_t of = getpid();

	if (pipe(ask) || pipe(answer))
		return -errno;
	t->pid = fork();
	if (t->pid < 0)
		return -errno;
	if (!t->pid) {
		close(ask[1]);
		close(answer[0]);
		while (read(ask[0], &store, sizeof(store)) == sizeof(store)) {
			ret = tracer_store(of, &store);
			if (write(answer[1], &ret, sizeof(ret)) != sizeof(ret))
				break;
		}
		_exit(0);
	}
	close(ask[0]);
	close(answer[1]);
	t->ask = ask[1];
	t->answer = answer[0];
	return 0;
}

/* 0 or -errno. */
static inline int trace_store(struct tracer *t, char *addr, uint64_t value)
{
	struct tracer_store store = { addr, value };
	int ret;

	if (write(t->ask, &store, sizeof(store)) != sizeof(store))
		return -errno;
	/* It is stopped meanwhile, which does not end a read. */
	if (read(t->answer, &ret, sizeof(ret)) != sizeof(ret))
		return -EPROTO;
	return -ret;
}

static inline void end_tracer(struct tracer *t)
{
	close(t->ask);
	close(t->answer);
	waitpid(t->pid, NULL, 0);
}

#endif /* TRACER_H */
