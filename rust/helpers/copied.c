// SPDX-License-Identifier: GPL-2.0
/*
 * Copies of static functions of the kernel, as of Linux 7.3.4, cut down to what the
 * callers here need. "Original" names what a function was made from, which stands in
 * copied.orig as it was then; scripts/copied shows what has become of it in another
 * kernel.
 */

#include <linux/ksm.h>
#include <linux/leafops.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/pgtable.h>
#include <linux/swapops.h>
#include <linux/userfaultfd_k.h>
#include <asm/mmu_context.h>
#include <asm/pgalloc.h>

/*
 * Original: try_grab_folio(), mm/gup.c
 *
 * With FOLL_PIN: beyond a reference, reclaim leaves the file system's data of a pinned
 * folio (buffers) alone, which marking it dirty needs. Of anonymous memory a reference
 * does, and UFFDIO_MOVE of the process goes on, which refuses what is pinned.
 * Called with the page table lock of a present entry that maps the folio held,
 * so reclaim, which looks after it has unmapped, sees the pin. False if the count
 * has overflowed, which makes it negative: no user may raise it further. With
 * @overflow, a fault, it is taken for one that has.
 */
__mmops_helper bool mmops_folio_pin(struct folio *folio, bool overflow)
{
	if (unlikely((overflow ? INT_MIN : folio_ref_count(folio)) <= 0))
		return false;
	if (folio_is_zone_device(folio) || folio_test_anon(folio)) {
		folio_get(folio);
	} else if (folio_has_pincount(folio)) {
		folio_ref_add(folio, 1);
		atomic_add(1, &folio->_pincount);
	} else {
		folio_ref_add(folio, GUP_PIN_COUNTING_BIAS);
	}
	return true;
}

/* Original: gup_put_folio(), mm/gup.c */
__mmops_helper void mmops_folio_unpin(struct folio *folio)
{
	int refs = 1;

	if (!folio_is_zone_device(folio) && !folio_test_anon(folio)) {
		if (folio_has_pincount(folio))
			atomic_sub(1, &folio->_pincount);
		else
			refs = GUP_PIN_COUNTING_BIAS;
	}
	folio_put_refs(folio, refs);
}

/*
 * Original: gup_fast_folio_allowed(), mm/gup.c
 *
 * Pages of memfd_secret() are not in the direct map. GUP refuses them, and
 * hmm_range_fault() does not.
 */
static __always_inline bool mmops_in_direct_map(struct folio *folio)
{
	struct address_space *mapping;

	if (folio_test_anon(folio))
		return true;
	mapping = READ_ONCE(folio->mapping);
	return !mapping || !mapping->host || mapping->host->i_sb->s_magic != SECRETMEM_MAGIC;
}

/*
 * Original: __pte_batch_clear_ignored(), mm/internal.h
 *
 * Without the single bits that tell nothing of what the batch of entries maps.
 */
static __always_inline pte_t mmops_pte_batch_base(pte_t pte)
{
	pte = pte_clear_soft_dirty(pte_mkclean(pte));
	return pte_mkold(pte_wrprotect(pte));
}

/*
 * Original: folio_pte_batch_flags(), mm/internal.h
 *
 * The number of entries, @max at the most, that map consecutive pages of a
 * large folio.
 */
__mmops_helper unsigned int mmops_folio_pte_batch(struct folio *folio,
						  pte_t *ptep, pte_t pte,
						  unsigned int max)
{
	unsigned long left = folio_nr_pages(folio) -
			     folio_page_idx(folio, pfn_to_page(pte_pfn(pte)));
	pte_t expected = mmops_pte_batch_base(pte);
	unsigned int nr;

	max = min_t(unsigned long, max, left);
	for (nr = 1; nr < max; nr++) {
		expected = pte_advance_pfn(expected, 1);
		pte = ptep_get(ptep + nr);
		if (!pte_present(pte) ||
		    !pte_same(mmops_pte_batch_base(pte), expected))
			break;
	}
	return nr;
}

/*
 * Original: swap_pte_batch(), mm/internal.h
 *
 * The number of entries for consecutive places in swap.
 */
__mmops_helper unsigned int mmops_swap_pte_batch(pte_t *ptep, pte_t pte,
						 unsigned int max)
{
	softleaf_t entry = softleaf_from_pte(pte);
	unsigned int nr;

	for (nr = 1; nr < max; nr++) {
		pte_t next = ptep_get(ptep + nr);
		softleaf_t other;

		if (pte_none(next) || pte_present(next))
			break;
		other = softleaf_from_pte(next);
		if (swp_type(other) != swp_type(entry) ||
		    swp_offset(other) != swp_offset(entry) + nr ||
		    pte_swp_uffd_any(next) != pte_swp_uffd_any(pte))
			break;
	}
	return nr;
}

