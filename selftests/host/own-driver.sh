#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The module of Documentation/own-driver.rst builds outside of this tree, by the files and the
# command of that page, and depends on mmops, as the page says. None of its parts can be left out.

set -u
. "$(dirname "$0")/../verdict.sh"

top=$(cd "$(dirname "$0")/../.." && pwd)
page=$top/Documentation/own-driver.rst
mkdir -p "$MMOPS_CACHE/run"
scratch=$(mktemp -d -p "$MMOPS_CACHE/run" own-driver.XXXXXX)
trap 'rm -rf "$scratch"' EXIT

# The variables that the page sets. What a make around this one was given is not for the module.
MMOPS=$MMOPS_MODULES
KDIR=$MMOPS_KERNEL
TOOLS=$("$top/scripts/toolchain") || exit 1
export MMOPS KDIR TOOLS
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES

# block START: the literal block behind the first line of the page that begins so.
block() {
	awk -v start="$1" '
		!inside { inside = index($0, start) == 1; next }
		sub(/^    /, "") { print blank $0; seen = 1; blank = ""; next }
		!seen { next }
		/^$/ { blank = blank "\n"; next }
		{ exit }' "$page"
}
# The file that the page includes, under the name that it gives.
driver() {
	local file from to

	file=$(sed -n 's/^\.\. literalinclude:: //p' "$page")
	# shellcheck disable=SC2016	# quotes of reST
	read -r from to < <(sed -nE \
		's/^Change ``name: ("[a-z_]*")`` to ``name: ("[a-z_]*")``.*/\1 \2/p' "$page")
	sed "s/name: $from/name: $to/" "$top/Documentation/$file"
}
# prepare: the files of the page, and nothing that was built of others.
prepare() {
	rm -rf "$scratch/driver"
	mkdir "$scratch/driver"
	cd "$scratch/driver" || exit 1
	block '``Kbuild``::' >Kbuild
	block '``Makefile`` ' >Makefile
	driver >my_driver.rs
}
build() {
	bash -c "$(block Build)" >"$scratch/log" 2>&1
}
# is NAME VALUE: what is wrong if this field of the module has another value.
is() {
	local found

	found=$(/sbin/modinfo -F "$1" my_driver.ko 2>&1)
	[ "$found" = "$2" ] || echo "$1: $found"
}
# fails NAME FILE SCRIPT MESSAGE: with this change of a file, the build fails and says why.
fails() {
	local wrong

	prepare
	cp "$2" "$scratch/kept"
	sed -i "$3" "$2"
	wrong=$(cmp -s "$2" "$scratch/kept" && echo "$2 has not changed"
		if build; then
			echo "it builds"
		else
			grep -qE "$4" "$scratch/log" || tail -n 20 "$scratch/log"
		fi)
	verdict "$1" "$wrong"
}

echo "KTAP version 1"
echo "1..5"
prepare
verdict builds_without_a_warning "$(build || tail -n 20 "$scratch/log"
	grep -i warning "$scratch/log"
	is name my_driver)"
# The command that shows the dependency, and below it what it prints.
mapfile -t shown < <(block 'The result says of itself')
verdict depends_on_what_the_page_says "$(
	[ "${shown[0]:-}" = '$ modinfo -F depends my_driver.ko' ] || echo "another command is shown"
	is depends "${shown[1]:-}")"

fails needs_the_metadata Kbuild 's/ --extern mmops=.*//' 'E0432|E0433'
fails needs_the_symbols Makefile 's/ KBUILD_EXTRA_SYMBOLS=[^ ]*//' 'modpost: .*mmops.* undefined!'
fails needs_the_namespace my_driver.rs '/imports_ns/d' \
	"modpost: .*from namespace 'MMOPS', but does not import it"
