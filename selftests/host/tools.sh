#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The tests of the programs in tools/, and of what runs the cases of compile_fail/, as TAP.

top=$(cd "$(dirname "$0")/../.." && pwd)
eval "$("$top/scripts/cargo-env")" || exit 1

status=0
log=$(for directory in tools selftests/compile_fail; do
	"$CARGO" test --locked --workspace --release \
		--manifest-path "$top/$directory/Cargo.toml" 2>&1 || exit
done) || status=$?
"$top/scripts/cargo-tap" "$status" <<<"$log"
