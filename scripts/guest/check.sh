#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's side of `make check` and `make check-debug`: each group of tests writes a TAP or KTAP
# file to MMOPS_SHARE/tap, and scripts/check counts them all on the host.
#
#	MMOPS_MODULES, MMOPS_MODULES_FAULTS	built modules, plain and with faults
#	MMOPS_KERNEL				build directory of the kernel
#	MMOPS_SELFTESTS				built programs of selftests/
#	MMOPS_BIN				built programs of tools/
#	MMOPS_TESTS				names of those to run, all when empty
#	MMOPS_SHAKE				a seed: move the tests' threads about meanwhile
#	MMOPS_CONTROLS				only the negative controls, so often
#	MMOPS_FIXES				1 where the kernel has kernel/fixes

set -u
. "$(dirname "$0")/lib.sh"

top=$(cd "$(dirname "$0")/../.." && pwd)
tap=$MMOPS_SHARE/tap
export MMOPS_DISK=/tmp/mmops-disk
kmemleak=/sys/kernel/debug/kmemleak
mkdir -p "$tap"

# group NAME: announce a group; its file is in $file.
group() {
	file=$tap/$1.tap
	echo
	echo "### $1"
}

# A group of single checks: begin, check NAME COMMAND..., end.
begin() {
	group "$1"
	number=0
	echo "KTAP version 1" | tee "$file"
}
check() {
	local name=$1 output
	shift
	number=$((number + 1))
	if output=$("$@" 2>&1); then
		echo "ok $number $name"
	else
		[ -z "$output" ] || echo "# ${output//$'\n'/$'\n'# }"
		echo "not ok $number $name"
	fi | tee -a "$file"
}
end() {
	echo "1..$number" | tee -a "$file"
}

# kunit NAME COMMAND...: what KUnit prints while the command loads a module.
kunit() {
	local name=$1 marker
	shift
	group "$name"
	marker="mmops-check: $name $$"
	echo "$marker" >/dev/kmsg
	"$@"
	dmesg --notime | sed "1,/^$marker/d" | sed -n '/KTAP version/,$p' | tee "$file"
}

# Bits of the taint that a report sets: bad page, died, warning, lockup. Others are expected, for
# an out-of-tree module and for KUnit.
reported() {
	echo $(($(cat /proc/sys/kernel/tainted) & (1 << 5 | 1 << 7 | 1 << 9 | 1 << 14)))
}
nothing_reported() {
	[ "$(reported)" -eq 0 ] || { echo "taint bits $(reported)"; false; }
}

lockdep_is_on() {
	grep -E 'debug_locks: +1' /proc/lockdep_stats ||
		{ grep debug_locks /proc/lockdep_stats; false; }
}

# A leak is reported when two scans in a row find nothing that points to an object.
no_leaks() {
	echo scan >"$kmemleak"
	sleep 6
	echo scan >"$kmemleak"
	[ -z "$(cat "$kmemleak")" ] || { cat "$kmemleak"; false; }
}

# What the kernel's own scans find, at once: the symbols of a module are gone when it is unloaded.
tell_leaks() {
	dmesg --follow-new |
		grep --line-buffered 'kmemleak: [0-9]* new suspected' |
		while read -r _; do sed 's/^/# /' "$kmemleak"; done
}

depends_on_mmops() {
	local depends
	depends=$(modinfo -F depends "$1")
	[[ ,$depends, == *,mmops,* ]] || { echo "$1 depends on: $depends"; false; }
}

in_use_by() {
	[ -d "/sys/module/mmops/holders/$1" ]
}

faults_absent() {
	[ ! -e /sys/kernel/debug/mmops/faults ] &&
		! grep -q '5mmops6faults' /proc/kallsyms
}

