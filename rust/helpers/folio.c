// SPDX-License-Identifier: GPL-2.0
/* Pages and folios: linux/mm.h, linux/page-flags.h, linux/pagemap.h, linux/highmem.h. */

#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/pagemap.h>

__mmops_helper struct page *mmops_pfn_to_page(unsigned long pfn)
{
	return pfn_to_page(pfn);
}

__mmops_helper struct folio *mmops_pfn_folio(unsigned long pfn)
{
	return page_folio(pfn_to_page(pfn));
}

__mmops_helper unsigned long mmops_page_to_pfn(struct page *page)
{
	return page_to_pfn(page);
}

__mmops_helper struct folio *mmops_page_folio(struct page *page)
{
	return page_folio(page);
}

__mmops_helper bool mmops_is_zero_pfn(unsigned long pfn)
{
	return is_zero_pfn(pfn);
}

/* For what a present entry maps that is not special, with its lock held. */
__mmops_helper bool mmops_pfn_is_pinned(unsigned long pfn)
{
	return folio_maybe_dma_pinned(page_folio(pfn_to_page(pfn)));
}

__mmops_helper void mmops_folio_get(struct folio *folio)
{
	folio_get(folio);
}

__mmops_helper void mmops_folio_put(struct folio *folio)
{
	folio_put(folio);
}

__mmops_helper void mmops_folio_ref_add(struct folio *folio, int nr)
{
	folio_ref_add(folio, nr);
}

/* After an exchange of the entry, which is a full barrier; see try_grab_folio_fast(). */
__mmops_helper bool mmops_folio_maybe_pinned(struct folio *folio)
{
	return folio_maybe_dma_pinned(folio);
}

__mmops_helper bool mmops_folio_test_anon(const struct folio *folio)
{
	return folio_test_anon(folio);
}

__mmops_helper bool mmops_folio_test_large(const struct folio *folio)
{
	return folio_test_large(folio);
}

__mmops_helper bool mmops_folio_test_dirty(const struct folio *folio)
{
	return folio_test_dirty(folio);
}

__mmops_helper bool mmops_folio_trylock(struct folio *folio)
{
	return folio_trylock(folio);
}

__mmops_helper void mmops_folio_lock(struct folio *folio)
{
	folio_lock(folio);
}

__mmops_helper int mmops_folio_lock_killable(struct folio *folio)
{
	return folio_lock_killable(folio);
}

__mmops_helper void mmops_folio_unlock(struct folio *folio)
{
	folio_unlock(folio);
}

/* In the page cache, or in the swap cache on its way out of it. */
__mmops_helper bool mmops_folio_is_cached(struct folio *folio)
{
	return READ_ONCE(folio->mapping) || folio_test_swapcache(folio);
}

/* Dirty marks */

/*
 * Whether all of a folio is dirty: PG_dirty says so where nothing hangs on it that
 * could hold a state for each block (buffers, iomap_folio_state).
 */
static __always_inline bool mmops_flags_all_dirty(unsigned long flags)
{
	const unsigned long mask = BIT(PG_dirty) | BIT(PG_private);

	return (flags & mask) == BIT(PG_dirty);
}

__mmops_helper bool mmops_folio_is_all_dirty(const struct folio *folio)
{
	return mmops_flags_all_dirty(READ_ONCE(folio->flags.f));
}

/*
 * Whether present entries all map folios that are dirty as a whole, and none is
 * special. The loops have no branches, which pays where all are dirty: the loads
 * from struct page do not wait for each other.
 */
__mmops_helper bool mmops_ptes_map_dirty_folios(pte_t *ptep, unsigned int nr)
{
	pteval_t any = 0, all = ~(pteval_t)0;
	unsigned long wrong = 0;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		pteval_t val = READ_ONCE(ptep[i].pte);

		any |= val;
		all &= val;
	}
	/* pte_pfn() of an entry without the first is not as simple as below. */
	if (!(all & _PAGE_PRESENT) || (any & _PAGE_SPECIAL))
		return false;
	for (i = 0; i < nr; i++) {
		pteval_t val = READ_ONCE(ptep[i].pte);

		wrong |= page_folio(pfn_to_page((val & PTE_PFN_MASK) >> PAGE_SHIFT))->flags.f ^
			 BIT(PG_dirty);
	}
	return mmops_flags_all_dirty(wrong ^ BIT(PG_dirty));
}

/*
 * Whether dirty_folio() of a locked folio may allocate the state of its blocks,
 * as iomap does without a way to fail: where there are several and none is there.
 */
__mmops_helper bool mmops_folio_mark_may_allocate(struct folio *folio)
{
	struct address_space *mapping = READ_ONCE(folio->mapping);

	/* Anonymous memory has another thing in its place. */
	return mapping && !folio_test_anon(folio) && !folio_test_private(folio) &&
	       mapping->a_ops->dirty_folio != noop_dirty_folio &&
	       (folio_test_large(folio) || mapping->host->i_blkbits < PAGE_SHIFT);
}

/*
 * Mark a folio dirty that is mapped by an entry whose lock is held, as try_to_unmap_one()
 * does; which pages were stored to is told apart. False if somebody else has locked it, or
 * if that would need memory.
 */
__mmops_helper bool mmops_folio_mark_dirty_trylock(struct folio *folio)
{
	bool marked;

	if (!folio_trylock(folio))
		return false;
	/* Not under a spinlock. */
	marked = !mmops_folio_mark_may_allocate(folio);
	if (marked)
		folio_mark_dirty_quiet(folio);
	folio_unlock(folio);
	return marked;
}

/*
 * Under the page table lock of an entry that mapped the folio, whose rmap is
 * still there: truncation waits for it, so the folio need not be locked.
 */
__mmops_helper void mmops_zap_mark_dirty(struct folio *folio)
{
	filemap_notify_folio(folio);
	/* All that is left to be done for memory without a file. */
	if (folio_test_dirty(folio) && folio_test_swapbacked(folio) &&
	    !folio_test_reclaim(folio))
		return;
	folio_mark_dirty_quiet(folio);
}

/* What is in a page */

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
	filemap_notify_folio(folio);
	if (!mmops_folio_is_all_dirty(folio))
		folio_mark_dirty_quiet(folio);
	return true;
}
