# Two commands do everything: `make demo` and `make test`. PIP_ARGS reaches pip, for example to choose a CPU build of torch.
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN = $(VENV)/bin
INSTALLED = $(VENV)/installed
FOLDERS = ran_deploy calibration converters runtime tests examples benchmarks

.PHONY: demo test lint types unit format

demo: $(INSTALLED)
	PATH="$(abspath $(BIN)):$$PATH" sh examples/demo.sh

test: lint types unit

lint: $(INSTALLED)
	$(BIN)/ruff format --check $(FOLDERS)
	$(BIN)/ruff check $(FOLDERS)

# The folders become one package only when installed; from here mypy would see half of them.
types: $(INSTALLED)
	rm -rf build
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --target build/typed ./
	cd build/typed && $(abspath $(BIN))/mypy --python-executable $(abspath $(BIN))/python --config-file ../../pyproject.toml -p ran_deploy

# One thread a process: numerical libraries that share cores spin more than they compute.
unit: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

format: $(INSTALLED)
	$(BIN)/ruff check --fix $(FOLDERS)
	$(BIN)/ruff format $(FOLDERS)

$(INSTALLED): setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[dev,tensorrt-rtx]'
	touch $@
