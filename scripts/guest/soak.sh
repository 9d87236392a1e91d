#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# soak.sh SECONDS: the guest's side of `make soak`. In rounds, and the modules are loaded for each.
#
# mmops-soak, on tmpfs and on a disk, and mmops-crowd look at contents. The programs of selftests/
# are there for what they do: under such a load they meet what their assertions are not made for, so
# what they say does not count. One that hangs does.

set -u
. "$(dirname "$0")/lib.sh"

seconds=${1:?soak.sh SECONDS}
round=60
disk=/tmp/mmops-disk memory=/tmp/mmops-memory
export MMOPS_DISK=$disk
races=(race split_race zap_race protect_race soft_dirty_race cover_race exclusive fork writeback)
log=$MMOPS_SHARE/races
end=$((SECONDS + seconds))

# A bit more than there is: the rest goes to swap, and pages of the others with it.
take_memory() {
	local free
	free=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)
	(
		echo 1000 >/proc/self/oom_score_adj
		exec dd if=/dev/zero of="$memory/taken" bs=1M count=$((free / 1024 + 500))
	)
	sleep 2
	rm -f "$memory/taken"
	sleep 2
}
compact() {
	echo 1 >/proc/sys/vm/compact_memory
	sleep 1
}
# The first CPU stays, and cannot be stopped.
plug_cpus() {
	local cpu=/sys/devices/system/cpu/cpu$((1 + RANDOM % 3))
	echo 0 >"$cpu/online"
	sleep 1
	echo 1 >"$cpu/online"
	sleep 1
}
# run_races SECONDS PROGRAM...: one after the other, until then. Each ends when it is told to.
run_races() {
	local until=$((SECONDS + $1)) program left
	shift
	for program; do
		left=$((until - SECONDS))
		[ "$left" -gt 0 ] || break
		timeout -k 30 "$left" "$MMOPS_SELFTESTS/$program" &>>"$log.$program"
		[ $? -ne 137 ] || echo "$program" >>"$log.hung"
	done
}

# Where memory is short, others are killed, or nothing would be left to look at.
echo -1000 >/proc/self/oom_score_adj
mount_disk "$disk" && add_swap /dev/vdb || exit 1
mkdir -p "$memory" && mount -t tmpfs -o size=100% mmops-soak "$memory" || exit 1
echo 1 >/sys/kernel/mm/ksm/run
thp=/sys/kernel/mm/transparent_hugepage
echo 100 >$thp/khugepaged/scan_sleep_millisecs
echo always >$thp/enabled
echo always >$thp/shmem_enabled

while :; do take_memory; done &>/dev/null &
disturbers=("$!")
while :; do compact; done &>/dev/null &
disturbers+=("$!")
while :; do plug_cpus; done &>/dev/null &
disturbers+=("$!")

rounds=0 failed=0
while [ "$SECONDS" -lt "$end" ]; do
	load_modules "$MMOPS_MODULES" || { failed=1; break; }
	insmod "$(module_file "$MMOPS_MODULES" mmops_mirror)" || { failed=1; break; }
	pids=()
	"$MMOPS_BIN/mmops-soak" --seconds "$round" "$memory/file" &
	pids+=("$!")
	"$MMOPS_BIN/mmops-soak" --seconds "$round" "$disk/file" &
	pids+=("$!")
	# Until all of it is there it takes minutes: in the first round alone.
	if [ "$rounds" -eq 0 ]; then
		"$MMOPS_BIN/mmops-crowd" --seconds "$round" "$memory/crowd" &
		pids+=("$!")
	fi
	# In another order each time, two at once.
	mapfile -t order < <(shuf -e "${races[@]}")
	run_races "$round" "${order[@]:0:4}" &
	load=("$!")
	run_races "$round" "${order[@]:4}" &
	load+=("$!")
	for pid in "${pids[@]}"; do
		wait "$pid" || failed=1
	done
	wait "${load[@]}"
	rounds=$((rounds + 1))
	echo "round $rounds, $SECONDS s: $([ "$failed" -eq 0 ] && echo nothing is lost)"
	[ "$failed" -eq 0 ] || break
	unload_modules || { failed=1; break; }
done
kill "${disturbers[@]}"
wait "${disturbers[@]}" 2>/dev/null
[ ! -e "$log.hung" ] || { echo "hung:"; cat "$log.hung"; failed=1; }
echo "$rounds rounds; $(grep -hc '^ok' "$log".* | awk '{ n += $1 } END { print n + 0 }') tests of" \
	"selftests/ passed on the way; swapped out: $(sed -n 's/^pswpout //p' /proc/vmstat) pages"
exit "$failed"
