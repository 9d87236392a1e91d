# SPDX-License-Identifier: GPL-2.0
#
# Sourced by run.sh and hmm.sh: one flat TAP stream out of those of several programs.

number=0	# results so far
failed=0	# of them, not ok
passed=()	# names of those that are ok, and were neither skipped nor expected to fail

# renumber PREFIX COMMAND...: run COMMAND, print its TAP with numbers that go on, and PREFIX
# in front of each name; anything else becomes a comment. Sets planned (empty without a plan), seen
# and status.
renumber()
{
	local prefix=$1 line
	shift
	planned=
	seen=0
	status=
	while IFS= read -r line; do
		case $line in
		"TAP version"*) ;;
		1..*) planned=${line#1..}; planned=${planned%% *} ;;
		"ok "* | "not ok "*)
			((++number, ++seen))
			[[ $line == not* ]] && ((++failed))
			[[ $line =~ ^((not )?ok)\ [0-9]+\ -?\ ?(.*)$ ]]
			echo "${BASH_REMATCH[1]} $number - $prefix${BASH_REMATCH[3]}"
			[[ $line == not* || $line == *"#"* ]] || passed+=("${BASH_REMATCH[3]}")
			;;
		"exit status "*) status=${line#exit status } ;;
		"#"*) echo "$line" ;;
		*) echo "# $line" ;;
		esac
	done < <(
		timeout -k 10 "${MMOPS_TIMEOUT:-1800}" "$@" 2>&1
		echo "exit status $?"
	)
}

# failure TEXT: one more result, not ok.
failure()
{
	((++number, ++failed))
	echo "not ok $number - $1"
}
