#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the test programs and print their results as one flat TAP stream.
set -u
. "$(dirname "$0")/tap.sh"

usage() {
	cat <<-END
	Usage: run.sh [--dir DIR] [--faults] [PROGRAM...]

	Runs PROGRAMs (default: all that this machine can run) from DIR and prints one TAP
	stream with a plan at its end. Each result is named PROGRAM: test. Exits with 1 if a
	result is "not ok".

	  --dir DIR  where the programs are (default: OUT of selftests/Makefile)
	  --faults   against the fault build of mmops.ko: of a program that has tests for it
	             only these, which are the negative controls and what else needs faults;
	             by default all programs that have such tests
	  --list     print the names of the programs

	Environment:
	  MMOPS_SEED     seed of all random choices
	  MMOPS_DISK     a directory on a disk file system for the tests of writeback
	  MMOPS_FIXES    1 where the kernel has kernel/fixes applied
	  MMOPS_TIMEOUT  seconds that one program may take (default 1800)
	END
}

here=$(dirname "$0")
cache=${MMOPS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mmops}
dir=${OUT:-$cache/selftests}
faults=
list=
selected=()

while (($#)); do
	case $1 in
	--dir) dir=${2:?--dir needs a directory}; shift ;;
	--dir=*) dir=${1#*=} ;;
	--faults) faults=1 ;;
	--list) list=1 ;;
	-h | --help) usage; exit ;;
	-*) usage >&2; exit 2 ;;
	*) selected+=("$1") ;;
	esac
	shift
done

# can_run PROGRAM: whether it is one that runs here unless it is asked for by name.
can_run() {
	case $1 in
	mirror) [[ -d /sys/module/mmops_mirror ]] ;;		# else the device is the kernel's
	fail_nth) [[ -e /proc/self/fail-nth ]] ;;		# the kernel can inject failures
	fail_nth_mirror) can_run fail_nth && can_run mirror ;;
	kernel_fixes) [[ -z $faults || ${MMOPS_FIXES:-} = 1 ]] ;;	# else it locks up
	esac
}

# fault_fixtures PROGRAM: the fixtures of its tests for the fault build, as FIXTURE_FAULTS() in
# faults.h makes them. Controls need that, and what the plain build has passed is not repeated on
# it.
fault_fixtures() {
	"$dir/$1" -l 2>&1 | sed -nE 's/^([a-z_0-9]+_faults)( .*|$)/\1/p'
}

if ((${#selected[@]} == 0)); then
	for source in "$here"/*.c; do
		program=$(basename "$source" .c)
		can_run "$program" || continue
		[[ -z $faults || -n $(fault_fixtures "$program") ]] || continue
		selected+=("$program")
	done
fi
if [[ -n $list ]]; then
	printf '%s\n' "${selected[@]}"
	exit
fi

echo "TAP version 13"
if [[ ! -e /dev/mmops ]]; then
	echo "Bail out! no /dev/mmops: load mmops.ko and mmops_test.ko"
	exit 1
fi
if [[ -n $faults && ! -d /sys/kernel/debug/mmops/faults ]]; then
	echo "Bail out! mmops.ko was built without MMOPS_FAULTS=1, or debugfs is not mounted"
	exit 1
fi

for program in "${selected[@]}"; do
	arguments=()
	for fixture in $(fault_fixtures "$program"); do
		if [[ -n $faults ]]; then
			arguments+=(-f "$fixture")
		else
			arguments+=(-F "$fixture")
		fi
	done
	# The kernel warns, which fails a run.
	[[ $program != kernel_fixes || ${MMOPS_FIXES:-} = 1 ]] ||
		arguments+=(-T pud_without_permissions)
	echo "# $program ${arguments[*]}"
	started=$SECONDS
	renumber "$program: " "$dir/$program" "${arguments[@]}"
	if [[ -z $planned || $seen != "$planned" || $status -gt 1 && $status != 4 ]]; then
		failure "$program: ran $seen of ${planned:-?} tests, exit status $status"
	fi
	echo "# $program took $((SECONDS - started)) s"
done
echo "1..$number"
((failed == 0))
