// SPDX-License-Identifier: GPL-2.0
/* A kernel thread that somebody waits for. */

#include <linux/completion.h>
#include <linux/kthread.h>

/*
 * Run @fn in a kernel thread, which completes @done at its end. Returns what @fn
 * returned, when the thread does not run it any more, or an error if @fn was not
 * called. The thread is asked to stop if the caller gets a fatal signal.
 */
__mmops_helper int mmops_kthread_run(int (*fn)(void *), void *data, const char *name,
				     struct completion *done)
{
	struct task_struct *task;

	init_completion(done);
	task = kthread_create(fn, data, "%s", name);
	if (IS_ERR(task))
		return PTR_ERR(task);
	get_task_struct(task);
	wake_up_process(task);
	/* If a signal comes first, what follows asks the thread to stop, and waits on. */
	(void)!wait_for_completion_killable(done);
	return kthread_stop_put(task);
}

__mmops_helper bool mmops_kthread_should_stop(void)
{
	return kthread_should_stop();
}
