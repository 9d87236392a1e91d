#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# mmops.ko builds without the options that Documentation/own-driver.rst says it can do without, all
# of them at once, and what that page says is missing is missing then. The sources are compiled by
# the commands that Kbuild saved, against a configuration without the options; nothing of it runs,
# and the kernel's own crate is the one that was built. RUST_INLINE_HELPERS changes the commands: a
# variant of the kernel is without it.

set -u
. "$(dirname "$0")/../verdict.sh"

top=$(cd "$(dirname "$0")/../.." && pwd)
objdump=${LLVM_OBJDUMP:-$(command -v llvm-objdump-22 llvm-objdump objdump | head -n 1)}
out=$MMOPS_CACHE/options
log=$out/log
generated=$MMOPS_KERNEL/include/generated

# The options of the page's table.
options() {
	# shellcheck disable=SC2016	# quotes of reST
	sed -n '/^Without these/,/^``CONFIG_MIGRATION/p' "$top/Documentation/own-driver.rst" |
		sed -nE 's/^``(CONFIG_[A-Z0-9_]+)`` .*/\1/p'
}
# without OPTION...: the configuration on stdin without them.
without() {
	local IFS='|'
	grep -vE "\\b($*)(_MODULE)?\\b"
}
# saved FILE: the command that made it, for $out.
saved() {
	local command

	command=$(sed -n "1s/^savedcmd_[^ ]* := //p" "$MMOPS_MODULES/$(dirname "$1")/.${1##*/}.cmd")
	command=${command//"$MMOPS_MODULES"/"$out"}
	command=${command/-nostdinc/-nostdinc -I"$out/include"}
	echo "${command/"@$generated/rustc_cfg"/"@$out/rustc_cfg"}"
}
run() {
	(cd "$out" && RUSTC_BOOTSTRAP=1 bash -c "$1") >>"$log" 2>&1
}
# configure [OPTION...]: the configuration without them, and nothing that was built with another.
configure() {
	rm -rf "$out"
	mkdir -p "$out/rust" "$out/include/generated" "$out/samples/minimal"
	without "${@:-none}" <"$generated/autoconf.h" >"$out/include/generated/autoconf.h"
	without "${@:-none}" <"$generated/rustc_cfg" >"$out/rustc_cfg"
}
# Compiles what mmops.ko is made of.
build() {
	local file

	for file in bindings_generated.rs helpers.bc helpers.o lib.o; do
		run "$(saved "rust/$file")" || { tail -n 20 "$log"; return 1; }
	done
}
# Compiles a caller of soft_dirty::clear(), against the crate in $out.
build_caller() {
	local command

	cat >"$out/caller.rs" <<-END
	//! Calls what may not be supported.
	use kernel::{mm::MmWithUser, prelude::*};
	use mmops::{partial::Partial, range::AddrRange, soft_dirty::*};
	/// As it is.
	#[inline(never)]
	pub fn caller(mm: &MmWithUser, range: &AddrRange) -> Result<Partial<Cleared>> {
	    clear(mm, range, Untouched::Keep)
	}
	END
	command=$(saved samples/minimal/mmops_minimal.o)
	run "${command/"$top/samples/minimal/mmops_minimal.rs"/"$out/caller.rs"}" ||
		{ tail -n 20 "$log"; return 1; }
}

# suites OBJECT: whether it has KUnit suites.
suites() {
	"$objdump" -h "$1" | grep -q '\.kunit_test_suites'
}
# refuses OBJECT FUNCTION: whether the function, by the end of its mangled name, can return
# EOPNOTSUPP, and calls nothing that has WORK in its name.
refuses() {
	local object=$1 name=$2 work=$3

	"$objdump" -dr --no-show-raw-insn "$object" | awk -v name="$name" -v work="$work" '
		/^[0-9a-f]+ <.*>:$/ { inside = ($0 ~ name ">:$"); found += inside; next }
		# By itself, or in a word with what tells that it is an error.
		inside && tolower($0) ~ /(0xf*ffffffa1|-0x5f([^0-9a-f]|$))/ { returns = 1 }
		inside && $0 ~ work { works = 1 }
		END { exit !(found && returns && !works) }'
}

echo "KTAP version 1"
echo "1..6"
# unless COMMAND...: what is wrong if it fails.
unless() {
	"$@" || echo "not so: $*"
}
# The functions, and what they go on to where they are supported.
clear='6caller soft_dirty5clear|soft_dirty15clear_in_pieces'
take='exclusive13take_from_cpu exclusive9run_batch'

configure CONFIG_SWAP
verdict one_that_is_needed_is_missed "$(! build >/dev/null || echo "it builds without")"

mapfile -t names < <(options | grep -vx CONFIG_RUST_INLINE_HELPERS)
configure "${names[@]}"
verdict builds_without_the_others "$([ ${#names[@]} -ge 4 ] || echo "only ${names[*]}"
	build && build_caller)"
verdict has_no_suites_then "$(! suites "$out/rust/lib.o" || echo "there are some")"
# shellcheck disable=SC2086	# two words
verdict soft_dirty_is_not_supported_then \
	"$(unless refuses "$out/samples/minimal/mmops_minimal.o" $clear)"
# shellcheck disable=SC2086
verdict exclusive_is_not_supported_then "$(unless refuses "$out/rust/lib.o" $take)"

configure
cp "$MMOPS_MODULES"/rust/libmmops.rmeta "$out/rust"
# shellcheck disable=SC2086
verdict all_is_there_with_them "$(build_caller
	unless suites "$MMOPS_MODULES/rust/lib.o"
	! refuses "$out/samples/minimal/mmops_minimal.o" $clear || echo "soft_dirty is refused"
	! refuses "$MMOPS_MODULES/rust/lib.o" $take || echo "exclusive is refused")"
