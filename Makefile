# Every target is a thin call into .venv, which tools/bootstrap makes by itself.
.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest

.PHONY: help demo demo-down test unit controlplane interop verify fmt lint types contracts gen drift lock bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /|/' | awk -F'|' '{printf "  %-14s %s\n", $$1, $$2}'

$(READY): requirements/dev.lock pyproject.toml tools/bootstrap
	@tools/bootstrap

demo: $(READY) ## a local cluster, Trimtab on it, a real request trace through it, and a summary (about 4 minutes)
	@$(BIN)/trimtab demo

demo-down: $(READY) ## remove everything that the demo made
	@$(BIN)/trimtab demo --down

test: $(READY) ## all tests, those on a real control plane included
	@$(BIN)/trimtab cluster programs fetch
	@$(PYTEST)

unit: $(READY) ## the tests that need no control plane (seconds)
	@$(PYTEST) --ignore tests/controlplane

controlplane: $(READY) ## the tests on a real control plane only
	@$(BIN)/trimtab cluster programs fetch
	@$(PYTEST) tests/controlplane

interop: $(READY) ## the engine contract against TRIMTAB_ENGINE_URL (a real vLLM, for instance), else the simulator
	@$(PYTEST) tests/contract/engine

verify: lint types contracts drift ## format, lint, types, import contracts, generated files

fmt: $(READY) ## format the code and mend what the linter can
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

lint: $(READY)
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check

types: $(READY)
	@$(BIN)/mypy

contracts: $(READY)
	@$(BIN)/lint-imports

gen: $(READY) ## write the generated files: crds/, the chart's copy, manifests/install.yaml, docs/reference
	@$(BIN)/trimtab cluster programs fetch helm
	@$(BIN)/python tools/generate.py

drift: $(READY)
	@$(BIN)/trimtab cluster programs fetch helm
	@$(BIN)/python tools/generate.py --check

lock: ## pin the dependencies again (needs uv)
	@tools/lock

bench: ## list the benchmarks; run one with .venv/bin/python benchmarks/NAME.py
	@for file in benchmarks/*.py; do printf '%-34s %s\n' "$$file" "$$(sed -n '1s/^"""//;1s/"""$$//;1p' $$file)"; done

clean: ## remove the environment and caches of this checkout
	@rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis
