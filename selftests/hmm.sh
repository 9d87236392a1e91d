#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the kernel's own tests of mirrors, tools/testing/selftests/mm/hmm-tests.c, against
# samples/mirror, and print one TAP result for each test that the file has.
set -u
. "$(dirname "$0")/tap.sh"

usage() {
	cat <<-END
	Usage: hmm.sh [--dir DIR]

	Runs DIR/kernel/hmm-tests, built by selftests/Makefile from the kernel's source, against the
	devices of mmops_mirror.ko. What the devices do not have is reported as skipped, with the
	reason.

	Environment:
	  MMOPS_TIMEOUT  seconds that all tests may take (default 1800)
	END
}

cache=${MMOPS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mmops}
dir=${OUT:-$cache/selftests}
while (($#)); do
	case $1 in
	--dir) dir=${2:?--dir needs a directory}; shift ;;
	--dir=*) dir=${1#*=} ;;
	-h | --help) usage; exit ;;
	*) usage >&2; exit 2 ;;
	esac
	shift
done

# Why a test is not run: it is of memory that the devices do not have, or of a call.
reason_for() {
	case $1 in
	*.hmm*_device_coherent.*) echo "the device has no memory of its own, coherent or not" ;;
	*.mixedmap) echo "the device cannot be mapped" ;;
	*.hmm_gup_test) echo "needs the kernel's gup_test driver" ;;
	*.migrate* | *.hmm_cow_in_device | *.benchmark_thp_migration | hmm2.*)
		echo "needs migration to memory of the device" ;;
	esac
}

# What needs no memory of the device has to pass, by name: a test that upstream renames or skips is
# not to drop out in silence.
fixture=hmm.hmm_device_private
required=(open_close anon_read anon_read_prot anon_write anon_write_prot anon_write_child
	anon_write_child_shared anon_write_huge anon_write_hugetlbfs file_read file_write
	anon_read_multiple anon_teardown compound exclusive exclusive_mprotect exclusive_cow
	userfaultfd_read)

echo "TAP version 13"
if [[ ! -c /dev/hmm_dmirror0 ]]; then
	echo "Bail out! no /dev/hmm_dmirror0: load mmops.ko and mmops_mirror.ko"
	exit 1
fi

# The list has three columns: a fixture, its variants and its tests, each below the other.
mapfile -t tests < <("$dir/kernel/hmm-tests" -l 2>&1 | awk '
	function flush(	v, t) {
		for (v = 1; v <= nv; v++)
			for (t = 1; t <= nt; t++)
				print fixture "." variants[v] "." names[t]
		nv = nt = 0
	}
	/^#/ { next }
	/^---/ { flush(); next }
	/^[a-z]/ { fixture = $1 }
	{
		variant = substr($0, 22, 25); name = substr($0, 48)
		gsub(/ /, "", variant); gsub(/ /, "", name)
		if (variant != "") variants[++nv] = variant
		if (name != "") names[++nt] = name
	}
	END { flush() }')

if ((${#tests[@]} == 0)); then
	echo "Bail out! $dir/kernel/hmm-tests lists no tests"
	exit 1
fi

chosen=()
skipped=()
for test in "${tests[@]}"; do
	reason=$(reason_for "$test")
	if [[ -n $reason ]]; then
		skipped+=("$test # SKIP $reason")
	else
		chosen+=(-r "$test")
	fi
done

cd /tmp
renumber "" "$dir/kernel/hmm-tests" "${chosen[@]}"
if [[ -z $planned || $seen != "$planned" || $planned != $((${#chosen[@]} / 2)) ]]; then
	failure "hmm-tests: ran $seen of $((${#chosen[@]} / 2)) tests, exit status $status"
fi
missing=()
for name in "${required[@]}"; do
	[[ " ${passed[*]} " == *" $fixture.$name "* ]] || missing+=("$name")
done
if ((${#missing[@]})); then
	failure "hmm-tests: of $fixture, these did not pass: ${missing[*]}"
else
	((++number))
	echo "ok $number - hmm-tests:" \
		"all ${#required[@]} of $fixture that need no memory of the device"
fi
for line in "${skipped[@]}"; do
	((++number))
	echo "ok $number - $line"
done
echo "1..$number"
((failed == 0))
