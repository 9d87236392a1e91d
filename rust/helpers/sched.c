// SPDX-License-Identifier: GPL-2.0
/* Tasks, threads and modules: linux/sched/signal.h, linux/kthread.h, linux/module.h. */

#include <linux/completion.h>
#include <linux/kmemleak.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/workqueue.h>
#include <xen/xen.h>

__mmops_helper bool mmops_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}
MMOPS_EXPORT(mmops_fatal_signal_pending);

__mmops_helper void mmops_cond_resched(void)
{
	cond_resched();
}
MMOPS_EXPORT(mmops_cond_resched);

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

__mmops_helper struct workqueue_struct *mmops_alloc_workqueue(void)
{
	return alloc_workqueue("mmops", WQ_UNBOUND, 0);
}

__mmops_helper void mmops_destroy_workqueue(struct workqueue_struct *queue)
{
	destroy_workqueue(queue);
}

__mmops_helper bool mmops_module_get(void)
{
	return try_module_get(THIS_MODULE);
}

__mmops_helper void mmops_module_put(void)
{
	module_put(THIS_MODULE);
}

__mmops_helper bool mmops_within_module(unsigned long addr, const struct module *mod)
{
	return within_module(addr, mod);
}

/* An object that stays for good, when nothing refers to it any more. */
__mmops_helper void mmops_not_a_leak(const void *object)
{
	kmemleak_not_leak(object);
}

/*
 * A PV guest of Xen: an entry holds machine frames, which reading it raw shows, and
 * gntdev maps pages by special entries that find_normal_page() alone can tell.
 */
__mmops_helper bool mmops_is_xen_pv(void)
{
	return xen_pv_domain();
}
