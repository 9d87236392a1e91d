// SPDX-License-Identifier: GPL-2.0
/* The gather of pages whose entries were taken. */

#include <linux/mm.h>
#include <linux/swap.h>

/*
 * asm/tlbflush.h hides it from modules, and asm/tlb.h does not compile without
 * it. The kernel exports it to mmops.
 */
void flush_tlb_mm_range(struct mm_struct *mm, unsigned long start,
			unsigned long end, unsigned int stride_shift,
			bool freed_tables);

#include <asm/tlb.h>

__mmops_helper void mmops_tlb_start_vma(struct mmu_gather *tlb,
					struct vm_area_struct *vma)
{
	tlb_start_vma(tlb, vma);
}

/* Entries of @size bytes in all were taken, each of which maps a base page. */
__mmops_helper void mmops_tlb_add_ptes(struct mmu_gather *tlb,
				       unsigned long addr, unsigned long size)
{
	tlb_change_page_size(tlb, PAGE_SIZE);
	tlb_flush_pte_range(tlb, addr, size);
}

__mmops_helper void mmops_tlb_add_pmd(struct mmu_gather *tlb, unsigned long addr)
{
	tlb_change_page_size(tlb, PMD_SIZE);
	tlb_flush_pmd_range(tlb, addr, PMD_SIZE);
}

__mmops_helper void mmops_tlb_add_pud(struct mmu_gather *tlb, unsigned long addr)
{
	tlb_change_page_size(tlb, PUD_SIZE);
	tlb_flush_pud_range(tlb, addr, PUD_SIZE);
}

/* Frees nothing: the pages wait in a queue of our own. */
__mmops_helper void mmops_tlb_flush(struct mmu_gather *tlb)
{
	tlb_flush_mmu_tlbonly(tlb);
}

__mmops_helper void mmops_update_hiwater_rss(struct mm_struct *mm)
{
	update_hiwater_rss(mm);
}

__mmops_helper void mmops_add_mm_counter(struct mm_struct *mm, int member,
					 long value)
{
	add_mm_counter(mm, member, value);
}

__mmops_helper int mmops_mm_counter(struct folio *folio)
{
	return mm_counter(folio);
}

__mmops_helper struct folio *mmops_page_folio(struct page *page)
{
	return page_folio(page);
}

/*
 * Under the page table lock of an entry that mapped the folio, whose rmap is
 * still there: truncation waits for it, so the folio need not be locked.
 */
__mmops_helper void mmops_zap_mark_dirty(struct folio *folio)
{
	/* All that folio_mark_dirty() would do for memory without a file. */
	if (folio_test_dirty(folio) && folio_test_swapbacked(folio) &&
	    !folio_test_reclaim(folio))
		return;
	folio_mark_dirty(folio);
}
