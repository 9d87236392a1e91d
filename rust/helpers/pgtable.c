// SPDX-License-Identifier: GPL-2.0
/* Page table entries: linux/pgtable.h, linux/huge_mm.h, asm/pgtable.h, asm/pgalloc.h. */

#include <linux/mm.h>
#include <linux/page_table_check.h>
#include <linux/pgtable.h>
#include <asm/pgalloc.h>

/* A question to a value, which has the same name for each level. */
#define MMOPS_PREDICATE(level, what)					\
	__mmops_helper bool mmops_##level##_##what(level##_t entry)	\
	{								\
		return level##_##what(entry);				\
	}								\
	MMOPS_EXPORT(mmops_##level##_##what)

/* Those of a leaf of any level. */
#define MMOPS_LEAF_PREDICATES(level)					\
	MMOPS_PREDICATE(level, write);					\
	MMOPS_PREDICATE(level, dirty);					\
	MMOPS_PREDICATE(level, young);					\
	MMOPS_PREDICATE(level, soft_dirty);				\
	MMOPS_PREDICATE(level, special);				\
									\
	__mmops_helper unsigned long mmops_##level##_pfn(level##_t entry)	\
	{								\
		return level##_pfn(entry);				\
	}								\
	MMOPS_EXPORT(mmops_##level##_pfn)

MMOPS_LEAF_PREDICATES(pte);
MMOPS_LEAF_PREDICATES(pmd);
MMOPS_LEAF_PREDICATES(pud);

MMOPS_PREDICATE(pte, present);
MMOPS_PREDICATE(pmd, present);

/* mprotect() makes leaves without permissions, of which pud_present() of x86 does not know. */
__mmops_helper bool mmops_pud_present(pud_t pud)
{
	return pud_present(pud) || pud_trans_huge(pud);
}
MMOPS_EXPORT(mmops_pud_present);

MMOPS_PREDICATE(pte, none);
MMOPS_PREDICATE(pmd, none);
MMOPS_PREDICATE(pmd, is_huge);
MMOPS_PREDICATE(pud, trans_huge);

/* pte_write() without shadow stacks, which no file mapping has. */
__mmops_helper bool mmops_pte_rw(pte_t pte)
{
	return pte_flags(pte) & _PAGE_RW;
}
MMOPS_EXPORT(mmops_pte_rw);

/* What a leaf tells of itself */

#define MMOPS_LEAF_READ		(1U << 0)
#define MMOPS_LEAF_WRITE	(1U << 1)
#define MMOPS_LEAF_EXEC		(1U << 2)
#define MMOPS_LEAF_DIRTY	(1U << 3)
#define MMOPS_LEAF_YOUNG	(1U << 4)
#define MMOPS_LEAF_SOFT_DIRTY	(1U << 5)
#define MMOPS_LEAF_UFFD		(1U << 6)
#define MMOPS_LEAF_SPECIAL	(1U << 7)

/* The state of a present leaf. */
#define mmops_leaf_state(level, entry, uffd) ({					\
	unsigned long val = level##_val(entry);					\
	unsigned int state = 0;							\
										\
	if (val & _PAGE_PRESENT)						\
		state |= MMOPS_LEAF_READ | (val & _PAGE_NX ? 0 : MMOPS_LEAF_EXEC) |	\
			 (level##_write(entry) ? MMOPS_LEAF_WRITE : 0);		\
	state |= level##_dirty(entry) ? MMOPS_LEAF_DIRTY : 0;			\
	state |= level##_young(entry) ? MMOPS_LEAF_YOUNG : 0;			\
	state |= level##_soft_dirty(entry) ? MMOPS_LEAF_SOFT_DIRTY : 0;		\
	state |= (uffd) ? MMOPS_LEAF_UFFD : 0;					\
	state |= level##_special(entry) ? MMOPS_LEAF_SPECIAL : 0;		\
	state;									\
})

__mmops_helper unsigned int mmops_pte_leaf_state(pte_t pte)
{
	return mmops_leaf_state(pte, pte, pte_uffd(pte));
}

__mmops_helper unsigned int mmops_pmd_leaf_state(pmd_t pmd)
{
	return mmops_leaf_state(pmd, pmd, pmd_uffd(pmd));
}

/* userfaultfd knows no PUD leaves. */
__mmops_helper unsigned int mmops_pud_leaf_state(pud_t pud)
{
	return mmops_leaf_state(pud, pud, false);
}

/* Entries in their tables */

__mmops_helper pte_t mmops_ptep_get(pte_t *ptep)
{
	return ptep_get(ptep);
}
MMOPS_EXPORT(mmops_ptep_get);

__mmops_helper pmd_t mmops_pmdp_get_lockless(pmd_t *pmdp)
{
	return pmdp_get_lockless(pmdp);
}
MMOPS_EXPORT(mmops_pmdp_get_lockless);

__mmops_helper pud_t mmops_pudp_get(pud_t *pudp)
{
	return pudp_get(pudp);
}
MMOPS_EXPORT(mmops_pudp_get);

/*
 * Change an entry by @change, and return the value that was replaced. The kernel's
 * pudp_set_wrprotect() is not atomic: it can lose a dirty bit.
 */
#define MMOPS_UPDATE(level, name, change)				\
	__mmops_helper level##_t mmops_##level##p_##name(level##_t *entryp)	\
	{								\
		return mmops_update(entryp, change);			\
	}								\
	MMOPS_EXPORT(mmops_##level##p_##name)

/* The same of a PTE, beginning with a value that it may have. */
#define MMOPS_UPDATE_PTE(name, change)					\
	__mmops_helper pte_t mmops_ptep_##name(pte_t *ptep, pte_t value)	\
	{								\
		return mmops_update_from(ptep, value, change);		\
	}								\
	MMOPS_EXPORT(mmops_ptep_##name)

/* The dirty bit alone; *_mkdirty() sets the soft-dirty bit as well. */
#define MMOPS_REDIRTY(level)						\
	static __always_inline level##_t mmops_##level##_redirty(level##_t entry)	\
	{								\
		return level##_soft_dirty(entry) ? level##_mkdirty(entry) :	\
			level##_clear_soft_dirty(level##_mkdirty(entry));	\
	}								\
	MMOPS_UPDATE(level, redirty, mmops_##level##_redirty)

/* As soft-dirty wants an entry: the next store to it faults. */
#define MMOPS_TRACKED(level)						\
	static __always_inline level##_t mmops_##level##_track(level##_t entry)	\
	{								\
		return level##_clear_soft_dirty(level##_wrprotect(entry));	\
	}

MMOPS_TRACKED(pte)
MMOPS_TRACKED(pmd)
MMOPS_TRACKED(pud)

MMOPS_UPDATE_PTE(wrprotect, pte_wrprotect);
MMOPS_UPDATE_PTE(mkold, pte_mkold);
MMOPS_UPDATE_PTE(mkclean, pte_mkclean);
MMOPS_UPDATE_PTE(track, mmops_pte_track);
MMOPS_REDIRTY(pte);

MMOPS_UPDATE(pmd, wrprotect, pmd_wrprotect);
MMOPS_UPDATE(pmd, mkold, pmd_mkold);
MMOPS_UPDATE(pmd, mkclean, pmd_mkclean);
MMOPS_UPDATE(pmd, track, mmops_pmd_track);
MMOPS_REDIRTY(pmd);

MMOPS_UPDATE(pud, wrprotect, pud_wrprotect);
MMOPS_UPDATE(pud, mkold, pud_mkold);
MMOPS_UPDATE(pud, mkclean, pud_mkclean);
MMOPS_UPDATE(pud, track, mmops_pud_track);
MMOPS_REDIRTY(pud);

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

/* Soft-dirty */

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

__mmops_helper void mmops_pudp_mksoft_dirty(struct mm_struct *mm, unsigned long addr,
					    pud_t *pudp)
{
	mmops_update(pudp, pud_mksoft_dirty);
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

/* As mmops_pmdp_untrack(). */
__mmops_helper bool mmops_pudp_untrack(pud_t *pudp, pud_t old)
{
	if (pud_write(old))
		mmops_update(pudp, mmops_pud_untrack);
	else
		mmops_update(pudp, pud_mksoft_dirty);
	return false;
}

/* Protection */

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
 * Give a present entry the protection @prot, and the write permission if
 * @write and a write fault would do no more than that. The entry is never
 * cleared, and what the CPU notes in it meanwhile is kept.
 *
 * The CPU does not use a PROT_NONE entry. Only for one, page_table_check has an
 * interest in the change.
 */
#define MMOPS_PROTECT(level)							\
	__mmops_helper unsigned int						\
	mmops_##level##p_protect(struct vm_area_struct *vma, unsigned long addr,	\
				 level##_t *entryp, unsigned long prot, bool write)	\
	{									\
		level##_t old = level##p_get(entryp), new;			\
										\
		do {								\
			new = mmops_##level##_protect(vma, addr, old, __pgprot(prot), write);	\
			if (level##_same(old, new))				\
				return 0;					\
			if (unlikely(level##_protnone(old))) {			\
				set_##level##_at(vma->vm_mm, addr, entryp, new);	\
				return mmops_prot_diff(level##_val(old), level##_val(new));	\
			}							\
		} while (!try_cmpxchg((long *)entryp, (long *)&old, *(long *)&new));	\
										\
		if (unlikely(level##_protnone(new)))				\
			page_table_check_##level##_clear(vma->vm_mm, addr, old);	\
		return mmops_prot_diff(level##_val(old), level##_val(new));	\
	}

MMOPS_PROTECT(pte)
MMOPS_PROTECT(pmd)

/*
 * As mmops_ptep_protect(). @prot is not PROT_NONE. No PUD leaf is anonymous: write permission is
 * left to the fault.
 */
__mmops_helper unsigned int mmops_pudp_protect(struct vm_area_struct *vma, unsigned long addr,
					       pud_t *pudp, unsigned long prot, bool write)
{
	pud_t old = pudp_get(pudp), new;

	do {
		new = pud_modify(old, __pgprot(prot));
		if (pud_same(old, new))
			return 0;
	} while (!try_cmpxchg((long *)pudp, (long *)&old, *(long *)&new));
	return mmops_prot_diff(pud_val(old), pud_val(new));
}

/* Clearing */

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

__mmops_helper pmd_t mmops_pmdp_get_and_clear(struct vm_area_struct *vma,
					      unsigned long addr, pmd_t *pmdp)
{
	pmd_t pmd = pmdp_huge_get_and_clear_full(vma, addr, pmdp, 0);

	arch_check_zapped_pmd(vma, pmd);
	return pmd;
}

__mmops_helper pud_t mmops_pudp_get_and_clear(struct vm_area_struct *vma,
					      unsigned long addr, pud_t *pudp)
{
	pud_t pud = pudp_huge_get_and_clear_full(vma, addr, pudp, 0);

	arch_check_zapped_pud(vma, pud);
	return pud;
}

__mmops_helper void mmops_check_zapped_pte(struct vm_area_struct *vma, pte_t pte)
{
	if (IS_ENABLED(CONFIG_DEBUG_VM))
		arch_check_zapped_pte(vma, pte);
}

/* Device-exclusive entries; see also leafops.c */

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

/* Tables, and their locks */

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

/*
 * The PTE that maps the first page of a huge PMD with all of its bits: hardware
 * and software, only PSE goes and PAT moves.
 */
__mmops_helper pte_t mmops_pmd_first_pte(pmd_t pmd)
{
	return pfn_pte(pmd_pfn(pmd), pgprot_large_2_4k(pmd_pgprot(pmd)));
}

/*
 * Invalidate a PUD leaf, and return what it was. pudp_invalidate() warns of one without
 * permissions, of which no CPU makes a translation.
 */
__mmops_helper pud_t mmops_pudp_invalidate(struct vm_area_struct *vma, unsigned long addr,
					   pud_t *pudp)
{
	if (pud_present(*pudp))
		return pudp_invalidate(vma, addr, pudp);
	return pudp_establish(vma, addr, pudp, pud_mkinvalid(*pudp));
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

/*
 * An entry of PUD size (@depth 2) or of PMD size (3) was none without its lock.
 * Wait for who has that; whether it is none still. The tables above are kept by
 * the locks of a walk.
 *
 * As sync_with_folio_pmd_zap() of mm/internal.h.
 */
__mmops_helper bool mmops_wait_for_zap(struct mm_struct *mm, unsigned long addr, int depth)
{
	pud_t *pudp;
	pmd_t *pmdp;
	spinlock_t *ptl;
	bool none;

	/* Above there are tables alone, which nobody takes away meanwhile. */
	if (depth < 2)
		return true;
	pudp = pud_offset(p4d_offset(pgd_offset(mm, addr), addr), addr);
	if (depth == 2) {
		ptl = pud_lock(mm, pudp);
		none = pud_none(*pudp);
		spin_unlock(ptl);
		return none;
	}
	pmdp = pmd_offset(pudp, addr);
	ptl = pmd_lock(mm, pmdp);
	none = pmd_none(*pmdp);
	spin_unlock(ptl);
	return none;
}
