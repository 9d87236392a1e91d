// SPDX-License-Identifier: GPL-2.0
/*
 * Dirty bits that are given to folios under the lock of the page table, pages that
 * are pinned for DMA, and files that can be written back. Included by helpers.c.
 */
#include <linux/backing-dev.h>
#include <linux/magic.h>

/* The dirty bit alone; *_mkdirty() sets the soft-dirty bit as well. */
#define mmops_redirty(level, entry)					\
	(level##_soft_dirty(entry) ? level##_mkdirty(entry) :		\
				     level##_clear_soft_dirty(level##_mkdirty(entry)))
#define mmops_pte_redirty(entry)	mmops_redirty(pte, entry)
#define mmops_pmd_redirty(entry)	mmops_redirty(pmd, entry)
#define mmops_pud_redirty(entry)	mmops_redirty(pud, entry)

/* These give a present entry the dirty bit back that it has just lost. */

__mmops_helper void mmops_ptep_redirty(pte_t *ptep)
{
	mmops_update(ptep, mmops_pte_redirty);
}

__mmops_helper void mmops_pmdp_redirty(pmd_t *pmdp)
{
	mmops_update(pmdp, mmops_pmd_redirty);
}

__mmops_helper void mmops_pudp_redirty(pud_t *pudp)
{
	mmops_update(pudp, mmops_pud_redirty);
}

/*
 * Mark a folio dirty that is mapped by an entry whose lock is held, as
 * try_to_unmap_one() does. False if somebody else has locked it,
 * or if that would need memory.
 */
__mmops_helper bool mmops_folio_mark_dirty_trylock(struct folio *folio)
{
	bool marked;

	if (!folio_trylock(folio))
		return false;
	/* Not under a spinlock. */
	marked = !mmops_folio_mark_may_allocate(folio);
	if (marked)
		folio_mark_dirty(folio);
	folio_unlock(folio);
	return marked;
}

/* Whether anybody has ever pinned memory of the mm for DMA. */
__mmops_helper bool mmops_mm_has_pins(const struct mm_struct *mm)
{
	return mm_flags_test(MMF_HAS_PINNED, mm);
}

/* For what a present entry maps that is not special, with its lock held. */
__mmops_helper bool mmops_pfn_is_pinned(unsigned long pfn)
{
	return folio_maybe_dma_pinned(page_folio(pfn_to_page(pfn)));
}

__mmops_helper bool mmops_mapping_can_writeback(struct address_space *mapping)
{
	return mapping_can_writeback(mapping);
}

/* Reclaim leaves its pages alone, for good: those of shmem can be unlocked again. */
__mmops_helper bool mmops_mapping_is_ramfs(struct address_space *mapping)
{
	return mapping->host->i_sb->s_magic == RAMFS_MAGIC;
}
