#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The examples in the crate's documentation compile against the crate that was built, with the flags
# of a module that uses it, and without unsafe.

top=$(cd "$(dirname "$0")/../.." && pwd)
exec "$top/scripts/examples" "$MMOPS_MODULES/samples/minimal/.mmops_minimal.o.cmd" \
	"$MMOPS_CACHE/examples"
