// SPDX-License-Identifier: GPL-2.0
/*
 * C inline functions and macros that the crate mmops needs.
 *
 * With CONFIG_RUST_INLINE_HELPERS this file is also compiled to bitcode and
 * linked into the crate before code generation, so that a helper costs no
 * call. The object in mmops.ko exports the same functions for a module that
 * instantiates a generic of the crate and is not linked with the bitcode.
 *
 * A helper that a generic may reach must use only symbols that every module
 * may use. The exports are in the namespace MMOPS: what calls a helper by hand
 * and not through the crate, which alone sees to the rules, has to say so.
 */

#include <linux/export.h>
#include <linux/fs.h>
#include <linux/hugetlb.h>
#include <linux/kmemleak.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/pagewalk.h>
#include <linux/pid.h>
#include <linux/ptrace.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/workqueue.h>
#include <xen/xen.h>
#include <asm/cacheflush.h>
#include <asm/pgalloc.h>

#if defined(__BINDGEN__)
/* bindgen ignores inline functions. */
#define __mmops_helper
#define MMOPS_EXPORT(sym)
#elif defined(MMOPS_BITCODE)
#define __mmops_helper __always_inline
#define MMOPS_EXPORT(sym)
#else
#define __mmops_helper
#define MMOPS_EXPORT(sym) EXPORT_SYMBOL_NS_GPL(sym, "MMOPS")
#endif

#ifndef CONFIG_X86_64
#error "mmops: the atomic update of a page table entry is written for x86-64 only"
#endif

/*
 * Replace an entry by what @change makes of it, and return the value that was
 * replaced. The CPU sets the accessed and the dirty bit at any time, so both
 * values have to come from the one exchange that succeeded; the entry is never
 * cleared meanwhile. As in ptep_set_wrprotect(), page_table_check has no
 * interest in it: neither what is mapped nor for whom changes.
 */
#define mmops_update(entryp, change)					\
	mmops_update_from(entryp, READ_ONCE(*(entryp)), change)

/* The same, beginning with a value that the entry may have. */
#define mmops_update_from(entryp, value, change) ({			\
	typeof(*(entryp)) old_entry = (value), new_entry;		\
									\
	BUILD_BUG_ON(sizeof(old_entry) != sizeof(long));		\
	do {								\
		new_entry = change(old_entry);				\
	} while (!try_cmpxchg((long *)(entryp), (long *)&old_entry,	\
			      *(long *)&new_entry));			\
	old_entry;							\
})

/* PTE values and entries */

__mmops_helper pte_t mmops_ptep_get(pte_t *ptep)
{
	return ptep_get(ptep);
}
MMOPS_EXPORT(mmops_ptep_get);

__mmops_helper bool mmops_pte_none(pte_t pte)
{
	return pte_none(pte);
}
MMOPS_EXPORT(mmops_pte_none);

__mmops_helper bool mmops_pte_present(pte_t pte)
{
	return pte_present(pte);
}
MMOPS_EXPORT(mmops_pte_present);

__mmops_helper bool mmops_pte_write(pte_t pte)
{
	return pte_write(pte);
}
MMOPS_EXPORT(mmops_pte_write);

/* pte_write() without shadow stacks, which no file mapping has. */
__mmops_helper bool mmops_pte_rw(pte_t pte)
{
	return pte_flags(pte) & _PAGE_RW;
}
MMOPS_EXPORT(mmops_pte_rw);

__mmops_helper bool mmops_pte_dirty(pte_t pte)
{
	return pte_dirty(pte);
}
MMOPS_EXPORT(mmops_pte_dirty);

__mmops_helper bool mmops_pte_young(pte_t pte)
{
	return pte_young(pte);
}
MMOPS_EXPORT(mmops_pte_young);

__mmops_helper bool mmops_pte_soft_dirty(pte_t pte)
{
	return pte_soft_dirty(pte);
}
MMOPS_EXPORT(mmops_pte_soft_dirty);

__mmops_helper bool mmops_pte_special(pte_t pte)
{
	return pte_special(pte);
}
MMOPS_EXPORT(mmops_pte_special);

__mmops_helper unsigned long mmops_pte_pfn(pte_t pte)
{
	return pte_pfn(pte);
}
MMOPS_EXPORT(mmops_pte_pfn);

