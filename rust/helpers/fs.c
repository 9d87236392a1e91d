// SPDX-License-Identifier: GPL-2.0
/* Files: linux/fs.h, linux/backing-dev.h, linux/magic.h. */

#include <linux/backing-dev.h>
#include <linux/fs.h>
#include <linux/hugetlb.h>
#include <linux/magic.h>

__mmops_helper void mmops_i_mmap_lock_read(struct address_space *mapping)
{
	i_mmap_lock_read(mapping);
}

__mmops_helper void mmops_i_mmap_unlock_read(struct address_space *mapping)
{
	i_mmap_unlock_read(mapping);
}

/* Each socket has an mmap operation, which most protocols refuse. */
__mmops_helper bool mmops_can_mmap_file(struct file *file)
{
	return can_mmap_file(file) && !S_ISSOCK(file_inode(file)->i_mode);
}

/* The inode that holds the data: of the upper or a lower layer for a file of overlayfs. */
__mmops_helper struct inode *mmops_d_real_inode(struct file *file)
{
	return d_real_inode(file_dentry(file));
}

__mmops_helper bool mmops_is_file_hugepages(struct file *file)
{
	return is_file_hugepages(file);
}

__mmops_helper unsigned int mmops_file_mode(struct file *file)
{
	return (__force unsigned int)file->f_mode;
}

__mmops_helper bool mmops_mapping_can_writeback(struct address_space *mapping)
{
	return mapping_can_writeback(mapping);
}

/* Reclaim leaves its pages alone, for good: those of shmem can be unlocked again. */
__mmops_helper bool mmops_mapping_is_ramfs(struct address_space *mapping)
{
	return mapping->host->i_sb->s_magic == RAMFS_MAGIC;
}
