// SPDX-License-Identifier: GPL-2.0
/* linux/filemap_notifier.h */

#include <linux/filemap_notifier.h>
#include <linux/magic.h>
#include <linux/mm.h>

__mmops_helper int mmops_filemap_notifier_register(const struct address_space *mapping,
						   struct notifier_block *nb)
{
	return filemap_notifier_register(mapping, nb);
}

__mmops_helper void mmops_filemap_notifier_unregister(const struct address_space *mapping,
						      struct notifier_block *nb)
{
	filemap_notifier_unregister(mapping, nb);
}

/* Not the static branch: that would have to be patched in each module with such a call. */
__mmops_helper bool mmops_filemap_is_watched(void)
{
	return static_key_enabled(&filemap_notifier_key);
}

__mmops_helper void mmops_vma_filemap_stored(struct vm_area_struct *vma, pgoff_t first,
					     pgoff_t last)
{
	/* A dirty entry of a private mapping has a page of its own. */
	if (vma->vm_file && (vma->vm_flags & VM_SHARED))
		__filemap_notify(vma->vm_file->f_mapping, first, last, FILEMAP_STORED);
}

/* A folio whose pages of which @stored() was told, or that will be dirty by an entry. */
__mmops_helper bool mmops_folio_mark_dirty_quiet(struct folio *folio)
{
	return folio_mark_dirty_quiet(folio);
}

/* An interrupt has the task that it came upon, and is not its doing. */
__mmops_helper bool mmops_in_task(void)
{
	return in_task();
}

/*
 * Whether all that changes the contents of a file is told: what writes without the
 * page cache, or with calls of its own, has no place for it.
 */
__mmops_helper bool mmops_mapping_is_told(struct address_space *mapping)
{
	struct inode *inode = mapping->host;

	/* A device: its memory has no other way. */
	if (S_ISCHR(inode->i_mode))
		return IS_DAX(inode);
	if (IS_DAX(inode) || !S_ISREG(inode->i_mode))
		return false;
	switch (inode->i_sb->s_magic) {
	case TMPFS_MAGIC:
	case RAMFS_MAGIC:
	case EXT4_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
		return true;
	default:
		return false;
	}
}
