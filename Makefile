# SPDX-License-Identifier: GPL-2.0
#
# The entry points for people. The modules' own rules are in Kbuild; what a target does is in scripts/.
# Everything built goes to MMOPS_CACHE (default ~/.cache/mmops), nothing into this tree.

FLAVOUR	?= plain
OUT	?= $(CURDIR)/out
export FLAVOUR
demo bench: export OUT := $(OUT)

.DEFAULT_GOAL := help

## demo: replicate a live LMDB database in the guest; installs what is missing (Debian)
demo:
	@scripts/demo

## check: all tests on the plain kernel, installs as demo does; TESTS="fork race" for some, SHAKE=N
check:
	@scripts/check plain

## check-debug: the same on the debug kernel; a kernel report fails it; FIXES=1: see kernel/fixes
check-debug:
	@scripts/check debug

## check-models: verify Documentation/models with spin, within larger bounds than check does
check-models:
	@scripts/deps --install
	@scripts/models --full

## bench: measure against the kernel; writes OUT=out/bench.json, bench.svg; PROFILE=1: profile.txt
bench:
	@scripts/bench

## shell: a prompt in the guest with the modules loaded; FLAVOUR=plain|debug
shell:
	@scripts/shell

## kernel: build the patched kernel; FLAVOUR=plain|debug, KERNEL_SRC=dir for another source
kernel:
	@scripts/kernel $(FLAVOUR)

## modules: build the modules; KDIR=dir for a kernel of your own, MMOPS_FAULTS=1 for test faults
modules:
	@scripts/modules modules

## modules_install: install the modules below INSTALL_MOD_PATH
modules_install: modules
	@scripts/modules modules_install

## rustdoc: documentation of the crate mmops, as HTML
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

## clippy: lint the Rust code; a warning is an error
clippy:
	@scripts/clippy

## unsafe-report: all unsafe code by layer, with its reasons; fails where one is missing
unsafe-report:
	@scripts/unsafe-report

## clean: remove built modules, tools and tests from the cache; kernels stay
clean:
	@scripts/clean

## help: this list
help:
	@echo 'Targets:'
	@sed -n 's/^## \([a-z_-]*\): \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20
	@echo
	@echo 'Everything built goes to $${MMOPS_CACHE:-~/.cache/mmops}.'

.PHONY: demo check check-debug check-models bench shell kernel modules modules_install rustdoc \
	rust-analyzer rustfmt rustfmtcheck clippy unsafe-report clean help
