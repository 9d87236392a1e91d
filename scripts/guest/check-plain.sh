# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The part of check.sh that is about the plain build of the modules. Sourced, not run.

kunit 20-kunit insmod "$(module_file "$MMOPS_MODULES" mmops)"

begin 30-modules
check load_mmops_test insmod "$(module_file "$MMOPS_MODULES" mmops_test)"
check load_mmops_ref insmod "$(module_file "$MMOPS_MODULES" mmops_ref)"
check load_mmops_walk insmod "$(module_file "$MMOPS_MODULES" mmops_walk)"
check load_mmops_hold insmod "$(module_file "$MMOPS_MODULES" mmops_hold)"
check load_mmops_limit insmod "$(module_file "$MMOPS_MODULES" mmops_limit)"
check load_mmops_leafmap load_leafmap "$MMOPS_MODULES"
minimal=$(module_file "$MMOPS_MODULES" mmops_minimal)
check load_mmops_minimal insmod "$minimal"
check minimal_depends_on_mmops depends_on_mmops "$minimal"
check minimal_uses_mmops in_use_by mmops_minimal
check unload_mmops_minimal rmmod mmops_minimal
# The kernel's own, whose device has memory that the CPU cannot reach.
check load_test_hmm insmod "$MMOPS_KERNEL/lib/test_hmm.ko"
check device_appears wait_for_device /dev/mmops
check test_hmm_appears wait_for_device /dev/hmm_dmirror1
check plain_build_has_no_faults faults_absent
end

group 40-selftests
"$top/selftests/run.sh" --dir "$MMOPS_SELFTESTS" "${programs[@]}" | tee "$file"

begin 41-make
check make_runs_tests make_runs_tests
end

# The kernel's own test, which counts on a file system that tracks soft-dirty: not 9p.
group 42-kernel-soft-dirty
(
	cd /tmp || exit
	LD_PRELOAD=$MMOPS_SELFTESTS/clear_refs_preload.so \
		timeout -k 10 1200 "$MMOPS_SELFTESTS/kernel/soft-dirty" 2>&1
) | tee "$file"

begin 43-kernel-soft-dirty
check it_went_through_mmops grep -qE '^# [1-9][0-9]* writes to clear_refs went to /dev/mmops' \
	"$tap/42-kernel-soft-dirty.tap"
# One that is skipped, or expected to fail, has a directive.
check nineteen_pass test "$(grep -cE '^ok [0-9]+ [^#]+$' "$tap/42-kernel-soft-dirty.tap")" = 19
end

group 45-tools
# It is started hundreds of times, and the file system of the host is read anew for each.
install -D -t /tmp/mmops-bin "$MMOPS_BIN/mmopsctl" "$MMOPS_BIN/lmdb-writer"
"$top/tools/mmopsctl/tests/guest.py" /tmp/mmops-bin/mmopsctl | tee "$file"

# A device of the same name, so one after the other.
begin 44-modules-mirror
check unload_test_hmm rmmod test_hmm
check load_mmops_mirror insmod "$(module_file "$MMOPS_MODULES" mmops_mirror)"
check mirror_appears wait_for_device /dev/hmm_dmirror1
end

[ -n "${MMOPS_TESTS:-}" ] || {
	group 46-mirror
	"$top/selftests/hmm.sh" --dir "$MMOPS_SELFTESTS" | tee "$file"
	group 47-mirror-arguments
	mirror_programs=(mirror)
	[ ! -e /proc/self/fail-nth ] || mirror_programs+=(fail_nth_mirror)
	"$top/selftests/run.sh" --dir "$MMOPS_SELFTESTS" "${mirror_programs[@]}" | tee "$file"

	# The same programs in each run, but for what KCOV finds, and as many as there is time for.
	begin 48-fuzz
	check fuzz "$MMOPS_BIN/mmops-fuzz" run --seed 1 --calls 3000 --seconds 30 \
		--corpus "$top/selftests/fuzz/corpus" --out "$MMOPS_SHARE/fuzz" --disk "$MMOPS_DISK"
	end

	# Many more in `make soak`.
	begin 49-crowd
	check crowd "$MMOPS_BIN/mmops-crowd" --processes 50 --files 4 --seconds 5 /dev/shm/crowd
	end
}

begin 50-unload
check unload unload_modules
check device_is_gone test ! -e /dev/mmops
end
