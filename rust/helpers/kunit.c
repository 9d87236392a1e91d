// SPDX-License-Identifier: GPL-2.0
/* What only the KUnit tests of the crate call. */

#if IS_ENABLED(CONFIG_KUNIT)

#include <linux/leafops.h>
#include <linux/swapops.h>

/*
 * The kernel's own constructors of what softleaf_type() calls type @kind,
 * with the page frame or marker @value; of swap, area and offset.
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

/* Bits beside the entry. */
#define MMOPS_SOFT_LEAF_SOFT_DIRTY	1U
#define MMOPS_SOFT_LEAF_UFFD_WP		2U
#define MMOPS_SOFT_LEAF_EXCLUSIVE	4U

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

#endif
