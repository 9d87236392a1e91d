#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The faults for negative controls are in the build that asks for them and in no other.

plain=$MMOPS_MODULES/rust/mmops.ko
faults=$MMOPS_MODULES_FAULTS/rust/mmops.ko
table=$(dirname "$0")/../../rust/faults.rs

echo "TAP version 13"
# The lines of the table, "KIND NAME;": all of them, or the names say nothing.
mapfile -t names < <(sed -n '/^table! {/,/^}/s/^    [A-Z][A-Za-z]* \([a-z_]*\);$/\1/p' "$table")
lines=$(sed -n '/^table! {/,/^}/p' "$table" | grep -c ';$')
echo "1..$((2 * ${#names[@]} + 2))"
number=0
result=ok
[ "${#names[@]}" -gt 10 ] && [ "${#names[@]}" -eq "$lines" ] || result="not ok"
echo "$result $((++number)) the table of faults has ${#names[@]} names in $lines lines"
# What the compiler makes of the functions has the name of their module in its symbol.
result="not ok"
[ ! -e "$plain" ] || grep -qa 5mmops6faults "$plain" || result=ok
echo "$result $((++number)) no symbol of faults is in the plain build"
for name in "${names[@]}"; do
	# The names of the files in debugfs are in the data of whatever creates them.
	result="not ok"
	[ ! -e "$plain" ] || grep -qa "$name" "$plain" || result=ok
	echo "$result $((++number)) $name is not in the plain build"
	result="not ok"
	! grep -qa "$name" "$faults" || result=ok
	echo "$result $((++number)) $name is in the build with faults"
done
