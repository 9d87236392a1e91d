// SPDX-License-Identifier: GPL-2.0
/* Entries that are not present: linux/leafops.h, linux/swapops.h, linux/swap.h. */

#include <linux/leafops.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/userfaultfd_k.h>

/* mm/rmap.c has it; the kernel exports it to mmops. */
bool cond_install_uffd_wp_ptes(struct vm_area_struct *vma, unsigned long addr,
			       pte_t *ptep, pte_t pte, unsigned long nr_ptes);

/* Depends on the number of page table levels, so it is no constant. */
__mmops_helper unsigned int mmops_swp_pfn_bits(void)
{
	return SWP_PFN_BITS;
}

__mmops_helper unsigned long mmops_pte_softleaf(pte_t pte)
{
	return softleaf_from_pte(pte).val;
}

__mmops_helper unsigned long mmops_pmd_softleaf(pmd_t pmd)
{
	return softleaf_from_pmd(pmd).val;
}

/* enum softleaf_type */
__mmops_helper unsigned int mmops_pte_softleaf_type(pte_t pte)
{
	return softleaf_type(softleaf_from_pte(pte));
}

__mmops_helper unsigned int mmops_pmd_softleaf_type(pmd_t pmd)
{
	return softleaf_type(softleaf_from_pmd(pmd));
}

/*
 * The page that a device or migration entry stands for. Of a migration it is not
 * enough to take the page of the frame: see softleaf_migration_sync().
 */
__mmops_helper struct page *mmops_pte_softleaf_page(pte_t pte)
{
	return softleaf_to_page(softleaf_from_pte(pte));
}

__mmops_helper struct folio *mmops_pmd_softleaf_folio(pmd_t pmd)
{
	return pmd_to_softleaf_folio(pmd);
}

/* The same of an entry that is not present, which keeps these bits elsewhere. */
__mmops_helper unsigned int mmops_pte_softleaf_state(pte_t pte)
{
	return (pte_swp_soft_dirty(pte) ? MMOPS_LEAF_SOFT_DIRTY : 0) |
	       (pte_swp_uffd_any(pte) ? MMOPS_LEAF_UFFD : 0);
}

__mmops_helper unsigned int mmops_pmd_softleaf_state(pmd_t pmd)
{
	return (pmd_swp_soft_dirty(pmd) ? MMOPS_LEAF_SOFT_DIRTY : 0) |
	       (pmd_swp_uffd(pmd) ? MMOPS_LEAF_UFFD : 0);
}

/*
 * A non-present entry, which nobody but the holder of the lock changes. The
 * soft-dirty bit that was cleared, or 0. @keep_write is for a negative control.
 */
#define MMOPS_TRACK_NONPRESENT(level)						\
	__mmops_helper bool							\
	mmops_##level##p_track_nonpresent(struct mm_struct *mm, unsigned long addr,	\
					  level##_t *entryp, bool keep_write)	\
	{									\
		level##_t old = level##p_get(entryp), new = old;		\
		softleaf_t readable = mmops_softleaf_wrprotect(softleaf_from_##level(old));	\
										\
		if (readable.val && !keep_write) {				\
			new = softleaf_to_##level(readable);			\
			if (level##_swp_uffd(old))				\
				new = level##_swp_mkuffd(new);			\
		}								\
		new = level##_swp_clear_soft_dirty(new);			\
		if (!level##_same(old, new))					\
			set_##level##_at(mm, addr, entryp, new);		\
		return level##_swp_soft_dirty(old);				\
	}

MMOPS_TRACK_NONPRESENT(pte)
MMOPS_TRACK_NONPRESENT(pmd)

/* zap */

__mmops_helper void mmops_swap_put(pte_t pte, unsigned int nr)
{
	swap_put_entries_direct(softleaf_from_pte(pte), nr);
}

/* exclusive */

/* What a present entry has to do with a device that wants its page. */
enum mmops_excl_kind {
	MMOPS_EXCL_PAGE,	/* maps a page that may become exclusive */
	MMOPS_EXCL_FAULT,	/* a write fault is needed first */
	MMOPS_EXCL_KSM,
	MMOPS_EXCL_USERFAULTFD,	/* a fault would have to ask userspace */
};

/*
 * Whether a fault at an entry that is not present may have to ask userspace. Minor mode asks
 * if the page cache has the page, which is not looked up.
 */
__mmops_helper bool mmops_excl_asks_userspace(struct vm_area_struct *vma, pte_t pte)
{
	return pte_none(pte) ? userfaultfd_missing(vma) || userfaultfd_minor(vma) :
	       pte_swp_uffd_any(pte) && userfaultfd_armed(vma);
}

/* Called with the page table lock held; *@page is set for the first kind. */
__mmops_helper int mmops_excl_kind(struct vm_area_struct *vma, pte_t pte, struct page **page)
{
	struct folio *folio;

	/* Not vm_normal_page(): the VMA is no PFN map. */
	if (!pte_special(pte)) {
		*page = pte_page(pte);
		folio = page_folio(*page);
		if (folio_test_ksm(folio))
			return MMOPS_EXCL_KSM;
		/* What is writable belongs to this mapping alone. */
		if (folio_test_anon(folio) && pte_write(pte))
			return MMOPS_EXCL_PAGE;
	}
	if (userfaultfd_pte_wp(vma, pte) || userfaultfd_pte_rwp(vma, pte))
		return MMOPS_EXCL_USERFAULTFD;
	return MMOPS_EXCL_FAULT;
}

/*
 * A device gets a page that is exclusive already, and may store to it from now
 * on: what a write fault would see to is done here, as make_device_exclusive()
 * has it done by one. False if it would have to ask userspace.
 */
__mmops_helper bool mmops_excl_again(struct vm_area_struct *vma, unsigned long addr,
				     pte_t *ptep)
{
	pte_t pte = ptep_get(ptep);

	if (pte_swp_uffd_any(pte) && userfaultfd_armed(vma))
		return false;
	if (!pte_swp_soft_dirty(pte))
		set_pte_at(vma->vm_mm, addr, ptep, pte_swp_mksoft_dirty(pte));
	return true;
}
