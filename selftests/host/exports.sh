#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What mmops.ko exports: C helpers in the namespace MMOPS alone, everything for GPL modules alone.

. "$(dirname "$0")/../verdict.sh"

# Symbol, exporter, type and namespace of each line, without the checksum.
exports=$(awk -F '\t' '$3 ~ /(^|\/)mmops$/ { print $2, $4, $5 }' "$MMOPS_MODULES/Module.symvers")

echo "KTAP version 1"
echo "1..4"
helpers=$(grep '^mmops_' <<<"$exports")
verdict helpers_are_exported "$([ -n "$helpers" ] || echo "no helper in Module.symvers")"
verdict helpers_are_in_the_namespace "$(grep -v ' MMOPS$' <<<"$helpers")"
verdict nothing_else_is_in_the_namespace "$(grep -v '^mmops_' <<<"$exports" | grep ' MMOPS$')"
verdict all_are_for_gpl_modules "$(grep -v ' EXPORT_SYMBOL_GPL' <<<"$exports")"
