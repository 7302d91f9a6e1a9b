# `make demo` and `make test` need Python 3.11+ and make; everything else goes into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/installed
SONG   := examples/vibe_ace.ogg
DEMO   := demo

.PHONY: help demo test lint format bench clean

help:
	@echo "make demo    install into .venv and map the example song, with pictures, into ./$(DEMO)"
	@echo "make test    install into .venv; lint, types and tests"
	@echo "make format  let ruff rewrite what it can"
	@echo "make bench   time the kernels and the whole commands"
	@echo "make clean   remove .venv, ./$(DEMO) and build leftovers"

$(STAMP): pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("mgen needs Python 3.11 or newer; say make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m mgen --version
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh $(SONG) $(DEMO)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/pytest tests/benchmarks --benchmark-enable --benchmark-only

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
