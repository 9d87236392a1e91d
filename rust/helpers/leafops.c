// SPDX-License-Identifier: GPL-2.0
/* Entries that are not present: linux/leafops.h, linux/swapops.h, linux/swap.h. */

#include <linux/leafops.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/userfaultfd_k.h>

/* mm/rmap.c has it; the kernel exports it to mmops. */
bool cond_install_uffd_wp_ptes(struct vm_area_struct *vma, unsigned long addr,
			       pte_t *ptep, pte_t pte, unsigned long nr_ptes);

/* Flags beside the softleaf_t, in both directions. */
#define MMOPS_SOFT_LEAF_SOFT_DIRTY	1U
#define MMOPS_SOFT_LEAF_UFFD_WP		2U
#define MMOPS_SOFT_LEAF_EXCLUSIVE	4U

/* Depends on the number of page table levels, so it is no constant. */
__mmops_helper unsigned int mmops_swp_pfn_bits(void)
{
	return SWP_PFN_BITS;
}
MMOPS_EXPORT(mmops_swp_pfn_bits);

__mmops_helper unsigned long mmops_softleaf_from_pte(pte_t pte)
{
	return softleaf_from_pte(pte).val;
}
MMOPS_EXPORT(mmops_softleaf_from_pte);

__mmops_helper unsigned int mmops_softleaf_pte_flags(pte_t pte)
{
	return (pte_swp_soft_dirty(pte) ? MMOPS_SOFT_LEAF_SOFT_DIRTY : 0) |
	       (pte_swp_uffd(pte) ? MMOPS_SOFT_LEAF_UFFD_WP : 0) |
	       (pte_swp_exclusive(pte) ? MMOPS_SOFT_LEAF_EXCLUSIVE : 0);
}
MMOPS_EXPORT(mmops_softleaf_pte_flags);

__mmops_helper pte_t mmops_softleaf_to_pte(unsigned long type, unsigned long offset,
					   unsigned int flags)
{
	pte_t pte = softleaf_to_pte(swp_entry(type, offset));

	if (flags & MMOPS_SOFT_LEAF_SOFT_DIRTY)
		pte = pte_swp_mksoft_dirty(pte);
	if (flags & MMOPS_SOFT_LEAF_UFFD_WP)
		pte = pte_swp_mkuffd(pte);
	if (flags & MMOPS_SOFT_LEAF_EXCLUSIVE)
		pte = pte_swp_mkexclusive(pte);
	return pte;
}
MMOPS_EXPORT(mmops_softleaf_to_pte);

__mmops_helper unsigned long mmops_softleaf_from_pmd(pmd_t pmd)
{
	return softleaf_from_pmd(pmd).val;
}
MMOPS_EXPORT(mmops_softleaf_from_pmd);

__mmops_helper unsigned int mmops_softleaf_pmd_flags(pmd_t pmd)
{
	return (pmd_swp_soft_dirty(pmd) ? MMOPS_SOFT_LEAF_SOFT_DIRTY : 0) |
	       (pmd_swp_uffd(pmd) ? MMOPS_SOFT_LEAF_UFFD_WP : 0);
}
MMOPS_EXPORT(mmops_softleaf_pmd_flags);

__mmops_helper pmd_t mmops_softleaf_to_pmd(unsigned long type, unsigned long offset,
					   unsigned int flags)
{
	pmd_t pmd = softleaf_to_pmd(swp_entry(type, offset));

	if (flags & MMOPS_SOFT_LEAF_SOFT_DIRTY)
		pmd = pmd_swp_mksoft_dirty(pmd);
	if (flags & MMOPS_SOFT_LEAF_UFFD_WP)
		pmd = pmd_swp_mkuffd(pmd);
	return pmd;
}
MMOPS_EXPORT(mmops_softleaf_to_pmd);

/*
 * The kernel's own constructors, for the tests to compare with: what
 * softleaf_type() calls type @kind, with the page frame or marker @value; of
 * swap, area and offset.
 */
