#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# fuzz.sh OPTION...: the guest's side of `make fuzz`. Runs the fuzzer with these options on modules
# that are loaded for it, with a disk, swap and KSM, and unloads them.

set -u
. "$(dirname "$0")/lib.sh"

disk=/tmp/mmops-disk
kmemleak=/sys/kernel/debug/kmemleak

load_modules "$MMOPS_MODULES" && insmod "$(module_file "$MMOPS_MODULES" mmops_mirror)" || exit 1
wait_for_device /dev/hmm_dmirror0 || exit 1
mount_disk "$disk" || exit 1
add_swap /dev/vdb || exit 1
echo 1 >/sys/kernel/mm/ksm/run
[ ! -e "$kmemleak" ] || echo clear >"$kmemleak"

status=0
"$MMOPS_BIN/mmops-fuzz" run --disk "$disk" "$@" || status=$?

if [ "$status" -eq 0 ]; then
	echo 2 >/sys/kernel/mm/ksm/run
	swapoff /dev/vdb && umount "$disk" && unload_modules || status=1
	# What is found is in the kernel's log, and a report. It takes two scans.
	if [ -e "$kmemleak" ]; then
		echo scan >"$kmemleak"
		sleep 6
		echo scan >"$kmemleak"
		cat "$kmemleak"
	fi
fi
exit "$status"
