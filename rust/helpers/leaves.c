// SPDX-License-Identifier: GPL-2.0
/* What leaves tell of themselves. */

#include <linux/leafops.h>
#include <linux/pgtable.h>

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
