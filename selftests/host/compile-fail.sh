#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Misuse of the crate does not compile, and what differs in the one wrong thing does. Arguments are
# passed on: parts of the names of cases.

top=$(cd "$(dirname "$0")/../.." && pwd)
eval "$("$top/scripts/cargo-env")" || exit 1

echo "KTAP version 1"
"$CARGO" run --quiet --locked --release \
	--manifest-path "$top/selftests/compile_fail/Cargo.toml" -- \
	--modules "$MMOPS_MODULES" --out "$MMOPS_CACHE/compile_fail" \
	"$top/selftests/compile_fail/cases" "$@"
