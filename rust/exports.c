// SPDX-License-Identifier: GPL-2.0
/*
 * Exports the crate's symbols to other Rust modules, as rust/exports.c of the
 * kernel does for the crate `kernel`. All GPL-only, like the kernel's.
 */

#include <linux/export.h>

#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "exports_generated.h"
