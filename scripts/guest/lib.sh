# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the scripts that run in the guest share. Sourced, not run.
#
# MMOPS_MODULES is the directory with the built modules.

# module_file DIR NAME: path of a built module.
module_file() {
	find "$1" -name "$2.ko" -print -quit
}

# load_modules DIR: the library, the test driver, and what only tests load when it was built.
load_modules() {
	local name file
	for name in mmops mmops_test mmops_ref; do
		file=$(module_file "$1" "$name")
		if [ -z "$file" ]; then
			[ "$name" != mmops_ref ] || continue
			echo "no $name.ko below $1" >&2
			return 1
		fi
		insmod "$file" || return 1
	done
	wait_for_device /dev/mmops
}

unload_modules() {
	local name
	for name in mmops_ref mmops_test mmops; do
		[ ! -d "/sys/module/$name" ] || rmmod "$name" || return 1
	done
}

wait_for_device() {
	local tries
	for tries in {1..50}; do
		[ ! -c "$1" ] || return 0
		sleep 0.1
	done
	echo "$1 did not appear within $((tries / 10)) s" >&2
	return 1
}

# setup_dax: /dev/dax0.0 with leaves of 1 GiB, where the guest has legacy persistent memory.
setup_dax() {
	[ -e /sys/bus/nd/devices/region0 ] || { echo "no persistent memory"; return 1; }
	[ -c /dev/dax0.0 ] || ndctl create-namespace -f -e namespace0.0 -m devdax -a 1G
	[ -c /dev/dax0.0 ]
}

# mount_disk DIR: the scratch disk, where scripts/boot was given one.
mount_disk() {
	[ -b /dev/vda ] || return 1
	mkdir -p "$1"
	mount -t ext4 /dev/vda "$1"
}
