// SPDX-License-Identifier: GPL-2.0
/*
 * Pages that hmm_range_fault() found. Each has a struct page, and is kept by the
 * entry that maps it for as long as nothing invalidates it.
 */
#include <linux/highmem.h>
#include <linux/hmm.h>
#include <linux/magic.h>

__mmops_helper bool mmops_is_zero_pfn(unsigned long pfn)
{
	return is_zero_pfn(pfn);
}

/*
 * Pages of memfd_secret() are not in the direct map. GUP refuses them, and
 * hmm_range_fault() does not.
 */
static __always_inline bool mmops_in_direct_map(struct folio *folio)
{
	struct address_space *mapping;

	if (folio_test_anon(folio))
		return true;
	mapping = READ_ONCE(folio->mapping);
	return !mapping || !mapping->host || mapping->host->i_sb->s_magic != SECRETMEM_MAGIC;
}

__mmops_helper bool mmops_copy_from_pfn(void *to, unsigned long pfn)
{
	struct page *page = pfn_to_page(pfn);

	if (!mmops_in_direct_map(page_folio(page)))
		return false;
	memcpy_from_page(to, page, 0, PAGE_SIZE);
	return true;
}

/*
 * The entry is writable, but perhaps clean: what a device stores is not seen in
 * it, so the folio has to know. As in zap_pte_range(), the mapping keeps the
 * folio from being truncated meanwhile.
 */
__mmops_helper bool mmops_copy_to_pfn(unsigned long pfn, const void *from)
{
	struct page *page = pfn_to_page(pfn);
	struct folio *folio = page_folio(page);

	if (!mmops_in_direct_map(folio))
		return false;
	memcpy_to_page(page, 0, from, PAGE_SIZE);
	if (!mmops_folio_is_all_dirty(folio))
		folio_mark_dirty(folio);
	return true;
}

__mmops_helper unsigned long mmops_page_to_pfn(struct page *page)
{
	return page_to_pfn(page);
}
