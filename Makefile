# Everything a newcomer needs: `make demo`, `make test`. Both create .venv from the lock first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Where the image and speech sets lie, if they are not in the user's cache (see `firstlight demo --help`).
export FIRSTLIGHT_DATA ?= $(wildcard ../shared/data)

.PHONY: help setup setup-dev demo test test-all test-gpu lint bench playground docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

# torch is installed first and alone, so that its CPU build is chosen before any other package asks for it.
$(VENV)/.setup: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "torch==2.13.0"
	$(PIP) --editable ".[test]"
	touch $@

$(VENV)/.setup-dev: $(VENV)/.setup
	$(PIP) --editable ".[dev]"
	touch $@

setup: $(VENV)/.setup  ## create .venv with all that the tests and the demo need
setup-dev: $(VENV)/.setup-dev  ## the same, with the tools for linting and the documentation

demo: setup  ## a 100-layer network that cannot start is diagnosed, initialized and trained: out/demo.html
	$(BIN)/firstlight demo --out out/demo.html $(ARGS)

# Two processes of one thread each; a file's tests stay together, so that what they share is made once.
# What a browser shows is tested afterwards and alone, because its rates depend on a free core.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
PARALLEL := -n 2 --dist loadfile

test: setup  ## the test suite, without the slow part
	$(PYTEST) $(PARALLEL) -m "not slow and not gpu and not browser" $(ARGS)
	$(PYTEST) -m "browser and not slow" tests/playground tests/report

test-all: setup  ## everything, the brute-force simulations too
	$(PYTEST) $(PARALLEL) -m "not gpu and not browser" $(ARGS)
	$(PYTEST) -m browser tests/playground tests/report

test-gpu: setup  ## what only an accelerator shows; skipped where torch sees none
	$(PYTEST) -m gpu tests/gpu $(ARGS)

lint: setup-dev  ## format, style, docstrings, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

bench: setup  ## measure speed, accuracy and verdicts; prints one table per benchmark
	$(BIN)/python -m benchmarks $(ARGS)

playground:  ## rebuild the playground's page (needs Node; users do not)
	cd frontend && npm ci --no-audit --no-fund --silent && npm run --silent build

docs: setup-dev  ## build the documentation into site/
	$(BIN)/mkdocs build --strict

clean:  ## remove everything that was built
	rm -rf $(VENV) out site build dist .pytest_cache .ruff_cache
