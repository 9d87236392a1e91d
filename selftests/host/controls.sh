#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Each control of selftests/*.c, TEST_FAULTS(fixture, control_*), is in the list of controls of
# Documentation/testing.rst, which says what it leaves out; and each that is named there exists.

set -u
. "$(dirname "$0")/../verdict.sh"

top=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Prints "PROGRAM CONTROL" for each control in the programs of the directory $1. A macro may put the
# prefix before the name: each line with such a macro is one, too.
controls() {
	awk '
		FNR == 1 {
			program = FILENAME
			gsub(/.*\/|\.c$/, "", program)
			macro = ""
			delete makes
		}
		/^#define / {
			macro = $2
			sub(/\(.*/, "", macro)
		}
		match($0, /TEST_FAULTS\([a-z_]+, control_[a-z_]+\)/) {
			name = substr($0, RSTART, RLENGTH - 1)
			sub(/.* /, "", name)
			print program, name
		}
		/TEST_FAULTS\([a-z_]+, control_ ## name\)/ { makes[macro] }
		match($0, /^[A-Z_]+\([a-z_]+/) {
			split(substr($0, RSTART, RLENGTH), part, "(")
			if (part[1] in makes)
				print program, "control_" part[2]
		}' "$1"/*.c
}

# Prints "PROGRAM CONTROL" for each that the page $1 names. "control_a_b", "_c" are control_a_b and
# control_a_c, and a "*" stands for the rest of names.
named() {
	sed -n '/^The controls, and the step/,/^A control is exact/p' "$1" | grep '^``' |
		grep -oE '^``[a-z_]+``|``[a-z_.*]+``' | tr -d '`' |
		awk '
			/^_/ { print program, start $0; next }
			/^control_/ {
				print program, $0
				start = $0
				sub(/_[a-z]+$/, "", start)
				next
			}
			/\./ { next }	# a variant of all tests of a program
			{ program = $0 }'
}

# What is wrong with the list of the page $2 for the programs in $1.
wrong() {
	{
		controls "$1" | sed 's/^/is /'
		named "$2" | sed 's/\*/.*/; s/^/named /'
	} | awk '
		$1 == "is" { is[$2 ": " $3] }
		$1 == "named" { named[$2 ": " $3] }
		END {
			for (control in is) {
				found = 0
				for (pattern in named)
					if (control ~ "^" pattern "$")
						found = has[pattern] = 1
				if (!found)
					print control " is not in the list"
			}
			for (pattern in named)
				if (!has[pattern])
					print pattern " is not there"
		}' | sort
}

echo "KTAP version 1"
echo "1..5"
page=$top/Documentation/testing.rst
found=$(controls "$top/selftests" | wc -l)
verdict controls_are_in_the_list "$(wrong "$top/selftests" "$page"
	[ "$found" -gt 40 ] || echo "$found controls are few")"

# finds NAME FOUND: this alone is wrong with the copies, which are then made anew.
finds() {
	local found

	found=$(wrong "$scratch" "$scratch/testing.rst")
	cp "$top"/selftests/*.c "$page" "$scratch"
	verdict "$1" "$([ "$found" = "$2" ] || echo "not found: $2; found: $found")"
}
cp "$top"/selftests/*.c "$page" "$scratch"
echo 'TEST_FAULTS(race, control_planted)' >>"$scratch/race.c"
finds finds_one_that_is_not_listed 'race: control_planted is not in the list'

echo 'CONTROL_TEST(gate_planted, STORES, 0)' >>"$scratch/split_race.c"
finds finds_one_of_a_macro 'split_race: control_gate_planted is not in the list'

sed -i '/^TEST_FAULTS(zap, control_migration_is_met)/d' "$scratch/zap.c"
finds finds_one_that_is_gone 'zap: control_migration_is_met is not there'

sed -i 's/``_munmap``/``_mremap``/' "$scratch/testing.rst"
finds finds_one_by_its_end "split_race: control_gate_mremap is not there
split_race: control_gate_munmap is not in the list"
