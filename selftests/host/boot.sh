#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# scripts/boot: the status of the command, and what becomes of a guest that does not come to it.

top=$(cd "$(dirname "$0")/../.." && pwd)
. "$top/scripts/lib.sh"

share=$MMOPS_CACHE/run/host-boot
qemu=${QEMU:-$(command -v qemu-system-x86_64)}
# Seconds, several times what a boot takes; a test that has to wait for all of it takes fewer, which
# the first test raises where a boot takes long.
patience=180 start=60
rm -rf "$share"
mkdir -p "$share"

boot() {
	"$top/scripts/boot" --kernel "$MMOPS_KERNEL" --share "$share" --cpus 2 --memory 1G "$@" \
		>"$share/log" 2>&1
}

# hanging_qemu N: a QEMU of which the first N guests never run an instruction. It leaves the process
# of each guest in a file, and when that began: its number can be of another one later.
hanging_qemu() {
	: >"$share/guests"
	cat >"$share/qemu" <<-EOF
		#!/bin/bash
		[[ " \$* " == *" -kernel "* ]] || exec "$qemu" "\$@"
		echo "\$\$ \$(cut -d ' ' -f 22 /proc/\$\$/stat)" >>"$share/guests"
		[ "\$(wc -l <"$share/guests")" -gt $1 ] || set -- -S "\$@"
		exec "$qemu" "\$@"
	EOF
	chmod +x "$share/qemu"
}

no_guest_is_left() {
	local pid begin
	while read -r pid begin; do
		# What has ended has no program, though it may wait for its parent.
		[ ! -e "/proc/$pid/exe" ] ||
			[ "$(cut -d ' ' -f 22 "/proc/$pid/stat")" != "$begin" ] || return 1
	done <"$share/guests"
}

number=0
report() {
	local name=$1
	shift
	if "$@"; then
		echo "ok $((++number)) $name"
	else
		sed 's/^/# /' "$share/log"
		echo "not ok $((++number)) $name"
	fi
}

status_is_the_commands() {
	local status=0 begin=$SECONDS
	boot --start-timeout "$patience" -- bash -c 'exit 7' || status=$?
	((start >= 3 * (SECONDS - begin))) || start=$((3 * (SECONDS - begin)))
	[ "$status" -eq 7 ]
}

no_guest_starts() {
	local status=0
	hanging_qemu 2
	boot --qemu "$share/qemu" --start-timeout 2 --boots 2 -- true || status=$?
	[ "$status" -eq 124 ] && [ -e "$share/console.1" ] &&
		[ ! -e "$share/console.2" ] && [ ! -e "$share/started" ] &&
		[ "$(grep -c "did not come to its command within 2 s" "$share/log")" -eq 2 ] &&
		no_guest_is_left
}

# The first guest hangs before the command, and the next one dies in it.
only_what_never_ran_is_repeated() {
	local status=0 hung
	hanging_qemu 1
	boot --qemu "$share/qemu" --start-timeout "$start" --boots 3 \
		-- bash -c "echo >>'$share/runs'; echo b >/proc/sysrq-trigger; sleep 60" ||
		status=$?
	hung=$(grep -c "did not come to its command" "$share/log")
	[ "$status" -eq 125 ] && [ "$(wc -l <"$share/runs")" -eq 1 ] && [ -e "$share/console.1" ] &&
		[ "$(wc -l <"$share/guests")" -eq $((hung + 1)) ] &&
		grep -q "the guest ended before its command did" "$share/log"
}

echo "TAP version 13"
echo "1..3"
report boot_status_is_the_commands status_is_the_commands
report boot_gives_up_when_no_guest_starts no_guest_starts
report boot_repeats_only_what_never_ran only_what_never_ran_is_repeated
rm -rf "$share"
