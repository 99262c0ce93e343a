# `make` alone lists the targets. Everything runs in an environment of its own, made on first use.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_DIR ?= .

.PHONY: help setup demo test test-fast check lint types fmt bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/installed ## create the environment (about two minutes; torch is large)

$(VENV)/installed: python/pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.13 found. Install one, or run: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version); the first time this takes some minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable './python[test]'
	@touch $@

demo: setup ## pictures → tuning → training → predictions and a report; DATA=folder|zip|url chooses the pictures
	@$(BIN)/dogbreed demo --folder $(DEMO_DIR) $(if $(DATA),--data '$(DATA)')

test: setup ## all tests
	cd python && ../$(BIN)/python -m pytest $(ARGS)

test-fast: setup ## the tests that take no more than some seconds each
	cd python && ../$(BIN)/python -m pytest -m 'not slow' $(ARGS)

check: lint types test ## what CI runs

lint: setup ## style and common mistakes
	$(BIN)/ruff check --config python/pyproject.toml python benchmarks
	$(BIN)/ruff format --check --config python/pyproject.toml python benchmarks

types: setup ## static types
	cd python && ../$(BIN)/mypy

fmt: setup ## format the code
	$(BIN)/ruff check --fix --config python/pyproject.toml python benchmarks
	$(BIN)/ruff format --config python/pyproject.toml python benchmarks

bench: setup ## measure against the original recipe (half an hour); DATA=folder chooses the pictures
	$(BIN)/python benchmarks/study.py --data '$(DATA)'

clean: ## remove the environment and what the demo made
	rm -rf $(VENV) data runs
