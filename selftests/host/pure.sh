#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What of the crate needs no kernel, in user space: its KUnit suites, and properties. What depends
# on the levels of page tables, once for four and once for five. As TAP.

top=$(cd "$(dirname "$0")/../.." && pwd)
eval "$("$top/scripts/cargo-env")" || exit 1

run() {
	"$CARGO" test --locked --release --manifest-path "$top/selftests/pure/Cargo.toml" "$@" 2>&1
}

status=0
# Of the second only what shuttle runs: without it, its atomics do not work.
log=$(run -p pure && run -p concurrent orders && echo "### five levels" &&
	run -p pure --features five-levels pgtable::soft_leaf) || status=$?
"$top/scripts/cargo-tap" "$status" <<<"$log"
