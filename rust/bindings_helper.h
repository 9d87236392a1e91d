/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads. Only what the kernel's own `bindings` crate lacks is
 * generated from it; see the allowlist in bindgen_parameters.
 */
#include <linux/fs.h>
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

/* Where C has the fields that the crate, or the kernel's own for it, reads. */
const unsigned long MMOPS_CONST_HELPER_OFFSET_TASK_MM = offsetof(struct task_struct, mm);
const unsigned long MMOPS_CONST_HELPER_OFFSET_VMA_MM = offsetof(struct vm_area_struct, vm_mm);
const unsigned long MMOPS_CONST_HELPER_OFFSET_FILE_MAPPING = offsetof(struct file, f_mapping);
