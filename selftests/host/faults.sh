#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The faults for negative controls are in the build that asks for them and in no other, and so are
# what gates need of the kernel. Of the kernel's own C functions that tests compare with, only the
# tests' own modules know.

plain=$MMOPS_MODULES/rust/mmops.ko
faults=$MMOPS_MODULES_FAULTS/rust/mmops.ko
table=$(dirname "$0")/../../rust/faults.rs

# calls MODULE WORD: whether the module calls a function of the kernel whose symbol has the word.
calls() {
	[ -e "$1" ] && nm -u "$1" | grep -q "$2"
}

# Files of debugfs, and waiting for a time: only gates do either.
gates=(debugfs fsleep)
references=(wp_shared_mapping_range clean_record_shared_mapping_range make_device_exclusive)
products=("$MMOPS_MODULES"/{rust,samples/*}/*.ko)

echo "TAP version 13"
# The lines of the table, "KIND NAME;": all of them, or the names say nothing.
mapfile -t names < <(sed -n '/^table! {/,/^}/s/^    [A-Z][A-Za-z]* \([a-z_]*\);$/\1/p' "$table")
lines=$(sed -n '/^table! {/,/^}/p' "$table" | grep -c ';$')
echo "1..$((2 * ${#names[@]} + 2 + 2 * ${#gates[@]} + 2 * ${#references[@]} + ${#products[@]}))"
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
for word in "${gates[@]}"; do
	result="not ok"
	[ ! -e "$plain" ] || calls "$plain" "$word" || result=ok
	echo "$result $((++number)) $word is not called by the plain build"
	result="not ok"
	! calls "$faults" "$word" || result=ok
	echo "$result $((++number)) $word is called by the build with faults"
done
for word in "${references[@]}"; do
	result=ok
	for module in "${products[@]}"; do
		! calls "$module" " $word\$" || result="not ok"
	done
	echo "$result $((++number)) $word is called by no module of the plain build"
	result="not ok"
	! calls "$MMOPS_MODULES/selftests/modules/mmops_ref/mmops_ref.ko" " $word\$" || result=ok
	echo "$result $((++number)) $word is called by the module of the tests"
done
# A module that is not there would have passed.
for module in "${products[@]}"; do
	result="not ok"
	[ ! -e "$module" ] || ! nm -u "$module" | grep -q . || result=ok
	echo "$result $((++number)) $(basename "$module") was looked at"
done
