#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The part of `make bench` that runs in the guest, as root, with mmops.ko, mmops_test.ko,
# mmops_ref.ko and mmops_limit.ko loaded. MMOPS_BIN is the directory of the binaries, MMOPS_OUT the
# one for bench.json and bench.svg, and with MMOPS_PROFILE set for profile.txt. Arguments go to
# mmops-bench.

set -eu

: "${MMOPS_BIN:?is not set: the directory of the binaries}"
: "${MMOPS_OUT:?is not set: the directory for the results}"

for device in /dev/mmops /dev/mmops_ref /dev/mmops_limit; do
	if [ ! -c "$device" ]; then
		echo "bench: no $device: is its module loaded?" >&2
		exit 1
	fi
done

. "$(dirname "$0")/lib.sh"
quiet_khugepaged
setup_dax >"$MMOPS_OUT/dax.log" 2>&1 || echo "bench: no device-DAX, see dax.log"

# Huge pages would make the reference skip what mmops does.
shmem=/sys/kernel/mm/transparent_hugepage/shmem_enabled
if [ -w "$shmem" ]; then
	echo never >"$shmem"
fi

# A harvest that marks no folio is for pages that are never reclaimed.
export MMOPS_RAMFS=/tmp/mmops-ramfs
mkdir -p "$MMOPS_RAMFS"
mount -t ramfs ramfs "$MMOPS_RAMFS"

# Whoever reads or writes a file of the host, which is on 9p, has pinned memory from then on, as
# after direct I/O: each of its pages is asked whether it is pinned. So the program and its
# libraries lie elsewhere, its output is a pipe, and its results are carried over: the guest may
# come to its time limit.
local=/tmp/mmops-bench
mkdir -p "$local/out"
programs=("$MMOPS_BIN/mmops-bench")
# That of redis-tools is the server as well, by another name.
redis=$(command -v redis-check-rdb) && programs+=("$redis")
mapfile -t libraries < <(ldd "${programs[@]}" |
	awk '$2 == "=>" && $3 ~ "^/" { print $3 }' | sort -u)
cp "${programs[@]}" "${libraries[@]}" "$local"
if [ -n "$redis" ]; then
	mv "$local/redis-check-rdb" "$local/redis-server"
	export MMOPS_REDIS=$local/redis-server
fi
bench=(env "LD_LIBRARY_PATH=$local" "$local/mmops-bench" --out "$local/out")
carry_over() { cp "$local"/out/* "$MMOPS_OUT/" 2>/dev/null || true; }
while sleep 5; do carry_over; done &
trap 'kill %1; carry_over' EXIT

if [ -z "${MMOPS_PROFILE:-}" ]; then
	"${bench[@]}" "$@" 2>&1 | cat
	exit "${PIPESTATUS[0]}"
fi

# The guest has no performance counters, so samples come from a timer. Those inside one of the sides
# count, and not the preparation in between: the parent is the reference, or the function of mmops
# that is nearest.
sides='_shared_mapping_range$|^(make_device_exclusive|change_protection|clear_refs_write)$'
sides="$sides|^(madvise_vma_behavior|pagemap_(read|scan_pmd_entry))$|^_R.*5mmops"
data=/tmp/perf.data
echo 0 >/proc/sys/kernel/kptr_restrict
perf record --quiet -a -g -e cpu-clock -F 4999 -o "$data" \
	-- "${bench[@]}" "$@" 2>&1 | cat
status=${PIPESTATUS[0]}
{
	echo "# self time, samples, parent symbol, symbol"
	perf report -i "$data" --kallsyms=/proc/kallsyms --no-children --call-graph=none --stdio \
		--parent="$sides" --exclude-other --percentage=relative \
		--fields=overhead,sample,parent,symbol 2>/dev/null |
		c++filt | sed -E '/^(#|$)/d; s/\[[0-9a-f]{12,16}\]//g; s/ +$//; s/   +/  /g' |
		sort -rn
} >"$MMOPS_OUT/profile.txt"
exit "$status"
