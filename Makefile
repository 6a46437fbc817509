# The one place where commands live; CI calls them too. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
BUILT := $(or $(CARGO_TARGET_DIR),target)/debug
# Messages per run of `make bench`.
N ?= 20000

.PHONY: help setup run build test check fmt openapi bench bench-full deny clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what tests need: PostgreSQL, Redis, a C compiler (Debian; does nothing where all is there)
	@scripts/setup

run: ## Run the gateway on this machine: nothing to install, WeChat is simulated, one message is sent and shown
	$(CARGO) run --package wxgate -- dev

# One call with the dependencies of tests, so that `make test` compiles nothing twice.
build: ## Build everything, tests too
	$(CARGO) build --workspace --all-targets

test: build ## Run every test, in both modes, against private PostgreSQL and Redis processes
	$(CARGO) test --workspace --no-fail-fast

check: ## Formatting, lints, documentation, and that openapi/openapi.json is what the code says
	$(CARGO) fmt --all --check
	@$(MAKE) --no-print-directory build
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' $(CARGO) doc --no-deps --workspace
	@diff --unified openapi/openapi.json <($(BUILT)/wxgate openapi) \
		|| { echo 'openapi/openapi.json is not what the code says: run `make openapi`' >&2; exit 1; }

fmt: ## Format the code
	$(CARGO) fmt --all

openapi: build ## Write openapi/openapi.json from the code
	$(BUILT)/wxgate openapi >openapi/openapi.json.new
	mv openapi/openapi.json.new openapi/openapi.json

bench: ## Measure: messages through the gateway against the bare WeChat client, in both modes (N=20000); tokens from memory
	$(CARGO) run --release --package wxgate-tests --bin wxgate-bench -- rate sync $(N)
	$(CARGO) bench --package wxgate-broker

bench-full: bench ## Measure as well what a million due messages, ten thousand apps and a million grants change (some 20 minutes)
	$(CARGO) run --release --package wxgate-tests --bin wxgate-bench -- backlog apps grants $(N)

deny: ## Check licences, advisories and banned crates (installs cargo-deny the first time: minutes)
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check

clean: ## Remove what was built
	$(CARGO) clean
