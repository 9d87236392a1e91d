// SPDX-License-Identifier: GPL-2.0
/* Another protection for leaves that stay mapped. */

#include <linux/huge_mm.h>
#include <linux/leafops.h>
#include <linux/mm.h>
#include <linux/page_table_check.h>
#include <linux/pgtable.h>
#include <linux/swapops.h>
#include <linux/userfaultfd_k.h>

/* mm/internal.h has it; the kernel exports it to mmops. */
void flush_tlb_batched_pending(struct mm_struct *mm);
bool can_change_pte_writable(struct vm_area_struct *vma, unsigned long addr,
			     pte_t pte);

/* What changed in an entry: a permission at all, and one that the CPU may cache. */
#define MMOPS_PROT_CHANGED	1U
#define MMOPS_PROT_LOST		2U

#define MMOPS_PROT_BITS	(_PAGE_PRESENT | _PAGE_RW | _PAGE_USER | _PAGE_PROTNONE | _PAGE_NX)

__mmops_helper unsigned int mmops_prot_diff(unsigned long old, unsigned long new)
{
	unsigned int ret = 0;

	/* _PAGE_PROTNONE is _PAGE_GLOBAL, and counts only if the entry is not present. */
	if ((old ^ new) & MMOPS_PROT_BITS)
		ret |= MMOPS_PROT_CHANGED;
	if ((old & _PAGE_PRESENT) &&
	    ((old & ~new & (_PAGE_PRESENT | _PAGE_RW | _PAGE_USER)) || (~old & new & _PAGE_NX)))
		ret |= MMOPS_PROT_LOST;
	return ret;
}

/*
 * The protection that entries of @vma have if only @access (VM_READ, VM_WRITE,
 * VM_EXEC) of what the VMA allows is asked for, as vma_set_page_prot() makes
 * it. Where the VMA wants to see write faults, vm_page_prot says so already.
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

__mmops_helper bool mmops_vma_has_shadow_stack(const struct vm_area_struct *vma)
{
	return VM_SHADOW_STACK && (vma->vm_flags & VM_SHADOW_STACK);
}

/* Whether the mapping could be cut at @addr: 0 or -errno, as mprotect(2) asks. */
__mmops_helper int mmops_vma_may_split(struct vm_area_struct *vma, unsigned long addr)
{
	if (vma->vm_ops && vma->vm_ops->may_split)
		return vma->vm_ops->may_split(vma, addr);
	return 0;
}

__mmops_helper void mmops_flush_tlb_batched_pending(struct mm_struct *mm)
{
	flush_tlb_batched_pending(mm);
}

static __always_inline pte_t mmops_pte_protect(struct vm_area_struct *vma, unsigned long addr,
					       pte_t old, pgprot_t prot, bool write)
{
	pte_t new = pte_modify(old, prot);

	/* As change_present_ptes(). */
	if (userfaultfd_rwp(vma) && pte_uffd(new))
		new = pte_modify(new, PAGE_NONE);
	if (write && !pte_write(new) && can_change_pte_writable(vma, addr, new))
		new = pte_clear_saveddirty(pte_mkwrite_novma(new));
	return new;
}

/*
 * Give a present entry the protection @prot, and the write permission if
 * @write and a write fault would do no more than that. The entry is never
 * cleared, and what the CPU notes in it meanwhile is kept.
 *
 * The CPU does not use a PROT_NONE entry. Only for one, page_table_check has an
 * interest in the change.
 */
__mmops_helper unsigned int mmops_ptep_protect(struct vm_area_struct *vma, unsigned long addr,
					       pte_t *ptep, unsigned long prot, bool write)
{
	pte_t old = ptep_get(ptep), new;

	do {
		new = mmops_pte_protect(vma, addr, old, __pgprot(prot), write);
		if (pte_same(old, new))
			return 0;
		if (unlikely(pte_protnone(old))) {
			set_pte_at(vma->vm_mm, addr, ptep, new);
			return mmops_prot_diff(pte_val(old), pte_val(new));
		}
	} while (!try_cmpxchg((long *)ptep, (long *)&old, *(long *)&new));

	if (unlikely(pte_protnone(new)))
		page_table_check_pte_clear(vma->vm_mm, addr, old);
	return mmops_prot_diff(pte_val(old), pte_val(new));
}

/*
 * An entry that is not present but would come back writable: it will be
 * read-only, as change_softleaf_pte() does it.
 */