/*
 * Original: pmd_install(), mm/memory.c
 *
 * The table becomes visible to page table walks that hold no lock.
 */
__mmops_helper void mmops_pmd_populate(struct mm_struct *mm, pmd_t *pmdp,
				       pgtable_t table)
{
	mm_inc_nr_ptes(mm);
	smp_wmb(); /* the entries before the table */
	pmd_populate(mm, pmdp, table);
}

/* Original: pte_is_pinned(), fs/proc/task_mmu.c */
__mmops_helper bool mmops_pte_is_pinned(struct vm_area_struct *vma, unsigned long addr,
					pte_t pte)
{
	struct folio *folio = vm_normal_folio(vma, addr, pte);

	return folio && folio_maybe_dma_pinned(folio);
}

/* The same of a PMD leaf. */
__mmops_helper bool mmops_pmd_is_pinned(struct vm_area_struct *vma, unsigned long addr,
					pmd_t pmd)
{
	struct folio *folio = vm_normal_folio_pmd(vma, addr, pmd);

	return folio && folio_maybe_dma_pinned(folio);
}

/* The same of a PUD leaf. */
__mmops_helper bool mmops_pud_is_pinned(struct vm_area_struct *vma, unsigned long addr,
					pud_t pud)
{
	return !pud_special(pud) && folio_maybe_dma_pinned(page_folio(pud_page(pud)));
}

/* Original: zap_deposited_table(), mm/huge_memory.c */
__mmops_helper void mmops_free_deposited_table(struct mm_struct *mm, pmd_t *pmdp)
{
	pte_free(mm, pgtable_trans_huge_withdraw(mm, pmdp));
	mm_dec_nr_ptes(mm);
}

/*
 * Original: vma_pgprot_modify(), mm/vma.h; vma_set_page_prot(), mm/mmap.c
 *
 * The protection that entries of @vma have if only @access (VM_READ, VM_WRITE,
 * VM_EXEC) of what the VMA allows is asked for. Where the VMA wants to see write faults,
 * vm_page_prot says so already.
 */
__mmops_helper unsigned long mmops_vma_protection(struct vm_area_struct *vma,
						  unsigned long access)
{
	pgprot_t prot = READ_ONCE(vma->vm_page_prot);
	vm_flags_t flags = READ_ONCE(vma->vm_flags);

	flags &= ~VM_ACCESS_FLAGS | access;
	if (!(pgprot_val(prot) & _PAGE_RW))
		flags &= ~VM_SHARED;
	return pgprot_val(pgprot_modify(prot, vm_get_page_prot(flags)));
}

/* Original: change_present_ptes(), mm/mprotect.c */
static __always_inline pte_t mmops_pte_protect(struct vm_area_struct *vma, unsigned long addr,
					       pte_t old, pgprot_t prot, bool write)
{
	pte_t new = pte_modify(old, prot);

	if (userfaultfd_rwp(vma) && pte_uffd(new))
		new = pte_modify(new, PAGE_NONE);
	if (write && !pte_write(new) && can_change_pte_writable(vma, addr, new))
		new = pte_clear_saveddirty(pte_mkwrite_novma(new));
	return new;
}

/* Original: can_change_pmd_writable(), mm/huge_memory.c */
static __always_inline bool mmops_can_change_pmd_writable(struct vm_area_struct *vma,
							  unsigned long addr, pmd_t pmd)
{
	if (!(vma->vm_flags & VM_WRITE) || pmd_protnone(pmd))
		return false;
	if (pgtable_supports_soft_dirty() && !(vma->vm_flags & VM_SOFTDIRTY) &&
	    !pmd_soft_dirty(pmd))
		return false;
	if (userfaultfd_huge_pmd_wp(vma, pmd))
		return false;
	if (!(vma->vm_flags & VM_SHARED)) {
		struct folio *folio = vm_normal_folio_pmd(vma, addr, pmd);

		return folio && folio_test_anon(folio) && PageAnonExclusive(pmd_page(pmd));
	}
	return pmd_dirty(pmd);
}

/* Original: change_huge_pmd(), mm/huge_memory.c */
static __always_inline pmd_t mmops_pmd_protect(struct vm_area_struct *vma, unsigned long addr,
					       pmd_t old, pgprot_t prot, bool write)
{
	pmd_t new = pmd_modify(old, prot);

	if (userfaultfd_rwp(vma) && pmd_uffd(new))
		new = pmd_modify(new, PAGE_NONE);
	if (write && !pmd_write(new) && mmops_can_change_pmd_writable(vma, addr, new))
		new = pmd_clear_saveddirty(pmd_mkwrite_novma(new));
	return new;
}

/*
 * Original: change_softleaf_pte(), mm/mprotect.c
 *
 * The leaf entry without its write permission: what comes back of it as a
 * present entry would be writable else, and a store to it go unseen. Zero for
 * an entry that has none to lose. The accessed and the dirty bit of a migration
 * entry are a part of the offset.
 */
