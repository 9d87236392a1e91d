#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The part of `make bench` that runs in the guest, as root, with mmops.ko, mmops_test.ko and
# mmops_ref.ko loaded. MMOPS_BIN is the directory of the binaries, MMOPS_OUT the one for
# bench.json and bench.svg. Arguments go to mmops-bench.

set -eu

: "${MMOPS_BIN:?is not set: the directory of the binaries}"
: "${MMOPS_OUT:?is not set: the directory for the results}"

for device in /dev/mmops /dev/mmops_ref; do
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

exec "$MMOPS_BIN/mmops-bench" --out "$MMOPS_OUT" "$@"