__mmops_helper void mmops_ptep_protect_softleaf(struct vm_area_struct *vma, unsigned long addr,
						pte_t *ptep)
{
	pte_t old = ptep_get(ptep), new;
	softleaf_t entry = softleaf_from_pte(old);

	if (softleaf_is_migration_write(entry)) {
		if (folio_test_anon(softleaf_to_folio(entry)))
			entry = make_readable_exclusive_migration_entry(swp_offset(entry));
		else
			entry = make_readable_migration_entry(swp_offset(entry));
		new = swp_entry_to_pte(entry);
		if (pte_swp_soft_dirty(old))
			new = pte_swp_mksoft_dirty(new);
	} else if (softleaf_is_device_private_write(entry)) {
		entry = make_readable_device_private_entry(swp_offset(entry));
		new = swp_entry_to_pte(entry);
	} else {
		return;
	}
	if (pte_swp_uffd(old))
		new = pte_swp_mkuffd(new);
	set_pte_at(vma->vm_mm, addr, ptep, new);
}

/* can_change_pmd_writable() of mm/huge_memory.c */
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

/* As mmops_ptep_protect(), for a present leaf. */
__mmops_helper unsigned int mmops_pmdp_protect(struct vm_area_struct *vma, unsigned long addr,
					       pmd_t *pmdp, unsigned long prot, bool write)
{
	pmd_t old = pmdp_get(pmdp), new;

	do {
		new = mmops_pmd_protect(vma, addr, old, __pgprot(prot), write);
		if (pmd_same(old, new))
			return 0;
		if (unlikely(pmd_protnone(old))) {
			set_pmd_at(vma->vm_mm, addr, pmdp, new);
			return mmops_prot_diff(pmd_val(old), pmd_val(new));
		}
	} while (!try_cmpxchg((long *)pmdp, (long *)&old, *(long *)&new));

	if (unlikely(pmd_protnone(new)))
		page_table_check_pmd_clear(vma->vm_mm, addr, old);
	return mmops_prot_diff(pmd_val(old), pmd_val(new));
}

/* As mmops_ptep_protect_softleaf(); see change_non_present_huge_pmd(). */
__mmops_helper void mmops_pmdp_protect_softleaf(struct vm_area_struct *vma, unsigned long addr,
						pmd_t *pmdp)
{
	pmd_t old = pmdp_get(pmdp), new;
	softleaf_t entry = softleaf_from_pmd(old);

	if (softleaf_is_migration_write(entry)) {
		if (folio_test_anon(softleaf_to_folio(entry)))
			entry = make_readable_exclusive_migration_entry(swp_offset(entry));
		else
			entry = make_readable_migration_entry(swp_offset(entry));
		new = softleaf_to_pmd(entry);
		if (pmd_swp_soft_dirty(old))
			new = pmd_swp_mksoft_dirty(new);
	} else if (softleaf_is_device_private_write(entry)) {
		entry = make_readable_device_private_entry(swp_offset(entry));
		new = softleaf_to_pmd(entry);
	} else {
		return;
	}
	if (pmd_swp_uffd(old))
		new = pmd_swp_mkuffd(new);
	set_pmd_at(vma->vm_mm, addr, pmdp, new);
}

/* As mmops_ptep_protect(). @prot is not PROT_NONE, and no PUD leaf is anonymous. */
__mmops_helper unsigned int mmops_pudp_protect(pud_t *pudp, unsigned long prot)
{
	pud_t old = pudp_get(pudp), new;

	do {
		new = pud_modify(old, __pgprot(prot));
		if (pud_same(old, new))
			return 0;
	} while (!try_cmpxchg((long *)pudp, (long *)&old, *(long *)&new));
	return mmops_prot_diff(pud_val(old), pud_val(new));
}

/*
 * Put a PMD table in the place of an invalidated PUD leaf that maps no folio: its
 * entries are leaves that map the same page frames with the same bits.
 *
 * pmd_alloc_one() needs more than a module may call. A new PTE table is the same
 * page with the same lock, but for what only a PMD table keeps.
 */
__mmops_helper void mmops_pud_populate_leaves(struct mm_struct *mm, unsigned long addr,
					      pud_t *pudp, pgtable_t table, pud_t old)
{
	struct ptdesc *ptdesc = page_ptdesc(table);
	pmd_t *pmdp = page_address(table);
	unsigned long i;

	BUILD_BUG_ON(!IS_ENABLED(CONFIG_SPLIT_PMD_PTLOCKS) !=
		     !IS_ENABLED(CONFIG_SPLIT_PTE_PTLOCKS));
	ptdesc->pmd_huge_pte = NULL;
	ptdesc_pmd_pts_init(ptdesc);
	for (i = 0; i < PTRS_PER_PMD; i++)
		set_pmd_at(mm, addr + i * PMD_SIZE, pmdp + i,
			   pfn_pmd(pud_pfn(old) + i * (PMD_SIZE >> PAGE_SHIFT), pud_pgprot(old)));
	mm_inc_nr_pmds(mm);
	smp_wmb(); /* the entries before the table, as __pmd_alloc() */
	pud_populate(mm, pudp, (pmd_t *)pmdp);
}
