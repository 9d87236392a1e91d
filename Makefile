# SPDX-License-Identifier: GPL-2.0
#
# The entry points for people. The modules' own rules are in Kbuild; what a target does is in
# scripts/. Everything built goes to MMOPS_CACHE (default ~/.cache/mmops), nothing into this tree
# but what a target is asked for: out/ of demo and bench, and rust-project.json of rust-analyzer.

FLAVOUR	?= plain
OUT	?= $(CURDIR)/out
export FLAVOUR
demo bench: export OUT := $(OUT)

.DEFAULT_GOAL := help

## demo: replicate a live LMDB database in the guest
demo:
	@scripts/demo

## check: run all tests on the plain kernel
check:
	@scripts/check plain

## check-debug: run them on the debug kernel, where a kernel report fails
check-debug:
	@scripts/check debug

## check-variants: run those of the guest on other kernels and machines
check-variants:
	@scripts/variants

## check-models: verify Documentation/models with spin, within larger bounds
check-models:
	@scripts/deps --install
	@scripts/models --full

## fuzz: run the fuzzer on the debug kernel, guided by KCOV
## soak: run all at once on the debug kernel, under memory pressure
ifeq ($(origin FLAVOUR),file)
fuzz soak: FLAVOUR = debug
endif
fuzz soak:
	@scripts/$@

## bench: measure against the kernel, write bench.json and bench.svg
bench:
	@scripts/bench

## bench-static: compute cycles per entry of hot loops for some CPUs, by llvm-mca
bench-static:
	@modules=$$(scripts/modules) && scripts/bench-static "$$modules"

## shell: a prompt in the guest, with the modules loaded
shell:
	@scripts/shell

## kernel: build the patched kernel
kernel:
	@scripts/kernel $(FLAVOUR)

## modules: build the modules
modules:
	@scripts/modules modules

## modules_install: install the modules
modules_install: modules
	@scripts/modules modules_install

## rustdoc: write the documentation of the crate as HTML
rustdoc:
	@scripts/rustdoc

## rust-analyzer: write rust-project.json for editors
rust-analyzer:
	@scripts/rust-analyzer

## rustfmt: format the Rust code
rustfmt:
	@scripts/rustfmt

## rustfmtcheck: check the format of the Rust code
rustfmtcheck:
	@scripts/rustfmt --check

## clippy: lint the Rust code, where a warning is an error
clippy:
	@scripts/clippy

## unsafe-report: list all unsafe code by layer, with its reasons
unsafe-report:
	@scripts/unsafe-report

## clean: remove what was built, but kernels and bindgen
clean:
	@scripts/clean

# What `make help` says of the variables: "#= VARIABLE (targets): text".
#= BENCH_ARGS (bench): options of mmops-bench
#= BUSY=1 (check): keep all CPUs of this machine busy meanwhile
#= CALLS=1000000 (fuzz): how many ioctls
#= CONTROLS=20 (check): run the negative controls alone, so often
#= FIXES=1 (check, check-debug): with kernel/fixes, which it shows to work
#= FLAVOUR=debug (kernel, modules, shell): the debug kernel
#= FLAVOUR=plain (fuzz, soak): the plain kernel
#= INSTALL_MOD_PATH=dir (modules_install): where to install
#= KDIR=dir (modules): a kernel of your own
#= KERNEL_SRC=dir (all that build a kernel): another source of it
#= MEMORY=12G (shell): memory of the guest
#= MINUTES=10 (soak): for how long
#= MMOPS_FAULTS=1 (modules, shell): the faults for negative controls
#= OUT=dir (demo, bench): where results are written
#= PROFILE=1 (bench): write profile.txt as well
#= PROCESSES=4 (fuzz): so many run programs at the same time
#= SECONDS_MAX=3600 (fuzz): it ends after that long as well
#= SEED=7 (fuzz): the seed of a run that is to be repeated
#= SHAKE=7 (check): move threads from CPU to CPU, with this seed
#= TESTS="fork race" (check): these programs of selftests/ alone
#= VARIANTS="la57 l1tf" (check-variants): these of kernel/variants alone

## help: this list
help:
	@echo 'Targets:'
	@sed -n 's/^## \([a-z_-]*\): \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20
	@echo
	@echo 'Variables, and the targets that take them:'
	@sed -n 's/^#= \(.*\) (\(.*\)): \(.*\)/  \1\t\2\t\3/p' $(firstword $(MAKEFILE_LIST)) | \
		expand -t 26,54
	@echo
	@echo 'What is missing on the machine is installed by demo and check, on Debian.'
	@echo 'Everything built goes to $${MMOPS_CACHE:-~/.cache/mmops}.'

.PHONY: demo check check-debug check-variants check-models fuzz soak bench bench-static shell \
	kernel modules modules_install rustdoc rust-analyzer rustfmt rustfmtcheck clippy unsafe-report \
	clean help
