#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# All unsafe code has its reason, samples and tools have none but for tools/mmops-raw, and neither
# has selftests/modules/mmops_walk, which is a driver as a third party would write it.
# scripts/unsafe-report tells of each that breaks this.

set -u
. "$(dirname "$0")/../verdict.sh"

top=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The report looks at the tree that it is in.
(cd "$top" && find rust samples selftests tools scripts/unsafe-report \
	\( -name '*.rs' -o -name unsafe-report \) -print0 |
	tar -c --null -T - | tar -x -C "$scratch")

# report TREE: what is wrong, and nothing else.
report() {
	"$1/scripts/unsafe-report" --counts 2>&1 >/dev/null || echo "status $?"
}
# of_walk TREE: unsafe code of mmops_walk.
of_walk() {
	"$1/scripts/unsafe-report" 2>/dev/null | grep '^selftests/modules/mmops_walk/'
}
# finds NAME FILE TEXT FOUND: with TEXT at the end of FILE, the report fails and a line of it has
# FOUND.
finds() {
	local found missing

	cp "$scratch/$2" "$scratch/kept"
	echo "$3" >>"$scratch/$2"
	found=$(report "$scratch")
	mv "$scratch/kept" "$scratch/$2"
	missing="not found: $4; found: $found"
	grep -qF "$4" <<<"$found" && grep -qx 'status 1' <<<"$found" && missing=
	verdict "$1" "$missing"
}

echo "KTAP version 1"
echo "1..8"
blocks=$("$top/scripts/unsafe-report" | grep -c '^rust/.*: block: ')
verdict unsafe_code_has_reasons \
	"$(report "$top"; [ "$blocks" -gt 100 ] || echo "$blocks blocks are few")"
verdict mmops_walk_has_none "$(of_walk "$top")"

verdict nothing_is_wrong_with_the_copy "$(report "$scratch")"
block=$'fn f() {\n    // SAFETY: Nothing is done.\n    unsafe {}\n}'
sample=samples/minimal/mmops_minimal.rs
finds finds_a_block_in_a_sample $sample "$block" "$sample:$(($(wc -l <"$top/$sample") + 3)): block"
finds finds_a_block_in_a_tool tools/mmopsctl/src/main.rs "$block" 'block in tools'
finds finds_more_than_raw_may_have tools/mmops-raw/src/lib.rs "$block" 'blocks in mmops-raw, where'
finds finds_a_block_without_a_reason rust/range.rs $'fn f() {\n    unsafe {}\n}' \
	'block without a reason'

walk=selftests/modules/mmops_walk/mmops_walk.rs
echo "$block" >>"$scratch/$walk"
verdict finds_a_block_in_mmops_walk \
	"$(of_walk "$scratch" | grep -q ': block: Nothing is done' || echo "not found")"
