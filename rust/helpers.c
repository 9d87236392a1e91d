// SPDX-License-Identifier: GPL-2.0
/*
 * C inline functions and macros that the crate mmops needs: those of each C header
 * in a file of its own below helpers/.
 *
 * With CONFIG_RUST_INLINE_HELPERS this file is also compiled to bitcode and
 * linked into the crate before code generation, so that a helper costs no
 * call. The object in mmops.ko exports the same functions for a module that
 * instantiates a generic of the crate and is not linked with the bitcode.
 *
 * A helper that a generic may reach must use only symbols that every module
 * may use. The exports are in the namespace MMOPS: what calls a helper by hand
 * and not through the crate, which alone sees to the rules, has to say so.
 */

#include <linux/export.h>
#include <linux/pgtable.h>

#if defined(__BINDGEN__)
/* bindgen ignores inline functions. */
#define __mmops_helper
#define MMOPS_EXPORT(sym)
#elif defined(MMOPS_BITCODE)
#define __mmops_helper __always_inline
#define MMOPS_EXPORT(sym)
#else
#define __mmops_helper
#define MMOPS_EXPORT(sym) EXPORT_SYMBOL_NS_GPL(sym, "MMOPS")
#endif

#ifndef CONFIG_X86_64
#error "mmops: the atomic update of a page table entry is written for x86-64 only"
#endif

/*
 * Replace an entry by what @change makes of it, and return the value that was
 * replaced. The CPU sets the accessed and the dirty bit at any time, so both
 * values have to come from the one exchange that succeeded; the entry is never
 * cleared meanwhile. As in ptep_set_wrprotect(), page_table_check has no
 * interest in it: neither what is mapped nor for whom changes.
 */
#define mmops_update(entryp, change)					\
	mmops_update_from(entryp, READ_ONCE(*(entryp)), change)

/* The same, beginning with a value that the entry may have. */
#define mmops_update_from(entryp, value, change) ({			\
	typeof(*(entryp)) old_entry = (value), new_entry;		\
									\
	BUILD_BUG_ON(sizeof(old_entry) != sizeof(long));		\
	do {								\
		new_entry = change(old_entry);				\
	} while (!try_cmpxchg((long *)(entryp), (long *)&old_entry,	\
			      *(long *)&new_entry));			\
	old_entry;							\
})

#include "helpers/copied.c"
#include "helpers/filemap.c"
#include "helpers/folio.c"
#include "helpers/fs.c"
#include "helpers/mm.c"
#include "helpers/mmu_notifier.c"
#include "helpers/pgtable.c"
#include "helpers/leafops.c"
#include "helpers/kunit.c"
#include "helpers/sched.c"
#include "helpers/tlb.c"
