# Every target sets up what it needs first; a second run does nothing twice.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help install up down status test unit soak bench bench-large lint format crds golden verify requirements clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Make .venv with the tenantry command

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Tenantry needs Python 3.11 or newer, and {sys.executable} is {v.major}.{v.minor}: set PYTHON=python3.11")'
	@echo "Installing into .venv (about a minute the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

up: install ## Start a control plane and the operator on this machine, with twelve tenants
	@$(BIN)/tenantry up

down: install ## Stop them and remove their data
	@$(BIN)/tenantry down

status: install ## Show what runs
	@$(BIN)/tenantry status

test: install ## Run all tests, on real control planes: two, side by side
	@$(BIN)/pytest --numprocesses 2 --dist loadfile

unit: install ## Run the tests that need no control plane
	@$(BIN)/pytest tests/unit tests/golden

soak: install ## Run the random fault tests for an hour, with ever new seeds
	@$(BIN)/python -m tests.faults.soak

bench: install ## Measure, and print figures and ratios
	@$(BIN)/python -m tests.benchmarks

bench-large: install ## Measure restarts with 10,000 tenants too
	@$(BIN)/python -m tests.benchmarks --tenants 2000,10000

lint: install ## Check style, types, layers, and that generated files are up to date
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || (echo "run 'make format'" && exit 1)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/python -m tenantry.local.generate --check

format: install ## Bring the code into its form
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

crds: install ## Generate crds/, the charts' copies of them and the kustomize base
	@$(BIN)/python -m tenantry.local.generate

golden: install ## Rewrite the golden files of children
	@$(BIN)/pytest tests/golden --update-golden

verify: crds golden ## Generate everything and fail where that changes a file
	@git diff --exit-code -- crds helm manifests tests/golden || (echo "generated files are out of date: commit them" && exit 1)

PINNED := $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url \
	--no-emit-trusted-host --no-emit-find-links --no-header

requirements: install ## Pin the newest versions that pyproject.toml allows, with hashes
	@$(BIN)/python -m pip install --quiet pip-tools
	@$(PINNED) --extra dev --extra local -o requirements.txt pyproject.toml
	@$(PINNED) --no-annotate --constraint requirements.txt -o requirements-image.txt pyproject.toml
	@$(PINNED) --no-annotate --constraint requirements.txt --only-build-deps --build-deps-for wheel -o requirements-build.txt pyproject.toml

clean: ## Remove .venv and caches
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