static inline swp_entry_t mmops_kernel_entry(unsigned int kind, unsigned long value, bool young,
					     bool dirty)
{
	swp_entry_t entry;

	switch (kind) {
	case SOFTLEAF_SWAP:
		return swp_entry(value % MAX_SWAPFILES, value / MAX_SWAPFILES);
	case SOFTLEAF_MIGRATION_READ:
		entry = make_readable_migration_entry(value);
		break;
	case SOFTLEAF_MIGRATION_READ_EXCLUSIVE:
		entry = make_readable_exclusive_migration_entry(value);
		break;
	case SOFTLEAF_MIGRATION_WRITE:
		entry = make_writable_migration_entry(value);
		break;
	case SOFTLEAF_DEVICE_PRIVATE_READ:
		return make_readable_device_private_entry(value);
	case SOFTLEAF_DEVICE_PRIVATE_WRITE:
		return make_writable_device_private_entry(value);
	case SOFTLEAF_DEVICE_EXCLUSIVE:
		return make_device_exclusive_entry(value);
	case SOFTLEAF_MARKER:
		return make_pte_marker_entry(value);
	default:
		/* make_hwpoison_entry() wants a locked page. */
		return swp_entry(SWP_HWPOISON, value);
	}
	/* As make_migration_entry_young() and _dirty(), whatever swap devices there are. */
	if (young)
		entry = swp_entry(swp_type(entry), swp_offset(entry) | SWP_MIG_YOUNG);
	if (dirty)
		entry = swp_entry(swp_type(entry), swp_offset(entry) | SWP_MIG_DIRTY);
	return entry;
}

/* As try_to_unmap_one() writes it. */
__mmops_helper pte_t mmops_softleaf_by_kernel(unsigned int kind, unsigned long value, bool young,
					      bool dirty, unsigned int flags)
{
	pte_t pte = swp_entry_to_pte(mmops_kernel_entry(kind, value, young, dirty));

	if (flags & MMOPS_SOFT_LEAF_EXCLUSIVE)
		pte = pte_swp_mkexclusive(pte);
	if (flags & MMOPS_SOFT_LEAF_SOFT_DIRTY)
		pte = pte_swp_mksoft_dirty(pte);
	if (flags & MMOPS_SOFT_LEAF_UFFD_WP)
		pte = pte_swp_mkuffd(pte);
	return pte;
}
MMOPS_EXPORT(mmops_softleaf_by_kernel);

/* As set_pmd_migration_entry() does. */
__mmops_helper pmd_t mmops_softleaf_pmd_by_kernel(unsigned int kind, unsigned long value,
						  bool young, bool dirty, unsigned int flags)
{
	pmd_t pmd = swp_entry_to_pmd(mmops_kernel_entry(kind, value, young, dirty));

	if (flags & MMOPS_SOFT_LEAF_SOFT_DIRTY)
		pmd = pmd_swp_mksoft_dirty(pmd);
	if (flags & MMOPS_SOFT_LEAF_UFFD_WP)
		pmd = pmd_swp_mkuffd(pmd);
	return pmd;
}
MMOPS_EXPORT(mmops_softleaf_pmd_by_kernel);

/* The same of an entry that is not present, which keeps these bits elsewhere. */
__mmops_helper unsigned int mmops_pte_softleaf_state(pte_t pte)
{
	return (pte_swp_soft_dirty(pte) ? MMOPS_LEAF_SOFT_DIRTY : 0) |
	       (pte_swp_uffd_any(pte) ? MMOPS_LEAF_UFFD : 0);
}

__mmops_helper unsigned int mmops_pmd_softleaf_state(pmd_t pmd)
{
	return (pmd_swp_soft_dirty(pmd) ? MMOPS_LEAF_SOFT_DIRTY : 0) |
	       (pmd_swp_uffd(pmd) ? MMOPS_LEAF_UFFD : 0);
}

/* enum softleaf_type */
__mmops_helper unsigned int mmops_pte_softleaf_type(pte_t pte)
{
	return softleaf_type(softleaf_from_pte(pte));
}

__mmops_helper unsigned int mmops_pmd_softleaf_type(pmd_t pmd)
{
	return softleaf_type(softleaf_from_pmd(pmd));
}

/* The page that a device or migration entry stands for. */
__mmops_helper struct page *mmops_softleaf_page(pte_t pte)
{
	return softleaf_to_page(softleaf_from_pte(pte));
}

__mmops_helper struct folio *mmops_pmd_softleaf_folio(pmd_t pmd)
{
	return pmd_to_softleaf_folio(pmd);
}

