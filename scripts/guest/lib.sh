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
	for name in mmops mmops_test mmops_ref mmops_walk mmops_hold mmops_limit; do
		file=$(module_file "$1" "$name")
		if [ -z "$file" ]; then
			[[ $name != mmops_@(ref|walk|hold|limit) ]] || continue
			echo "no $name.ko below $1" >&2
			return 1
		fi
		insmod "$file" || return 1
	done
	! has_reserved_memory || load_leafmap "$1" || return 1
	wait_for_device /dev/mmops
}

# has_reserved_memory: whether the guest was booted with memmap=<n>G$<n>G.
has_reserved_memory() {
	grep -qE 'memmap=[0-9]+G[$][0-9]+G' /proc/cmdline
}

# load_leafmap DIR: /dev/mmops_leafmap, with that memory.
load_leafmap() {
	local file memory
	file=$(module_file "$1" mmops_leafmap)
	memory=$(grep -oE 'memmap=[0-9]+G[$][0-9]+G' /proc/cmdline)
	[[ $memory =~ ^memmap=([0-9]+)G[$]([0-9]+)G$ ]] || return 1
	insmod "$file" size=$((BASH_REMATCH[1] << 30)) start=$((BASH_REMATCH[2] << 30))
}

# load_file_systems KERNEL: those that are modules. The guest has no /lib/modules of this kernel,
# from which mount would take them.
load_file_systems() {
	local name
	for name in xfs/xfs fuse/fuse; do
		insmod "$1/fs/$name.ko" || return 1
	done
	wait_for_device /dev/fuse
}

# load_kvm KERNEL: /dev/kvm, where the guest's CPU is one that can have guests itself. QEMU emulates
# that of AMD.
load_kvm() {
	local name
	grep -qw svm /proc/cpuinfo || { echo "the CPU has no SVM"; return 1; }
	for name in virt/lib/irqbypass arch/x86/kvm/kvm arch/x86/kvm/kvm-amd; do
		[ -e "$1/$name.ko" ] || { echo "the kernel has no $name.ko"; return 1; }
		insmod "$1/$name.ko" || return 1
	done
	wait_for_device /dev/kvm
}

unload_modules() {
	local name
	for name in mmops_mirror mmops_leafmap mmops_limit mmops_hold mmops_walk mmops_ref \
		mmops_test mmops; do
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

# setup_dax: /dev/dax0.0 with leaves of 1 GiB and /dev/dax1.0 with leaves of 2 MiB, where the guest
# has legacy persistent memory.
setup_dax() {
	[ -e /sys/bus/nd/devices/region1 ] || { echo "no persistent memory"; return 1; }
	[ -c /dev/dax0.0 ] || ndctl create-namespace -f -e namespace0.0 -m devdax -a 1G
	[ -c /dev/dax1.0 ] || ndctl create-namespace -f -e namespace1.0 -m devdax -a 2M
	[ -c /dev/dax0.0 ] && [ -c /dev/dax1.0 ]
}

# quiet_khugepaged: keep it from joining the pages of a test into a huge page, which unmaps them.
# Tests ask for that with MADV_COLLAPSE.
quiet_khugepaged() {
	local dir=/sys/kernel/mm/transparent_hugepage/khugepaged tries

	echo 86400000 >"$dir/scan_sleep_millisecs"
	# While no process asks for huge pages it does not sleep: it waits for one that does, and
	# scans at once. So there is one from now on.
	setsid python3 -c 'import mmap, signal
view = mmap.mmap(-1, 1 << 22, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
view.madvise(mmap.MADV_HUGEPAGE)
# It enters by its first page.
view[0] = 1
signal.pause()' </dev/null >/dev/null 2>&1 &
	for tries in {1..100}; do
		[ "$(<"$dir/full_scans")" -eq 0 ] || return 0
		sleep 0.1
	done
	echo "khugepaged may disturb the tests: it has not scanned within 10 s" >&2
}

# mount_disk DIR: the scratch disk, where scripts/boot was given one.
mount_disk() {
	[ -b /dev/vda ] || return 1
	mkdir -p "$1"
	mount -t ext4 /dev/vda "$1"
}

# add_swap DEVICE: swap to a scratch disk.
add_swap() {
	[ -b "$1" ] && mkswap "$1" >/dev/null && swapon "$1"
}
