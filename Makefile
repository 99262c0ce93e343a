# `make` alone lists the targets. Everything runs in an environment of its own, made on first use.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
SCAN_BIN := $(VENV)-scan/bin
DEMO_DIR ?= .
ENV ?= local
IMAGE ?= serving
# A file of tests stays in one process, because what it sets up is set up once; ARGS=-n0 runs all in one.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo test test-fast check lint types fmt bench package plan image apply destroy output scan local-up local-down lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/installed build/terraform.rc ## create the environment (about two minutes; torch is large)

$(VENV)/installed: python/pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10 to 3.13 found. Install one, or run: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Creating $(VENV) with $$("$(PYTHON)" --version); the first time this takes some minutes."
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable './python[test]'
	@touch $@

# Where Terraform takes its provider from: a copy on this machine if there is one, else the registry.
build/terraform.rc: $(VENV)/installed python/dogbreed/aws/provider_mirror.py
	@$(BIN)/dogbreed infra mirror > /dev/null
	@mkdir -p $(@D) && touch $@

# A Chromium for the tests of the page: the machine's own, or the one that Selenium or apt-get brings.
build/browser: $(VENV)/installed python/tests/browser.py
	@$(BIN)/python python/tests/browser.py
	@mkdir -p $(@D) && touch $@

# The scanners pin old releases of boto3, packaging and networkx, so they live apart.
$(VENV)-scan/installed: python/locks/scan.txt $(VENV)/installed
	@echo "Creating $(VENV)-scan for the security scanners (half a minute)."
	@"$(PYTHON)" -m venv $(VENV)-scan
	@$(SCAN_BIN)/python -m pip install --quiet --disable-pip-version-check --requirement python/locks/scan.txt
	@touch $@

demo: setup ## pictures → tuning → training → predictions, a report and a server; DATA=folder|zip|url chooses the pictures
	@$(BIN)/dogbreed demo --folder '$(DEMO_DIR)' $(if $(DATA),--data '$(DATA)')

test: setup build/browser $(VENV)-scan/installed ## all tests, with the infrastructure's and the security scans
	cd python && SCAN_TOOLS="$(abspath $(SCAN_BIN))" ../$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-fast: setup build/browser ## the tests that take no more than some seconds each
	cd python && ../$(BIN)/python -m pytest $(PARALLEL) -m 'not slow' $(ARGS)

check: lint types test ## what CI runs

lint: setup ## style and common mistakes
	$(BIN)/ruff check --config python/pyproject.toml python lambda docker terraform benchmarks
	$(BIN)/ruff format --check --config python/pyproject.toml python lambda docker terraform benchmarks
	$(BIN)/hadolint docker/*/Dockerfile
	terraform fmt -check -recursive terraform

types: setup ## static types
	cd python && ../$(BIN)/mypy

fmt: setup ## format the code
	$(BIN)/ruff check --fix --config python/pyproject.toml python lambda docker terraform benchmarks
	$(BIN)/ruff format --config python/pyproject.toml python lambda docker terraform benchmarks
	terraform fmt -recursive terraform

package: setup ## build what Terraform uploads, into build/ (the same sources give the same bytes)
	@$(BIN)/dogbreed infra package

plan: setup ## show what `apply` would change; ENV=local (an AWS on this machine, the default), dev or prod
	@$(BIN)/dogbreed infra plan --env $(ENV)

image: setup ## build the server's container image on AWS, unless it is there; ENV=dev or prod, IMAGE=training for jobs
	@$(BIN)/dogbreed infra image $(IMAGE) --env $(ENV)

apply: setup ## show what would change, ask, and change it; YES=1 does not ask
	@$(BIN)/dogbreed infra apply --env $(ENV) $(if $(YES),--yes)

destroy: setup ## show what would be removed, ask, and remove it; data stays unless the environment says otherwise
	@$(BIN)/dogbreed infra destroy --env $(ENV) $(if $(YES),--yes)

output: setup ## print names, addresses and roles of what was made, as JSON
	@$(BIN)/dogbreed infra output --env $(ENV)

scan: setup $(VENV)-scan/installed ## security scans of Terraform, its plan, the images and all IAM policies: fails on any finding
	@$(BIN)/dogbreed infra scan --tools $(SCAN_BIN)

local-up: setup ## start the local AWS and print what points AWS clients at it
	@$(BIN)/dogbreed local up

local-down: setup ## stop the local AWS; what was made in it is gone
	@$(BIN)/dogbreed local down

lock: setup ## choose the wheels that jobs and notebook get anew, and write python/locks/
	@$(BIN)/dogbreed infra lock

bench: setup ## measure against the original recipe (half an hour); DATA=folder chooses the pictures
	$(BIN)/python benchmarks/study.py --data '$(DATA)'

clean: ## remove the environments, what was built and what the demo made; stops the local AWS first
	@test ! -x $(BIN)/dogbreed || $(BIN)/dogbreed local down || true
	rm -rf $(VENV) $(VENV)-scan build data runs