static __always_inline softleaf_t mmops_softleaf_wrprotect(softleaf_t entry)
{
	if (softleaf_is_migration_write(entry)) {
		if (folio_test_anon(softleaf_to_folio(entry)))
			entry = make_readable_exclusive_migration_entry(swp_offset(entry));
		else
			entry = make_readable_migration_entry(swp_offset(entry));
		return entry;
	}
	if (softleaf_is_device_private_write(entry))
		return make_readable_device_private_entry(swp_offset(entry));
	return (softleaf_t){ 0 };
}

/*
 * Original: change_softleaf_pte(), mm/mprotect.c;
 * change_non_present_huge_pmd(), mm/huge_memory.c
 *
 * An entry that is not present but would come back writable, and no other: it
 * will be read-only. Soft-dirty is kept for a page of a device, too, unlike there.
 */
#define MMOPS_PROTECT_SOFTLEAF(level)						\
	__mmops_helper void							\
	mmops_##level##p_protect_softleaf(struct vm_area_struct *vma,		\
					  unsigned long addr, level##_t *entryp)	\
	{									\
		level##_t old = level##p_get(entryp), new;			\
		softleaf_t entry = softleaf_from_##level(old);			\
										\
		new = softleaf_to_##level(mmops_softleaf_wrprotect(entry));	\
		if (level##_swp_soft_dirty(old))					\
			new = level##_swp_mksoft_dirty(new);			\
		if (level##_swp_uffd(old))					\
			new = level##_swp_mkuffd(new);				\
		set_##level##_at(vma->vm_mm, addr, entryp, new);		\
	}

MMOPS_PROTECT_SOFTLEAF(pte)
MMOPS_PROTECT_SOFTLEAF(pmd)

/*
 * Original: maybe_change_pte_writable(), mm/mprotect.c;
 * can_change_private_pte_writable(), mm/mprotect.c
 *
 * For an anonymous page of a private and writable VMA.
 */
static __always_inline bool mmops_excl_can_be_writable(struct vm_area_struct *vma,
						       struct page *page, pte_t pte)
{
	if (pte_protnone(pte))
		return false;
	/* vma_soft_dirty_enabled() */
	if (pgtable_supports_soft_dirty() && !(vma->vm_flags & VM_SOFTDIRTY) &&
	    !pte_soft_dirty(pte))
		return false;
	if (userfaultfd_pte_wp(vma, pte) || userfaultfd_pte_rwp(vma, pte))
		return false;
	return PageAnon(page) && PageAnonExclusive(page);
}

/*
 * Original: restore_exclusive_pte(), mm/memory.c
 *
 * With the folio and the page table locked.
 */
__mmops_helper void mmops_excl_restore(struct vm_area_struct *vma, struct page *page,
				       unsigned long addr, pte_t *ptep, pte_t old)
{
	pte_t pte = pte_mkold(mk_pte(page, READ_ONCE(vma->vm_page_prot)));

	if (pte_swp_soft_dirty(old))
		pte = pte_mksoft_dirty(pte);
	if (pte_swp_uffd(old))
		pte = pte_mkuffd(pte);
	if (pte_swp_uffd(old) && userfaultfd_rwp(vma))
		pte = pte_modify(pte, PAGE_NONE);
	if ((vma->vm_flags & VM_WRITE) && mmops_excl_can_be_writable(vma, page, pte)) {
		if (folio_test_dirty(page_folio(page)))
			pte = pte_mkdirty(pte);
		/* pte_mkwrite(): a shadow stack never becomes exclusive. */
		pte = pte_clear_saveddirty(pte_mkwrite_novma(pte));
	}
	set_pte_at(vma->vm_mm, addr, ptep, pte);
	update_mmu_cache(vma, addr, ptep);
}

/*
 * Original: can_madvise_modify(), mm/madvise.c
 *
 * Whether mseal(2) permits to discard what the VMA maps. The protection keys are
 * those of the current task.
 */
__mmops_helper bool mmops_vma_may_discard(struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_SEALED) || !vma_is_anonymous(vma))
		return true;
	return (vma->vm_flags & VM_WRITE) &&
	       arch_vma_access_permitted(vma, true, false, vma->vm_mm != current->mm);
}

/*
 * Original: ksm_might_unmap_zero_page(), include/linux/ksm.h
 *
 * A special entry that was taken.
 */
__mmops_helper void mmops_unmap_special(struct vm_area_struct *vma, pte_t pte)
{
#ifdef CONFIG_KSM
	/* Without a PFN map, what is special is a zero page. */
	if (pte_dirty(pte) && !(vma->vm_flags & (VM_PFNMAP | VM_MIXEDMAP))) {
		atomic_long_dec(&ksm_zero_pages);
		atomic_long_dec(&vma->vm_mm->ksm_zero_pages);
	}
#endif
}
