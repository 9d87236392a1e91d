#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# demo.sh: replicate a live LMDB database with mmopsctl, once on tmpfs and once on a disk. Runs as
# root where the modules are loaded.
#
#   MMOPS_BIN   directory with mmopsctl and lmdb-writer
#   MMOPS_OUT   directory for the picture and the logs
#   MMOPS_DISK  block device for the disk's part; it is formatted unless it holds ext4 (/dev/vda)

set -uo pipefail

bin=${MMOPS_BIN:?is to name the directory with mmopsctl and lmdb-writer}
out=${MMOPS_OUT:?is to name a directory for the results}
disk=${MMOPS_DISK:-/dev/vda}

operations=250000
rate=20000		# per second, so that a fast machine makes many rounds as well
interval=100ms
map_mib=128
patience=300		# seconds for any one step

work=''
writer_pid=''
replicate_pid=''

# shellcheck disable=SC2317 # called by the trap
clean_up() {
	[ -z "$replicate_pid" ] || kill -KILL "$replicate_pid" 2>/dev/null
	[ -z "$writer_pid" ] || kill -KILL "$writer_pid" 2>/dev/null
	wait 2>/dev/null
	[ -n "$work" ] || return
	local mount
	for mount in disk tmpfs; do
		! mountpoint -q "$work/$mount" || umount "$work/$mount"
	done
	rm -rf "$work"
}
trap clean_up EXIT

die() {
	echo "demo: $*" >&2
	exit 1
}

# expect LINE: wait until the writer says LINE.
expect() {
	local line
	read -r -t "$patience" -u "${WRITER[0]}" line || die "the writer did not get to '$1'"
	[ "$line" = "$1" ] || die "the writer said '$line' instead of '$1'"
}

# log_value STEP MEMBER FILE: a number from a log of mmopsctl.
log_value() {
	sed -n "s/^{\"step\":\"$1\".*\"$2\":\([0-9]*\).*/\1/p" "$3" | tail -n 1
}

# replicate NAME DIRECTORY: the whole of it on the file system at DIRECTORY.
replicate() {
	local name=$1 database=$2/lmdb.mdb replica=$2/replica.mdb
	local log=$out/demo-$name.jsonl summary=$work/$name.json
	local deadline rounds compared differed written entries

	echo
	echo "=== LMDB on $name"
	# Descriptors of the writer of the part before are closed: a new coprocess can start.
	coproc WRITER {
		exec "$bin/lmdb-writer" run "$database" --map-size "$map_mib" --wait \
			--operations "$operations" --rate "$rate" --summary "$summary"
	}
	writer_pid=$WRITER_PID
	expect loaded
	echo "the database is filled; the replication begins"
	"$bin/mmopsctl" replicate "$database" "$replica" --interval "$interval" --log "$log" \
		--verify &
	replicate_pid=$!
	deadline=$((SECONDS + patience))
	until [ -n "$(log_value full_copy pages "$log" 2>/dev/null)" ]; do
		kill -0 "$replicate_pid" 2>/dev/null || die "mmopsctl replicate ended too early"
		[ "$SECONDS" -lt "$deadline" ] || die "the full copy took too long"
		sleep 0.1
	done

	echo "$operations puts and deletes begin, in many transactions"
	echo go >&"${WRITER[1]}"
	expect done
	# The writer stores no more. The last round begins after the signal, so it has to have all.
	kill -INT "$replicate_pid" || die "mmopsctl replicate ended too early"
	wait "$replicate_pid" || die "mmopsctl replicate failed"
	replicate_pid=''

	rounds=$(log_value end rounds "$log")
	compared=$(log_value verify pages "$log")
	differed=$(log_value verify differed "$log")
	[ "${rounds:-0}" -ge 10 ] || die "only ${rounds:-no} rounds were made"
	grep -q '^{"step":"start".*"changes_by":"tracker"' "$log" ||
		die "there was no tracker of the database on $name"
	[ "$differed" = 0 ] ||
		die "the rounds missed ${differed:-an unknown number of} pages on $name"
	echo "the rounds missed 0 pages: all $compared that were compared are the same"

	cmp "$database" "$replica" || die "the replica on $name differs from the database"
	# Closed only now, so that the compare above was with the live file.
	exec {WRITER[1]}>&-
	read -r -t "$patience" -u "${WRITER[0]}" written || die "the writer did not close"
	wait "$writer_pid" || die "the writer failed"
	writer_pid=''
	echo "the writer: $written"
	entries=$("$bin/lmdb-writer" check "$replica" --expect "$summary") ||
		die "the replica on $name is not the database that was written"
	if command -v mdb_stat >/dev/null; then
		mdb_stat -n "$replica" >"$work/$name.stat" || die "mdb_stat cannot read the replica"
		local counted expected
		counted=$(sed -n 's/^ *Entries: //p' "$work/$name.stat")
		expected=$(sed 's/.*"entries":\([0-9]*\).*/\1/' "$summary")
		[ "$counted" = "$expected" ] ||
			die "mdb_stat counts $counted entries in the replica, not $expected"
	fi
	echo "the replica on $name is identical to the database, and opens as a database with"
	echo "the entries that were put: $entries"
}

for program in mmopsctl lmdb-writer; do
	[ -x "$bin/$program" ] || die "there is no $program in $bin: build tools/ first"
done
[ -b "$disk" ] || die "$disk is no block device: set MMOPS_DISK"
mkdir -p "$out" || die "cannot make $out"
work=$(mktemp -d) || die "cannot make a directory for the work"
mkdir "$work/tmpfs" "$work/disk"
"$bin/mmopsctl" info || die "the driver does not answer"
ldd "$bin/lmdb-writer" | sed -n 's/^[[:space:]]*\(liblmdb.*\) (.*/LMDB: \1/p'

mount -t tmpfs -o size=$((map_mib * 3))m mmops-demo "$work/tmpfs" || die "cannot mount a tmpfs"
replicate tmpfs "$work/tmpfs"
umount "$work/tmpfs" || die "cannot unmount the tmpfs"

if [ "$(blkid -o value -s TYPE "$disk")" != ext4 ]; then
	mkfs.ext4 -q -F "$disk" || die "cannot make a file system on $disk"
fi
mount -t ext4 "$disk" "$work/disk" || die "cannot mount $disk"
# Let the kernel write back all the time, instead of after half a minute: the hard case, since it
# takes dirty bits as well.
for setting in dirty_writeback_centisecs dirty_expire_centisecs; do
	echo 100 >"/proc/sys/vm/$setting" || echo "vm.$setting stays, and with it rare writeback"
done
replicate ext4 "$work/disk"
umount "$work/disk" || die "cannot unmount $disk"

echo
"$bin/mmopsctl" plot "$out/demo-tmpfs.jsonl" "$out/demo-ext4.jsonl" -o "$out/demo.svg" \
	>"$work/plot" || die "cannot draw the picture"
echo "picture: $out/demo.svg"
