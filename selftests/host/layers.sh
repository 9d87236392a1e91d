#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# No module of the crate names one of a higher layer, and no two name each other: each names those
# alone that stand before it in the list of layers of Documentation/architecture.rst.

set -u
. "$(dirname "$0")/../verdict.sh"

top=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The modules of the list, in its order: the ``name.rs`` of its lines that are not indented.
layers() {
	sed -n '/^Layers$/,/^Four rules/p' "$top/Documentation/architecture.rst" | grep '^``' |
		grep -oE '``[a-z_]+\.rs``' | sed 's/``\(.*\)\.rs``/\1/'
}

# Prints "FILE NAME" for each module of the crate that a file below $1 names: in a path, or in the
# braces of a `use`. Comments may name what they like.
names() {
	(cd "$1" &&
		find . -name '*.rs' ! -name '*generated*' ! -path ./lib.rs -printf '%P\0' |
		sort -z |
		while IFS= read -r -d '' file; do
			sed 's|//.*||' "$file" | awk -v file="$file" '
				{ text = text $0 "\n" }
				END {
					while (match(text, /crate::/)) {
						text = substr(text, RSTART + RLENGTH)
						if (text !~ /^[ \n\t]*\{/) {
							first(text)
							continue
						}
						depth = 0
						start = 1
						for (i = index(text, "{"); i <= length(text); i++) {
							c = substr(text, i, 1)
							if (c == "{" && ++depth == 1 ||
							    c == "," && depth == 1)
								first(substr(text, i + 1))
							if (c == "}" && --depth == 0)
								break
						}
					}
				}
				function first(rest) {
					sub(/^[ \n\t]+/, "", rest)
					if (match(rest, /^[a-z_]+/))
						print file, substr(rest, 1, RLENGTH)
				}'
		done)
}

# What is wrong with the crate below $1.
wrong() {
	{
		layers | sed 's/^/layer /'
		find "$1" -maxdepth 1 -name '*.rs' ! -name lib.rs -printf 'module %f\n' |
			sed 's/\.rs$//'
		names "$1"
	} | awk '
		$1 == "layer" { place[$2] = ++places; next }
		$1 == "module" {
			is_module[$2]
			if (!($2 in place))
				print $2 " is in no layer"
			next
		}
		{
			own = $1
			sub(/[\/.].*/, "", own)
			if ($2 in is_module && $2 != own && place[$2] >= place[own])
				print $1 " names " $2
		}'
}

echo "KTAP version 1"
echo "1..6"
# finds NAME FILE TEXT FOUND: the crate with TEXT at the end of FILE is told to be wrong so.
finds() {
	local found

	rm -rf "$scratch/rust"
	cp -r "$top/rust" "$scratch/rust"
	echo "$3" >>"$scratch/rust/$2"
	found=$(wrong "$scratch/rust")
	verdict "$1" "$([ "$found" = "$4" ] || echo "not found: $4; found: $found")"
}

modules=$(names "$top/rust" | wc -l)
verdict layers_are_kept \
	"$(wrong "$top/rust"; [ "$modules" -gt 100 ] || echo "$modules names are few")"
finds finds_a_use pgtable/table.rs 'use crate::walk::Walk;' 'pgtable/table.rs names walk'
finds finds_a_use_among_others tlb.rs $'use crate::{\n    mm::{Mm, Zap},\n    zap::Zap, //\n};' \
	'tlb.rs names zap'
finds finds_a_path_in_a_body zap/table.rs 'fn f() { crate::protect::f(); }' \
	'zap/table.rs names protect'
finds finds_a_new_module example.rs '' 'example is in no layer'
finds leaves_comments_alone range.rs '// See [`zap`](crate::zap).' ''
