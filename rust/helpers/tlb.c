// SPDX-License-Identifier: GPL-2.0
/* The TLB: asm/tlb.h, asm/tlbflush.h, linux/mm_types.h. */

#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/swap.h>
#include <asm/cacheflush.h>

/*
 * asm/tlbflush.h hides it from modules, and asm/tlb.h does not compile without
 * it. The kernel exports it to mmops.
 */
void flush_tlb_mm_range(struct mm_struct *mm, unsigned long start,
			unsigned long end, unsigned int stride_shift,
			bool freed_tables);

#include <asm/tlb.h>

/* mm/internal.h has it; the kernel exports it to mmops. */
void flush_tlb_batched_pending(struct mm_struct *mm);

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

__mmops_helper void mmops_flush_tlb_batched_pending(struct mm_struct *mm)
{
	flush_tlb_batched_pending(mm);
}

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
