#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What rust/helpers/copied.c was made from is in the kernel source as it was then; and
# scripts/copied tells of a function that has changed, of one that has gone, and of one that nobody
# looked at.

set -u
. "$(dirname "$0")/../verdict.sh"

top=$(cd "$(dirname "$0")/../.." && pwd)
src=${MMOPS_KERNEL_SRC:-$("$top/scripts/kernel-source")}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

echo "KTAP version 1"
echo "1..5"
# told PATTERN COMMAND...: nothing if the command fails and a line that it prints matches.
told() {
	local pattern=$1 output
	shift
	if output=$("$@" 2>&1); then
		echo "no difference was found"
	elif ! grep -qE "$pattern" <<<"$output"; then
		echo "no line matches $pattern: $output"
	fi
}

verdict originals_are_unchanged "$("$top/scripts/copied" "$src" 2>&1)"

# A tree of the originals alone.
while read -r _ file _; do
	mkdir -p "$scratch/$(dirname "$file")"
	cp "$src/$file" "$scratch/$file"
done < <(sed -n 's/^=== \(.*\): .*/=== \1 x/p' "$top/rust/helpers/copied.orig")
verdict a_copy_of_the_files_is_unchanged "$("$top/scripts/copied" "$scratch" 2>&1)"

sed -i 's/pgtable_trans_huge_withdraw(mm, pmd)/pgtable_trans_huge_withdraw(mm, NULL)/' \
	"$scratch/mm/huge_memory.c"
verdict a_change_is_told "$(told '^\+.*withdraw\(mm, NULL\)' "$top/scripts/copied" "$scratch")"

sed -i 's/\bpmd_install(/pmd_put(/' "$scratch/mm/memory.c"
verdict a_removal_is_told "$(told '^\+is not there' "$top/scripts/copied" "$scratch")"

mkdir "$scratch/copies"
cp "$top"/rust/helpers/copied.* "$scratch/copies"
echo '/* Original: do_wp_page(), mm/memory.c */' >>"$scratch/copies/copied.c"
verdict a_new_copy_is_told "$(told '^\+=== mm/memory.c: do_wp_page' \
	env MMOPS_COPIED="$scratch/copies" "$top/scripts/copied" "$src")"