__mmops_helper pte_t mmops_pte_wrprotect(pte_t pte)
{
	return pte_wrprotect(pte);
}
MMOPS_EXPORT(mmops_pte_wrprotect);

__mmops_helper pte_t mmops_pte_mkclean(pte_t pte)
{
	return pte_mkclean(pte);
}
MMOPS_EXPORT(mmops_pte_mkclean);

__mmops_helper pte_t mmops_ptep_wrprotect(pte_t *ptep, pte_t value)
{
	return mmops_update_from(ptep, value, pte_wrprotect);
}
MMOPS_EXPORT(mmops_ptep_wrprotect);

__mmops_helper pte_t mmops_ptep_mkclean(pte_t *ptep, pte_t value)
{
	return mmops_update_from(ptep, value, pte_mkclean);
}
MMOPS_EXPORT(mmops_ptep_mkclean);

/* PMD values and entries */

__mmops_helper pmd_t mmops_pmdp_get_lockless(pmd_t *pmdp)
{
	return pmdp_get_lockless(pmdp);
}
MMOPS_EXPORT(mmops_pmdp_get_lockless);

__mmops_helper bool mmops_pmd_none(pmd_t pmd)
{
	return pmd_none(pmd);
}
MMOPS_EXPORT(mmops_pmd_none);

__mmops_helper bool mmops_pmd_present(pmd_t pmd)
{
	return pmd_present(pmd);
}
MMOPS_EXPORT(mmops_pmd_present);

__mmops_helper bool mmops_pmd_is_huge(pmd_t pmd)
{
	return pmd_is_huge(pmd);
}
MMOPS_EXPORT(mmops_pmd_is_huge);

__mmops_helper bool mmops_pmd_write(pmd_t pmd)
{
	return pmd_write(pmd);
}
MMOPS_EXPORT(mmops_pmd_write);

__mmops_helper bool mmops_pmd_dirty(pmd_t pmd)
{
	return pmd_dirty(pmd);
}
MMOPS_EXPORT(mmops_pmd_dirty);

__mmops_helper bool mmops_pmd_young(pmd_t pmd)
{
	return pmd_young(pmd);
}
MMOPS_EXPORT(mmops_pmd_young);

__mmops_helper bool mmops_pmd_soft_dirty(pmd_t pmd)
{
	return pmd_soft_dirty(pmd);
}
MMOPS_EXPORT(mmops_pmd_soft_dirty);

__mmops_helper bool mmops_pmd_special(pmd_t pmd)
{
	return pmd_special(pmd);
}
MMOPS_EXPORT(mmops_pmd_special);

__mmops_helper unsigned long mmops_pmd_pfn(pmd_t pmd)
{
	return pmd_pfn(pmd);
}
MMOPS_EXPORT(mmops_pmd_pfn);

__mmops_helper pmd_t mmops_pmd_wrprotect(pmd_t pmd)
{
	return pmd_wrprotect(pmd);
}
MMOPS_EXPORT(mmops_pmd_wrprotect);

__mmops_helper pmd_t mmops_pmd_mkclean(pmd_t pmd)
{
	return pmd_mkclean(pmd);
}
MMOPS_EXPORT(mmops_pmd_mkclean);

__mmops_helper pmd_t mmops_pmdp_wrprotect(pmd_t *pmdp)
{
	return mmops_update(pmdp, pmd_wrprotect);
}
MMOPS_EXPORT(mmops_pmdp_wrprotect);

__mmops_helper pmd_t mmops_pmdp_mkclean(pmd_t *pmdp)
{
	return mmops_update(pmdp, pmd_mkclean);
}
MMOPS_EXPORT(mmops_pmdp_mkclean);

/*
 * The PTE that maps the first page of a huge PMD with all of its bits: hardware
 * and software, only PSE goes and PAT moves.
 */
__mmops_helper pte_t mmops_pmd_first_pte(pmd_t pmd)
{
	return pfn_pte(pmd_pfn(pmd), pgprot_large_2_4k(pmd_pgprot(pmd)));
}

/* PTE tables that are not in use yet */

__mmops_helper pte_t *mmops_pgtable_ptes(pgtable_t table)
{
	return page_address(table);
}

__mmops_helper void mmops_pte_free(struct mm_struct *mm, pgtable_t table)
{
	pte_free(mm, table);
}