/* A migration entry is none, though its page may be one that a device gives back. */
__mmops_helper bool mmops_pmd_is_device_private(pmd_t pmd)
{
	return !pmd_present(pmd) && softleaf_is_device_private(softleaf_from_pmd(pmd));
}

/*
 * A non-present entry, which nobody but the holder of the lock changes. The
 * soft-dirty bit that was cleared, or 0. @keep_write is for a negative control.
 */
#define MMOPS_TRACK_NONPRESENT(level)						\
	__mmops_helper bool							\
	mmops_##level##p_track_nonpresent(struct mm_struct *mm, unsigned long addr,	\
					  level##_t *entryp, bool keep_write)	\
	{									\
		level##_t old = level##p_get(entryp), new = old;		\
		softleaf_t readable = mmops_softleaf_wrprotect(softleaf_from_##level(old));	\
										\
		if (readable.val && !keep_write) {				\
			new = softleaf_to_##level(readable);			\
			if (level##_swp_uffd(old))				\
				new = level##_swp_mkuffd(new);			\
		}								\
		new = level##_swp_clear_soft_dirty(new);			\
		if (!level##_same(old, new))					\
			set_##level##_at(mm, addr, entryp, new);		\
		return level##_swp_soft_dirty(old);				\
	}

MMOPS_TRACK_NONPRESENT(pte)
MMOPS_TRACK_NONPRESENT(pmd)

/* zap */

enum mmops_zap_kind {
	MMOPS_ZAP_DEVICE,	/* device-private or device-exclusive page */
	MMOPS_ZAP_SWAP,
	MMOPS_ZAP_MIGRATION,
	MMOPS_ZAP_UFFD_WP_MARKER,
	MMOPS_ZAP_GUARD_MARKER,
	MMOPS_ZAP_OTHER,	/* hwpoison, poison marker */
};

__mmops_helper int mmops_zap_kind(pte_t pte)
{
	softleaf_t entry = softleaf_from_pte(pte);

	if (softleaf_is_swap(entry))
		return MMOPS_ZAP_SWAP;
	if (softleaf_is_device_private(entry) ||
	    softleaf_is_device_exclusive(entry))
		return MMOPS_ZAP_DEVICE;
	if (softleaf_is_migration(entry))
		return MMOPS_ZAP_MIGRATION;
	if (softleaf_is_uffd_wp_marker(entry))
		return MMOPS_ZAP_UFFD_WP_MARKER;
	if (softleaf_is_guard_marker(entry))
		return MMOPS_ZAP_GUARD_MARKER;
	return MMOPS_ZAP_OTHER;
}

__mmops_helper void mmops_swap_put(pte_t pte, unsigned int nr)
{
	swap_put_entries_direct(softleaf_from_pte(pte), nr);
}

/* exclusive */

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

/* What an entry stands for, to a tracker. */
#define MMOPS_TRACK_ZEROES	0	/* nothing that was ever stored to */
#define MMOPS_TRACK_MEMORY	1	/* a page, wherever it is */
#define MMOPS_TRACK_UNKNOWN	2	/* a device may store to it, or it comes and goes untold */

static __always_inline unsigned int mmops_softleaf_track_kind(softleaf_t entry)
{
	if (softleaf_is_swap(entry) || softleaf_is_migration(entry) || softleaf_is_hwpoison(entry))
		return MMOPS_TRACK_MEMORY;
	if (softleaf_is_uffd_wp_marker(entry))
		return MMOPS_TRACK_ZEROES;
	return MMOPS_TRACK_UNKNOWN;
}

__mmops_helper unsigned int mmops_pte_track_kind(pte_t pte)
{
	if (pte_none(pte))
		return MMOPS_TRACK_ZEROES;
	if (likely(pte_present(pte)))
		return pte_special(pte) ? MMOPS_TRACK_ZEROES : MMOPS_TRACK_MEMORY;
	return mmops_softleaf_track_kind(softleaf_from_pte(pte));
}

__mmops_helper unsigned int mmops_pmd_track_kind(pmd_t pmd)
{
	if (pmd_present(pmd))
		return pmd_special(pmd) ? MMOPS_TRACK_ZEROES : MMOPS_TRACK_MEMORY;
	return mmops_softleaf_track_kind(softleaf_from_pmd(pmd));
}
