// SPDX-License-Identifier: GPL-2.0
/*
 * A loop over the PTEs of a range that does nothing but look at them, or replace each by
 * itself: no walker, no callback, no notifier, no flush. What an operation takes beyond
 * this is its own. For benchmarks only.
 */
#include <linux/fs.h>
#include <linux/ktime.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pgtable.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>

#include "mmops_limit.h"

static pmd_t *limit_pmd(struct mm_struct *mm, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud;
	pmd_t *pmd;

	if (pgd_none(*pgd) || pgd_bad(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	if (p4d_none(*p4d) || p4d_bad(*p4d))
		return NULL;
	pud = pud_offset(p4d, addr);
	if (pud_none(*pud) || pud_leaf(*pud) || pud_bad(*pud))
		return NULL;
	pmd = pmd_offset(pud, addr);
	return pmd;
}

/* A function of its own for each, so that both are as short as can be. */
static noinline u64 limit_read(pte_t *ptep, unsigned long nr)
{
	u64 present = 0;
	unsigned long i;

	for (i = 0; i < nr; i++)
		present += !!(READ_ONCE(ptep[i].pte) & _PAGE_PRESENT);
	return present;
}

static noinline u64 limit_exchange(pte_t *ptep, unsigned long nr)
{
	u64 present = 0;
	unsigned long i;

	for (i = 0; i < nr; i++) {
		pteval_t old = READ_ONCE(ptep[i].pte);

		/* The CPU may set a bit meanwhile. */
		while (!try_cmpxchg(&ptep[i].pte, &old, old))
			;
		present += !!(old & _PAGE_PRESENT);
	}
	return present;
}

/* The entries of one table. Under RCU it is not freed; with its lock it is looked at again. */
static int limit_table(struct mm_struct *mm, struct mmops_limit_run *run, unsigned long addr,
		       unsigned long end)
{
	pmd_t *pmdp = limit_pmd(mm, addr), pmd;
	unsigned long nr = (end - addr) >> PAGE_SHIFT;
	int ret = -EAGAIN;
	spinlock_t *ptl;
	pte_t *ptep;

	if (!pmdp)
		return -EFAULT;
	rcu_read_lock();
	pmd = pmdp_get_lockless(pmdp);
	if (pmd_none(pmd) || !pmd_present(pmd) || pmd_leaf(pmd)) {
		rcu_read_unlock();
		return -EFAULT;
	}
	ptl = pte_lockptr(mm, &pmd);
	spin_lock(ptl);
	if (pmd_same(pmd, pmdp_get_lockless(pmdp))) {
		ptep = pte_offset_kernel(&pmd, addr);
		run->present += run->op == MMOPS_LIMIT_READ ? limit_read(ptep, nr) :
							      limit_exchange(ptep, nr);
		ret = 0;
	}
	spin_unlock(ptl);
	rcu_read_unlock();
	return ret;
}

static int limit_run(struct mmops_limit_run *run)
{
	struct mm_struct *mm = current->mm;
	unsigned long addr = run->addr, end = run->addr + run->len, next;
	u64 start;
	int ret = 0;

	if (run->op > MMOPS_LIMIT_EXCHANGE || run->pad || !run->len || end < addr ||
	    end > TASK_SIZE || !PAGE_ALIGNED(addr | end))
		return -EINVAL;
	run->present = 0;
	mmap_read_lock(mm);
	start = ktime_get_ns();
	for (; addr < end && !ret; addr = next) {
		next = pmd_addr_end(addr, end);
		ret = limit_table(mm, run, addr, next);
		cond_resched();
	}
	run->ns = ktime_get_ns() - start;
	mmap_read_unlock(mm);
	return ret;
}

static long limit_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct mmops_limit_run run;
	int ret;

	if (cmd != MMOPS_LIMIT_IOC_RUN)
		return -ENOTTY;
	if (copy_from_user(&run, (void __user *)arg, sizeof(run)))
		return -EFAULT;
	ret = limit_run(&run);
	if (!ret && copy_to_user((void __user *)arg, &run, sizeof(run)))
		return -EFAULT;
	return ret;
}

static const struct file_operations limit_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = limit_ioctl,
};

static struct miscdevice limit_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "mmops_limit",
	.fops = &limit_fops,
	.mode = 0600,
};

module_misc_device(limit_device);

MODULE_AUTHOR("The mmops authors");
MODULE_DESCRIPTION("The least that work on page tables can cost, for benchmarks of mmops");
MODULE_LICENSE("GPL");
