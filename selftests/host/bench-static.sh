#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# scripts/bench-static finds each loop that it names in the modules, and has figures for it.

set -u
. "$(dirname "$0")/../verdict.sh"

top=$(cd "$(dirname "$0")/../.." && pwd)
loops=("limit_read, look" "limit_exchange, exchange" "dirty::clean_record, look"
	"dirty::clean_record, exchange" "dirty::write_protect, look"
	"dirty::write_protect, exchange" "soft_dirty, exchange" "age, look" "age, exchange")

echo "KTAP version 1"
echo "1..$((${#loops[@]} + 1))"
table=$("$top/scripts/bench-static" "$MMOPS_MODULES" 2>&1)

# Instructions, entries in a turn, and three figures above 0.
for loop in "${loops[@]}"; do
	why=
	grep -qE "^$loop( +[1-9][0-9]*){2}( +([1-9][0-9]*\.[0-9]+|0\.[0-9]*[1-9][0-9]*)){3}$" \
		<<<"$table" || why="no such line: $table"
	verdict "figures_of_${loop//[^a-z_]/_}" "$why"
done
verdict other_modules_are_told "$("$top/scripts/bench-static" / 2>&1 | grep -q 'mmops_limit.ko' ||
	echo "nothing is said of the module that is not there")"
