# `make demo` and `make test` are all that a fresh Debian machine with Rust needs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
CARGO ?= cargo

# What the build needs besides Rust: a C compiler, and cmake for the zlib that Pingora brings.
COMMANDS := cc cmake
PACKAGES := gcc libc6-dev cmake

.PHONY: demo test crash fmt clippy bench bench-hit bench-fill tools

## Run the edge with embedded origins on 127.0.0.1:8458.
demo: tools
	$(CARGO) run --locked -- demo

## Format, lints with warnings denied, all tests.
test: fmt clippy
	$(CARGO) test --locked

## Kill the program 200 times in the middle of its work, and look at what it leaves.
crash: tools
	SNAPEDGE_CRASHES=$${SNAPEDGE_CRASHES:-200} \
		$(CARGO) test --locked --test it cache::crash -- --nocapture

fmt: tools
	$(CARGO) fmt --check

clippy: tools
	$(CARGO) clippy --locked --all-targets -- --deny warnings

## Benchmarks, optimised as the release is.
bench: tools
	$(CARGO) bench --locked

## CPU time of a cached archive beside nginx with `sendfile on`, which has to be installed.
bench-hit: tools
	$(CARGO) bench --locked --bench hit_vs_nginx

## What a shared fetch costs, beside the origin alone.
bench-fill: tools
	$(CARGO) bench --locked --bench shared_fill

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
