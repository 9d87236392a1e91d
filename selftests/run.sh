#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the test programs and print their results as one flat TAP stream.
set -u
. "$(dirname "$0")/tap.sh"

usage() {
	cat <<-END
	Usage: run.sh [--dir DIR] [--faults] [PROGRAM...]

	Runs PROGRAMs (default: all) from DIR and prints one TAP stream with a plan at
	its end. Each result is named PROGRAM: test. Exits with 1 if a result is "not ok".

	  --dir DIR  where the programs are (default: OUT of selftests/Makefile)
	  --faults   only the tests that are run against the fault build of mmops.ko: the
	             negative controls, other tests that need faults, and the check of what
	             the build holds
	  --list     print the names of the programs

	Environment:
	  MMOPS_SEED     seed of all random choices
	  MMOPS_DISK     a directory on a disk file system for the tests of writeback
	  MMOPS_FIXES    1 where the kernel has kernel/fixes applied
	  MMOPS_TIMEOUT  seconds that one program may take (default 1800)
	END
}

programs=(uapi uapi_ranges exclusive zap zap_race clean_record write_protect mappings fork layouts huge
	split_race cover_race leafmap pud writeback signal soft_dirty soft_dirty_device soft_dirty_new soft_dirty_pins
	soft_dirty_race pidfd notifier notify protect protect_race protect_pud protect_pud_race walk
	race)
programs+=(age)
programs+=(write_permission file_kinds sparse page_frames)
programs+=(harvest_contract harvest_pinned harvest_marks numa_hints kvm)
programs+=(kernel_fixes)
# Allocations fail where the kernel can inject that.
[[ ! -e /proc/self/fail-nth ]] || programs+=(no_memory)
cache=${MMOPS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mmops}
dir=${OUT:-$cache/selftests}
faults=
selected=()

while (($#)); do
	case $1 in
	--dir) dir=${2:?--dir needs a directory}; shift ;;
	--dir=*) dir=${1#*=} ;;
	--faults) faults=1 ;;
	--list) printf '%s\n' "${programs[@]}"; exit ;;
	-h | --help) usage; exit ;;
	-*) usage >&2; exit 2 ;;
	*) selected+=("$1") ;;
	esac
	shift
done

if [[ -n $faults ]]; then
	controls=(uapi exclusive huge split_race cover_race zap zap_race writeback harvest_marks harvest_race signal
		soft_dirty_new soft_dirty_pins soft_dirty_race protect_race protect_pud_race race age)
	[[ ${MMOPS_FIXES:-} != 1 ]] || controls+=(kernel_fixes)
	((${#selected[@]})) || selected=("${controls[@]}")
fi
((${#selected[@]})) || selected=("${programs[@]}")

# Which tests of a program are run against which build of mmops.ko. Negative controls
# need the fault build; tests that the plain build has passed are not repeated on it.
arguments_of() {
	case $1${faults:+ faults} in
	writeback) echo -T control_transfer_before_flush ;;
	split_race) echo -T control_gate_stores -T control_gate_mprotect \
			 -T control_gate_dontneed -T control_gate_munmap \
			 -T control_clear_mprotect -T control_clear_dontneed ;;
	"split_race faults") echo -t control_gate_stores -t control_gate_mprotect \
				  -t control_gate_dontneed -t control_gate_munmap \
				  -t control_clear_mprotect -t control_clear_dontneed ;;
	harvest_marks) echo -T no_pin -T no_pin_huge ;;
	"harvest_marks faults") echo -t no_pin -t no_pin_huge ;;
	cover_race) echo -T control_skip_cover ;;
	"cover_race faults") echo -t control_skip_cover ;;
	huge) echo -T restarted_walk_counts_once ;;
	kernel_fixes) [[ ${MMOPS_FIXES:-} = 1 ]] && echo -T migrating_leaf ||
			echo -T migrating_leaf -T pud_without_permissions ;;
	"kernel_fixes faults") echo -t migrating_leaf ;;
	soft_dirty_new) echo -T control_lock_is_dropped ;;
	"soft_dirty_new faults") echo -t control_lock_is_dropped ;;
	soft_dirty_pins) echo -T control_pin_in_between -T control_no_pin_check ;;
	"soft_dirty_pins faults") echo -t control_pin_in_between -t control_no_pin_check ;;
	soft_dirty_race) echo -T control_no_flush -T control_gate_alone -T control_no_pending \
			      -T control_migration_is_met -T control_migration_stays_writable ;;
	race) echo -T control_gate_alone -T control_no_nested_check -T control_no_flush \
		   -T control_no_flush_replicate ;;
	"race faults") echo -t control_gate_alone -t control_no_nested_check -t control_no_flush \
			    -t control_no_flush_replicate ;;
	exclusive) echo -T control_ignore_invalidation -T control_no_flush -T no_memory -T busy \
			-T locked_folios ;;
	"exclusive faults") echo -t control_ignore_invalidation -t control_no_flush -t no_memory \
				 -t busy -t locked_folios ;;
	age) echo -T control_no_flush ;;
	"age faults") echo -t control_no_flush ;;
	zap) echo -T no_memory_for_queue -T control_migration_is_met \
		  -T control_migrating_leaf_is_met ;;
	signal) echo -T control_leaked_pending ;;
	"signal faults") echo -t control_leaked_pending ;;
	zap_race) echo -T control_mark_before_flush ;;
	"zap_race faults") echo -t control_mark_before_flush ;;
	"zap faults") echo -t no_memory_for_queue -t control_migration_is_met \
			   -t control_migrating_leaf_is_met ;;
	"soft_dirty_race faults") echo -t control_no_flush -t control_gate_alone \
				-t control_no_pending -t control_migration_is_met \
				-t control_migration_stays_writable ;;
	protect_pud_race) echo -T control_clear_first \
			       -T control_skip_retry -T control_stale_value -T control_no_flush \
			       -T control_clear_first_dontneed ;;
	"protect_pud_race faults") echo -t control_clear_first \
			       -t control_skip_retry -t control_stale_value -t control_no_flush \
			       -t control_clear_first_dontneed ;;
	protect_race) echo -T control_clear_first -T control_stale_dirty -T control_stale_young \
			   -T control_no_retry -T control_no_flush ;;
	"protect_race faults") echo -t control_clear_first -t control_stale_dirty \
				    -t control_stale_young -t control_no_retry \
				    -t control_no_flush ;;
	uapi) echo -T gates ;;
	"uapi faults") echo -t info -t faults_where_they_belong -t gates ;;
	"huge faults") echo -t restarted_walk_counts_once ;;
	"writeback faults") echo -t control_transfer_before_flush ;;
	esac
}

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
	read -ra arguments <<<"$(arguments_of "$program")"
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
