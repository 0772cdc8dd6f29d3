# `make repro`: environment, pipeline, summary.  `make test`: environment, test suite.
# `make real-chips`: the whole pipeline on two real chips, where they are beside the repository.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The stages call `python` and `dvc` as they find them: let them find the environment's.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro test check real-chips gpu gpu-wheels requirements newest

repro: $(BIN)/.installed
	dvc repro
	python -m biomassters summary

# Each file of tests in one of two processes, in the order of tests/conftest.py.
test: $(BIN)/.installed
	python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(BIN)/.installed
	ruff check .
	ruff format --check .
	mypy

real-chips: $(BIN)/.installed
	python scripts/real_chips.py

# All that needs a GPU, by a Python that has torch of its own: benchmarks/gpu.md. DRY=1: on the CPU.
gpu:
	$(PYTHON) benchmarks/gpu.py $(if $(DRY),--dry)

# What that Python lacks, to be carried to a machine without a network.
gpu-wheels: $(BIN)/.installed
	python scripts/gpu_wheels.py

# Exact pins for Python 3.11-3.13 from pyproject.toml.
requirements: $(BIN)/.installed
	uv pip compile pyproject.toml --extra dev --constraints constraints.txt --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --upgrade \
		--output-file requirements.txt

# The newest versions that pyproject.toml allows, in this environment alone, for `make test` to try.
# Back to the pins: delete .venv.
newest: $(BIN)/.installed
	uv pip install --upgrade --compile-bytecode --python $(BIN)/python \
		--requirement pyproject.toml --extra dev

# uv, because it installs torch in seconds, and looks at no wheels that pip was configured for.
$(BIN)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "error: expected Python 3.11-3.13, got $$($(PYTHON) --version); run make PYTHON=python3.12, say"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@
