// SPDX-License-Identifier: GPL-2.0
/* Pages that a device has for itself. */

#include <linux/highmem.h>
#include <linux/ksm.h>
#include <linux/leafops.h>
#include <linux/page_table_check.h>
#include <linux/swapops.h>
#include <linux/userfaultfd_k.h>

/* What an entry has to do with a device that wants its page. */
enum mmops_excl_kind {
	MMOPS_EXCL_PAGE,	/* maps a page that may become exclusive */
	MMOPS_EXCL_ALREADY,	/* device-exclusive already */
	MMOPS_EXCL_FAULT,	/* a write fault is needed first */
	MMOPS_EXCL_KSM,
	MMOPS_EXCL_USERFAULTFD,	/* a fault would have to ask userspace */
	MMOPS_EXCL_POISONED,
	MMOPS_EXCL_GUARD,
};

static __always_inline int mmops_excl_nonpresent(struct vm_area_struct *vma, pte_t pte,
						 struct page **page)
{
	softleaf_t entry;

	if (pte_none(pte))
		return userfaultfd_missing(vma) ? MMOPS_EXCL_USERFAULTFD : MMOPS_EXCL_FAULT;
	entry = softleaf_from_pte(pte);
	if (softleaf_is_device_exclusive(entry)) {
		*page = softleaf_to_page(entry);
		return MMOPS_EXCL_ALREADY;
	}
	if (softleaf_is_hwpoison(entry) || softleaf_is_poison_marker(entry))
		return MMOPS_EXCL_POISONED;
	if (softleaf_is_guard_marker(entry))
		return MMOPS_EXCL_GUARD;
	if (pte_swp_uffd_any(pte) && userfaultfd_armed(vma))
		return MMOPS_EXCL_USERFAULTFD;
	return MMOPS_EXCL_FAULT;
}

/* Called with the page table lock held; *@page is set for the first two kinds. */
__mmops_helper int mmops_excl_kind(struct vm_area_struct *vma, pte_t pte, struct page **page)
{
	struct folio *folio;

	if (!pte_present(pte))
		return mmops_excl_nonpresent(vma, pte, page);
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

/*
 * Whether an entry still is what MMOPS_EXCL_PAGE said of @page, whose folio is
 * locked since: it neither becomes another kind of page nor is it merged.
 */
__mmops_helper bool mmops_excl_is_of(pte_t pte, struct page *page)
{
	return pte_present(pte) && pte_write(pte) && pte_pfn(pte) == page_to_pfn(page);
}

/*
 * Put the special entry in the place of @old, by one exchange: the dirty bit
 * that comes back is the last that the CPU has set. The soft-dirty bit is set
 * by faults alone, which wait for the lock. A writable entry has no uffd-wp.
 */
__mmops_helper pte_t mmops_excl_make(struct mm_struct *mm, unsigned long addr, pte_t *ptep,
				     pte_t old, struct page *page)
{
	pte_t pte = swp_entry_to_pte(make_device_exclusive_entry(page_to_pfn(page)));

	if (pte_soft_dirty(old))
		pte = pte_swp_mksoft_dirty(pte);
	old = native_make_pte(xchg(&ptep->pte, pte_val(pte)));
	page_table_check_pte_clear(mm, addr, old);
	return old;
}

__mmops_helper void mmops_excl_undo(struct mm_struct *mm, unsigned long addr, pte_t *ptep,
				    pte_t old)
{
	set_pte_at(mm, addr, ptep, old);
}

/* can_change_pte_writable() for a private anonymous page of a writable VMA. */
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

/* As restore_exclusive_pte(), with the folio and the page table locked. */
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

__mmops_helper bool mmops_vma_is_shadow_stack(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_SHADOW_STACK;
}

__mmops_helper bool mmops_vma_is_special(const struct vm_area_struct *vma)
{
	return vma->vm_flags & (VM_IO | VM_PFNMAP);
}

/*
 * The PTE table for @addr, mapped and locked. NULL if there is none; a huge
 * leaf is split, or is none if @split is not set. Called with the mmap lock
 * held, so that no table above the lowest goes away.
 */
__mmops_helper pte_t *mmops_excl_lock_table(struct vm_area_struct *vma, unsigned long addr,
					    bool split, spinlock_t **ptl)
{
	pgd_t *pgd = pgd_offset(vma->vm_mm, addr);
	unsigned int tries = 16;
	p4d_t *p4d;
	pud_t *pud;
	pmd_t *pmd;
	pte_t *pte;

	if (pgd_none(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	if (p4d_none(*p4d))
		return NULL;
	pud = pud_offset(p4d, addr);
	/* A leaf of this size is not anonymous. */
	if (pud_none(*pud) || pud_leaf(*pud))
		return NULL;
	pmd = pmd_offset(pud, addr);
	while (tries--) {
		pmd_t value = pmdp_get_lockless(pmd);

		if (pmd_none(value))
			return NULL;
		if (pmd_is_huge(value)) {
			if (!split)
				return NULL;
			split_huge_pmd(vma, pmd, addr);
			continue;
		}
		pte = pte_offset_map_lock(vma->vm_mm, pmd, addr, ptl);
		if (pte)
			return pte;
	}
	return NULL;
}

/* Fault in @nr pages for writing. How many, from @addr on, or an error for the first. */
__mmops_helper long mmops_fault_in_writable(struct mm_struct *mm, unsigned long addr,
					    unsigned long nr)
{
	return get_user_pages_remote(mm, addr, nr, FOLL_WRITE | FOLL_SPLIT_PMD, NULL, NULL);
}

__mmops_helper void mmops_folio_get(struct folio *folio)
{
	folio_get(folio);
}

/* After an exchange of the entry, which is a full barrier; see try_grab_folio_fast(). */
__mmops_helper bool mmops_folio_maybe_pinned(struct folio *folio)
{
	return folio_maybe_dma_pinned(folio);
}

__mmops_helper int mmops_folio_lock_killable(struct folio *folio)
{
	return folio_lock_killable(folio);
}

/* What a device without atomics of the CPU does to memory. */
__mmops_helper void mmops_page_read(struct page *page, size_t offset, void *to, size_t len)
{
	char *from = kmap_local_page(page);

	if (len == sizeof(u64) && IS_ALIGNED(offset, sizeof(u64)))
		*(u64 *)to = READ_ONCE(*(u64 *)(from + offset));
	else
		memcpy(to, from + offset, len);
	kunmap_local(from);
}

__mmops_helper void mmops_page_write(struct page *page, size_t offset, const void *from,
				     size_t len)
{
	char *to = kmap_local_page(page);

	if (len == sizeof(u64) && IS_ALIGNED(offset, sizeof(u64)))
		WRITE_ONCE(*(u64 *)(to + offset), *(u64 *)from);
	else
		memcpy(to + offset, from, len);
	kunmap_local(to);
}
