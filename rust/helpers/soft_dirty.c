/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Soft-dirty bits, and the mmap lock held for writing.
 */
#include <linux/huge_mm.h>
#include <linux/leafops.h>
#include <linux/mmap_lock.h>
#include <linux/userfaultfd_k.h>

/* PTEs */

/* Whether clear_soft_dirty() has anything to do with an entry. */
__mmops_helper bool mmops_pte_tracks_no_store(pte_t pte)
{
	/* The usual answers first; the bits mean other things if it is not present. */
	if (pte_flags(pte) & (_PAGE_RW | _PAGE_SOFT_DIRTY))
		return true;
	if (likely(pte_present(pte)))
		return pte_write(pte);
	return !pte_none(pte);
}

/* Present, writable and soft-dirty: the usual entry of a page that was stored to. */
__mmops_helper bool mmops_pte_is_stored_to(pte_t pte)
{
	const pteval_t mask = _PAGE_PRESENT | _PAGE_RW | _PAGE_SOFT_DIRTY;

	return (pte_flags(pte) & mask) == mask;
}

static __always_inline pte_t mmops_pte_track(pte_t pte)
{
	return pte_clear_soft_dirty(pte_wrprotect(pte));
}

__mmops_helper pte_t mmops_ptep_track(pte_t *ptep, pte_t value)
{
	return mmops_update_from(ptep, value, mmops_pte_track);
}

static __always_inline pmd_t mmops_pmd_track(pmd_t pmd)
{
	return pmd_clear_soft_dirty(pmd_wrprotect(pmd));
}

__mmops_helper pmd_t mmops_pmdp_track(pmd_t *pmdp)
{
	return mmops_update(pmdp, mmops_pmd_track);
}

static __always_inline pud_t mmops_pud_track(pud_t pud)
{
	return pud_clear_soft_dirty(pud_wrprotect(pud));
}

__mmops_helper pud_t mmops_pudp_track(pud_t *pudp)
{
	return mmops_update(pudp, mmops_pud_track);
}

/*
 * The leaf entry without its write permission: what comes back of it as a
 * present entry would be writable else, and a store to it go unseen. Zero for
 * an entry that has none to lose. The accessed and the dirty bit of a migration
 * entry are a part of the offset. As change_softleaf_pte() of mm/mprotect.c.
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
 * A non-present entry, which nobody but the holder of the lock changes. The
 * soft-dirty bit that was cleared, or 0. @keep_write is for a negative control.
 */
__mmops_helper bool mmops_ptep_track_nonpresent(struct mm_struct *mm, unsigned long addr,
						pte_t *ptep, bool keep_write)
{
	pte_t old = ptep_get(ptep), new;
	softleaf_t readable = mmops_softleaf_wrprotect(softleaf_from_pte(old));

	new = old;
	if (readable.val && !keep_write) {
		new = softleaf_to_pte(readable);
		if (pte_swp_uffd(old))
			new = pte_swp_mkuffd(new);
	}
	new = pte_swp_clear_soft_dirty(new);
	if (!pte_same(old, new))
		set_pte_at(mm, addr, ptep, new);
	return pte_swp_soft_dirty(old);
}

__mmops_helper bool mmops_pmdp_track_nonpresent(struct mm_struct *mm, unsigned long addr,
						pmd_t *pmdp)
{
	pmd_t old = *pmdp, new;
	softleaf_t readable = mmops_softleaf_wrprotect(softleaf_from_pmd(old));

	new = old;
	if (readable.val) {
		new = softleaf_to_pmd(readable);
		if (pmd_swp_uffd(old))
			new = pmd_swp_mkuffd(new);
	}
	new = pmd_swp_clear_soft_dirty(new);
	if (!pmd_same(old, new))
		set_pmd_at(mm, addr, pmdp, new);
	return pmd_swp_soft_dirty(old);
}

/* Set the soft-dirty bit of an entry that is not none. */
__mmops_helper void mmops_ptep_mksoft_dirty(struct mm_struct *mm, unsigned long addr,
					    pte_t *ptep)
{
	pte_t pte = ptep_get(ptep);

	if (!pte_present(pte))
		set_pte_at(mm, addr, ptep, pte_swp_mksoft_dirty(pte));
	else if (!pte_soft_dirty(pte))
		mmops_update_from(ptep, pte, pte_mksoft_dirty);
}

__mmops_helper void mmops_pmdp_mksoft_dirty(struct mm_struct *mm, unsigned long addr,
					    pmd_t *pmdp)
{
	pmd_t pmd = *pmdp;

	if (pmd_present(pmd))
		mmops_update(pmdp, pmd_mksoft_dirty);
	else
		set_pmd_at(mm, addr, pmdp, pmd_swp_mksoft_dirty(pmd));
}

__mmops_helper void mmops_pudp_mksoft_dirty(pud_t *pudp)
{
	mmops_update(pudp, pud_mksoft_dirty);
}

/*
 * A device may store to a pinned page at any time, and no fault will tell of
 * it. GUP-fast sets the flag of the mm, pins the page, and then looks whether the
 * entry is still what it was: who asks after a change of the entry finds the
 * pin, or GUP-fast finds the change. pte_is_pinned() of fs/proc/task_mmu.c is
 * asked before the change.
 */
