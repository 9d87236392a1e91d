#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The faults for negative controls are in the build that asks for them and in no other.

plain=$MMOPS_MODULES/rust/mmops.ko
faults=$MMOPS_MODULES_FAULTS/rust/mmops.ko

echo "TAP version 13"
names="ignore_invalidation mark_before_flush gather_no_memory skip_nested_check skip_pending skip_flush \
	transfer_before_flush trylock_fails delay_us protect_clear_first protect_stale_value skip_retry \
	window_us split_clear_first split_us keep_migration_writable migrations_met windows_open \
	fault_in_no_memory entry_changes migrations_zapped leak_pending"
set -- $names
echo "1..$((2 * $#))"
number=0
for name; do
	# The names of the files in debugfs are in the data of whatever creates them.
	result="not ok"
	[ ! -e "$plain" ] || grep -qa "$name" "$plain" || result=ok
	echo "$result $((++number)) $name is not in the plain build"
	result="not ok"
	! grep -qa "$name" "$faults" || result=ok
	echo "$result $((++number)) $name is in the build with faults"
done