# make_runs_tests: `make run_tests` passes all tests of the program that it is given, and fails
# where run.sh does.
make_runs_tests() {
	local program=write_protect tests output
	local make=(make -s -C "$top/selftests" run_tests OUT="$MMOPS_SELFTESTS")
	tests=$("$MMOPS_SELFTESTS/$program" -l 2>&1 |
		awk '!/^[#-]/ && substr($0, 48) != ""' | wc -l)
	output=$("${make[@]}" ARGS="$program" 2>&1) || { echo "$output"; return 1; }
	[ "$tests" -gt 0 ] && [ "$(tail -n 1 <<<"$output")" = "1..$tests" ] &&
		[ "$(grep -cE "^ok [0-9]+ - $program: [^#]+\$" <<<"$output")" = "$tests" ] ||
		{ echo "$output"; echo "$program has $tests tests"; return 1; }
	! "${make[@]}" ARGS=--no-such-option >/dev/null 2>&1 || { echo "no error"; false; }
}

# crowd_fails FAULT TEXT: mmops-crowd fails with a rule left out, and says so.
crowd_fails() {
	local fault=/sys/kernel/debug/mmops/faults/$1 output status=0
	local crowd=(--processes 8 --files 2 --seconds 5 /dev/shm/crowd)
	echo 1 >"$fault" || return 1
	output=$("$MMOPS_BIN/mmops-crowd" "${crowd[@]}" 2>&1) || status=$?
	echo 0 >"$fault"
	[ "$status" -eq 1 ] && [[ $output == *"$2"* ]] || { echo "$output"; return 1; }
}

if [ -n "${MMOPS_SHAKE:-}" ]; then
	"$top/scripts/guest/shake" --seed "$MMOPS_SHAKE" $$ &
fi

# --- the machine before anything of mmops is loaded

begin 10-boot
check nothing_reported nothing_reported
[ ! -e /proc/lockdep_stats ] || check lockdep_is_on lockdep_is_on
check load_file_systems load_file_systems "$MMOPS_KERNEL"
end
if [ -e "$kmemleak" ]; then
	echo scan >"$kmemleak"
	echo clear >"$kmemleak"
	tell_leaks &
fi
quiet_khugepaged
mount_disk "$MMOPS_DISK" || echo "no scratch disk: tests of a disk file system are skipped"

setup_dax >"$MMOPS_SHARE/dax.log" 2>&1 ||
	echo "no device-DAX: tests of PUD leaves are skipped ($MMOPS_SHARE/dax.log)"

load_kvm "$MMOPS_KERNEL" >"$MMOPS_SHARE/kvm.log" 2>&1 ||
	echo "no KVM: tests of virtual machines are skipped ($MMOPS_SHARE/kvm.log)"

read -ra programs <<<"${MMOPS_TESTS:-}"
[ -n "${MMOPS_CONTROLS:-}" ] || . "$top/scripts/guest/check-plain.sh"

# --- the build with faults

kunit 60-kunit-faults insmod "$(module_file "$MMOPS_MODULES_FAULTS" mmops)"

begin 61-modules-faults
check load_mmops_test insmod "$(module_file "$MMOPS_MODULES_FAULTS" mmops_test)"
check load_mmops_leafmap load_leafmap "$MMOPS_MODULES_FAULTS"
check load_test_hmm insmod "$MMOPS_KERNEL/lib/test_hmm.ko"
check test_hmm_appears wait_for_device /dev/hmm_dmirror1
check fault_build_has_faults test -d /sys/kernel/debug/mmops/faults
end

begin 62-crowd-faults
check told_of_invalidations crowd_fails track_skip_mark ", protected: page"
check told_of_stores crowd_fails track_skip_stored "the tracker of the file"
end

group 70-negative-controls
for ((i = 0; i < ${MMOPS_CONTROLS:-1}; i++)); do
	"$top/selftests/run.sh" --dir "$MMOPS_SELFTESTS" --faults "${programs[@]}"
done | tee "$file"

# --- the machine afterwards

begin 80-after
check unload_test_hmm rmmod test_hmm
check unload unload_modules
! mountpoint -q "$MMOPS_DISK" || check unmount_disk umount "$MMOPS_DISK"
[ ! -e "$kmemleak" ] || check no_leaks no_leaks
check nothing_reported nothing_reported
[ ! -e /proc/lockdep_stats ] || check lockdep_is_on lockdep_is_on
end
