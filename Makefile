# The two commands of the README. Both make .venv on first use; PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: demo test test-types test-faults check clean

$(VENV)/.installed: pyproject.toml setup.py
	$(PYTHON) -c 'import sys; sys.exit("driftcal needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	rm -rf $(DEMO)/store $(DEMO)/run
	$(BIN)/drift-preprocess data_manifest.yaml --out $(DEMO)/store
	$(BIN)/drift-inspect verify $(DEMO)/store
	$(BIN)/drift-inspect plot $(DEMO)/store --out $(DEMO)/figures
	$(BIN)/drift-train run $(DEMO)/store --out $(DEMO)/run
	$(BIN)/drift-train evaluate $(DEMO)/run $(DEMO)/store --split test

test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses 2

# The same tests with types and shapes checked at every call of a function; a whole number passes for a float.
test-types: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses 2 \
		--jaxtyping-packages='driftcal,beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))'

# Injected faults in the full counts: hundreds of kills and flipped bits, some minutes.
test-faults: $(VENV)/.installed
	$(BIN)/python -m pytest -m faults

# Types and imports are checked on the package as it is installed, in a folder of its own.
check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	PYTHONPATH=build/check $(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
