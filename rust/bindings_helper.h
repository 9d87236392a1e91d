/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads. Only what the kernel's own `bindings` crate lacks is
 * generated from it; see the allowlist in bindgen_parameters.
 */
#include <linux/fs.h>
#include <linux/hmm.h>
#include <linux/magic.h>
#include <linux/major.h>
#include <linux/mm.h>
#include <linux/mm_types.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/pagewalk.h>
#include <linux/rmap.h>
#include <linux/sched.h>
#include <asm/tlbflush.h>

#include "helpers.c"

/* `const` helpers, for constants that bindgen does not evaluate. */
const unsigned long MMOPS_CONST_HELPER_FMODE_READ = (__force unsigned long)FMODE_READ;
const unsigned long MMOPS_CONST_HELPER_FMODE_WRITE = (__force unsigned long)FMODE_WRITE;
const unsigned long MMOPS_CONST_HELPER_VM_LOCKED = VM_LOCKED;

/* What a file is; see mapping.rs. */
const unsigned int MMOPS_CONST_HELPER_INODE_TYPE = S_IFMT;
const unsigned int MMOPS_CONST_HELPER_INODE_REGULAR = S_IFREG;
const unsigned int MMOPS_CONST_HELPER_INODE_CHAR_DEVICE = S_IFCHR;
const unsigned int MMOPS_CONST_HELPER_INODE_BLOCK_DEVICE = S_IFBLK;
const unsigned int MMOPS_CONST_HELPER_INODE_PRIVATE = S_PRIVATE;
const unsigned long MMOPS_CONST_HELPER_ANON_INODE_MAGIC = ANON_INODE_FS_MAGIC;
const unsigned long MMOPS_CONST_HELPER_CODA_MAGIC = CODA_SUPER_MAGIC;
const unsigned long MMOPS_CONST_HELPER_ECRYPTFS_MAGIC = ECRYPTFS_SUPER_MAGIC;
const unsigned long MMOPS_CONST_HELPER_OVERLAYFS_MAGIC = OVERLAYFS_SUPER_MAGIC;
const unsigned int MMOPS_CONST_HELPER_DEVICE_ZERO = MKDEV(MEM_MAJOR, 5);
const unsigned int MMOPS_CONST_HELPER_DEVICE_MINOR_BITS = MINORBITS;
/* DRM_MAJOR of drm/drm_drv.h and ACCEL_MAJOR of drm/drm_accel.h, which modules rarely need. */
const unsigned int MMOPS_CONST_HELPER_MAJOR_DRM = 226;
const unsigned int MMOPS_CONST_HELPER_MAJOR_ACCEL = 261;

/* softleaf_t */
const unsigned long MMOPS_CONST_HELPER_LEAF_TYPE_SHIFT = LEAF_TYPE_SHIFT;
const unsigned long MMOPS_CONST_HELPER_SWAP_AREAS = MAX_SWAPFILES;
const unsigned long MMOPS_CONST_HELPER_SWAP_OFFSET_BITS = 64 - SWP_OFFSET_SHIFT;
const unsigned long MMOPS_CONST_HELPER_MARKER_UFFD_WP = PTE_MARKER_UFFD_WP;
const unsigned long MMOPS_CONST_HELPER_MARKER_POISONED = PTE_MARKER_POISONED;
const unsigned long MMOPS_CONST_HELPER_MARKER_GUARD = PTE_MARKER_GUARD;

/* Where C has the fields that the crate, or the kernel's own for it, reads. */
const unsigned long MMOPS_CONST_HELPER_OFFSET_TASK_MM = offsetof(struct task_struct, mm);
const unsigned long MMOPS_CONST_HELPER_OFFSET_VMA_MM = offsetof(struct vm_area_struct, vm_mm);
const unsigned long MMOPS_CONST_HELPER_OFFSET_FILE_MAPPING = offsetof(struct file, f_mapping);
const unsigned long MMOPS_CONST_HELPER_OFFSET_FILE_INODE = offsetof(struct file, f_inode);
const unsigned long MMOPS_CONST_HELPER_OFFSET_MAPPING_HOST = offsetof(struct address_space, host);
const unsigned long MMOPS_CONST_HELPER_OFFSET_INODE_DATA = offsetof(struct inode, i_data);
const unsigned long MMOPS_CONST_HELPER_OFFSET_INODE_MAPPING = offsetof(struct inode, i_mapping);
const unsigned long MMOPS_CONST_HELPER_OFFSET_INODE_RDEV = offsetof(struct inode, i_rdev);
const unsigned long MMOPS_CONST_HELPER_OFFSET_SB_MAGIC = offsetof(struct super_block, s_magic);
const unsigned long MMOPS_CONST_HELPER_OFFSET_SB_DEPTH =
	offsetof(struct super_block, s_stack_depth);
