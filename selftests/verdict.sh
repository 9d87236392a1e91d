# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by tests of the host: their results, as KTAP.

number=0	# results so far

# verdict NAME WRONG: ok if nothing is wrong.
verdict() {
	[ -z "$2" ] || echo "# ${2//$'\n'/$'\n'# }"
	echo "$([ -z "$2" ] && echo ok || echo not ok) $((++number)) $1"
}
