// SPDX-License-Identifier: GPL-2.0
/* linux/mmu_notifier.h */

#include <linux/mmu_notifier.h>

__mmops_helper void
mmops_mmu_notifier_range_init(struct mmu_notifier_range *range,
			      enum mmu_notifier_event event,
			      struct mm_struct *mm, unsigned long start,
			      unsigned long end, void *owner)
{
	mmu_notifier_range_init_owner(range, event, 0, mm, start, end, owner);
}

__mmops_helper void
mmops_mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range)
{
	mmu_notifier_invalidate_range_start(range);
}

__mmops_helper int
mmops_mmu_notifier_invalidate_range_start_nonblock(struct mmu_notifier_range *range)
{
	return mmu_notifier_invalidate_range_start_nonblock(range);
}

__mmops_helper void
mmops_mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range)
{
	mmu_notifier_invalidate_range_end(range);
}
