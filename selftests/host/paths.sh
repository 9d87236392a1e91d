#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A file of this tree that documentation or a comment names is there: below the top of the tree, or
# below rust/, selftests/ or tools/, where most of the names are used. The kernel has directories of
# the same names; what it has is its own. And each page of Documentation is in its index.

set -u
. "$(dirname "$0")/../verdict.sh"

top=$(cd "$(dirname "$0")/../.." && pwd)
src=${MMOPS_KERNEL_SRC:-$("$top/scripts/kernel-source")}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

own='rust|samples|selftests|scripts|tools|kernel|Documentation'
modules=$(cd "$top/rust" && find . -mindepth 1 -maxdepth 1 -type d -printf '%f|')
names="\\b($modules$own)/[a-z_/-]*\\.(rs|c|h|sh|py|rst|pml|txt|config|patch)\\b"

# Prints "NAME FILE" for each name in the files below $1.
names() {
	(cd "$1" && grep -roE --exclude=Cargo.lock --exclude=paths.sh "$names" \
		README.md CONTRIBUTING* Documentation kernel rust samples selftests scripts tools \
		.ci |
		sed 's/^\([^:]*\):\(.*\)/\2 \1/' | sort -u)
}
# What is wrong with the tree $1.
wrong() {
	local name file

	while read -r name file; do
		[ -e "$top/$name" ] || [ -e "$top/rust/$name" ] || [ -e "$top/selftests/$name" ] ||
			[ -e "$top/tools/$name" ] || [ -e "$src/$name" ] || echo "$file: no $name"
	done < <(names "$1")
}

# Pages of the tree $1 that the index does not have.
unlisted() {
	local page

	for page in "$1"/Documentation/*.rst; do
		page=$(basename "$page" .rst)
		[ "$page" = index ] || grep -qx "   $page" "$1/Documentation/index.rst" ||
			echo "$page.rst is in no table of contents"
	done
}

echo "KTAP version 1"
echo "1..4"

found=$(names "$top" | wc -l)
verdict files_that_are_named_exist \
	"$(wrong "$top"; [ "$found" -gt 100 ] || echo "$found names are few")"

mkdir "$scratch/Documentation"
echo 'See ``walk/no_such.rs``.' >"$scratch/Documentation/example.rst"
found=$(wrong "$scratch" 2>/dev/null)
verdict finds_one_that_is_gone \
	"$([ "$found" = "Documentation/example.rst: no walk/no_such.rs" ] || echo "found: $found")"

verdict pages_are_in_the_index "$(unlisted "$top")"

printf '   %s\n' listed >"$scratch/Documentation/index.rst"
touch "$scratch/Documentation/listed.rst"
found=$(unlisted "$scratch")
verdict finds_one_that_is_in_none \
	"$([ "$found" = "example.rst is in no table of contents" ] || echo "found: $found")"
