#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The loops of dirty, soft_dirty and age over a PTE table in mmops.ko call nothing for an entry,
# whether it is changed or not: the C helpers and the closures are inlined, and the atomic exchange
# stands in the loop itself.
#
# These calls may stand in the functions, since the loop over the entries makes none of them: a
# panic of an overflow check, the release of a folio for which the queue has no room (the walk makes
# room before each table), and what is done behind the loop: who tracks the file is told, the bits
# of the table are counted and put into the bitmap, pinned pages are looked for in a process that
# has ever pinned any, and the folios are queued. For that the TLB is flushed if they are many, and
# then they are looked at, 64 at a time; the blocks of one may be marked dirty, and an entry get its
# bit back whose folio cannot be pinned. A clear of soft-dirty also calls for what is rare: an entry
# that is not present, and pages that are pinned for the first time meanwhile.

set -u

objdump=${LLVM_OBJDUMP:-$(command -v llvm-objdump-22 llvm-objdump objdump | head -n 1)}
module=$MMOPS_MODULES/rust/mmops.ko
disassembly=$("$objdump" -dr --no-show-raw-insn --section=.text "$module")

# Prints the instructions and relocations of the function whose mangled name ends in what $1
# matches.
instructions()
{
	awk -v name="$1" '
		/^[0-9a-f]+ <.*>:$/ { inside = ($0 ~ name ">:$") }
		inside' <<<"$disassembly"
}

# Prints what the instructions on stdin call: the symbol of the relocation that follows, or without
# one the target itself, or the operand of an indirect call.
called()
{
	awk '
		function flush() { if (target != "") print target; target = "" }
		/R_X86_64/ { if (target != "") target = $3; flush(); next }
		{ flush() }
		/[ \t]callq?[ \t]/ { target = $NF; gsub(/[<>]/, "", target) }
		END { flush() }' | sed 's/-0x[0-9a-f]*$//' | by_name | sort -u
}

# A function in a section of its own is called as a place in .text, four bytes before it.
by_name()
{
	local target address

	while read -r target; do
		case $target in
		.text+0x*)
			address=$(printf '%016x' $((${target#.text+} + 4)))
			grep -m 1 "^$address <" <<<"$disassembly" || echo "$target" ;;
		*)
			echo "$target" ;;
		esac
	done
}

echo "KTAP version 1"
allowed='panicking|^__folio_put|FlushScope12flush_locked|RecordBitmap9set_words'
allowed="$allowed|PteTable17maps_dirty_folios|__x86_return_thunk"
allowed="$allowed|clean_record11(keep_pinned|tell_stored)|clean_record12queue_folios"
allowed="$allowed|PteTable7redirty|^folio_mark_dirty"
allowed="$allowed|PteTable(27clear_soft_dirty_nonpresent|11keep_pinned|15keep_first_pins)"
dirty='5dirty([0-9]+[a-z_]+)?'
loops="${dirty}19write_protect_table ${dirty}18clean_record_table ${dirty}24clean_record_table_queue
	${dirty}25clean_record_groups_queue ${dirty}12queue_folios 3age9age_table
	10soft_dirty.*PteTable16clear_soft_dirty"
set -- $loops
echo "1..$#"
number=0
for loop; do
	number=$((number + 1))
	body=$(instructions "$loop")
	calls=$(called <<<"$body" | grep -vE "$allowed")
	exchanges=$(grep -c cmpxchg <<<"$body")

	if [ -z "$body" ]; then
		echo "# no function $loop in $module"
	elif [ -n "$calls" ]; then
		echo "# called for an entry: $calls"
	elif [ "$exchanges" -eq 0 ] && [[ $loop != *12queue_folios ]]; then
		echo "# the atomic exchange is not inlined"
	else
		echo "ok $number ${loop##*[0-9]}_calls_nothing"
		continue
	fi
	echo "not ok $number ${loop##*[0-9]}_calls_nothing"
done
