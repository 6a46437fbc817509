# The one place where commands live; CI calls them too. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
BUILT := $(or $(CARGO_TARGET_DIR),target)/debug
# What `make fuzz` feeds; `tests/fuzz/targets.rs` has them all.
TARGET ?= bodies
# For how many seconds; 0: until it is stopped.
FOR ?= 0
TOOLS := $(or $(CARGO_TARGET_DIR),target)/tools
# Messages per run of `make bench`.
N ?= 20000

.PHONY: help setup run build test check lint-openapi fmt openapi release-openapi clients bench bench-full fuzz deny clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what tests need: PostgreSQL, Redis, a C compiler, SDKs and generators (Debian; does nothing where all is there)
	@scripts/setup

run: ## Run the gateway on this machine: nothing to install, WeChat is simulated, one message is sent and shown
	$(CARGO) run --package wxgate -- dev

# One call with the dependencies of tests, so that `make test` compiles nothing twice.
build: ## Build everything, tests too
	$(CARGO) build --workspace --all-targets

test: setup build ## Run every test, in both modes, against private PostgreSQL and Redis processes
	$(CARGO) test --workspace --no-fail-fast

check: setup ## Formatting, lints, documentation, licences and banned crates, and that openapi/*.json is what the code says, well formed, and breaks no client
	$(CARGO) fmt --all --check
	@$(MAKE) --no-print-directory build
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
	$(CARGO) test --package wxgate-tests --test tidy --quiet
	RUSTDOCFLAGS='--deny warnings' $(CARGO) doc --no-deps --workspace
	@diff --unified openapi/openapi.json <($(BUILT)/wxgate openapi) \
		&& diff --unified openapi/openapi-3.0.json <($(BUILT)/wxgate openapi --openapi-version 3.0) \
		&& diff --unified openapi/drop-in.json <($(BUILT)/wxgate openapi --part drop-in) \
		|| { echo 'openapi/*.json is not what the code says: run `make openapi`' >&2; exit 1; }
	@$(MAKE) --no-print-directory lint-openapi
	$(CARGO) test --package wxgate-tests --test tidy released

lint-openapi: ## Read the OpenAPI documents with Spectral
	@scripts/tools --check
	PATH=$(TOOLS)/python/bin:$$PATH $(TOOLS)/node/node_modules/.bin/spectral lint --fail-severity hint \
		--ruleset tests/clients/spectral.json openapi/openapi.json openapi/openapi-3.0.json openapi/drop-in.json

fmt: ## Format the code
	$(CARGO) fmt --all

openapi: build ## Write openapi/*.json from the code: the API, its 3.0 form, and what is in WeChat's form
	$(BUILT)/wxgate openapi >openapi/openapi.json
	$(BUILT)/wxgate openapi --openapi-version 3.0 >openapi/openapi-3.0.json
	$(BUILT)/wxgate openapi --part drop-in >openapi/drop-in.json

release-openapi: ## Say that the present document is that of a release: from now on nothing in it may break
	cp openapi/openapi.json openapi/released.json

clients: build ## Make clients in all languages from the OpenAPI document and run a scenario with each
	@scripts/tools --check
	$(TOOLS)/python/bin/python tests/clients/generate.py --start $(BUILT)/wxgate

bench: ## Measure: messages through the gateway against the bare WeChat client, and beside bad logins, in both modes (N=20000); tokens from memory
	$(CARGO) run --release --package wxgate-tests --bin wxgate-bench -- rate sync logins $(N)
	$(CARGO) bench --package wxgate-broker

bench-full: bench ## Measure as well what a million due messages, ten thousand apps and a million grants change (some 20 minutes)
	$(CARGO) run --release --package wxgate-tests --bin wxgate-bench -- backlog apps grants $(N)

fuzz: ## Feed one reader of strangers' bytes to libFuzzer: `make fuzz TARGET=bodies FOR=60` (a nightly toolchain, installs cargo-fuzz)
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	@mkdir -p target/fuzz/$(TARGET)
	@cp Cargo.lock tests/fuzz/libfuzzer/
	$(CARGO) +nightly fuzz run --fuzz-dir tests/fuzz/libfuzzer $(TARGET) target/fuzz/$(TARGET) tests/fuzz/corpus/$(TARGET) \
		-- -max_len=8192 -max_total_time=$(FOR)

# `make test` holds licences, bans and sources by the same deny.toml; this adds what needs the advisories' database.
deny: ## Check advisories, licences, bans and sources with cargo-deny (installs it the first time: minutes)
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check

clean: ## Remove what was built
	$(CARGO) clean
