# Needs only Python 3.11 or newer (with pip) and make. The first target run makes .venv; later ones reuse it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Whoever starts a service often waits for its sources to be compiled each time, where this is set.
unexport PYTHONDONTWRITEBYTECODE
# Where ruff, mypy and the others look; missing folders are left out.
CODE := $(wildcard arc_es projections tests docs)

# One line a package, so that a first install is seen to move.
PROGRESS := sed -u -nE '/^(Collecting|Success|ERROR)/s/^/      /p'

# All of flake8-async, but for the opt-in 9xx (rules for libraries: every async function a checkpoint; ours may answer at
# once), 124 (handlers and ports are async even when they have nothing to wait for), and 114 (its list of names cannot tell
# one `run` from another), and 119 (our generators are closed by those who read them: `aclosing`, or the end of an answer).
# In tests also not 110: another process has no trio.Event to wait for.
ASYNC_RULES := --enable=ASYNC --disable=ASYNC900,ASYNC910,ASYNC911,ASYNC912,ASYNC913,ASYNC124,ASYNC114,ASYNC119

.PHONY: help install run test test-slow test-all check format docs bench wheel clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

# Two steps, so that `make run` does not wait for test tools: the service, then everything else.
$(BIN)/python:
	@python=$$(for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	    "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; \
	done) || { echo "arc_es needs Python 3.11 or newer; none was found on PATH" >&2; exit 1; }; \
	echo "[1/2] first run: making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV) 2>/dev/null || { \
	    "$$python" -m venv --clear --without-pip $(VENV); \
	    "$$python" -m pip --python $(BIN)/python install --quiet pip; \
	}

$(VENV)/.service: $(BIN)/python pyproject.toml requirements/ci.txt
	@echo "[2/2] installing arc_es and what it needs (a minute or two the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check \
	    --constraint requirements/ci.txt --editable . | $(PROGRESS)
	@touch $@

$(VENV)/.tools: $(VENV)/.service requirements/dev.txt
	@echo "installing the test tools"
	@$(BIN)/python -m pip install --disable-pip-version-check \
	    --constraint requirements/ci.txt --requirement requirements/dev.txt \
	    | $(PROGRESS)
	@touch $@

install: $(VENV)/.tools ## Make .venv with the service and the test tools

run: $(VENV)/.service ## Start the service (options: make run ARGS="--bind 127.0.0.1:9000")
	@exec $(BIN)/arc-es serve $(ARGS)

test: $(VENV)/.tools ## Run the tests, without the slow ones (options: make test ARGS="-k lease"; one process: ARGS="-n 0")
	$(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal $(ARGS)

test-slow: $(VENV)/.tools ## Run the slow tests: real processes, faults, restarts
	$(BIN)/python -m pytest -m slow -o faulthandler_timeout=120 $(ARGS)

test-all: test test-slow ## Run all tests

check: $(VENV)/.tools ## Lint, format check, types, concurrency rules, spelling, import direction
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/flake8-async $(ASYNC_RULES) $$(find arc_es projections docs -name '*.py')
	$(BIN)/flake8-async $(ASYNC_RULES),ASYNC110 $$(find tests -name '*.py')
	$(BIN)/codespell $(CODE) .ci Makefile pyproject.toml $(wildcard *.md)
	$(BIN)/lint-imports

format: $(VENV)/.tools ## Format the code, fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.tools ## Write the generated reference pages anew
	$(BIN)/python docs/generate.py

bench: $(VENV)/.tools ## Measure this machine: ratios against floors of the same run (make bench ARGS="create wake")
	@$(BIN)/python -m tests.bench $(ARGS)

wheel: $(VENV)/.tools ## Build dist/*.whl: arc-es, and the client alone
	@rm -rf dist
	$(BIN)/python -m pip wheel --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist . ./arc_es/client

clean: ## Remove .venv, caches and build output (never arc-data)
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