__mmops_helper bool mmops_mm_may_have_pins(struct mm_struct *mm)
{
	return mm_flags_test(MMF_HAS_PINNED, mm);
}

__mmops_helper bool mmops_pte_is_pinned(struct vm_area_struct *vma, unsigned long addr,
					pte_t pte)
{
	struct folio *folio = vm_normal_folio(vma, addr, pte);

	return folio && folio_maybe_dma_pinned(folio);
}

__mmops_helper bool mmops_pmd_is_pinned(struct vm_area_struct *vma, unsigned long addr,
					pmd_t pmd)
{
	struct folio *folio = vm_normal_folio_pmd(vma, addr, pmd);

	return folio && folio_maybe_dma_pinned(folio);
}

__mmops_helper bool mmops_pud_is_pinned(pud_t pud)
{
	return !pud_special(pud) && folio_maybe_dma_pinned(page_folio(pud_page(pud)));
}

/*
 * Make an entry soft-dirty that mmops_ptep_track() has changed, and writable if it
 * was. Not with pte_mkwrite(), which no module may use: a shadow stack stays
 * without its permission.
 */
static __always_inline pte_t mmops_pte_untrack(pte_t pte)
{
	return pte_mksoft_dirty(pte_clear_saveddirty(pte_mkwrite_novma(pte)));
}

__mmops_helper void mmops_ptep_untrack(pte_t *ptep, bool was_rw)
{
	if (was_rw)
		mmops_update(ptep, mmops_pte_untrack);
	else
		mmops_update(ptep, pte_mksoft_dirty);
}

static __always_inline pmd_t mmops_pmd_untrack(pmd_t pmd)
{
	return pmd_mksoft_dirty(pmd_clear_saveddirty(pmd_mkwrite_novma(pmd)));
}

/* True if @old had a permission that is not back. */
__mmops_helper bool mmops_pmdp_untrack(pmd_t *pmdp, pmd_t old)
{
	if (pmd_flags(old) & _PAGE_RW) {
		mmops_update(pmdp, mmops_pmd_untrack);
		return false;
	}
	mmops_update(pmdp, pmd_mksoft_dirty);
	return pmd_write(old);
}

static __always_inline pud_t mmops_pud_untrack(pud_t pud)
{
	return pud_mksoft_dirty(pud_mkwrite(pud));
}

__mmops_helper void mmops_pudp_untrack(pud_t *pudp, pud_t old)
{
	if (pud_write(old))
		mmops_update(pudp, mmops_pud_untrack);
	else
		mmops_update(pudp, pud_mksoft_dirty);
}

/* VMAs */

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

/*
 * Map what is not mapped for reading, as MADV_POPULATE_READ, with the mmap lock
 * held throughout. The number of pages that are there, or an error for the first.
 */
__mmops_helper long mmops_populate(struct mm_struct *mm, unsigned long addr, unsigned long nr)
{
	return get_user_pages_remote(mm, addr, nr, FOLL_FORCE, NULL, NULL);
}

/*
 * The place and the value of the huge leaf of an anonymous VMA at @addr, or NULL
 * if there is none. Called with the mmap lock held, so that no table above the
 * lowest goes away.
 */
static __always_inline pmd_t *mmops_anon_leaf(struct vm_area_struct *vma, unsigned long addr,
					      pmd_t *value)
{
	pgd_t *pgd = pgd_offset(vma->vm_mm, addr);
	p4d_t *p4d;
	pud_t *pud;
	pmd_t *pmd;

	if (!vma_is_anonymous(vma) || pgd_none(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	if (p4d_none(*p4d))
		return NULL;
	pud = pud_offset(p4d, addr);
	if (pud_none(*pud) || pud_leaf(*pud))
		return NULL;
	pmd = pmd_offset(pud, addr);
	*value = pmdp_get_lockless(pmd);
	return pmd_is_huge(*value) ? pmd : NULL;
}

/*
 * Replace the huge leaf of an anonymous VMA at @addr, if there is one, by PTEs.
 * True if it was soft-dirty: the PTEs of a huge zero page are not then.
 */
__mmops_helper bool mmops_split_anon_leaf(struct vm_area_struct *vma, unsigned long addr)
{
	pmd_t *pmd, value;

	pmd = mmops_anon_leaf(vma, addr, &value);
	if (!pmd)
		return false;
	split_huge_pmd(vma, pmd, addr);
	return pmd_present(value) ? pmd_soft_dirty(value) : pmd_swp_soft_dirty(value);
}

/* Whether there is a huge zero page at @addr of an anonymous VMA, and soft-dirty. */
__mmops_helper bool mmops_is_soft_dirty_huge_zero(struct vm_area_struct *vma,
						  unsigned long addr)
{
	pmd_t value;

	return mmops_anon_leaf(vma, addr, &value) && pmd_present(value) &&
	       pmd_special(value) && pmd_soft_dirty(value);
}

/* The mmap lock */

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
