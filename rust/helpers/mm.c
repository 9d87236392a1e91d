// SPDX-License-Identifier: GPL-2.0
/* Processes and VMAs: linux/mm.h, linux/mmap_lock.h, linux/sched/mm.h. */

#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmap_lock.h>
#include <linux/pid.h>
#include <linux/ptrace.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>
#include <linux/userfaultfd_k.h>

__mmops_helper unsigned long mmops_vma_flags(const struct vm_area_struct *vma)
{
	return READ_ONCE(vma->vm_flags);
}
MMOPS_EXPORT(mmops_vma_flags);

__mmops_helper bool mmops_vma_is_anonymous(struct vm_area_struct *vma)
{
	return vma_is_anonymous(vma);
}

__mmops_helper bool mmops_vma_is_dax(struct vm_area_struct *vma)
{
	return vma_is_dax(vma);
}

__mmops_helper pgoff_t mmops_vma_start_pgoff(const struct vm_area_struct *vma)
{
	return vma_start_pgoff(vma);
}
MMOPS_EXPORT(mmops_vma_start_pgoff);

__mmops_helper bool mmops_vma_is_shadow_stack(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_SHADOW_STACK;
}

/*
 * Whether a driver may have mapped page frames in large leaves, among pages. A write
 * fault on such a leaf is left to the driver (wp_huge_pmd()); that of DAX resolves it.
 */
__mmops_helper bool mmops_vma_may_mix_large_frames(const struct vm_area_struct *vma)
{
	return (READ_ONCE(vma->vm_flags) & VM_MIXEDMAP) && vma->vm_ops &&
	       vma->vm_ops->huge_fault && !vma_is_dax(vma);
}

/*
 * Whether the dirty bits of a VMA tell of each store that goes through its entries,
 * and the notifiers of each entry that goes. Not so for hugetlbfs, whose page tables
 * have rules of their own; for page frames, which a driver maps and maps anew as it
 * likes; for DAX; nor for shadow stacks, whose entries are dirty by definition.
 */
__mmops_helper bool mmops_vma_entries_tell(const struct vm_area_struct *vma)
{
	const unsigned long flags = VM_HUGETLB | VM_PFNMAP | VM_MIXEDMAP | VM_IO | VM_SHADOW_STACK;

	return !(READ_ONCE(vma->vm_flags) & flags) && !vma_is_dax(vma);
}

/*
 * Whether a VMA is of anonymous memory, or of the page cache of a file. Whoever stores
 * to these without an entry is known. A driver that hands out pages in its fault handler
 * may store to them by itself, as KVM does to the state of a virtual processor, and so
 * do the rings of aio, which have the fault handler of files.
 */
__mmops_helper bool mmops_vma_is_memory(const struct vm_area_struct *vma)
{
	if (vma_is_anonymous(vma))
		return true;
	return vma->vm_ops && vma->vm_ops->map_pages == filemap_map_pages &&
	       vma->vm_file && !IS_ANON_FILE(file_inode(vma->vm_file));
}

__mmops_helper bool mmops_vma_has_recency(const struct vm_area_struct *vma)
{
	return vma_has_recency(vma);
}

/* Whether the mapping could be cut at @addr: 0 or -errno, as mprotect(2) asks. */
__mmops_helper int mmops_vma_may_split(struct vm_area_struct *vma, unsigned long addr)
{
	if (vma->vm_ops && vma->vm_ops->may_split)
		return vma->vm_ops->may_split(vma, addr);
	return 0;
}

__mmops_helper bool mmops_userfaultfd_pte_wp(struct vm_area_struct *vma, pte_t pte)
{
	return userfaultfd_pte_wp(vma, pte);
}

__mmops_helper void mmops_vma_clear_soft_dirty(struct vm_area_struct *vma)
{
	vm_flags_clear(vma, VM_SOFTDIRTY);
	vma_set_page_prot(vma);
}

/* Pages of it that are not there can be read in at the cost of page tables. */
__mmops_helper bool mmops_vma_can_populate(struct vm_area_struct *vma)
{
	return vma_is_anonymous(vma) && !userfaultfd_missing(vma) && !userfaultfd_rwp(vma);
}

