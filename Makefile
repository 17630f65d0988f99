# `make demo` and `make test` are all that a fresh Debian machine with Rust needs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
# Where Cargo builds, unless CARGO_TARGET_DIR says otherwise.
TARGET := $(or $(CARGO_TARGET_DIR),target)

# What the build needs besides Rust: a C compiler, and cmake for the zlib that Pingora brings.
COMMANDS := cc cmake
PACKAGES := gcc libc6-dev cmake

# What `make fuzz` runs, and for how long each.
FUZZ_SECONDS ?= 20
FUZZ_TARGETS ?= $(notdir $(wildcard fuzz/seeds/*))
FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')
# How libFuzzer is told which branches an input took. As cargo-fuzz sets them, without a sanitizer.
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1

# Panics name the files of their sources. What is handed on names none of the folders of the machine
# that built it: its source, what it builds in, Cargo's crates and the standard library.
REMAPS = --remap-path-prefix=$(CURDIR)=snapedge --remap-path-prefix=$(abspath $(TARGET))=target \
	--remap-path-prefix=$(abspath $(or $(CARGO_HOME),$(HOME)/.cargo))=cargo \
	--remap-path-prefix=$(shell rustc --print sysroot)=rust
# The systems that a binary is made for, whose crates `make sbom` and `make deb` ask Cargo about.
SYSTEMS := x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu

.PHONY: help demo test check fmt tidy clippy unit doc deny alerts crash fuzz bench bench-hit bench-fill bench-observing deb sbom tools

## List the targets.
help:
	@awk '/^## / && !said { said = substr($$0, 4) } \
		/^[a-z-]+:/ { if (said) printf "make %-12s %s\n", substr($$1, 1, length($$1) - 1), said } \
		!/^##/ { said = "" }' $(firstword $(MAKEFILE_LIST))

## Run the edge with embedded origins on 127.0.0.1:8458.
demo: tools
	@echo "Building the demo: some minutes the first time, seconds after that. \`make test\` goes on from there."
	$(CARGO) run --locked -- demo

## Format, lints and documentation with warnings denied, all tests.
test: fmt clippy doc
	$(CARGO) test --locked

## What is quick of the tests: format, structure, lints, unit tests.
check: fmt tidy clippy unit

## Compare the format with rustfmt's.
fmt: tools
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml

## Structure of the source (length of functions, who imports whom), in seconds and without a build.
tidy: tools
	mkdir -p "$(TARGET)"
	CARGO_MANIFEST_DIR="$(CURDIR)" rustc --edition 2024 --test tests/tidy/main.rs -o "$(TARGET)/tidy"
	"$(TARGET)/tidy" --quiet

## Lints, with warnings denied.
clippy: tools
	$(CARGO) clippy --locked --all-targets -- --deny warnings

## Unit tests alone.
unit: tools
	$(CARGO) test --locked --lib --quiet

## Documentation of the code, with warnings denied.
doc: tools
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --no-deps

## Licences, versions and origins of the dependencies. Needs cargo-deny.
deny: tools
	@$(CARGO) deny --version >/dev/null || { \
		echo "missing: cargo-deny, install it by: cargo install cargo-deny --locked" >&2; exit 1; }
	$(CARGO) deny --locked check --deny unmatched-skip --deny unnecessary-skip \
		--deny license-not-encountered --deny license-exception-not-encountered \
		licenses bans sources

## Alerts and their tests, by Prometheus' own promtool, which has to be installed.
alerts:
	@command -v promtool >/dev/null || { \
		echo "missing: promtool, on Debian: apt-get install prometheus" >&2; exit 1; }
	promtool check rules conf/alerts.yml
	promtool test rules tests/alerts.test.yml

## Kill the program 200 times in the middle of its work, and look at what it leaves.
crash: tools
	SNAPEDGE_CRASHES=$${SNAPEDGE_CRASHES:-200} \
		$(CARGO) test --locked --test it cache::crash -- --nocapture

## Look for inputs that break a parser: FUZZ_SECONDS (20) for each of FUZZ_TARGETS (all).
fuzz: tools
	@command -v c++ >/dev/null || { echo "missing: c++, on Debian: apt-get install g++" >&2; exit 1; }
	@echo "Building the fuzzers: some minutes the first time."
	RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --locked --release --bins \
		--manifest-path fuzz/Cargo.toml --target $(FUZZ_HOST) --target-dir fuzz/target
	@for name in $(FUZZ_TARGETS); do \
		echo "fuzzing $$name for $(FUZZ_SECONDS) s"; \
		mkdir -p fuzz/corpus/$$name fuzz/artifacts/$$name; \
		fuzz/target/$(FUZZ_HOST)/release/$$name -max_total_time=$(FUZZ_SECONDS) -timeout=10 \
			-rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 \
			-artifact_prefix=fuzz/artifacts/$$name/ fuzz/corpus/$$name fuzz/seeds/$$name; \
	done

## Benchmarks, optimised as the release is.
bench: tools
	$(CARGO) bench --locked

## CPU time of a cached archive beside nginx with `sendfile on`, which has to be installed.
bench-hit: tools
	$(CARGO) bench --locked --bench hit_vs_nginx

## CPU time of being seen: metrics and the access log, on and off.
bench-observing: tools
	$(CARGO) bench --locked --bench observing

## What a shared fetch costs, beside the origin alone.
bench-fill: tools
	$(CARGO) bench --locked --bench shared_fill

## Debian package in target/debian. DEB_BINARY names a binary that is there already.
deb: $(if $(DEB_BINARY),,tools)
	$(CARGO) fetch --locked $(SYSTEMS:%=--target %)
ifndef DEB_BINARY
	RUSTFLAGS="$(strip $(RUSTFLAGS) $(REMAPS))" $(CARGO) build --locked --release
endif
	CARGO="$(CARGO)" packaging/deb.sh "$(or $(DEB_BINARY),$(TARGET)/release/snapedge)" \
		"$(TARGET)/debian"

## What a binary is made of: an SBOM (CycloneDX) and all licences, in target/sbom. Builds nothing.
sbom:
	packaging/test_sbom.py --quiet
	$(CARGO) fetch --locked $(SYSTEMS:%=--target %)
	packaging/sbom.py --cargo "$(CARGO)" "$(TARGET)/sbom"
	@packaging/sbom.py --cargo "$(CARGO)" "$(TARGET)/sbom.again" >/dev/null
	@diff -r "$(TARGET)/sbom" "$(TARGET)/sbom.again" || { echo "two runs differ" >&2; exit 1; }
	@rm -r "$(TARGET)/sbom.again"

# Installs what is missing where that is possible, and says what to install where it is not.
tools:
	@command -v $(CARGO) >/dev/null || { \
		echo "Rust is missing: install it from https://rustup.rs and try again" >&2; exit 1; }; \
	missing=""; \
	for command in $(COMMANDS); do \
		command -v "$$command" >/dev/null || missing="$$missing $$command"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	as_root=""; \
	if [ "$$(id -u)" != 0 ]; then \
		if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root="sudo"; \
		else as_root="none"; fi; \
	fi; \
	if [ "$$as_root" = none ] || ! command -v apt-get >/dev/null; then \
		echo "missing:$$missing. Install it, on Debian by:" >&2; \
		echo "  sudo apt-get install -y $(PACKAGES)" >&2; exit 1; \
	fi; \
	echo "installing $(PACKAGES), for want of:$$missing"; \
	$$as_root apt-get update -qq; \
	DEBIAN_FRONTEND=noninteractive $$as_root apt-get install -y -qq $(PACKAGES)
