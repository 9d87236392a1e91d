#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The tests of the programs in tools/, and of what runs the cases of compile_fail/, as TAP.

top=$(cd "$(dirname "$0")/../.." && pwd)
eval "$("$top/scripts/cargo-env")" || exit 1

echo "TAP version 13"
status=0
log=$(for directory in tools selftests/compile_fail; do
	"$CARGO" test --locked --workspace --release \
		--manifest-path "$top/$directory/Cargo.toml" 2>&1 || exit
done) || status=$?
# cargo's lines are `test NAME ... ok|FAILED|ignored[, REASON]`.
awk -v status="$status" '
/^ *Running |^ *Doc-tests / { program = $NF; gsub(/[()]|.*\/|-[0-9a-f]+\)?$/, "", program) }
/^test .* \.\.\. / {
	name = $0; sub(/^test /, "", name); sub(/ \.\.\. .*/, "", name)
	result = $0; sub(/.* \.\.\. /, "", result)
	count++
	if (result == "ok")
		printf "ok %d %s: %s\n", count, program, name
	else if (result ~ /^ignored/)
		printf "ok %d %s: %s # SKIP %s\n", count, program, name, result
	else
		printf "not ok %d %s: %s\n", count, program, name
	next
}
{ print "# " $0 }
END {
	printf "%s %d cargo_test_status\n", status == 0 ? "ok" : "not ok", ++count
	print "1.." count
}' <<<"$log"