__mmops_helper void mmops_set_ptes(struct mm_struct *mm, unsigned long addr,
				   pte_t *ptep, pte_t pte, unsigned int nr)
{
	set_ptes(mm, addr, ptep, pte, nr);
}

/* The table becomes visible to page table walks that hold no lock. */
__mmops_helper void mmops_pmd_populate(struct mm_struct *mm, pmd_t *pmdp,
				       pgtable_t table)
{
	mm_inc_nr_ptes(mm);
	smp_wmb(); /* the entries before the table, as pmd_install() */
	pmd_populate(mm, pmdp, table);
}

/* PUD values and entries */

__mmops_helper pud_t mmops_pudp_get(pud_t *pudp)
{
	return pudp_get(pudp);
}
MMOPS_EXPORT(mmops_pudp_get);

__mmops_helper bool mmops_pud_present(pud_t pud)
{
	return pud_present(pud);
}
MMOPS_EXPORT(mmops_pud_present);

__mmops_helper bool mmops_pud_trans_huge(pud_t pud)
{
	return pud_trans_huge(pud);
}
MMOPS_EXPORT(mmops_pud_trans_huge);

__mmops_helper bool mmops_pud_write(pud_t pud)
{
	return pud_write(pud);
}
MMOPS_EXPORT(mmops_pud_write);

__mmops_helper bool mmops_pud_dirty(pud_t pud)
{
	return pud_dirty(pud);
}
MMOPS_EXPORT(mmops_pud_dirty);

__mmops_helper bool mmops_pud_young(pud_t pud)
{
	return pud_young(pud);
}
MMOPS_EXPORT(mmops_pud_young);

__mmops_helper bool mmops_pud_soft_dirty(pud_t pud)
{
	return pud_soft_dirty(pud);
}
MMOPS_EXPORT(mmops_pud_soft_dirty);

__mmops_helper bool mmops_pud_special(pud_t pud)
{
	return pud_special(pud);
}
MMOPS_EXPORT(mmops_pud_special);

__mmops_helper unsigned long mmops_pud_pfn(pud_t pud)
{
	return pud_pfn(pud);
}
MMOPS_EXPORT(mmops_pud_pfn);

__mmops_helper pud_t mmops_pud_wrprotect(pud_t pud)
{
	return pud_wrprotect(pud);
}
MMOPS_EXPORT(mmops_pud_wrprotect);

__mmops_helper pud_t mmops_pud_mkclean(pud_t pud)
{
	return pud_mkclean(pud);
}
MMOPS_EXPORT(mmops_pud_mkclean);

/* The kernel's pudp_set_wrprotect() is not atomic: it can lose a dirty bit. */
__mmops_helper pud_t mmops_pudp_wrprotect(pud_t *pudp)
{
	return mmops_update(pudp, pud_wrprotect);
}
MMOPS_EXPORT(mmops_pudp_wrprotect);

__mmops_helper pud_t mmops_pudp_mkclean(pud_t *pudp)
{
	return mmops_update(pudp, pud_mkclean);
}
MMOPS_EXPORT(mmops_pudp_mkclean);

/*
 * The entry for @addr in the PMD table that a PUD entry points to, or NULL if it
 * does not point to one. Once it does, it stays so.
 */
__mmops_helper pmd_t *mmops_pmd_offset(pud_t *pudp, unsigned long addr)
{
	pud_t pud = pudp_get(pudp);

	if (!pud_present(pud) || pud_leaf(pud))
		return NULL;
	return pmd_offset(&pud, addr);
}

/* Page table locks */

__mmops_helper void mmops_pte_unmap_unlock(pte_t *ptep, spinlock_t *ptl)
{
	pte_unmap_unlock(ptep, ptl);
}
MMOPS_EXPORT(mmops_pte_unmap_unlock);

__mmops_helper void mmops_ptl_unlock(spinlock_t *ptl)
{
	spin_unlock(ptl);
}
MMOPS_EXPORT(mmops_ptl_unlock);

/* TLB */

__mmops_helper void mmops_inc_tlb_flush_pending(struct mm_struct *mm)
{
	inc_tlb_flush_pending(mm);
}
MMOPS_EXPORT(mmops_inc_tlb_flush_pending);

