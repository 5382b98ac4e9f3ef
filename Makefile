# All commands of this repository; `make` lists them.
# Each target creates the virtual environment .venv and installs what it needs there, once: the stamp files in .venv
# remember for which pyproject.toml and constraints.txt that was done.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# Modules are compiled when first imported: compiling all of torch, scipy and their like takes longer than the rest.
INSTALL := $(PY) -m pip install --disable-pip-version-check --no-compile --constraint constraints.txt --editable
DEMO_RUN ?= runs/demo

# If this were set, every test process would compile all that it imports again, torch above all.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all checks references lint docs bench bench-peers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Options: PYTHON=python3.12 (which Python makes .venv), DEMO_RUN=DIR (where the demo trains),"
	@echo "           PYTEST_ARGS='-k attention' (passed on to pytest)."

demo: $(VENV)/.installed-demo ## train a small BigGAN-deep on real digits and show what it learned
	$(PY) -m recipes.biggan_deep --run-dir $(DEMO_RUN) --minutes 4.95
	$(PY) -m recipes.evaluate --run $(DEMO_RUN)
	@echo "The run is in $(DEMO_RUN). 'make demo' trains it further, up to its planned steps; to start afresh, remove it"
	@echo "or name another: make demo DEMO_RUN=runs/second"

# Tests of one file run in one process, to share fixtures.
test: checks ## run what CI runs: lint, documentation without its pages, all tests but the slow ones
	$(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -rs -m "not slow" $(PYTEST_ARGS)

test-all: checks ## the same and the slow tests; what is missing for a test is named with its skip
	GAN_BLOCKS_FULL_SIZE=1 $(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -rs $(PYTEST_ARGS)

# Both at the same time, each on its own core.
checks: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory -j2 --output-sync=target lint references

# Reads and resolves everything that `docs` does; writing the pages takes three times as long.
references: $(VENV)/.installed-dev
	$(VENV)/bin/sphinx-build -b dummy -q -W -n --keep-going docs docs/_build/dummy

lint: $(VENV)/.installed-dev ## check style, types and the direction of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict
	$(VENV)/bin/lint-imports --no-logo

docs: $(VENV)/.installed-dev ## build the documentation into docs/_build/html
	$(VENV)/bin/sphinx-build -q -W -n --keep-going -j 2 docs docs/_build/html
	@echo "The documentation is in docs/_build/html/index.html"

bench: $(VENV)/.installed-dev ## measure speed and memory, 25 minutes (the machine should be idle)
	$(PY) -m benchmarks.run

bench-peers: $(VENV)/.installed-dev ## measure ours and published code in PEERS=FOLDER (see docs/speed.md)
	@test -n "$(PEERS)" || { echo "Name a folder with checkouts of published code: make bench-peers PEERS=FOLDER" >&2; exit 2; }
	$(PY) -m benchmarks.peers "$(PEERS)"

clean: ## remove built files and caches; keeps .venv and runs
	rm -rf build dist docs/_build docs/api/generated .hypothesis .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# A new interpreter behind the link makes the stamps stale too, since make looks at the file that the link points to.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "gan_blocks needs Python 3.11 or newer, which '$(PYTHON)' is not: $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name one that is, for instance: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: pyproject.toml constraints.txt $(PY)
	@echo "Installing what the demo needs into $(VENV); this happens once."
	$(INSTALL) ".[demo]"
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(PY)
	@echo "Installing what the checks and the documentation need into $(VENV); this happens once."
	$(INSTALL) ".[dev,docs]"
	@touch $@ $(VENV)/.installed-demo