__mmops_helper unsigned long mmops_hugetlb_page_size(struct vm_area_struct *vma)
{
	return huge_page_size(hstate_vma(vma));
}

__mmops_helper unsigned long mmops_mm_task_size(const struct mm_struct *mm)
{
	return mm->task_size;
}

/* Whether anybody has ever pinned memory of the mm for DMA. */
__mmops_helper bool mmops_mm_has_pins(const struct mm_struct *mm)
{
	return mm_flags_test(MMF_HAS_PINNED, mm);
}

__mmops_helper int mmops_mm_counter(struct folio *folio)
{
	return mm_counter(folio);
}

__mmops_helper void mmops_add_mm_counter(struct mm_struct *mm, int member,
					 long value)
{
	add_mm_counter(mm, member, value);
}

__mmops_helper void mmops_update_hiwater_rss(struct mm_struct *mm)
{
	update_hiwater_rss(mm);
}

__mmops_helper int mmops_mmap_write_lock_killable(struct mm_struct *mm)
{
	return mmap_write_lock_killable(mm);
}

__mmops_helper void mmops_mmap_write_unlock(struct mm_struct *mm)
{
	mmap_write_unlock(mm);
}

__mmops_helper void mmops_mmap_write_downgrade(struct mm_struct *mm)
{
	mmap_write_downgrade(mm);
}

__mmops_helper void mmops_mmap_read_unlock(struct mm_struct *mm)
{
	mmap_read_unlock(mm);
}
MMOPS_EXPORT(mmops_mmap_read_unlock);

/* The mm with a reference to its users, or an error pointer. */
/*
 * A thread of the process that has not ended, with a reference, or NULL. Not
 * for_each_thread(), which names a lock that no module may use.
 */
static __always_inline struct task_struct *mmops_thread_with_mm(struct task_struct *process)
{
	struct task_struct *thread, *found = NULL;

	rcu_read_lock();
	list_for_each_entry_rcu(thread, &process->signal->thread_head, thread_node) {
		/* As get_task_mm(), which looks again: a kernel thread has only borrowed it. */
		if (READ_ONCE(thread->mm) && !(thread->flags & PF_KTHREAD)) {
			found = get_task_struct(thread);
			break;
		}
	}
	rcu_read_unlock();
	return found;
}

/*
 * The main thread lets go of the mm when it ends, and the process lives on with
 * the others. Which of them is asked does not matter: they share the mm.
 */
__mmops_helper struct mm_struct *mmops_mm_of_pidfd(int pidfd)
{
	unsigned int flags;
	struct task_struct *task = pidfd_get_task(pidfd, &flags), *thread;
	struct mm_struct *mm;

	if (IS_ERR(task))
		return ERR_CAST(task);
	mm = mm_access(task, PTRACE_MODE_ATTACH_FSCREDS);
	/* A thread that ends meanwhile is not met again. */
	while (mm == ERR_PTR(-ESRCH) && (thread = mmops_thread_with_mm(task))) {
		mm = mm_access(thread, PTRACE_MODE_ATTACH_FSCREDS);
		put_task_struct(thread);
	}
	put_task_struct(task);
	return mm;
}
MMOPS_EXPORT(mmops_mm_of_pidfd);

/*
 * Map what is not mapped for reading, as MADV_POPULATE_READ, with the mmap lock
 * held throughout. The number of pages that are there, or an error for the first.
 */
__mmops_helper long mmops_populate(struct mm_struct *mm, unsigned long addr, unsigned long nr)
{
	return get_user_pages_remote(mm, addr, nr, FOLL_FORCE, NULL, NULL);
}

/* Fault in @nr pages for writing. How many, from @addr on, or an error for the first. */
__mmops_helper long mmops_fault_in_writable(struct mm_struct *mm, unsigned long addr,
					    unsigned long nr)
{
	return get_user_pages_remote(mm, addr, nr, FOLL_WRITE | FOLL_SPLIT_PMD, NULL, NULL);
}