__mmops_helper void mmops_dec_tlb_flush_pending(struct mm_struct *mm)
{
	dec_tlb_flush_pending(mm);
}
MMOPS_EXPORT(mmops_dec_tlb_flush_pending);

__mmops_helper bool mmops_mm_tlb_flush_nested(struct mm_struct *mm)
{
	return mm_tlb_flush_nested(mm);
}
MMOPS_EXPORT(mmops_mm_tlb_flush_nested);

__mmops_helper void mmops_flush_cache_range(struct vm_area_struct *vma,
					    unsigned long start,
					    unsigned long end)
{
	flush_cache_range(vma, start, end);
}
MMOPS_EXPORT(mmops_flush_cache_range);

/* MMU notifiers */

__mmops_helper void
mmops_mmu_notifier_range_init(struct mmu_notifier_range *range,
			      enum mmu_notifier_event event,
			      struct mm_struct *mm, unsigned long start,
			      unsigned long end, void *owner)
{
	mmu_notifier_range_init_owner(range, event, 0, mm, start, end, owner);
}

__mmops_helper void
mmops_mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range)
{
	mmu_notifier_invalidate_range_start(range);
}

__mmops_helper int
mmops_mmu_notifier_invalidate_range_start_nonblock(struct mmu_notifier_range *range)
{
	return mmu_notifier_invalidate_range_start_nonblock(range);
}

