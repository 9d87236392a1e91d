// SPDX-License-Identifier: GPL-2.0
/* What takes entries out of page tables. */

#include <linux/hugetlb.h>
#include <linux/ksm.h>
#include <linux/leafops.h>
#include <linux/rmap.h>
#include <linux/swapops.h>
#include <linux/userfaultfd_k.h>
#include <asm/mmu_context.h>

/* mm/internal.h and mm/rmap.c have them; the kernel exports them to mmops. */
void flush_tlb_batched_pending(struct mm_struct *mm);
bool cond_install_uffd_wp_ptes(struct vm_area_struct *vma, unsigned long addr,
			       pte_t *ptep, pte_t pte, unsigned long nr_ptes);

__mmops_helper pte_t mmops_ptes_get_and_clear(struct mm_struct *mm,
					      unsigned long addr, pte_t *ptep,
					      unsigned int nr)
{
	return get_and_clear_full_ptes(mm, addr, ptep, nr, 0);
}

__mmops_helper void mmops_ptes_clear_nonpresent(struct mm_struct *mm,
						unsigned long addr, pte_t *ptep,
						unsigned int nr)
{
	clear_nonpresent_ptes(mm, addr, ptep, nr);
}

/* Single bits that tell nothing of what the batch of entries maps. */
static __always_inline pte_t mmops_pte_batch_base(pte_t pte)
{
	pte = pte_clear_soft_dirty(pte_mkclean(pte));
	return pte_mkold(pte_wrprotect(pte));
}

/*
 * The number of entries, @max at the most, that map consecutive pages of a
 * large folio. Source: folio_pte_batch().
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

__mmops_helper bool mmops_folio_test_large(const struct folio *folio)
{
	return folio_test_large(folio);
}

/*
 * Whether mseal(2) permits to discard what the VMA maps. As can_madvise_modify()
 * of mm/madvise.c; the protection keys are those of the current task.
 */
__mmops_helper bool mmops_vma_may_discard(struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_SEALED) || !vma_is_anonymous(vma))
		return true;
	return (vma->vm_flags & VM_WRITE) &&
	       arch_vma_access_permitted(vma, true, false, vma->vm_mm != current->mm);
}

__mmops_helper bool mmops_vma_has_recency(const struct vm_area_struct *vma)
{
	return vma_has_recency(vma);
}

__mmops_helper bool mmops_userfaultfd_pte_wp(struct vm_area_struct *vma, pte_t pte)
{
	return userfaultfd_pte_wp(vma, pte);
}

__mmops_helper void mmops_check_zapped_pte(struct vm_area_struct *vma, pte_t pte)
{
	if (IS_ENABLED(CONFIG_DEBUG_VM))
		arch_check_zapped_pte(vma, pte);
}

/* A special entry that was taken; ksm_might_unmap_zero_page(). */
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

/* Entries that are not present */

enum mmops_zap_kind {
	MMOPS_ZAP_DEVICE,	/* device-private or device-exclusive page */
	MMOPS_ZAP_SWAP,
	MMOPS_ZAP_MIGRATION,
	MMOPS_ZAP_UFFD_WP_MARKER,
	MMOPS_ZAP_GUARD_MARKER,
	MMOPS_ZAP_OTHER,	/* hwpoison, poison marker */
};

__mmops_helper int mmops_zap_kind(pte_t pte)
{
	softleaf_t entry = softleaf_from_pte(pte);

	if (softleaf_is_swap(entry))
		return MMOPS_ZAP_SWAP;
	if (softleaf_is_device_private(entry) ||
	    softleaf_is_device_exclusive(entry))
		return MMOPS_ZAP_DEVICE;
	if (softleaf_is_migration(entry))
		return MMOPS_ZAP_MIGRATION;
	if (softleaf_is_uffd_wp_marker(entry))
		return MMOPS_ZAP_UFFD_WP_MARKER;
	if (softleaf_is_guard_marker(entry))
		return MMOPS_ZAP_GUARD_MARKER;
	return MMOPS_ZAP_OTHER;
}

/* The page that a device or migration entry stands for. */
__mmops_helper struct page *mmops_softleaf_page(pte_t pte)
{
	return softleaf_to_page(softleaf_from_pte(pte));
}

/* The number of entries for consecutive places in swap, as swap_pte_batch(). */
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

__mmops_helper void mmops_swap_put(pte_t pte, unsigned int nr)
{
	swap_put_entries_direct(softleaf_from_pte(pte), nr);
}

__mmops_helper void mmops_folio_put(struct folio *folio)
{
	folio_put(folio);
}

/* Leaves */

__mmops_helper pmd_t mmops_pmdp_get_and_clear(struct vm_area_struct *vma,
					      unsigned long addr, pmd_t *pmdp)
{
	pmd_t pmd = pmdp_huge_get_and_clear_full(vma, addr, pmdp, 0);

	arch_check_zapped_pmd(vma, pmd);
	return pmd;
}

__mmops_helper struct folio *mmops_pmd_softleaf_folio(pmd_t pmd)
{
	return pmd_to_softleaf_folio(pmd);
}

/* A migration entry is none, though its page may be one that a device gives back. */
__mmops_helper bool mmops_pmd_is_device_private(pmd_t pmd)
{
	return !pmd_present(pmd) && softleaf_is_device_private(softleaf_from_pmd(pmd));
}

__mmops_helper void mmops_free_deposited_table(struct mm_struct *mm, pmd_t *pmdp)
{
	pte_free(mm, pgtable_trans_huge_withdraw(mm, pmdp));
	mm_dec_nr_ptes(mm);
}

__mmops_helper pud_t mmops_pudp_get_and_clear(struct vm_area_struct *vma,
					      unsigned long addr, pud_t *pudp)
{
	pud_t pud = pudp_huge_get_and_clear_full(vma, addr, pudp, 0);

	arch_check_zapped_pud(vma, pud);
	return pud;
}

/* hugetlbfs */

__mmops_helper unsigned long mmops_hugetlb_page_size(struct vm_area_struct *vma)
{
	return huge_page_size(hstate_vma(vma));
}
