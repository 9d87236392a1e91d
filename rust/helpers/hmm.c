// SPDX-License-Identifier: GPL-2.0
/*
 * Pages that hmm_range_fault() found. Each has a struct page, and is kept by the
 * entry that maps it for as long as nothing invalidates it.
 */
#include <linux/highmem.h>
#include <linux/hmm.h>

__mmops_helper bool mmops_is_zero_pfn(unsigned long pfn)
{
	return is_zero_pfn(pfn);
}

__mmops_helper void mmops_copy_from_pfn(void *to, unsigned long pfn)
{
	memcpy_from_page(to, pfn_to_page(pfn), 0, PAGE_SIZE);
}

/*
 * The entry is writable, but perhaps clean: what a device stores is not seen in
 * it, so the folio has to know. As in zap_pte_range(), the mapping keeps the
 * folio from being truncated meanwhile.
 */
__mmops_helper void mmops_copy_to_pfn(unsigned long pfn, const void *from)
{
	struct page *page = pfn_to_page(pfn);
	struct folio *folio = page_folio(page);

	memcpy_to_page(page, 0, from, PAGE_SIZE);
	if (!folio_test_dirty(folio))
		folio_mark_dirty(folio);
}

__mmops_helper unsigned long mmops_page_to_pfn(struct page *page)
{
	return page_to_pfn(page);
}
