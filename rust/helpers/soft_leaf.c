/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Entries that are not present: what the kernel keeps in them. Types and
 * offsets are those of softleaf_t; the bits beside them are the software
 * bits of the entry.
 */
#include <linux/leafops.h>
#include <linux/swapops.h>

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

__mmops_helper bool mmops_pte_same(pte_t a, pte_t b)
{
	return pte_same(a, b);
}
MMOPS_EXPORT(mmops_pte_same);

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

__mmops_helper bool mmops_pmd_same(pmd_t a, pmd_t b)
{
	return pmd_same(a, b);
}
MMOPS_EXPORT(mmops_pmd_same);

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

/* softleaf_type() of an entry whose type is known to the kernel. */
__mmops_helper unsigned int mmops_softleaf_type(pte_t pte)
{
	return softleaf_type(softleaf_from_pte(pte));
}
MMOPS_EXPORT(mmops_softleaf_type);