__mmops_helper void
mmops_mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range)
{
	mmu_notifier_invalidate_range_end(range);
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

/* Address spaces and VMAs */

__mmops_helper void mmops_i_mmap_lock_read(struct address_space *mapping)
{
	i_mmap_lock_read(mapping);
}

__mmops_helper void mmops_i_mmap_unlock_read(struct address_space *mapping)
{
	i_mmap_unlock_read(mapping);
}

/* Each socket has an mmap operation, which most protocols refuse. */
__mmops_helper bool mmops_can_mmap_file(struct file *file)
{
	return can_mmap_file(file) && !S_ISSOCK(file_inode(file)->i_mode);
}

/* The inode that holds the data: of the upper or a lower layer for a file of overlayfs. */
__mmops_helper struct inode *mmops_d_real_inode(struct file *file)
{
	return d_real_inode(file_dentry(file));
}

__mmops_helper bool mmops_is_file_hugepages(struct file *file)
{
	return is_file_hugepages(file);
}

__mmops_helper unsigned int mmops_file_mode(struct file *file)
{
	return (__force unsigned int)file->f_mode;
}

__mmops_helper unsigned long mmops_vma_flags(const struct vm_area_struct *vma)
{
	return READ_ONCE(vma->vm_flags);
}
MMOPS_EXPORT(mmops_vma_flags);

__mmops_helper bool mmops_vma_is_anonymous(struct vm_area_struct *vma)
{
	return vma_is_anonymous(vma);
}

__mmops_helper bool mmops_folio_test_anon(const struct folio *folio)
{
	return folio_test_anon(folio);
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

__mmops_helper unsigned long mmops_mm_task_size(const struct mm_struct *mm)
{
	return mm->task_size;
}

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

/* Folios */

__mmops_helper struct page *mmops_pfn_to_page(unsigned long pfn)
{
	return pfn_to_page(pfn);
}

__mmops_helper struct folio *mmops_pfn_folio(unsigned long pfn)
{
	return page_folio(pfn_to_page(pfn));
}

__mmops_helper void mmops_folio_ref_add(struct folio *folio, int nr)
{
	folio_ref_add(folio, nr);
}

/*
 * As try_grab_folio() with FOLL_PIN: beyond a reference, reclaim leaves the file
 * system's data of a pinned folio (buffers) alone, which marking it dirty needs.
 * Called with the page table lock of a present entry that maps the folio held,
 * so reclaim, which looks after it has unmapped, sees the pin. False if the count
 * has overflowed, which makes it negative: no user may raise it further.
 */
__mmops_helper bool mmops_folio_pin(struct folio *folio)
{
	if (unlikely(folio_ref_count(folio) <= 0))
		return false;
	if (folio_is_zone_device(folio)) {
		folio_get(folio);
	} else if (folio_has_pincount(folio)) {
		folio_ref_add(folio, 1);
		atomic_add(1, &folio->_pincount);
	} else {
		folio_ref_add(folio, GUP_PIN_COUNTING_BIAS);
	}
	return true;
}

__mmops_helper void mmops_folio_unpin(struct folio *folio)
{
	int refs = 1;

	if (!folio_is_zone_device(folio)) {
		if (folio_has_pincount(folio))
			atomic_sub(1, &folio->_pincount);
		else
			refs = GUP_PIN_COUNTING_BIAS;
	}
	folio_put_refs(folio, refs);
}

__mmops_helper bool mmops_folio_test_dirty(const struct folio *folio)
{
	return folio_test_dirty(folio);
}

/*
 * Whether all of a folio is dirty: PG_dirty says so where nothing hangs on it that
 * could hold a state for each block (buffers, iomap_folio_state).
 */
static __always_inline bool mmops_flags_all_dirty(unsigned long flags)
{
	const unsigned long mask = BIT(PG_dirty) | BIT(PG_private);

	return (flags & mask) == BIT(PG_dirty);
}

__mmops_helper bool mmops_folio_is_all_dirty(const struct folio *folio)
{
	return mmops_flags_all_dirty(READ_ONCE(folio->flags.f));
}

/*
 * Whether present entries all map folios that are dirty as a whole, and none is
 * special. The loops have no branches, which pays where all are dirty: the loads
 * from struct page do not wait for each other.
 */
__mmops_helper bool mmops_ptes_map_dirty_folios(pte_t *ptep, unsigned int nr)
{
	pteval_t any = 0, all = ~(pteval_t)0;
	unsigned long wrong = 0;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		pteval_t val = READ_ONCE(ptep[i].pte);

		any |= val;
		all &= val;
	}
	/* pte_pfn() of an entry without the first is not as simple as below. */
	if (!(all & _PAGE_PRESENT) || (any & _PAGE_SPECIAL))
		return false;
	for (i = 0; i < nr; i++) {
		pteval_t val = READ_ONCE(ptep[i].pte);

		wrong |= page_folio(pfn_to_page((val & PTE_PFN_MASK) >> PAGE_SHIFT))->flags.f ^
			 BIT(PG_dirty);
	}
	return mmops_flags_all_dirty(wrong ^ BIT(PG_dirty));
}

__mmops_helper bool mmops_folio_trylock(struct folio *folio)
{
	return folio_trylock(folio);
}

__mmops_helper void mmops_folio_lock(struct folio *folio)
{
	folio_lock(folio);
}

__mmops_helper void mmops_folio_unlock(struct folio *folio)
{
	folio_unlock(folio);
}

/* In the page cache, or in the swap cache on its way out of it. */
__mmops_helper bool mmops_folio_is_cached(struct folio *folio)
{
	return READ_ONCE(folio->mapping) || folio_test_swapcache(folio);
}

/*
 * Whether dirty_folio() of a locked folio may allocate the state of its blocks,
 * as iomap does without a way to fail: where there are several and none is there.
 */
__mmops_helper bool mmops_folio_mark_may_allocate(struct folio *folio)
{
	struct address_space *mapping = READ_ONCE(folio->mapping);

	/* Anonymous memory has another thing in its place. */
	return mapping && !folio_test_anon(folio) && !folio_test_private(folio) &&
	       mapping->a_ops->dirty_folio != noop_dirty_folio &&
	       (folio_test_large(folio) || mapping->host->i_blkbits < PAGE_SHIFT);
}

/* What marks folios for tasks that were killed. */

__mmops_helper struct workqueue_struct *mmops_alloc_workqueue(void)
{
	return alloc_workqueue("mmops", WQ_UNBOUND, 0);
}

__mmops_helper void mmops_destroy_workqueue(struct workqueue_struct *queue)
{
	destroy_workqueue(queue);
}

/*
 * A PV guest of Xen: an entry holds machine frames, which reading it raw shows, and
 * gntdev maps pages by special entries that find_normal_page() alone can tell.
 */
__mmops_helper bool mmops_is_xen_pv(void)
{
	return xen_pv_domain();
}

/* Scheduling */

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

#include "helpers/dirty.c"
#include "helpers/exclusive.c"
#include "helpers/gather.c"
#include "helpers/hmm.c"
#include "helpers/kthread.c"
#include "helpers/leaves.c"
#include "helpers/protect.c"
#include "helpers/soft_dirty.c"
#include "helpers/soft_leaf.c"
#include "helpers/zap.c"
