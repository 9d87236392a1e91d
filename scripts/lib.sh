# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the scripts of this directory share. Sourced, not run.
#
# Convention: a script that makes something prints the path of it as its only line on stdout;
# everything for people goes to stderr.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
MMOPS_CACHE=${MMOPS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mmops}
export TOP MMOPS_CACHE
# mke2fs and insmod are in directories that are not on every user's PATH.
export PATH=$PATH:/usr/sbin:/sbin

# Each make started here gets its variables by name; a jobserver of the caller stays with the
# caller.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
# The language of messages that are parsed.
export LC_ALL=C.UTF-8

# The physical memory of a guest that has persistent memory and a reserved range, as kernel
# parameters; RAM are 2 GiB below 4 GiB, and what is above 9.5 GiB. Documentation/testing.rst says
# what the parts are for. Emulated memory takes memory of the host once it is written to.
# shellcheck disable=SC2034	# for the scripts that boot
guest_layout=(--append 'memmap=3G!4G' --append 'memmap=2G$7G' --append 'memmap=512M!9G')

note() {
	echo "$*" >&2
}

die() {
	echo "$(basename "$0"): $*" >&2
	exit 1
}

# hash12 < data: a short key for what is read from standard input.
hash12() {
	sha256sum | cut -c1-12
}

# with_progress WHAT LOG COMMAND...: long work, a line of progress every 20 s, all output in LOG.
with_progress() {
	local what=$1 log=$2
	shift 2
	mkdir -p "$(dirname "$log")"
	"$TOP/scripts/progress" --what "$what" --log "$log" -- "$@" >&2
}

# take_lock NAME: one at a time may work on NAME in the cache. Held until the script ends.
take_lock() {
	mkdir -p "$MMOPS_CACHE/lock"
	exec 9>"$MMOPS_CACHE/lock/$1"
	if ! flock -n 9; then
		note "waiting for another run that works on $1 ..."
		flock 9
	fi
}

# in_background COMMAND...: start long work beside what follows. It ends with this script, and
# join_background waits for it, and fails where it failed.
in_background() {
	"$@" >/dev/null &
	background=$!
	trap 'pkill -TERM -P "$background"; wait' EXIT
}
join_background() {
	trap - EXIT
	wait "$background"
}
